//! Which pages of RAM are paging structures that the processor's walks can reach from a loaded CR3, kept up to date by the
//! guest's own writes to them.
//!
//! A table is a page *at a level*: a page that several levels use (a recursive map) is several tables. References go from a
//! table to tables of the next level only, so counting them is exact: there are no cycles. Each page of a known table is
//! watched: the guest cannot write it unseen, but for a page that is *open*, whose one parent is hidden, so that no walk can
//! come through it.

use super::format::{Format, PRESENT};
use alloc::vec::Vec as Heap;
use heapless::Vec;

/// Values of CR3 whose tables stay known, the current one among them.
pub const ROOTS: usize = 32;
/// Pages that are open at the same time.
pub const OPEN: usize = 4;

/// Writes to one page without one to another, after which it is opened.
const OPEN_AFTER: u32 = 3;
/// How often a page is not opened, after it was opened for nothing.
const SHYNESS: u8 = 4;
/// Places in the guest's code that are told apart, by a hash.
const SITES: usize = 256;
/// From this worth on a page is opened at an instruction's first write to it.
const WORTHY: u8 = 2;

const PAGE: usize = 4096;
/// No page.
const NONE: u32 = u32::MAX;
/// In place of a table's linear address: there are several.
const SEVERAL: u32 = u32::MAX;

/// What the tracker has its host do.
pub trait Guard {
    /// All RAM.
    fn ram(&self) -> &[u8];
    /// The page of RAM at a guest-physical address.
    fn page_of(&self, address: u64) -> Option<u32>;
    /// Has writes of the guest to a page, and walks that would set bits in it, exit; or no longer.
    fn watch(&mut self, page: u32, on: bool);
    /// Has every access to a page exit, walks as well; or no longer. What walks through it are cached is dropped.
    fn hide(&mut self, page: u32, on: bool);
    /// Drops the translations that the processor has cached: of a linear address, or all.
    fn flush(&mut self, linear: Option<u64>);
    /// This value of CR3 (as [`Format::root`] has it) may no longer be loaded unseen.
    fn forget_root(&mut self, root: u64);
}

/// Where the tracker keeps [`Tracker::WORDS`] words for each page of RAM, zeros at first.
pub trait Store {
    /// The words.
    fn words(&self) -> &[u64];
    /// The words, to be written.
    fn words_mut(&mut self) -> &mut [u64];
}

impl Store for Heap<u64> {
    fn words(&self) -> &[u64] {
        self
    }
    fn words_mut(&mut self) -> &mut [u64] {
        self
    }
}

/// What is known of a page. All zeros: it is no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Info {
    /// References to it as a table of level 1 to 4; those to level 4 are roots.
    refs: [u32; 4],
    /// The page that refers to it, where there was never but one reference.
    parent: u32,
    /// The linear address that it begins at, in units of what a table of level 1 spans; or [`SEVERAL`].
    base: u32,
    open: bool,
    /// So often it is not to be opened.
    shy: u8,
}

impl Info {
    #[inline]
    fn unpack(words: [u64; 3]) -> Self {
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let state = high(words[2]);
        Self {
            refs: [low(words[0]), high(words[0]), low(words[1]), state & 0xffff],
            parent: high(words[1]),
            base: low(words[2]),
            open: state & 1 << 16 != 0,
            shy: (state >> 24) as u8,
        }
    }

    #[inline]
    fn pack(self) -> [u64; 3] {
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let state = self.refs[3] & 0xffff | u32::from(self.open) << 16 | u32::from(self.shy) << 24;
        [join(self.refs[0], self.refs[1]), join(self.refs[2], self.parent), join(self.base, state)]
    }

    #[inline]
    fn is_table(&self) -> bool {
        self.refs != [0; 4]
    }

    /// The level, where it is a table of but one.
    #[inline]
    fn level(&self) -> Option<usize> {
        let mut levels = self.refs.iter().enumerate().filter(|(_, refs)| **refs != 0);
        match (levels.next(), levels.next()) {
            (Some((n, _)), None) => Some(n + 1),
            _ => None,
        }
    }

    /// Only one entry refers to it, as a table of level 1.
    #[inline]
    fn is_single_leaf(&self) -> bool {
        self.refs == [1, 0, 0, 0] && self.parent != NONE
    }
}

/// A value of CR3 whose tables are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Root {
    key: u64,
    /// The tables of the highest level; with PAE paging up to four.
    tops: [u32; 4],
    /// When it was last found to be current.
    used: u64,
}

/// Where a table of level 1 begins, in what [`Info::base`] counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafBase(u32);

/// A page that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opened {
    page: u32,
    parent: u32,
    /// The place in the code that wrote to it last.
    site: usize,
    /// The entry behind the one that was written, and what was in it: if it is another at the end, opening was worth it.
    index: usize,
    next: u64,
}

/// What is to become of a write to a watched page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The page stays watched: the write is emulated.
    Emulate,
    /// The page is watched no longer: the guest does it itself.
    Native,
}

/// Counts, for the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub tables: u32,
    pub most_tables: u32,
    pub roots_added: u64,
    pub roots_forgotten: u64,
    pub opened: u64,
    pub closed_early: u64,
    pub rebuilt: u64,
}

/// The tracker.
#[derive(Debug)]
pub struct Tracker<S: Store> {
    store: S,
    format: Format,
    roots: Vec<Root, ROOTS>,
    /// The root that CR3 has now, by its key.
    current: u64,
    clock: u64,
    open: Vec<Opened, OPEN>,
    /// The page last written to, and how often since another was.
    last: (u32, u32),
    /// By a place in the guest's code: whether what it writes to has proved worth opening, 0 to 3.
    worth: [u8; SITES],
    counters: Counters,
}

impl<S: Store> Tracker<S> {
    /// Words of the store for each page of RAM.
    pub const WORDS: usize = 3;

    /// Nothing is known: there is no paging.
    pub fn new(store: S) -> Self {
        Self {
            store,
            format: Format::Off,
            roots: Vec::new(),
            current: 0,
            clock: 0,
            open: Vec::new(),
            last: (NONE, 0),
            worth: [0; SITES],
            counters: Counters::default(),
        }
    }

    /// The format that is tracked.
    #[inline]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// What has happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether a page is a known table.
    #[inline]
    pub fn is_table(&self, page: u32) -> bool {
        self.info(page).is_table()
    }

    /// Whether a table's writes go unseen for now.
    pub fn is_open(&self, page: u32) -> bool {
        self.info(page).open
    }

    /// Whether this value of CR3 has its tables known; it is current then.
    #[inline]
    pub fn enter(&mut self, cr3: u64) -> bool {
        let key = self.format.root(cr3);
        if self.current == key && !self.roots.is_empty() {
            return true;
        }
        self.clock += 1;
        let clock = self.clock;
        let Some(root) = self.roots.iter_mut().find(|root| root.key == key) else { return false };
        root.used = clock;
        self.current = key;
        true
    }

    /// CR3 and what decides on the format are as given from now on. `tops` are the entries that PAE paging keeps in registers.
    pub fn load(&mut self, format: Format, cr3: u64, tops: [u64; 4], guard: &mut impl Guard) {
        if format != self.format {
            self.wipe(guard);
            self.format = format;
        }
        if format == Format::Off {
            return;
        }
        let key = format.root(cr3);
        let mut root = Root { key, tops: [NONE; 4], used: 0 };
        if format == Format::Pae {
            for (top, entry) in root.tops.iter_mut().zip(tops) {
                let table = (entry & PRESENT != 0).then_some(entry & 0x000f_ffff_ffff_f000);
                *top = table.and_then(|table| guard.page_of(table)).unwrap_or(NONE);
            }
        } else {
            root.tops[0] = guard.page_of(key).unwrap_or(NONE);
        }
        let known = self.roots.iter().position(|known| known.key == key);
        if let Some(at) = known
            && self.roots[at].tops == root.tops
        {
            self.enter(cr3);
            return;
        }
        self.close_all(guard);
        // The new one first: what both have in common need not be looked through again.
        let old = known.map(|at| self.roots.swap_remove(at));
        if self.roots.is_full()
            && let Some(at) = (0..self.roots.len()).min_by_key(|at| self.roots[*at].used)
        {
            self.forget(at, guard);
        }
        self.clock += 1;
        root.used = self.clock;
        self.counters.roots_added += 1;
        self.hold(&root, guard);
        if let Some(old) = old {
            self.let_go(&old, guard);
            guard.flush(None);
        }
        let _ = self.roots.push(root);
        self.current = key;
    }

    /// Everything is looked through anew: the guest's memory has changed unseen. Translations are dropped.
    pub fn rebuild(&mut self, format: Format, cr3: u64, tops: [u64; 4], guard: &mut impl Guard) {
        self.counters.rebuilt += 1;
        self.wipe(guard);
        self.format = format;
        self.load(format, cr3, tops, guard);
    }

    /// The guest is about to write to a watched page. `known`: by an instruction that can be emulated.
    pub fn plan(&mut self, page: u32, known: bool, guard: &mut impl Guard) -> Plan {
        self.last = if self.last.0 == page { (page, self.last.1.saturating_add(1)) } else { (page, 1) };
        if known {
            return Plan::Emulate;
        }
        // The page may be a table of a process's that is gone. Nothing walks through what the current CR3 does not lead to, until
        // another is loaded, which is seen.
        let current = self.roots.iter().position(|root| root.key == self.current);
        let reached = current.is_some_and(|at| self.leads_to(&self.roots[at], page, guard));
        if !reached {
            for at in (0..self.roots.len()).rev() {
                if Some(at) != current && self.leads_to(&self.roots[at], page, guard) {
                    self.forget(at, guard);
                }
            }
        }
        // In ways that are too many to follow.
        if self.info(page).is_table() {
            for at in (0..self.roots.len()).rev() {
                if self.roots[at].key != self.current {
                    self.forget(at, guard);
                }
            }
        }
        if self.info(page).is_table() { Plan::Emulate } else { Plan::Native }
    }

    /// Whether changing an entry from `old` to `new` changes what other tables there are.
    #[inline]
    pub fn matters(&self, page: u32, old: u64, new: u64) -> bool {
        let info = self.info(page);
        (2..=4).any(|level| {
            info.refs[level - 1] != 0 && self.format.child(level, old) != self.format.child(level, new)
        })
    }

    /// An entry of a watched page that [`Tracker::matters`] is about to change: comes before the change.
    pub fn before_change(&mut self, page: u32, old: u64, guard: &mut impl Guard) {
        self.close_all(guard);
        // From the highest level on: a table that dies here releases this entry by itself.
        for level in (2..=4).rev() {
            if self.info(page).refs[level - 1] != 0
                && let Some(child) = self.child(level, old, guard)
            {
                self.release(child, level - 1, guard);
            }
        }
    }

    /// The same, after the change.
    pub fn after_change(&mut self, page: u32, index: usize, new: u64, guard: &mut impl Guard) {
        let info = self.info(page);
        for level in (2..=4).rev() {
            // A table that is found only now was looked through with this entry in it.
            if info.refs[level - 1] != 0
                && let Some(child) = self.child(level, new, guard)
            {
                let base = self.base_of(level, index, info.base);
                self.add(child, level - 1, base, page, guard);
            }
        }
    }

    /// Drops what the processor may have cached of an entry that has changed.
    #[inline]
    pub fn outdate(&self, page: u32, index: usize, old: u64, new: u64, guard: &mut impl Guard) {
        if !Format::outdates(old, new) {
            return;
        }
        let info = self.info(page);
        if info.level() == Some(1) && info.base != SEVERAL {
            guard.flush(Some(self.linear_at(info.base, index)));
        } else {
            guard.flush(None);
        }
    }

    /// The base of a table of level 1 alone, of which an entry leads to no other table: changing one takes no more than
    /// [`Tracker::outdate_leaf`].
    #[inline]
    pub fn leaf(&self, page: u32) -> Option<LeafBase> {
        let at = page as usize * Self::WORDS;
        let &[low, middle, high] = self.store.words().get(at..)?.first_chunk()?;
        // The references of levels 1 and 2, of 3, of 4: see `Info::unpack`.
        let others = low >> 32 | middle & 0xffff_ffff | high >> 32 & 0xffff;
        (low != 0 && others == 0).then_some(LeafBase(high as u32))
    }

    /// As [`Tracker::outdate`], for an entry of such a table.
    #[inline]
    pub fn outdate_leaf(&self, base: LeafBase, index: usize, old: u64, new: u64, guard: &mut impl Guard) {
        if Format::outdates(old, new) {
            let LeafBase(base) = base;
            guard.flush((base != SEVERAL).then(|| self.linear_at(base, index)));
        }
    }

    /// The linear address that entry `index` of a table of level 1 maps.
    #[inline]
    fn linear_at(&self, base: u32, index: usize) -> u64 {
        self.canonical(self.linear_of(base) + ((index as u64) << 12))
    }

    /// After an emulated write to entry `index` at a place in the guest's code that `place` stands for: a page that is written to again and again is opened,
    /// or one that such an instruction has begun to write to, if that can be.
    #[inline]
    pub fn consider_opening(&mut self, page: u32, index: usize, place: u64, guard: &mut impl Guard) {
        let site = (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SITES;
        if self.last.0 == page && self.last.1 >= OPEN_AFTER || self.worth[site] >= WORTHY {
            self.open(page, index + 1, site, guard);
        }
    }

    fn open(&mut self, page: u32, index: usize, site: usize, guard: &mut impl Guard) {
        let mut info = self.info(page);
        if !info.is_single_leaf() || info.open || index >= PAGE / self.format.entry_bytes() {
            return;
        }
        if info.shy != 0 {
            info.shy -= 1;
            return self.set_info(page, info);
        }
        if self.open.is_full() {
            let oldest = self.open[0].parent;
            self.close(oldest, guard);
        }
        info.open = true;
        self.set_info(page, info);
        let next = entry_at(guard.ram(), page, index, self.format.wide());
        // It is not full.
        let _ = self.open.push(Opened { page, parent: info.parent, site, index, next });
        guard.hide(info.parent, true);
        guard.watch(page, false);
        self.counters.opened += 1;
        self.last = (NONE, 0);
    }

    /// A hidden page is accessed: what is open below it is closed.
    pub fn close(&mut self, parent: u32, guard: &mut impl Guard) {
        while let Some(at) = self.open.iter().position(|opened| opened.parent == parent) {
            let opened = self.open.swap_remove(at);
            self.shut(opened, guard);
        }
        guard.hide(parent, false);
    }

    /// Nothing is open.
    pub fn close_all(&mut self, guard: &mut impl Guard) {
        while let Some(opened) = self.open.pop() {
            self.shut(opened, guard);
            guard.hide(opened.parent, false);
        }
    }

    fn shut(&mut self, opened: Opened, guard: &mut impl Guard) {
        let Opened { page, site, index, next, .. } = opened;
        let worth = entry_at(guard.ram(), page, index, self.format.wide()) != next;
        let mut info = self.info(page);
        info.open = false;
        if worth {
            self.worth[site] = (self.worth[site] + 1).min(3);
        } else {
            self.worth[site] = self.worth[site].saturating_sub(1);
            info.shy = SHYNESS;
            self.counters.closed_early += 1;
        }
        self.set_info(page, info);
        guard.watch(page, true);
    }

    #[inline]
    fn info(&self, page: u32) -> Info {
        let at = page as usize * Self::WORDS;
        match self.store.words().get(at..at + Self::WORDS) {
            Some(&[a, b, c]) => Info::unpack([a, b, c]),
            _ => Info::default(),
        }
    }

    #[inline]
    fn set_info(&mut self, page: u32, info: Info) {
        let at = page as usize * Self::WORDS;
        if let Some(place) = self.store.words_mut().get_mut(at..at + Self::WORDS) {
            place.copy_from_slice(&info.pack());
        }
    }

    #[inline]
    fn child(&self, level: usize, entry: u64, guard: &impl Guard) -> Option<u32> {
        guard.page_of(self.format.child(level, entry)?)
    }

    /// The base of the table that entry `index` of a table of this level leads to.
    #[inline]
    const fn base_of(&self, level: usize, index: usize, base: u32) -> u32 {
        if base == SEVERAL {
            return SEVERAL;
        }
        base.wrapping_add((index << (self.format.shift(level) - self.format.shift(2))) as u32)
    }

    /// A base as an address.
    #[inline]
    const fn linear_of(&self, base: u32) -> u64 {
        (base as u64) << self.format.shift(2)
    }

    #[inline]
    const fn canonical(&self, linear: u64) -> u64 {
        match self.format {
            Format::FourLevel { .. } => ((linear << 16) as i64 >> 16) as u64,
            _ => linear & 0xffff_ffff,
        }
    }

    fn hold(&mut self, root: &Root, guard: &mut impl Guard) {
        for (n, top) in root.tops.into_iter().enumerate().filter(|(_, top)| *top != NONE) {
            // With PAE paging each of the four has a GByte.
            self.add(top, self.format.top(), (n << 9) as u32, NONE, guard);
        }
    }

    fn let_go(&mut self, root: &Root, guard: &mut impl Guard) {
        for top in root.tops.into_iter().filter(|top| *top != NONE) {
            self.release(top, self.format.top(), guard);
        }
    }

    fn forget(&mut self, at: usize, guard: &mut impl Guard) {
        self.close_all(guard);
        let root = self.roots.swap_remove(at);
        self.counters.roots_forgotten += 1;
        self.let_go(&root, guard);
        guard.forget_root(root.key);
        guard.flush(None);
    }

    fn wipe(&mut self, guard: &mut impl Guard) {
        self.close_all(guard);
        for root in &self.roots {
            guard.forget_root(root.key);
        }
        self.roots.clear();
        self.last = (NONE, 0);
        let pages = self.store.words().len() / Self::WORDS;
        for page in 0..pages as u32 {
            if self.counters.tables == 0 {
                break;
            }
            if self.info(page).is_table() {
                self.set_info(page, Info::default());
                self.counters.tables -= 1;
                guard.watch(page, false);
            }
        }
        guard.flush(None);
    }

    /// One more reference to a table.
    fn add(&mut self, page: u32, level: usize, base: u32, parent: u32, guard: &mut impl Guard) {
        let mut info = self.info(page);
        if !info.is_table() {
            (info.base, info.parent) = (base, parent);
            self.counters.tables += 1;
            self.counters.most_tables = self.counters.most_tables.max(self.counters.tables);
            guard.watch(page, true);
        } else {
            info.parent = NONE;
        }
        let moved = info.base != base && info.base != SEVERAL;
        if moved {
            info.base = SEVERAL;
        }
        let refs = &mut info.refs[level - 1];
        // A count that has reached its end stays there, and the table stays watched.
        *refs = refs.saturating_add(1);
        let first = *refs == 1;
        self.set_info(page, info);
        if moved {
            self.scatter(page, guard);
        }
        if first && level > 1 {
            self.each_child(page, level, guard, |this, index, child, guard| {
                let base = this.base_of(level, index, this.info(page).base);
                this.add(child, level - 1, base, page, guard);
            });
        }
    }

    /// One reference to a table less.
    fn release(&mut self, page: u32, level: usize, guard: &mut impl Guard) {
        let mut info = self.info(page);
        let refs = &mut info.refs[level - 1];
        if *refs == 0 || *refs == u32::MAX {
            return;
        }
        *refs -= 1;
        let last = *refs == 0;
        let dead = !info.is_table();
        self.set_info(page, if dead { Info::default() } else { info });
        if last && level > 1 {
            self.each_child(page, level, guard, |this, _, child, guard| {
                this.release(child, level - 1, guard)
            });
        }
        if dead {
            self.counters.tables = self.counters.tables.saturating_sub(1);
            guard.watch(page, false);
        }
    }

    /// The tables below a page are at several linear addresses, as it is itself.
    fn scatter(&mut self, page: u32, guard: &mut impl Guard) {
        let refs = self.info(page).refs;
        for level in (2..=4).filter(|level| refs[level - 1] != 0) {
            self.each_child(page, level, guard, |this, _, child, guard| {
                let mut info = this.info(child);
                if info.is_table() && info.base != SEVERAL {
                    info.base = SEVERAL;
                    this.set_info(child, info);
                    this.scatter(child, guard);
                }
            });
        }
    }

    /// Visits the tables that the entries of a table of this level refer to.
    fn each_child<G: Guard>(
        &mut self,
        page: u32,
        level: usize,
        guard: &mut G,
        mut visit: impl FnMut(&mut Self, usize, u32, &mut G),
    ) {
        let mut from = 0;
        while let Some((index, entry)) = next_present(guard.ram(), page, from, self.format.wide()) {
            if let Some(child) = self.child(level, entry, guard) {
                visit(self, index, child, guard);
            }
            from = index + 1;
        }
    }

    /// Whether walks from this root can come through a table; true where that is not known.
    fn leads_to(&self, root: &Root, page: u32, guard: &impl Guard) -> bool {
        let info = self.info(page);
        if !info.is_table() {
            return false;
        }
        let (Some(level), true) = (info.level(), info.base != SEVERAL) else { return true };
        let linear = self.linear_of(info.base);
        let top = if self.format == Format::Pae { (linear >> 30 & 3) as usize } else { 0 };
        let mut at = root.tops[top];
        for above in (level + 1..=self.format.top()).rev() {
            let entry = entry_at(guard.ram(), at, self.format.index(above, linear), self.format.wide());
            match self.child(above, entry, guard) {
                Some(next) => at = next,
                None => return false,
            }
        }
        at == page
    }
}

/// An entry of a page; 0 where there is no such page.
#[inline]
fn entry_at(ram: &[u8], page: u32, index: usize, wide: bool) -> u64 {
    let bytes = if wide { 8 } else { 4 };
    let start = page as usize * PAGE + index * bytes;
    match (wide, ram.get(start..start + bytes)) {
        (true, Some(bytes)) => u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
        (false, Some(bytes)) => u32::from_le_bytes(bytes.try_into().unwrap_or_default()).into(),
        _ => 0,
    }
}

/// The next entry that is present, from entry `from` of a page on.
#[inline]
fn next_present(ram: &[u8], page: u32, from: usize, wide: bool) -> Option<(usize, u64)> {
    let table = ram.get(page as usize * PAGE..(page as usize + 1) * PAGE)?;
    if !wide {
        let (entries, _) = table.as_chunks::<4>();
        let mut entries =
            entries.iter().map(|bytes| u64::from(u32::from_le_bytes(*bytes))).enumerate().skip(from);
        return entries.find(|(_, entry)| entry & PRESENT != 0);
    }
    let (words, _) = table.as_chunks::<8>();
    let mut rest = words.get(from..)?;
    // Tables are mostly empty, so several entries are looked at together.
    while let [a, b, c, d, e, f, g, h, later @ ..] = rest {
        // The lowest byte has the bit.
        if (a[0] | b[0] | c[0] | d[0] | e[0] | f[0] | g[0] | h[0]) as u64 & PRESENT != 0 {
            break;
        }
        rest = later;
    }
    let first = words.len() - rest.len();
    let found = rest.iter().position(|bytes| u64::from(bytes[0]) & PRESENT != 0)?;
    Some((first + found, u64::from_le_bytes(*rest.get(found)?)))
}
