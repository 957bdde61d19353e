//! The tracker of paging structures against a naive model: random writes to tables, loads of CR3, walks that the processor caches.
//! Whatever a walk from the current CR3 can come through is watched; what nobody can reach is not; and nothing is cached that
//! the tables do not say any more.
//!
//! `PAGING_ROUNDS` makes it longer.

mod emulate_model;

use emulate_model::Random;
use machine::paging::format::{ACCESSED, Format, PRESENT};
use machine::paging::tracker::{Guard, Plan, ROOTS, Tracker};
use std::collections::{BTreeMap, BTreeSet};

const ROUNDS: u64 = 60;
const STEPS: usize = 1_500;
const PAGES: u32 = 40;
const PAGE: usize = 4096;

/// A walk that the processor has cached: the linear address, and what it led to.
type Cached = BTreeMap<u64, (u64, Vec<u32>)>;

struct Machine {
    ram: Vec<u8>,
    watched: BTreeSet<u32>,
    hidden: BTreeSet<u32>,
    cached: Cached,
    /// Values of CR3 that the guest may load unseen.
    targets: BTreeSet<u64>,
}

impl Guard for Machine {
    fn ram(&self) -> &[u8] {
        &self.ram
    }
    fn page_of(&self, address: u64) -> Option<u32> {
        (address / 4096 < PAGES.into()).then_some((address / 4096) as u32)
    }
    fn watch(&mut self, page: u32, on: bool) {
        let changed = if on { self.watched.insert(page) } else { self.watched.remove(&page) };
        assert!(changed, "page {page} is watched twice, or not: {on}");
    }
    fn hide(&mut self, page: u32, on: bool) {
        if on {
            self.hidden.insert(page);
            self.cached.retain(|_, (_, pages)| !pages.contains(&page));
        } else {
            self.hidden.remove(&page);
        }
    }
    fn flush(&mut self, linear: Option<u64>) {
        match linear {
            Some(linear) => self.cached.retain(|cached, _| cached & !0xfff != linear & !0xfff),
            None => self.cached.clear(),
        }
    }
    fn forget_root(&mut self, root: u64) {
        self.targets.remove(&root);
    }
}

impl Machine {
    fn entry(&self, format: Format, page: u32, index: usize) -> u64 {
        let (size, at) = (format.entry_bytes(), page as usize * PAGE + index * format.entry_bytes());
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.ram[at..at + size]);
        u64::from_le_bytes(bytes)
    }

    fn set_entry(&mut self, format: Format, page: u32, index: usize, entry: u64) {
        let (size, at) = (format.entry_bytes(), page as usize * PAGE + index * format.entry_bytes());
        self.ram[at..at + size].copy_from_slice(&entry.to_le_bytes()[..size]);
    }

    /// The entry that maps a linear address, and the pages of the walk; None: no translation, or a hidden page.
    fn walk(&self, format: Format, tops: &[u32], linear: u64) -> Option<(u64, Vec<u32>)> {
        let top = if format == Format::Pae { (linear >> 30 & 3) as usize } else { 0 };
        let mut page = *tops.get(top)?;
        let mut pages = Vec::new();
        for level in (1..=format.top()).rev() {
            if page == u32::MAX || self.hidden.contains(&page) {
                return None;
            }
            pages.push(page);
            let entry = self.entry(format, page, format.index(level, linear));
            if entry & PRESENT == 0 {
                return None;
            }
            match format.child(level, entry) {
                Some(next) => page = self.page_of(next).unwrap_or(u32::MAX),
                None => return Some((entry, pages)),
            }
        }
        None
    }

    /// Every page that walks from these tables can come through, at whatever level.
    fn reach(&self, format: Format, tops: &[u32], through_hidden: bool) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<(u32, usize)> = tops.iter().map(|top| (*top, format.top())).collect();
        let mut seen = BTreeSet::new();
        while let Some((page, level)) = todo.pop() {
            if page == u32::MAX || !seen.insert((page, level)) {
                continue;
            }
            found.insert(page);
            if level < 2 || self.hidden.contains(&page) && !through_hidden {
                continue;
            }
            for index in 0..PAGE / format.entry_bytes() {
                let child = format.child(level, self.entry(format, page, index));
                if let Some(page) = child.and_then(|address| self.page_of(address)) {
                    todo.push((page, level - 1));
                }
            }
        }
        found
    }
}

struct World {
    format: Format,
    machine: Machine,
    tracker: Tracker<Vec<u64>>,
    /// Loaded values of CR3 with their tables, the current one last.
    cr3: u64,
    tops: Vec<u32>,
}

impl World {
    fn new(format: Format) -> Self {
        let machine = Machine {
            ram: vec![0; PAGES as usize * PAGE],
            watched: BTreeSet::new(),
            hidden: BTreeSet::new(),
            cached: Cached::new(),
            targets: BTreeSet::new(),
        };
        let words = PAGES as usize * Tracker::<Vec<u64>>::WORDS;
        Self { format, machine, tracker: Tracker::new(vec![0; words]), cr3: 0, tops: Vec::new() }
    }

    fn random_entry(&self, random: &mut Random) -> u64 {
        if random.chance(30) {
            return 0;
        }
        let bits = random.of(&[0x67, 0x27, 0x07, 0x63, 0xe7, 0x65, 0x66, 0x1067]);
        // Mostly pages that tables are made of; now and then one that is no RAM.
        random.below(u64::from(PAGES) + 2) << 12 | bits & 0xfff
    }

    /// Few entries of a page are used, so that walks meet.
    fn random_index(&self, random: &mut Random) -> usize {
        let last = PAGE / self.format.entry_bytes() - 1;
        random.of(&[0, 1, 2, 3, 200, 201, last])
    }

    fn random_linear(&self, random: &mut Random) -> u64 {
        let linear = (1..=self.format.top())
            .fold(0, |linear, level| linear | (self.random_index(random) as u64) << self.format.shift(level));
        match self.format {
            Format::FourLevel { .. } => ((linear << 16) as i64 >> 16) as u64,
            Format::Pae => linear | random.below(4) << 30,
            _ => linear & 0xffff_ffff,
        }
    }

    /// The guest writes an entry, by an instruction that is emulated if the page is watched.
    fn write(&mut self, page: u32, index: usize, new: u64, known: bool) {
        let (machine, tracker) = (&mut self.machine, &mut self.tracker);
        if machine.hidden.contains(&page) {
            tracker.close(page, machine);
        }
        if !machine.watched.contains(&page) || tracker.plan(page, known, machine) == Plan::Native {
            machine.set_entry(self.format, page, index, new);
            return;
        }
        let old = machine.entry(self.format, page, index);
        let matters = tracker.matters(page, old, new);
        if matters {
            tracker.before_change(page, old, machine);
        }
        machine.set_entry(self.format, page, index, new);
        if matters {
            tracker.after_change(page, index, new, machine);
        }
        match tracker.leaf(page) {
            Some(base) => {
                assert!(!matters);
                tracker.outdate_leaf(base, index, old, new, machine);
            }
            None => tracker.outdate(page, index, old, new, machine),
        }
        tracker.consider_opening(page, index, u64::from(page) * 64, machine);
    }

    fn load(&mut self, random: &mut Random) {
        let page = random.below(12) as u32;
        self.cr3 = u64::from(page) << 12;
        let mut entries = [0; 4];
        if self.format == Format::Pae {
            entries = [0, 1, 2, 3].map(|_| if random.chance(70) { random.below(12) << 12 | 1 } else { 0 });
            self.tops = entries.map(|e| if e == 0 { u32::MAX } else { (e >> 12) as u32 }).to_vec();
        } else {
            self.tops = vec![page];
        }
        // Nothing of another root's stays cached: no translation is global here.
        self.machine.cached.clear();
        let unseen = self.machine.targets.contains(&self.cr3) && self.format != Format::Pae;
        if !unseen {
            self.tracker.load(self.format, self.cr3, entries, &mut self.machine);
            self.machine.targets.insert(self.cr3);
        }
        assert!(self.tracker.enter(self.cr3), "a root that was loaded is known");
    }

    /// The processor walks, sets accessed bits where it may, and caches.
    fn access(&mut self, random: &mut Random) {
        let linear = self.random_linear(random);
        // A walk comes to hidden pages, too: an exit closes what is open.
        while let Some(page) = self.hidden_on_the_way(linear) {
            self.tracker.close(page, &mut self.machine);
        }
        let Some((_, pages)) = self.machine.walk(self.format, &self.tops, linear) else { return };
        for (n, page) in pages.iter().enumerate() {
            assert!(self.machine.watched.contains(page), "a walk comes through page {page}, unwatched");
            let index = self.format.index(self.format.top() - n, linear);
            let entry = self.machine.entry(self.format, *page, index);
            self.machine.set_entry(self.format, *page, index, entry | ACCESSED);
        }
        let walked = self.machine.walk(self.format, &self.tops, linear).expect("it was there");
        self.machine.cached.insert(linear, walked);
    }

    fn hidden_on_the_way(&self, linear: u64) -> Option<u32> {
        let all = Machine { hidden: BTreeSet::new(), ..self.shallow() };
        let (_, pages) = all.walk(self.format, &self.tops, linear)?;
        pages.into_iter().find(|page| self.machine.hidden.contains(page))
    }

    fn shallow(&self) -> Machine {
        Machine {
            ram: self.machine.ram.clone(),
            watched: BTreeSet::new(),
            hidden: BTreeSet::new(),
            cached: Cached::new(),
            targets: BTreeSet::new(),
        }
    }

    fn check(&self) {
        let machine = &self.machine;
        for page in machine.reach(self.format, &self.tops, false) {
            let safe = machine.watched.contains(&page) || machine.hidden.contains(&page);
            assert!(safe, "page {page} can be walked and is not watched");
        }
        for (linear, (entry, pages)) in &machine.cached {
            let now = machine.walk(self.format, &self.tops, *linear);
            // Bits that are set, and those that nothing depends on, may differ.
            let same = now
                .as_ref()
                .is_some_and(|(now, through)| !Format::outdates(*entry, *now) && through == pages);
            assert!(same, "{linear:#x} is cached as {entry:#x} through {pages:?}, and now {now:x?}");
        }
        for page in 0..PAGES {
            let (watched, table) = (machine.watched.contains(&page), self.tracker.is_table(page));
            assert_eq!(watched, table && !self.tracker.is_open(page), "page {page}");
        }
        assert_eq!(
            self.tracker.counters().tables as usize,
            (0..PAGES).filter(|p| self.tracker.is_table(*p)).count()
        );
    }

    /// With nothing open and only the current root known, exactly its tables are watched.
    fn check_exactly(&mut self) {
        self.tracker.close_all(&mut self.machine);
        // A write by nothing that can be emulated has all other roots forgotten.
        for page in 0..PAGES {
            if self.tracker.is_table(page) {
                self.tracker.plan(page, false, &mut self.machine);
            }
        }
        assert_eq!(self.machine.watched, self.machine.reach(self.format, &self.tops, true));
    }
}

fn run(format: Format, seed: u64) -> [u64; 3] {
    let mut random = Random(seed);
    let mut world = World::new(format);
    world.load(&mut random);
    let mut busy = (0, 0);
    for step in 0..STEPS {
        match random.below(100) {
            // One page again and again, so that it is opened.
            0..40 => {
                if random.chance(25) {
                    busy = (random.below(PAGES.into()) as u32, world.random_index(&mut random));
                }
                let entry = world.random_entry(&mut random);
                let index = world.random_index(&mut random);
                world.write(busy.0, index, entry, random.chance(97));
            }
            40..60 => {
                let (page, entry) = (random.below(PAGES.into()) as u32, world.random_entry(&mut random));
                let index = world.random_index(&mut random);
                world.write(page, index, entry, random.chance(97));
            }
            60..95 => world.access(&mut random),
            95..99 => world.load(&mut random),
            _ => {
                let tops = [0; 4];
                if format != Format::Pae {
                    world.tracker.rebuild(format, world.cr3, tops, &mut world.machine);
                }
            }
        }
        if step % 16 == 0 {
            world.check();
        }
        if step % 256 == 255 {
            world.check_exactly();
            world.check();
        }
    }
    let counters = world.tracker.counters();
    world.tracker.load(Format::Off, 0, [0; 4], &mut world.machine);
    assert!(world.machine.watched.is_empty() && world.machine.hidden.is_empty(), "everything is let go");
    [counters.opened, counters.roots_forgotten, counters.roots_added]
}

fn rounds(format: Format) {
    let rounds = std::env::var("PAGING_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut sums = [0; 3];
    for seed in 0..rounds {
        for (sum, count) in sums.iter_mut().zip(run(format, seed)) {
            *sum += count;
        }
    }
    assert!(sums.iter().all(|sum| *sum > rounds / 4), "opened, forgotten, added: {sums:?}");
}

#[test]
fn four_level_paging() {
    rounds(Format::FourLevel { gigabyte: true });
}

#[test]
fn pae_paging() {
    rounds(Format::Pae);
}

#[test]
fn legacy_paging() {
    rounds(Format::Legacy { large: true });
    rounds(Format::Legacy { large: false });
}

#[test]
fn a_linux_keeps_its_roots() {
    // A kernel half that all share, a process's own half below.
    let format = Format::FourLevel { gigabyte: true };
    let mut world = World::new(format);
    let machine = &mut world.machine;
    for root in 0..8 {
        machine.set_entry(format, root, 511, 20 << 12 | 0x67);
        machine.set_entry(format, root, 0, (8 + u64::from(root)) << 12 | 0x67);
    }
    machine.set_entry(format, 20, 510, 21 << 12 | 0x67);
    machine.set_entry(format, 21, 0, 22 << 12 | 0x67);
    for root in 0..8_u64 {
        world.tracker.load(format, root << 12 | 0x18, [0; 4], &mut world.machine);
    }
    const { assert!(8 <= ROOTS) };
    assert_eq!(world.tracker.counters().tables, 8 + 8 + 3);
    for root in 0..8_u64 {
        assert!(world.tracker.enter(root << 12), "root {root}");
    }
    // The process of root 0 is not running any more, and a page of its tables is used for something else.
    world.cr3 = 7 << 12;
    world.tops = vec![7];
    world.write(8, 5, 0x9067, true);
    assert!(world.tracker.is_table(8));
    world.write(8, 6, 0x9067, false);
    assert!(!world.tracker.is_table(8) && !world.tracker.is_table(0));
    assert!(world.tracker.is_table(20), "the kernel's half stays");
    assert!(world.tracker.is_table(9), "and so does another process");
}
