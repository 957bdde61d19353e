//! A card as smoltcp sees it: frames are copied once each way, and one that finds the card's ring full is kept until there
//! is room.

use crate::segment;
use hal::{NetDevice, TransmitError};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Longest frame without FCS, bytes: header and 1500.
pub const MAX_FRAME: usize = 1514;

/// Frames that are dropped in one go at most.
const DROPS: usize = 64;

/// Whether a frame has a TCP segment of somebody else than `only`.
fn is_strange(frame: &[u8], only: Option<[u8; 4]>) -> bool {
    only.is_some_and(|only| {
        frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6) && frame.get(26..30) != Some(&only)
    })
}

/// Whether a frame has a UDP datagram, or a piece of one.
fn is_datagram(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17)
}

/// Which frames are given out, where datagrams have sockets of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There is one set of sockets.
    All,
    /// All but datagrams.
    Segments,
    Datagrams,
}

/// A card with room for a frame each way.
pub struct Card<N> {
    pub device: N,
    /// The frame that smoltcp reads.
    arrived: [u8; MAX_FRAME],
    leaving: Leaving,
    /// Frames handed to smoltcp.
    pub received: u64,
    /// Longer than any that Ethernet has: dropped.
    pub too_long: u64,
    /// The only IPv4 address whose TCP segments are taken.
    only: Option<[u8; 4]>,
    /// Segments of others: dropped.
    pub strangers: u64,
    /// TCP segments whose checksum was wrong: dropped.
    pub damaged: u64,
    /// So many were dropped in one go that there may be more.
    pub flooded: bool,
    turn: Turn,
    /// The next frame is of the other kind.
    other: bool,
}

/// The frame that smoltcp writes.
struct Leaving {
    frame: [u8; MAX_FRAME],
    /// Bytes of it that the card had no room for yet; 0 for none.
    waiting: usize,
    sent: u64,
    /// Times the card's ring was full.
    full: u64,
    refused: u64,
    /// Asked when the card has taken a frame, and what it said the last time.
    clock: fn() -> u64,
    sent_at: u64,
}

impl Leaving {
    /// Gives the card what waits. Whether there is room for another frame now.
    fn flush<N: NetDevice>(&mut self, device: &mut N) -> bool {
        if self.waiting != 0 {
            match device.transmit(&self.frame[..self.waiting]) {
                Ok(()) => {
                    self.sent_at = (self.clock)();
                    self.sent += 1;
                }
                Err(TransmitError::Full) => return false,
                // No card sends it: lost on the way, as it were.
                Err(TransmitError::Length(_)) => self.refused += 1,
            }
            self.waiting = 0;
        }
        true
    }
}

impl<N: NetDevice> Card<N> {
    /// `apart`: datagrams have sockets of their own, see [`gives_datagrams`](Self::gives_datagrams).
    pub const fn new(device: N, only: Option<[u8; 4]>, apart: bool) -> Self {
        let leaving = Leaving {
            frame: [0; MAX_FRAME],
            waiting: 0,
            sent: 0,
            full: 0,
            refused: 0,
            clock: || 0,
            sent_at: 0,
        };
        Self {
            device,
            arrived: [0; MAX_FRAME],
            leaving,
            received: 0,
            too_long: 0,
            only,
            strangers: 0,
            damaged: 0,
            flooded: false,
            turn: if apart { Turn::Segments } else { Turn::All },
            other: false,
        }
    }

    /// Whether what is given out next is a datagram; else it is none.
    pub const fn gives_datagrams(&self) -> bool {
        matches!(self.turn, Turn::Datagrams)
    }

    /// Whether nothing was given out because what comes next is of the other kind, which is given out from now on.
    pub fn has_the_other_kind(&mut self) -> bool {
        let other = core::mem::take(&mut self.other);
        if other {
            self.turn = if self.gives_datagrams() { Turn::Segments } else { Turn::Datagrams };
        }
        other
    }

    /// Whether a frame waits for the card: it is to be offered again when the card has sent some.
    pub const fn is_full(&self) -> bool {
        self.leaving.waiting != 0
    }

    /// Frames that the card has taken.
    pub const fn sent(&self) -> u64 {
        self.leaving.sent
    }

    /// Asks this clock from now on when the card has taken a frame.
    pub const fn stamp_with(&mut self, clock: fn() -> u64) {
        self.leaving.clock = clock;
    }

    /// When the card took the last frame, by the clock of [`stamp_with`](Self::stamp_with); 0 without one.
    pub const fn sent_at(&self) -> u64 {
        self.leaving.sent_at
    }

    /// Times that the card had no room.
    pub const fn full(&self) -> u64 {
        self.leaving.full
    }

    /// Frames of a length that no card sends.
    pub const fn refused(&self) -> u64 {
        self.leaving.refused
    }

    /// Gives the card what waits for it; whether there is room for a frame then.
    pub fn flush(&mut self) -> bool {
        self.leaving.flush(&mut self.device)
    }
}

/// A frame that has arrived.
pub struct Arrived<'a>(&'a [u8]);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame.
pub struct Room<'a, N> {
    device: &'a mut N,
    leaving: &'a mut Leaving,
}

impl<N: NetDevice> TxToken for Room<'_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        // smoltcp keeps to the maximum transmission unit that it was told.
        let frame = &mut self.leaving.frame[..length];
        let result = write(frame);
        segment::write_checksum(frame);
        self.leaving.waiting = length;
        if !self.leaving.flush(self.device) {
            self.leaving.full += 1;
        }
        result
    }
}

impl<N: NetDevice> Device for Card<N> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived<'_>, Room<'_, N>)> {
        // An answer may have to leave at once: without room for it the frame stays on the card.
        if !self.leaving.flush(&mut self.device) {
            return None;
        }
        let Self { arrived, too_long, strangers, damaged, other, .. } = self;
        let (only, turn) = (self.only, self.turn);
        let mut length = None;
        // One that is dropped does not hide those behind it.
        let mut take = |frame: &[u8]| {
            if length.is_some() {
                return false;
            }
            if turn != Turn::All && is_datagram(frame) != (turn == Turn::Datagrams) {
                *other = true;
                return false;
            }
            match arrived.get_mut(..frame.len()) {
                _ if is_strange(frame, only) => *strangers += 1,
                _ if segment::is_damaged(frame) => *damaged += 1,
                Some(place) => {
                    place.copy_from_slice(frame);
                    length = Some(frame.len());
                }
                None => *too_long += 1,
            }
            true
        };
        let looks = self.device.receive_while(DROPS, &mut take);
        self.flooded |= looks == DROPS && length.is_none();
        let length = length?;
        self.received += 1;
        Some((
            Arrived(&self.arrived[..length]),
            Room { device: &mut self.device, leaving: &mut self.leaving },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_, N>> {
        let room = self.leaving.flush(&mut self.device);
        room.then_some(Room { device: &mut self.device, leaving: &mut self.leaving })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.max_transmission_unit = self.device.max_frame().min(MAX_FRAME);
        capabilities
    }
}
