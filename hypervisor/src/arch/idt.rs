//! Interrupts and exceptions: the descriptor table, the entry stubs, and who handles which vector.
//!
//! All gates are interrupt gates: a handler runs with interrupts off and must return soon. Handlers get the frame of
//! what they interrupted and may change it. Without a handler, an exception is the end (see `panic.rs`), and an
//! external interrupt is counted in the event ring and acknowledged.

use super::{alarm, apic, cpu, gdt, percpu};
use crate::events::Event;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// Vectors with a meaning. 0..32 are the processor's (SDM 3A, table 7-1).
pub mod vector {
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// Double fault.
    pub const DOUBLE_FAULT: u8 = 8;
    /// General protection.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// Page fault.
    pub const PAGE_FAULT: u8 = 14;
    /// Machine check.
    pub const MACHINE_CHECK: u8 = 18;
    /// First vector for external interrupts.
    pub const FIRST_EXTERNAL: u8 = 0x20;
    /// The legacy interrupt controllers are moved here and masked; what comes is spurious.
    pub const LEGACY: u8 = 0x20;
    /// The serial port.
    pub const SERIAL: u8 = 0x40;
    /// The first network card; each has a vector of its own.
    pub const NETWORK: u8 = 0x41;
    /// The local APIC's timer.
    pub const TIMER: u8 = 0xE0;
    /// Performance-counter overflow.
    pub const PERFORMANCE: u8 = 0xE1;
    /// Wakes a parked processor.
    pub const WAKE: u8 = 0xE2;
    /// The local APIC's error interrupt.
    pub const APIC_ERROR: u8 = 0xFE;
    /// The local APIC's spurious interrupt; never acknowledged.
    pub const SPURIOUS: u8 = 0xFF;
}

/// What an interrupt or exception found: registers as they were.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)] // the fields are the registers
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
    /// The interrupt's vector.
    pub vector: u64,
    /// The exception's error code, 0 if it has none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Deals with one vector. Interrupts are off; the local APIC is acknowledged by the dispatcher afterwards.
pub type Handler = fn(&mut Frame);

global_asm!(
    r#"
    .text
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

    .type interrupt_common, @function
interrupt_common:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call {dispatch}
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq
    .size interrupt_common, . - interrupt_common
"#,
    dispatch = sym dispatch,
    options(att_syntax)
);

unsafe extern "C" {
    static interrupt_stubs: u8;
}

/// The table, one for all processors: 256 gates of two words.
static IDT: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

/// Handlers by vector, as function addresses; 0 = none.
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Set by a panic: an NMI from now on means "stop".
static STOP: AtomicBool = AtomicBool::new(false);

/// Fills the table. Once, on the boot processor, before its first [`load`]. No gate uses an interrupt stack yet.
pub fn init() {
    let stubs = (&raw const interrupt_stubs).addr() as u64;
    for vector in 0..256u64 {
        set_gate(vector as usize, stubs + 16 * vector, 0);
    }
}

fn set_gate(vector: usize, address: u64, ist: u64) {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8E << 40;
    let selector = u64::from(gdt::CODE) << 16;
    let low =
        (address & 0xFFFF) | selector | ist << 32 | PRESENT_INTERRUPT_GATE | (address >> 16 & 0xFFFF) << 48;
    IDT[2 * vector + 1].store(address >> 32, Ordering::Relaxed);
    IDT[2 * vector].store(low, Ordering::Release);
}

/// Lets the fatal vectors and NMI use their own stacks. Once this processor, and every one that will load the table,
/// has a task state with these stacks.
pub fn use_interrupt_stacks() {
    let stubs = (&raw const interrupt_stubs).addr() as u64;
    for (vector, ist) in gdt::INTERRUPT_STACKS {
        set_gate(vector.into(), stubs + 16 * u64::from(vector), ist.into());
    }
}

/// Makes a vector's gate not present, so that it faults in its turn. For the crash tests.
pub fn break_gate(vector: u8) {
    IDT[2 * usize::from(vector)].store(0, Ordering::Relaxed);
}

/// Loads the table on this processor.
pub fn load() {
    let pointer = DescriptorTablePointer { limit: 256 * 16 - 1, base: VirtAddr::from_ptr(&IDT) };
    // SAFETY: 1. The table is static and filled by `init`. 2. Its gates lead to the stubs above, through the code
    // segment that every GDT of this kernel has.
    unsafe { lidt(&pointer) }
}

/// Makes `handler` deal with `vector` on all processors. An exception's handler returns to retry the instruction.
pub fn set_handler(vector: u8, handler: Handler) {
    HANDLERS[usize::from(vector)].store(handler as usize, Ordering::Release);
}

/// From now on an NMI stops the processor that gets it. For the last words.
pub fn stop_on_nmi() {
    STOP.store(true, Ordering::SeqCst);
}

/// Runs the handler of `frame.vector`. Called by the stubs, and by the VM-exit loop for interrupts that a VM exit
/// has acknowledged.
pub extern "C" fn dispatch(frame: &mut Frame) {
    let vector = frame.vector as u8;
    let this = percpu::this();
    if vector == vector::NMI && STOP.load(Ordering::SeqCst) {
        this.set_stopped();
        cpu::halt_forever();
    }
    let external = vector >= vector::FIRST_EXTERNAL;
    let event = match external {
        true => Event::Interrupt { vector },
        false => Event::Exception { vector, error: frame.error as u32, rip: frame.rip },
    };
    this.record(event);
    match HANDLERS[usize::from(vector)].load(Ordering::Acquire) {
        0 if !external => crate::panic::exception(frame),
        0 => {}
        address => {
            // SAFETY: only `set_handler` stores here, and it stores a `Handler`.
            let handler = unsafe { core::mem::transmute::<usize, Handler>(address) };
            handler(frame);
        }
    }
    if external && vector != vector::SPURIOUS {
        apic::eoi();
    }
    frame.rip = alarm::past_halt(frame.rip);
}

/// Moves the legacy interrupt controllers out of the exceptions' way and masks every line (Intel 8259A data sheet).
pub fn mask_legacy_controllers() {
    use super::port::write_u8;
    for (command, data, base, wiring) in
        [(0x20, 0x21, vector::LEGACY, 1 << 2), (0xA0, 0xA1, vector::LEGACY + 8, 2)]
    {
        write_u8(command, 0x11); // ICW1: edge, cascade, ICW4 follows
        write_u8(data, base);
        write_u8(data, wiring);
        write_u8(data, 0x01); // ICW4: 8086 mode
        write_u8(data, 0xFF); // all masked
    }
}
