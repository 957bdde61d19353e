//! The guest's paging on this host: plain, fast (page faults that only this processor's translations made are swallowed), or strict
//! (accessed and dirty bits are set here and nowhere else). docs/paging.md has the reasoning; `machine::paging` the pure part.

use super::board::{Board, reason};
use crate::arch::physical::Pages;
use crate::memory::{FRAME, OutOfFrames, Zone};
pub use crate::options::PagingMode as Mode;
use crate::vcpu::{Active, Stop, Verdict};
use crate::vmm::paging_controls::TARGETS;
use crate::vmm::vm::{Vm, VmError};
use alloc::boxed::Box;
use heapless::Vec;
use machine::cpu::registers::efer;
use machine::emulate::{Cause, Emulator, MAX_LENGTH, Outcome};
use machine::paging::format::{ACCESSED, DIRTY, Format, PRESENT};
use machine::paging::store::{self, Store as Instruction};
use machine::paging::tracker::{Guard, Plan, Store, Tracker};
use machine::paging::views::Views;
use machine::ram::{TablesWritten, mark};
use vmx::exit::{EptViolation, LinearAccess};
use vmx::fields::{self, VmcsRead, VmcsWrite};

const PAGE: usize = FRAME as usize;

/// Of the stack pointer, what tells how deep calls are nested: kernels' stacks are multiples of this in size.
const STACK_DEPTH: u64 = 0xff8;

/// Bytes that an instruction writes at most to one place, but for those that save a whole state.
const WIDEST_STORE: usize = 64;

/// What was done, for the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// First writes to pages.
    pub dirtied: u64,
    /// Accessed and dirty bits set.
    pub bits_set: u64,
    /// Among them those in pages that nobody knew to be tables: there must be none.
    pub unknown: u64,
    /// Writes to tables, emulated quickly.
    pub quick: u64,
    /// Writes to tables, emulated by the general emulator.
    pub general: u64,
    /// Instructions that were let write to a table.
    pub stepped: u64,
    /// Writes to what was no table any more.
    pub native: u64,
    /// Hidden pages that were touched.
    pub closed: u64,
    /// Loads of CR3 and other changes that exited.
    pub loads: u64,
    /// Page faults that were none.
    pub swallowed: u64,
}

/// The words of the tracker.
struct Words(Pages);

impl Store for Words {
    #[inline]
    fn words(&self) -> &[u64] {
        self.0.words()
    }
    #[inline]
    fn words_mut(&mut self) -> &mut [u64] {
        self.0.words_mut()
    }
}

/// Values of CR3 that the guest loads without an exit.
#[derive(Default)]
struct Targets {
    values: Vec<(u64, u64), TARGETS>,
    next: usize,
}

impl Targets {
    /// One more; an older one goes. `root`: what it is known by.
    fn add(&mut self, on: &mut Active<'_>, root: u64, value: u64) {
        let most = on.cr3_targets();
        if most == 0 || self.values.iter().any(|(_, known)| *known == value) {
            return;
        }
        if self.values.len() < most {
            // There is room.
            let _ = self.values.push((root, value));
        } else {
            self.next = (self.next + 1) % most;
            self.values[self.next] = (root, value);
        }
        self.write(on);
    }

    fn forget(&mut self, on: &mut Active<'_>, root: u64) {
        let before = self.values.len();
        self.values.retain(|(of, _)| *of != root);
        if self.values.len() != before {
            self.write(on);
        }
    }

    fn write(&self, on: &mut Active<'_>) {
        let values: Vec<u64, TARGETS> = self.values.iter().map(|(_, value)| *value).collect();
        on.set_cr3_targets(&values);
    }
}

/// What is to be dropped of the processor's translations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Nothing,
    One(u64),
    All,
}

/// The tracker's hand on the virtual machine.
struct Hand<'h, 'v> {
    vm: &'h mut Vm,
    on: &'h mut Active<'v>,
    targets: &'h mut Targets,
    views: &'h mut Views,
    flush: Flush,
}

impl Hand<'_, '_> {
    fn change(&mut self, page: u32, mark: u8, on: bool) {
        if let Some(pages) = self.vm.pages_mut() {
            let (set, clear) = if on { (mark, 0) } else { (0, mark) };
            pages.change(page as usize, set, clear);
        }
    }

    /// Before the guest is entered: what was taken away is taken from the processor as well.
    fn settle(self) {
        if self.vm.settle() {
            // All translations by way of EPT are gone, whatever their linear address.
            return;
        }
        match self.flush {
            Flush::Nothing => {}
            Flush::One(linear) => self.on.flush_address(linear),
            Flush::All => self.on.flush(),
        }
    }
}

impl Guard for Hand<'_, '_> {
    #[inline]
    fn ram(&self) -> &[u8] {
        self.vm.memory()
    }
    #[inline]
    fn page_of(&self, address: u64) -> Option<u32> {
        self.vm.page_of(address).map(|page| page as u32)
    }
    fn watch(&mut self, page: u32, on: bool) {
        self.change(page, mark::TABLE, on);
    }
    fn hide(&mut self, page: u32, on: bool) {
        if on {
            self.views.outdate_small();
        }
        self.change(page, mark::HIDDEN, on);
    }
    fn flush(&mut self, linear: Option<u64>) {
        self.views.outdate(linear);
        self.flush = match (self.flush, linear) {
            (Flush::Nothing, Some(linear)) => Flush::One(linear),
            (Flush::One(one), Some(linear)) if one == linear => Flush::One(one),
            _ => Flush::All,
        };
    }
    fn forget_root(&mut self, root: u64) {
        self.targets.forget(self.on, root);
    }
}

/// The registers of an instruction that is emulated quickly.
struct Quick<'h, 'v>(&'h mut Active<'v>);

impl store::Registers for Quick<'_, '_> {
    #[inline]
    fn get(&self, number: u8) -> u64 {
        self.0.read_general(number)
    }
    #[inline]
    fn set(&mut self, number: u8, value: u64) {
        self.0.write_general(number, 8, value);
    }
    fn flags(&self) -> u64 {
        self.0.vmcs().read(fields::GUEST_RFLAGS)
    }
    fn set_flags(&mut self, flags: u64) {
        self.0.vmcs_mut().write(fields::GUEST_RFLAGS, flags);
    }
}

/// The strict mode's part.
struct Strict {
    tracker: Tracker<Words>,
    targets: Targets,
    views: Views,
    emulator: Emulator,
    /// A table as it was before an instruction, and as it is after it.
    before: Box<[u8; PAGE]>,
    after: Box<[u8; PAGE]>,
    /// The guest is let write to a table by itself, for one instruction.
    step: Option<Step>,
}

/// An instruction that nobody can emulate writes to a table.
struct Step {
    page: usize,
    /// Where its write begins.
    offset: usize,
    /// The guest exits after each instruction anyway.
    trapped: bool,
}

/// The guest's paging.
#[derive(Default)]
pub struct Paging {
    strict: Option<Strict>,
    mode: Mode,
    /// What was done.
    pub counters: Counters,
    /// Where the guest was when a bit was set for an instruction that it has not completed yet.
    unfinished: Option<(u64, u64, u64)>,
}

impl Paging {
    /// In this mode; the guest's memory is kept track of from now on, unless it is plain.
    ///
    /// # Errors
    /// No memory.
    pub fn new(mode: Mode, vm: &mut Vm, large: bool) -> Result<Self, VmError> {
        if mode != Mode::Plain {
            vm.track(large)?;
        }
        let strict = if mode == Mode::Strict { Some(Strict::new(vm)?) } else { None };
        Ok(Self { strict, mode, ..Self::default() })
    }

    /// The instruction that the guest is let write to a table with.
    #[inline]
    fn step(&self) -> Option<&Step> {
        self.strict.as_ref()?.step.as_ref()
    }

    /// The mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Says what was done, in one line for tools.
    pub fn say(&self) {
        let (c, t) = (
            &self.counters,
            self.strict.as_ref().map(|strict| strict.tracker.counters()).unwrap_or_default(),
        );
        crate::machine_line!(
            "paging mode={} dirtied={} bits-set={} unknown={} quick={} general={} stepped={} native={} closed={} loads={} \
             swallowed={} tables={} most-tables={} roots={} forgotten={} opened={} closed-early={} rebuilt={}",
            self.mode.word(),
            c.dirtied,
            c.bits_set,
            c.unknown,
            c.quick,
            c.general,
            c.stepped,
            c.native,
            c.closed,
            c.loads,
            c.swallowed,
            t.tables,
            t.most_tables,
            t.roots_added,
            t.roots_forgotten,
            t.opened,
            t.closed_early,
            t.rebuilt
        );
    }

    /// Whether an accessed or dirty bit was set for the instruction that the guest is at, with so many retired, and it has not
    /// completed since. Nothing may be taken in here that is not a function of the guest: on another host that stops here the bit
    /// would not be set yet.
    #[inline]
    pub fn is_unfinished(&self, retired: u64, on: &Active<'_>) -> bool {
        self.unfinished.is_some_and(|point| point == place(retired, on))
    }
}

/// Where the guest is: instructions retired, RIP, RCX.
fn place(retired: u64, on: &Active<'_>) -> (u64, u64, u64) {
    (retired, on.vmcs().read(fields::GUEST_RIP), on.read_general(1))
}

impl Strict {
    fn new(vm: &Vm) -> Result<Self, OutOfFrames> {
        let pages = vm.pages().map_or(0, |pages| pages.count());
        let bytes = pages as u64 * Tracker::<Words>::WORDS as u64 * 8;
        let words = Pages::take(bytes.div_ceil(FRAME).max(1), FRAME, Zone::Any)?;
        Ok(Self {
            tracker: Tracker::new(Words(words)),
            targets: Targets::default(),
            views: Views::NONE,
            emulator: Emulator::new(),
            before: Box::new([0; PAGE]),
            after: Box::new([0; PAGE]),
            step: None,
        })
    }

    /// The tracker, and its hand.
    fn with<'h, 'v>(
        &'h mut self,
        vm: &'h mut Vm,
        on: &'h mut Active<'v>,
    ) -> (&'h mut Tracker<Words>, Hand<'h, 'v>) {
        (
            &mut self.tracker,
            Hand { vm, on, targets: &mut self.targets, views: &mut self.views, flush: Flush::Nothing },
        )
    }

    /// Paging as the registers have it now.
    fn load(&mut self, vm: &mut Vm, on: &mut Active<'_>, anew: bool) {
        let registers = on.paging();
        let gigabyte = on.limits().gigabyte_pages;
        let format = Format::of(registers.cr0, registers.cr4, registers.efer, gigabyte);
        let tops = if format == Format::Pae { on.pdptes() } else { [0; 4] };
        let (tracker, mut hand) = self.with(vm, on);
        if anew {
            tracker.rebuild(format, registers.cr3, tops, &mut hand);
        } else {
            tracker.load(format, registers.cr3, tops, &mut hand);
        }
        hand.settle();
    }

    /// A page has changed from what is in `before`: back to that, and then entry by entry. `around`: of entries that are not near this
    /// offset, those that differ in no more than accessed and dirty bits stay as they were.
    fn follow_changes(&mut self, vm: &mut Vm, on: &mut Active<'_>, page: usize, around: Option<usize>) {
        let memory = &mut vm.memory_mut()[page * PAGE..(page + 1) * PAGE];
        self.after.copy_from_slice(memory);
        memory.copy_from_slice(&*self.before);
        let Self { tracker, targets, views, before, after, .. } = self;
        let mut hand = Hand { vm, on, targets, views, flush: Flush::Nothing };
        let size = tracker.format().entry_bytes();
        for index in 0..PAGE / size {
            let at = index * size;
            let (old, new) = (number(&before[..], at, size), number(&after[..], at, size));
            let by_a_walk = (old ^ new) & !(ACCESSED | DIRTY) == 0
                && around.is_some_and(|offset| !(offset..offset + WIDEST_STORE).contains(&at));
            if !by_a_walk {
                change_entry(tracker, &mut hand, page as u32, index, new);
            }
        }
        hand.settle();
    }

    /// Lets the guest write to a table, for one instruction. The processor's walks may set bits in it meanwhile: what they set
    /// is undone.
    fn begin_step(&mut self, vm: &mut Vm, on: &mut Active<'_>, page: usize, offset: usize) {
        self.before.copy_from_slice(&vm.memory()[page * PAGE..(page + 1) * PAGE]);
        if let Some(pages) = vm.pages_mut() {
            pages.change(page, mark::DIRTY, mark::TABLE);
        }
        self.step = Some(Step { page, offset, trapped: on.traps_instructions() });
        on.trap_instructions(true);
    }

    #[cold]
    fn end_step(&mut self, vm: &mut Vm, on: &mut Active<'_>) {
        let Some(step) = self.step.take() else { return };
        on.trap_instructions(step.trapped);
        if let Some(pages) = vm.pages_mut() {
            pages.change(step.page, mark::TABLE, 0);
        }
        self.follow_changes(vm, on, step.page, Some(step.offset));
        // Nothing stays that a walk has cached of bits that are undone.
        vm.settle();
    }

    /// The instruction at RIP, if it is one of those that tables are written with. The processor has just fetched it.
    #[inline]
    fn fetch(&mut self, vm: &Vm, on: &Active<'_>) -> Option<Instruction> {
        let long = on.in_64_bit_code();
        let rip = on.vmcs().read(fields::GUEST_RIP);
        if !long {
            // Flat 32-bit code and nothing else.
            let access = on.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS);
            let efer = on.vmcs().read(fields::GUEST_EFER);
            if access & 1 << 14 == 0 || on.vmcs().read(fields::GUEST_CS_BASE) != 0 || efer & efer::LMA != 0 {
                return None;
            }
        }
        let place = match self.views.code(rip) {
            Some(place) => place,
            None => {
                let walked = self.walk(vm, on, rip)?;
                let place = vm.place_of(walked.physical)?;
                self.views.note_code(rip, place, walked.shift);
                place
            }
        };
        let length = MAX_LENGTH.min(PAGE - place % PAGE);
        let code = vm.memory().get(place..place + length)?;
        self.views.decode(rip, code, long)
    }

    /// Whether a linear address lies at this guest-physical one, by entries that no write has to set a bit in.
    #[inline]
    fn is_at(&mut self, vm: &Vm, on: &Active<'_>, linear: u64, physical: u64) -> bool {
        if let Some(known) = self.views.physical(linear) {
            return known == physical;
        }
        let Some(walked) = self.walk(vm, on, linear) else { return false };
        if walked.physical != physical || walked.entry & DIRTY == 0 {
            return false;
        }
        self.views.note(linear, physical, walked.shift);
        true
    }

    /// Where a linear address lies, and the entry that says so; None: not translated by entries that all are accessed, or not by
    /// tables in RAM. Rights are not looked at.
    #[inline]
    fn walk(&self, vm: &Vm, on: &Active<'_>, linear: u64) -> Option<Walked> {
        let format = self.tracker.format();
        let cr3 = on.vmcs().read(fields::GUEST_CR3);
        match format {
            Format::Off => None,
            // Constants, so that the walk is unrolled.
            Format::FourLevel { .. } => {
                walk_from::<4, true>(vm, Format::FourLevel { gigabyte: true }, format.root(cr3), linear)
            }
            Format::Pae => {
                let entry = *on.pdptes().get((linear >> 30 & 3) as usize)?;
                let table = (entry & PRESENT != 0).then_some(entry & 0x000f_ffff_ffff_f000)?;
                walk_from::<2, true>(vm, format, table, linear)
            }
            Format::Legacy { .. } => walk_from::<2, false>(vm, format, format.root(cr3), linear),
        }
    }
}

/// What a walk finds.
struct Walked {
    /// The guest-physical address.
    physical: u64,
    /// The entry that maps it.
    entry: u64,
    /// The page's size, as a power of 2.
    shift: u32,
}

#[inline(always)]
fn walk_from<const LEVELS: usize, const WIDE: bool>(
    vm: &Vm,
    format: Format,
    mut table: u64,
    linear: u64,
) -> Option<Walked> {
    let ram = vm.memory();
    for level in (1..=LEVELS).rev() {
        let (index, bytes) = (format.index(level, linear), if WIDE { 8 } else { 4 });
        let rest = ram.get(vm.place_of(table)? + index * bytes..)?;
        let entry = if WIDE {
            u64::from_le_bytes(*rest.first_chunk()?)
        } else {
            u32::from_le_bytes(*rest.first_chunk()?).into()
        };
        if entry & (PRESENT | ACCESSED) != PRESENT | ACCESSED {
            return None;
        }
        match format.child(level, entry) {
            Some(next) => table = next,
            None => {
                let shift = format.shift(level);
                let offset = (1_u64 << shift) - 1;
                let physical = entry & 0x000f_ffff_ffff_f000 & !offset | linear & offset;
                return Some(Walked { physical, entry, shift });
            }
        }
    }
    None
}

/// 1, 2, 4 or 8 bytes of RAM as a number.
#[inline]
fn number(ram: &[u8], place: usize, size: usize) -> u64 {
    let Some(bytes) = ram.get(place..place + size) else { return 0 };
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

/// Writes such a number into a page.
#[inline]
fn put(vm: &mut Vm, page: usize, offset: usize, size: usize, value: u64) {
    let place = page * PAGE + offset;
    let Some(bytes) = vm.memory_mut().get_mut(place..place + size) else { return };
    match bytes {
        [byte] => *byte = value as u8,
        [a, b] => [*a, *b] = (value as u16).to_le_bytes(),
        [a, b, c, d] => [*a, *b, *c, *d] = (value as u32).to_le_bytes(),
        [a, b, c, d, e, f, g, h] => [*a, *b, *c, *d, *e, *f, *g, *h] = value.to_le_bytes(),
        _ => return,
    }
    if let Some(pages) = vm.pages_mut() {
        pages.note_written(page);
    }
}

/// Changes an entry of a watched page, and all that follows from it.
fn change_entry(tracker: &mut Tracker<Words>, hand: &mut Hand<'_, '_>, page: u32, index: usize, new: u64) {
    let size = tracker.format().entry_bytes();
    let old = number(hand.vm.memory(), page as usize * PAGE + index * size, size);
    if old == new {
        return;
    }
    if let Some(base) = tracker.leaf(page) {
        put(hand.vm, page as usize, index * size, size, new);
        return tracker.outdate_leaf(base, index, old, new, hand);
    }
    let matters = tracker.matters(page, old, new);
    if matters {
        tracker.before_change(page, old, hand);
    }
    put(hand.vm, page as usize, index * size, size, new);
    if matters {
        tracker.after_change(page, index, new, hand);
    }
    tracker.outdate(page, index, old, new, hand);
}

impl Board {
    /// The guest's processor is as after a reset: paging begins anew.
    pub fn begin_paging(&mut self, on: &mut Active<'_>) {
        let Self { vm, paging, .. } = self;
        paging.unfinished = None;
        on.watch_page_faults(paging.mode == Mode::Fast);
        on.watch_paging(paging.mode == Mode::Strict);
        if let Some(strict) = &mut paging.strict {
            strict.load(vm, on, true);
        }
    }

    /// The guest's memory or registers have changed in a way that no exit tells of: everything is looked through anew.
    #[cold]
    pub fn rebuild_paging(&mut self, on: &mut Active<'_>) {
        self.end_step(on);
        if let Some(pages) = self.vm.pages_mut() {
            pages.take_tables_written();
        }
        if let Some(strict) = &mut self.paging.strict {
            strict.load(&mut self.vm, on, true);
        }
    }

    /// Whether [`Board::rebuild_paging`] has to come before the next entry: a device or the emulator has written to a table.
    #[inline]
    pub fn tables_written(&self) -> bool {
        self.vm.pages().is_some_and(|pages| pages.tables_written() != TablesWritten::None)
    }

    /// CR0, CR3 or CR4 was written.
    pub fn follow_paging(&mut self, on: &mut Active<'_>, loaded: Option<u64>) {
        let Self { vm, paging, .. } = self;
        let Some(strict) = &mut paging.strict else { return };
        paging.counters.loads += 1;
        strict.load(vm, on, false);
        let format = strict.tracker.format();
        if let Some(value) = loaded
            && matches!(format, Format::FourLevel { .. } | Format::Legacy { .. })
        {
            strict.targets.add(on, format.root(value), value);
        }
    }

    /// The guest has written to this address, by an instruction. True if it is the first write to a page since it was looked at
    /// and no more than that.
    #[inline(always)]
    pub fn note_first_write(&mut self, guest: u64) -> bool {
        let (Some(page), None) = (self.vm.page_of(guest), self.paging.step()) else { return false };
        let first = self.vm.pages_mut().is_some_and(|pages| pages.written_first(page));
        self.paging.counters.dirtied += u64::from(first);
        first
    }

    /// An EPT violation: None if it is not about paging or pages that are kept track of, so that it is about device memory. The
    /// guest sees nothing of it.
    #[inline]
    pub fn page_violation(&mut self, on: &mut Active<'_>, violation: &EptViolation) -> Option<Verdict> {
        let page = self.vm.page_of(violation.guest_physical)?;
        let pages = self.vm.pages_mut()?;
        let marks = pages.marks(page);
        if marks & mark::HIDDEN != 0 {
            return Some(self.close(on, page));
        }
        let walk = violation.linear.is_some_and(|linear| linear.access == LinearAccess::PagingStructure);
        if violation.write && walk && self.paging.strict.is_some() {
            self.set_bit(on, violation.guest_physical, page, marks & mark::TABLE != 0);
            return Some(Verdict::Resume);
        }
        if violation.write && marks & mark::TABLE != 0 {
            return Some(self.write_table(on, violation, page));
        }
        self.paging.counters.dirtied += 1;
        pages.touched(page, violation.write);
        Some(Verdict::Resume)
    }

    /// A walk needs a bit of an entry: accessed, or if it has that, dirty.
    fn set_bit(&mut self, on: &Active<'_>, entry: u64, page: usize, known: bool) {
        self.paging.counters.bits_set += 1;
        self.paging.counters.unknown += u64::from(!known);
        // Bits of the lowest byte, whatever the entry's width.
        let offset = entry as usize % PAGE;
        let old = number(self.vm.memory(), page * PAGE + offset, 1);
        let bit = if old & ACCESSED == 0 { ACCESSED } else { DIRTY };
        put(&mut self.vm, page, offset, 1, old | bit);
        if let Some(pages) = self.vm.pages_mut()
            && !known
        {
            pages.touched(page, true);
        }
        self.paging.unfinished = Some(place(self.time.instructions(), on));
    }

    /// A hidden page is touched: the pages below it are watched again.
    fn close(&mut self, on: &mut Active<'_>, page: usize) -> Verdict {
        let Self { vm, paging, .. } = self;
        paging.counters.closed += 1;
        if let Some(strict) = &mut paging.strict {
            let (tracker, mut hand) = strict.with(vm, on);
            tracker.close(page as u32, &mut hand);
            hand.settle();
        }
        Verdict::Resume
    }

    /// The guest writes to a table.
    #[inline]
    fn write_table(&mut self, on: &mut Active<'_>, violation: &EptViolation, page: usize) -> Verdict {
        let Self { vm, paging, .. } = self;
        let Some(strict) = &mut paging.strict else { return Verdict::Resume };
        let offset = violation.guest_physical as usize % PAGE;
        let delivering = on.event_is_due();
        strict.views.enter(on.vmcs().read(fields::GUEST_CR3));
        let instruction = if delivering { None } else { strict.fetch(vm, on) };
        let linear = violation.linear.map_or(0, |linear| linear.address);
        let instruction = instruction.filter(|instruction| {
            let size = usize::from(instruction.size);
            let entry = strict.tracker.format().entry_bytes();
            // Within one entry, through translations that need no bit set any more.
            offset % entry + size <= entry && strict.is_at(vm, on, linear, violation.guest_physical)
        });
        strict.tracker.enter(on.vmcs().read(fields::GUEST_CR3));
        let (tracker, mut hand) = strict.with(vm, on);
        if tracker.plan(page as u32, instruction.is_some(), &mut hand) == Plan::Native {
            hand.settle();
            paging.counters.native += 1;
            return Verdict::Resume;
        }
        let Some(instruction) = instruction else {
            hand.settle();
            return if delivering {
                log::error!(
                    "the delivery of an event touches a paging structure at {:#x}",
                    violation.guest_physical
                );
                Verdict::Stop(Stop::Named(reason::DELIVERY))
            } else {
                self.write_table_slowly(on, page, offset)
            };
        };
        paging.counters.quick += 1;
        let size = usize::from(instruction.size);
        let old = number(hand.vm.memory(), page * PAGE + offset, size);
        let new = instruction.execute(old, &mut Quick(hand.on));
        let entry_bytes = tracker.format().entry_bytes();
        let (index, within) = (offset / entry_bytes, offset % entry_bytes);
        let entry = number(hand.vm.memory(), page * PAGE + index * entry_bytes, entry_bytes);
        let mask = (u64::MAX >> (64 - 8 * size)) << (8 * within);
        change_entry(tracker, &mut hand, page as u32, index, entry & !mask | new << (8 * within) & mask);
        let rip = hand.on.vmcs().read(fields::GUEST_RIP);
        // A kernel has one function that writes entries: the depth of the stack tells its callers apart.
        let depth = hand.on.read_general(4) & STACK_DEPTH;
        tracker.consider_opening(page as u32, index, rip ^ depth, &mut hand);
        hand.settle();
        let rip = rip.wrapping_add(instruction.length.into());
        let long = on.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0;
        on.retire_to(if long { rip } else { rip & 0xffff_ffff });
        Verdict::Resume
    }

    /// A write to a table by whatever instruction: the general emulator does it, and what has changed is found by comparing.
    #[cold]
    fn write_table_slowly(&mut self, on: &mut Active<'_>, page: usize, offset: usize) -> Verdict {
        self.paging.counters.general += 1;
        let now = self.time.now();
        // Out of its place, as it needs the board.
        let Some(mut strict) = self.paging.strict.take() else { return Verdict::Resume };
        let bytes = page * PAGE..(page + 1) * PAGE;
        strict.before.copy_from_slice(&self.vm.memory()[bytes.clone()]);
        if let Some(pages) = self.vm.pages_mut() {
            pages.take_tables_written();
        }
        let outcome = strict.emulator.step(on, &mut self.bus(now), Cause::Memory);
        let written = self.vm.pages_mut().map_or(TablesWritten::None, |pages| pages.tables_written());
        if written == TablesWritten::One(page) {
            if let Some(pages) = self.vm.pages_mut() {
                pages.take_tables_written();
            }
            strict.follow_changes(&mut self.vm, on, page, None);
        }
        // Several: `Board::rebuild_paging` comes before the entry.
        if matches!(outcome, Outcome::Undecodable(_) | Outcome::Unsupported { .. }) {
            strict.begin_step(&mut self.vm, on, page, offset);
            self.paging.strict = Some(strict);
            self.paging.counters.stepped += 1;
            return Verdict::Resume;
        }
        self.paging.strict = Some(strict);
        on.settle(outcome)
    }

    /// Comes right after every exit: the instruction that was let write to a table is through, or has to try again.
    #[inline]
    pub fn end_step(&mut self, on: &mut Active<'_>) {
        if let Some(strict) = &mut self.paging.strict
            && strict.step.is_some()
        {
            strict.end_step(&mut self.vm, on);
        }
    }
}
