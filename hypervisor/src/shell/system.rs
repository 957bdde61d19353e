//! What the shell may ask and order. The kernel implements [`Host`], the virtual machine's runner [`Guest`], the tests
//! both.

use core::fmt::{self, Write};
use log::LevelFilter;
use replay::digest::Register;

/// What a virtual machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// It runs (or waits in HLT for an interrupt).
    Running,
    /// The shell has paused it; its clock stands.
    Paused,
    /// It has ended, in this way.
    Stopped(&'static str),
}

/// What a virtual machine can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop executing it; its clock stands.
    Pause,
    /// Go on.
    Resume,
    /// Reset it, as its reset button does.
    Reset,
    /// Press its power button: its operating system is asked to shut down.
    PowerButton,
    /// End it at once.
    Kill,
}

/// One line of the exit counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRow {
    /// The reason, in the SDM's words.
    pub reason: &'static str,
    /// Exits.
    pub count: u64,
    /// Counts of the time-stamp counter from these exits to the entries after them, in sum; 0 = not measured.
    pub cycles: u64,
}

/// The virtual machine, for the shell.
pub trait Guest {
    /// What it does.
    fn state(&self) -> VmState;

    /// Says what it is: name, memory, clock, devices. A few lines.
    ///
    /// # Errors
    /// Those of the sink.
    fn describe(&self, out: &mut dyn Write) -> fmt::Result;

    /// Obeys, or says why not. It is obeyed at the latest when the loop next looks.
    ///
    /// # Errors
    /// Why it cannot be done now.
    fn order(&mut self, order: Order) -> Result<(), &'static str>;

    /// Calls `row` for each reason for which the guest has exited.
    fn exits(&self, row: &mut dyn FnMut(ExitRow));

    /// A byte typed for its console. False: it has no room now, and the byte is offered again.
    fn console_input(&mut self, byte: u8) -> bool;

    /// Says what its network does: per card frames, drops, link.
    ///
    /// # Errors
    /// Those of the sink.
    fn network(&mut self, out: &mut dyn Write) -> fmt::Result;

    /// Says what its pair of hosts does, or what has happened to it (`events`).
    ///
    /// # Errors
    /// Those of the sink.
    fn pair(&mut self, events: bool, out: &mut dyn Write) -> fmt::Result {
        let _ = events;
        writeln!(out, "it is not protected: there is no [pair] in its configuration")
    }

    /// Its inside, if it stands still.
    fn inspect(&mut self) -> Option<&mut dyn Inspect> {
        None
    }
}

/// The inside of a virtual machine that stands still. Looking changes nothing of it. Memory may be allocated meanwhile.
pub trait Inspect {
    /// All registers' values, by [`Register`].
    fn registers(&mut self) -> [u64; Register::COUNT];

    /// Reads guest-physical memory: all of `bytes`, or nothing and false where there is none.
    fn physical(&mut self, address: u64, bytes: &mut [u8]) -> bool;

    /// Says where a replay is in its log, with so many entries before and after.
    ///
    /// # Errors
    /// Those of the sink.
    fn entries(&mut self, around: usize, out: &mut dyn Write) -> fmt::Result;
}

/// The hypervisor and the machine under it, for the shell. The functions that write keep to some 100 lines.
#[allow(missing_docs)] // named after the commands, which have their help
pub trait Host {
    fn pmu(&mut self, out: &mut dyn Write) -> fmt::Result;
    fn memory(&mut self, out: &mut dyn Write) -> fmt::Result;
    fn pci(&mut self, out: &mut dyn Write) -> fmt::Result;
    fn network(&mut self, out: &mut dyn Write) -> fmt::Result;
    /// The newest `count` events of each processor.
    fn events(&mut self, count: usize, out: &mut dyn Write) -> fmt::Result;
    fn version(&mut self, out: &mut dyn Write) -> fmt::Result;
    /// Seconds and microseconds since the start.
    fn uptime(&mut self) -> (u64, u64);
    fn log_level(&mut self) -> LevelFilter;
    fn set_log_level(&mut self, level: LevelFilter);
    /// Restarts the machine; in the kernel it does not return.
    fn reboot(&mut self);
}
