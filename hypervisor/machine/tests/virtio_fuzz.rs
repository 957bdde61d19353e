//! Drivers that break the rules, one at a time and at random: the device asks to be reset, does a bounded amount of work, and
//! never does anything that depends on when it was saved.
//!
//! `VIRTIO_FUZZ_RUNS` (default 60) and `VIRTIO_FUZZ_SEED` (default 1) set how long and from where the random runs go.

mod virtio_support;

use std::collections::BTreeMap;

use machine::pci::Signal;
use machine::virtio::net::Received;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use virtio_support::driver::{Driver, EVENTS, INDIRECT, VERSION_1, Way, common};
use virtio_support::ring::Ring;
use virtio_support::{BLOCK, Board, CONSOLE, MEMORY, NET, READ_ONLY, RNG};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TABLE: u16 = 4;
/// DEVICE_NEEDS_RESET.
const NEEDS_RESET: u32 = 0x40;

/// What is wrong with a chain or a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Nothing,
    WildAddress,
    AddressOverflow,
    HugeLength,
    PastEnd,
    Loop,
    LoopToItself,
    NextBeyondTable,
    HeadBeyondTable,
    ReadAfterWrite,
    TableNotAgreed,
    TableInTable,
    TableWithNext,
    TableEmpty,
    TableOdd,
    TableWild,
    TableTooLong,
    TableNextBeyond,
    IndexJump,
    RingOfDescriptorsWild,
    RingAvailableWild,
    RingUsedWild,
}

const FAULTS: [Fault; 22] = [
    Fault::Nothing,
    Fault::WildAddress,
    Fault::AddressOverflow,
    Fault::HugeLength,
    Fault::PastEnd,
    Fault::Loop,
    Fault::LoopToItself,
    Fault::NextBeyondTable,
    Fault::HeadBeyondTable,
    Fault::ReadAfterWrite,
    Fault::TableNotAgreed,
    Fault::TableInTable,
    Fault::TableWithNext,
    Fault::TableEmpty,
    Fault::TableOdd,
    Fault::TableWild,
    Fault::TableTooLong,
    Fault::TableNextBeyond,
    Fault::IndexJump,
    Fault::RingOfDescriptorsWild,
    Fault::RingAvailableWild,
    Fault::RingUsedWild,
];

/// The queues there are: device, queue, and whether it is served when something comes from outside.
const QUEUES: [(u8, u16, bool); 7] = [
    (NET, 0, true),
    (NET, 1, false),
    (NET, 2, false),
    (BLOCK, 0, false),
    (RNG, 0, false),
    (CONSOLE, 0, true),
    (CONSOLE, 1, false),
];

/// A chain that the queue serves: what is read, then what is written.
fn good(board: &mut Board, device: u8, queue: u16) -> Vec<(u64, u32, u16)> {
    let data = board.put(&[0; 64]);
    let room = board.allocate(2048);
    match (device, queue) {
        (NET | CONSOLE, 0) | (RNG, _) => vec![(room, 1024, WRITE), (room + 1024, 1024, WRITE)],
        (NET, 1) | (CONSOLE, _) => vec![(data, 12, 0), (data + 12, 52, 0)],
        (NET, _) => vec![(data, 3, 0), (room, 1, WRITE)],
        _ => vec![(data, 16, 0), (room, 512, WRITE), (room + 512, 1, WRITE)],
    }
}

/// Writes a chain into a table, one descriptor behind the other from `first` on.
fn lay(board: &mut Board, table: u64, first: u16, chain: &[(u64, u32, u16)]) {
    for (index, &(address, length, flags)) in (first..).zip(chain) {
        let more = usize::from(index - first) + 1 < chain.len();
        let flags = flags | if more { NEXT } else { 0 };
        Ring::describe(board, table, index, (address, length), flags, index + 1);
    }
}

/// Makes a chain available that is good but for this.
fn offer(board: &mut Board, driver: &mut Driver, queue: u16, fault: Fault) {
    let mut chain = good(board, driver.device, queue);
    let ring = driver.rings[usize::from(queue)].clone();
    let (table, last) = (ring.descriptors, chain.len() as u16 - 1);
    let wild = 0xd000_0000;
    match fault {
        Fault::WildAddress => chain[1].0 = wild,
        Fault::AddressOverflow => chain[1] = (u64::MAX - 100, 200, chain[1].2),
        Fault::HugeLength => chain[1].1 = u32::MAX,
        Fault::PastEnd => chain[1].0 = MEMORY as u64 - u64::from(chain[1].1) + 1,
        Fault::ReadAfterWrite => {
            chain.push((chain[0].0, 1, WRITE));
            chain.push((chain[0].0, 1, 0));
        }
        _ => {}
    }
    lay(board, table, 0, &chain);
    let (first, end) = (chain[0], chain[usize::from(last)]);
    let inner = board.allocate(16 * 300);
    lay(board, inner, 0, &chain);
    let bytes = 16 * chain.len() as u32;
    let mut head = 0;
    match fault {
        Fault::Loop => Ring::describe(board, table, last, (end.0, end.1), end.2 | NEXT, 0),
        Fault::LoopToItself => Ring::describe(board, table, last, (end.0, end.1), end.2 | NEXT, last),
        Fault::NextBeyondTable => Ring::describe(board, table, last, (end.0, end.1), end.2 | NEXT, ring.size),
        Fault::HeadBeyondTable => head = ring.size,
        Fault::TableNotAgreed => Ring::describe(board, table, 0, (inner, bytes), TABLE, 0),
        Fault::TableInTable => {
            Ring::describe(board, inner, last, (inner, 16), TABLE, 0);
            Ring::describe(board, table, 0, (inner, bytes), TABLE, 0);
        }
        Fault::TableWithNext => Ring::describe(board, table, 0, (inner, bytes), TABLE | NEXT, 1),
        Fault::TableEmpty => Ring::describe(board, table, 0, (inner, 0), TABLE, 0),
        Fault::TableOdd => Ring::describe(board, table, 0, (inner, bytes + 8), TABLE, 0),
        Fault::TableWild => Ring::describe(board, table, 0, (wild, bytes), TABLE, 0),
        Fault::TableTooLong => {
            let many = vec![(first.0, 1, first.2); 257];
            lay(board, inner, 0, &many);
            Ring::describe(board, table, 0, (inner, 16 * 257), TABLE, 0);
        }
        Fault::TableNextBeyond => {
            Ring::describe(board, inner, last, (end.0, end.1), end.2 | NEXT, last + 1);
            Ring::describe(board, table, 0, (inner, bytes), TABLE, 0);
        }
        _ => {}
    }
    let ring = &mut driver.rings[usize::from(queue)];
    ring.offer(board, head);
    if fault == Fault::IndexJump {
        let jumped = ring.next.wrapping_add(ring.size);
        board.store(ring.available + 2, &jumped.to_le_bytes());
    }
}

/// The features a fault needs to be one, and those it needs not to be agreed upon.
fn features(fault: Fault) -> u64 {
    if fault == Fault::TableNotAgreed { 0 } else { INDIRECT }
}

/// Sets a device up, with a ring that is not in memory if the fault is that.
fn set_up(board: &mut Board, device: u8, queue: u16, fault: Fault) -> Driver {
    let mut driver = Driver::find(board, device, Way::Ports);
    assert_eq!(driver.agree(board, VERSION_1 | 1 << 16 | 1 << 17 | 1 << 18 | features(fault)), 11);
    let register = match fault {
        Fault::RingOfDescriptorsWild => Some(common::DESCRIPTORS),
        Fault::RingAvailableWild => Some(common::AVAILABLE),
        Fault::RingUsedWild => Some(common::USED),
        _ => None,
    };
    driver.queues(board, 16);
    if let Some(register) = register {
        // The queue is enabled, so the driver begins again; the other queues are not needed.
        let rings = std::mem::take(&mut driver.rings);
        assert_eq!(driver.agree(board, VERSION_1 | INDIRECT), 11);
        driver.set(board, common::QUEUE_SELECT, queue.into());
        driver.set(board, common::QUEUE_SIZE, 16);
        let ring = &rings[usize::from(queue)];
        for (one, address) in [
            (common::DESCRIPTORS, ring.descriptors),
            (common::AVAILABLE, ring.available),
            (common::USED, ring.used),
        ] {
            let address = if one == register { u64::MAX - 64 } else { address };
            driver.set(board, one, address as u32);
            driver.set(board, (one.0 + 4, 4), (address >> 32) as u32);
        }
        driver.set(board, common::QUEUE_ENABLE, 1);
        driver.rings = rings;
    }
    driver.go(board);
    driver
}

/// Lets the device look at what was offered.
fn poke(board: &mut Board, driver: &Driver, queue: u16, input: bool) {
    if input && driver.device == NET {
        board.with(|pci, ctx| pci.receive_frame(0, &[0xff; 60], ctx));
    } else if input {
        board.with(|pci, ctx| pci.receive_console(b"text", ctx));
    } else {
        driver.notify(board, queue);
    }
}

#[test]
fn each_fault_breaks_the_device_and_a_reset_mends_it() {
    for (device, queue, input) in QUEUES {
        for fault in FAULTS {
            let mut board = Board::new();
            let mut driver = set_up(&mut board, device, queue, fault);
            offer(&mut board, &mut driver, queue, fault);
            let before = board.memory.clone();
            poke(&mut board, &driver, queue, input);
            let status = driver.get(&mut board, common::STATUS);
            let what = format!("device {device}, queue {queue}, {fault:?}");
            if fault == Fault::Nothing {
                assert_eq!(status, 15, "{what}");
                assert!(board.word(driver.rings[usize::from(queue)].used + 2) == 1, "{what}");
                continue;
            }
            assert_eq!(status, 15 | NEEDS_RESET, "{what}");
            assert_eq!(driver.isr(&mut board) & 2, 2, "{what}: the driver is told");
            assert!(board.outside.frames.is_empty() && board.outside.text.is_empty(), "{what}");
            assert!(board.memory == before, "{what}: memory is as it was");
            offer(&mut board, &mut driver, queue, Fault::Nothing);
            let before = board.memory.clone();
            poke(&mut board, &driver, queue, input);
            driver.notify(&mut board, queue);
            assert!(board.memory == before, "{what}: nothing more until the reset");

            let mut driver = set_up(&mut board, device, queue, Fault::Nothing);
            offer(&mut board, &mut driver, queue, Fault::Nothing);
            poke(&mut board, &driver, queue, input);
            assert_eq!(board.word(driver.rings[usize::from(queue)].used + 2), 1, "{what}: after the reset");
        }
    }
}

#[test]
fn what_came_before_the_fault_is_given_back() {
    let mut board = Board::new();
    let mut driver = set_up(&mut board, RNG, 0, Fault::Nothing);
    let at = board.allocate(64);
    let head = driver.rings[0].add(&mut board, &[(at, 64, true)]);
    driver.rings[0].offer(&mut board, 999);
    driver.notify(&mut board, 0);
    assert_eq!(driver.take(&mut board, 0), Some((head, 64)));
    assert_eq!(driver.take(&mut board, 0), None);
    assert_eq!(driver.get(&mut board, common::STATUS), 15 | NEEDS_RESET);
}

#[test]
fn requests_without_their_parts_break_the_device() {
    let mut board = Board::new();
    let data = board.put(&[0; 64]);
    for (device, queue, chain) in [
        // A disk's: no room for the status, no whole header, nothing.
        (BLOCK, 0, vec![(data, 16, false)]),
        (BLOCK, 0, vec![(data, 15, false), (data, 1, true)]),
        (BLOCK, 0, vec![(data, 513, true)]),
        // A network card's: no whole header; no room for the outcome.
        (NET, 1, vec![(data, 11, false)]),
        (NET, 1, vec![(data, 64, true)]),
        (NET, 2, vec![(data, 3, false)]),
        (NET, 2, vec![(data, 1, false), (data, 1, true)]),
    ] {
        let mut driver = set_up(&mut board, device, queue, Fault::Nothing);
        driver.rings[usize::from(queue)].add(&mut board, &chain);
        driver.notify(&mut board, queue);
        assert_eq!(driver.get(&mut board, common::STATUS), 15 | NEEDS_RESET, "{device} {queue} {chain:?}");
    }
    let mut driver = set_up(&mut board, NET, 0, Fault::Nothing);
    driver.rings[0].add(&mut board, &[(data, 11, true)]);
    assert_eq!(board.with(|pci, ctx| pci.receive_frame(0, &[0xff; 60], ctx)), Received::Down);
    assert_eq!(driver.get(&mut board, common::STATUS), 15 | NEEDS_RESET, "no room for the header");
}

#[test]
fn empty_parts_are_no_fault() {
    let mut board = Board::new();
    let mut driver = set_up(&mut board, BLOCK, 0, Fault::Nothing);
    let header = board.put(&[0; 16]);
    let room = board.allocate(520);
    let chain = [
        (header, 0, false),
        (header, 16, false),
        (room, 0, true),
        (room, 512, true),
        (room, 0, true),
        (room + 512, 1, true),
    ];
    let head = driver.send(&mut board, 0, &chain);
    assert_eq!(driver.take(&mut board, 0), Some((head, 513)));
    assert_eq!(board.load(room, 512), &board.disks[0].bytes[..512]);
}

/// Counts what happened, so that a campaign that reaches nothing fails.
type Coverage = BTreeMap<String, u64>;

/// A driver without scruples.
struct Hostile {
    random: ChaCha8Rng,
    board: Board,
    drivers: Vec<Driver>,
    coverage: Coverage,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut board = Board::new();
        let features = random.next_u64() | VERSION_1;
        let drivers = (NET..=READ_ONLY).map(|device| {
            let way = [Way::Ports, Way::Memory, Way::Window][random.next_u32() as usize % 3];
            let mut driver = Driver::find(&mut board, device, way);
            // Not all combinations go together.
            if driver.agree(&mut board, features) != 11 {
                driver.agree(&mut board, VERSION_1 | features & (INDIRECT | EVENTS));
            }
            driver.queues(&mut board, 1 << (random.next_u32() % 9));
            if random.next_u32().is_multiple_of(2) {
                driver.use_messages(&mut board);
            }
            driver.go(&mut board);
            driver
        });
        let drivers = drivers.collect();
        Self { random, board, drivers, coverage: Coverage::new() }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn count(&mut self, what: &str) {
        *self.coverage.entry(what.into()).or_default() += 1;
    }

    /// Mostly RAM, and mostly the same; sometimes a ring, the edge, or nothing.
    fn address(&mut self, ring: &Ring) -> u64 {
        match self.below(12) {
            0 => ring.descriptors,
            1 => ring.available,
            2 => ring.used,
            3 => MEMORY as u64 - self.below(64),
            4 if self.below(8) == 0 => self.random.next_u64(),
            _ => 0x40_0000 + self.below(0x1_0000),
        }
    }

    fn length(&mut self) -> u32 {
        match self.below(40) {
            0 => 0,
            1 => self.random.next_u32(),
            2..10 => 512 * self.below(16) as u32,
            10..16 => 16 * self.below(20) as u32,
            16..22 => 1 << self.below(17),
            _ => self.below(64) as u32,
        }
    }

    fn descriptor(&mut self, ring: &Ring, table: u64, index: u16) {
        let (address, length) = (self.address(ring), self.length());
        let flags = [0, NEXT, WRITE, NEXT | WRITE, NEXT, WRITE, TABLE, self.random.next_u32() as u16 & 7];
        let flags = flags[self.below(8) as usize];
        let next = if self.below(20) == 0 { self.random.next_u32() as u16 } else { index.wrapping_add(1) };
        Ring::describe(&mut self.board, table, index, (address, length), flags, next);
    }

    /// One thing that a driver, or the world around it, may do.
    fn step(&mut self) {
        let which = self.below(self.drivers.len() as u64) as usize;
        let mut driver = self.drivers[which].clone();
        let queue = self.below(driver.rings.len() as u64) as usize;
        let ring = driver.rings[queue].clone();
        match self.below(24) {
            0..7 => {
                let first = self.below(ring.size.into()) as u16;
                for index in 0..self.below(5) as u16 {
                    self.descriptor(&ring, ring.descriptors, (first + index) % ring.size);
                }
                driver.rings[queue].offer(&mut self.board, first);
            }
            7..10 => {
                // A request that could be good, in memory that others use as well.
                let chain = good_in(&mut self.board, driver.device, queue as u16, &mut self.random);
                if usize::from(ring.size) >= chain.len() {
                    lay(&mut self.board, ring.descriptors, 0, &chain);
                    driver.rings[queue].offer(&mut self.board, 0);
                }
            }
            10 => {
                // A table for others to refer to.
                for index in 0..8 {
                    self.descriptor(&ring, 0x40_0000, index);
                }
            }
            11 if self.below(4) == 0 => {
                let index = self.random.next_u32() as u16;
                self.board.store(ring.available + 2, &index.to_le_bytes());
                driver.rings[queue].next = index;
            }
            12 => {
                let flags = self.random.next_u32();
                self.board.store(ring.available, &[flags as u8 & 1, 0]);
                let event = ring.available + 4 + 2 * u64::from(ring.size);
                self.board.store(event, &(flags as u16).wrapping_shr(4).to_le_bytes());
            }
            13 => {
                let length = 14 + self.below(1600) as usize;
                self.receive(length);
            }
            14 => {
                let taken = self.board.with(|pci, ctx| pci.receive_console(&[b'x'; 100], ctx));
                self.count(if taken == 0 { "console: nothing" } else { "console: something" });
            }
            15 => {
                let up = self.below(2) == 0;
                self.board.with(|pci, _| pci.set_link(0, up));
            }
            16 => {
                let nanoseconds = self.below(20_000);
                let due = self.board.pci.deadline();
                self.board.pass(nanoseconds);
                if due.is_some_and(|due| due <= self.board.now) {
                    self.count("work went on");
                }
            }
            17 => {
                let structure = 1 + self.below(4) as usize;
                let offset = self.below(0x40) as u32 & !1;
                let value = self.random.next_u32();
                if driver.structures[structure].length >= offset + 4 && offset != common::STATUS.0 {
                    driver.write(&mut self.board, structure, (offset, 4), value);
                }
            }
            18 => {
                let (offset, value) = (4 * self.below(64) as u8, self.random.next_u32());
                // Its addresses stay, so that the others go on; all else may change.
                if !(0x10..0x18).contains(&offset) {
                    self.board.set_config(driver.device, offset, 4, value);
                    let command = if self.below(8) == 0 { 3 } else { 7 };
                    self.board.set_config(driver.device, 4, 1, command);
                }
            }
            19 => {
                driver.isr(&mut self.board);
            }
            20 if driver.device >= BLOCK && queue + 1 == driver.rings.len() && ring.size >= 4 => {
                // As much work as there can be: large requests, all of them the same one.
                let large = match driver.device {
                    RNG => vec![(0x40_0000, 4096, WRITE)],
                    CONSOLE => vec![(0x40_0000, 1 << 20, 0)],
                    _ => vec![(0x7f_0000, 16, 0), (0x40_0000, 3 << 20, WRITE), (0x7f_1000, 1, WRITE)],
                };
                self.board.store(0x7f_0000, &[0; 16]);
                lay(&mut self.board, ring.descriptors, 0, &large);
                for _ in 0..ring.size {
                    driver.rings[queue].offer(&mut self.board, 0);
                }
                driver.notify(&mut self.board, queue as u16);
            }
            _ => {
                driver.notify(&mut self.board, queue as u16);
            }
        }
        self.drivers[which] = driver;
        self.look(which);
    }

    /// A frame from outside. What becomes of it was foretold without touching anything; and to ask for a buffer is all that is
    /// done about a frame that finds none.
    fn receive(&mut self, length: usize) {
        let frame = vec![0xff; length];
        let before = self.board.pci.save();
        let (wanted, room) = self
            .board
            .with(|pci, ctx| (pci.wants_frame(0, &frame), pci.has_buffer_for(0, frame.len(), ctx.ram)));
        assert!(self.board.pci.save() == before, "a look changes nothing");
        let twin = (!room).then(|| self.board.clone());
        let received = self.board.with(|pci, ctx| pci.receive_frame(0, &frame, ctx));
        assert_eq!(received == Received::NoBuffer, wanted && !room, "{received:?} for {length} bytes");
        if let Some(mut twin) = twin.filter(|_| wanted) {
            twin.with(|pci, ctx| pci.ask_for_buffer(0, ctx));
            assert!(twin.everything() == self.board.everything(), "no buffer, and something else happened");
        }
        if received == Received::NoBuffer && self.board.with(|pci, ctx| pci.has_buffer(0, ctx.ram)) {
            self.count("frame too long for all buffers");
        }
        self.count(&format!("frame {received:?}"));
    }

    /// Checks what has to hold, counts what came of the step, and mends what is broken.
    fn look(&mut self, which: usize) {
        let mut driver = self.drivers[which].clone();
        let device = driver.device;
        let status = driver.get(&mut self.board, common::STATUS);
        for signal in self.board.take_signals() {
            self.count(match signal {
                Signal::Line { level: true, .. } => "line up",
                Signal::Line { level: false, .. } => "line down",
                Signal::Message { .. } => "message",
            });
        }
        for (index, ring) in driver.rings.iter_mut().enumerate() {
            let used = self.board.word(ring.used + 2);
            if used != ring.seen {
                let what = format!("device {device}, queue {index}: served");
                *self.coverage.entry(what).or_default() += 1;
                ring.seen = used;
            }
        }
        if status & NEEDS_RESET != 0 || status & 4 == 0 {
            if status & NEEDS_RESET != 0 {
                self.count(&format!("device {device}: broken"));
            }
            if self.below(3) != 0 {
                driver.rings.clear();
                if driver.agree(&mut self.board, VERSION_1 | INDIRECT | EVENTS | 0x1f_ffff) != 11 {
                    driver.agree(&mut self.board, VERSION_1);
                }
                self.board.rewind();
                let size = 1 << self.below(9);
                driver.queues(&mut self.board, size);
                driver.go(&mut self.board);
            }
        }
        self.drivers[which] = driver;
        // What a single access may do: some requests of 4 MiB at most, 256 frames.
        let frames = std::mem::take(&mut self.board.outside.frames).len();
        assert!(frames <= 3 * 256, "{frames} frames in a step");
        self.board.outside.text.clear();
        let moved: u64 = self.board.disks.iter_mut().map(|disk| std::mem::take(&mut disk.moved)).sum();
        assert!(moved <= (2 * 9) << 20, "{moved} bytes in a step");
        if moved != 0 {
            self.count("disk used");
        }
        assert!(self.board.memory.len() == MEMORY);
    }
}

/// A chain as [`good`] makes it, in memory that is not the chain's alone, with a request that is not always zeros.
fn good_in(board: &mut Board, device: u8, queue: u16, random: &mut ChaCha8Rng) -> Vec<(u64, u32, u16)> {
    let at = 0x48_0000 + random.next_u64() % 0x1000;
    let request = [[0, 1, 4, 8][random.next_u32() as usize % 4], 0, 0, 0];
    board.store(at, &request);
    board.store(at + 4, &[0; 60]);
    match (device, queue) {
        (NET | CONSOLE, 0) | (RNG, _) => vec![(at, 1024, WRITE), (at + 1024, 1024, WRITE)],
        (NET, 1) | (CONSOLE, _) => vec![(at, 12, 0), (at + 12, 52, 0)],
        (NET, _) => vec![(at, 3, 0), (at + 512, 1, WRITE)],
        _ if request[0] == 1 => vec![(at, 16, 0), (at + 64, 512, 0), (at + 1024, 1, WRITE)],
        _ => vec![(at, 16, 0), (at + 64, 512, WRITE), (at + 1024, 1, WRITE)],
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn hostile_drivers_at_random() {
    let first = setting("VIRTIO_FUZZ_SEED", 1);
    let runs = setting("VIRTIO_FUZZ_RUNS", 60);
    let mut coverage = Coverage::new();
    for seed in first..first + runs {
        // Shown when the test fails.
        println!("VIRTIO_FUZZ_SEED={seed} VIRTIO_FUZZ_RUNS=1");
        let mut one = Hostile::new(seed);
        for _ in 0..300 {
            one.step();
        }
        // From here on, the same with a copy that was saved and restored in the middle.
        let mut two = Hostile {
            random: one.random.clone(),
            board: one.board.clone(),
            drivers: one.drivers.clone(),
            coverage: Coverage::new(),
        };
        two.board.move_house();
        for _ in 0..100 {
            one.step();
            two.step();
        }
        assert!(one.board.everything() == two.board.everything(), "seed {seed}: another future");
        for (what, count) in one.coverage {
            *coverage.entry(what).or_default() += count;
        }
    }
    println!("{coverage:#?}");
    if runs >= 60 {
        let mut wanted: Vec<String> = [
            "frame Taken",
            "frame NoBuffer",
            "frame too long for all buffers",
            "frame Down",
            "frame Dropped",
            "console: nothing",
            "console: something",
            "line up",
            "line down",
            "message",
            "work went on",
            "disk used",
        ]
        .map(String::from)
        .into();
        wanted.extend((NET..=READ_ONLY).map(|device| format!("device {device}: broken")));
        wanted.extend(QUEUES.map(|(device, queue, _)| format!("device {device}, queue {queue}: served")));
        for what in wanted {
            assert!(coverage.contains_key(&what), "never seen: {what}");
        }
    }
}
