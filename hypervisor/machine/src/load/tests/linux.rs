//! bzImages made by hand, loaded, and looked at as their first instruction would.

use proptest::prelude::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::{alone, check_segments, memory, start, walk};
use crate::load::linux::LinuxError;
use crate::load::map::{EXTENDED, low};
use crate::load::{Kernel, LoadError, Module, Segments, Start};
use crate::ram::Ram;

/// A bzImage: fields at their offsets, 4 sectors of set-up code, then this protected-mode code.
struct Image(Vec<u8>);

const CODE: usize = 5 * 512;

impl Image {
    /// As a Linux of today is built: 2.15, relocatable, 64-bit entry, at 16 MiB.
    fn new(code: usize) -> Self {
        let mut this = Self((0..CODE + code).map(|n| (n * 7) as u8).collect());
        this.0[..CODE].fill(0x5a);
        this.put(0x1f1, &[4]).put(0x1fe, &[0x55, 0xaa]).put(0x200, &[0xeb, 0x6a]).put(0x202, b"HdrS");
        this.put(0x206, &[0x0f, 0x02]).put(0x211, &[0x83]).put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        this.put(0x230, &0x20_0000u32.to_le_bytes()).put(0x234, &[1]).put(0x236, &[0x7f, 0]);
        this.put(0x238, &2047u32.to_le_bytes()).put(0x258, &0x100_0000u64.to_le_bytes());
        this.put(0x260, &0x20_0000u32.to_le_bytes());
        this
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Of another protocol version.
    fn version(mut self, version: u16) -> Self {
        self.put(0x206, &version.to_le_bytes());
        self
    }
}

fn refused(image: &Image, mib: usize) -> LinuxError {
    let mut memory = memory(mib);
    match start(&mut Ram::new(&mut memory), alone(&image.0)) {
        Err(LoadError::Linux(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_kernel_of_today_starts_in_64_bit_mode() {
    let image = Image::new(0x1_2345);
    let initrd: Vec<u8> = (0..100_001u32).map(|n| (n % 251) as u8).collect();
    let mut memory = memory(64);
    let mut ram = Ram::new(&mut memory);
    let kernel = Kernel {
        image: &image.0,
        initrd: Some(&initrd),
        command_line: "console=ttyS0 quiet",
        modules: &[],
        seed: Some([0xc7; 32]),
    };
    let Ok(Start::LongMode { entry, rsi, rsp, cr3, segments }) = start(&mut ram, kernel) else { panic!() };
    assert_eq!(entry, 0x100_0200);
    assert_eq!(ram.slice(0x100_0000, 0x1_2345), Ok(&image.0[CODE..]));
    assert!(rsp > 0x1000 && rsp <= low::END);
    assert_eq!((segments.code, segments.data), (0x10, 0x18), "__BOOT_CS and __BOOT_DS");
    check_segments(&ram, segments, true);
    for address in [0, 0x1f_ffff, entry, rsi, 0xfee0_0000, 0xffff_ffff] {
        assert_eq!(walk(&ram, cr3, address), Some(address));
    }
    assert_eq!(walk(&ram, cr3, 1 << 32), None);
    let page = ram.slice(rsi, 4096).expect("the zero page");
    assert_eq!(
        page[0x1f1..0x210],
        image.0[0x1f1..0x210]
            .iter()
            .enumerate()
            .map(|(n, &byte)| {
                // vid_mode is the loader's.
                if (9..11).contains(&n) { 0xff } else { byte }
            })
            .collect::<Vec<_>>()
    );
    assert_eq!((page[0x210], page[0x211], page[0x1ef]), (0xff, 0x01, 0), "loader, flags, sentinel");
    let (disk, size) = (ram.read_u32(rsi + 0x218).expect("there"), ram.read_u32(rsi + 0x21c).expect("there"));
    assert_eq!((disk % 4096, size), (0, 100_001));
    assert!(u64::from(disk) + u64::from(size) <= 64 << 20 && disk >= 0x100_0000 + 0x20_0000);
    assert_eq!(ram.slice(disk.into(), initrd.len()), Ok(initrd.as_slice()));
    let line = ram.read_u32(rsi + 0x228).expect("there");
    assert_eq!(ram.slice(line.into(), 20), Ok(b"console=ttyS0 quiet\0".as_slice()));
    let rsdp = ram.read_u64(rsi + 0x70).expect("there");
    assert_eq!(ram.slice(rsdp, 8), Ok(b"RSD PTR ".as_slice()));
    assert_eq!(ram.slice(0x100_0000 + 0x1_2345, 16), Ok([0xa5; 16].as_slice()), "nothing behind the kernel");
}

#[test]
fn memory_and_seed_are_described() {
    let image = Image::new(4096);
    let mut memory = memory(32);
    let mut ram = Ram::new(&mut memory);
    let kernel = Kernel { seed: Some([0xc7; 32]), ..alone(&image.0) };
    start(&mut ram, kernel).expect("a start");
    let page = ram.slice(low::ZERO_PAGE, 4096).expect("the zero page");
    let count = usize::from(page[0x1e8]);
    let entries: Vec<&[u8]> = page[0x2d0..].chunks(20).take(count).collect();
    let range = |entry: &[u8]| {
        let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        (number(0), number(0) + number(8), entry[16])
    };
    let ranges: Vec<_> = entries.iter().map(|entry| range(entry)).collect();
    let expected =
        [(0, 0x9_fc00, 1), (0x9_fc00, 0xa_0000, 2), (0xe_0000, 0x10_0000, 2), (0x10_0000, 32 << 20, 1)];
    assert_eq!(ranges, expected);
    let seed = ram.read_u64(low::ZERO_PAGE + 0x250).expect("setup_data");
    let header =
        [ram.read_u32(seed), ram.read_u32(seed + 4), ram.read_u32(seed + 8), ram.read_u32(seed + 12)];
    assert_eq!(header, [Ok(0), Ok(0), Ok(9), Ok(32)]);
    assert_eq!(ram.slice(seed + 16, 32), Ok([0xc7; 32].as_slice()));
    start(&mut ram, alone(&image.0)).expect("a start");
    assert_eq!(ram.read_u64(low::ZERO_PAGE + 0x250), Ok(0), "no seed");
    assert_eq!(ram.read_u16(0x40e), Ok(0x9fc0), "the BIOS data area names the extended one");
    assert_eq!(ram.read_u16(0x413), Ok(639));
}

#[test]
fn a_small_machine_has_its_kernel_low() {
    // 16 MiB do not reach the preferred address; the lowest aligned one is at 2 MiB.
    let mut memory = memory(16);
    let mut ram = Ram::new(&mut memory);
    let started = start(&mut ram, alone(&Image::new(4096).0));
    assert!(matches!(started, Ok(Start::LongMode { entry: 0x20_0200, .. })), "{started:?}");
    assert_eq!(ram.read_u32(low::ZERO_PAGE + 0x214), Ok(0x20_0000), "code32_start");
    let mut fixed = Image::new(4096);
    fixed.put(0x234, &[0]);
    assert_eq!(refused(&fixed, 16), LinuxError::NoRoom { need: 0x20_0000, at: 0x100_0000 });
    let mut large = Image::new(4096);
    large.put(0x260, &0x100_0000u32.to_le_bytes());
    assert_eq!(refused(&large, 16), LinuxError::NoRoom { need: 0x100_0000, at: 0x20_0000 });
}

#[test]
fn a_32_bit_kernel_starts_in_protected_mode() {
    // memtest86+ 6 for i386: 2.12, not relocatable, at 1 MiB, no 64-bit entry.
    let mut image = Image::new(0x3000).version(0x020c);
    image.put(0x211, &[1]).put(0x234, &[0]).put(0x236, &[4, 0]).put(0x258, &EXTENDED.to_le_bytes());
    image.put(0x260, &0x6_87f8u32.to_le_bytes());
    let mut memory = memory(4);
    let mut ram = Ram::new(&mut memory);
    let Ok(Start::Protected { entry, eax, ebx, esi, esp, segments }) = start(&mut ram, alone(&image.0))
    else {
        panic!()
    };
    assert_eq!((entry, eax, ebx, u64::from(esi)), (0x10_0000, 0, 0, low::ZERO_PAGE));
    assert!(esp > 0x1000);
    assert_eq!((segments.code, segments.data), (0x10, 0x18));
    check_segments(&ram, segments, false);
    assert_eq!(ram.slice(0x10_0000, 0x3000), Ok(&image.0[CODE..]));
    // An old one: no xloadflags, no pref_address, no init_size.
    let old = Image::new(0x3000).version(0x0204);
    let started = start(&mut ram, alone(&old.0));
    assert!(
        matches!(started, Ok(Start::Protected { entry: 0x10_0000, segments: Segments { .. }, .. })),
        "{started:?}"
    );
}

#[test]
fn set_up_sectors_of_0_are_4() {
    let mut image = Image::new(4096);
    image.put(0x1f1, &[0]);
    let mut memory = memory(32);
    let mut ram = Ram::new(&mut memory);
    start(&mut ram, alone(&image.0)).expect("a start");
    assert_eq!(ram.slice(0x100_0000, 4096), Ok(&image.0[CODE..]));
}

#[test]
fn each_refusal_has_its_name() {
    assert_eq!(refused(&Image::new(4096).version(0x0201), 32), LinuxError::TooOld(0x0201));
    let mut low_image = Image::new(4096);
    low_image.put(0x211, &[0]);
    assert_eq!(refused(&low_image, 32), LinuxError::NotHigh);
    let mut odd = Image::new(4096);
    odd.put(0x230, &3u32.to_le_bytes());
    assert_eq!(refused(&odd, 16), LinuxError::Alignment(3));
    let mut deep = Image::new(4096);
    deep.put(0x258, &0x1000u64.to_le_bytes());
    assert_eq!(refused(&deep, 32), LinuxError::PreferredAddress(0x1000));
    let mut cut = Image::new(4096);
    cut.put(0x1f1, &[64]);
    assert_eq!(refused(&cut, 32), LinuxError::Truncated);
    assert_eq!(refused(&Image(Image::new(4096).0[..0x240].to_vec()), 32), LinuxError::Truncated);
    let mut memory = memory(32);
    let mut ram = Ram::new(&mut memory);
    let image = Image::new(4096);
    let long = "x".repeat(2048);
    let kernel = Kernel { command_line: &long, ..alone(&image.0) };
    let error = LoadError::Linux(LinuxError::CommandLine { length: 2048, most: 2047 });
    assert_eq!(start(&mut ram, kernel), Err(error));
    assert!(start(&mut ram, Kernel { command_line: &long[..2047], ..kernel }).is_ok());
    let modules = [Module { bytes: b"m", string: "m" }];
    let kernel = Kernel { modules: &modules, ..alone(&image.0) };
    assert_eq!(start(&mut ram, kernel), Err(LoadError::Linux(LinuxError::Modules)));
    assert!(error.to_string().contains("the command line has 2048 bytes, and the kernel reads only 2047"));
}

#[test]
fn an_initrd_lies_where_the_kernel_can_reach_it() {
    let mut image = Image::new(4096);
    image.put(0x22c, &0x13f_ffffu32.to_le_bytes());
    let mut memory = memory(64);
    let mut ram = Ram::new(&mut memory);
    // The kernel takes 10_0000..12_0000 in pages of 4 KiB; 20_0000 bytes are left below its limit.
    for (bytes, placed) in [(0x1000, Some(0x13f_f000)), (0x20_0000, Some(0x120_0000)), (0x20_0001, None)] {
        let initrd = vec![1; bytes];
        let started = start(&mut ram, Kernel { initrd: Some(&initrd), ..alone(&image.0) });
        match placed {
            Some(at) => {
                started.expect("a start");
                assert_eq!(ram.read_u32(low::ZERO_PAGE + 0x218), Ok(at));
            }
            None => {
                let error = LinuxError::NoRoomForInitrd { need: 0x20_0001, have: 0x20_0000 };
                assert_eq!(started, Err(LoadError::Linux(error)));
            }
        }
    }
    start(&mut ram, Kernel { initrd: Some(&[]), ..alone(&image.0) }).expect("a start");
    assert_eq!(ram.read_u64(low::ZERO_PAGE + 0x218), Ok(0), "an empty one is none");
}

proptest! {
    #[test]
    fn any_header_is_answered(
        fields in proptest::collection::vec((0x1f1usize..0x290, any::<u8>()), 0..12),
        length in 0usize..8192,
        mib in 4usize..6,
        initrd in 0usize..20000,
    ) {
        let mut image = Image::new(8192);
        fields.iter().for_each(|&(at, byte)| { image.put(at, &[byte]); });
        image.0.truncate(length);
        let mut memory = memory(mib);
        let mut ram = Ram::new(&mut memory);
        let initrd = vec![0; initrd];
        let kernel = Kernel { initrd: Some(&initrd), command_line: "x", ..alone(&image.0) };
        if let Err(error) = start(&mut ram, kernel) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
