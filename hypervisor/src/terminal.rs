//! The kernel's terminal: the serial line between a guest's console and the shell, and what the shell may ask of this host.
//!
//! [`start`] once; then [`serve`] whenever [`duties::SERIAL`] is pending. Without a guest, [`run`] does both for good.

use crate::arch::alarm::{self, Alarm};
use crate::arch::{percpu, reset, serial, time};
use crate::console::{self, SerialLine};
use crate::duties::{self, HOST};
use crate::memory::{self, FRAME, Zone};
use crate::shell::Shell;
use crate::shell::system::{Guest, Host};
use crate::{heap, machine_line, network, platform, proof, startup};
use core::fmt::{self, Write};
use log::LevelFilter;
use spin::Mutex;

/// Received bytes looked at in one call of [`serve`] at most; more wait for the next.
const BATCH: usize = 64;

/// How long a guest that takes no more typed bytes has until they are offered again, in nanoseconds.
const RETRY_NS: u64 = 2_000_000;

static SHELL: Mutex<Shell> = Mutex::new(Shell::new(None));

/// Takes the serial port into service: received bytes raise [`duties::SERIAL`], and writes do not wait any more. On the
/// boot processor, before its pools are closed; once is enough.
pub fn start() {
    alarm::init();
    let by_interrupt = serial::queue(platform::get().and_then(|p| p.madt.as_ref()));
    let how = if by_interrupt { "interrupts" } else { "polling" };
    log::info!("serial port: by {how}");
    machine_line!("serial by={how}");
}

/// A guest has the line from now on, until `escape` is typed.
pub fn guest_starts(escape: Option<u8>) {
    SHELL.lock().guest_starts(escape, &mut SerialLine);
}

/// There is no guest any more.
pub fn guest_ends() {
    SHELL.lock().guest_ends(&mut SerialLine);
}

/// A guest's console says something. It goes out, or is kept while the shell has the line. Not to be called from a
/// [`Guest`]'s functions.
pub fn guest_output(bytes: &[u8]) {
    SHELL.lock().guest_output(bytes, &mut SerialLine);
}

/// Does what is pending for [`duties::SERIAL`]: takes a bounded number of received bytes, executes commands, gives the
/// guest what was typed for it.
pub fn serve(mut guest: Option<&mut dyn Guest>) {
    duties::take(duties::SERIAL);
    serial::serve();
    let mut shell = SHELL.lock();
    for left in (0..BATCH).rev() {
        let Some(byte) = serial::read() else { break };
        // Not `as_deref_mut`: the trait object's lifetime has to be shortened.
        let guest = guest.as_mut().map(|guest| &mut **guest as &mut dyn Guest);
        shell.receive(byte, &mut ThisHost, guest, &mut SerialLine);
        if left == 0 {
            HOST.raise(duties::SERIAL);
        }
    }
    if let Some(guest) = guest
        && !shell.feed(guest)
    {
        let at = time::now_ns().saturating_add(RETRY_NS);
        alarm::set(Alarm::Serial, Some(alarm::deadline(Alarm::Serial).map_or(at, |due| due.min(at))));
    }
    if console::take_disturbed() {
        shell.redraw(&mut SerialLine);
    }
}

/// The shell without a guest, for good.
pub fn run() -> ! {
    start();
    SHELL.lock().greet(&mut SerialLine);
    console::take_disturbed();
    loop {
        // No card is in use.
        time::wait_for_interrupt(duties::SERIAL, None);
        serve(None);
    }
}

/// What the shell may ask of this host.
struct ThisHost;

impl Host for ThisHost {
    fn pmu(&mut self, out: &mut dyn Write) -> fmt::Result {
        proof::tell(out)
    }

    fn memory(&mut self, out: &mut dyn Write) -> fmt::Result {
        for (name, zone) in
            [("below 640 KiB", Zone::Low), ("below 4 GiB", Zone::Below4G), ("everywhere", Zone::Any)]
        {
            writeln!(out, "free {name:14} {:>12} KiB", memory::free(zone) * FRAME / 1024)?;
        }
        writeln!(out, "heap               {:>12} bytes of {} used", heap::used(), heap::BYTES)?;
        let serial = serial::counters();
        writeln!(
            out,
            "serial queue       {:>12} bytes; {} received bytes lost, {} sent ones waited",
            serial.queued, serial.lost, serial.waited
        )
    }

    fn pci(&mut self, out: &mut dyn Write) -> fmt::Result {
        platform::tell_pci(out)
    }

    fn network(&mut self, out: &mut dyn Write) -> fmt::Result {
        network::tell(out)
    }

    fn events(&mut self, count: usize, out: &mut dyn Write) -> fmt::Result {
        for cpu in percpu::online() {
            writeln!(out, "cpu{}:", cpu.number())?;
            let kept = cpu.events().iter().count();
            for (tsc, event) in cpu.events().iter().skip(kept.saturating_sub(count)) {
                writeln!(out, "  tsc {tsc:>16} {event:x?}")?;
            }
        }
        Ok(())
    }

    fn version(&mut self, out: &mut dyn Write) -> fmt::Result {
        let startup::Told { info, options } = startup::told();
        writeln!(out, "Lockstep {} on host {}", env!("CARGO_PKG_VERSION"), options.name)?;
        writeln!(out, "loaded by {}; command line: {}", info.loader, info.command_line)?;
        let hertz = time::hertz();
        writeln!(
            out,
            "{} processors, time-stamp counter {}.{:03} MHz",
            percpu::online().count(),
            hertz / 1_000_000,
            hertz / 1000 % 1000
        )
    }

    fn uptime(&mut self) -> (u64, u64) {
        time::uptime()
    }

    fn log_level(&mut self) -> LevelFilter {
        log::max_level()
    }

    fn set_log_level(&mut self, level: LevelFilter) {
        log::set_max_level(level);
    }

    fn reboot(&mut self) {
        reset::restart(platform::get().and_then(|p| p.reset))
    }
}
