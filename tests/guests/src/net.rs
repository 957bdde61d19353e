//! The drivers' machine for test kernels: PCI by ports, registers by address, DMA memory from a static pool, the TSC as
//! clock, and an Intel card started on them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use e1000::{Model, Nic, Rings};
use hal::{Clock, DmaAllocator, DmaBuffer, DmaError, DmaRequest, Registers};
use pci::{Address, Bar, ConfigSpace, Function, command, ports};

use crate::{boot, cpu, timers};

/// Bytes that all DMA blocks of a run share.
const POOL_BYTES: usize = 512 * 1024;
/// Where nobody says the TSC's frequency: so many ticks of the PIT, some 10 ms, measure it.
const MEASURED_TICKS: u16 = 11_932;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[u8; POOL_BYTES]>);
// SAFETY: handed out in parts that do not overlap; each part is reached through its one `Dma` (and by the device).
unsafe impl Sync for Pool {}
static POOL: Pool = Pool(UnsafeCell::new([0; POOL_BYTES]));
static POOL_USED: AtomicUsize = AtomicUsize::new(0);

/// The static pool. Blocks are never given back.
pub struct Memory;

impl DmaAllocator for Memory {
    type Buffer = Dma;

    fn allocate(&mut self, request: DmaRequest) -> Result<Dma, DmaError> {
        if request.len == 0 || !request.align.is_power_of_two() || request.align > 4096 {
            return Err(DmaError::Invalid(request));
        }
        let place = |used: usize| {
            let end = used.next_multiple_of(request.align).checked_add(request.len)?;
            (end <= POOL_BYTES).then_some(end)
        };
        match POOL_USED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, place) {
            Ok(used) => Ok(Dma { start: used.next_multiple_of(request.align), len: request.len }),
            Err(_) => Err(DmaError::Exhausted(request)),
        }
    }
}

/// A block of the pool. Memory is mapped one to one.
pub struct Dma {
    start: usize,
    len: usize,
}

impl Dma {
    fn at(&self, offset: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            offset.is_multiple_of(align) && offset + len <= self.len,
            "DMA access at {offset} of {len} bytes"
        );
        // SAFETY: within the pool, as just checked.
        unsafe { POOL.0.get().cast::<u8>().add(self.start + offset) }
    }
}

impl DmaBuffer for Dma {
    fn physical(&self) -> u64 {
        POOL.0.get() as u64 + self.start as u64
    }
    fn len(&self) -> usize {
        self.len
    }
    fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        let from = self.at(offset, out.len(), 1);
        for (index, byte) in out.iter_mut().enumerate() {
            // SAFETY: `at` checked the range; volatile, since the device writes too.
            *byte = unsafe { from.add(index).read_volatile() };
        }
    }
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len(), 1);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `read_bytes`.
            unsafe { to.add(index).write_volatile(*byte) };
        }
    }
    fn read_u64(&self, offset: usize) -> u64 {
        // SAFETY: `at` checked range and alignment; the pool is aligned to 4096 and blocks to what was asked for.
        unsafe { self.at(offset, 8, 8).cast::<u64>().read_volatile() }
    }
    fn write_u64(&mut self, offset: usize, value: u64) {
        // SAFETY: as in `read_u64`.
        unsafe { self.at(offset, 8, 8).cast::<u64>().write_volatile(value) };
    }
    fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: as in `read_u64`.
        unsafe { self.at(offset, 4, 4).cast::<u32>().read_volatile() }
    }
    fn write_u32(&mut self, offset: usize, value: u32) {
        // SAFETY: as in `read_u64`.
        unsafe { self.at(offset, 4, 4).cast::<u32>().write_volatile(value) };
    }
}

/// A register window of a device.
pub struct Mmio {
    base: usize,
    len: usize,
}

impl Mmio {
    fn at(&self, offset: usize) -> *mut u32 {
        assert!(
            offset.is_multiple_of(4) && offset + 4 <= self.len,
            "register {offset:#x} of {:#x}",
            self.len
        );
        (self.base + offset) as *mut u32
    }
}

impl Registers for Mmio {
    fn len(&self) -> usize {
        self.len
    }
    fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: `start` made the window from a memory BAR; `at` checked the offset; uncached and mapped.
        unsafe { self.at(offset).read_volatile() }
    }
    fn write_u32(&self, offset: usize, value: u32) {
        // SAFETY: as in `read_u32`. The driver is given device addresses of the pool only.
        unsafe { self.at(offset).write_volatile(value) };
    }
}

/// Configuration space through ports.
pub struct PortConfig;

impl ConfigSpace for PortConfig {
    fn read_u32(&self, address: Address, offset: u16) -> u32 {
        let Some(select) = ports::select(address, offset) else { return !0 };
        // SAFETY: selects a register; no memory is touched.
        unsafe { cpu::outl(ports::ADDRESS, select) };
        cpu::inl(ports::DATA)
    }
    fn write_u32(&mut self, address: Address, offset: u16, value: u32) {
        let Some(select) = ports::select(address, offset) else { return };
        // SAFETY: programs use this to enumerate and to start a driver whose DMA stays in the pool.
        unsafe {
            cpu::outl(ports::ADDRESS, select);
            cpu::outl(ports::DATA, value);
        }
    }
}

/// The TSC as a clock. Its frequency is `tsc-hz=` of the command line, else what CPUID says, else measured, once.
pub struct TscClock {
    hz: u64,
}

impl TscClock {
    /// The clock.
    pub fn new() -> Self {
        static MEASURED: AtomicU64 = AtomicU64::new(0);
        let said = [boot::number("tsc-hz", 0), timers::tsc_hz(), MEASURED.load(Ordering::Relaxed)];
        let hz = said.into_iter().find(|hz| *hz != 0).unwrap_or_else(|| {
            let ticks = timers::over_pit(MEASURED_TICKS).tsc;
            let hz = (ticks * timers::PIT_HZ / u64::from(MEASURED_TICKS)).max(1);
            MEASURED.store(hz, Ordering::Relaxed);
            hz
        });
        Self { hz }
    }
}

impl Default for TscClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TscClock {
    fn now_ns(&self) -> u64 {
        (u128::from(cpu::rdtsc()) * 1_000_000_000 / u128::from(self.hz)) as u64
    }
}

/// The card of a test kernel.
pub type Card = Nic<Mmio, Dma>;

/// Finds and starts the `number`-th card that the driver knows, by PCI address. The text says what is wrong.
pub fn start_card(number: usize, rings: Rings) -> Result<Card, &'static str> {
    find_card(number).and_then(|(function, model)| start(&function, model, rings))
}

/// The `number`-th card that the driver knows, by PCI address.
pub fn find_card(number: usize) -> Result<(Function, Model), &'static str> {
    let config = PortConfig;
    let (mut found, mut index) = (None, 0);
    pci::walk(&config, 0, 0, 255, &mut |function| {
        if let Some(model) = Model::of(function.vendor, function.device) {
            found = if index == number { Some((function, model)) } else { found };
            index += 1;
        }
    });
    found.ok_or("no such card on the bus")
}

/// Starts this card. The text says what is wrong.
pub fn start(function: &Function, model: Model, rings: Rings) -> Result<Card, &'static str> {
    let mut config = PortConfig;
    let bars = pci::read_bars(&mut config, function).map_err(|_| "a BAR makes no sense")?;
    let (base, len) = bars[0].and_then(Bar::memory).ok_or("firmware gave its registers no address")?;
    if base.checked_add(len).is_none_or(|end| end > 1 << 32) {
        return Err("its registers lie above 4 GiB, which test kernels do not map");
    }
    config.modify_command(function.address, 0, command::MEMORY | command::BUS_MASTER);
    let registers = Mmio { base: base as usize, len: len as usize };
    Nic::new(registers, &mut Memory, &TscClock::new(), model.family, rings).map_err(|error| {
        crate::println!("@@ fact card={} error=\"{error}\"", function.address);
        "the card does not start"
    })
}
