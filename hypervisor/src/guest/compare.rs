//! Checkpoints of a replay: the whole state is compared with what was recorded; a bit is flipped there on purpose, or the replay
//! goes back, if that was asked for.

use super::board::Board;
use super::digest::Whole;
use super::replaying::Ended;
use super::tape::Tape;
use crate::machine_line;
use crate::options::replay::{Plant, PlantPlace, Until};
use crate::vcpu::Active;
use replay::digest::findings::Findings;

/// The general registers by number.
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

impl Board {
    /// Compares the whole state with what was recorded here. False: the replay ends here.
    pub fn compare(&mut self, on: &mut Active<'_>, packed: &[u8]) -> bool {
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        let whole = Whole {
            computer: &self.computer,
            vm: &mut self.vm,
            disks: &self.disks,
            time: &self.time,
            nmi_due: self.nmi_due,
        };
        replaying.checkpoints += 1;
        let number = replaying.checkpoints;
        match replaying.digest.check(packed, whole, on) {
            Err(error) => replaying.end(Ended::BadCheckpoint { checkpoint: number, error }),
            Ok(findings) => {
                let equal = findings.is_empty();
                machine_line!("replay event=checkpoint number={number} equal={equal}");
                if !equal {
                    tell(number, &findings);
                    replaying.end(Ended::Unequal { checkpoint: number });
                }
            }
        }
        if replaying.options.until == Some(Until::Checkpoint(number)) {
            replaying.end(Ended::Stopped);
        }
        if replaying.ended.is_some() {
            return false;
        }
        self.at_checkpoint(on, number)
    }

    /// What was asked for at this checkpoint. False: the replay ends here.
    fn at_checkpoint(&mut self, on: &mut Active<'_>, number: u64) -> bool {
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        let (plant, restore) = (replaying.options.plant, replaying.options.restore);
        if let Some(plant) = plant.filter(|plant| plant.after == number)
            && !self.plant(on, &plant)
        {
            return self.end_unplanted();
        }
        match restore {
            Some((from, _)) if from == number => self.keep_checkpoint(on),
            Some((from, at)) if at == number => return self.go_back(on, from),
            _ => {}
        }
        true
    }

    /// Remembers this place.
    fn keep_checkpoint(&mut self, on: &mut Active<'_>) {
        // Out of its place while it looks at the board.
        let Tape::Replaying(replaying) = &mut self.tape else { return };
        let Some(mut kept) = replaying.kept.take() else { return };
        kept.take(self, on);
        if let Tape::Replaying(replaying) = &mut self.tape {
            replaying.kept = Some(kept);
        }
    }

    /// Goes back to the place that was remembered, once.
    fn go_back(&mut self, on: &mut Active<'_>, to: u64) -> bool {
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        let Some(kept) = replaying.kept.take() else { return true };
        match kept.restore(self, on) {
            Ok(()) => {
                machine_line!("replay event=restored checkpoint={to}");
                true
            }
            Err(why) => {
                log::error!("going back to checkpoint {to}: {why}");
                let Tape::Replaying(replaying) = &mut self.tape else { return true };
                replaying.end(Ended::NoReturn);
                false
            }
        }
    }

    fn end_unplanted(&mut self) -> bool {
        log::error!("plant=: there is no such place");
        if let Tape::Replaying(replaying) = &mut self.tape {
            replaying.end(Ended::NoReturn);
        }
        false
    }

    /// Flips a bit. False: there is no such place.
    fn plant(&mut self, on: &mut Active<'_>, plant: &Plant<'_>) -> bool {
        let done = match plant.place {
            PlantPlace::Memory(address) => self.flip_memory(address, plant.bit),
            PlantPlace::Register(name) => flip_register(on, name, plant.bit),
            PlantPlace::Device(name) => self.flip_device(name, plant.bit),
        };
        machine_line!("replay event=planted done={done} place={:?} bit={}", plant.place, plant.bit);
        done
    }

    fn flip_memory(&mut self, address: u64, bit: u8) -> bool {
        let mut byte = [0];
        let mut ram = self.vm.ram();
        ram.read(address, &mut byte).and_then(|()| ram.write(address, &[byte[0] ^ 1 << (bit & 7)])).is_ok()
    }

    /// A bit of a field that may hold anything.
    fn flip_device(&mut self, name: &str, bit: u8) -> bool {
        let mut state = self.computer.save();
        let narrow = 1_u8 << (bit & 7);
        match name {
            "uart" => state.uart.scratch ^= narrow,
            "rtc" => state.rtc.ram[0x70] ^= narrow,
            "diagnostics" => state.diagnostics.post ^= narrow,
            _ => return false,
        }
        self.computer.restore(state).is_ok()
    }
}

fn flip_register(on: &mut Active<'_>, name: &str, bit: u8) -> bool {
    let Some(number) = GENERAL.iter().position(|known| *known == name) else { return false };
    let number = number as u8;
    let value = on.read_general(number);
    on.write_general(number, 8, value ^ 1 << (bit & 63));
    true
}

fn tell(checkpoint: u64, findings: &Findings) {
    log::error!("checkpoint {checkpoint} is not equal: {} findings", findings.count());
    for finding in findings.iter() {
        machine_line!("replay event=finding checkpoint={checkpoint} what=\"{finding}\"");
    }
}
