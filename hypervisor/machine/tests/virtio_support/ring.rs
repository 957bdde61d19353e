//! The driver's side of a split virtqueue.

use super::Board;
use super::driver::{EVENTS, INDIRECT};

/// A ring and the driver's place in it.
#[derive(Clone, Debug)]
pub struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    /// The next available entry.
    pub next: u16,
    /// The next used entry.
    pub seen: u16,
    /// What the available index was at the last look at whether to notify.
    asked: u16,
    events: bool,
    indirect: bool,
    /// Free descriptors.
    free: Vec<u16>,
    /// Descriptors of each chain, and its table, by head.
    chains: Vec<Vec<u16>>,
    tables: Vec<u64>,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TABLE: u16 = 4;

impl Ring {
    /// A ring of this size in guest memory.
    pub fn new(board: &mut Board, size: u16, features: u64) -> Self {
        let entries = usize::from(size);
        Self {
            size,
            descriptors: board.allocate(16 * entries),
            available: board.allocate(6 + 2 * entries),
            used: board.allocate(6 + 8 * entries),
            next: 0,
            seen: 0,
            asked: 0,
            events: features & EVENTS != 0,
            indirect: features & INDIRECT != 0,
            // In an order that is not that of the table.
            free: (0..size).map(|i| i.wrapping_mul(5) & (size - 1)).collect(),
            chains: vec![Vec::new(); entries],
            tables: vec![0; entries],
        }
    }

    /// How many descriptors are free.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Writes a descriptor.
    pub fn describe(board: &mut Board, table: u64, index: u16, part: (u64, u32), flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        board.store(at, &part.0.to_le_bytes());
        board.store(at + 8, &part.1.to_le_bytes());
        board.store(at + 12, &flags.to_le_bytes());
        board.store(at + 14, &next.to_le_bytes());
    }

    /// Makes a chain available: indirect if that was agreed upon and it has several parts.
    pub fn add(&mut self, board: &mut Board, chain: &[(u64, u32, bool)]) -> u16 {
        let flag = |write: bool| if write { WRITE } else { 0 };
        let head = if self.indirect && chain.len() > 1 {
            let head = self.free.pop().expect("a free descriptor");
            if self.tables[usize::from(head)] == 0 {
                self.tables[usize::from(head)] = board.allocate(16 * 16);
            }
            let table = self.tables[usize::from(head)];
            assert!(chain.len() <= 16);
            for (index, &(address, length, write)) in (0u16..).zip(chain) {
                let more = usize::from(index) + 1 < chain.len();
                let flags = flag(write) | if more { NEXT } else { 0 };
                Self::describe(board, table, index, (address, length), flags, index + 1);
            }
            Self::describe(board, self.descriptors, head, (table, 16 * chain.len() as u32), TABLE, 0);
            self.chains[usize::from(head)] = vec![head];
            head
        } else {
            let parts: Vec<u16> = chain.iter().map(|_| self.free.pop().expect("a free descriptor")).collect();
            for (index, &(address, length, write)) in chain.iter().enumerate() {
                let next = parts.get(index + 1);
                let flags = flag(write) | if next.is_some() { NEXT } else { 0 };
                let next = next.copied().unwrap_or(0xffff);
                Self::describe(board, self.descriptors, parts[index], (address, length), flags, next);
            }
            let head = parts[0];
            self.chains[usize::from(head)] = parts;
            head
        };
        self.offer(board, head);
        head
    }

    /// Makes a head available, whatever it is.
    pub fn offer(&mut self, board: &mut Board, head: u16) {
        let place = self.available + 4 + 2 * u64::from(self.next % self.size);
        board.store(place, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        let next = self.next;
        board.store(self.available + 2, &next.to_le_bytes());
    }

    /// Whether the device wants to be notified of what was added since this was asked last.
    pub fn wants_notification(&mut self, board: &Board) -> bool {
        let old = std::mem::replace(&mut self.asked, self.next);
        if !self.events {
            return board.word(self.used) & 1 == 0;
        }
        let event = board.word(self.used + 4 + 8 * u64::from(self.size));
        self.next.wrapping_sub(event).wrapping_sub(1) < self.next.wrapping_sub(old)
    }

    /// Asks for an interrupt when so many more are used (events), or at all.
    pub fn want_interrupt(&self, board: &mut Board, after: Option<u16>) {
        if self.events {
            let event = match after {
                Some(after) => self.seen.wrapping_add(after),
                None => self.seen.wrapping_sub(1),
            };
            board.store(self.available + 4 + 2 * u64::from(self.size), &event.to_le_bytes());
        } else {
            board.store(self.available, &u16::from(after.is_none()).to_le_bytes());
        }
    }

    /// Takes the next used chain.
    pub fn take(&mut self, board: &Board) -> Option<(u16, u32)> {
        if board.word(self.used + 2) == self.seen {
            return None;
        }
        let at = self.used + 4 + 8 * u64::from(self.seen % self.size);
        let (head, zero, length) = (
            board.word(at),
            board.word(at + 2),
            u32::from_le_bytes(board.load(at + 4, 4).try_into().expect("four")),
        );
        assert_eq!(zero, 0, "a head has 16 bits");
        self.seen = self.seen.wrapping_add(1);
        let parts = std::mem::take(&mut self.chains[usize::from(head)]);
        assert!(!parts.is_empty(), "chain {head} was not with the device");
        self.free.extend(parts);
        Some((head, length))
    }
}
