//! A driver that breaks virtio's rules: queues anywhere, descriptors of anything, loops, indices that jump.

use super::random::Random;
use crate::cpu::{inl, outb, outl, outw};
use crate::virtio::{self, BUFFERS, Descriptor, Device, QUEUES, SIZE, peek, places, poke};

/// Addresses as a bad driver gives them.
fn address(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.value(),
        1 => random.pick(&[
            0x200_0000 - 8,
            0x1ff_fff0,
            0xa_0000,
            0xfee0_0000,
            0xe000_0000,
            u64::MAX - 7,
            1 << 63,
        ]),
        2 => QUEUES + random.below(0x1_0000),
        // Not the image, on purpose: what a device writes there is a crash of ours, not of the host.
        _ => BUFFERS + random.below(0x8000),
    }
}

fn length(random: &mut Random) -> u32 {
    match random.below(4) {
        0 => random.value() as u32,
        1 => random.pick(&[0, 1, 15, 16, 17, 512, 4096, 0x7fff_ffff, u32::MAX]),
        _ => random.below(1 << 14) as u32,
    }
}

fn descriptor(random: &mut Random) -> Descriptor {
    let address = address(random);
    Descriptor {
        address,
        length: length(random),
        flags: if random.one_in(6) { random.bits() as u16 } else { random.below(8) as u16 },
        next: if random.one_in(6) { random.bits() as u16 } else { random.below(u64::from(SIZE)) as u16 },
    }
}

/// One episode: a device found at random, driven badly. False where there is none.
pub fn episode(random: &mut Random) -> bool {
    let count = virtio::devices().count() as u64;
    if count == 0 {
        return false;
    }
    let chosen = random.below(count) as usize;
    let Some(device) = virtio::devices().nth(chosen) else { return false };
    if !random.one_in(4) {
        (0..3).for_each(Device::clear);
        device.start(1 + random.below(3) as u16, random.value() as u32);
    }
    let before: [u32; 6] = core::array::from_fn(|n| virtio::config(device.number, 0x10 + 4 * n as u32));
    for _ in 0..10 + random.below(60) {
        act(random, &device);
    }
    // Back to its place: what the next episode writes to its registers could switch the machine off elsewhere.
    for (bar, value) in (0x10..).step_by(4).zip(before) {
        // SAFETY: its own addresses.
        unsafe { virtio::set_config(device.number, bar, value) };
    }
    // Leave it quiet: it must not write into the next episode's memory by surprise.
    if random.one_in(2) {
        device.set_status(0);
    }
    true
}

fn act(random: &mut Random, device: &Device) {
    let queue = random.below(3) as u16;
    let [descriptors, available, _] = places(queue);
    match random.below(12) {
        0..=2 => {
            for index in 0..u64::from(SIZE) {
                poke(descriptors + 16 * index, descriptor(random));
            }
        }
        3 | 4 => {
            // What could be a request: a header and a status byte, and an indirect table.
            let any = random.bits() as u32;
            let kind = random.pick(&[0, 1, 4, 8, 11, 13, any]);
            poke(BUFFERS, kind);
            poke(BUFFERS + 8, random.value());
            let data = Descriptor { flags: 1 + 2 * random.below(2) as u16, next: 2, ..descriptor(random) };
            let chain = [
                Descriptor { address: BUFFERS, length: 16, flags: 1, next: 1 },
                data,
                Descriptor { address: BUFFERS + 0x8000, length: 1, flags: 2, next: 0 },
            ];
            let indirect = random.one_in(2);
            let at = if indirect { BUFFERS + 0x9000 } else { descriptors };
            for (index, descriptor) in chain.into_iter().enumerate() {
                poke(at + 16 * index as u64, descriptor);
            }
            if indirect {
                let length = random.pick(&[48, 48, 16, 0, 47, 0xffff_fff0]);
                poke(descriptors, Descriptor { address: at, length, flags: 4, next: 0 });
            }
            Device::offer(queue, 0);
            device.notify(queue);
        }
        5 | 6 => {
            Device::offer(
                queue,
                if random.one_in(4) { random.bits() as u16 } else { random.below(16) as u16 },
            );
            device.notify(queue);
        }
        7 => {
            let index: u16 = peek(available + 2);
            poke(available + 2, index.wrapping_add(random.value() as u16));
            device.notify(random.bits() as u16 & 7);
        }
        8 => {
            let places = core::array::from_fn(|_| address(random));
            device.enable(queue, places, random.value() as u16);
        }
        9 => device.set_status(random.bits() as u8),
        // SAFETY: what the device can be made to write is memory of no Rust object, or this program's end.
        10 => unsafe {
            let port = device.common.wrapping_add(random.below(0x100) as u16);
            let value = random.value() as u32;
            match random.below(3) {
                0 => outb(port, value as u8),
                1 => outw(port, value as u16),
                _ => outl(port, value),
            }
            inl(port);
        },
        // SAFETY: as above; BARs go where nothing of ours is looked for.
        _ => unsafe {
            let register = random.below(64) as u32 * 4;
            let value = random.value() as u32;
            virtio::set_config(device.number, register, value);
            virtio::config(device.number, register);
        },
    }
}
