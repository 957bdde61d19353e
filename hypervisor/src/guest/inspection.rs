//! A virtual machine that stands still, for the operator to look into: paused, or at the end of its replay.

use super::board::Board;
use super::digest;
use super::feed::ahead;
use super::operator::Desk;
use super::run::Guest as Machine;
use super::tape::Tape;
use crate::arch::time;
use crate::shell::system::{ExitRow, Guest, Inspect, Order, VmState};
use crate::vcpu::Active;
use crate::{duties, memory, terminal};
use core::fmt::{self, Write};
use machine::ram::HIGH;
use replay::digest::{Digest, Register};
use replay::log::entry::{Entry, Event, Place};
use replay::log::open::Entries;
use replay::replayer::Replayer;
use vmx::exit::reason_name;

/// Synchronous exits that are shown with the log's entries.
const EXITS: usize = 8;

/// A guest that stands still, on the operator's desk.
struct Still<'d, 'v> {
    desk: Desk<'d>,
    on: &'d mut Active<'v>,
    /// The operator does not want to look any more.
    released: bool,
}

/// Serves the operator while the guest stands still: what has been typed is dealt with, and the inside may be looked at. True:
/// the operator lets go of a guest that has ended.
pub fn serve(board: &mut Board, on: &mut Active<'_>) -> bool {
    // Whoever formats text may allocate: the guest does not run.
    memory::resume_allocation();
    let (exits, cycles) = on.costs();
    let desk = Desk { board, exits: &exits, cycles: &cycles };
    let mut still = Still { desk, on, released: false };
    terminal::serve(Some(&mut still));
    memory::end_allocation();
    still.released
}

/// A replay has ended: its virtual machine stays as it is, to be looked into, until the operator lets go of it.
pub fn stay(guest: &mut Machine) {
    let Machine { board, vcpu, .. } = guest;
    let Ok(mut active) = vcpu.load() else { return };
    log::info!(
        "the virtual machine stands still: regs, mem ADDR, disasm, walk, log N look into it; vm kill lets go of it"
    );
    while !serve(board, &mut active) {
        time::wait_for_interrupt(duties::SERIAL, None);
    }
}

impl Guest for Still<'_, '_> {
    fn state(&self) -> VmState {
        self.desk.state()
    }

    fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        self.desk.describe(out)
    }

    fn order(&mut self, order: Order) -> Result<(), &'static str> {
        match (self.state(), order) {
            (VmState::Stopped(_), Order::Kill) => {
                self.released = true;
                Ok(())
            }
            (VmState::Stopped(_), _) => Err("it has ended, and can be looked into; vm kill lets go of it"),
            _ => self.desk.order(order),
        }
    }

    fn exits(&self, row: &mut dyn FnMut(ExitRow)) {
        self.desk.exits(row);
    }

    fn console_input(&mut self, byte: u8) -> bool {
        // A guest that has ended takes everything, and nothing comes of it.
        matches!(self.state(), VmState::Stopped(_)) || self.desk.console_input(byte)
    }

    fn pair(&mut self, events: bool, out: &mut dyn Write) -> fmt::Result {
        self.desk.pair(events, out)
    }

    fn network(&mut self, out: &mut dyn Write) -> fmt::Result {
        self.desk.network(out)
    }

    fn inspect(&mut self) -> Option<&mut dyn Inspect> {
        Some(self)
    }
}

impl Inspect for Still<'_, '_> {
    fn registers(&mut self) -> [u64; Register::COUNT] {
        let mut digest = Digest::NONE;
        self.on.capture().digest(&mut digest);
        digest::look_at_time(&self.desk.board.time, self.desk.board.nmi_due, &mut digest);
        digest.registers
    }

    fn physical(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let vm = &mut self.desk.board.vm;
        if vm.ram().read(address, bytes).is_ok() {
            return true;
        }
        let rom = vm.rom();
        let from_rom = address
            .checked_sub(HIGH - rom.len() as u64)
            .and_then(|at| rom.get(usize::try_from(at).ok()?..)?.get(..bytes.len()));
        from_rom.map(|rom| bytes.copy_from_slice(rom)).is_some()
    }

    fn entries(&mut self, around: usize, out: &mut dyn Write) -> fmt::Result {
        let Tape::Replaying(replaying) = &self.desk.board.tape else {
            return writeln!(out, "there is no replay");
        };
        let position = replaying.replayer.position();
        let first = position.saturating_sub(around as u64);
        let before = replaying.first.iter().flat_map(entries_of).take(position as usize).skip(first as usize);
        for (number, entry) in (first..).zip(before) {
            tell_entry(number, &entry, out)?;
        }
        writeln!(out, "    -- here, after synchronous exit {}:", replaying.replayer.exits())?;
        for step in replaying.last_exits(EXITS) {
            let (exit, reason, n, rip) = (step.exit, reason_name(step.reason), step.n, step.rip);
            writeln!(out, "       exit {exit}: {reason}, n {n}, rip {rip:#x}")?;
        }
        writeln!(out, "    -- what would come next:")?;
        for (number, entry) in (position..).zip(ahead(&replaying.replayer).take(around)) {
            tell_entry(number, &entry, out)?;
        }
        Ok(())
    }
}

/// All entries from the one that comes next on.
fn entries_of(
    replayer: &Replayer<'static, Entries<'static>>,
) -> impl Iterator<Item = Entry<'static>> + use<> {
    replayer.upcoming().copied().into_iter().chain(replayer.source().clone())
}

fn tell_entry(number: u64, entry: &Entry<'_>, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{number:>9} ")?;
    match entry.place {
        Place::Exit(exit) => write!(out, "at exit {exit}: ")?,
        Place::Halted(exit) => write!(out, "halted at exit {exit}: ")?,
        Place::Between { point, .. } => write!(out, "at {point}: ")?,
    }
    match entry.event {
        Event::Look(None) => writeln!(out, "look at the time"),
        Event::Look(Some(correction)) => {
            let (rate, step) = (correction.rate, correction.step);
            writeln!(out, "look at the time; rate {rate:#x}, {step} ns forward")
        }
        Event::WakeAfterDue(late) => writeln!(out, "wake, {late} ns after what is due"),
        Event::Wake(ahead) => writeln!(out, "wake after {ahead} ns"),
        Event::Console(bytes) => writeln!(out, "{} bytes for the serial console", bytes.len()),
        Event::SideConsole(bytes) => writeln!(out, "{} bytes for the virtio console", bytes.len()),
        Event::Frame { device, frame } => writeln!(out, "{} bytes for network device {device}", frame.len()),
        Event::Starved { device } => writeln!(out, "network device {device} waits for a buffer"),
        Event::Link { device, up } => writeln!(out, "link of network device {device}: up {up}"),
        Event::PowerButton => writeln!(out, "power button"),
        Event::Reset => writeln!(out, "reset button"),
        Event::Output => writeln!(out, "output"),
        Event::Hash(hash) => writeln!(out, "hash {hash:#018x}"),
        Event::Checkpoint(packed) => writeln!(out, "checkpoint, {} bytes", packed.len()),
        Event::End(why) => writeln!(out, "end ({why})"),
    }
}
