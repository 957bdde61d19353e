//! The virtual machine: processor and computer, and what recorder and replayer do alike.

use std::hash::{DefaultHasher, Hash, Hasher};

use replay::log::entry::Event;
use replay::point::Registers;
use replay::seed::Seed;

use crate::computer::{Clock, Devices};
use crate::cpu::{Cpu, Enter, Exit, Silicon};
use crate::program::{Op, Program, WRITABLE};

/// What an exit that is emulated counts beside its instruction.
const CHARGE: u64 = 400;

/// A packet that the guest sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its number, from 1 on.
    pub number: u64,
    /// Over the guest's state when it was sent, and so over everything that had come in.
    pub sum: u64,
}

/// The virtual machine.
#[derive(Clone)]
pub struct Machine {
    /// The processor.
    pub cpu: Cpu,
    /// The devices.
    pub devices: Devices,
    /// The clock.
    pub clock: Clock,
    /// Instructions completed by software.
    pub emulated: u64,
    charged: u64,
    /// How many times more of time passes per count.
    pub slower: u32,
    /// What may be injected can have changed.
    changed: bool,
    window: bool,
    /// Packets that have left the guest and were not taken from here.
    pub sent: Vec<Packet>,
    /// The host's own random choices.
    pub host: Seed,
}

impl Machine {
    /// A machine at power-on. `host`: the seed of everything that is this host's own.
    pub fn new(program: Program, silicon: Silicon, host: u64) -> Self {
        Self::timed(program, silicon, host, 1, 1)
    }

    /// The same, with a clock of which so many times more passes per count; timers are slower still, so that the guest does
    /// more than serve them.
    pub fn slower(program: Program, silicon: Silicon, host: u64, slower: u32) -> Self {
        Self::timed(program, silicon, host, slower, 4 * slower)
    }

    fn timed(program: Program, silicon: Silicon, host: u64, slower: u32, timers: u32) -> Self {
        let host = Seed::new(host);
        Self {
            cpu: Cpu::new(program, silicon, host.fork(1)),
            devices: Devices::new(timers),
            clock: Clock::new(slower),
            emulated: 0,
            charged: 0,
            slower,
            changed: false,
            window: false,
            sent: Vec::new(),
            host,
        }
    }

    /// Instructions completed.
    pub const fn n(&self) -> u64 {
        self.cpu.counted() + self.emulated
    }

    /// What the clock is a function of: instructions and charges.
    pub const fn count(&self) -> u64 {
        self.n() + self.charged
    }

    /// Virtual time, nanoseconds.
    pub const fn now(&self) -> u64 {
        self.clock.now(self.count())
    }

    /// Charges an emulated exit.
    pub const fn charge(&mut self) {
        self.charged += CHARGE;
    }

    /// A hash over everything that the guest can ever notice.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.cpu.state, &self.devices, &self.clock, self.n(), self.charged).hash(&mut hasher);
        hasher.finish()
    }

    /// Devices do what is due.
    pub fn advance(&mut self) {
        let now = self.now();
        if now >= self.devices.due() {
            self.devices.advance(now);
        }
    }

    /// A synchronous exit was dealt with.
    pub fn end_exit(&mut self) {
        self.advance();
        self.changed = true;
    }

    /// Something comes in.
    pub fn apply(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Output | Event::Hash(_)) {
            // Nothing comes in.
            return;
        }
        self.changed = true;
        let count = self.count();
        match *event {
            Event::Look(Some(correction)) => self.clock.correct(count, &correction),
            Event::WakeAfterDue(late) => self.clock.jump(count, self.devices.due().saturating_add(late)),
            Event::Wake(ahead) => self.clock.jump(count, self.now().saturating_add(ahead)),
            _ => {
                let now = self.now();
                self.devices.input(event, &mut self.cpu.state.memory, now);
            }
        }
        if std::mem::take(&mut self.devices.reset) {
            self.cpu.reset();
        }
        self.advance();
    }

    /// Injects what is pending, or has the guest exit as soon as it can take it. Only after something has happened that every
    /// execution has there.
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        if self.devices.pending() && self.cpu.can_take() {
            let vector = self.devices.acknowledge();
            self.cpu.inject(vector);
        }
        self.window = self.devices.pending();
    }

    /// Whether [`settle`](Self::settle) has something to do.
    pub const fn has_changed(&self) -> bool {
        self.changed
    }

    /// The window that was asked for opens here: the exit comes before anything else, on every host.
    pub const fn opens(&self) -> bool {
        self.window && self.cpu.can_take()
    }

    /// Whether a halted guest goes on.
    pub const fn wakes(&self) -> bool {
        self.devices.pending() && self.cpu.interrupts_enabled()
    }

    /// Enters the guest, with this host's own disturbances.
    pub fn enter(&mut self, enter: Enter) -> Exit {
        if self.host.one_in(6) {
            self.cpu.disturb();
        }
        let interrupt = self.host.one_in(3).then(|| self.host.below(150));
        self.cpu.enter(&Enter { window: self.window, interrupt: enter.interrupt.or(interrupt), ..enter })
    }

    /// Deals with an exit that is the host's alone. A protected store is done, or let through.
    pub fn serve(&mut self, exit: Exit) {
        if exit == Exit::Protected {
            if self.host.one_in(4) {
                self.cpu.unprotect();
            } else if self.cpu.complete() {
                self.emulated += 1;
            }
        }
    }

    /// Emulates an instruction; not HLT.
    pub fn emulate(&mut self, op: Op) {
        self.charge();
        let now = self.now();
        let registers = &mut self.cpu.state.registers;
        match op {
            Op::RepIn(port) if registers[1] > 0 => {
                let word = (registers[7] % WRITABLE) as usize;
                (registers[1], registers[7]) = (registers[1] - 1, registers[7].wrapping_add(1));
                let more = registers[1] > 0;
                self.cpu.state.memory[word] = self.devices.read(port);
                if more {
                    return self.cpu.iterate();
                }
            }
            Op::In(a, port) => registers[a] = self.devices.read(port),
            Op::Out(a, port) => {
                let sends = self.devices.write(port, registers[a], now);
                if sends {
                    self.send();
                }
            }
            Op::Time(a) => registers[a] = now,
            Op::Random(a) => registers[a] = self.devices.random(),
            Op::Watch(at) => self.cpu.watch(Some(at)),
            Op::Unwatch => self.cpu.watch(None),
            _ => {}
        }
        self.skip();
    }

    fn send(&mut self) {
        let mut hasher = DefaultHasher::new();
        (self.cpu.registers().hash().0, self.devices.sum, self.n(), self.now()).hash(&mut hasher);
        self.sent.push(Packet { number: self.devices.sent(), sum: hasher.finish() });
    }

    /// The instruction that has exited is done.
    pub fn skip(&mut self) {
        self.cpu.skip();
        self.emulated += 1;
    }

    /// The registers.
    pub fn registers(&self) -> Registers {
        self.cpu.registers()
    }
}

/// The number of a synchronous exit's kind.
pub const fn reason(exit: Exit) -> u16 {
    match exit {
        Exit::Emulate(Op::Halt) => 12,
        Exit::Emulate(Op::In(..) | Op::Out(..)) => 30,
        Exit::Emulate(Op::Time(_)) => 16,
        Exit::Emulate(_) => 57,
        _ => 7,
    }
}
