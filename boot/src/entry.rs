//! The first instructions: Multiboot2 header, 32-bit entry, the way to 64-bit mode, and the start of the other
//! processors. All of the crate's assembly, and all of its unsafe code, is here.
//!
//! Contract with the loader: Multiboot2 specification 2.0, section 3.3 (i386 machine state): 32-bit protected mode,
//! paging off, EAX = magic, EBX = physical address of the boot information.
//! Contract with the kernel: it exports
//! `extern "C" fn kernel_main(info: u64) -> !` and `extern "C" fn ap_main(argument: u64) -> !`, both entered in 64-bit
//! mode with interrupts off and a 16-byte aligned stack. The boot processor has the boot page tables, which map the
//! first 4 GiB one to one with every right, until the kernel replaces them; the others start with the kernel's own.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the boot processor's first stack. It has no guard page: the kernel changes to one that has.
pub const BOOT_STACK_BYTES: u64 = 64 << 10;

global_asm!(
    r#"
    .set MAGIC, 0xE85250D6
    .section .boot.header, "a"
    .balign 8
multiboot_header:
    .long MAGIC
    .long 0                                 // architecture: i386 protected mode
    .long multiboot_header_end - multiboot_header
    .long 0x100000000 - MAGIC - (multiboot_header_end - multiboot_header)
    // Entry address (the same as the ELF's): 32-bit, after the loader has left the boot services.
    .balign 8
    .short 3, 0
    .long 12
    .long multiboot_entry
    // Framebuffer: welcome, any size, 32 bits a pixel; flag 1 = the kernel starts without one as well.
    .balign 8
    .short 5, 1
    .long 20
    .long 0, 0, 32
    // Console: VGA text is as good; flag 0 of the word (a console is required) is off.
    .balign 8
    .short 4, 1
    .long 12
    .long 2
    // Modules start on a page.
    .balign 8
    .short 6, 0
    .long 8
    .balign 8
    .short 0, 0
    .long 8
multiboot_header_end:

    .section .boot.text, "ax"
    .code32
    .global multiboot_entry
multiboot_entry:
    cli
    cld
    mov esp, offset boot_stack_top
    push 0
    popfd
    mov ebp, ebx                            // the boot information, kept in EBP
    mov esi, offset message_not_multiboot2
    cmp eax, 0x36D76289
    jne refuse
    // CPUID exists if EFLAGS.ID can be changed (SDM 1, 20.1).
    mov esi, offset message_no_long_mode
    pushfd
    pop eax
    mov ecx, eax
    xor eax, 0x200000
    push eax
    popfd
    pushfd
    pop eax
    cmp eax, ecx
    je refuse
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb refuse
    mov eax, 0x80000001
    cpuid
    test edx, 0x20000000                    // LM
    jz refuse

    // Boot page tables: PML4[0] -> PDPT[0..4] -> 2048 pages of 2 MiB.
    mov eax, offset boot_pdpt + 3
    mov [boot_pml4], eax
    mov eax, offset boot_pd + 3
    mov edi, offset boot_pdpt
    mov ecx, 4
2:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop 2b
    mov eax, 0x83                           // present, writable, large
    mov edi, offset boot_pd
    mov ecx, 2048
3:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop 3b

    lgdt [boot_gdt_pointer]
    mov esi, offset boot_pml4
    mov edi, 0x100                          // LME
    call enable_long_mode
    push 0x08
    mov eax, offset boot_entry64
    push eax
    retf

// Turns paging on in 32-bit compatibility mode: PAE, CR3 = ESI, EFER |= EDI, CR0.PG and WP (SDM 3A, 11.8.5).
enable_long_mode:
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov cr3, esi
    mov ecx, 0xC0000080
    rdmsr
    or eax, edi
    wrmsr
    mov eax, cr0
    and eax, 0x9FFFFFFF                     // caches on: CD and NW are set after INIT
    or eax, 0x80010001
    mov cr0, eax
    ret

// ESI = message: on COM1 and on the VGA text screen; then exit 0x13 if the command line says so; then halt.
refuse:
    // COM1: 115200 8N1, as (offset, value) pairs.
    mov edi, offset uart_set_up
    mov ecx, 4
2:  movzx edx, byte ptr [edi]
    add edx, 0x3F8
    mov al, [edi + 1]
    out dx, al
    add edi, 2
    loop 2b
    mov edi, 0xB8000
    mov ebx, esi
4:  lodsb
    test al, al
    jz 6f
    mov cl, al
    mov edx, 0x3FD
    push ecx
    mov ecx, 100000                         // bounded: there may be no serial port
5:  in al, dx
    test al, 0x20
    jnz 7f
    loop 5b
7:  pop ecx
    mov al, cl
    mov edx, 0x3F8
    out dx, al
    mov ah, 0x0F
    mov [edi], ax
    add edi, 2
    jmp 4b
6:  cmp ebx, offset message_not_multiboot2  // then there is no boot information to search
    je 9f
    mov ecx, [ebp]                          // its size in bytes
    sub ecx, 14
    jbe 9f
    mov ebx, ebp
8:  mov esi, offset exit_word
    mov edi, ebx
    push ecx
    mov ecx, 14
    repe cmpsb
    pop ecx
    je 7f
    inc ebx
    loop 8b
    jmp 9f
7:  mov edx, 0x3FD                          // the last byte has left (TEMT), or the port is not there
    mov ecx, 1000000
5:  in al, dx
    test al, 0x40
    jnz 6f
    loop 5b
6:  mov eax, 0x13
    out 0xF4, eax
9:  hlt
    jmp 9b

    // A processor that has been started comes here from the trampoline, in 32-bit mode with the boot GDT's segments.
ap_entry32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset ap_scratch_stack_top
    mov esi, [AP_ROOT]
    mov edi, [AP_EFER]
    call enable_long_mode
    push 0x08
    mov eax, offset ap_entry64
    push eax
    retf

    .code64
boot_entry64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [boot_stack_top]
    mov edi, ebp                            // zero-extended
    xor ebp, ebp                            // end of the frame-pointer chain
    call kernel_main
    ud2

ap_entry64:
    xor eax, eax
    mov fs, eax
    mov gs, eax
    xor ebp, ebp
    // Take the stack; whoever finds none was not called (it answered after its time-out) and halts for good.
    xor eax, eax
    xchg [AP_STACK_TOP], rax
    test rax, rax
    jz 2f
    mov rsp, rax
    mov rdi, [AP_ARGUMENT]
    call ap_main
2:  cli
    hlt
    jmp 2b

    // Copied to a page below 1 MiB; the start-up IPI enters it in real mode at its first byte (SDM 3A, 10.4.4).
    .section .boot.rodata, "a"
    .code16
    .global ap_trampoline_start
ap_trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .set AP_GDT_POINTER, ap_gdt_pointer - ap_trampoline_start
    .byte 0x66, 0x0F, 0x01, 0x16            // lgdt with a 32-bit base, from the pointer below
    .short AP_GDT_POINTER
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA                        // far jump with a 32-bit offset
    .long ap_entry32
    .short 0x18
    .balign 4
ap_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt
    .global ap_trampoline_end
ap_trampoline_end:
    .code64

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF                // 0x08 code, 64-bit
    .quad 0x00CF93000000FFFF                // 0x10 data
    .quad 0x00CF9B000000FFFF                // 0x18 code, 32-bit
boot_gdt_end:
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt
message_not_multiboot2:
    .asciz "lockstep: not started by a Multiboot2 loader; use GRUB's multiboot2 command\r\n"
message_no_long_mode:
    .asciz "lockstep: this processor has no 64-bit mode (long mode); it needs an Intel processor with VMX and EPT\r\n"
uart_set_up:
    .byte 3, 0x80, 0, 1, 1, 0, 3, 3         // divisor latch on, divisor 1, latch off and 8N1
exit_word:
    .ascii "exit-port=0xf4"

    .section .boot.bss, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
    .skip 256
ap_scratch_stack_top:
    .balign 16
    .skip {stack}
boot_stack_top:

    .text
"#,
    stack = const BOOT_STACK_BYTES,
);

/// Where the next processor to be started takes its stack: the address above its top byte, 16-byte aligned.
/// The processor swaps in zero. One processor is started at a time.
#[unsafe(no_mangle)]
static AP_STACK_TOP: AtomicU64 = AtomicU64::new(0);

/// What the next processor to be started is given as `ap_main`'s argument.
#[unsafe(no_mangle)]
static AP_ARGUMENT: AtomicU64 = AtomicU64::new(0);

/// CR3 of a processor to be started.
#[unsafe(no_mangle)]
static AP_ROOT: AtomicU32 = AtomicU32::new(0);

/// Bits a processor to be started sets in IA32_EFER: LME, and NXE where the page tables use NX.
#[unsafe(no_mangle)]
static AP_EFER: AtomicU32 = AtomicU32::new(0);

/// The page tables that processors are started with: the kernel's own, the top one below 4 GiB.
pub fn set_ap_paging(root: u32, no_execute: bool) {
    AP_ROOT.store(root, Ordering::SeqCst);
    AP_EFER.store(0x100 | if no_execute { 0x800 } else { 0 }, Ordering::SeqCst);
}

/// Lays out stack and argument for the next processor to be started. After [`set_ap_paging`].
pub fn offer_ap_stack(top: u64, argument: u64) {
    assert!(top != 0 && top.is_multiple_of(16) && AP_ROOT.load(Ordering::SeqCst) != 0);
    AP_ARGUMENT.store(argument, Ordering::SeqCst);
    AP_STACK_TOP.store(top, Ordering::SeqCst);
}

/// Takes the offer back. Returns whether it was still there, that is, whether no processor came.
pub fn withdraw_ap_stack() -> bool {
    AP_STACK_TOP.swap(0, Ordering::SeqCst) != 0
}

unsafe extern "C" {
    static ap_trampoline_start: u8;
    static ap_trampoline_end: u8;
    static kernel_start: u8;
    static kernel_end: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_start: u8;
    static rodata_end: u8;
    static data_start: u8;
    static data_end: u8;
}

/// The real-mode code a start-up IPI must find at the start of a page below 1 MiB. It is position independent.
pub fn ap_trampoline() -> &'static [u8] {
    let start = &raw const ap_trampoline_start;
    let len = (&raw const ap_trampoline_end).addr() - start.addr();
    // SAFETY: 1. Both symbols bound one run of bytes in .rodata, assembled above. 2. Nothing writes to .rodata.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// What of the kernel image never changes, its code and its constants: two builds of the kernel differ in it.
pub fn constant_image() -> [&'static [u8]; 2] {
    let Image { text, rodata, .. } = image();
    [text, rodata].map(|(start, end)| {
        let from = core::ptr::with_exposed_provenance(start as usize);
        // SAFETY: 1. The linker's symbols bound what the loader has put there, identity mapped. 2. Nothing writes to it: it is mapped
        // read-only before anything else runs.
        unsafe { core::slice::from_raw_parts(from, (end - start) as usize) }
    })
}

/// The kernel image in physical memory (identity mapped), by the linker script's symbols. All bounds are page aligned.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Everything.
    pub all: (u64, u64),
    /// Code: read and execute.
    pub text: (u64, u64),
    /// Constants: read.
    pub rodata: (u64, u64),
    /// Data and bss: read and write.
    pub data: (u64, u64),
}

/// Where the kernel image lies.
pub fn image() -> Image {
    fn at(symbol: *const u8) -> u64 {
        symbol.addr() as u64
    }
    Image {
        all: (at(&raw const kernel_start), at(&raw const kernel_end)),
        text: (at(&raw const text_start), at(&raw const text_end)),
        rodata: (at(&raw const rodata_start), at(&raw const rodata_end)),
        data: (at(&raw const data_start), at(&raw const data_end)),
    }
}
