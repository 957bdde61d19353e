//! Being the first program: file systems, kernel modules, and ending the machine with a code.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
};

/// All checks passed (the exit port's code).
pub const SUCCESS: u32 = 0x10;
/// The program panicked.
pub const PANIC: u32 = 0x11;
/// A check failed.
pub const FAILED: u32 = 0x12;

/// The exit port of the emulated machine.
const EXIT_PORT: u16 = 0xf4;

/// Mounts what the rest reads.
pub fn prepare() {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let _ = std::fs::create_dir(place);
        if let Err(error) = mount(kind, place) {
            println!("@@ fact mount={place} error={error}");
        }
    }
    // By default Linux lowers the rate of samples when it finds that taking them costs much time.
    if let Err(error) = std::fs::write("/proc/sys/kernel/perf_cpu_time_max_percent", "0") {
        println!("@@ fact sample-rate-limit error={error}");
    }
}

fn mount(kind: &str, place: &str) -> io::Result<()> {
    let (kind, place) = (CString::new(kind)?, CString::new(place)?);
    // SAFETY: three strings that end in zero, no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Inserts a kernel module from a file.
///
/// # Errors
/// What the kernel says.
pub fn insert_module(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: an open file, an empty parameter string that ends in zero, no flags.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the machine: by the exit port, else by switching it off.
pub fn exit(code: u32) -> ! {
    let _ = io::stdout().flush();
    // SAFETY: draining the console, asking for the port, writing to it: the emulated machine ends there. Where there
    // is no such port nothing listens. Rebooting without sync loses nothing: there are no disks.
    unsafe {
        libc::tcdrain(1);
        if libc::ioperm(EXIT_PORT.into(), 4, 1) == 0 {
            std::arch::asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") code, options(nostack, preserves_flags));
        }
        libc::reboot(libc::RB_POWER_OFF);
    }
    std::process::exit(1)
}

/// The time-stamp counter, behind all instructions before it.
pub fn time_stamp() -> u64 {
    // SAFETY: two instructions without operands, which every 64-bit processor has.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        std::arch::x86_64::_rdtsc()
    }
}
