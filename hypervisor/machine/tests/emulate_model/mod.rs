//! A processor and a bus for tests of the emulator: plain registers, memory in pieces, a device that notes each access.
#![allow(dead_code, missing_docs)]

use machine::emulate::{Bus, BusError, Cpu, Seg, Segment};
use std::ops::Range;

pub const CR0_PE: u64 = 1 << 0;
pub const CR0_WP: u64 = 1 << 16;
pub const CR0_AM: u64 = 1 << 18;
pub const CR0_PG: u64 = 1 << 31;
pub const CR4_PSE: u64 = 1 << 4;
pub const CR4_PAE: u64 = 1 << 5;
pub const CR4_SMEP: u64 = 1 << 20;
pub const CR4_SMAP: u64 = 1 << 21;
pub const CR4_PKE: u64 = 1 << 22;
pub const EFER_LMA: u64 = 1 << 10;
pub const EFER_NXE: u64 = 1 << 11;

/// All status flags and DF.
pub const FLAGS: u64 = 0xcd5;
pub const TF: u64 = 1 << 8;
pub const RF: u64 = 1 << 16;
pub const VM: u64 = 1 << 17;
pub const AC: u64 = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub segments: [Segment; 6],
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cpl: u8,
    pub pdptes: [u64; 4],
    pub pkru: u32,
    pub physical_bits: u32,
    pub gigabyte_pages: bool,
}

impl Registers {
    fn new(code: u32, data: u32, limit: u32, cpl: u8) -> Self {
        let dpl = u32::from(cpl) << 5;
        let data = Segment { selector: 0x18, base: 0, limit, access: data | dpl };
        let mut segments = [data; 6];
        segments[Seg::Cs as usize] = Segment { selector: 0x10, access: code | dpl, ..data };
        Self {
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            segments,
            cr0: CR0_PE,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cpl,
            pdptes: [0; 4],
            pkru: 0,
            physical_bits: 40,
            gigabyte_pages: true,
        }
    }

    /// 64-bit code without paging. No processor has that, but it lets a test leave page tables out.
    pub fn long(cpl: u8) -> Self {
        Self { efer: EFER_LMA, ..Self::new(0xa09b, 0xc093, u32::MAX, cpl) }
    }

    /// Flat 32-bit code without paging.
    pub fn protected(cpl: u8) -> Self {
        Self::new(0xc09b, 0xc093, u32::MAX, cpl)
    }

    /// Real-address mode, all segments at 0.
    pub fn real() -> Self {
        Self { cr0: 0, ..Self::new(0x9b, 0x93, 0xffff, 0) }
    }

    pub fn segment_mut(&mut self, seg: Seg) -> &mut Segment {
        &mut self.segments[seg as usize]
    }
}

impl Cpu for Registers {
    fn gpr(&self, number: usize) -> u64 {
        self.gpr[number]
    }
    fn set_gpr(&mut self, number: usize, value: u64) {
        self.gpr[number] = value;
    }
    fn rip(&self) -> u64 {
        self.rip
    }
    fn set_rip(&mut self, rip: u64) {
        self.rip = rip;
    }
    fn rflags(&self) -> u64 {
        self.rflags
    }
    fn set_rflags(&mut self, rflags: u64) {
        self.rflags = rflags;
    }
    fn segment(&self, which: Seg) -> Segment {
        self.segments[which as usize]
    }
    fn cr0(&self) -> u64 {
        self.cr0
    }
    fn cr3(&self) -> u64 {
        self.cr3
    }
    fn cr4(&self) -> u64 {
        self.cr4
    }
    fn efer(&self) -> u64 {
        self.efer
    }
    fn cpl(&self) -> u8 {
        self.cpl
    }
    fn pdpte(&self, number: usize) -> u64 {
        self.pdptes[number]
    }
    fn pkru(&self) -> u32 {
        self.pkru
    }
    fn physical_bits(&self) -> u32 {
        self.physical_bits
    }
    fn gigabyte_pages(&self) -> bool {
        self.gigabyte_pages
    }
}

/// What reached something that is not memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    In(u16, u8),
    Out(u16, u8, u32),
}

#[derive(Clone, Debug, Default)]
pub struct TestBus {
    /// Memory: where it begins, and what is in it.
    pub memory: Vec<(u64, Vec<u8>)>,
    pub device: Range<u64>,
    pub log: Vec<Access>,
    /// Calls of `read` and `write` so far, and the one that is to be refused.
    pub calls: usize,
    pub refuse: Option<usize>,
    /// Writes to memory so far.
    pub writes: usize,
}

impl TestBus {
    fn find(&self, address: u64, length: usize) -> Option<(usize, usize)> {
        let end = address.checked_add(length as u64)?;
        self.memory.iter().enumerate().find_map(|(n, (start, bytes))| {
            let inside = address >= *start && end <= start + bytes.len() as u64;
            inside.then(|| (n, (address - start) as usize))
        })
    }

    fn check(&mut self, address: u64, length: usize) -> Result<Option<(usize, usize)>, BusError> {
        assert!((1..=16).contains(&length), "an access of {length} bytes");
        assert!(address % 4096 + length as u64 <= 4096, "{address:#x}+{length} crosses a page");
        self.calls += 1;
        if self.refuse == Some(self.calls) {
            return Err(BusError { address });
        }
        let found = self.find(address, length);
        if found.is_none() {
            assert!(
                length.is_power_of_two() && length <= 8 && address.is_multiple_of(length as u64),
                "a device must not see {length} bytes at {address:#x}"
            );
            if !self.device.contains(&address) {
                return Err(BusError { address });
            }
        }
        Ok(found)
    }

    pub fn peek(&self, address: u64, length: usize) -> &[u8] {
        let (n, at) = self.find(address, length).expect("memory");
        &self.memory[n].1[at..at + length]
    }

    pub fn poke(&mut self, address: u64, bytes: &[u8]) {
        let (n, at) = self.find(address, bytes.len()).expect("memory");
        self.memory[n].1[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn peek_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.peek(address, 8).try_into().unwrap())
    }
}

/// What the device has at an address.
pub fn device_byte(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Bus for TestBus {
    fn is_memory(&self, address: u64, length: usize) -> bool {
        self.find(address, length).is_some()
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), BusError> {
        if let Some((n, at)) = self.check(address, bytes.len())? {
            bytes.copy_from_slice(&self.memory[n].1[at..at + bytes.len()]);
            return Ok(());
        }
        self.log.push(Access::Read(address, bytes.len()));
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = device_byte(address + n as u64);
        }
        Ok(())
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BusError> {
        if let Some((n, at)) = self.check(address, bytes.len())? {
            self.memory[n].1[at..at + bytes.len()].copy_from_slice(bytes);
            self.writes += 1;
            return Ok(());
        }
        self.log.push(Access::Write(address, bytes.to_vec()));
        Ok(())
    }
    fn read_port(&mut self, port: u16, size: u8) -> u32 {
        self.log.push(Access::In(port, size));
        0x8192_a3b4_u32.wrapping_mul(self.log.len() as u32)
    }
    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        self.log.push(Access::Out(port, size, value));
    }
}

/// SplitMix64: what a seed gives.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}
