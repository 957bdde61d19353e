//! The system call perf_event_open and the ring buffer of samples.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

/// `struct perf_event_attr`, its first published version (64 bytes).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Attributes {
    /// Kind of event: 0 hardware, 4 raw.
    pub kind: u32,
    /// Bytes of this structure.
    pub size: u32,
    /// Which event.
    pub config: u64,
    /// Events from one sample to the next; 0: no samples.
    pub sample_period: u64,
    /// What a sample holds: 1, the instruction pointer.
    pub sample_type: u64,
    /// What a read gives besides the value: 1 time enabled, 2 time running.
    pub read_format: u64,
    /// Bit field; see the constants of this module.
    pub flags: u64,
    /// Samples before a wake-up.
    pub wakeup_events: u32,
    /// Breakpoints are not used.
    pub breakpoint: u32,
    /// More of the event.
    pub config1: u64,
}

/// A sample holds the instruction pointer.
pub const SAMPLE_IP: u64 = 1;
/// A read gives the time enabled and the time running too.
pub const READ_TIMES: u64 = 3;
/// A read gives all values of the group.
pub const READ_GROUP: u64 = 8;

/// Starts off.
pub const DISABLED: u64 = 1;
/// Always on the counter, or in error.
pub const PINNED: u64 = 1 << 2;
/// Not in user mode.
pub const EXCLUDE_USER: u64 = 1 << 4;
/// Not in the kernel.
pub const EXCLUDE_KERNEL: u64 = 1 << 5;
/// Not in a hypervisor.
pub const EXCLUDE_HV: u64 = 1 << 6;
/// Not in the host, that is in guests only.
pub const EXCLUDE_HOST: u64 = 1 << 19;
/// Not in guests.
pub const EXCLUDE_GUEST: u64 = 1 << 20;

const IOC_ENABLE: libc::c_ulong = 0x2400;
const IOC_DISABLE: libc::c_ulong = 0x2401;
const IOC_RESET: libc::c_ulong = 0x2403;

/// Opens an event of this thread on any processor, in the group of `leader` if there is one.
///
/// # Errors
/// What the kernel says.
pub fn open(mut attributes: Attributes, leader: Option<&File>) -> io::Result<File> {
    attributes.size = size_of::<Attributes>() as u32;
    let group = leader.map_or(-1, File::as_raw_fd);
    // SAFETY: a valid structure of the size it says; thread 0 is this one; close-on-exec.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, group, 8) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

fn control(event: &File, request: libc::c_ulong) {
    // SAFETY: the argument is a flag: the whole group.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, 1) };
    assert_eq!(result, 0, "perf event request {request:#x}: {}", io::Error::last_os_error());
}

/// Starts counting, the whole group at one instant.
pub fn enable(event: &File) {
    control(event, IOC_ENABLE);
}

/// Stops counting, likewise.
pub fn disable(event: &File) {
    control(event, IOC_DISABLE);
}

/// Value 0, of the whole group.
pub fn reset(event: &File) {
    control(event, IOC_RESET);
}

/// Pages of the ring buffer's data; a power of two.
const DATA_PAGES: usize = 64;
const PAGE: usize = 4096;

/// The samples of an event, as the kernel writes them.
pub struct Samples(*mut u8);

/// What a ring buffer held.
#[derive(Default, Debug)]
pub struct Collected {
    /// Instruction pointers of the samples.
    pub addresses: Vec<u64>,
    /// Records that tell of lost samples.
    pub lost: u64,
    /// Records of other kinds (throttling, say).
    pub other: u64,
}

impl Samples {
    /// Maps the ring buffer of an event whose samples hold the instruction pointer only.
    pub fn map(event: &File) -> io::Result<Self> {
        let length = (1 + DATA_PAGES) * PAGE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at.cast())) }
    }

    /// Takes what is there. The event must be off.
    pub fn collect(&self) -> Collected {
        // SAFETY: data_head and data_tail of `struct perf_event_mmap_page`, in the first page of the mapping.
        let (head, tail) =
            unsafe { (&*self.0.add(1024).cast::<AtomicU64>(), &*self.0.add(1032).cast::<AtomicU64>()) };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        assert!(end - at <= (DATA_PAGES * PAGE) as u64, "the ring buffer was too small");
        let mut collected = Collected::default();
        while at < end {
            // struct perf_event_header: type u32, misc u16, size u16.
            let header = self.word(at);
            match header as u32 {
                9 => collected.addresses.push(self.word(at + 8)),
                2 => collected.lost += 1,
                _ => collected.other += 1,
            }
            let size = header >> 48;
            assert!(size >= 8, "a record without a size");
            at += size;
        }
        tail.store(end, Ordering::Release);
        collected
    }

    /// The eight bytes at a position of the ring. Records are multiples of eight bytes.
    fn word(&self, position: u64) -> u64 {
        let offset = position as usize % (DATA_PAGES * PAGE);
        // SAFETY: inside of the data pages, aligned to eight bytes.
        unsafe { self.0.add(PAGE + offset).cast::<u64>().read_volatile() }
    }
}
