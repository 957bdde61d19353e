//! The last words: what went wrong, registers, VMCS, events, backtrace; and the end of the run.
//!
//! Whoever comes first speaks; every other processor is stopped by NMI. A fault while speaking ends the run at once.

use crate::arch::idt::Frame;
use crate::arch::{backtrace, cpu, paging, percpu, stack, time};
use crate::symbols::Symbols;
use crate::{console, events, machine_line, smp};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::Once;

/// Newest events shown of each processor.
const EVENTS_SHOWN: usize = 16;

/// Exceptions by vector (SDM 3A, table 7-1): the word for machines.
const EXCEPTIONS: [&str; 32] = [
    "divide-error",
    "debug",
    "nmi",
    "breakpoint",
    "overflow",
    "bound-range",
    "invalid-opcode",
    "no-coprocessor",
    "double-fault",
    "coprocessor-overrun",
    "invalid-tss",
    "segment-not-present",
    "stack-segment",
    "general-protection",
    "page-fault",
    "reserved-15",
    "x87-error",
    "alignment-check",
    "machine-check",
    "simd-error",
    "virtualization",
    "control-protection",
    "reserved-22",
    "reserved-23",
    "reserved-24",
    "reserved-25",
    "reserved-26",
    "reserved-27",
    "hypervisor-injection",
    "vmm-communication",
    "security",
    "reserved-31",
];

/// 0 = nobody, else the number + 1 of the processor that speaks.
static SPEAKER: AtomicU32 = AtomicU32::new(0);

static SYMBOLS: Once<Symbols<'static>> = Once::new();

/// Writes the current VMCS of this processor, if there is one.
pub type VmcsDump = fn(&mut dyn Write) -> fmt::Result;
static VMCS_DUMP: Once<VmcsDump> = Once::new();

/// From now on backtraces have names.
pub fn set_symbols(symbols: Symbols<'static>) {
    SYMBOLS.call_once(|| symbols);
}

/// From now on the last words have the VMCS in them.
pub fn set_vmcs_dump(dump: VmcsDump) {
    VMCS_DUMP.call_once(|| dump);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let rbp = backtrace::frame_pointer();
    match info.location() {
        Some(at) => last_words("panic", format_args!("{} ({at})", info.message()), None, rbp),
        None => last_words("panic", format_args!("{}", info.message()), None, rbp),
    }
}

/// An exception that nobody handles.
pub fn exception(frame: &Frame) -> ! {
    let name = EXCEPTIONS.get(frame.vector as usize).copied().unwrap_or("interrupt");
    let address = paging::fault_address();
    let is_page_fault = name == "page-fault";
    if is_page_fault && stack::is_guard(address) {
        last_words(
            "stack-overflow",
            format_args!("stack overflow: access to guard page at {address:#x}"),
            Some(frame),
            frame.rbp,
        );
    }
    if is_page_fault {
        let what = match (frame.error & 1 << 4 != 0, frame.error & 1 << 1 != 0) {
            (true, _) => "execution",
            (_, true) => "write",
            _ => "read",
        };
        let why = if frame.error & 1 != 0 { "not allowed" } else { "not mapped" };
        let words = format_args!("page fault: {what} at {address:#x}, {why}");
        last_words(name, words, Some(frame), frame.rbp);
    }
    let words = format_args!("exception {} ({name}), error code {:#x}", frame.vector, frame.error);
    last_words(name, words, Some(frame), frame.rbp)
}

fn last_words(cause: &str, words: fmt::Arguments<'_>, frame: Option<&Frame>, rbp: u64) -> ! {
    let me = percpu::number() as u32 + 1;
    match SPEAKER.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        Err(speaker) if speaker == me => {
            machine_line!("panic-in-panic cpu={} cause={cause}", me - 1);
            cpu::exit(cpu::ExitCode::Panic)
        }
        Err(_) => cpu::halt_forever(),
    }
    let deaf = smp::stop_others();
    console::seize();
    let (seconds, micros) = time::uptime();
    say(format_args!("\n*** cpu{} stops after {seconds}.{micros:06} s: {words}\n", me - 1));
    if deaf > 0 {
        say(format_args!("*** {deaf} other processors did not stop\n"));
    }
    registers(frame);
    if let Some(dump) = VMCS_DUMP.get() {
        let _ = dump(&mut Console);
    }
    recent_events();
    trace(frame.map(|f| f.rip), rbp);
    machine_line!("panic cpu={} cause={cause} rip={:#x} deaf={deaf}", me - 1, frame.map_or(0, |f| f.rip));
    cpu::exit(cpu::ExitCode::Panic)
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        say(format_args!("{text}"));
        Ok(())
    }
}

fn say(words: fmt::Arguments<'_>) {
    console::print(words);
}

fn registers(frame: Option<&Frame>) {
    if let Some(f) = frame {
        row(&[("rax", f.rax), ("rbx", f.rbx), ("rcx", f.rcx), ("rdx", f.rdx)]);
        row(&[("rsi", f.rsi), ("rdi", f.rdi), ("rbp", f.rbp), ("rsp", f.rsp)]);
        row(&[("r8", f.r8), ("r9", f.r9), ("r10", f.r10), ("r11", f.r11)]);
        row(&[("r12", f.r12), ("r13", f.r13), ("r14", f.r14), ("r15", f.r15)]);
        row(&[("rip", f.rip), ("cs", f.cs), ("rflags", f.rflags), ("ss", f.ss)]);
    }
    row(&paging::control_registers());
}

fn row(registers: &[(&str, u64)]) {
    for (name, value) in registers {
        say(format_args!("{name:>7} {value:016x}"));
    }
    say(format_args!("\n"));
}

fn recent_events() {
    for cpu in percpu::online() {
        say(format_args!("cpu{} events:", cpu.number()));
        for (name, count) in events::KIND_NAMES.iter().zip(cpu.events().counts()) {
            say(format_args!(" {name}={count}"));
        }
        say(format_args!("\n"));
        let kept = cpu.events().iter().count();
        for (tsc, event) in cpu.events().iter().skip(kept.saturating_sub(EVENTS_SHOWN)) {
            say(format_args!("  tsc {tsc:>16} {event:x?}\n"));
        }
    }
}

fn trace(rip: Option<u64>, rbp: u64) {
    say(format_args!("backtrace:\n"));
    let symbols = SYMBOLS.get().copied().unwrap_or_default();
    for (number, address) in rip.into_iter().chain(backtrace::callers(rbp)).enumerate() {
        // A return address may be the first of the next function: the call is before it.
        let look = if number == 0 && rip.is_some() { address } else { address - 1 };
        match symbols.find(look) {
            Some(place) => say(format_args!("{number:>4} {address:#012x} {place}\n")),
            None => say(format_args!("{number:>4} {address:#012x}\n")),
        }
    }
}
