//! A virtio driver with nothing in it that a test does not need: PCI by ports, the structures in BAR 0, split queues in
//! fixed memory (virtio 1.2, chapter 2.7 and section 4.1). Where the structures lie is asked of the capabilities.

use crate::cpu::{inb, inl, inw, outb, outl, outw};

/// Vendor of virtio.
const VENDOR: u32 = 0x1af4;
/// Device IDs begin here: this plus the type.
const FIRST: u32 = 0x1040;
/// Types of devices.
pub const NET: u32 = 1;
/// Block device.
pub const BLOCK: u32 = 2;
/// Entropy source.
pub const RNG: u32 = 4;
/// Where the queues lie: descriptors, available ring, used ring, 16 KiB for each queue.
pub const QUEUES: u64 = 0x0140_0000;
/// Buffers.
pub const BUFFERS: u64 = 0x0148_0000;
/// Entries of each queue.
pub const SIZE: u16 = 16;

/// Reads a register of PCI configuration space: device `device` of bus 0, function 0.
pub fn config(device: u32, offset: u32) -> u32 {
    // SAFETY: configuration mechanism #1 touches no memory.
    unsafe { outl(0xcf8, 0x8000_0000 | device << 11 | offset & 0xfc) };
    inl(0xcfc)
}

/// Writes one.
///
/// # Safety
/// The device must not be made to write memory that Rust owns.
pub unsafe fn set_config(device: u32, offset: u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        outl(0xcf8, 0x8000_0000 | device << 11 | offset & 0xfc);
        outl(0xcfc, value);
    }
}

/// A found device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its number on bus 0.
    pub number: u32,
    /// Its type.
    pub kind: u32,
    /// The ports of the common structure, notifications, ISR status, configuration.
    pub common: u16,
    notify: u16,
    notify_step: u16,
    isr: u16,
    specific: u16,
}

/// Reads memory at a fixed place.
pub fn peek<T: Copy>(at: u64) -> T {
    assert!((QUEUES..QUEUES + 0x10_0000).contains(&at));
    // SAFETY: memory of no Rust object, mapped.
    unsafe { (at as *const T).read_volatile() }
}

/// Writes memory at a fixed place.
pub fn poke<T>(at: u64, value: T) {
    assert!((QUEUES..QUEUES + 0x10_0000).contains(&at));
    // SAFETY: memory of no Rust object, mapped.
    unsafe { (at as *mut T).write_volatile(value) };
}

/// The virtio devices of bus 0, with ports switched on and DMA allowed.
pub fn devices() -> impl Iterator<Item = Device> {
    (0..32).filter_map(|number| {
        let id = config(number, 0);
        if id & 0xffff != VENDOR || id >> 16 < FIRST {
            return None;
        }
        // SAFETY: ports, memory, bus master: nothing is driven yet.
        unsafe { set_config(number, 4, 7) };
        let base = (config(number, 0x10) & 0xfffc) as u16;
        let kind = (id >> 16) - FIRST;
        let mut device = Device { number, kind, common: 0, notify: 0, notify_step: 0, isr: 0, specific: 0 };
        let mut at = config(number, 0x34) & 0xfc;
        for _ in 0..16 {
            if at == 0 {
                break;
            }
            let head = config(number, at);
            let (bar, offset) = (config(number, at + 4) & 0xff, config(number, at + 8) as u16);
            if head & 0xff == 9 && bar == 0 {
                match head >> 24 {
                    1 => device.common = base + offset,
                    2 => {
                        device.notify = base + offset;
                        device.notify_step = config(number, at + 16) as u16;
                    }
                    3 => device.isr = base + offset,
                    4 => device.specific = base + offset,
                    _ => {}
                }
            }
            at = head >> 8 & 0xfc;
        }
        Some(device)
    })
}

/// What a chain is made of.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// 1 next, 2 the device writes, 4 indirect.
    pub flags: u16,
    /// The next one.
    pub next: u16,
}

/// Where a queue's parts lie: descriptors, available, used.
pub const fn places(queue: u16) -> [u64; 3] {
    let at = QUEUES + 0x4000 * queue as u64;
    [at, at + 0x1000, at + 0x2000]
}

impl Device {
    /// Device status.
    pub fn status(&self) -> u8 {
        inb(self.common + 0x14)
    }

    /// Sets the device status.
    pub fn set_status(&self, status: u8) {
        // SAFETY: the queues lie in memory of no Rust object.
        unsafe { outb(self.common + 0x14, status) }
    }

    /// Reads ISR status, which acknowledges.
    pub fn isr(&self) -> u8 {
        inb(self.isr)
    }

    /// A doubleword of the device's own configuration.
    pub fn specific(&self, offset: u16) -> u32 {
        inl(self.specific + offset)
    }

    /// Resets it, accepts VERSION_1 and what of `wanted` is offered (0 to 31), and sets `queues` up. Whether the device agrees.
    pub fn start(&self, queues: u16, wanted: u32) -> bool {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        // SAFETY: as `set_status`.
        unsafe {
            outl(self.common, 0);
            let offered = inl(self.common + 4);
            for (half, value) in [(0, offered & wanted), (1, 1)] {
                outl(self.common + 8, half);
                outl(self.common + 12, value);
            }
        }
        self.set_status(11);
        for queue in 0..queues {
            self.enable(queue, places(queue), SIZE);
        }
        self.set_status(15);
        self.status() == 15
    }

    /// Says where a queue is.
    pub fn enable(&self, queue: u16, places: [u64; 3], size: u16) {
        // SAFETY: as `set_status`.
        unsafe {
            outw(self.common + 0x16, queue);
            outw(self.common + 0x18, size);
            for (register, place) in [0x20u16, 0x28, 0x30].into_iter().zip(places) {
                outl(self.common + register, place as u32);
                outl(self.common + register + 4, (place >> 32) as u32);
            }
            outw(self.common + 0x1c, 1);
        }
    }

    /// Entries of a queue that the device offers.
    pub fn queue_size(&self, queue: u16) -> u16 {
        // SAFETY: as `set_status`.
        unsafe { outw(self.common + 0x16, queue) };
        inw(self.common + 0x18)
    }

    /// Makes a queue empty.
    pub fn clear(queue: u16) {
        let [descriptors, available, used] = places(queue);
        for offset in 0..0x400 {
            for at in [descriptors, available, used] {
                poke(at + 4 * offset, 0u32);
            }
        }
    }

    /// Offers the chain that begins at descriptor `head`, without a notification.
    pub fn offer(queue: u16, head: u16) {
        let available = places(queue)[1];
        let index: u16 = peek(available + 2);
        poke(available + 4 + 2 * u64::from(index % SIZE), head);
        poke(available + 2, index.wrapping_add(1));
    }

    /// Notifies of a queue.
    pub fn notify(&self, queue: u16) {
        // SAFETY: as `set_status`.
        unsafe { outw(self.notify.wrapping_add(queue.wrapping_mul(self.notify_step)), queue) }
    }

    /// How many chains the device has used; the length that it wrote for the last one.
    pub fn used(queue: u16) -> (u16, u32) {
        let used = places(queue)[2];
        let index: u16 = peek(used + 2);
        (index, peek(used + 8 + 8 * u64::from(index.wrapping_sub(1) % SIZE)))
    }

    /// Puts these descriptors, offers the first, notifies, and waits. The length written, if the device answers.
    pub fn transfer(&self, queue: u16, chain: &[Descriptor]) -> Option<u32> {
        for (index, descriptor) in chain.iter().enumerate() {
            poke(places(queue)[0] + 16 * index as u64, *descriptor);
        }
        let before = Self::used(queue).0;
        Self::offer(queue, 0);
        self.notify(queue);
        (0..100_000).find(|_| Self::used(queue).0 != before)?;
        Some(Self::used(queue).1)
    }
}
