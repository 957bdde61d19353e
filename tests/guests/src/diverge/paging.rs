//! Games with page tables in which it shows what the processor has cached: permissions relaxed, accessed and dirty bits cleared,
//! both without a flush; forks; a reclaimer that goes by accessed bits.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::tables::{self, ACCESSED, DIRTY, OPEN, PRESENT, USER, WRITE};
use super::{storm, trail};

/// Faults of accesses that the tables allowed.
static SPURIOUS: AtomicU64 = AtomicU64::new(0);
/// Accessed or dirty bits that are not what the program has done since they were cleared.
static STALE: AtomicU64 = AtomicU64::new(0);

/// Faults of accesses that the tables allowed, and accessed or dirty bits that are not as if nothing were cached.
pub fn seen() -> (u64, u64) {
    (SPURIOUS.load(Relaxed), STALE.load(Relaxed))
}

/// Notes a bit that is not as if nothing were cached, if so it is.
pub fn note_stale(stale: bool) {
    STALE.fetch_add(stale.into(), Relaxed);
}

fn allows(entry: u64, error: u64) -> bool {
    entry & PRESENT != 0 && (error & 2 == 0 || entry & WRITE != 0)
}

/// As a kernel does it: a fault that the tables do not explain is tried again.
fn relax_cure(page: u64, error: u64) {
    let entry = tables::get(0, page);
    if allows(entry, error) {
        SPURIOUS.fetch_add(1, Relaxed);
        return;
    }
    tables::set(0, page, entry | OPEN);
}

/// Pages that may be read become pages that may be written.
pub fn relax() -> u64 {
    const PAGES: u64 = 64;
    tables::obey_write_protection();
    tables::set_cure(Some(relax_cure));
    let mut result = trail::SEED;
    for round in 0..super::rounds(20) {
        for page in 0..PAGES {
            tables::set(0, page, tables::frame(page) | PRESENT | USER);
            tables::flush(page);
        }
        for page in 0..PAGES {
            let at = tables::page(page) + 8 * (round % 512);
            result = trail::mix(result, tables::load(at));
            if !(page + round).is_multiple_of(3) {
                tables::set(0, page, tables::get(0, page) | WRITE);
            }
            tables::store(at, page ^ round);
            result = trail::mix(result, tables::load(at));
        }
        trail::add(seen().0);
    }
    tables::set_cure(None);
    result
}

/// A generator of its own: what is done does not depend on interrupts.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Accessed and dirty bits, cleared and read without a flush. The last pages are never touched.
pub fn bits() -> u64 {
    const PAGES: usize = 64;
    const TOUCHED: u64 = 56;
    let mut random = Random(7);
    let mut model = [0; PAGES];
    for page in 0..PAGES as u64 {
        tables::set(0, page, tables::frame(page) | OPEN);
        tables::flush(page);
    }
    for _ in 0..super::rounds(20) * 40 {
        for _ in 0..16 {
            let page = random.below(TOUCHED);
            let at = tables::page(page) + 8 * random.below(512);
            if random.below(2) == 0 {
                tables::load(at);
                model[page as usize] |= ACCESSED;
            } else {
                tables::store(at, page);
                model[page as usize] |= ACCESSED | DIRTY;
            }
        }
        // A scan, as a reclaimer does it: only the bits are cleared.
        for page in 0..PAGES as u64 {
            let which = [ACCESSED, ACCESSED | DIRTY, 0][random.below(3) as usize];
            let found = tables::clear(0, page, which) & (ACCESSED | DIRTY);
            let expected = &mut model[page as usize];
            note_stale(found != *expected);
            *expected = found & !which;
            trail::add(page << 8 | found);
        }
        tables::above(0).into_iter().for_each(trail::add);
    }
    0
}

/// Pages of the family.
const FAMILY: u64 = 96;
/// The child's frames begin here.
const CHILD: u64 = 600;

fn fork_cure(page: u64, error: u64) {
    let space = tables::current();
    let entry = tables::get(space, page);
    if allows(entry, error) {
        SPURIOUS.fetch_add(1, Relaxed);
    } else if space == 0 {
        // The last owner: it need not copy.
        tables::set(0, page, entry | WRITE);
    } else {
        tables::copy_frame(page, CHILD + page);
        tables::set(space, page, tables::frame(CHILD + page) | OPEN | ACCESSED | DIRTY);
        // Half of them as Linux does it, half without.
        if page.is_multiple_of(2) {
            tables::flush(page);
        }
    }
}

/// A parent shares its pages with a child, which writes some, reads others, and ends: its accessed bits are read then.
pub fn fork() -> u64 {
    tables::obey_write_protection();
    tables::set_cure(Some(fork_cure));
    let mut random = Random(11);
    let mut result = trail::SEED;
    (0..FAMILY).for_each(|page| tables::set(0, page, tables::frame(page) | OPEN));
    tables::flush_all();
    for round in 0..super::rounds(20) {
        for page in 0..FAMILY {
            let entry = tables::get(0, page) & !WRITE;
            tables::set(0, page, entry);
            tables::set(1, page, entry & !(ACCESSED | DIRTY));
        }
        tables::enter(1);
        for _ in 0..200 {
            let at = tables::page(random.below(FAMILY - 8)) + 8 * random.below(512);
            if random.below(3) == 0 {
                tables::store(at, at ^ round);
            }
            result = trail::mix(result, tables::load(at));
        }
        // The child's end: what was accessed goes to the pages' owners.
        for page in 0..FAMILY {
            let found = tables::clear(1, page, !0);
            trail::add(page << 8 | found & (ACCESSED | DIRTY));
        }
        tables::enter(0);
        for _ in 0..200 {
            let at = tables::page(random.below(FAMILY - 8)) + 8 * random.below(512);
            if random.below(2) == 0 {
                tables::store(at, at.wrapping_mul(round));
            }
            result = trail::mix(result, tables::load(at));
        }
        for page in 0..FAMILY {
            trail::add(page << 8 | tables::clear(0, page, ACCESSED) & (ACCESSED | DIRTY));
        }
        trail::add(seen().0);
    }
    tables::set_cure(None);
    result
}

/// Pages of the reclaimer's user, and frames for them.
const VIRTUAL: u64 = 160;
const RESIDENT: u64 = 64;
/// Where pages go that have no frame.
const SWAP: u64 = 700;
static HAND: AtomicU64 = AtomicU64::new(0);
static FREE: AtomicU64 = AtomicU64::new(0);

/// Gives the page a frame: one that has never been used, or that of the first page under the hand whose accessed bit is clear.
fn reclaim_cure(page: u64, error: u64) {
    if allows(tables::get(0, page), error) {
        SPURIOUS.fetch_add(1, Relaxed);
        return;
    }
    let free = FREE.load(Relaxed);
    let number = if free < RESIDENT {
        FREE.store(free + 1, Relaxed);
        free
    } else {
        loop {
            let victim = HAND.load(Relaxed);
            HAND.store((victim + 1) % VIRTUAL, Relaxed);
            let entry = tables::get(0, victim);
            if entry & PRESENT == 0 {
                continue;
            }
            if entry & ACCESSED != 0 {
                tables::clear(0, victim, ACCESSED);
                continue;
            }
            let number = ((entry & !0xfff) - tables::frame(0)) / 4096;
            tables::set(0, victim, 0);
            tables::flush(victim);
            tables::copy_frame(number, SWAP + victim);
            trail::add(victim);
            break number;
        }
    };
    tables::copy_frame(SWAP + page, number);
    tables::set(0, page, tables::frame(number) | OPEN);
}

/// More pages than there is memory for: who has to go is decided by accessed bits.
pub fn reclaim() -> u64 {
    tables::set_cure(None);
    FREE.store(0, Relaxed);
    // The swap is to begin with what the frames there hold: zeros, or what earlier parts have left, the same each time.
    (0..VIRTUAL).for_each(|page| tables::set(0, page, 0));
    tables::flush_all();
    tables::set_cure(Some(reclaim_cure));
    let mut random = Random(13);
    let mut result = trail::SEED;
    for round in 0..super::rounds(20) * 60 {
        // Some pages are hot.
        let page =
            if random.below(4) == 0 { random.below(VIRTUAL) } else { random.below(40) + round / 64 % 100 };
        let at = tables::page(page) + 8 * random.below(512);
        let value = tables::load(at);
        result = trail::mix(result, value);
        tables::store(at, value.wrapping_add(round));
        trail::add(storm::came());
    }
    tables::set_cure(None);
    result
}
