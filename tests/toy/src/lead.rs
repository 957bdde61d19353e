//! The recording host of the toy machine.

use std::collections::BTreeMap;

use replay::log::codec::Mark;
use replay::log::entry::{Correction, Entry, Event, Place};
use replay::log::header::Header;
use replay::log::writer::{BUFFER, Refused, Writer};
use replay::recorder::{Moment, Recorder};

use crate::cpu::{Enter, Exit, Silicon};
use crate::machine::{Machine, Packet, reason};
use crate::program::{Op, Program};

/// Synchronous exits of a recording, at least.
const EXITS: u64 = 100;

/// What a recording leaves.
pub struct Recording {
    /// The log.
    pub log: Vec<u8>,
    /// The machine's digest at each entry, when it was applied. In none of them is anything of the host's.
    pub digests: Vec<u64>,
    /// What the guest has sent.
    pub sent: Vec<Packet>,
    /// How often each kind of event came at each kind of place.
    pub met: BTreeMap<(&'static str, &'static str), u64>,
    /// Instructions retired.
    pub instructions: u64,
}

struct Lead {
    machine: Machine,
    recorder: Recorder,
    writer: Writer<Vec<u8>>,
    out: Recording,
    halted: bool,
    exit: bool,
}

/// Records a run.
pub fn record(program: &Program, silicon: Silicon, host: u64) -> Recording {
    let mut writer = Writer::new(vec![0; BUFFER]).expect("room");
    let log = writer.begin(&Header::default()).expect("a short header").to_vec();
    let machine = Machine::new(program.clone(), silicon, host);
    let out = Recording { log, digests: Vec::new(), sent: Vec::new(), met: BTreeMap::new(), instructions: 0 };
    let mut lead = Lead { machine, recorder: Recorder::new(), writer, out, halted: false, exit: false };
    lead.run();
    lead.out
}

impl Lead {
    fn run(&mut self) {
        let mut host_exit = false;
        loop {
            let mut enter = Enter::default();
            if self.exit && self.recorder.exits() >= EXITS {
                return self.end();
            }
            if self.exit
                && let Some(entry) = self.recorder.hash_due()
            {
                self.write(&entry);
            }
            if self.exit && self.machine.host.one_in(20) {
                let digest = self.machine.digest().to_le_bytes();
                self.take_in(&Event::Checkpoint(&digest));
            }
            if host_exit || self.exit && self.machine.host.one_in(4) {
                if !self.exit && self.machine.cpu.delivering() {
                    enter.timer = Some(1);
                } else if self.exit || !self.machine.opens() {
                    host_exit = false;
                    self.work();
                }
            }
            self.machine.settle();
            if enter.timer.is_none() {
                enter.timer = self.machine.host.one_in(2).then(|| self.machine.host.below(400));
            }
            let exit = self.machine.enter(enter);
            self.exit = exit.is_synchronous();
            match exit {
                Exit::Emulate(Op::Halt) => {
                    self.recorder.begin_exit();
                    self.recorder.note(|to| *to = self.machine.registers());
                    self.wait();
                    self.machine.charge();
                    self.machine.skip();
                }
                Exit::Emulate(op) => {
                    self.recorder.begin_exit();
                    self.machine.emulate(op);
                }
                Exit::Window => self.recorder.begin_exit(),
                _ => {
                    self.machine.serve(exit);
                    host_exit |= matches!(exit, Exit::Timer | Exit::Interrupt);
                }
            }
            if self.exit {
                self.machine.end_exit();
                let (n, registers) = (self.machine.n(), self.machine.registers());
                self.recorder.end_exit(|hash| hash.fold(reason(exit), n, &registers));
                self.recorder.note(|to| *to = registers);
                self.put_out();
            }
        }
    }

    /// What the guest has sent at this exit may leave when the entry is where it must be.
    fn put_out(&mut self) {
        if !self.machine.sent.is_empty() {
            self.out.sent.append(&mut self.machine.sent);
            self.take_in(&Event::Output);
            self.close();
        }
    }

    fn end(&mut self) {
        let digest = self.machine.digest().to_le_bytes();
        self.take_in(&Event::Checkpoint(&digest));
        self.take_in(&Event::End("enough"));
        self.close();
        let mark = self.mark();
        self.out.log.extend_from_slice(self.writer.end(&mark));
        self.out.instructions = self.machine.n();
    }

    /// What the host does beside the guest.
    fn work(&mut self) {
        let rng = &mut self.machine.host;
        let correction = rng.one_in(8).then(|| Correction {
            rate: crate::computer::RATE / 2 + rng.below(crate::computer::RATE),
            step: rng.below(300) as u32,
        });
        if correction.is_some() || self.machine.now() >= self.machine.devices.due() {
            self.take_in(&Event::Look(correction));
        }
        while self.machine.host.one_in(3) {
            self.arrive();
        }
    }

    /// Something arrives.
    fn arrive(&mut self) {
        let rng = &mut self.machine.host;
        let bytes: Vec<u8> = (0..rng.below(20)).map(|_| rng.next() as u8).collect();
        let device = rng.below(2) as u8;
        let kind = rng.below(20);
        let event = match kind {
            0..4 => Event::Console(&bytes),
            4..6 => Event::SideConsole(&bytes),
            6..14 => Event::Frame { device, frame: bytes[..].into() },
            14 | 15 => Event::Starved { device },
            16 => Event::Link { device, up: bytes.len() > 9 },
            // A reset is rare, or nothing is left between two of them; and a halted guest is not reset in its HLT.
            17 if !self.halted && bytes.len() == 1 => Event::Reset,
            _ => Event::PowerButton,
        };
        self.take_in(&event);
    }

    /// HLT.
    fn wait(&mut self) {
        self.halted = true;
        self.machine.advance();
        for rounds in 0.. {
            if self.machine.wakes() {
                break;
            }
            let due = self.machine.devices.due();
            let late = self.machine.host.below(2000);
            match self.machine.host.below(4) {
                0 if due != u64::MAX => self.take_in(&Event::WakeAfterDue(0)),
                1 if due != u64::MAX => self.take_in(&Event::WakeAfterDue(late)),
                2 if self.machine.now() + late < due => self.take_in(&Event::Wake(late)),
                _ => {}
            }
            if self.machine.host.one_in(2) {
                self.arrive();
            }
            // Somebody always presses a button at last.
            if rounds > 50 {
                self.take_in(&Event::PowerButton);
            }
        }
        self.halted = false;
    }

    fn take_in(&mut self, event: &Event<'_>) {
        let registers = self.machine.registers();
        let moment = if self.halted {
            Moment::Halted
        } else if self.exit {
            Moment::AfterExit
        } else {
            Moment::Between { n: self.machine.n(), registers: &registers, mov_ss: self.machine.cpu.mov_ss() }
        };
        let entry = self.recorder.entry(moment, *event);
        *self.out.met.entry((kind(event), self.situation(&entry.place))).or_default() += 1;
        self.write(&entry);
        self.machine.apply(event);
        self.out.digests.push(self.machine.digest());
    }

    /// Where the guest is, in words.
    fn situation(&self, place: &Place) -> &'static str {
        let cpu = &self.machine.cpu;
        match place {
            Place::Exit(_) => "exit",
            Place::Halted(_) => "halted",
            _ if cpu.at_rep() && cpu.rf() => "amid REP",
            _ if cpu.mov_ss() => "behind MOV SS",
            _ if cpu.sti() => "behind STI",
            _ if cpu.rf() => "RF set",
            _ if cpu.traps() => "single-stepping",
            _ if cpu.watches() => "own breakpoint",
            _ if cpu.in_handler() => "in a handler",
            _ => "plain",
        }
    }

    fn write(&mut self, entry: &Entry<'_>) {
        if self.machine.host.one_in(10) {
            self.close();
        }
        match self.writer.entry(entry) {
            Ok(()) => {}
            Err(Refused::Full | Refused::TooLong) => panic!("blocks are closed often"),
        }
    }

    fn close(&mut self) {
        let mark = self.mark();
        if let Some(block) = self.writer.close(&mark) {
            self.out.log.extend_from_slice(block);
        }
    }

    fn mark(&self) -> Mark {
        Mark { n: self.machine.n(), exits: self.recorder.exits(), virtual_ns: self.machine.now() }
    }
}

/// The kinds of events that come in at any place.
pub const KINDS: [&str; 8] =
    ["look", "correction", "console", "side-console", "frame", "starved", "link", "power-button"];

/// The kinds of places between two exits.
pub const BETWEEN: [&str; 8] = [
    "amid REP",
    "behind MOV SS",
    "behind STI",
    "RF set",
    "single-stepping",
    "own breakpoint",
    "in a handler",
    "plain",
];

fn kind(event: &Event<'_>) -> &'static str {
    match event {
        Event::Look(None) => "look",
        Event::Look(Some(_)) => "correction",
        Event::WakeAfterDue(_) => "wake-after-due",
        Event::Wake(_) => "wake",
        Event::Console(_) => "console",
        Event::SideConsole(_) => "side-console",
        Event::Frame { .. } => "frame",
        Event::Starved { .. } => "starved",
        Event::Link { .. } => "link",
        Event::PowerButton => "power-button",
        Event::Reset => "reset",
        Event::Output => "output",
        Event::Hash(_) => "hash",
        Event::Checkpoint(_) => "checkpoint",
        Event::End(_) => "end",
    }
}
