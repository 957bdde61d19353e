//! ELF files with Multiboot headers made by hand, and the information that they find.

use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::{alone, check_segments, memory, start};
use crate::load::elf::ElfError;
use crate::load::map::low;
use crate::load::multiboot::MultibootError;
use crate::load::{Kernel, LoadError, Module, Start};
use crate::ram::Ram;

/// A program header's fields that matter.
#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    virt: u64,
    phys: u64,
    file: u64,
    memory: u64,
}

/// Where the headers made here lie in their file.
const HEADERS: usize = 0x40;
const MULTIBOOT: usize = 0x600;
const CONTENTS: usize = 0x800;

/// The first segment of every kernel here: its contents, then 1000h zeros.
const FIRST: Segment =
    Segment { offset: CONTENTS as u64, virt: 0x20_0000, phys: 0x20_0000, file: 0x600, memory: 0x1600 };

/// An ELF file of either class with these segments, a Multiboot header and recognizable contents.
fn elf(wide: bool, machine: u16, entry: u64, segments: &[Segment], header: &[u32]) -> Vec<u8> {
    let mut file: Vec<u8> = (0..CONTENTS + 0x600).map(|n| (n * 13 % 255) as u8 + 1).collect();
    file[..CONTENTS].fill(0);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let word =
        |value: u64| if wide { value.to_le_bytes().to_vec() } else { (value as u32).to_le_bytes().to_vec() };
    let mut head = [b"\x7fELF".as_slice(), &[if wide { 2 } else { 1 }, 1, 1], &[0; 9]].concat();
    head.extend(2u16.to_le_bytes());
    head.extend(machine.to_le_bytes());
    head.extend(1u32.to_le_bytes());
    [entry, HEADERS as u64, 0].iter().for_each(|&value| head.extend(word(value)));
    head.extend([0; 4]);
    let (own, each) = if wide { (64u16, 56u16) } else { (52, 32) };
    for value in [own, each, segments.len() as u16, 0, 0, 0] {
        head.extend(value.to_le_bytes());
    }
    put(0, &head);
    for (n, s) in segments.iter().enumerate() {
        let mut bytes = 1u32.to_le_bytes().to_vec();
        if wide {
            bytes.extend(5u32.to_le_bytes());
        }
        [s.offset, s.virt, s.phys, s.file, s.memory].iter().for_each(|&value| bytes.extend(word(value)));
        if !wide {
            bytes.extend(5u32.to_le_bytes());
        }
        bytes.extend(word(0x1000));
        put(HEADERS + n * usize::from(each), &bytes);
    }
    let header: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
    put(MULTIBOOT, &header);
    file
}

/// A Multiboot2 header with these tags (kind, flags, data), and the end tag.
fn header_2(tags: &[(u16, u16, &[u32])]) -> Vec<u32> {
    let mut words = vec![0xe852_50d6, 0, 0, 0];
    for (kind, flags, data) in tags.iter().chain(&[(0, 0, [].as_slice())]) {
        words.extend([u32::from(*kind) | u32::from(*flags) << 16, 8 + 4 * data.len() as u32]);
        words.extend_from_slice(data);
        words.resize(words.len().next_multiple_of(2), 0);
    }
    let length = words.len() as u32 * 4;
    words[2] = length;
    words[3] = 0u32.wrapping_sub(0xe852_50d6u32.wrapping_add(length));
    words
}

fn header_1(flags: u32) -> Vec<u32> {
    vec![0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002u32.wrapping_add(flags))]
}

/// A kernel like those in tests/guests.
fn simple() -> Vec<u8> {
    elf(true, 62, 0x20_0020, &[FIRST], &header_2(&[]))
}

fn refused(image: &[u8]) -> LoadError {
    let mut memory = memory(4);
    start(&mut Ram::new(&mut memory), alone(image)).expect_err("a refusal")
}

/// The information's tags: type and contents.
fn tags(ram: &Ram<'_>, at: u64) -> Vec<(u32, Vec<u8>)> {
    assert_eq!(at % 8, 0);
    let total = u64::from(ram.read_u32(at).expect("a size"));
    let (mut tags, mut next) = (Vec::new(), 8);
    loop {
        let (kind, size) =
            (ram.read_u32(at + next).expect("type"), ram.read_u32(at + next + 4).expect("size"));
        let body = ram.slice(at + next + 8, size as usize - 8).expect("contents");
        tags.push((kind, body.to_vec()));
        next += u64::from(size).next_multiple_of(8);
        if kind == 0 {
            assert_eq!(next, total, "the end tag is the end");
            return tags;
        }
    }
}

#[test]
fn a_multiboot2_kernel_finds_what_the_specification_says() {
    let modules = [Module { bytes: &[7; 5000], string: "one two" }, Module { bytes: &[9; 10], string: "" }];
    for (wide, machine) in [(true, 62), (false, 3), (false, 62)] {
        let image =
            elf(wide, machine, 0x20_0020, &[FIRST], &header_2(&[(1, 0, &[1, 3, 4, 6, 15]), (6, 0, &[])]));
        let mut memory = memory(8);
        let mut ram = Ram::new(&mut memory);
        let kernel = Kernel { command_line: "seed=1", modules: &modules, ..alone(&image) };
        let started = start(&mut ram, kernel);
        let Ok(Start::Protected { entry, eax, ebx, segments, .. }) = started else { panic!("{started:?}") };
        assert_eq!((entry, eax), (0x20_0020, 0x36d7_6289));
        check_segments(&ram, segments, false);
        assert_eq!(ram.slice(0x20_0000, 0x600), Ok(&image[CONTENTS..]));
        assert_eq!(ram.slice(0x20_0600, 0x1000), Ok([0; 0x1000].as_slice()), "zeros behind the contents");
        let tags = tags(&ram, ebx.into());
        let find =
            |kind| tags.iter().filter(|tag| tag.0 == kind).map(|tag| tag.1.as_slice()).collect::<Vec<_>>();
        assert_eq!(find(1), [b"seed=1\0"]);
        assert_eq!(find(2), [b"Lockstep\0"]);
        let number =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let places: Vec<_> =
            find(3).iter().map(|tag| (number(tag, 0), number(tag, 4), tag[8..].to_vec())).collect();
        let expected =
            [(0x20_2000, 0x20_3388, b"one two\0".to_vec()), (0x20_4000, 0x20_400a, b"\0".to_vec())];
        assert_eq!(places, expected);
        assert_eq!(ram.slice(0x20_2000, 5000), Ok([7; 5000].as_slice()));
        assert_eq!((number(find(4)[0], 0), number(find(4)[0], 4)), (639, 7 * 1024));
        let map = find(6)[0];
        assert_eq!((number(map, 0), number(map, 4), (map.len() - 8) % 24), (24, 0, 0));
        assert_eq!(map[8..24], [0u64.to_le_bytes(), 0x9_fc00u64.to_le_bytes()].concat());
        assert_eq!((&find(14)[0][..8], find(14)[0].len()), (b"RSD PTR ".as_slice(), 20));
        assert_eq!((&find(15)[0][..8], find(15)[0].len()), (b"RSD PTR ".as_slice(), 36));
    }
}

#[test]
fn a_multiboot1_kernel_finds_its_own() {
    let modules = [Module { bytes: &[7; 5000], string: "one" }];
    let image = elf(false, 3, 0x20_0020, &[FIRST], &header_1(3));
    let mut memory = memory(8);
    let mut ram = Ram::new(&mut memory);
    let started = start(&mut ram, Kernel { command_line: "quiet", modules: &modules, ..alone(&image) });
    let Ok(Start::Protected { entry: 0x20_0020, eax: 0x2bad_b002, ebx, .. }) = started else {
        panic!("{started:?}")
    };
    let field = |at: u64| ram.read_u32(u64::from(ebx) + at).expect("a field");
    let text = |at: u32| {
        let bytes = ram.slice(at.into(), 64).expect("text");
        String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().expect("a part")).to_string()
    };
    assert_eq!((field(0), field(4), field(8)), (0b10_0100_1101, 639, 7 * 1024));
    assert_eq!((text(field(16)).as_str(), text(field(64)).as_str()), ("quiet", "Lockstep"));
    assert_eq!(field(20), 1);
    let module = ram.slice(field(24).into(), 16).expect("the list");
    assert_eq!(module[..8], [0x20_2000u32.to_le_bytes(), 0x20_3388u32.to_le_bytes()].concat());
    assert_eq!(text(u32::from_le_bytes(module[8..12].try_into().expect("4 bytes"))), "one");
    let (length, map) = (field(44), field(48));
    assert_eq!((length, ram.read_u32(map.into())), (4 * 24, Ok(20)));
    assert_eq!(ram.read_u64(u64::from(map) + 12), Ok(0x9_fc00), "the first range's length");
}

#[test]
fn the_entry_point_is_physical_or_the_headers_own() {
    let high = Segment { virt: 0xffff_ffff_8020_0000, ..FIRST };
    let mut memory = memory(4);
    let mut ram = Ram::new(&mut memory);
    let image = elf(true, 62, 0xffff_ffff_8020_0123, &[high], &header_2(&[]));
    let started = start(&mut ram, alone(&image));
    assert!(matches!(started, Ok(Start::Protected { entry: 0x20_0123, .. })), "{started:?}");
    let image = elf(true, 62, 0xffff_ffff_8020_0123, &[high], &header_2(&[(3, 0, &[0x20_0444])]));
    let started = start(&mut ram, alone(&image));
    assert!(matches!(started, Ok(Start::Protected { entry: 0x20_0444, .. })), "{started:?}");
}

#[test]
fn each_refusal_has_its_name() {
    use LoadError::{Elf, Multiboot};
    let good = header_2(&[]);
    let with = |segment: Segment| refused(&elf(true, 62, 0x20_0020, &[segment], &good));
    assert_eq!(refused(&elf(true, 183, 0x20_0020, &[FIRST], &good)), Elf(ElfError::Machine(183)));
    assert_eq!(refused(&elf(true, 62, 0x30_0000, &[FIRST], &good)), Elf(ElfError::Entry(0x30_0000)));
    assert_eq!(refused(&elf(true, 62, 0x20_0020, &[], &good)), Elf(ElfError::Empty));
    assert_eq!(refused(&elf(true, 62, 0x20_0020, &[FIRST; 17], &good)), Elf(ElfError::TooManySegments));
    assert_eq!(with(Segment { phys: 0x8_0000, ..FIRST }), Elf(ElfError::Place(0x8_0000)));
    assert_eq!(with(Segment { phys: 0x3f_f000, ..FIRST }), Elf(ElfError::Place(0x3f_f000)));
    assert_eq!(with(Segment { memory: u64::MAX, ..FIRST }), Elf(ElfError::Place(0x20_0000)));
    assert_eq!(with(Segment { file: 0x601, ..FIRST }), Elf(ElfError::Contents(0x20_0000)));
    assert_eq!(with(Segment { memory: 0x100, ..FIRST }), Elf(ElfError::Contents(0x20_0000)));
    let mut relocatable = simple();
    relocatable[16] = 3;
    assert_eq!(refused(&relocatable), Elf(ElfError::Type(3)));
    assert_eq!(refused(&simple()[..0x50]), Multiboot(MultibootError::NoHeader));
    let header = |words: &[u32]| refused(&elf(true, 62, 0x20_0020, &[FIRST], words));
    assert_eq!(header(&[]), Multiboot(MultibootError::NoHeader));
    assert_eq!(header(&header_2(&[(2, 0, &[0; 4])])), Multiboot(MultibootError::Tag(2)));
    assert_eq!(header(&header_2(&[(1, 0, &[1, 8])])), Multiboot(MultibootError::Information(8)));
    assert_eq!(header(&header_1(4)), Multiboot(MultibootError::Flags(4)));
    let mut other = good.clone();
    (other[1], other[3]) = (4, other[3].wrapping_sub(4));
    assert_eq!(header(&other), Multiboot(MultibootError::Architecture(4)));
    let mut short = good.clone();
    short[5] = 7;
    assert_eq!(header(&short), Multiboot(MultibootError::Malformed));
    let mut memory = memory(4);
    let mut ram = Ram::new(&mut memory);
    let image = simple();
    let kernel = Kernel { initrd: Some(b"cpio"), ..alone(&image) };
    assert_eq!(start(&mut ram, kernel), Err(Multiboot(MultibootError::Initrd)));
    let large = vec![0; 2 << 20];
    let modules = [Module { bytes: b"m", string: "" }, Module { bytes: &large, string: "" }];
    let kernel = Kernel { modules: &modules, ..alone(&image) };
    assert_eq!(start(&mut ram, kernel), Err(Multiboot(MultibootError::NoRoom(1))));
    let string = "x".repeat((low::END - low::INFORMATION) as usize);
    let kernel = Kernel { command_line: &string, ..alone(&image) };
    assert!(matches!(start(&mut ram, kernel), Err(Multiboot(MultibootError::TooMuch(_)))));
    // What a header merely asks for is not refused.
    let optional = header_2(&[(2, 1, &[0; 4]), (1, 1, &[8]), (5, 1, &[1024, 768, 32])]);
    assert!(start(&mut ram, alone(&elf(true, 62, 0x20_0020, &[FIRST], &optional))).is_ok());
}

proptest! {
    #[test]
    fn any_damage_is_answered(
        damage in proptest::collection::vec((0usize..CONTENTS, any::<u8>()), 0..10),
        length in 0usize..CONTENTS + 0x600,
        wide: bool,
        second: bool,
    ) {
        let header = if second { header_2(&[(1, 0, &[1, 3]), (6, 0, &[])]) } else { header_1(3) };
        let mut image = elf(wide, 62, 0x20_0020, &[FIRST, FIRST], &header);
        damage.iter().for_each(|&(at, byte)| image[at] = byte);
        // One in two is whole.
        image.truncate(length * 2);
        let mut memory = memory(4);
        if let Err(error) = start(&mut Ram::new(&mut memory), alone(&image)) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
