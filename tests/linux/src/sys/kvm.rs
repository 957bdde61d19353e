//! /dev/kvm: one virtual machine with one processor in real mode and a little memory.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, FromRawFd},
};

const GET_API_VERSION: libc::c_ulong = 0xae00;
const CREATE_VM: libc::c_ulong = 0xae01;
const GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const CREATE_VCPU: libc::c_ulong = 0xae41;
const SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const RUN: libc::c_ulong = 0xae80;
const SET_REGS: libc::c_ulong = 0x4090_ae82;
const GET_SREGS: libc::c_ulong = 0x8138_ae83;
const SET_SREGS: libc::c_ulong = 0x4138_ae84;

/// Exit reasons of KVM_RUN.
pub const EXIT_IO: u32 = 2;
/// The guest halted.
pub const EXIT_HLT: u32 = 5;

/// Bytes of guest memory, from address 0.
pub const MEMORY: usize = 1 << 20;
/// Where a guest program is loaded and started.
pub const ENTRY: usize = 0x1000;

/// `struct kvm_regs`.
#[derive(Default)]
#[repr(C)]
struct Registers {
    general: [u64; 16],
    rip: u64,
    rflags: u64,
}

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_physical: u64,
    size: u64,
    address: u64,
}

/// A virtual machine.
pub struct Machine {
    _kvm: File,
    _vm: File,
    vcpu: File,
    shared: *mut u8,
    shared_bytes: usize,
    memory: *mut u8,
}

/// An ioctl with an argument; a negative result is an error.
///
/// # Safety
/// `argument` is what `request` takes.
unsafe fn request(file: &File, request: libc::c_ulong, argument: u64) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A mapping of `length` bytes, anonymous or of a file.
fn map(length: usize, file: Option<&File>) -> io::Result<*mut u8> {
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

impl Machine {
    /// Makes one. Its memory is not touched, so that every page has to be mapped when the guest gets to it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
        // SAFETY: requests with the arguments that KVM's API says; descriptors are fresh ones; the region is ours for
        // as long as the machine lives.
        unsafe {
            assert_eq!(request(&kvm, GET_API_VERSION, 0)?, 12, "KVM's API version");
            let vm = File::from_raw_fd(request(&kvm, CREATE_VM, 0)?);
            let memory = map(MEMORY, None)?;
            let region =
                Region { slot: 0, flags: 0, guest_physical: 0, size: MEMORY as u64, address: memory as u64 };
            request(&vm, SET_USER_MEMORY_REGION, &raw const region as u64)?;
            let vcpu = File::from_raw_fd(request(&vm, CREATE_VCPU, 0)?);
            let shared_bytes = request(&kvm, GET_VCPU_MMAP_SIZE, 0)? as usize;
            let shared = map(shared_bytes, Some(&vcpu))?;
            let mut machine = Self { _kvm: kvm, _vm: vm, vcpu, shared, shared_bytes, memory };
            machine.real_mode()?;
            Ok(machine)
        }
    }

    /// CS with base and selector 0.
    fn real_mode(&mut self) -> io::Result<()> {
        let mut special = [0u64; 39];
        // SAFETY: struct kvm_sregs has 312 bytes; CS is its first: base, limit u32, selector u16.
        unsafe {
            request(&self.vcpu, GET_SREGS, special.as_mut_ptr() as u64)?;
            special[0] = 0;
            special[1] &= !(0xffff << 32);
            request(&self.vcpu, SET_SREGS, special.as_ptr() as u64)?;
        }
        Ok(())
    }

    /// Loads a program; it will start at its first byte.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn load(&mut self, program: &[u8]) -> io::Result<()> {
        assert!(program.len() <= 4096, "a program is at most a page");
        let registers = Registers { rip: ENTRY as u64, rflags: 2, ..Registers::default() };
        // SAFETY: ENTRY and a page behind it are in the memory; the structure is kvm_regs.
        unsafe {
            std::ptr::copy_nonoverlapping(program.as_ptr(), self.memory.add(ENTRY), program.len());
            request(&self.vcpu, SET_REGS, &raw const registers as u64)?;
        }
        Ok(())
    }

    /// A byte of guest memory.
    pub fn byte(&self, address: usize) -> u8 {
        assert!(address < MEMORY, "address {address:#x}");
        // SAFETY: in the mapping; the guest is not running.
        unsafe { self.memory.add(address).read_volatile() }
    }

    /// Runs until KVM gives an exit to us; its reason.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(&mut self) -> io::Result<u32> {
        // SAFETY: RUN takes no argument; exit_reason is at byte 8 of struct kvm_run.
        unsafe {
            request(&self.vcpu, RUN, 0)?;
            Ok(self.shared.add(8).cast::<u32>().read_volatile())
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: our own two mappings, which nothing refers to any more. While they are there the kernel keeps the
        // virtual machine.
        unsafe {
            libc::munmap(self.shared.cast(), self.shared_bytes);
            libc::munmap(self.memory.cast(), MEMORY);
        }
    }
}
