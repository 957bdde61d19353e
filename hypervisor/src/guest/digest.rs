//! The digest of the whole virtual machine, kept up: taken by the host that records, compared by the one that replays.

use super::disks::MemoryDisk;
use super::time::GuestTime;
use crate::arch::physical::Pages;
use crate::arch::sums::Summer;
use crate::memory::{FRAME, OutOfFrames, Zone};
use crate::vcpu::Active;
use crate::vmm::capture;
use crate::vmm::vm::Vm;
use alloc::boxed::Box;
use machine::computer::Computer;
use machine::computer::parts::{self, Visitor};
use machine::ram::{HIGH, HOLE};
use postcard::ser_flavors::Flavor;
use replay::digest::hash::Hash;
use replay::digest::memory::{PAGE, TABLE_WORDS, may_be_table};
use replay::digest::packed::{MAX_PACKED, Malformed, pack, unpack};
use replay::digest::{Digest, Findings, Memory, PageSum, Part, Register, Shape, locate};
use serde::Serialize;

/// What the state is made of, beside the virtual processor.
pub struct Whole<'b> {
    /// The computer.
    pub computer: &'b Computer,
    /// Its memory.
    pub vm: &'b mut Vm,
    /// Its disks.
    pub disks: &'b [MemoryDisk],
    /// Its time.
    pub time: &'b GuestTime,
    /// An NMI waits for the processor.
    pub nmi_due: bool,
}

/// What was found, and what was recorded, when the state was last looked at.
#[derive(Clone, Copy)]
pub struct Looked {
    own: Digest,
    recorded: Digest,
}

/// The digest, and what it takes to keep it up.
pub struct StateDigest {
    memory: Memory,
    summer: Summer,
    /// The sums of the pages.
    table: Pages,
    /// Of this execution, when it was last looked at.
    own: Digest,
    /// As recorded at the same place; the one that the next is packed against.
    recorded: Digest,
    packed: Box<[u8; MAX_PACKED]>,
}

impl StateDigest {
    /// The digest of a virtual machine that has so many bytes of memory, all zeros, which keeps track of what is written to them.
    /// `masked`: accessed bits are left out (see [`Memory::new`]).
    ///
    /// # Errors
    /// No memory.
    pub fn new(bytes: u64, masked: bool) -> Result<Self, OutOfFrames> {
        let known = parts::NAMES.iter().chain(&parts::FUNCTIONS).all(|name| Part::named(name).is_some());
        assert!(known, "every part of the computer has its place in a digest");
        let pages = bytes / FRAME;
        let shape = Shape { pages, hole: HOLE / FRAME, high: HIGH / FRAME };
        let frames = (pages * TABLE_WORDS as u64 * 8).div_ceil(FRAME).max(1);
        let (summer, mut table) = (Summer::new(), Pages::take(frames, FRAME, Zone::Any)?);
        check_sums(summer, &mut table);
        Ok(Self {
            memory: Memory::new(shape, masked),
            summer,
            table,
            own: Digest::NONE,
            recorded: Digest::NONE,
            packed: Box::new([0; MAX_PACKED]),
        })
    }

    /// How the state was when it was last looked at.
    pub const fn looked(&self) -> Looked {
        Looked { own: self.own, recorded: self.recorded }
    }

    /// The virtual machine was brought back to where [`StateDigest::looked`] was asked. The pages that this has changed are
    /// marked as written.
    pub const fn look_back(&mut self, looked: &Looked) {
        (self.own, self.recorded) = (looked.own, looked.recorded);
    }

    /// Looks at the state and packs it for the log. Allocates nothing; some 1,300 instructions for each page that was written
    /// since, and 30,000 beside.
    pub fn take(&mut self, mut whole: Whole<'_>, on: &mut Active<'_>) -> &[u8] {
        self.look(&mut whole, on);
        let before = core::mem::replace(&mut self.recorded, self.own);
        pack(&self.own, &before, &mut self.packed)
    }

    /// Looks at the state and says what is otherwise than the log has it.
    ///
    /// # Errors
    /// The log does not have a digest that follows the one before.
    pub fn check(
        &mut self,
        packed: &[u8],
        mut whole: Whole<'_>,
        on: &mut Active<'_>,
    ) -> Result<Findings, Malformed> {
        self.look(&mut whole, on);
        unpack(&mut self.recorded, packed)?;
        let mut findings = Digest::compare(&self.recorded, &self.own);
        let memory = whole.vm.memory();
        let page = |index: u64| &memory[index as usize * FRAME as usize..][..FRAME as usize];
        locate::pages(&self.recorded.memory, &self.memory, page, &mut findings);
        Ok(findings)
    }

    /// Right after [`StateDigest::check`]: compares all of memory with what is kept of it: how many pages have changed without being marked as written. Anything
    /// but 0 is a bug of the marking.
    pub fn unmarked(&self, vm: &Vm) -> usize {
        let Self { memory, summer, table, .. } = self;
        let words = table.words();
        vm.memory()
            .chunks_exact(FRAME as usize)
            .enumerate()
            .filter(|(index, page)| !memory.is_current(words, *index as u64, sum(*summer, page, memory)))
            .count()
    }

    fn look(&mut self, whole: &mut Whole<'_>, on: &mut Active<'_>) {
        let Self { memory, summer, table, own, .. } = self;
        let words = table.words_mut();
        whole.vm.take_dirty(|page, bytes| {
            let sum = sum(*summer, bytes, memory);
            memory.update(words, page as u64, sum);
        });
        own.memory = *memory.sums();
        let captured = on.capture();
        captured.digest(own);
        capture::digest_fpu(on, own);
        whole.computer.visit(&mut Parts(own));
        for (index, disk) in whole.disks.iter().enumerate() {
            own.set_part(Part::disk(index), disk.sum().hash());
        }
        look_at_time(whole.time, whole.nmi_due, own);
    }
}

/// Hashes the computer's parts into a digest.
struct Parts<'d>(&'d mut Digest);

impl Visitor for Parts<'_> {
    fn part<T: Serialize>(&mut self, name: &'static str, state: &T) {
        let hash = postcard::serialize_with_flavor(state, Hashing(Hash::new()));
        let part = Part::named(name).expect("looked at when the digest was made");
        self.0.set_part(part, hash.expect("a state is plain data, and a hash has room for all of it"));
    }
}

/// A hash in place of the bytes.
struct Hashing(Hash);

impl Flavor for Hashing {
    type Output = u64;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.byte(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.bytes(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<u64> {
        Ok(self.0.finish())
    }
}

/// A page's sum, as this memory counts.
fn sum(summer: Summer, page: &[u8], memory: &Memory) -> PageSum {
    summer.sum(page.try_into().expect("a page is a frame"), memory.masked())
}

/// The processor's sums are those that any host computes.
fn check_sums(summer: Summer, frame: &mut Pages) {
    let page: &mut [u8; PAGE] = frame.bytes_mut().first_chunk_mut().expect("at least a frame");
    // Anything, and what may be a table.
    for kept in [8, 4] {
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = if at % 8 < kept { (at * at / 8 + at / 8) as u8 } else { 0 };
        }
        assert_eq!(may_be_table(page), kept == 4);
        for masked in [false, true] {
            assert_eq!(summer.sum(page, masked), PageSum::of(page, masked), "sums of pages by CRC32");
        }
    }
    page.fill(0);
}

/// Enters the guest's time, and whether an NMI waits, into a digest.
pub fn look_at_time(time: &GuestTime, nmi_due: bool, digest: &mut Digest) {
    let clock = time.clock();
    digest.set(Register::NmiDue, nmi_due.into());
    digest.set(Register::Instructions, time.instructions());
    digest.set(Register::Charged, time.charged());
    digest.set(Register::ClockCount, clock.count);
    digest.set(Register::ClockNanoseconds, clock.nanoseconds);
    digest.set(Register::ClockFraction, clock.fraction.into());
    digest.set(Register::ClockRate, clock.rate);
}
