//! A checkpoint that is kept in the host's memory: the whole virtual machine, and how far its replay had come. A replay that goes
//! back to one runs forward again from there, so a debugger could step backwards.

use super::board::Board;
use super::digest::Looked;
use super::feed::Feed;
use super::tape::{Here, Tape};
use crate::arch::fpu::FpuState;
use crate::arch::physical::Pages;
use crate::memory::{self, FRAME, OutOfFrames, Zone};
use crate::vcpu::Active;
use crate::vmm::capture::Captured;
use crate::vmm::vm::Vm;
use alloc::vec::Vec;
use core::fmt;
use machine::computer::State;
use machine::context::Instant;
use machine::devices::BadState;
use replay::digest::memory::DiskSum;
use replay::log::open::Entries;
use replay::replayer::Replayer;

/// Room for a checkpoint, and the checkpoint once one was taken.
pub struct Checkpoint {
    ram: Pages,
    disks: Vec<Option<Pages>>,
    fpu: FpuState,
    rest: Option<Rest>,
}

/// What needs no room of its own.
struct Rest {
    captured: Captured,
    computer: State,
    sums: Vec<DiskSum>,
    instructions: u64,
    charged: u64,
    clock: machine::clock::State,
    flags: Flags,
    looked: Looked,
    replayer: Option<Replayer<'static, Entries<'static>>>,
    checkpoints: u64,
}

/// What the board keeps beside its computer.
#[derive(Clone, Copy)]
struct Flags {
    here: Here,
    idle: u64,
    exit: bool,
    halt_again: bool,
    changed: bool,
    reached: Instant,
    nmi_due: bool,
    window: bool,
}

/// Why there is no going back.
#[derive(Clone, Debug)]
pub enum NoReturn {
    /// No checkpoint was taken.
    NotTaken,
    /// A device refuses its state: a bug.
    Refused(BadState),
}

impl fmt::Display for NoReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTaken => f.write_str("no checkpoint was taken that could be gone back to"),
            Self::Refused(BadState(why)) => write!(f, "the checkpoint is refused: {why}"),
        }
    }
}

impl Checkpoint {
    /// Room for a checkpoint of this virtual machine: as much memory as it has, and as its disks have that can be written.
    ///
    /// # Errors
    /// No memory.
    pub fn allocate(board: &Board) -> Result<Self, OutOfFrames> {
        let room = |bytes: usize| Pages::take((bytes as u64).div_ceil(FRAME).max(1), FRAME, Zone::Any);
        let disks =
            board.disks.iter().map(|disk| disk.changeable().map(|bytes| room(bytes.len())).transpose());
        Ok(Self {
            ram: room(board.vm.memory().len())?,
            disks: disks.collect::<Result<_, _>>()?,
            fpu: FpuState::new()?,
            rest: None,
        })
    }

    /// Takes the checkpoint, where the replay is now: between an entry of the log that was applied and the next. `digest` has
    /// looked at the state at the same place. Nothing where there is no replay.
    pub fn take(&mut self, board: &Board, on: &mut Active<'_>) {
        let Tape::Replaying(replaying) = &board.tape else { return };
        let captured = on.capture();
        self.fpu.copy_from(on.fpu());
        self.ram.bytes_mut().copy_from_slice(board.vm.memory());
        for (room, disk) in self.disks.iter_mut().zip(&board.disks) {
            if let (Some(room), Some(contents)) = (room, disk.changeable()) {
                room.bytes_mut()[..contents.len()].copy_from_slice(contents);
            }
        }
        // The guest stands still for as long as this takes, and nothing of it is left over.
        memory::resume_allocation();
        self.rest = Some(Rest {
            captured,
            computer: board.computer.save(),
            sums: board.disks.iter().map(|disk| disk.sum()).collect(),
            instructions: board.time.instructions(),
            charged: board.time.charged(),
            clock: board.time.clock(),
            flags: Flags {
                here: board.here,
                idle: board.idle,
                exit: board.exit,
                halt_again: board.halt_again,
                changed: board.changed,
                reached: board.reached,
                nmi_due: board.nmi_due,
                window: board.window,
            },
            looked: replaying.digest.looked(),
            replayer: replaying.replayer.source().place().map(|at| replaying.replayer.with_source(at)),
            checkpoints: replaying.checkpoints,
        });
        memory::end_allocation();
    }

    /// Brings everything back to where the checkpoint was taken; the replay goes on from there, as often as one likes. The
    /// caller is between the same steps of the loop as when it was taken, and nothing of a landing is set up.
    ///
    /// # Errors
    /// See [`NoReturn`]; after [`NoReturn::Refused`], the virtual machine is worth nothing.
    pub fn restore(&self, board: &mut Board, on: &mut Active<'_>) -> Result<(), NoReturn> {
        let rest = self.rest.as_ref().ok_or(NoReturn::NotTaken)?;
        on.restore(&rest.captured, Some(&self.fpu));
        self.put_memory_back(&mut board.vm);
        for ((room, disk), sum) in self.disks.iter().zip(&mut board.disks).zip(&rest.sums) {
            let length = disk.changeable().map_or(0, <[u8]>::len);
            if let Some(room) = room {
                disk.put_back(&room.bytes()[..length], *sum);
            }
        }
        memory::resume_allocation();
        let restored = board.computer.restore(rest.computer.clone());
        memory::end_allocation();
        restored.map_err(NoReturn::Refused)?;
        board.put_flags_back(&rest.flags);
        // The counters go on; what software has completed makes up for the difference.
        let counted = board.time.instructions().wrapping_sub(on.emulated());
        on.set_emulated(rest.instructions.wrapping_sub(counted));
        board.time.set_emulated(on.emulated());
        board.time.put_back(rest.charged, rest.clock.clone()).map_err(NoReturn::Refused)?;
        if let Tape::Replaying(replaying) = &mut board.tape {
            replaying.digest.look_back(&rest.looked);
            if let Some(replayer) = &rest.replayer {
                replaying.replayer = replayer.with_source(Feed::File(replayer.source().clone()));
            }
            replaying.checkpoints = rest.checkpoints;
        }
        Ok(())
    }

    /// Only what has changed is written, so that only this is marked.
    fn put_memory_back(&self, vm: &mut Vm) {
        for (page, saved) in self.ram.bytes().chunks_exact(FRAME as usize).enumerate() {
            if vm.memory()[page * FRAME as usize..][..FRAME as usize] != *saved {
                // It is a page of RAM.
                let _ = vm.ram().write(Vm::address_of(page), saved);
            }
        }
    }
}

impl Board {
    fn put_flags_back(&mut self, flags: &Flags) {
        let Flags { here, idle, exit, halt_again, changed, reached, nmi_due, window } = *flags;
        (self.here, self.idle, self.exit, self.halt_again) = (here, idle, exit, halt_again);
        (self.changed, self.reached, self.nmi_due, self.window) = (changed, reached, nmi_due, window);
    }
}
