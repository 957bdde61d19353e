//! Fakes of the traits for tests on the host: a clock that steps, memory with guard gaps, registers from closures.

use crate::{Clock, DmaAllocator, DmaBuffer, DmaError, DmaRequest, Registers};
use core::cell::{Cell, RefCell};
use std::{boxed::Box, rc::Rc, vec, vec::Vec};

/// A clock that goes forward by a fixed step each time it is asked or relaxed.
pub struct FakeClock {
    now: Cell<u64>,
    step: u64,
}

impl FakeClock {
    /// Starts at 0 and adds `step` nanoseconds per question.
    pub fn new(step: u64) -> Self {
        assert!(step > 0, "a clock that stands still makes every wait endless");
        Self { now: Cell::new(0), step }
    }

    /// Goes forward by `ns`.
    pub fn advance(&self, ns: u64) {
        self.now.set(self.now.get() + ns);
    }
}

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.advance(self.step);
        self.now.get()
    }
}

/// Device address of the first byte, and the content.
type Block = (u64, Vec<u8>);

/// The memory of a fake machine: blocks at device addresses with unmapped gaps between them. Both the driver (by
/// [`FakeDma`]) and the model of a device (by address) reach it; an access that is not wholly inside one block panics,
/// so a wild DMA fails the test that provoked it.
#[derive(Clone, Default)]
pub struct FakeMemory {
    blocks: Rc<RefCell<Vec<Block>>>,
    limit: Rc<Cell<Option<usize>>>,
}

impl FakeMemory {
    /// First device address given out: above 4 GiB, so that a driver that forgets the high half is found out.
    pub const BASE: u64 = 0x1_2340_0000;

    /// No memory at all yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next `n` allocations succeed and refuses those after.
    pub fn fail_after(&self, n: usize) {
        self.limit.set(Some(n));
    }

    /// A device reads `out.len()` bytes at `address`.
    pub fn device_read(&self, address: u64, out: &mut [u8]) {
        let blocks = self.blocks.borrow();
        let (base, data) = find(&blocks, address, out.len());
        let start = (address - base) as usize;
        out.copy_from_slice(&data[start..start + out.len()]);
    }

    /// A device writes `bytes` at `address`.
    pub fn device_write(&self, address: u64, bytes: &[u8]) {
        let mut blocks = self.blocks.borrow_mut();
        let index = find_index(&blocks, address, bytes.len());
        let (base, data) = &mut blocks[index];
        let start = (address - *base) as usize;
        data[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// True if `len` bytes at `address` lie in one block.
    pub fn contains(&self, address: u64, len: usize) -> bool {
        position(&self.blocks.borrow(), address, len).is_some()
    }
}

fn position(blocks: &[Block], address: u64, len: usize) -> Option<usize> {
    blocks.iter().position(|(base, data)| {
        address >= *base && address.checked_add(len as u64).is_some_and(|end| end <= base + data.len() as u64)
    })
}

fn find_index(blocks: &[Block], address: u64, len: usize) -> usize {
    position(blocks, address, len).unwrap_or_else(|| panic!("wild DMA: {len} bytes at {address:#x}"))
}

fn find(blocks: &[Block], address: u64, len: usize) -> (u64, &[u8]) {
    let (base, data) = &blocks[find_index(blocks, address, len)];
    (*base, data)
}

impl DmaAllocator for FakeMemory {
    type Buffer = FakeDma;

    fn allocate(&mut self, request: DmaRequest) -> Result<FakeDma, DmaError> {
        if request.len == 0 || !request.align.is_power_of_two() {
            return Err(DmaError::Invalid(request));
        }
        if let Some(left) = self.limit.get() {
            if left == 0 {
                return Err(DmaError::Exhausted(request));
            }
            self.limit.set(Some(left - 1));
        }
        let mut blocks = self.blocks.borrow_mut();
        // At least one unmapped byte range of 4 KiB before each block, and no more alignment than asked for.
        let after = blocks.last().map_or(Self::BASE, |(base, data)| base + data.len() as u64) + 4096;
        let align = request.align as u64;
        let mut physical = after.next_multiple_of(align);
        if physical.is_multiple_of(align * 2) {
            physical += align;
        }
        if physical + (request.len as u64 - 1) > request.highest {
            return Err(DmaError::Exhausted(request));
        }
        blocks.push((physical, vec![0; request.len]));
        Ok(FakeDma { memory: self.clone(), physical, len: request.len })
    }
}

/// One block of [`FakeMemory`].
pub struct FakeDma {
    memory: FakeMemory,
    physical: u64,
    len: usize,
}

impl FakeDma {
    fn check(&self, offset: usize, len: usize, align: usize) -> u64 {
        assert!(offset.is_multiple_of(align), "access at offset {offset} is not aligned to {align}");
        assert!(offset + len <= self.len, "access of {len} bytes at offset {offset} of {}", self.len);
        self.physical + offset as u64
    }
}

impl DmaBuffer for FakeDma {
    fn physical(&self) -> u64 {
        self.physical
    }
    fn len(&self) -> usize {
        self.len
    }
    fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        self.memory.device_read(self.check(offset, out.len(), 1), out);
    }
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.device_write(self.check(offset, bytes.len(), 1), bytes);
    }
    fn read_u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.memory.device_read(self.check(offset, 8, 8), &mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn write_u64(&mut self, offset: usize, value: u64) {
        self.memory.device_write(self.check(offset, 8, 8), &value.to_le_bytes());
    }
    fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.memory.device_read(self.check(offset, 4, 4), &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn write_u32(&mut self, offset: usize, value: u32) {
        self.memory.device_write(self.check(offset, 4, 4), &value.to_le_bytes());
    }
}

/// A device model behind a register window: reads and writes reach the closures.
pub struct FakeRegisters {
    len: usize,
    read: Box<dyn Fn(usize) -> u32>,
    write: Box<dyn Fn(usize, u32)>,
}

impl FakeRegisters {
    /// A window of `len` bytes that answers reads by `read(offset)` and hands writes to `write(offset, value)`.
    pub fn new(
        len: usize,
        read: impl Fn(usize) -> u32 + 'static,
        write: impl Fn(usize, u32) + 'static,
    ) -> Self {
        Self { len, read: Box::new(read), write: Box::new(write) }
    }

    fn check(&self, offset: usize) {
        assert!(offset.is_multiple_of(4), "register offset {offset:#x} is not aligned");
        assert!(
            offset + 4 <= self.len,
            "register offset {offset:#x} is outside the window of {:#x}",
            self.len
        );
    }
}

impl Registers for FakeRegisters {
    fn len(&self) -> usize {
        self.len
    }
    fn read_u32(&self, offset: usize) -> u32 {
        self.check(offset);
        (self.read)(offset)
    }
    fn write_u32(&self, offset: usize, value: u32) {
        self.check(offset);
        (self.write)(offset, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_by_driver_and_device() {
        let mut memory = FakeMemory::new();
        let mut block = memory.allocate(DmaRequest::new(64, 16)).unwrap();
        block.write_u64(8, 0x1122_3344_5566_7788);
        let mut seen = [0; 4];
        memory.device_read(block.physical() + 8, &mut seen);
        assert_eq!(seen, [0x88, 0x77, 0x66, 0x55]);
        memory.device_write(block.physical() + 12, &7u32.to_le_bytes());
        assert_eq!(block.read_u32(12), 7);
        block.clear();
        assert_eq!(block.read_u64(8), 0);
    }

    #[test]
    fn alignment_is_exactly_what_was_asked_for() {
        let mut memory = FakeMemory::new();
        for align in [16u64, 128, 4096] {
            let block = memory.allocate(DmaRequest::new(10, align as usize)).unwrap();
            assert_eq!(block.physical() % align, 0);
            assert_ne!(block.physical() % (align * 2), 0);
        }
    }

    #[test]
    fn refusals_name_the_request() {
        let mut memory = FakeMemory::new();
        let wrong = DmaRequest::new(0, 16);
        assert_eq!(memory.allocate(wrong).err(), Some(DmaError::Invalid(wrong)));
        let low = DmaRequest { highest: 0xffff_ffff, ..DmaRequest::new(16, 16) };
        assert_eq!(memory.allocate(low).err(), Some(DmaError::Exhausted(low)));
        memory.fail_after(0);
        let any = DmaRequest::new(16, 16);
        assert_eq!(memory.allocate(any).err(), Some(DmaError::Exhausted(any)));
    }

    #[test]
    #[should_panic(expected = "wild DMA")]
    fn a_device_cannot_run_over_the_end_of_a_block() {
        let mut memory = FakeMemory::new();
        let block = memory.allocate(DmaRequest::new(64, 16)).unwrap();
        memory.device_write(block.physical() + 60, &[0; 8]);
    }

    #[test]
    #[should_panic(expected = "outside the window")]
    fn registers_end_where_they_end() {
        FakeRegisters::new(8, |_| 0, |_, _| {}).read_u32(8);
    }

    #[test]
    fn wide_and_modify_go_through_the_narrow_accesses() {
        let written = Rc::new(RefCell::new(Vec::new()));
        let log = written.clone();
        let r = FakeRegisters::new(16, |o| o as u32 + 1, move |o, v| log.borrow_mut().push((o, v)));
        assert_eq!(r.read_u64(8), 13 << 32 | 9);
        r.write_u64(0, 5 << 32 | 6);
        assert_eq!(r.modify_u32(8, 1, 0x10), 0x18);
        assert_eq!(*written.borrow(), [(0, 6), (4, 5), (8, 0x18)]);
    }
}
