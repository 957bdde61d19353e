//! A board with memory, disks and a PCI bus, and a driver as small as a driver can be: it finds a device as Linux does, agrees
//! on features, and moves buffers through real rings.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::LazyLock;

use machine::context::{Context, Instant};
use machine::output::{Disk, DiskError, Output, Power, SECTOR};
use machine::pci::{Device, Pci, Signal, State};
use machine::ram::Ram;

pub mod driver;
pub mod ring;

/// Bytes of guest memory.
pub const MEMORY: usize = 8 << 20;
/// Sectors of the disks.
pub const SECTORS: u64 = 16 << 10;
/// The first network card's address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The random generator's seed.
pub const SEED: [u8; 32] = [7; 32];

/// What left the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Frames, by device.
    pub frames: Vec<(u8, Vec<u8>)>,
    /// Bytes of side consoles.
    pub text: Vec<(u8, u8)>,
}

impl Output for Outside {
    fn frame(&mut self, device: u8, frame: &[u8]) {
        self.frames.push((device, frame.to_vec()));
    }

    fn console(&mut self, _: u8) {
        panic!("no virtio device drives the serial console");
    }

    fn side_console(&mut self, port: u8, byte: u8) {
        self.text.push((port, byte));
    }

    fn power(&mut self, _: Power) {
        panic!("no virtio device switches power");
    }
}

/// A disk in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Its contents.
    pub bytes: Vec<u8>,
    /// How often it was flushed.
    pub flushes: u32,
    /// Accesses fail from this sector on.
    pub bad_from: u64,
    /// Bytes moved.
    pub moved: u64,
}

impl Medium {
    fn place(&self, sector: u64, length: usize) -> Result<std::ops::Range<usize>, DiskError> {
        assert!(length.is_multiple_of(SECTOR), "only whole sectors");
        let end = sector + (length / SECTOR) as u64;
        assert!(end <= self.sectors(), "the device checks the range");
        if end > self.bad_from { Err(DiskError) } else { Ok(sector as usize * SECTOR..end as usize * SECTOR) }
    }
}

impl Disk for Medium {
    fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }

    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let place = self.place(sector, out.len())?;
        self.moved += out.len() as u64;
        out.copy_from_slice(&self.bytes[place]);
        Ok(())
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let place = self.place(sector, bytes.len())?;
        self.moved += bytes.len() as u64;
        self.bytes[place].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.flushes += 1;
        if self.bad_from == 0 { Err(DiskError) } else { Ok(()) }
    }
}

/// A board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Guest memory.
    pub memory: Vec<u8>,
    /// The bus.
    pub pci: Pci,
    /// What left.
    pub outside: Outside,
    /// The disks.
    pub disks: Vec<Medium>,
    /// Virtual time.
    pub now: Instant,
    /// What was signalled.
    pub signals: Vec<Signal>,
    /// Where the next buffer goes.
    next: u64,
}

/// The usual devices: device numbers from 2 on.
pub const NET: u8 = 2;
pub const BLOCK: u8 = 3;
pub const RNG: u8 = 4;
pub const CONSOLE: u8 = 5;
pub const READ_ONLY: u8 = 6;

/// One device of each kind.
pub fn devices() -> Vec<Device> {
    let mut id = [0; 20];
    id[..4].copy_from_slice(b"root");
    vec![
        Device::Net { mac: MAC },
        Device::Block { disk: 0, sectors: SECTORS, read_only: false, id },
        Device::Rng { seed: SEED },
        Device::Console { port: 1 },
        Device::Block { disk: 1, sectors: SECTORS, read_only: true, id },
    ]
}

/// What is on the disks at first.
static CONTENTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..SECTORS as usize * SECTOR).map(|i| (i / SECTOR * 7 + i % 251) as u8).collect());

impl Board {
    /// A board with one device of each kind, after power-on.
    pub fn bare() -> Self {
        let disk = Medium { bytes: CONTENTS.clone(), flushes: 0, bad_from: u64::MAX, moved: 0 };
        Self {
            memory: vec![0; MEMORY],
            pci: Pci::new(&devices()).expect("devices that can be"),
            outside: Outside::default(),
            disks: vec![disk.clone(), disk],
            now: 1000,
            signals: Vec::new(),
            next: 0x1000,
        }
    }

    /// The same with addresses assigned.
    pub fn new() -> Self {
        let mut board = Self::bare();
        board.pci.assign();
        board
    }

    /// Does something to the bus, and collects what it signals.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Pci, &mut Context<'_, '_>) -> R) -> R {
        let mut ram = Ram::new(&mut self.memory);
        let mut disks: Vec<&mut dyn Disk> = self.disks.iter_mut().map(|disk| disk as &mut dyn Disk).collect();
        let mut ctx = Context { ram: &mut ram, now: self.now, out: &mut self.outside, disks: &mut disks };
        let result = act(&mut self.pci, &mut ctx);
        assert_eq!(self.pci.has_signals(), {
            let before = self.signals.len();
            while let Some(signal) = self.pci.take_signal() {
                self.signals.push(signal);
            }
            before != self.signals.len()
        });
        assert!(!self.pci.has_signals());
        result
    }

    /// Takes the signals so far.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// Writes to a port of the configuration mechanism.
    pub fn out(&mut self, port: u16, size: u8, value: u32) {
        self.with(|pci, ctx| pci.write_port(port, size, value, ctx));
    }

    /// Reads configuration space.
    pub fn config(&mut self, device: u8, offset: u8, size: u8) -> u32 {
        self.out(0xcf8, 4, 1 << 31 | u32::from(device) << 11 | u32::from(offset & 0xfc));
        self.with(|pci, _| pci.read_port(0xcfc + u16::from(offset & 3), size))
    }

    /// Writes configuration space.
    pub fn set_config(&mut self, device: u8, offset: u8, size: u8, value: u32) {
        self.out(0xcf8, 4, 1 << 31 | u32::from(device) << 11 | u32::from(offset & 0xfc));
        self.out(0xcfc + u16::from(offset & 3), size, value);
    }

    /// Reads a port of a device; all ones if there is none.
    pub fn inp(&mut self, port: u16, size: u8) -> u64 {
        self.with(|pci, _| pci.find_io(port).map_or(!0, |place| pci.read(place, size)))
    }

    /// Writes a port of a device.
    pub fn outp(&mut self, port: u16, size: u8, value: u64) {
        self.with(|pci, ctx| {
            let place = pci.find_io(port).expect("a device answers the port");
            pci.write(place, size, value, ctx);
        });
    }

    /// Reads memory of a device; all ones if there is none.
    pub fn peek(&mut self, address: u64, size: u8) -> u64 {
        self.with(|pci, _| pci.find_memory(address).map_or(!0, |place| pci.read(place, size)))
    }

    /// Writes memory of a device.
    pub fn poke(&mut self, address: u64, size: u8, value: u64) {
        self.with(|pci, ctx| {
            let place = pci.find_memory(address).expect("a device answers the address");
            pci.write(place, size, value, ctx);
        });
    }

    /// Guest memory for a buffer.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let at = self.next;
        self.next = (at + bytes as u64).next_multiple_of(16);
        assert!(self.next as usize <= MEMORY, "the test needs more memory");
        at
    }

    /// Forgets what was allocated once half of memory is: whoever has a buffer shares it then.
    pub fn rewind(&mut self) {
        if self.next > 0x38_0000 {
            self.next = 0x1000;
        }
    }

    /// A buffer with these bytes.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.allocate(bytes.len());
        self.store(at, bytes);
        at
    }

    /// Writes guest memory.
    pub fn store(&mut self, at: u64, bytes: &[u8]) {
        self.memory[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads guest memory.
    pub fn load(&self, at: u64, length: usize) -> &[u8] {
        &self.memory[at as usize..at as usize + length]
    }

    /// Reads a word of guest memory.
    pub fn word(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.load(at, 2).try_into().expect("two bytes"))
    }

    /// Lets virtual time pass, and due work be done.
    pub fn pass(&mut self, nanoseconds: Instant) {
        self.now += nanoseconds;
        self.with(|pci, ctx| pci.advance(ctx));
    }

    /// Saves the bus, sends it as bytes, and goes on with what arrives.
    pub fn move_house(&mut self) {
        let bytes = postcard::to_allocvec(&self.pci.save()).expect("a state has bytes");
        let state: State = postcard::from_bytes(&bytes).expect("and the bytes a state");
        assert_eq!(state, self.pci.save());
        self.pci = Pci::restore(state).expect("a state that was saved can be");
    }

    /// Everything that anybody could see.
    pub fn everything(&self) -> (&[u8], State, &Outside, &[Medium], &[Signal]) {
        (&self.memory, self.pci.save(), &self.outside, &self.disks, &self.signals)
    }
}
