//! GDT, TSS, IDT and what happens at an exception or interrupt; catching faults; the per-processor area.

use core::{
    arch::{asm, naked_asm},
    cell::UnsafeCell,
    fmt,
    mem::{offset_of, size_of},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::boot::MAX_CPUS;

/// Kernel code selector.
pub const KERNEL_CS: u16 = 0x08;
/// Kernel data selector.
pub const KERNEL_SS: u16 = 0x10;
/// Ring-3 data selector (SYSRET: STAR base 0x18 + 8).
pub const USER_SS: u16 = 0x20 | 3;
/// Ring-3 64-bit code selector (SYSRET: STAR base 0x18 + 16).
pub const USER_CS: u16 = 0x28 | 3;
/// Selector of the TSS.
pub const TSS: u16 = 0x30;

/// A fault that [`guarded`] caught.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Exception vector.
    pub vector: u8,
    /// Error code, 0 where the exception has none.
    pub error: u32,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "#{}({:#x})", self.vector, self.error)
    }
}

/// #GP(0).
pub const GP0: Fault = Fault { vector: 13, error: 0 };
/// #UD.
pub const UD: Fault = Fault { vector: 6, error: 0 };

/// Registers at an exception or interrupt, as the stub pushes them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Called for an interrupt or exception; may change the frame.
pub type Handler = fn(&mut Frame);

/// What GS points at.
#[repr(C, align(16))]
struct Area {
    /// RSP to return to when a guarded call faults; 0: no guarded call under way.
    guard: u64,
    /// What the guarded call's fault was: vector | error << 8.
    fault: u64,
    /// Number of this processor.
    number: u64,
    /// RSP to return to when ring-3 code leaves (module ring3).
    ring0_rsp: u64,
    gdt: [u64; 8],
    tss: [u32; 26],
}

/// Offset of [`Area::ring0_rsp`] from GS, for the ring-3 stubs.
pub const RING0_RSP: usize = offset_of!(Area, ring0_rsp);

struct Areas(UnsafeCell<[Area; MAX_CPUS]>);
// SAFETY: each processor touches only its own element.
unsafe impl Sync for Areas {}
static AREAS: Areas = Areas(UnsafeCell::new(
    [const { Area { guard: 0, fault: 0, number: 0, ring0_rsp: 0, gdt: [0; 8], tss: [0; 26] } }; MAX_CPUS],
));

/// One 16-byte gate.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate([u32; 4]);
struct Idt(UnsafeCell<[Gate; 256]>);
// SAFETY: written before other processors start, or by a program for a vector that is not in use at that time.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([Gate([0; 4]); 256]));

static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Loads this processor's tables and its area.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
pub(crate) fn init(number: usize) {
    assert!(number < MAX_CPUS, "processor {number} is beyond MAX_CPUS");
    // SAFETY: this processor's own area, before anything uses it.
    let area = unsafe { &mut (*AREAS.0.get())[number] };
    area.number = number as u64;
    let tss = (&raw const area.tss) as u64;
    area.gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        103 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
        tss >> 32,
    ];
    area.tss[25] = 104 << 16;
    if number == 0 {
        for vector in 0..256 {
            set_gate(vector as u8, stub_address(vector), 0);
        }
    }
    let gdtr = Pointer { limit: size_of::<[u64; 8]>() as u16 - 1, base: (&raw const area.gdt) as u64 };
    let idtr = Pointer { limit: 4095, base: IDT.0.get() as u64 };
    let gs = (&raw const *area) as u64;
    // SAFETY: both tables are statics; the selectors name the same flat segments as the loader's table did; GS base
    // is this processor's area. Segment registers are loaded before the base since a load clears it; with null, since
    // IRET to ring 3 would make a ring-0 selector null and might take the base with it.
    unsafe {
        asm!("lgdt [{g}]", "lidt [{i}]", "push 8", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:",
            "mov {t:e}, 0x10", "mov ss, {t:e}", "xor {t:e}, {t:e}", "mov ds, {t:e}", "mov es, {t:e}",
            "mov fs, {t:e}", "mov gs, {t:e}", "ltr {s:x}",
            g = in(reg) &gdtr, i = in(reg) &idtr, s = in(reg) TSS, t = out(reg) _);
        asm!("wrmsr", in("ecx") 0xc000_0101u32, in("eax") gs as u32, in("edx") (gs >> 32) as u32);
    }
}

/// Number of the running processor: 0 is the one that booted.
pub fn cpu_number() -> usize {
    let number: u64;
    // SAFETY: GS points at this processor's area since `init`.
    unsafe {
        asm!("mov {}, gs:[{o}]", out(reg) number, o = const offset_of!(Area, number), options(nostack))
    };
    number as usize
}

/// Sets RSP0, the stack for a change from ring 3 to ring 0, of this processor.
///
/// # Safety
/// `rsp` is the top of a stack that nothing else uses.
pub unsafe fn set_rsp0(rsp: u64) {
    // SAFETY: this processor's own area; the TSS is only read by the processor, at a ring change.
    let area = unsafe { &mut (*AREAS.0.get())[cpu_number()] };
    area.tss[1] = rsp as u32;
    area.tss[2] = (rsp >> 32) as u32;
}

/// Points an IDT entry at raw code (interrupt gate). `dpl` 3 lets ring 3 use it by INT n.
fn set_gate(vector: u8, address: u64, dpl: u32) {
    let gate = Gate([
        address as u32 & 0xffff | u32::from(KERNEL_CS) << 16,
        address as u32 & 0xffff_0000 | 0x8e00 | dpl << 13,
        (address >> 32) as u32,
        0,
    ]);
    // SAFETY: a table of our own; one writer, see `Idt`.
    unsafe { (*IDT.0.get())[vector as usize] = gate };
}

/// Raw code behind an IDT entry, reached without the common stub, also by INT n from ring 3.
///
/// # Safety
/// `code` ends in IRETQ, keeps every register it does not own, and takes no error code unless the vector has one.
pub unsafe fn set_raw_gate(vector: u8, code: unsafe extern "C" fn()) {
    set_gate(vector, code as usize as u64, 3);
}

/// Puts the common stub back behind an IDT entry.
pub fn reset_gate(vector: u8) {
    set_gate(vector, stub_address(vector as usize), 0);
}

/// Sends a vector to `handler`; `None`: back to the default (a panic, or caught by [`guarded`]).
pub fn set_handler(vector: u8, handler: Option<Handler>) {
    HANDLERS[vector as usize].store(handler.map_or(0, |h| h as usize), Ordering::SeqCst);
}

/// Address of the stub of a vector.
fn stub_address(vector: usize) -> u64 {
    #[cfg(target_os = "none")]
    {
        unsafe extern "C" {
            static trap_stubs: u8;
        }
        (&raw const trap_stubs) as u64 + 16 * vector as u64
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = vector;
        0
    }
}

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.section .text.traps, "ax"
.balign 16
.global trap_stubs
trap_stubs:
.set vec, 0
.rept 256
.balign 16
.if !((vec == 8) || (vec >= 10 && vec <= 14) || (vec == 17) || (vec == 21) || (vec == 29) || (vec == 30))
    push 0
.endif
    .byte 0x68
    .long vec
    jmp trap_common
.set vec, vec + 1
.endr
trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call {handle}
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
"#,
    handle = sym handle,
);

/// Every trap that has no raw gate comes here.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
extern "C" fn handle(frame: &mut Frame) {
    let handler = HANDLERS[frame.vector as usize & 0xff].load(Ordering::SeqCst);
    if handler != 0 {
        // SAFETY: only `set_handler` stores here, and only a `Handler` or 0.
        let handler: Handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
        return handler(frame);
    }
    // SAFETY: this processor's own area; nothing else runs on it now.
    let area = unsafe { &mut (*AREAS.0.get())[cpu_number()] };
    if frame.vector < 32 && area.guard != 0 {
        area.fault = frame.vector | frame.error << 8;
        frame.rip = guard_fault as *const () as u64;
        frame.rsp = area.guard;
        frame.cs = KERNEL_CS.into();
        frame.ss = KERNEL_SS.into();
        frame.rflags &= !(1 << 8 | 1 << 10);
        area.guard = 0;
        return;
    }
    panic!("unexpected vector {} on processor {}: {}", frame.vector, area.number, Registers(frame));
}

/// Calls `leaf(data)`; a fault inside comes back as `Err`.
///
/// `leaf` must be assembly without anything to unwind (a naked function): its frame is thrown away by a fault.
pub fn guarded<const N: usize>(leaf: extern "C" fn(*mut u64), data: &mut [u64; N]) -> Result<(), Fault> {
    // SAFETY: `leaf` gets a valid pointer; registers are saved by the guard around it.
    let ok = unsafe { guard_call(leaf, data.as_mut_ptr()) } == 0;
    if ok {
        return Ok(());
    }
    // SAFETY: this processor's own area.
    let fault = unsafe { (*AREAS.0.get())[cpu_number()].fault };
    Err(Fault { vector: fault as u8, error: (fault >> 8) as u32 })
}

#[unsafe(naked)]
unsafe extern "C" fn guard_call(_leaf: extern "C" fn(*mut u64), _data: *mut u64) -> u64 {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov gs:[{guard}], rsp",
        "sub rsp, 8",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "add rsp, 8",
        "xor eax, eax",
        "mov gs:[{guard}], rax",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        guard = const offset_of!(Area, guard),
    )
}

/// Where a fault of a guarded call goes on, with RSP as it was after the pushes.
#[unsafe(naked)]
extern "C" fn guard_fault() {
    naked_asm!("mov eax, 1", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret")
}

/// Prints a frame for people.
struct Registers<'a>(&'a Frame);

impl fmt::Display for Registers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let r = self.0;
        let cr2: u64;
        // SAFETY: reading CR2 has no effect.
        unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack)) };
        write!(
            f,
            "error {:#x} cr2 {cr2:#x} cs:rip {:#x}:{:#x} ss:rsp {:#x}:{:#x} ",
            r.error, r.cs, r.rip, r.ss, r.rsp
        )?;
        write!(
            f,
            "rflags {:#x} rax {:#x} rcx {:#x} rdx {:#x} rdi {:#x}",
            r.rflags, r.rax, r.rcx, r.rdx, r.rdi
        )
    }
}
