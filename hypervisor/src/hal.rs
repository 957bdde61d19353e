//! The machine as drivers may see it: implements `drivers/hal` and PCI configuration space over the real thing.

use crate::arch::paging::{self, Rights};
use crate::arch::{physical::Pages, port, time};
use crate::memory::{FRAME, OutOfFrames, Zone};
use boot::memory_map::Range;
use core::arch::asm;
use core::ptr::NonNull;
use hal::{DmaAllocator, DmaBuffer, DmaError, DmaRequest, Registers};
use heapless::Vec;
use pci::ecam::Window;
use pci::{Address, ConfigSpace, ports};
use spin::Mutex;
use volatile::VolatilePtr;

/// A window of device registers, mapped uncached for good.
#[derive(Debug)]
pub struct Mmio {
    start: u64,
    len: usize,
}

impl Mmio {
    /// Maps the registers at physical address `start`. At most one value per window is made: the driver's.
    ///
    /// # Errors
    /// No memory for page tables.
    ///
    /// # Panics
    /// The window lies in memory, not in a device.
    pub fn map(start: u64, len: usize) -> Result<Mmio, OutOfFrames> {
        let range = Range::from_length(start, len as u64);
        paging::ensure(range, Rights::DEVICE)?;
        assert!(paging::is_device(range), "{range:x?} is not a device's");
        Ok(Mmio { start, len })
    }

    fn register(&self, offset: usize) -> VolatilePtr<'_, u32> {
        assert!(
            offset.is_multiple_of(size_of::<u32>()) && offset <= self.len - size_of::<u32>(),
            "register {offset:#x}"
        );
        // SAFETY: 1. Aligned and inside the window (checked), which `map` has mapped as device memory for good. 2. What
        // a write does to memory is DMA, which goes only to buffers of `Dma`.
        unsafe { VolatilePtr::new(pointer(self.start + offset as u64)) }
    }
}

/// A physical address as a pointer: what is mapped is mapped one to one, and nothing at 0.
fn pointer<T>(address: u64) -> NonNull<T> {
    NonNull::new(address as *mut T).expect("nothing is mapped at address 0")
}

impl Registers for Mmio {
    fn len(&self) -> usize {
        self.len
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.register(offset).read()
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.register(offset).write(value);
    }
}

/// Memory shared with a device.
#[derive(Debug)]
pub struct Dma {
    pages: Pages,
    len: usize,
}

/// What is read and written in one access.
trait Word: Copy + 'static {}
impl Word for u32 {}
impl Word for u64 {}

impl Dma {
    /// One aligned word.
    fn word<T: Word>(&self, offset: usize) -> VolatilePtr<'_, T> {
        assert!(offset.is_multiple_of(align_of::<T>()), "DMA word at {offset:#x}");
        self.check(offset, size_of::<T>());
        // SAFETY: 1. Aligned, as the block starts on a frame, and inside the block (checked), whose frames this value
        // owns and which are mapped for good. 2. Any bytes are a word.
        unsafe { VolatilePtr::new(pointer(self.pages.address() + offset as u64)) }
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "DMA bytes {offset:#x} + {len:#x}"
        );
    }
}

/// Copies from or to memory that changes under the compiler's hands: it may neither repeat nor leave out assembly.
///
/// # Safety
/// Both runs of `count` bytes can be accessed, and do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: 1. The caller's promise. 2. The direction flag is clear, as everywhere in Rust.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) count % 8,
            inout("rcx") count / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

impl DmaBuffer for Dma {
    fn physical(&self) -> u64 {
        self.pages.address()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: 1. The bytes are inside the block (checked), whose frames this value owns and which are mapped for good. 2. `out` is
        // none of them: nobody has a reference into the block.
        unsafe { copy((self.pages.address() as usize + offset) as *const u8, out.as_mut_ptr(), out.len()) }
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: as above.
        unsafe { copy(bytes.as_ptr(), (self.pages.address() as usize + offset) as *mut u8, bytes.len()) }
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.word(offset).read()
    }

    fn write_u64(&mut self, offset: usize, value: u64) {
        self.word(offset).write(value);
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.word(offset).read()
    }

    fn write_u32(&mut self, offset: usize, value: u32) {
        self.word(offset).write(value);
    }
}

/// Gives out DMA memory from the frame pools.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory;

impl DmaAllocator for DmaMemory {
    type Buffer = Dma;

    fn allocate(&mut self, request: DmaRequest) -> Result<Dma, DmaError> {
        if request.len == 0 || !request.align.is_power_of_two() {
            return Err(DmaError::Invalid(request));
        }
        let zone = if request.highest < u32::MAX.into() {
            return Err(DmaError::Exhausted(request));
        } else if request.highest == u64::MAX {
            Zone::Any
        } else {
            Zone::Below4G
        };
        let frames = (request.len as u64).div_ceil(FRAME);
        let pages = Pages::take(frames, (request.align as u64).max(FRAME), zone);
        Ok(Dma { pages: pages.map_err(|_| DmaError::Exhausted(request))?, len: request.len })
    }
}

/// The time-stamp counter as the drivers' clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl hal::Clock for Clock {
    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
}

/// PCI configuration space: in memory where ACPI names a window, else through the ports.
#[derive(Clone, Debug, Default)]
pub struct PciConfig {
    windows: Vec<Window, { crate::firmware::mcfg::MAX_WINDOWS }>,
}

/// The ports take two accesses that belong together.
static PORTS: Mutex<()> = Mutex::new(());

impl PciConfig {
    /// Uses the ports, and those of `windows` that show what the ports show.
    ///
    /// # Errors
    /// No memory for page tables.
    pub fn new(windows: &[Window]) -> Result<PciConfig, OutOfFrames> {
        let mut config = PciConfig::default();
        for window in windows {
            let Some((start, len)) = window.range() else { continue };
            let range = Range::from_length(start, len);
            paging::ensure(range, Rights::DEVICE)?;
            let Some(first) = Address::new(window.segment, window.first_bus, 0, 0) else { continue };
            let by_ports = config.read_u32(first, 0);
            // Never more than MAX_WINDOWS: the table's parser has that limit.
            let _ = config.windows.push(*window);
            let agrees = window.segment != 0 || config.read_u32(first, 0) == by_ports;
            if !paging::is_device(range) || !agrees {
                log::warn!(
                    "ACPI's window for PCI segment {} at {start:#x} shows no PCI; not used",
                    window.segment
                );
                config.windows.pop();
            }
        }
        Ok(config)
    }

    /// The windows in use.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    fn memory(&self, address: Address, offset: u16) -> Option<VolatilePtr<'_, u32>> {
        assert!(offset.is_multiple_of(4), "configuration register {offset:#x}");
        let register = self.windows.iter().find_map(|w| w.physical(address, offset))?;
        // SAFETY: 1. Aligned (checked; windows begin on a page) and inside a window that `new` has mapped as device
        // memory for good. 2. What a write makes a device do with DMA is its driver's to vouch for.
        Some(unsafe { VolatilePtr::new(pointer(register)) })
    }
}

impl ConfigSpace for PciConfig {
    fn read_u32(&self, address: Address, offset: u16) -> u32 {
        if let Some(register) = self.memory(address, offset) {
            return register.read();
        }
        let Some(selector) = ports::select(address, offset) else { return u32::MAX };
        let _both = PORTS.lock();
        port::write_u32(ports::ADDRESS, selector);
        port::read_u32(ports::DATA)
    }

    fn write_u32(&mut self, address: Address, offset: u16, value: u32) {
        if let Some(register) = self.memory(address, offset) {
            register.write(value);
        } else if let Some(selector) = ports::select(address, offset) {
            let _both = PORTS.lock();
            port::write_u32(ports::ADDRESS, selector);
            port::write_u32(ports::DATA, value);
        }
    }
}
