//! Guests that try to execute differently the second time: each runs into interrupts at places that are hard to hit twice, keeps
//! where they came, and prints what it all comes to.
//!
//! The words of all of them: `rounds=N` (more of everything), `period=NS` (mean time between two interrupts), `seed=N` (of
//! the periods), `pit=COUNT` (a second source of interrupts: channel 0, every COUNT ticks; 0 none), `x2apic=0` (the APIC by its memory),
//! `until=N` (again and again, until the APIC's timer has interrupted N times).

/// A piece of code in a frame that loads the registers from [`Operands`] and stores them at its end, and which the interrupt
/// handler can leave: see [`storm::leave_after`]. R14 and R15 are the frame's; the direction flag is clear behind it.
macro_rules! breakable {
    ($(#[$doc:meta])* $name:ident, $($code:literal),* $(; $($operand:tt)*)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        extern "C" fn $name(_io: *mut u64) {
            core::arch::naked_asm!(
                "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
                "mov r15, rdi", "mov r14, rsp", "lea rax, [rip + 99f]", "mov [rip + {exit}], rax",
                "mov rax, [r15]", "mov rbx, [r15 + 8]", "mov rcx, [r15 + 16]", "mov rdx, [r15 + 24]",
                "mov rsi, [r15 + 32]", "mov rdi, [r15 + 40]", "mov r8, [r15 + 48]", "mov r9, [r15 + 56]",
                "mov r10, [r15 + 64]", "mov r11, [r15 + 72]",
                $($code,)*
                "99:", "mov rsp, r14", "cld",
                "mov [r15], rax", "mov [r15 + 8], rbx", "mov [r15 + 16], rcx", "mov [r15 + 24], rdx",
                "mov [r15 + 32], rsi", "mov [r15 + 40], rdi", "mov [r15 + 48], r8", "mov [r15 + 56], r9",
                "mov [r15 + 64], r10", "mov [r15 + 72], r11",
                "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret",
                exit = sym $crate::diverge::storm::EXIT,
                $($($operand)*)?
            )
        }
    };
}

pub mod code;
pub mod debug;
pub mod devices;
pub mod flags;
pub mod loops;
pub mod paging;
pub mod recycle;
pub mod storm;
pub mod strings;
pub mod tables;
pub mod tasks;
pub mod trail;
pub mod vectors;
pub mod walks;

use crate::traps::Frame;
use crate::{Report, boot, println};

/// A piece of code that takes its operands from an array and leaves its results there.
pub type Leaf = extern "C" fn(*mut u64);

/// A part of a program by its name. It answers a number that does not depend on where interrupts came.
pub type Part = (&'static str, fn() -> u64);

/// Operands and results of a [`Leaf`]: RAX, RBX, RCX, RDX, RSI, RDI, R8 to R11.
pub type Operands = [u64; 10];

/// `rounds=` of the command line, or so many.
pub fn rounds(default: u64) -> u64 {
    boot::number("rounds", default).max(1)
}

/// Whether this part of the program is to run: `part=NAME` picks one, without it all are.
pub fn wanted(part: &str) -> bool {
    boot::option("part").is_none_or(|only| only == part)
}

/// Whether this part of the program, and no other, was asked for by its name.
pub fn named(part: &str) -> bool {
    boot::option("part") == Some(part)
}

/// Sets the handlers up, begins the storm, runs the parts that are wanted, and prints what came of it.
pub fn run(report: &mut Report, program: &str, parts: &[Part]) {
    tables::build();
    storm::start();
    let mut work = trail::SEED;
    let until = boot::number("until", 0);
    loop {
        for (name, part) in parts.iter().filter(|(name, _)| wanted(name)) {
            let before = trail::count();
            let result = part();
            println!("{name}: {result:#018x}, {} interrupts and faults", trail::count() - before);
            work = trail::mix(work, result);
            report.holds(*name, trail::count() != before);
        }
        if storm::came() >= until {
            break;
        }
    }
    storm::stop();
    println!(
        "@@ FINGERPRINT {program} work={work:#018x} trail={:#018x} came={}",
        trail::hash(),
        trail::count()
    );
    trail::print(4);
}

/// One number of all general registers of a frame.
pub fn registers(frame: &Frame) -> u64 {
    let all = [
        frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp, frame.r8, frame.r9,
        frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15,
    ];
    all.into_iter().fold(trail::SEED, trail::mix)
}
