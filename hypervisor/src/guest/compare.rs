//! Checkpoints of a replay: the whole state is compared with what was recorded; a bit is flipped there on purpose, or the replay
//! goes back, if that was asked for.

use super::board::Board;
use super::digest::Whole;
use super::replaying::Ended;
use super::tape::Tape;
use crate::options::replay::{Plant, PlantPlace, Until};
use crate::vcpu::Active;
use crate::{machine_line, memory};
use machine::computer::parts::FUNCTIONS;
use replay::digest::{Findings, Register};

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
        // Putting a device's state back takes memory for a moment.
        memory::resume_allocation();
        let done = match plant.place {
            PlantPlace::Memory(address) => self.flip_memory(address, plant.bit),
            PlantPlace::Register(name) => flip_register(on, name, plant.bit),
            PlantPlace::Device(name) => self.flip_device(name, plant.bit),
        };
        memory::end_allocation();
        machine_line!("replay event=planted done={done} place={:?} bit={}", plant.place, plant.bit);
        done
    }

    fn flip_memory(&mut self, address: u64, bit: u8) -> bool {
        let mut byte = [0];
        let mut ram = self.vm.ram();
        ram.read(address, &mut byte).and_then(|()| ram.write(address, &[byte[0] ^ 1 << (bit & 7)])).is_ok()
    }

    /// A bit of a field that may hold anything, or nearly.
    fn flip_device(&mut self, name: &str, bit: u8) -> bool {
        let mut state = self.computer.save();
        let (narrow, wide) = (1_u8 << (bit & 7), 1_u64 << (bit & 31));
        match name {
            "pic" => state.interrupts.pic.chips[0].imr ^= narrow,
            "io-apic" => state.interrupts.io_apic.table[1] ^= wide & 0xFF,
            "local-apic" => state.interrupts.local.task_priority ^= narrow,
            "msrs" => state.msrs.tsc_adjust ^= wide,
            "uart" => state.uart.scratch ^= narrow,
            "pit" => state.pit.channels[1].start ^= wide,
            "rtc" => state.rtc.ram[0x70] ^= narrow,
            "pm" => state.pm.carries ^= wide,
            "keyboard" => state.keyboard.ram[1] ^= narrow,
            "diagnostics" => state.diagnostics.post ^= narrow,
            "fw-cfg" => state.fw_cfg.offset ^= wide as u32,
            "random" => state.random.set_word_pos(state.random.get_word_pos() ^ u128::from(wide)),
            "pci" => state.pci.address ^= (wide as u32) & 0xFF00,
            _ => {
                // The cache line size, which is kept without effect.
                let slot = FUNCTIONS.iter().position(|function| *function == name);
                let Some(function) = slot.and_then(|slot| state.pci.slots.get_mut(slot)) else {
                    return false;
                };
                function.header.registers[3] ^= u32::from(narrow);
            }
        }
        self.computer.restore(state).is_ok()
    }
}

fn flip_register(on: &mut Active<'_>, name: &str, bit: u8) -> bool {
    let Some(register) = Register::named(name) else { return false };
    let mut captured = on.capture();
    let done = captured.flip(register, bit.into());
    if done {
        on.restore(&captured, None);
    }
    done
}

impl Board {
    /// A replay has come to the log's end, right behind a checkpoint: whether the last digest, which was kept up page by page, is
    /// that of memory as it is. It is no part of the replay.
    pub fn check_marks(&self) {
        let Tape::Replaying(replaying) = &self.tape else { return };
        let pages = match replaying.ended {
            Some(Ended::Equal(_)) if replaying.checkpoints != 0 => replaying.digest.unmarked(&self.vm),
            _ => 0,
        };
        if pages == 0 {
            return;
        }
        log::error!("{pages} pages have changed without being marked as written: a bug");
        machine_line!("replay event=unmarked pages={pages}");
    }
}

fn tell(checkpoint: u64, findings: &Findings) {
    log::error!("checkpoint {checkpoint} is not equal: {} findings", findings.count());
    for finding in findings.iter() {
        machine_line!("replay event=finding checkpoint={checkpoint} what=\"{finding}\"");
    }
}
