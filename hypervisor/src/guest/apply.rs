//! What comes into the virtual machine, applied: the same on the host that has recorded it and on the one that replays it.

use super::board::Board;
use machine::clock;
use machine::context::Instant;
use machine::input::Input;
use machine::output::Power;
use replay::log::entry::{Correction, Event};

impl Board {
    /// Applies an event, now. Returns how much of it was taken: see [`machine::computer::Computer::input`].
    pub fn apply(&mut self, event: &Event<'_>) -> usize {
        // What only says what was found is nothing that comes in: the recorder's guest has not noticed it.
        if let Event::Output | Event::Hash(_) | Event::Checkpoint(_) | Event::End(_) = event {
            return 1;
        }
        // Whatever it was, an interrupt may be pending now.
        self.changed = true;
        let taken = match *event {
            Event::Look(correction) => {
                if let Some(Correction { rate, step }) = correction {
                    self.time.correct(&clock::Correction { rate, step });
                }
                1
            }
            Event::WakeAfterDue(late) => self.jump(self.computer.due().saturating_add(late)),
            Event::Wake(ahead) => self.jump(self.time.now().saturating_add(ahead)),
            Event::Console(bytes) => self.input(Input::Console(bytes)),
            Event::SideConsole(bytes) => self.input(Input::SideConsole(bytes)),
            // Whoever reads a log has put it together.
            Event::Frame { device, frame } => match frame.in_one_piece() {
                Some(frame) => self.input(Input::Frame { device, frame }),
                None => 0,
            },
            Event::Starved { device } => self.input(Input::Starved { device }),
            Event::Link { device, up } => self.input(Input::Link { device, up }),
            Event::PowerButton => self.input(Input::PowerButton),
            Event::Reset => self.input(Input::Power(Power::Reset)),
            Event::Output | Event::Hash(_) | Event::Checkpoint(_) | Event::End(_) => 1,
        };
        self.advance();
        taken
    }

    /// The halted guest's time jumps.
    fn jump(&mut self, to: Instant) -> usize {
        let from = self.time.now();
        self.time.jump(to);
        self.idle += self.time.now().saturating_sub(from);
        1
    }

    /// Takes something in by the input door, at the point where the guest is now.
    fn input(&mut self, input: Input<'_>) -> usize {
        let now = self.time.now();
        self.bus(now).reach(|computer, context| computer.input(input, context))
    }

    /// Lets the computer do what is due.
    pub fn advance(&mut self) {
        let now = self.time.now();
        if now >= self.computer.due() {
            // A device may send what it has put off.
            self.outside.to_wire.begin();
            self.bus(now).reach(|computer, context| computer.advance(context));
        }
    }
}
