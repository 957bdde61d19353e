//! Runs code that nobody trusts, and comes back: registers given, every exception caught on a stack of its own, the
//! processor put in order again. What cannot be repaired ends in a reset of the machine.
//!
//! A watchdog ends code that hangs: PIT channel 0 comes as NMI every [`WATCHDOG_MS`], also where interrupts are off.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use crate::cpu::{self, inb, outb, outw};
use crate::{apic, println, serial};

/// How long a piece of code may run.
pub const WATCHDOG_MS: u32 = 10;
/// Interrupts that a piece of code may take.
const INTERRUPTS: u32 = 200;
/// Where the code goes, and how much room it has.
pub const CODE: u64 = 0x0100_0000;
/// Bytes of code at most.
pub const CODE_BYTES: usize = 8192;
/// Data that the code may use: descriptor tables, operands, stack.
pub const DATA: u64 = 0x0101_0000;
/// Its bytes.
pub const DATA_BYTES: usize = 0x8000;
/// The top of the code's stack.
pub const STACK: u64 = 0x0102_0000;
/// What code of [`run`] is told to have "ended" by, when it comes to its end.
pub const ENDED: u64 = 0x100;
/// Where real-mode code begins.
#[cfg(target_os = "none")]
const REAL: u64 = 0x8000;
/// The copies of the progress, which outlives a reset.
const PROGRESS: [u64; 3] = [0x0018_0000, 0x01c3_5000, 0x01e7_a000];
/// Their mark.
const MAGIC: u64 = 0x6c6f_636b_6368_616f;

/// General registers in the order of their numbers.
pub type Registers = [u64; 16];

#[repr(C, align(4096))]
struct Tables {
    idt: [[u64; 2]; 256],
    gdt: [u64; 8],
    tss: [u32; 26],
    stack: [u64; 512],
}
struct Cell(UnsafeCell<Tables>);
// SAFETY: one processor, which writes the tables only outside of the code that uses them.
unsafe impl Sync for Cell {}
static TABLES: Cell =
    Cell(UnsafeCell::new(Tables { idt: [[0; 2]; 256], gdt: [0; 8], tss: [0; 26], stack: [0; 512] }));

/// What the assembly below keeps, at fixed offsets: RSP 0, the entry 8, CR4 16, CR3 24, interrupts left 32, running 36,
/// GDTR 48, IDTR 64, EFER 80, GS base 88.
#[repr(C, align(16))]
struct Kept([u64; 12]);
struct KeptCell(UnsafeCell<Kept>);
// SAFETY: as `Cell`.
unsafe impl Sync for KeptCell {}
static KEPT: KeptCell = KeptCell(UnsafeCell::new(Kept([0; 12])));

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.section .text.wild, "ax"
.balign 16
.global wild_stubs
wild_stubs:
.set wildvec, 0
.rept 256
.balign 16
    .byte 0x68
    .long wildvec
    jmp wild_caught
.set wildvec, wildvec + 1
.endr

/* [rsp] = vector, then perhaps an error code, then the frame. */
wild_caught:
    cmp dword ptr [{kept} + 36], 0
    je 3f
    cmp dword ptr [rsp], 32
    jb 2f
    dec dword ptr [{kept} + 32]
    js 2f
    push rax
    push rcx
    push rdx
    mov ecx, 0x1b
    rdmsr
    test eax, 0x400
    jz 1f
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80b
    wrmsr
    jmp 4f
1:  mov eax, 0xfee000b0
    mov dword ptr [rax], 0
4:  mov al, 0x20
    out 0x20, al
    out 0xa0, al
    pop rdx
    pop rcx
    pop rax
    add rsp, 8
    iretq
3:  /* Our own code: the watchdog and interrupts are dropped. */
    cmp dword ptr [rsp], 2
    je 5f
    cmp dword ptr [rsp], 32
    jae 5f
    mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rdx, [rsp + 16]
    and rsp, -16
    call {own_fault}
    ud2
5:  add rsp, 8
    iretq
2:  cld
    pop rdi
wild_repair:
    lgdt [{kept} + 48]
    lidt [{kept} + 64]
    mov eax, 0x80010033
    mov cr0, rax
    mov rax, [{kept} + 16]
    mov cr4, rax
    mov rax, [{kept} + 24]
    mov cr3, rax
    xor eax, eax
    mov dr7, rax
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov ecx, 0xc0000080
    mov eax, [{kept} + 80]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000101
    mov eax, [{kept} + 88]
    xor edx, edx
    wrmsr
    mov rsp, [{kept}]
    /* NMIs come again after an IRET. */
    mov rax, rsp
    push 0x10
    push rax
    push 2
    push 8
    lea rax, [rip + wild_back]
    push rax
    iretq
.global wild_end
wild_end:
    /* The code jumps here when it is through. */
    cld
    mov edi, 0x100
    jmp wild_repair
wild_back:
    mov dword ptr [{kept} + 36], 0
    mov rax, rdi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

/* Copied to REAL: compatibility mode, protected mode, no paging, real mode, then what follows at REAL + 0x200. */
.section .rodata.wildreal, "a"
.code32
.global wild_real
wild_real:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov esp, 0x7000
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    cmp edi, 0
    jne 7f
    .byte 0xea
    .long {real} + (6f - wild_real)
    .word 0x38
7:  /* Protected mode without paging it stays. */
    jmp eax_target
.code16
6:  mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word {real} + (8f - wild_real)
    .word 0
8:  xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    .byte 0x0f, 0x01, 0x1e
    .word {real} + (9f - wild_real)
    .byte 0xe9
    .word 0x200 - (12f - wild_real)
12:
.balign 8
9:  .word 0x3ff
    .long 0
.code32
eax_target:
    mov eax, {real} + 0x200
    jmp eax
.global wild_real_end
wild_real_end:
.code64
"#,
    kept = sym KEPT,
    own_fault = sym own_fault,
    real = const REAL,
);

/// A fault outside of wild code: it has overwritten us. The machine starts anew.
#[cfg(target_os = "none")]
extern "C" fn own_fault(vector: u64, first: u64, second: u64) -> ! {
    println!("@@ wild overwritten vector={vector} at={first:#x}/{second:#x}");
    reset(0)
}

/// Loads tables of its own, whose every vector comes back to [`run`], and starts the watchdog.
pub fn init() {
    // SAFETY: nothing wild runs; the tables and the kept values are this function's and the assembly's.
    unsafe {
        let tables = &mut *TABLES.0.get();
        let kept = &mut (*KEPT.0.get()).0;
        for (vector, gate) in tables.idt.iter_mut().enumerate() {
            let at = stub(vector);
            // Interrupt gate, DPL 3, IST 1.
            *gate = [(at & 0xffff) | 8 << 16 | 1 << 32 | 0xee00 << 32 | (at >> 16 & 0xffff) << 48, at >> 32];
        }
        let tss = (&raw const tables.tss) as u64;
        tables.gdt = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00cf_9b00_0000_ffff,
            103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
            // In protected mode: 16-bit code; in long mode the high half of the TSS's base, which is 0 in all that counts.
            0,
        ];
        let top = (&raw const tables.stack) as u64 + 4096;
        // RSP0 and IST1.
        (tables.tss[1], tables.tss[9], tables.tss[25]) = (top as u32, top as u32, 104 << 16);
        let pointer = |base: u64, limit: u64| [limit | base << 16, base >> 48];
        let gdtr = pointer((&raw const tables.gdt) as u64, 63);
        let idtr = pointer((&raw const tables.idt) as u64, 4095);
        let (cr3, gs): (u64, u64);
        asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack));
        asm!("rdmsr", "shl rdx, 32", "or rax, rdx", in("ecx") 0xc000_0101u32, out("rax") gs, out("rdx") _);
        let efer = cpu::rdmsr(0xc000_0080).unwrap_or(0x500);
        *kept = [0, 0, cpu::cr4(), cr3, 0, 0, gdtr[0], gdtr[1], idtr[0], idtr[1], efer, gs];
        asm!("lgdt [{g}]", "lidt [{i}]", "ltr {s:x}", g = in(reg) &kept[6], i = in(reg) &kept[8], s = in(reg) 0x30);
    }
    watch();
}

fn stub(vector: usize) -> u64 {
    #[cfg(target_os = "none")]
    {
        unsafe extern "C" {
            static wild_stubs: u8;
        }
        (&raw const wild_stubs) as u64 + 16 * vector as u64
    }
    #[cfg(not(target_os = "none"))]
    {
        vector as u64
    }
}

/// The address to which wild code jumps when it is through.
pub fn end() -> u64 {
    #[cfg(target_os = "none")]
    {
        unsafe extern "C" {
            static wild_end: u8;
        }
        (&raw const wild_end) as u64
    }
    #[cfg(not(target_os = "none"))]
    {
        0
    }
}

/// Puts the devices that the program itself needs in order: serial port, local APIC, interrupt controllers, watchdog.
pub fn watch() {
    serial::init();
    apic::write(apic::Register::LvtTimer, apic::LVT_MASKED);
    apic::enable();
    apic::end_of_interrupt();
    let count = 1_193_182 * WATCHDOG_MS / 1000;
    // SAFETY: neither the I/O APIC nor the PIT touches memory; the NMI's handler is ours.
    unsafe {
        let pin = |register: u32, value: u32| {
            (0xfec0_0000 as *mut u32).write_volatile(register);
            (0xfec0_0010 as *mut u32).write_volatile(value);
        };
        pin(0x15, 0);
        // Pin 2, where the PIT comes: NMI, edge.
        pin(0x14, 4 << 8);
        for (port, value) in [(0x43, 0x34), (0x40, count as u8), (0x40, (count >> 8) as u8)] {
            outb(port, value);
        }
        // And pin 8, where the clock's periodic interrupt comes, 32 times a second, for code that has stopped the PIT.
        pin(0x21, 0);
        pin(0x20, 4 << 8);
        for (register, value) in [(0x8a, 0x2b), (0x8b, 0x42)] {
            outb(0x70, register);
            outb(0x71, value);
        }
        clear_clock();
    }
}

/// Lets the clock interrupt again: reads register C.
fn clear_clock() {
    // SAFETY: the clock touches no memory.
    unsafe { outb(0x70, 0x0c) };
    inb(0x71);
}

/// Runs the code at `start` with these registers, RSP among them, in ring 3 or ring 0. What it ended by: a vector, or
/// [`ENDED`].
pub fn run(start: u64, registers: &Registers, ring3: bool) -> u64 {
    clear_clock();
    // SAFETY: whatever happens, `wild_caught` brings processor and stack back to here, or the machine is reset. The tables
    // are rewritten first, since the last code may have had the TSS busy or changed them.
    unsafe {
        let tables = &mut *TABLES.0.get();
        tables.gdt[6] = tables.gdt[6] & !(2 << 40) | 1 << 40;
        asm!("ltr {s:x}", s = in(reg) 0x30);
        let kept = &mut (*KEPT.0.get()).0;
        kept[1] = start;
        kept[4] = u64::from(INTERRUPTS) | 1 << 32;
        enter(registers.as_ptr(), u64::from(ring3))
    }
}

#[unsafe(naked)]
unsafe extern "C" fn enter(_registers: *const u64, _ring3: u64) -> u64 {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov [{kept}], rsp",
        "test esi, esi", "jz 2f",
        // SS 0x23, CS 0x1b is a 32-bit ring 3; IOPL 0 and 3 by the start's own choice.
        "push 0x23", "push [rdi + 32]", "mov rax, [rdi]", "and eax, 0x3000", "or eax, 0x202", "push rax",
        "push 0x1b", "push [{kept} + 8]",
        "mov rax, [rdi]", "mov rcx, [rdi + 8]", "mov rdx, [rdi + 16]", "mov rbx, [rdi + 24]",
        "mov rbp, [rdi + 40]", "mov rsi, [rdi + 48]", "mov rdi, [rdi + 56]",
        "iretq",
        "2:",
        "mov rax, [rdi]", "mov rcx, [rdi + 8]", "mov rdx, [rdi + 16]", "mov rbx, [rdi + 24]",
        "mov rsp, [rdi + 32]", "mov rbp, [rdi + 40]", "mov rsi, [rdi + 48]", "mov r8, [rdi + 64]",
        "mov r9, [rdi + 72]", "mov r10, [rdi + 80]", "mov r11, [rdi + 88]", "mov r12, [rdi + 96]",
        "mov r13, [rdi + 104]", "mov r14, [rdi + 112]", "mov r15, [rdi + 120]", "mov rdi, [rdi + 56]",
        "jmp [{kept} + 8]",
        kept = sym KEPT,
    )
}

/// Leaves long mode for `code`, for good: real mode, or 32-bit protected mode without paging. Every real-mode vector
/// resets the machine; so does the watchdog then.
pub fn leave_long_mode(code: &[u8], protected: bool) -> ! {
    #[cfg(target_os = "none")]
    // SAFETY: the memory below 640 KiB is nobody's; nothing of Rust runs after the jump.
    unsafe {
        unsafe extern "C" {
            static wild_real: u8;
            static wild_real_end: u8;
        }
        let from = &raw const wild_real;
        let length = (&raw const wild_real_end).offset_from(from) as usize;
        core::ptr::copy_nonoverlapping(from, REAL as *mut u8, length);
        let room = code.len().min(0x1000);
        core::ptr::copy_nonoverlapping(code.as_ptr(), (REAL + 0x200) as *mut u8, room);
        // mov al, 6; mov dx, 0xcf9; out dx, al; jmp $
        const STUB: [u8; 8] = [0xb0, 6, 0xba, 0xf9, 0x0c, 0xee, 0xeb, 0xfe];
        core::ptr::copy_nonoverlapping(STUB.as_ptr(), 0x600 as *mut u8, STUB.len());
        let table: *mut u32 = core::hint::black_box(core::ptr::null_mut());
        for vector in 0..256usize {
            asm!("mov dword ptr [{}], 0x600", in(reg) table as usize + 4 * vector);
        }
        let tables = &mut *TABLES.0.get();
        tables.gdt[7] = 0x0000_9b00_0000_ffff;
        asm!("push 0x28", "push {t}", "retfq", t = in(reg) REAL, in("edi") u32::from(protected), options(noreturn));
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = (code, protected);
        unreachable!("only on the machine")
    }
}

/// Resets the machine in one of the ways that a PC has: 0 the reset control register, 1 the keyboard controller, 2 port
/// 92h, 3 a triple fault, 4 the FADT's way.
pub fn reset(way: u64) -> ! {
    serial::flush();
    // SAFETY: the machine starts anew.
    unsafe {
        match way {
            1 => outb(0x64, 0xfe),
            2 => outb(0x92, 1),
            3 => {
                let none = [0u64; 2];
                asm!("lidt [{}]", "int3", in(reg) &none);
            }
            4 => outb(0xcf9, 0x0e),
            _ => {
                outb(0xcf9, 2);
                outb(0xcf9, 6);
            }
        }
    }
    for _ in 0..1000 {
        inb(0x80);
    }
    println!("@@ wild no-reset way={way}");
    power_off()
}

/// Switches the machine off by ACPI: S5 has sleep type 5 here, by `_S5` of the DSDT.
pub fn power_off() -> ! {
    serial::flush();
    // SAFETY: the machine is off then.
    unsafe { outw(0x604, 5 << 10 | 1 << 13) };
    cpu::stop()
}

/// Copies `bytes` to where wild code or its data lies.
///
/// # Panics
/// Where they do not fit.
pub fn place(at: u64, bytes: &[u8]) {
    let end = at + bytes.len() as u64;
    let fits = at >= CODE && end <= CODE + CODE_BYTES as u64 || at >= DATA && end <= STACK;
    assert!(fits, "{at:#x} is no place for wild code");
    // SAFETY: memory of no Rust object, as just checked.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

/// How far a run of episodes has come; outlives a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Seed of the run.
    pub seed: u64,
    /// The next episode.
    pub next: u64,
    /// Starts so far.
    pub starts: u64,
}

impl Progress {
    fn words(self) -> [u64; 5] {
        [
            MAGIC,
            self.seed,
            self.next,
            self.starts,
            MAGIC ^ self.seed ^ self.next ^ self.starts.rotate_left(32),
        ]
    }

    /// What a run with this seed has left, if a copy of it is whole.
    pub fn load(seed: u64) -> Option<Self> {
        let copies = PROGRESS.into_iter().filter_map(|at| {
            // SAFETY: memory of no Rust object; a read of what is not initialised gives what is there.
            let words: [u64; 5] = unsafe { (at as *const [u64; 5]).read_volatile() };
            let found = Progress { seed: words[1], next: words[2], starts: words[3] };
            (words == found.words() && found.seed == seed).then_some(found)
        });
        copies.max_by_key(|found| found.next)
    }

    /// Keeps it.
    pub fn store(self) {
        for at in PROGRESS {
            // SAFETY: memory of no Rust object.
            unsafe { (at as *mut [u64; 5]).write_volatile(self.words()) };
        }
    }
}
