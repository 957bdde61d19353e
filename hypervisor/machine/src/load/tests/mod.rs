//! Whole machines loaded and looked at from the guest's side.

mod acpi;
mod linux;
mod multiboot;

use std::vec;
use std::vec::Vec;

use super::*;

/// Guest memory for a test, not zeroed: a reset finds what was there.
fn memory(mib: usize) -> Vec<u8> {
    vec![0xa5; mib << 20]
}

/// A kernel and nothing with it.
fn alone(image: &[u8]) -> Kernel<'_> {
    Kernel { image, initrd: None, command_line: "", modules: &[], seed: None }
}

fn start(ram: &mut Ram<'_>, kernel: Kernel<'_>) -> Result<Start, LoadError> {
    load(ram, &Software::Kernel(kernel), &Board { serial: true })
}

/// The descriptors of code and data, checked: flat, present, of the right kind.
fn check_segments(ram: &Ram<'_>, segments: Segments, long: bool) {
    assert!(segments.limit >= segments.data + 7 && segments.limit >= segments.code + 7);
    let code = ram.read_u64(segments.gdt + u64::from(segments.code)).expect("code");
    let data = ram.read_u64(segments.gdt + u64::from(segments.data)).expect("data");
    for descriptor in [code, data] {
        let base = (descriptor >> 16 & 0xff_ffff) | (descriptor >> 56 << 24);
        let limit = (descriptor & 0xffff) | (descriptor >> 32 & 0xf_0000);
        let (present, granular) = (descriptor >> 47 & 1, descriptor >> 55 & 1);
        assert_eq!((base, limit, present, granular), (0, 0xf_ffff, 1, 1), "{descriptor:#x}");
    }
    // S and type: execute/read, read/write; L and D/B.
    assert_eq!((code >> 40 & 0x1e, data >> 40 & 0x1e), (0x1a, 0x12));
    let wide = if long { 0b01 } else { 0b10 };
    assert_eq!(code >> 53 & 3, wide, "L and D of the code segment");
}

/// What the page tables at CR3 map an address to, by the processor's rules for 2-MByte pages.
fn walk(ram: &Ram<'_>, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3;
    for shift in [39, 30, 21] {
        let entry = ram.read_u64(table + (address >> shift & 511) * 8).expect("a table in memory");
        if entry & 3 != 3 {
            return None;
        }
        if shift == 21 {
            assert_eq!(entry & 0x80, 0x80, "a large page");
            return Some((entry & 0x000f_ffff_ffe0_0000) + (address & 0x1f_ffff));
        }
        assert_eq!(entry & 0x80, 0, "no 1-GByte page: not every processor has them");
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

#[test]
fn firmware_is_shadowed_and_starts_at_the_reset_vector() {
    let image: Vec<u8> = (0..256 << 10).map(|n: usize| (n >> 8) as u8 ^ n as u8 | 1).collect();
    let mut memory = memory(4);
    let mut ram = Ram::new(&mut memory);
    let board = Board { serial: true };
    assert_eq!(load(&mut ram, &Software::Firmware(&image), &board), Ok(Start::RealModeReset));
    assert_eq!(ram.slice(map::BIOS, 128 << 10), Ok(&image[128 << 10..]));
    assert_eq!(ram.slice(map::BIOS - 16, 16), Ok([0xa5; 16].as_slice()), "nothing below the shadow");
    // A small one fills only the end.
    assert_eq!(load(&mut ram, &Software::Firmware(&image[..64 << 10]), &board), Ok(Start::RealModeReset));
    assert_eq!(ram.slice(0xf_0000, 64 << 10), Ok(&image[..64 << 10]));
    for (image, error) in [
        (&image[..4096], BiosError::Size(4096)),
        (&image[..(64 << 10) + 1], BiosError::Size((64 << 10) + 1)),
        (&[0; 64 << 10], BiosError::NoResetVector),
        (&[0xff; 64 << 10], BiosError::NoResetVector),
    ] {
        assert_eq!(load(&mut ram, &Software::Firmware(image), &board), Err(LoadError::Bios(error)));
    }
}

#[test]
fn what_is_no_kernel_is_said_to_be_none() {
    let mut memory = memory(4);
    let mut ram = Ram::new(&mut memory);
    for image in [b"".as_slice(), b"#!/bin/sh\n", &[0; 8192]] {
        assert_eq!(start(&mut ram, alone(image)), Err(LoadError::UnknownKernel));
    }
}

#[test]
fn the_memory_map_has_all_memory_once() {
    use crate::ram::{HIGH, HOLE, Layout};
    for bytes in [4 << 20, HOLE, HOLE + (2 << 20), HOLE + (8 << 30)] {
        let layout = Layout::new(bytes);
        let entries = map::memory_map(layout);
        assert!(
            entries.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start),
            "sorted, none overlaps"
        );
        let usable = entries.iter().filter(|entry| entry.kind == map::Kind::Ram);
        let usable: u64 = usable.map(|entry| entry.range.end - entry.range.start).sum();
        // All but the legacy hole and the BIOS data area's end.
        assert_eq!(usable, bytes - (map::EXTENDED - map::low::END));
        assert_eq!(entries.iter().any(|entry| entry.range.start == HIGH), bytes > HOLE);
        let all: u64 = map::memory(layout).iter().map(|entry| entry.range.end - entry.range.start).sum();
        assert_eq!(all, bytes);
    }
    let entry = map::Entry { range: 0x1234_5678_9abc..0x1234_5678_9abd, kind: map::Kind::Reserved };
    let expected = [0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(entry.e820(), expected);
}
