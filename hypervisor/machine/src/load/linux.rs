//! Linux's boot protocol on x86: a bzImage entered at its 64-bit or 32-bit entry point. Source:
//! `Documentation/arch/x86/boot.rst` and `zero-page.rst` of Linux. Offsets are those of `struct boot_params`; in the
//! file they are the same.

use core::fmt;

use super::bytes::{align_up, u16, u32, u64};
use super::map::{EXTENDED, low, memory_map};
use super::{Kernel, LoadError, Start, entry};
use crate::ram::Ram;

/// Bytes of `struct boot_params`.
const ZERO_PAGE_BYTES: usize = 4096;
const SECTOR: usize = 512;

/// Fields of `struct boot_params` outside the header.
const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;

/// Fields of the setup header.
const HEADER: usize = 0x1f1;
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP_LENGTH: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const VID_MODE: usize = 0x1fa;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const SETUP_DATA: usize = 0x250;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// The header ends at most here: what follows in `struct boot_params` is not the file's.
const HEADER_END: usize = 0x290;

/// The last version that lacks something: 2.00 has no `cmd_line_ptr` to rely on, 2.02 does.
const OLDEST: u16 = 0x0202;
/// From this version on there is `initrd_addr_max`.
const WITH_INITRD_MAX: u16 = 0x0203;
/// From this version on there are `kernel_alignment` and `relocatable_kernel`.
const WITH_RELOCATABLE: u16 = 0x0205;
/// From this version on there is `cmdline_size`.
const WITH_CMDLINE_SIZE: u16 = 0x0206;
/// From this version on there is `setup_data`.
const WITH_SETUP_DATA: u16 = 0x0209;
/// From this version on there are `pref_address` and `init_size`.
const WITH_INIT_SIZE: u16 = 0x020a;
/// From this version on there are `xloadflags`.
const WITH_XLOADFLAGS: u16 = 0x020c;

/// `loadflags`: the kernel is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `loadflags` that the loader clears: KASLR_FLAG is the decompressor's, CAN_USE_HEAP the real-mode code's.
const NOT_OURS: u8 = 1 << 1 | 1 << 7;
/// `xloadflags`: there is a 64-bit entry point at 200h.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// `type_of_loader`: none of the registered ones.
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode`: normal.
const VIDEO_NORMAL: u16 = 0xffff;
/// `setup_data` of type SETUP_RNG_SEED.
const SETUP_RNG_SEED: u32 = 9;

/// The initial RAM disk begins at a multiple of this.
const INITRD_ALIGNMENT: u64 = 4096;
/// Without `initrd_addr_max` it ends here.
const INITRD_MAX: u64 = 0x37ff_ffff;
/// Without `cmdline_size` the command line has so many bytes.
const CMDLINE_MAX: u32 = 255;
/// Without `init_size` a kernel is taken to need so many times its size: to unpack itself, tables, BSS.
const UNPACKED: u64 = 5;

/// Why a bzImage cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinuxError {
    /// The file ends before the kernel begins.
    Truncated,
    /// A boot protocol from before 2.02.
    TooOld(u16),
    /// A zImage, which is loaded below 640 KiB.
    NotHigh,
    /// `kernel_alignment` is no power of two, or 0.
    Alignment(u32),
    /// `pref_address` lies below 1 MiB.
    PreferredAddress(u64),
    /// The kernel does not fit into memory below the hole for devices.
    NoRoom {
        /// Bytes that it needs, from `at` on.
        need: u64,
        /// Where it is to be loaded.
        at: u64,
    },
    /// The initial RAM disk does not fit between the kernel and the highest address that the kernel allows.
    NoRoomForInitrd {
        /// Its bytes.
        need: u64,
        /// Bytes that there are.
        have: u64,
    },
    /// The command line is longer than the kernel reads.
    CommandLine {
        /// Its bytes.
        length: usize,
        /// Bytes that the kernel reads.
        most: u32,
    },
    /// Modules are for Multiboot kernels.
    Modules,
}

impl fmt::Display for LinuxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the file is cut off"),
            Self::TooOld(version) => {
                write!(
                    f,
                    "its boot protocol is {}.{:02}, which is older than 2.02",
                    version >> 8,
                    version & 0xff
                )
            }
            Self::NotHigh => {
                f.write_str("it is a zImage, which is loaded low; only a bzImage can be started")
            }
            Self::Alignment(value) => write!(f, "its alignment is {value:#x}, which is no power of two"),
            Self::PreferredAddress(at) => write!(f, "it wants to lie at {at:#x}, below 1 MiB"),
            Self::NoRoom { need, at } => {
                write!(
                    f,
                    "it needs {} KiB of memory from {at:#x} on; give the guest more",
                    need.div_ceil(1024)
                )
            }
            Self::NoRoomForInitrd { need, have } => write!(
                f,
                "the initrd has {} KiB, and beside the kernel there are {} KiB for it; give the guest more memory",
                need.div_ceil(1024),
                have / 1024
            ),
            Self::CommandLine { length, most } => {
                write!(f, "the command line has {length} bytes, and the kernel reads only {most}")
            }
            Self::Modules => f.write_str("it takes no modules; these are for Multiboot kernels. Use initrd"),
        }
    }
}

/// Is this a bzImage or zImage?
pub fn is(image: &[u8]) -> bool {
    u16(image, BOOT_FLAG) == Some(0xaa55) && image.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// Puts the kernel and what it is given into memory.
///
/// # Errors
/// See [`LinuxError`].
pub fn load(ram: &mut Ram<'_>, kernel: &Kernel<'_>, rsdp: u64) -> Result<Start, LoadError> {
    let header = Header::parse(kernel.image).map_err(LoadError::Linux)?;
    if !kernel.modules.is_empty() {
        return Err(LoadError::Linux(LinuxError::Modules));
    }
    let end = ram.layout().low().end;
    let at = header.address(end).map_err(LoadError::Linux)?;
    ram.write(at, header.code)?;
    let mut page = header.boot_params();
    put_initrd(ram, kernel, &header, at + header.need(), &mut page)?;
    put_command_line(ram, kernel, &header, &mut page)?;
    put_seed(ram, kernel, &header, &mut page)?;
    put(&mut page, CODE32_START, &(at as u32).to_le_bytes());
    put(&mut page, ACPI_RSDP_ADDR, &rsdp.to_le_bytes());
    let map = memory_map(ram.layout());
    page[E820_ENTRIES] = map.len() as u8;
    for (at, entry) in (E820_TABLE..).step_by(20).zip(&map) {
        put(&mut page, at, &entry.e820());
    }
    ram.write(low::ZERO_PAGE, &page)?;
    let segments = entry::segments(ram, header.long)?;
    Ok(if header.long {
        let cr3 = entry::page_tables(ram)?;
        Start::LongMode { entry: at + ENTRY_64, rsi: low::ZERO_PAGE, rsp: low::STACK_TOP, cr3, segments }
    } else {
        let (esi, esp) = (low::ZERO_PAGE as u32, low::STACK_TOP as u32);
        Start::Protected { entry: at as u32, eax: 0, ebx: 0, esi, esp, segments }
    })
}

/// What the setup header says, checked.
struct Header<'k> {
    image: &'k [u8],
    /// The protected-mode kernel.
    code: &'k [u8],
    version: u16,
    /// There is a 64-bit entry point.
    long: bool,
    /// Bytes of `struct boot_params` that the file has a say in.
    end: usize,
}

impl<'k> Header<'k> {
    fn parse(image: &'k [u8]) -> Result<Self, LinuxError> {
        let version = u16(image, VERSION).ok_or(LinuxError::Truncated)?;
        if version < OLDEST {
            return Err(LinuxError::TooOld(version));
        }
        // The header's length is where the jump over it goes; it is never longer than its sector's rest and one more.
        let jump = image.get(JUMP_LENGTH).ok_or(LinuxError::Truncated)?;
        let end = (MAGIC + usize::from(*jump)).min(HEADER_END);
        // 0 stands for 4: boot.rst, "The Real-Mode Kernel Header".
        let sectors = match image.get(SETUP_SECTS) {
            Some(0) | None => 4,
            Some(&sectors) => usize::from(sectors),
        };
        let code = image.get((sectors + 1) * SECTOR..).filter(|code| !code.is_empty() && end <= image.len());
        let mut this = Self { image, code: code.ok_or(LinuxError::Truncated)?, version, long: false, end };
        if this.byte(LOADFLAGS) & LOADED_HIGH == 0 {
            return Err(LinuxError::NotHigh);
        }
        this.long = version >= WITH_XLOADFLAGS && this.word(XLOADFLAGS) & XLF_KERNEL_64 != 0;
        if this.long && this.code.len() as u64 <= ENTRY_64 {
            return Err(LinuxError::Truncated);
        }
        Ok(this)
    }

    /// A field's bytes, or zeros when the header is too short to have it.
    fn byte(&self, at: usize) -> u8 {
        self.image[..self.end].get(at).copied().unwrap_or(0)
    }

    fn word(&self, at: usize) -> u16 {
        u16(&self.image[..self.end], at).unwrap_or(0)
    }

    fn double(&self, at: usize) -> u32 {
        u32(&self.image[..self.end], at).unwrap_or(0)
    }

    /// Bytes that the kernel needs before it knows of memory.
    fn need(&self) -> u64 {
        let file = self.code.len() as u64;
        match self.version {
            WITH_INIT_SIZE.. => file.max(self.double(INIT_SIZE).into()),
            _ => file * UNPACKED,
        }
    }

    /// Where the kernel is to lie, with memory that ends at `end`.
    fn address(&self, end: u64) -> Result<u64, LinuxError> {
        let need = self.need();
        let fits = |at: u64| at.checked_add(need).is_some_and(|last| last <= end);
        let preferred = match self.version {
            WITH_INIT_SIZE.. => u64(&self.image[..self.end], PREF_ADDRESS).unwrap_or(EXTENDED),
            _ => EXTENDED,
        };
        if preferred < EXTENDED {
            return Err(LinuxError::PreferredAddress(preferred));
        }
        if fits(preferred) {
            return Ok(preferred);
        }
        if self.version < WITH_RELOCATABLE || self.byte(RELOCATABLE) == 0 {
            return Err(LinuxError::NoRoom { need, at: preferred });
        }
        let alignment = self.double(KERNEL_ALIGNMENT);
        if !alignment.is_power_of_two() {
            return Err(LinuxError::Alignment(alignment));
        }
        let lowest = align_up(EXTENDED, alignment.into()).unwrap_or(u64::MAX);
        if fits(lowest) { Ok(lowest) } else { Err(LinuxError::NoRoom { need, at: lowest }) }
    }

    /// The last address that the initial RAM disk may have.
    fn initrd_max(&self) -> u64 {
        if self.version >= WITH_INITRD_MAX { self.double(INITRD_ADDR_MAX).into() } else { INITRD_MAX }
    }

    /// Bytes of command line that the kernel reads, without the final zero.
    fn command_line_max(&self) -> u32 {
        if self.version >= WITH_CMDLINE_SIZE { self.double(CMDLINE_SIZE) } else { CMDLINE_MAX }
    }

    /// The zero page with the file's header and what is the same for every kernel.
    fn boot_params(&self) -> [u8; ZERO_PAGE_BYTES] {
        let mut page = [0; ZERO_PAGE_BYTES];
        page[HEADER..self.end].copy_from_slice(&self.image[HEADER..self.end]);
        page[TYPE_OF_LOADER] = LOADER_UNDEFINED;
        page[LOADFLAGS] &= !NOT_OURS;
        put(&mut page, VID_MODE, &VIDEO_NORMAL.to_le_bytes());
        page
    }
}

/// Writes a field.
fn put(page: &mut [u8; ZERO_PAGE_BYTES], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The initial RAM disk, as high as it may lie.
fn put_initrd(
    ram: &mut Ram<'_>,
    kernel: &Kernel<'_>,
    header: &Header<'_>,
    free: u64,
    page: &mut [u8; ZERO_PAGE_BYTES],
) -> Result<(), LoadError> {
    let initrd = kernel.initrd.unwrap_or_default();
    if initrd.is_empty() {
        put(page, RAMDISK_IMAGE, &[0; 8]);
        return Ok(());
    }
    let need = initrd.len() as u64;
    let last = ram.layout().low().end.min(header.initrd_max().saturating_add(1));
    let at = last.checked_sub(need).map(|at| at & !(INITRD_ALIGNMENT - 1)).filter(|&at| at >= free);
    let have = last.saturating_sub(free);
    let at = at.ok_or(LoadError::Linux(LinuxError::NoRoomForInitrd { need, have }))?;
    ram.write(at, initrd)?;
    put(page, RAMDISK_IMAGE, &(at as u32).to_le_bytes());
    put(page, RAMDISK_SIZE, &(need as u32).to_le_bytes());
    Ok(())
}

fn put_command_line(
    ram: &mut Ram<'_>,
    kernel: &Kernel<'_>,
    header: &Header<'_>,
    page: &mut [u8; ZERO_PAGE_BYTES],
) -> Result<(), LoadError> {
    let (line, room) = (kernel.command_line.as_bytes(), (low::END - low::INFORMATION) as u32 - 1);
    let most = header.command_line_max().min(room);
    if line.len() > most as usize {
        return Err(LoadError::Linux(LinuxError::CommandLine { length: line.len(), most }));
    }
    ram.write(low::INFORMATION, line)?;
    ram.write(low::INFORMATION + line.len() as u64, &[0])?;
    put(page, CMD_LINE_PTR, &(low::INFORMATION as u32).to_le_bytes());
    Ok(())
}

/// `struct setup_data`: next, type, length, data.
fn put_seed(
    ram: &mut Ram<'_>,
    kernel: &Kernel<'_>,
    header: &Header<'_>,
    page: &mut [u8; ZERO_PAGE_BYTES],
) -> Result<(), LoadError> {
    if header.version < WITH_SETUP_DATA {
        return Ok(());
    }
    let first = match kernel.seed {
        None => 0,
        Some(seed) => {
            ram.write(low::SETUP_DATA, &[0; 8])?;
            ram.write(low::SETUP_DATA + 8, &SETUP_RNG_SEED.to_le_bytes())?;
            ram.write(low::SETUP_DATA + 12, &(seed.len() as u32).to_le_bytes())?;
            ram.write(low::SETUP_DATA + 16, &seed)?;
            low::SETUP_DATA
        }
    };
    put(page, SETUP_DATA, &first.to_le_bytes());
    Ok(())
}
