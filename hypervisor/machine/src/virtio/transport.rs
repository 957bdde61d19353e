//! What all virtio devices have in common: status, feature negotiation, queues, and when the driver is to be interrupted
//! (virtio 1.2, chapters 2 and 3, and the common configuration structure of 4.1.4.3).

use serde::{Deserialize, Serialize};

use super::chain::{Broken, Chain};
use super::queue::{NO_VECTOR, Queue};
use super::{Buffers, Model};
use crate::context::{Context, Instant};
use crate::devices::BadState;
use crate::ram::Ram;

/// Most queues of a device.
pub const QUEUES: usize = 3;
/// Bytes of the common configuration structure.
pub const COMMON: u32 = 0x38;

/// Bytes that one queue's requests may move before the device pauses, so that no exit takes long. One request more may begin.
const WORK: usize = 4 << 20;
/// How long the device pauses then, nanoseconds.
const PAUSE: Instant = 10_000;

/// Features of the transport.
pub mod feature {
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENTS: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
    /// What every device here offers.
    pub const ALL: u64 = INDIRECT | EVENTS | VERSION_1;
}

/// Bits of the device status.
pub mod status {
    /// The driver drives it.
    pub const DRIVER_OK: u8 = 4;
    /// The features are agreed upon.
    pub const FEATURES_OK: u8 = 8;
    /// Only a reset helps.
    pub const NEEDS_RESET: u8 = 0x40;
}

/// Bits of the ISR status.
pub mod isr {
    /// A queue was used.
    pub const QUEUE: u8 = 1;
    /// The configuration changed.
    pub const CONFIG: u8 = 2;
}

/// What the driver is to be told by interrupts: a bit for each queue, and one for the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Events(u8);

impl Events {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The configuration changed.
    pub const CONFIG: Self = Self(0x80);

    /// This queue was used.
    const fn queue(index: usize) -> Self {
        Self(1 << index)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of the ISR status that belong to these.
    pub const fn isr(self) -> u8 {
        let queue = if self.0 & !Self::CONFIG.0 != 0 { isr::QUEUE } else { 0 };
        queue | if self.0 & Self::CONFIG.0 != 0 { isr::CONFIG } else { 0 }
    }
}

/// The common registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// Device status.
    pub status: u8,
    /// ISR status.
    pub isr: u8,
    /// Changes whenever the device's configuration does.
    pub generation: u8,
    /// Which 32 device features are shown.
    pub device_select: u32,
    /// Which 32 driver features are shown.
    pub driver_select: u32,
    /// The features that the driver accepts.
    pub features: u64,
    /// MSI-X vector for changes of the configuration.
    pub vector: u16,
    /// Which queue is shown.
    pub queue_select: u16,
    /// The queues.
    pub queues: [Queue; QUEUES],
    /// Queues that the driver has notified of and that have not been served yet.
    pub kicked: u8,
    /// When the device goes on with those.
    pub resume: Option<Instant>,
}

impl Transport {
    /// After reset.
    pub const fn new() -> Self {
        Self {
            status: 0,
            isr: 0,
            generation: 0,
            device_select: 0,
            driver_select: 0,
            features: 0,
            vector: NO_VECTOR,
            queue_select: 0,
            queues: [Queue::new(), Queue::new(), Queue::new()],
            kicked: 0,
            resume: None,
        }
    }

    /// Whether a device can be in this state.
    pub(crate) fn check(&self, model: &Model) -> Result<(), BadState> {
        let vectors = model.queues() as u16 + 1;
        if self.features & !model.offered() != 0 && self.status & status::FEATURES_OK != 0 {
            return Err(BadState("a virtio driver has accepted features that are not offered"));
        }
        if self.vector >= vectors && self.vector != NO_VECTOR {
            return Err(BadState("a virtio device has a vector that does not exist"));
        }
        if self.kicked >> model.queues() != 0 || !self.queues.iter().all(|queue| queue.is_sound(vectors)) {
            return Err(BadState("a virtqueue has a size or a vector that cannot be"));
        }
        if self.queues[model.queues()..].iter().any(|queue| *queue != Queue::new()) {
            return Err(BadState("a virtqueue that does not exist is in use"));
        }
        Ok(())
    }

    /// Whether this feature was agreed upon.
    pub(super) const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Whether the driver drives the device by features agreed upon, and has not broken it.
    pub const fn is_live(&self) -> bool {
        let live = status::DRIVER_OK | status::FEATURES_OK;
        self.status & (live | status::NEEDS_RESET) == live
    }

    /// Reads a register of the common configuration, at its natural size.
    pub(crate) fn read(&self, offset: u32, model: &Model) -> u32 {
        let index = usize::from(self.queue_select);
        let queue = self.queues[..model.queues()].get(index);
        let address = |of: fn(&Queue) -> u64| queue.map_or(0, of);
        match offset {
            0x00 => self.device_select,
            0x04 => half(model.offered(), self.device_select),
            0x08 => self.driver_select,
            0x0c => half(self.features, self.driver_select),
            0x10 => self.vector.into(),
            0x12 => model.queues() as u32,
            0x14 => self.status.into(),
            0x15 => self.generation.into(),
            0x16 => self.queue_select.into(),
            // 0: the queue does not exist.
            0x18 => queue.map_or(0, |queue| queue.size.into()),
            0x1a => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            0x1c => queue.is_some_and(|queue| queue.enabled).into(),
            0x1e => queue.map_or(0, |_| index as u32),
            0x20 => address(|queue| queue.descriptors) as u32,
            0x24 => (address(|queue| queue.descriptors) >> 32) as u32,
            0x28 => address(|queue| queue.available) as u32,
            0x2c => (address(|queue| queue.available) >> 32) as u32,
            0x30 => address(|queue| queue.used) as u32,
            0x34 => (address(|queue| queue.used) >> 32) as u32,
            _ => 0,
        }
    }

    /// Writes a register of the common configuration but for the device status, at its natural size.
    pub(crate) fn write(&mut self, offset: u32, value: u32, model: &Model) {
        let vectors = model.queues() as u16 + 1;
        let vector = Some(value as u16).filter(|&vector| vector < vectors).unwrap_or(NO_VECTOR);
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            // Once agreed upon, features stay (3.1.1).
            0x0c if self.status & status::FEATURES_OK == 0 => match self.driver_select {
                0 => set_half(&mut self.features, 0, value),
                1 => set_half(&mut self.features, 32, value),
                _ => {}
            },
            0x10 => self.vector = vector,
            0x16 => self.queue_select = value as u16,
            0x18..0x38 => {
                let queue = self.queues[..model.queues()].get_mut(usize::from(self.queue_select));
                if let Some(queue) = queue {
                    write_queue(queue, offset, value, vector);
                }
            }
            _ => {}
        }
    }

    /// Writes the device status, but for 0, which resets the device. Bits can only be added.
    pub(crate) fn write_status(&mut self, value: u8, model: &Model) {
        let mut added = value & !self.status & !status::NEEDS_RESET;
        if added & status::FEATURES_OK != 0 && !model.accepts(self.features) {
            added &= !status::FEATURES_OK;
        }
        self.status |= added;
    }

    /// The device's configuration has changed.
    pub(crate) fn configuration_changed(&mut self) -> Events {
        self.generation = self.generation.wrapping_add(1);
        if self.status & status::DRIVER_OK != 0 { Events::CONFIG } else { Events::NONE }
    }

    /// The driver broke the rules.
    fn break_down(&mut self) -> Events {
        self.status |= status::NEEDS_RESET;
        (self.kicked, self.resume) = (0, None);
        self.configuration_changed()
    }

    /// Serves what the driver has notified of, as far as it may be done now.
    pub(crate) fn serve(
        &mut self,
        model: &mut Model,
        ctx: &mut Context<'_, '_>,
        buffers: &mut Buffers,
    ) -> Events {
        self.resume = None;
        if !self.is_live() {
            return Events::NONE;
        }
        let mut events = Events::NONE;
        // What is put off meanwhile is put into `kicked` again.
        let mut left = core::mem::take(&mut self.kicked);
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            match self.serve_queue(index, model, ctx, buffers) {
                Ok(more) => events = events.and(more),
                Err(Broken) => return events.and(self.break_down()),
            }
        }
        events
    }

    /// The device goes on with this queue then.
    fn go_on(&mut self, index: usize, at: Instant) {
        self.kicked |= 1 << index;
        self.resume = Some(self.resume.map_or(at, |resume| resume.min(at)));
    }

    /// Serves a queue until it is empty or enough is done.
    fn serve_queue(
        &mut self,
        index: usize,
        model: &mut Model,
        ctx: &mut Context<'_, '_>,
        buffers: &mut Buffers,
    ) -> Result<Events, Broken> {
        let (features, indirect, events) =
            (self.features, self.has(feature::INDIRECT), self.has(feature::EVENTS));
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.enabled) else {
            return Ok(Events::NONE);
        };
        if model.is_input(index) {
            // Buffers for what comes later: there is nothing to do with them now, nor with more of them.
            queue.want_notification(ctx.ram, events, false)?;
            return Ok(Events::NONE);
        }
        let before = queue.next_used;
        let mut waiting = queue.waiting(ctx.ram)?;
        let mut work = 0;
        let mut go_on = None;
        let Buffers { chain, frame, sector } = buffers;
        model.begin(index);
        let outcome = loop {
            if waiting == 0 {
                if queue.next_used != before {
                    go_on = model.rest(index, ctx.now);
                }
                break queue.want_notification(ctx.ram, events, go_on.is_none());
            }
            if work >= WORK {
                go_on = Some(ctx.now.saturating_add(PAUSE));
                break Ok(());
            }
            let served = queue
                .peek(ctx.ram, 0, indirect, chain)
                .and_then(|()| model.serve(index, features, chain, ctx, frame, sector));
            match served {
                Ok(served) => {
                    queue.give_back(ctx.ram, chain.head, served.written)?;
                    work = work.saturating_add(served.work);
                }
                Err(broken) => break Err(broken),
            }
            waiting -= 1;
        };
        // What was served before a bad chain is still given back.
        let interrupt = queue.publish(ctx.ram, before, events)?;
        outcome?;
        if let Some(at) = go_on {
            self.go_on(index, at);
        }
        Ok(if interrupt { Events::queue(index) } else { Events::NONE })
    }

    /// Puts something into an input queue by `fill`, which takes chains and answers what comes of it.
    pub(super) fn fill<R>(
        &mut self,
        index: usize,
        ctx: &mut Context<'_, '_>,
        chain: &mut Chain,
        fill: impl FnOnce(&mut Queue, u64, &mut Context<'_, '_>, &mut Chain) -> Result<R, Broken>,
    ) -> (Option<R>, Events) {
        let (features, events) = (self.features, self.has(feature::EVENTS));
        let live = self.is_live();
        let Some(queue) = self.queues.get_mut(index).filter(|queue| live && queue.enabled) else {
            return (None, Events::NONE);
        };
        let before = queue.next_used;
        let filled = fill(queue, features, ctx, chain);
        let published = queue.publish(ctx.ram, before, events);
        match (filled, published) {
            (Ok(done), Ok(true)) => (Some(done), Events::queue(index)),
            (Ok(done), Ok(false)) => (Some(done), Events::NONE),
            _ => (None, self.break_down()),
        }
    }

    /// A queue, if the device may use it.
    pub(super) fn live_queue(&self, index: usize) -> Option<&Queue> {
        self.queues.get(index).filter(|queue| self.is_live() && queue.enabled)
    }

    /// Whether a chain waits in an input queue.
    pub(crate) fn has_buffer(&self, index: usize, ram: &Ram<'_>) -> bool {
        self.live_queue(index).is_some_and(|queue| queue.waiting(ram).is_ok_and(|waiting| waiting != 0))
    }

    /// The MSI-X vectors that these events ask for, a bit each.
    pub(crate) fn vectors(&self, events: Events) -> u8 {
        let bit = |vector: u16| if vector < 8 { 1u8 << vector } else { 0 };
        let config = if events.0 & Events::CONFIG.0 != 0 { bit(self.vector) } else { 0 };
        let queues = self.queues.iter().enumerate();
        queues.fold(
            config,
            |all, (index, queue)| {
                if events.0 & 1 << index != 0 { all | bit(queue.vector) } else { all }
            },
        )
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a register of a queue.
fn write_queue(queue: &mut Queue, offset: u32, value: u32, vector: u16) {
    match offset {
        0x1a => queue.vector = vector,
        // The driver must not change what the device uses (4.1.4.3.2).
        _ if queue.enabled => {}
        0x18 => {
            let size = value as u16;
            if size.is_power_of_two() && size <= super::queue::SIZE {
                queue.size = size;
            }
        }
        0x1c => queue.enabled = value as u16 == 1,
        0x20 => set_half(&mut queue.descriptors, 0, value),
        0x24 => set_half(&mut queue.descriptors, 32, value),
        0x28 => set_half(&mut queue.available, 0, value),
        0x2c => set_half(&mut queue.available, 32, value),
        0x30 => set_half(&mut queue.used, 0, value),
        0x34 => set_half(&mut queue.used, 32, value),
        _ => {}
    }
}

/// The lower or the upper half; 0 for others.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Replaces the half that begins at this bit.
fn set_half(of: &mut u64, bit: u32, value: u32) {
    *of = *of & !(0xffff_ffff << bit) | u64::from(value) << bit;
}
