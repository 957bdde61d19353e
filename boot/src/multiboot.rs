//! The Multiboot2 boot information, read from a byte slice.
//!
//! Source: Multiboot2 specification 2.0, section 3.6. Nothing here trusts the bytes: each length is checked against
//! what holds it, and the result borrows from the slice. Tags this kernel does not use are skipped.

use core::fmt;
use heapless::Vec;

/// EAX at entry.
pub const MAGIC: u32 = 0x36D7_6289;

/// Modules accepted at most. More is an error: a module that is ignored in silence would be a riddle.
pub const MAX_MODULES: usize = 32;

/// Most bytes a boot information may say it has (GRUB's are a few KiB; the largest part is the EFI memory map).
pub const MAX_BYTES: u32 = 1 << 20;

/// What is wrong with the boot information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The header's total size is below its own 8 bytes, above [`MAX_BYTES`], or more than the bytes given.
    TotalSize(u32),
    /// The tag at this byte offset says a size that does not fit.
    TagSize {
        /// Tag type.
        tag: u32,
        /// Offset of the tag in bytes.
        offset: usize,
    },
    /// The bytes end without an end tag.
    NoEndTag,
    /// The tag of this type holds a string that is not NUL-terminated UTF-8.
    BadString {
        /// Tag type.
        tag: u32,
    },
    /// A module ends before it starts.
    BadModule {
        /// Number of the module, from 0.
        index: usize,
    },
    /// More than [`MAX_MODULES`] modules.
    TooManyModules,
    /// An entry size that cannot hold an entry (memory map, EFI memory map, ELF sections).
    EntrySize {
        /// Tag type.
        tag: u32,
        /// The size said, in bytes.
        size: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TotalSize(size) => write!(f, "boot information says it has {size} bytes"),
            Error::TagSize { tag, offset } => {
                write!(f, "tag {tag} at byte {offset} has a size that does not fit")
            }
            Error::NoEndTag => f.write_str("boot information has no end tag"),
            Error::BadString { tag } => {
                write!(f, "tag {tag} holds a string that is not NUL-terminated UTF-8")
            }
            Error::BadModule { index } => write!(f, "module {index} ends before it starts"),
            Error::TooManyModules => write!(f, "more than {MAX_MODULES} modules; load fewer"),
            Error::EntrySize { tag, size } => write!(f, "tag {tag} has entries of {size} bytes"),
        }
    }
}

/// A module as the loader laid it into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Physical address of the first byte.
    pub start: u64,
    /// Physical address after the last byte.
    pub end: u64,
    /// The words after the file name in the loader's configuration.
    pub string: &'a str,
}

/// What a range of the firmware's memory map is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Free to use.
    Usable,
    /// ACPI tables; could be used after reading them, and is not.
    AcpiReclaimable,
    /// Everything else: never touched unless a table points there.
    Reserved,
}

/// One entry of the firmware's memory map, as it is: unchecked, unsorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Physical address of the first byte.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Purpose.
    pub kind: MemoryKind,
}

/// How a pixel's colour is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Direct colour: (position, bits) of red, green, blue.
    Rgb([(u8, u8); 3]),
    /// A VGA text screen: two bytes a character.
    Text,
    /// A palette; not used by this kernel.
    Indexed,
}

/// The screen the loader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address of the first pixel.
    pub address: u64,
    /// Bytes from line to line.
    pub pitch: u32,
    /// Width in pixels (characters for text).
    pub width: u32,
    /// Height in pixels (characters for text).
    pub height: u32,
    /// Bits of a pixel.
    pub bits: u8,
    /// Meaning of the bits.
    pub pixels: Pixels,
}

impl Framebuffer {
    /// The VGA text screen as a BIOS leaves it: 80 by 25 characters.
    pub const VGA_TEXT: Framebuffer =
        Framebuffer { address: 0xB_8000, pitch: 160, width: 80, height: 25, bits: 16, pixels: Pixels::Text };
}

/// The kernel's own section headers, with the addresses at which the loader put the sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSections<'a> {
    bytes: &'a [u8],
    entry: usize,
}

/// One section of [`ElfSections`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSection {
    /// `sh_type`: 2 = symbol table, 3 = string table.
    pub kind: u32,
    /// `sh_addr`: physical address (0 = not loaded).
    pub address: u64,
    /// `sh_size` in bytes.
    pub size: u64,
    /// `sh_link`: index of the linked section.
    pub link: u32,
}

impl<'a> ElfSections<'a> {
    /// The sections in order of their index.
    pub fn iter(&self) -> impl Iterator<Item = ElfSection> + 'a {
        self.bytes.chunks_exact(self.entry).map(|e| ElfSection {
            kind: u32_at(e, 4).unwrap_or(0),
            address: u64_at(e, 16).unwrap_or(0),
            size: u64_at(e, 32).unwrap_or(0),
            link: u32_at(e, 40).unwrap_or(0),
        })
    }
}

/// The boot information, checked.
#[derive(Clone, Debug, Default)]
pub struct BootInfo<'a> {
    /// The whole information.
    pub bytes: &'a [u8],
    /// The kernel's command line, without the file name.
    pub command_line: &'a str,
    /// Name of the loader.
    pub loader: &'a str,
    /// Modules in the loader's order.
    pub modules: Vec<Module<'a>, MAX_MODULES>,
    /// A copy of the ACPI root pointer, of revision 2 where there is one.
    pub rsdp: Option<&'a [u8]>,
    /// The screen.
    pub framebuffer: Option<Framebuffer>,
    /// The kernel's sections, for its symbol table.
    pub sections: Option<ElfSections<'a>>,
    /// Physical address of the EFI system table: the machine was started by UEFI.
    pub efi_system_table: Option<u64>,
    /// The loader has not left the EFI boot services (it should: this kernel does not ask for them).
    pub efi_boot_services_on: bool,
    memory: Option<Table<'a>>,
    efi_memory: Option<Table<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    bytes: &'a [u8],
    entry: usize,
}

impl<'a> BootInfo<'a> {
    /// Reads the boot information that starts with `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let size = u32_at(bytes, 0).ok_or(Error::TotalSize(0))?;
        let all = bytes.get(..size as usize).filter(|b| b.len() >= 8 && size <= MAX_BYTES);
        let all = all.ok_or(Error::TotalSize(size))?;
        let mut info = BootInfo { bytes: all, ..Default::default() };
        let mut offset = 8;
        loop {
            let (Some(tag), Some(len)) = (u32_at(all, offset), u32_at(all, offset + 4)) else {
                return Err(Error::NoEndTag);
            };
            let body = offset.checked_add(len as usize).and_then(|end| all.get(offset + 8..end));
            let body = body.ok_or(Error::TagSize { tag, offset })?;
            if tag == 0 {
                return Ok(info);
            }
            info.take(tag, body, offset)?;
            offset = (offset + len as usize).next_multiple_of(8);
        }
    }

    fn take(&mut self, tag: u32, body: &'a [u8], offset: usize) -> Result<(), Error> {
        let short = Error::TagSize { tag, offset };
        match tag {
            1 => self.command_line = string(body).ok_or(Error::BadString { tag })?,
            2 => self.loader = string(body).ok_or(Error::BadString { tag })?,
            3 => self.take_module(body, short)?,
            6 => {
                let entry = u32_at(body, 0).ok_or(short)?;
                self.memory = Some(table(tag, entry, 24, body.get(8..).ok_or(short)?)?);
            }
            8 => self.framebuffer = Some(framebuffer(body).ok_or(short)?),
            9 => {
                let entry = u32_at(body, 4).ok_or(short)?;
                let t = table(tag, entry, 64, body.get(12..).ok_or(short)?)?;
                self.sections = Some(ElfSections { bytes: t.bytes, entry: t.entry });
            }
            12 => self.efi_system_table = Some(u64_at(body, 0).ok_or(short)?),
            14 if self.rsdp.is_none() => self.rsdp = Some(body),
            15 => self.rsdp = Some(body),
            17 => {
                let entry = u32_at(body, 0).ok_or(short)?;
                self.efi_memory = Some(table(tag, entry, 40, body.get(8..).ok_or(short)?)?);
            }
            18 => self.efi_boot_services_on = true,
            _ => {}
        }
        Ok(())
    }

    fn take_module(&mut self, body: &'a [u8], short: Error) -> Result<(), Error> {
        let (start, end) = (u32_at(body, 0).ok_or(short)?, u32_at(body, 4).ok_or(short)?);
        let index = self.modules.len();
        if end < start {
            return Err(Error::BadModule { index });
        }
        let string = string(body.get(8..).ok_or(short)?).ok_or(Error::BadString { tag: 3 })?;
        let module = Module { start: start.into(), end: end.into(), string };
        self.modules.push(module).map_err(|_| Error::TooManyModules)
    }

    /// The firmware's memory map as the loader passes it on (tag 6).
    pub fn memory(&self) -> impl Iterator<Item = MemoryEntry> + Clone + 'a {
        self.memory.into_iter().flat_map(|t| t.bytes.chunks_exact(t.entry)).map(|e| MemoryEntry {
            base: u64_at(e, 0).unwrap_or(0),
            length: u64_at(e, 8).unwrap_or(0),
            kind: match u32_at(e, 16) {
                Some(1) => MemoryKind::Usable,
                Some(3) => MemoryKind::AcpiReclaimable,
                _ => MemoryKind::Reserved,
            },
        })
    }

    /// The memory map to use: the loader's form of it, or EFI's own where there is no other. Where both are there, what
    /// EFI keeps for itself is taken out as well.
    pub fn firmware_map(&self) -> impl Iterator<Item = MemoryEntry> + Clone + 'a {
        let plain = self.memory().next().is_some();
        let efi = self.efi_memory().filter(move |e| !plain || e.kind != MemoryKind::Usable);
        self.memory().chain(efi)
    }

    /// Where the loader has put the kernel's symbol table and its strings: (address, bytes) of each.
    pub fn symbol_table(&self) -> Option<[(u64, u64); 2]> {
        const SYMBOL_TABLE: u32 = 2;
        let sections = self.sections?;
        let table = sections.iter().find(|s| s.kind == SYMBOL_TABLE && s.address != 0)?;
        let strings = sections.iter().nth(table.link as usize).filter(|s| s.address != 0)?;
        Some([(table.address, table.size), (strings.address, strings.size)])
    }

    /// The EFI memory map (tag 17), for loaders that pass no other. UEFI specification 2.10, section 7.2.3: loader
    /// and boot service memory is free once the boot services have ended.
    pub fn efi_memory(&self) -> impl Iterator<Item = MemoryEntry> + Clone + 'a {
        self.efi_memory.into_iter().flat_map(|t| t.bytes.chunks_exact(t.entry)).map(|e| MemoryEntry {
            base: u64_at(e, 8).unwrap_or(0),
            length: u64_at(e, 24).unwrap_or(0).saturating_mul(4096),
            kind: match u32_at(e, 0) {
                Some(1..=4 | 7) => MemoryKind::Usable,
                Some(9) => MemoryKind::AcpiReclaimable,
                _ => MemoryKind::Reserved,
            },
        })
    }
}

fn table(tag: u32, entry: u32, least: u32, bytes: &[u8]) -> Result<Table<'_>, Error> {
    // GRUB passes an empty ELF section table with entry size 0 when the kernel is stripped.
    if entry < least && !bytes.is_empty() {
        return Err(Error::EntrySize { tag, size: entry });
    }
    Ok(Table { bytes, entry: entry.max(least) as usize })
}

fn framebuffer(body: &[u8]) -> Option<Framebuffer> {
    let pixels = match body.get(21)? {
        1 => {
            let c = body.get(24..30)?;
            Pixels::Rgb([(c[0], c[1]), (c[2], c[3]), (c[4], c[5])])
        }
        2 => Pixels::Text,
        _ => Pixels::Indexed,
    };
    Some(Framebuffer {
        address: u64_at(body, 0)?,
        pitch: u32_at(body, 8)?,
        width: u32_at(body, 12)?,
        height: u32_at(body, 16)?,
        bits: *body.get(20)?,
        pixels,
    })
}

fn string(body: &[u8]) -> Option<&str> {
    core::ffi::CStr::from_bytes_until_nul(body).ok()?.to_str().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec as StdVec;

    fn tag(kind: u32, body: &[u8]) -> StdVec<u8> {
        let mut t = StdVec::new();
        t.extend(kind.to_le_bytes());
        t.extend((8 + body.len() as u32).to_le_bytes());
        t.extend(body);
        t.resize(t.len().next_multiple_of(8), 0xAA);
        t
    }

    fn info(tags: &[StdVec<u8>]) -> StdVec<u8> {
        let mut all = vec![0; 8];
        tags.iter().for_each(|t| all.extend(t));
        all.extend(tag(0, &[]));
        let size = all.len() as u32;
        all[0..4].copy_from_slice(&size.to_le_bytes());
        all
    }

    fn words(words: &[u32]) -> StdVec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn module(start: u32, end: u32, string: &str) -> StdVec<u8> {
        let mut body = words(&[start, end]);
        body.extend(string.as_bytes());
        body.push(0);
        tag(3, &body)
    }

    #[test]
    fn everything_a_loader_says_is_read() {
        let mut map = words(&[24, 0]);
        map.extend(words(&[0, 0, 0x9FC00, 0, 1, 0]));
        map.extend(words(&[0x7FE0_0000, 0, 0x1_0000, 0, 3, 0]));
        map.extend(words(&[0, 1, 0, 2, 7, 0]));
        let mut efi = words(&[48, 1]);
        for (kind, base, pages) in
            [(7u32, 0x10_0000u32, 16u32), (3, 0x20_0000, 1), (9, 0x30_0000, 1), (6, 0x40_0000, 1)]
        {
            efi.extend(words(&[kind, 0, base, 0, 0, 0, pages, 0, 0xF, 0, 0, 0]));
        }
        let mut screen = words(&[0xE000_0000, 0, 4096, 1024, 768]);
        screen.extend([32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
        let bytes = info(&[
            tag(1, b"log=debug seed=1\0"),
            tag(2, b"GRUB 2.06\0"),
            module(0x30_0000, 0x30_0010, "config"),
            module(0x1_0000, 0x1_0000, ""),
            tag(6, &map),
            tag(8, &screen),
            tag(12, &words(&[0x7F00_0000, 0])),
            tag(15, b"RSD PTR rev2"),
            tag(14, b"RSD PTR rev0"),
            tag(17, &efi),
            tag(0x7777, b"of the future"),
        ]);
        let i = BootInfo::parse(&bytes).unwrap();
        assert_eq!((i.command_line, i.loader, i.bytes.len()), ("log=debug seed=1", "GRUB 2.06", bytes.len()));
        assert_eq!(i.modules[0], Module { start: 0x30_0000, end: 0x30_0010, string: "config" });
        assert_eq!(i.modules.len(), 2);
        assert_eq!(i.rsdp, Some(&b"RSD PTR rev2"[..]), "revision 2 wins in either order");
        assert_eq!(i.efi_system_table, Some(0x7F00_0000));
        let f = i.framebuffer.unwrap();
        assert_eq!((f.address, f.pitch, f.width, f.height, f.bits), (0xE000_0000, 4096, 1024, 768, 32));
        assert_eq!(f.pixels, Pixels::Rgb([(16, 8), (8, 8), (0, 8)]));
        let kinds: StdVec<_> = i.memory().map(|e| (e.base, e.length, e.kind)).collect();
        assert_eq!(kinds[0], (0, 0x9FC00, MemoryKind::Usable));
        assert_eq!(kinds[1], (0x7FE0_0000, 0x1_0000, MemoryKind::AcpiReclaimable));
        assert_eq!(kinds[2], (1 << 32, 2 << 32, MemoryKind::Reserved));
        let efi: StdVec<_> = i.efi_memory().map(|e| (e.base, e.length, e.kind)).collect();
        assert_eq!(efi[0], (0x10_0000, 0x1_0000, MemoryKind::Usable));
        assert_eq!(efi[1].2, MemoryKind::Usable, "boot service data is free");
        assert_eq!(efi[2].2, MemoryKind::AcpiReclaimable);
        assert_eq!(efi[3].2, MemoryKind::Reserved, "runtime service data is not");
    }

    fn plain_map(entries: &[(u32, u32, u32)]) -> StdVec<u8> {
        let mut map = words(&[24, 0]);
        entries.iter().for_each(|(base, length, kind)| map.extend(words(&[*base, 0, *length, 0, *kind, 0])));
        tag(6, &map)
    }

    fn efi_map(entries: &[(u32, u32, u32)]) -> StdVec<u8> {
        let mut map = words(&[48, 1]);
        for (base, pages, kind) in entries {
            map.extend(words(&[*kind, 0, *base, 0, 0, 0, *pages, 0, 0xF, 0, 0, 0]));
        }
        tag(17, &map)
    }

    #[test]
    fn the_efi_map_serves_alone_and_forbids_beside_another() {
        let bases = |bytes: &[u8]| -> StdVec<_> {
            BootInfo::parse(bytes).unwrap().firmware_map().map(|e| (e.base, e.kind)).collect()
        };
        use MemoryKind::{Reserved, Usable};
        let efi = efi_map(&[(0x10_0000, 16, 7), (0x20_0000, 1, 6)]);
        assert_eq!(bases(&info(std::slice::from_ref(&efi))), [(0x10_0000, Usable), (0x20_0000, Reserved)]);
        let plain = plain_map(&[(0x10_0000, 0x20_0000, 1)]);
        assert_eq!(bases(&info(&[efi.clone(), plain])), [(0x10_0000, Usable), (0x20_0000, Reserved)]);
        assert_eq!(bases(&info(&[plain_map(&[]), efi])).len(), 2, "an empty map is none");
        assert!(bases(&info(&[])).is_empty());
    }

    #[test]
    fn the_symbol_table_is_found_with_its_strings() {
        let section = |kind: u32, address: u32, size: u32, link: u32| {
            let mut s = words(&[0, kind, 0, 0, address, 0, 0, 0, size, 0, link, 0]);
            s.resize(64, 0);
            s
        };
        let find = |sections: &[StdVec<u8>]| {
            let body = [words(&[sections.len() as u32, 64, 0]), sections.concat()].concat();
            BootInfo::parse(&info(&[tag(9, &body)])).unwrap().symbol_table()
        };
        let (null, text, strings) =
            (section(0, 0, 0, 0), section(1, 0x20_0000, 64, 0), section(3, 0x6000, 50, 0));
        let symbols = |link| section(2, 0x5000, 48, link);
        let want = Some([(0x5000, 48), (0x6000, 50)]);
        assert_eq!(find(&[null.clone(), text.clone(), symbols(3), strings]), want);
        assert_eq!(find(&[null.clone(), symbols(2)]), None, "linked to nothing");
        assert_eq!(find(&[null.clone(), symbols(0)]), None, "linked to a section that is not loaded");
        assert_eq!(find(&[null, text]), None, "stripped");
    }

    #[test]
    fn sections_of_the_kernel_are_read() {
        let mut body = words(&[2, 64, 1]);
        body.extend(vec![0; 64]);
        let mut s = words(&[9, 2, 0, 0, 0x50_0000, 0, 0x1000, 0, 0x480, 0, 5, 1]);
        s.resize(64, 0);
        body.extend(&s);
        let bytes = info(&[tag(9, &body)]);
        let i = BootInfo::parse(&bytes).unwrap();
        let sections: StdVec<_> = i.sections.unwrap().iter().collect();
        assert_eq!(sections[1], ElfSection { kind: 2, address: 0x50_0000, size: 0x480, link: 5 });
        assert_eq!(sections.len(), 2);
        // A stripped kernel: no sections, entry size 0.
        let bytes = info(&[tag(9, &words(&[0, 0, 0]))]);
        assert_eq!(BootInfo::parse(&bytes).unwrap().sections.unwrap().iter().count(), 0);
    }

    #[test]
    fn hostile_bytes_are_named() {
        let parse = |b: &[u8]| BootInfo::parse(b).map(|_| ()).unwrap_err();
        assert_eq!(parse(&[]), Error::TotalSize(0));
        assert_eq!(parse(&words(&[7, 0])), Error::TotalSize(7));
        assert_eq!(parse(&words(&[100, 0])), Error::TotalSize(100));
        assert_eq!(parse(&words(&[8, 0])), Error::NoEndTag);
        assert_eq!(parse(&words(&[12, 0, 0])), Error::NoEndTag);
        assert_eq!(parse(&words(&[16, 0, 1, 7])), Error::TagSize { tag: 1, offset: 8 });
        assert_eq!(parse(&words(&[16, 0, 1, 9])), Error::TagSize { tag: 1, offset: 8 });
        assert_eq!(parse(&words(&[16, 0, 1, u32::MAX])), Error::TagSize { tag: 1, offset: 8 });
        assert_eq!(parse(&info(&[tag(1, b"no end")])), Error::BadString { tag: 1 });
        assert_eq!(parse(&info(&[tag(1, b"\xFF\0")])), Error::BadString { tag: 1 });
        assert_eq!(parse(&info(&[module(0, 1, "a"), module(9, 8, "b")])), Error::BadModule { index: 1 });
        assert_eq!(parse(&info(&vec![module(0, 1, "a"); MAX_MODULES + 1])), Error::TooManyModules);
        assert_eq!(parse(&info(&[tag(6, &words(&[23, 0, 1]))])), Error::EntrySize { tag: 6, size: 23 });
        assert_eq!(parse(&info(&[tag(6, &words(&[0, 0, 1]))])), Error::EntrySize { tag: 6, size: 0 });
        assert_eq!(parse(&info(&[tag(8, &[0; 20])])), Error::TagSize { tag: 8, offset: 8 });
        let huge = MAX_BYTES + 8;
        let mut bytes = vec![0; huge as usize];
        bytes[0..4].copy_from_slice(&huge.to_le_bytes());
        assert_eq!(parse(&bytes), Error::TotalSize(huge));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes: StdVec<u8>) {
            let _ = BootInfo::parse(&bytes);
        }

        #[test]
        fn any_tags_are_borne(tags in proptest::collection::vec(
            (0u32..22, proptest::collection::vec(any::<u8>(), 0..120)), 0..12))
        {
            let bytes = info(&tags.iter().map(|(k, b)| tag(*k, b)).collect::<StdVec<_>>());
            if let Ok(i) = BootInfo::parse(&bytes) {
                let _ = (i.memory().count(), i.efi_memory().count(), i.sections.map(|s| s.iter().count()));
            }
        }

        #[test]
        fn one_changed_byte_is_borne(at: proptest::sample::Index, value: u8) {
            let mut bytes = info(&[tag(1, b"a b\0"), module(1, 2, "m"), tag(6, &words(&[24, 0, 0, 0, 9, 0, 1, 0]))]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(i) = BootInfo::parse(&bytes) {
                let _ = i.memory().count();
            }
        }
    }
}
