//! Waiting for devices: clocks read until they have gone far enough, rings watched until the device has served them, frames that
//! somebody sends when he likes.

use super::{storm, trail};
use crate::apic::Register;
use crate::cpu::{self, inb, outb};
use crate::virtio::{self, BLOCK, BUFFERS, Descriptor, Device, NET, RNG, peek, poke};
use crate::{devices, timers};

/// Reads until `ready`; how often goes into the trail.
fn wait(mut ready: impl FnMut() -> bool) -> bool {
    let count = (1..2_000_000u64).find(|_| ready());
    trail::add(count.unwrap_or(0));
    count.is_some()
}

/// Each clock of the machine, by reading it.
pub fn clocks() -> u64 {
    let mut reached = 0;
    for round in 0..super::rounds(12) {
        let end = cpu::rdtsc() + 60_000 + round * 777;
        reached += u64::from(wait(|| cpu::rdtsc() >= end));
        let begin = devices::pm_timer();
        reached +=
            u64::from(wait(|| devices::pm_timer().wrapping_sub(begin) & 0xff_ffff >= 200 + round as u32));
        let begin = pit_count();
        reached += u64::from(wait(|| pit_count() > begin));
        let begin = read_timer();
        reached += u64::from(wait(|| read_timer() > begin));
        trail::add(timers::over_pit(100 + round as u16).tsc);
        // The comparison has stopped the storm's timer.
        storm::resume();
    }
    reached
}

/// What channel 0 counts, latched.
fn pit_count() -> u16 {
    // SAFETY: the PIT touches no memory.
    unsafe { outb(0x43, 0) };
    u16::from_le_bytes([inb(0x40), inb(0x40)])
}

/// The APIC timer's current count: it jumps up when the interrupt's handler sets it again.
fn read_timer() -> u32 {
    match cpu::rdmsr(0x839) {
        Ok(value) => value as u32,
        Err(_) => crate::apic::read(Register::TimerCurrent),
    }
}

/// Watches a ring's index, which only the device writes, in a loop without exits.
fn used_reaches(queue: u16, index: u16) -> bool {
    let at = virtio::places(queue)[2] + 2;
    wait(|| peek::<u16>(at) == index)
}

fn find(kind: u32) -> Option<Device> {
    virtio::devices().find(|device| device.kind == kind)
}

fn hash(at: u64, bytes: u64) -> u64 {
    (0..bytes / 8).fold(trail::SEED, |hash, word| trail::mix(hash, peek(at + 8 * word)))
}

/// A request of a disk: its header, its data and its status byte, as three descriptors from `first` on.
fn request(first: u16, kind: u32, sector: u64, data: u64, bytes: u32) {
    let header = BUFFERS + 0x7_0000 + 32 * u64::from(first);
    poke(header, kind);
    poke(header + 4, 0u32);
    poke(header + 8, sector);
    poke(header + 16, 0xffu8);
    let into = if kind == 0 { 2 } else { 0 };
    let chain = [
        Descriptor { address: header, length: 16, flags: 1, next: first + 1 },
        Descriptor { address: data, length: bytes, flags: 1 | into, next: first + 2 },
        Descriptor { address: header + 16, length: 1, flags: 2, next: 0 },
    ];
    for (index, descriptor) in (u64::from(first)..).zip(chain) {
        poke(virtio::places(0)[0] + 16 * index, descriptor);
    }
}

/// Writes a disk and reads it back, several requests at a time, by watching the ring.
pub fn disk() -> u64 {
    const BYTES: u32 = 0x4000;
    let Some(device) = find(BLOCK) else { return 0 };
    Device::clear(0);
    let mut result = u64::from(device.start(1, 0));
    let mut index = 0u16;
    for round in 0..super::rounds(12) {
        for kind in [1, 0] {
            for slot in 0..4u16 {
                let data = BUFFERS + u64::from(BYTES) * u64::from(slot);
                for word in (0..u64::from(BYTES) / 8).filter(|_| kind == 1) {
                    poke(
                        data + 8 * word,
                        word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round << 32 ^ u64::from(slot),
                    );
                }
                let data = if kind == 1 { data } else { data + 0x2_0000 };
                let sector = (round * 4 + u64::from(slot)) * u64::from(BYTES) / 512 % 1536;
                request(3 * slot, kind, sector, data, BYTES);
                Device::offer(0, 3 * slot);
            }
            device.notify(0);
            index = index.wrapping_add(4);
            result = trail::mix(result, used_reaches(0, index).into());
            trail::add(device.isr().into());
        }
        result = trail::mix(result, hash(BUFFERS + 0x2_0000, 4 * u64::from(BYTES)));
    }
    device.set_status(0);
    result
}

/// Random numbers of the device, and of the processor where it has them.
pub fn random() -> u64 {
    let mut result = trail::SEED;
    if let Some(device) = find(RNG) {
        Device::clear(0);
        device.start(1, 0);
        for round in 1..=super::rounds(12) * 8 {
            poke(virtio::places(0)[0], Descriptor { address: BUFFERS, length: 256, flags: 2, next: 0 });
            Device::offer(0, 0);
            device.notify(0);
            result = trail::mix(result, used_reaches(0, round as u16).into());
            result = trail::mix(result, hash(BUFFERS, 256));
        }
        device.set_status(0);
    }
    // RDRAND, by CPUID.
    if cpu::cpuid(1, 0)[2] & 1 << 30 != 0 {
        for _ in 0..super::rounds(12) * 50 {
            result = trail::mix(result, cpu::rdrand().unwrap_or(0));
        }
    }
    result
}

/// Bytes before a frame.
const HEADER: u64 = 12;
/// Buffers for frames: eight, of 2 KiB.
const RECEIVERS: u16 = 8;

fn offer_receiver(slot: u16) {
    let address = BUFFERS + 0x800 * u64::from(slot);
    poke(
        virtio::places(0)[0] + 16 * u64::from(slot),
        Descriptor { address, length: 0x800, flags: 2, next: 0 },
    );
    Device::offer(0, slot);
}

/// Puts bytes, in their order.
fn put(at: u64, bytes: &[u8]) {
    for (at, &byte) in (at..).zip(bytes) {
        poke(at, byte);
    }
}

/// The checksum of the internet's protocols over bytes of guest memory.
fn checksum(at: u64, bytes: u64) -> u16 {
    let words = (0..bytes / 2).map(|word| u32::from(u16::from_be(peek(at + 2 * word))));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Asks the world outside for its address and for echoes, watching the ring for what comes. Nothing where there is no card.
pub fn net() -> u64 {
    let Some(device) = find(NET) else { return 0 };
    let mac = [device.specific(0), device.specific(4)].map(u32::to_le_bytes);
    let mac = [mac[0][0], mac[0][1], mac[0][2], mac[0][3], mac[1][0], mac[1][1]];
    (0..2).for_each(Device::clear);
    let mut result = u64::from(device.start(2, 1 << 5));
    (0..RECEIVERS).for_each(offer_receiver);
    device.notify(0);
    let (own, world) = ([10, 0, 2, 15], [10, 0, 2, 2]);
    let frame = BUFFERS + 0x1_0000;
    let (mut sent, mut seen, mut other) = (0u16, 0u16, [0xff; 6]);
    for round in 0..super::rounds(12) * 2 {
        (0..16).for_each(|word| poke(frame + 8 * word, 0u64));
        let at = frame + HEADER;
        put(at, &other);
        put(at + 6, &mac);
        let length = if round == 0 {
            // ARP: who has the other's address?
            put(at + 12, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            put(at + 22, &mac);
            put(at + 28, &own);
            put(at + 38, &world);
            60
        } else {
            // ICMP: an echo, please.
            put(at + 12, &[8, 0, 0x45, 0, 0, 84, 0, round as u8, 0, 0, 64, 1, 0, 0]);
            put(at + 26, &own);
            put(at + 30, &world);
            put(at + 24, &checksum(at + 14, 20).to_be_bytes());
            put(at + 34, &[8, 0, 0, 0, 0x12, 0x34, 0, round as u8]);
            put(at + 36, &checksum(at + 34, 64).to_be_bytes());
            98
        };
        poke(
            virtio::places(1)[0],
            Descriptor { address: frame, length: HEADER as u32 + length, flags: 0, next: 0 },
        );
        Device::offer(1, 0);
        device.notify(1);
        sent = sent.wrapping_add(1);
        result = trail::mix(result, used_reaches(1, sent).into());
        // What comes, and when: nobody but the world knows.
        let at = virtio::places(0)[2] + 2;
        if !wait(|| peek::<u16>(at) != seen) {
            trail::add(round);
            continue;
        }
        while peek::<u16>(at) != seen {
            let place = virtio::places(0)[2] + 4 + 8 * u64::from(seen % virtio::SIZE);
            let (slot, length): (u32, u32) = (peek(place), peek(place + 4));
            let buffer = BUFFERS + 0x800 * u64::from(slot as u16 % RECEIVERS);
            trail::add(hash(buffer, u64::from(length.min(0x800))));
            if peek::<u16>(buffer + HEADER + 12) == u16::from_be(0x0806) {
                other = core::array::from_fn(|byte| peek(buffer + HEADER + 6 + byte as u64));
            }
            seen = seen.wrapping_add(1);
            offer_receiver(slot as u16 % RECEIVERS);
            device.notify(0);
        }
    }
    device.set_status(0);
    trail::add(seen.into());
    crate::println!("net: {sent} frames sent, {seen} received");
    result
}
