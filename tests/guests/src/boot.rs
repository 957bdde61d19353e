//! From the Multiboot2 loader to Rust: header, 32-bit entry, long mode, start of the other processors.
//!
//! The first 4 GiB are mapped one to one, writable and open to ring 3 (these kernels have no secrets); the last of
//! the four GiB, where the APICs are, uncached. Registers: Multiboot2 specification 2.0, section 3.3.

#[cfg(target_os = "none")]
use core::arch::global_asm;

/// Bytes of stack of each processor.
pub const STACK_BYTES: usize = 64 * 1024;
/// Most processors that a test kernel starts.
pub const MAX_CPUS: usize = 8;

#[cfg(target_os = "none")]
global_asm!(
    r#"
.section .multiboot, "a"
.balign 8
mb_header:
    .long 0xe85250d6, 0, mb_header_end - mb_header, -(0xe85250d6 + (mb_header_end - mb_header))
    .word 0, 0
    .long 8
mb_header_end:

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096 * 4
.global boot_stacks
boot_stacks: .skip {stack} * {cpus}
mb_magic:  .skip 8
mb_info:   .skip 8
.global ap_number
ap_number: .skip 8

.section .rodata.boot, "a"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cf9a000000ffff
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

.section .text.boot, "ax"
.code32
.global _start32
_start32:
    cli
    cld
    mov dword ptr [mb_magic], eax
    mov dword ptr [mb_info], ebx
    mov esp, offset boot_stacks + {stack}
    /* PML4[0] -> PDPT[0..4] -> four page directories of 2 MiB pages */
    mov eax, offset boot_pdpt + 7
    mov dword ptr [boot_pml4], eax
    mov eax, offset boot_pd + 7
    xor ecx, ecx
1:  mov dword ptr [boot_pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 1b
    mov eax, 0x87
    xor ecx, ecx
2:  mov dword ptr [boot_pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 0x600
    jne 2b
    or eax, 0x18
3:  mov dword ptr [boot_pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 0x800
    jne 3b
    xor edi, edi
long_mode:
    /* edi = number of this processor */
    lgdt [boot_gdtr]
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x101
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0xea
    .long in_long_mode
    .word 8
.global ap_start32
ap_start32:
    mov edi, dword ptr [ap_number]
    mov eax, edi
    inc eax
    imul eax, eax, {stack}
    lea esp, [eax + boot_stacks]
    jmp long_mode
.code64
in_long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, esp
    mov edi, edi
    mov esi, dword ptr [mb_magic]
    mov edx, dword ptr [mb_info]
    xor ebp, ebp
    call {entry}
    ud2

/* What a started processor runs first: copied to AP_TRAMPOLINE, below 1 MiB. */
.section .rodata.ap, "a"
.code16
.global ap_trampoline
ap_trampoline:
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16
    .word {trampoline} + (ap_gdtr - ap_trampoline)
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long {trampoline} + (ap_protected - ap_trampoline)
    .word 0x18
.code32
ap_protected:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov eax, offset ap_start32
    jmp eax
.balign 8
ap_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
    .long 0
.global ap_trampoline_end
ap_trampoline_end:
.code64
"#,
    stack = const STACK_BYTES,
    cpus = const MAX_CPUS,
    trampoline = const AP_TRAMPOLINE,
    entry = sym entry,
);

/// Physical address, below 1 MiB, of the first code of a started processor.
pub const AP_TRAMPOLINE: usize = 0x8000;

/// What EAX holds at the entry from a Multiboot2 loader.
#[cfg(target_os = "none")]
const LOADER_MAGIC: u32 = 0x36d7_6289;

/// First Rust code of every processor.
#[cfg(target_os = "none")]
extern "C" fn entry(cpu: u32, magic: u32, info: u32) -> ! {
    crate::traps::init(cpu as usize);
    if cpu != 0 {
        crate::smp::enter(cpu as usize);
    }
    crate::serial::init();
    if magic != LOADER_MAGIC {
        panic!("not started by a Multiboot2 loader: EAX was {magic:#x}");
    }
    // SAFETY: the loader puts its information below 4 GiB, which is mapped, and nothing has been written since but
    // this image's own memory.
    unsafe { COMMAND_LINE = find_command_line(info as *const u8) };
    unsafe extern "Rust" {
        fn guest_main();
    }
    // SAFETY: every program defines `guest_main` by the macro `program!`.
    unsafe { guest_main() };
    unreachable!("a program ends by exit")
}

#[cfg(target_os = "none")]
static mut COMMAND_LINE: &str = "";

/// Walks the tags for type 1, the command line.
///
/// # Safety
/// `info` points at Multiboot2 information that stays as it is.
#[cfg(target_os = "none")]
unsafe fn find_command_line(info: *const u8) -> &'static str {
    let mut at = 8;
    loop {
        // SAFETY: tags follow each other, each 8-byte aligned with type and size first, up to a tag of type 0.
        let (kind, size) = unsafe {
            let tag = info.add(at).cast::<u32>();
            (tag.read(), tag.add(1).read() as usize)
        };
        match kind {
            0 => return "",
            1 => {
                // SAFETY: the tag's size covers its header (8), the text and a final zero byte.
                let text = unsafe { core::slice::from_raw_parts(info.add(at + 8), size.saturating_sub(9)) };
                return core::str::from_utf8(text).unwrap_or("");
            }
            _ => at += (size + 7) & !7,
        }
    }
}

/// The kernel's command line, without the image's path.
pub fn command_line() -> &'static str {
    #[cfg(target_os = "none")]
    // SAFETY: written once, before `guest_main` runs and before another processor starts.
    return unsafe { COMMAND_LINE };
    #[cfg(not(target_os = "none"))]
    ""
}

/// Value of `key=value` on the command line.
pub fn option(key: &str) -> Option<&'static str> {
    command_line()
        .split_ascii_whitespace()
        .find_map(|word| word.split_once('=').filter(|w| w.0 == key).map(|w| w.1))
}

/// Like [`option`], as a number: decimal, or hexadecimal with 0x. `default` where it is missing or no number.
pub fn number(key: &str, default: u64) -> u64 {
    match option(key) {
        Some(text) => parse_number(text).unwrap_or(default),
        None => default,
    }
}

/// A number in decimal, or hexadecimal with 0x.
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(parse_number("244"), Some(244));
        assert_eq!(parse_number("0xf4"), Some(244));
        assert_eq!(parse_number("f4"), None);
        assert_eq!(parse_number(""), None);
    }
}
