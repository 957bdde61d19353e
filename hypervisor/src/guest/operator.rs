//! The operator's view of the guest: what the shell may ask of it and order.

use super::board::{Board, reason};
use super::tape::Tape;
use crate::shell::system::{ExitRow, Guest, Order, VmState};
use core::fmt::{self, Write};
use replay::log::entry::Event;
use vmx::exit::{REASON_NAMES, reason_name};

/// Exits by basic reason, and what they have cost.
pub type Exits = [u64; REASON_NAMES.len()];

/// A guest on the operator's desk.
pub struct Desk<'b> {
    /// The guest's computer.
    pub board: &'b mut Board,
    /// Its exits so far.
    pub exits: &'b Exits,
    /// Counts of the time-stamp counter that they have taken.
    pub cycles: &'b Exits,
}

impl Guest for Desk<'_> {
    fn state(&self) -> VmState {
        self.board.state
    }

    fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        let board = &*self.board;
        let now = board.time.now();
        writeln!(
            out,
            "{}: {} MiB of memory, profile {}",
            board.name,
            board.vm.memory().len() >> 20,
            board.computer.profile().name()
        )?;
        writeln!(
            out,
            "up {}.{:06} s by its clock ({}), {} instructions",
            now / 1_000_000_000,
            now / 1000 % 1_000_000,
            if board.time.is_exact() { "by instructions" } else { "by the host's: cannot be protected" },
            board.time.instructions()
        )?;
        let (strays, out_counters) = (board.computer.strays(), board.outside.counters);
        writeln!(
            out,
            "console {} bytes; nothing answered {} port, {} memory, {} MSR accesses",
            out_counters.console, strays.ports, strays.memory, strays.msrs
        )
    }

    fn order(&mut self, order: Order) -> Result<(), &'static str> {
        if self.board.is_backup() {
            return self.board.forward(order);
        }
        match (order, self.board.state) {
            (_, VmState::Stopped(_)) => return Err("it has ended"),
            (Order::Pause, VmState::Paused) => return Err("it is paused already"),
            (Order::Resume, VmState::Running) => return Err("it runs"),
            (Order::PowerButton, _) => {
                self.board.take_in(Event::PowerButton);
                return Ok(());
            }
            // It takes effect as the guest's own reset does: the loop stops, and the runner sees to it.
            (Order::Reset, _) => {
                self.board.take_in(Event::Reset);
                self.board.state = VmState::Running;
                self.board.tell_paused(false);
                return Ok(());
            }
            (Order::Pause, _) => {
                self.board.state = VmState::Paused;
                self.board.tell_paused(true);
            }
            (Order::Resume, _) => {
                self.board.state = VmState::Running;
                self.board.tell_paused(false);
            }
            (Order::Kill, _) => {}
        }
        self.board.order = Some(order);
        self.board.stop(reason::OPERATOR);
        Ok(())
    }

    fn exits(&self, row: &mut dyn FnMut(ExitRow)) {
        for (number, (count, cycles)) in self.exits.iter().zip(self.cycles).enumerate() {
            if *count != 0 {
                row(ExitRow { reason: reason_name(number as u16), count: *count, cycles: *cycles });
            }
        }
    }

    fn console_input(&mut self, byte: u8) -> bool {
        if self.board.is_backup() {
            // Its console is the primary's: what is typed here is nobody's.
            return true;
        }
        self.board.computer.console_room() != 0 && self.board.take_in(Event::Console(&[byte])) != 0
    }

    fn pair(&mut self, events: bool, out: &mut dyn Write) -> fmt::Result {
        match &self.board.pair {
            None => writeln!(out, "it is not protected: there is no [pair] in its configuration"),
            Some(link) if events => link.events(out),
            Some(link) => {
                link.describe(out)?;
                self.board.outside.describe_held(out)
            }
        }
    }

    fn network(&mut self, out: &mut dyn Write) -> fmt::Result {
        let counters = self.board.outside.counters;
        writeln!(out, "guest: {} frames sent, {} lost", counters.frames, counters.frames_lost)?;
        self.board.outside.bridges.iter_mut().flatten().try_for_each(|bridge| bridge.tell(out))?;
        if let Tape::Recording(recording) = &self.board.tape {
            recording.journal().tell(out)?;
        }
        Ok(())
    }
}
