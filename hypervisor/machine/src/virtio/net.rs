//! The network device (virtio 1.2, 5.1): one pair of queues and the control queue, no offloads.
//!
//! A driver that sends one long frame after the other is not asked to notify of each: at even distances the device looks for what there is to
//! be sent ([`Throttle`]). A stream loses nothing by that, and each notification that is spared is an exit, and for a protected guest an entry
//! of the log, its way to the backup and an acknowledgement. Short frames are questions, answers and acknowledgements: somebody waits for
//! them, and they are sent at once.

use serde::{Deserialize, Serialize};

use super::chain::{Broken, Chain, Cursor};
use super::queue::Queue;
use super::transport::{Events, Transport, feature};
use super::{CONFIG, FRAME, Served};
use crate::context::{Context, Instant};
use crate::devices::BadState;
use crate::ram::Ram;
use crate::throttle::Throttle;

/// The queue of buffers for frames that come.
pub const RECEIVE: usize = 0;
/// The queue of frames that leave.
pub const TRANSMIT: usize = 1;

/// VIRTIO_NET_F_MAC.
const MAC: u64 = 1 << 5;
/// VIRTIO_NET_F_MRG_RXBUF.
const MERGE: u64 = 1 << 15;
/// VIRTIO_NET_F_STATUS.
const STATUS: u64 = 1 << 16;
/// VIRTIO_NET_F_CTRL_VQ.
const CONTROL: u64 = 1 << 17;
/// VIRTIO_NET_F_CTRL_RX.
const CONTROL_RX: u64 = 1 << 18;
/// VIRTIO_NET_F_CTRL_RX_EXTRA.
const CONTROL_RX_EXTRA: u64 = 1 << 20;
/// VIRTIO_NET_F_CTRL_MAC_ADDR.
const CONTROL_MAC: u64 = 1 << 23;
/// The features offered.
pub const FEATURES: u64 = MAC | MERGE | STATUS | CONTROL | CONTROL_RX | CONTROL_RX_EXTRA | CONTROL_MAC;

/// Bytes of the header before each frame; the last two count the buffers of a received one.
const HEADER: usize = 12;
/// Most buffers that one received frame may take. Buffers too small for that are a fault of the driver.
const MERGED: u16 = 64;
/// The shortest frame: two addresses and a type, bytes.
const SHORTEST: usize = 14;
/// A frame of so many bytes is long.
const LONG: usize = 1024;
/// The work of a frame besides its bytes.
const COST: usize = 512;

/// Addresses in each half of the filter. With more of them, all frames of the kind pass.
pub const ADDRESSES: usize = 32;

/// Classes of the control queue's commands.
const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
/// Commands of the class MAC.
const TABLE_SET: u8 = 0;
const ADDRESS_SET: u8 = 1;
/// The outcome of a command.
const ACK_OK: u8 = 0;
const ACK_ERROR: u8 = 1;

/// Bits of the receive mode, numbered as their commands.
pub mod mode {
    /// All frames.
    pub const PROMISCUOUS: u8 = 1 << 0;
    /// All multicast frames.
    pub const ALL_MULTICAST: u8 = 1 << 1;
    /// All unicast frames.
    pub const ALL_UNICAST: u8 = 1 << 2;
    /// No multicast frames.
    pub const NO_MULTICAST: u8 = 1 << 3;
    /// No unicast frames.
    pub const NO_UNICAST: u8 = 1 << 4;
    /// No broadcast frames.
    pub const NO_BROADCAST: u8 = 1 << 5;
}

/// A MAC address.
pub type Mac = [u8; 6];

/// A half of the filter's table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The addresses; the first `count` count.
    pub list: [Mac; ADDRESSES],
    /// How many.
    pub count: u8,
    /// There were more than fit: everything passes.
    pub overflow: bool,
}

impl Addresses {
    fn has(&self, address: Mac) -> bool {
        self.overflow || self.list.iter().take(self.count.into()).any(|&one| one == address)
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// Which of the machine's network devices it is.
    pub device: u8,
    /// The address that it was made with.
    pub permanent: Mac,
    /// The address in force.
    pub mac: Mac,
    /// The link is up.
    pub link: bool,
    /// The receive mode.
    pub mode: u8,
    /// The unicast half of the table.
    pub unicast: Addresses,
    /// The multicast half of the table.
    pub multicast: Addresses,
    /// Frames from outside that were dropped: filtered, too long, or for buffers too small.
    pub dropped: u64,
    /// How often the driver may notify of frames to be sent.
    pub throttle: Throttle,
    /// The frame that was sent last was long, and the ones before it since the device began to look for them.
    pub streams: bool,
}

/// What became of a frame from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The guest has it.
    Taken,
    /// The guest has no buffer now. It will notify the device of the next one.
    NoBuffer,
    /// The guest does not want it, or cannot take it: it is dropped.
    Dropped,
    /// The link is down, or no driver drives the device: it is dropped.
    Down,
}

/// Whether these features go together (5.1.3.1).
pub const fn consistent(features: u64) -> bool {
    features & CONTROL != 0 || features & (CONTROL_RX | CONTROL_RX_EXTRA | CONTROL_MAC) == 0
}

impl Net {
    /// The machine's network device of this index, with its link up.
    pub fn new(device: u8, mac: Mac) -> Self {
        Self {
            device,
            permanent: mac,
            mac,
            link: true,
            mode: mode::PROMISCUOUS,
            unicast: Addresses::default(),
            multicast: Addresses::default(),
            dropped: 0,
            throttle: Throttle::default(),
            streams: false,
        }
    }

    /// The device begins to look for frames to be sent.
    pub(super) const fn begin_sending(&mut self) {
        self.streams = true;
    }

    /// All frames were sent, and there were some: when the device looks again, if the driver is not to notify it of the next one.
    pub(super) const fn rest(&mut self, now: Instant) -> Option<Instant> {
        if self.streams { self.throttle.next(now) } else { None }
    }

    pub(super) fn check(&self) -> Result<(), BadState> {
        let full = |half: &Addresses| usize::from(half.count) > ADDRESSES;
        if full(&self.unicast) || full(&self.multicast) {
            return Err(BadState("a network device's table has more addresses than it can"));
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        let fresh = Self::new(self.device, self.permanent);
        *self = Self { link: self.link, dropped: self.dropped, ..fresh };
    }

    /// The configuration structure: address and status.
    pub(super) fn config(&self) -> [u8; CONFIG] {
        let mut config = [0; CONFIG];
        config[..6].copy_from_slice(&self.mac);
        config[6] = self.link.into();
        config
    }

    /// Sends a frame: from where it is if it lies together, else gathered.
    pub(super) fn transmit(
        &mut self,
        chain: &Chain,
        ctx: &mut Context<'_, '_>,
        frame: &mut [u8; FRAME],
    ) -> Result<Served, Broken> {
        let mut data = chain.readable();
        let length = data.left().checked_sub(HEADER as u64).ok_or(Broken)?;
        data.skip(HEADER as u64);
        let done = Served { written: 0, work: FRAME + COST };
        if !self.link || length < SHORTEST as u64 || length > FRAME as u64 {
            return Ok(done);
        }
        let length = length as usize;
        self.streams &= length >= LONG;
        let together = data.clone().piece(length as u32).filter(|piece| piece.length as usize == length);
        let bytes = match together {
            Some(piece) => ctx.ram.slice(piece.address, length)?,
            None => {
                data.read(ctx.ram, &mut frame[..length])?;
                &frame[..length]
            }
        };
        ctx.out.frame(self.device, bytes);
        Ok(done)
    }

    /// A command of the control queue: class, command, data; and room for the outcome in the last byte.
    pub(super) fn control(
        &mut self,
        features: u64,
        chain: &Chain,
        ctx: &mut Context<'_, '_>,
    ) -> Result<Served, Broken> {
        let mut data = chain.readable();
        let [class, command] = data.read_array(ctx.ram)?;
        let mut room = chain.writable();
        let before = room.left().checked_sub(1).ok_or(Broken)?;
        let done = self.command(features, class, command, &mut data, ctx.ram);
        let outcome = if done.is_some() { ACK_OK } else { ACK_ERROR };
        room.skip(before);
        room.write(ctx.ram, &[outcome])?;
        Ok(Served { written: if before == 0 { 1 } else { 0 }, work: FRAME })
    }

    /// Does a command; `None` if there is none such, or not enough data for it.
    fn command(
        &mut self,
        features: u64,
        class: u8,
        command: u8,
        data: &mut Cursor<'_>,
        ram: &Ram<'_>,
    ) -> Option<()> {
        let has = |feature| (features & feature != 0).then_some(());
        match (class, command) {
            (CLASS_RX, 0..=5) => {
                has(if command < 2 { CONTROL_RX } else { CONTROL_RX_EXTRA })?;
                let [on @ (0 | 1)] = data.read_array(ram).ok()? else { return None };
                self.mode = self.mode & !(1 << command) | on << command;
            }
            (CLASS_MAC, TABLE_SET) => {
                has(CONTROL_RX)?;
                let unicast = read_addresses(data, ram)?;
                let multicast = read_addresses(data, ram)?;
                (self.unicast, self.multicast) = (unicast, multicast);
            }
            (CLASS_MAC, ADDRESS_SET) => {
                has(CONTROL_MAC)?;
                self.mac = data.read_array(ram).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether the guest's filter lets a frame through.
    pub fn wants(&self, frame: &[u8]) -> bool {
        let Some(&to) = frame.first_chunk::<6>() else { return false };
        let has = |bit| self.mode & bit != 0;
        if has(mode::PROMISCUOUS) {
            return true;
        }
        if to == [0xff; 6] {
            return !has(mode::NO_BROADCAST);
        }
        if to[0] & 1 != 0 {
            return !has(mode::NO_MULTICAST) && (has(mode::ALL_MULTICAST) || self.multicast.has(to));
        }
        !has(mode::NO_UNICAST) && (to == self.mac || has(mode::ALL_UNICAST) || self.unicast.has(to))
    }
}

/// Reads a half of the table: a count, and so many addresses (5.1.6.5.2). `None` if there are fewer.
fn read_addresses(data: &mut Cursor<'_>, ram: &Ram<'_>) -> Option<Addresses> {
    let count = u32::from_le_bytes(data.read_array(ram).ok()?);
    let bytes = u64::from(count) * size_of::<Mac>() as u64;
    if bytes > data.left() {
        return None;
    }
    let mut addresses = Addresses::default();
    let Some(list) = addresses.list.get_mut(..count as usize) else {
        addresses.overflow = true;
        data.skip(bytes);
        return Some(addresses);
    };
    for place in list {
        *place = data.read_array(ram).ok()?;
    }
    addresses.count = count as u8;
    Some(addresses)
}

/// Gives the driver a frame.
pub(crate) fn receive(
    net: &mut Net,
    transport: &mut Transport,
    frame: &[u8],
    ctx: &mut Context<'_, '_>,
    chain: &mut Chain,
) -> (Received, Events) {
    if !net.link || !transport.is_live() {
        return (Received::Down, Events::NONE);
    }
    if frame.len() > FRAME || !net.wants(frame) {
        net.dropped = net.dropped.wrapping_add(1);
        return (Received::Dropped, Events::NONE);
    }
    let (received, events) = transport.fill(RECEIVE, ctx, chain, |queue, features, ctx, chain| {
        let received = put(queue, features, frame, ctx, chain)?;
        if received == Received::NoBuffer {
            queue.want_notification(ctx.ram, features & feature::EVENTS != 0, true)?;
        }
        Ok(received)
    });
    let received = received.unwrap_or(Received::Down);
    if received == Received::Dropped {
        net.dropped = net.dropped.wrapping_add(1);
    }
    (received, events)
}

/// What the queue's next buffers are for a frame.
enum Fit {
    /// All of them are too few, or there are none.
    TooFew,
    /// The next one is too small, and the driver does not merge.
    TooSmall,
    /// So many hold it.
    Buffers(u16),
}

/// Whether a frame of so many bytes would not come back for want of a buffer, if the guest wants it. Changes nothing.
pub(crate) fn has_buffer_for(
    net: &Net,
    transport: &Transport,
    bytes: usize,
    ram: &Ram<'_>,
    chain: &mut Chain,
) -> bool {
    if !net.link || bytes > FRAME {
        return true;
    }
    // A queue that is broken takes the frame, so to speak: the device is down then.
    let queue = transport.live_queue(RECEIVE);
    let fit = queue.map(|queue| measure(queue, transport.features, bytes, ram, chain));
    !matches!(fit, Some(Ok(Fit::TooFew)))
}

/// Asks the driver to tell when it has a buffer, as [`receive`] does when it has none.
pub(crate) fn ask_for_buffer(
    net: &Net,
    transport: &mut Transport,
    ctx: &mut Context<'_, '_>,
    chain: &mut Chain,
) -> Events {
    if !net.link {
        return Events::NONE;
    }
    let (_, events) = transport.fill(RECEIVE, ctx, chain, |queue, features, ctx, _| {
        queue.want_notification(ctx.ram, features & feature::EVENTS != 0, true)
    });
    events
}

/// Looks how many of the queue's next buffers a frame of so many bytes takes: one, or as many as needed if the driver merges.
/// The first one is in `chain` if it is the only one.
fn measure(
    queue: &Queue,
    features: u64,
    bytes: usize,
    ram: &Ram<'_>,
    chain: &mut Chain,
) -> Result<Fit, Broken> {
    let indirect = features & feature::INDIRECT != 0;
    let waiting = queue.waiting(ram)?;
    if waiting == 0 {
        return Ok(Fit::TooFew);
    }
    let needed = (HEADER + bytes) as u64;
    queue.peek(ram, 0, indirect, chain)?;
    let mut room = chain.writable().left();
    if room < HEADER as u64 {
        return Err(Broken);
    }
    let mut buffers = 1;
    if room < needed && features & MERGE == 0 {
        return Ok(Fit::TooSmall);
    }
    while room < needed {
        if buffers == waiting {
            return Ok(Fit::TooFew);
        }
        if buffers == MERGED {
            return Err(Broken);
        }
        queue.peek(ram, buffers, indirect, chain)?;
        room += chain.writable().left();
        buffers += 1;
    }
    Ok(Fit::Buffers(buffers))
}

/// Puts a frame with its header into the queue's next buffers.
fn put(
    queue: &mut Queue,
    features: u64,
    frame: &[u8],
    ctx: &mut Context<'_, '_>,
    chain: &mut Chain,
) -> Result<Received, Broken> {
    let buffers = match measure(queue, features, frame.len(), ctx.ram, chain)? {
        Fit::TooFew => return Ok(Received::NoBuffer),
        // The frame is lost, the buffer is not.
        Fit::TooSmall => return Ok(Received::Dropped),
        Fit::Buffers(buffers) => buffers,
    };
    let indirect = features & feature::INDIRECT != 0;
    let mut header = [0; HEADER];
    header[HEADER - 2..].copy_from_slice(&buffers.to_le_bytes());
    let mut left = frame;
    for index in 0..buffers {
        if buffers != 1 {
            queue.peek(ctx.ram, 0, indirect, chain)?;
        }
        let mut buffer = chain.writable();
        let mut written = 0;
        if index == 0 {
            written = buffer.write(ctx.ram, &header)?;
        }
        let taken = buffer.write(ctx.ram, left)?;
        left = left.get(taken..).ok_or(Broken)?;
        queue.give_back(ctx.ram, chain.head, (written + taken) as u32)?;
    }
    Ok(Received::Taken)
}
