//! A split virtqueue, the device's side (virtio 1.2, 2.7). It is read and written only while the guest is stopped.

use serde::{Deserialize, Serialize};

use super::chain::{Broken, CHAIN, Chain, Segment};
use crate::ram::Ram;

/// Entries of a queue unless the driver asks for fewer.
pub const SIZE: u16 = 256;
/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// Bytes of a used ring besides its entries: two words in front, one behind.
const USED_RING: usize = 6;
/// Flag of the available ring: no interrupts, please. Flag of the used ring: no notifications, please.
const QUIET: u16 = 1;

/// A queue's registers and the device's place in its rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Entries: a power of two, at most [`SIZE`].
    pub size: u16,
    /// MSI-X vector.
    pub vector: u16,
    /// The driver lets the device use it.
    pub enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// The next available entry that the device takes.
    pub next_available: u16,
    /// The next used entry that the device fills.
    pub next_used: u16,
}

impl Queue {
    /// After reset.
    pub const fn new() -> Self {
        Self {
            size: SIZE,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
        }
    }

    /// The available ring with its two words in front and the word `used_event` behind.
    fn available_ring<'m>(&self, ram: &'m Ram<'_>) -> Result<&'m [u8], Broken> {
        Ok(ram.slice(self.available, 6 + 2 * usize::from(self.size))?)
    }

    /// The used ring with its two words in front and the word `avail_event` behind.
    fn used_ring<'m>(&self, ram: &'m mut Ram<'_>) -> Result<&'m mut [u8], Broken> {
        Ok(ram.slice_mut(self.used, USED_RING + 8 * usize::from(self.size))?)
    }

    /// How many chains the driver has made available and the device has not taken.
    ///
    /// # Errors
    /// [`Broken`] for a ring that is not RAM, the used one too, or that claims to be fuller than it can be.
    pub fn waiting(&self, ram: &Ram<'_>) -> Result<u16, Broken> {
        // Nothing is done that could not be given back.
        ram.layout().place(self.used, USED_RING + 8 * usize::from(self.size)).ok_or(Broken)?;
        let waiting = word(self.available_ring(ram)?, 2)?.wrapping_sub(self.next_available);
        if waiting > self.size { Err(Broken) } else { Ok(waiting) }
    }

    /// Reads the chain that is `ahead` chains behind the next one; takes nothing. The caller knows that it waits.
    ///
    /// # Errors
    /// [`Broken`] for a chain against the rules.
    pub fn peek(&self, ram: &Ram<'_>, ahead: u16, indirect: bool, chain: &mut Chain) -> Result<(), Broken> {
        let place = self.next_available.wrapping_add(ahead) & (self.size - 1);
        let head = word(self.available_ring(ram)?, 4 + 2 * usize::from(place))?;
        let mut table = ram.slice(self.descriptors, DESCRIPTOR * usize::from(self.size))?;
        let mut index = head;
        let mut indirect = indirect;
        chain.begin(head);
        // Bounded by the chain, which takes only so many.
        loop {
            let descriptor = Descriptor::read(table, index)?;
            if descriptor.flags & INDIRECT != 0 {
                table = descriptor.table(ram, indirect)?;
                // None within another.
                (index, indirect) = (0, false);
                continue;
            }
            chain.push(ram, descriptor.segment, descriptor.flags & WRITE != 0)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// Gives the next chain back, with so many bytes written from its beginning. The driver sees it after
    /// [`Queue::publish`].
    ///
    /// # Errors
    /// [`Broken`] if the ring is not RAM.
    pub fn give_back(&mut self, ram: &mut Ram<'_>, head: u16, written: u32) -> Result<(), Broken> {
        let at = 4 + 8 * usize::from(self.next_used & (self.size - 1));
        let entry = u64::from(head) | u64::from(written) << 32;
        let place = self.used_ring(ram)?.get_mut(at..at + 8).ok_or(Broken)?;
        place.copy_from_slice(&entry.to_le_bytes());
        self.next_used = self.next_used.wrapping_add(1);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver what was given back since `before`, and answers whether it wants an interrupt for that.
    ///
    /// # Errors
    /// [`Broken`] if a ring is not RAM.
    pub fn publish(&self, ram: &mut Ram<'_>, before: u16, events: bool) -> Result<bool, Broken> {
        if before == self.next_used {
            return Ok(false);
        }
        set_word(self.used_ring(ram)?, 2, self.next_used)?;
        let available = self.available_ring(ram)?;
        if !events {
            return Ok(word(available, 0)? & QUIET == 0);
        }
        let event = word(available, 4 + 2 * usize::from(self.size))?;
        let (done, wanted) = (self.next_used.wrapping_sub(before), self.next_used.wrapping_sub(event));
        Ok(wanted.wrapping_sub(1) < done)
    }

    /// Tells the driver whether to notify the device of the next chain.
    ///
    /// # Errors
    /// [`Broken`] if the ring is not RAM.
    pub fn want_notification(&self, ram: &mut Ram<'_>, events: bool, wanted: bool) -> Result<(), Broken> {
        let used = self.used_ring(ram)?;
        match (events, wanted) {
            (false, _) => set_word(used, 0, if wanted { 0 } else { QUIET }),
            (true, true) => set_word(used, 4 + 8 * usize::from(self.size), self.next_available),
            // The old value does not come again for 65,535 chains.
            (true, false) => Ok(()),
        }
    }

    /// Whether a queue can be in this state.
    pub(super) fn is_sound(&self, vectors: u16) -> bool {
        self.size.is_power_of_two()
            && self.size <= SIZE
            && (self.vector < vectors || self.vector == NO_VECTOR)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// A descriptor (2.7.5).
struct Descriptor {
    segment: Segment,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// The descriptor of this index.
    fn read(table: &[u8], index: u16) -> Result<Self, Broken> {
        let at = DESCRIPTOR * usize::from(index);
        let bytes: [u8; DESCRIPTOR] = *table.get(at..).and_then(<[u8]>::first_chunk).ok_or(Broken)?;
        let raw = u128::from_le_bytes(bytes);
        let segment = Segment { address: raw as u64, length: (raw >> 64) as u32 };
        Ok(Self { segment, flags: (raw >> 96) as u16, next: (raw >> 112) as u16 })
    }

    /// The table that this descriptor refers to (2.7.5.3).
    fn table<'m>(&self, ram: &'m Ram<'_>, allowed: bool) -> Result<&'m [u8], Broken> {
        let length = self.segment.length as usize;
        let sound = allowed
            && self.flags & NEXT == 0
            && length != 0
            && length.is_multiple_of(DESCRIPTOR)
            && length <= CHAIN * DESCRIPTOR;
        if sound { Ok(ram.slice(self.segment.address, length)?) } else { Err(Broken) }
    }
}

/// A little-endian word of a ring.
fn word(ring: &[u8], at: usize) -> Result<u16, Broken> {
    ring.get(at..).and_then(<[u8]>::first_chunk).copied().map(u16::from_le_bytes).ok_or(Broken)
}

/// Writes a little-endian word of a ring.
fn set_word(ring: &mut [u8], at: usize, value: u16) -> Result<(), Broken> {
    ring.get_mut(at..at + 2).ok_or(Broken)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}
