//! The computer as a whole: what is saved and restored goes on as if nothing had been.

use machine::computer::parts::{FUNCTIONS, NAMES, Visitor};
use machine::computer::{Computer, Parts, State};
use machine::context::{Context, Instant};
use machine::cpu::Profile;
use machine::devices::FwCfg;
use machine::devices::fw_cfg::Setup;
use machine::input::Input;
use machine::load::Board;
use machine::output::{Disk, DiskError, Output, Power, SECTOR};
use machine::pci::{Device, Pci};
use machine::ram::{Layout, Ram};
use proptest::prelude::*;
use serde::Serialize;

const MEMORY: usize = 64 * 1024;
const DISK: u64 = 64;

/// Everything that has left, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Log(Vec<Left>);

#[derive(Clone, Debug, PartialEq)]
enum Left {
    Frame(u8, Vec<u8>),
    Console(u8),
    Side(u8, u8),
    Power(Power),
}

impl Output for Log {
    fn frame(&mut self, device: u8, frame: &[u8]) {
        self.0.push(Left::Frame(device, frame.to_vec()));
    }
    fn console(&mut self, byte: u8) {
        self.0.push(Left::Console(byte));
    }
    fn side_console(&mut self, port: u8, byte: u8) {
        self.0.push(Left::Side(port, byte));
    }
    fn power(&mut self, power: Power) {
        self.0.push(Left::Power(power));
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Platter(Vec<u8>);

impl Disk for Platter {
    fn sectors(&self) -> u64 {
        DISK
    }
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        out.copy_from_slice(&self.0[sector as usize * SECTOR..][..out.len()]);
        Ok(())
    }
    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0[sector as usize * SECTOR..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// A computer with its surroundings.
struct World {
    computer: Computer,
    memory: Vec<u8>,
    disk: Platter,
    log: Log,
    now: Instant,
}

/// What the guest or the outside does.
#[derive(Clone, Debug)]
enum Act {
    In(u16, u8),
    Out(u16, u8, u32),
    Read(u64, usize),
    Write(u64, usize, u64),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Acknowledge,
    Pass(u64),
    Type(Vec<u8>),
    Frame(Vec<u8>),
    Button,
}

impl World {
    fn new() -> Self {
        Self::with_serial(true)
    }

    fn with_serial(serial: bool) -> Self {
        let layout = Layout::new(MEMORY as u64);
        let profile = Profile::named("x86-64-v3").expect("it is the default");
        let devices = [
            Device::Net { mac: [0x52, 0x54, 0, 1, 2, 3] },
            Device::Block { disk: 0, sectors: DISK, read_only: false, id: [0; 20] },
            Device::Rng { seed: [1; 32] },
            Device::Console { port: 1 },
        ];
        let mut computer = Computer::new(Parts {
            profile,
            pci: Pci::new(&devices).expect("four devices"),
            fw_cfg: FwCfg::new(&Setup { layout, board: &Board { serial }, boot: None }),
            layout,
            wall_clock: 1_700_000_000,
            seed: [7; 32],
            serial,
        });
        computer.set_up_as_firmware_does();
        let disk = Platter(vec![0x5a; DISK as usize * SECTOR]);
        Self { computer, memory: vec![0; MEMORY], disk, log: Log::default(), now: 0 }
    }

    fn reach<R>(&mut self, act: impl FnOnce(&mut Computer, &mut Context<'_, '_>) -> R) -> R {
        let mut ram = Ram::new(&mut self.memory);
        let disk: &mut dyn Disk = &mut self.disk;
        let mut disks = [disk];
        let mut context = Context { ram: &mut ram, now: self.now, out: &mut self.log, disks: &mut disks };
        act(&mut self.computer, &mut context)
    }

    /// Does it; what the guest sees of it.
    fn act(&mut self, act: &Act) -> u64 {
        let now = self.now;
        let seen = match act {
            Act::In(port, size) => self.reach(|c, x| c.read_port(*port, *size, x)).into(),
            Act::Out(port, size, value) => {
                self.reach(|c, x| c.write_port(*port, *size, *value, x));
                0
            }
            Act::Read(address, size) => {
                let mut bytes = [0; 8];
                self.reach(|c, x| c.read_memory(*address, &mut bytes[..*size], x));
                u64::from_le_bytes(bytes)
            }
            Act::Write(address, size, value) => {
                self.reach(|c, x| c.write_memory(*address, &value.to_le_bytes()[..*size], x));
                0
            }
            Act::ReadMsr(number) => self.computer.read_msr(*number, now).unwrap_or(!1),
            Act::WriteMsr(number, value) => self.computer.write_msr(*number, *value, now).is_some().into(),
            Act::Acknowledge => self.computer.interrupts.acknowledge().map_or(!0, u64::from),
            Act::Pass(nanoseconds) => {
                self.now += nanoseconds;
                self.reach(Computer::advance);
                self.computer.due().saturating_sub(self.now)
            }
            Act::Type(bytes) => self.reach(|c, x| c.input(Input::Console(bytes), x)) as u64,
            Act::Frame(frame) => self.reach(|c, x| c.input(Input::Frame { device: 0, frame }, x)) as u64,
            Act::Button => self.reach(|c, x| c.input(Input::PowerButton, x)) as u64,
        };
        seen << 1 | u64::from(self.computer.interrupts.pending())
    }

    /// A second world that begins where this one is, by way of bytes.
    fn twin(&self) -> Self {
        let bytes = postcard::to_allocvec(&self.computer.save()).expect("a state has bytes");
        let state: State = postcard::from_bytes(&bytes).expect("bytes have their state");
        let mut twin = Self::new();
        twin.computer.restore(state).expect("a state that was saved");
        (twin.memory, twin.disk, twin.now) = (self.memory.clone(), self.disk.clone(), self.now);
        twin
    }
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        proptest::sample::select(vec![
            0x20u16, 0x21, 0xA0, 0xA1, 0x40, 0x42, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x92, 0x4D0, 0x510,
            0x511, 0x514, 0x518, 0x600, 0x602, 0x604, 0x608, 0xCF8, 0xCF9, 0xCFC, 0xCFE,
        ]),
        0x3F8..=0x3FFu16,
        0xC000..0xC400u16,
        any::<u16>(),
    ]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u64..0x400).prop_map(|at| 0xFEE0_0000 + at),
        (0u64..0x20).prop_map(|at| 0xFEC0_0000 + at),
        (0u64..0x5_0000).prop_map(|at| 0xE000_0000 + at),
        any::<u64>(),
    ]
}

fn size() -> impl Strategy<Value = u8> {
    proptest::sample::select(vec![1, 2, 4])
}

fn act() -> impl Strategy<Value = Act> {
    let msr = prop_oneof![Just(0x1Bu32), Just(0x6E0), Just(0x10), Just(0x3B), 0x800..0x840u32, any::<u32>()];
    prop_oneof![
        3 => (port(), size()).prop_map(|(port, size)| Act::In(port, size)),
        6 => (port(), size(), any::<u32>()).prop_map(|(port, size, value)| Act::Out(port, size, value)),
        2 => (address(), 1..=8usize).prop_map(|(at, size)| Act::Read(at, size)),
        4 => (address(), 1..=8usize, any::<u64>()).prop_map(|(at, size, value)| Act::Write(at, size, value)),
        1 => msr.clone().prop_map(Act::ReadMsr),
        2 => (msr, any::<u64>()).prop_map(|(number, value)| Act::WriteMsr(number, value)),
        2 => Just(Act::Acknowledge),
        3 => (0..50_000_000u64).prop_map(Act::Pass),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Act::Type),
        1 => proptest::collection::vec(any::<u8>(), 0..100).prop_map(Act::Frame),
        1 => Just(Act::Button),
    ]
}

proptest! {
    #[test]
    fn a_restored_computer_has_the_same_future(
        past in proptest::collection::vec(act(), 0..150),
        future in proptest::collection::vec(act(), 0..150),
    ) {
        let mut world = World::new();
        past.iter().for_each(|act| { world.act(act); });
        world.log.0.clear();
        let mut twin = world.twin();
        for act in &future {
            prop_assert_eq!(world.act(act), twin.act(act), "{:?}", act);
        }
        prop_assert_eq!(&world.log, &twin.log);
        prop_assert_eq!(world.computer.save(), twin.computer.save());
        prop_assert!(world.memory == twin.memory && world.disk == twin.disk);
    }
}

#[test]
fn a_state_that_cannot_be_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.act(&Act::Out(0x3FB, 1, 0x83));
    let before = world.computer.save();
    let mut bad = before.clone();
    bad.pci.lines = u32::MAX;
    assert!(world.computer.restore(bad).is_err());
    assert_eq!(world.computer.save(), before);
}

#[test]
fn accesses_that_nothing_answers_read_as_ones_and_are_counted() {
    let mut world = World::new();
    assert_eq!(world.reach(|c, x| c.read_port(0x1234, 4, x)), u32::MAX);
    assert_eq!(world.reach(|c, x| c.read_port(0x222, 1, x)), 0xFF);
    let mut bytes = [0; 4];
    world.reach(|c, x| c.read_memory(0xD000_0000, &mut bytes, x));
    assert_eq!(bytes, [0xFF; 4]);
    assert_eq!(world.computer.read_msr(0x1234_5678, 0), None);
    let strays = world.computer.strays();
    assert_eq!((strays.ports, strays.memory, strays.msrs), (2, 1, 1));
}

#[test]
fn the_console_goes_out_by_the_door_and_power_off_as_well() {
    let mut world = World::new();
    world.act(&Act::Out(0x3F8, 1, u32::from(b'x')));
    // SLP_TYP 5 and SLP_EN.
    world.act(&Act::Out(0x604, 2, 5 << 10 | 1 << 13));
    world.act(&Act::Out(0xCF9, 1, 0x0E));
    assert_eq!(world.log.0, [Left::Console(b'x'), Left::Power(Power::Off), Left::Power(Power::Reset)]);
}

#[test]
fn without_a_serial_port_its_ports_are_nobody_s() {
    let mut world = World::with_serial(false);
    world.act(&Act::Out(0x3F8, 1, u32::from(b'x')));
    assert_eq!(world.reach(|c, x| c.read_port(0x3FD, 1, x)), 0xFF);
    assert_eq!(world.act(&Act::Type(vec![b'y'])) >> 1, 0, "nobody takes what is typed");
    assert_eq!(world.log.0, []);
    assert_eq!(world.computer.strays().ports, 2);
}

/// The bytes of the parts, by name.
#[derive(Default)]
struct Collected(Vec<(&'static str, Vec<u8>)>);

impl Visitor for Collected {
    fn part<T: Serialize>(&mut self, name: &'static str, state: &T) {
        self.0.push((name, postcard::to_allocvec(state).expect("a state has bytes")));
    }
}

fn collect(computer: &Computer) -> Vec<(&'static str, Vec<u8>)> {
    let mut collected = Collected::default();
    computer.visit(&mut collected);
    collected.0
}

proptest! {
    #[test]
    fn the_parts_together_are_the_state(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        let parts = collect(&world.computer);
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        prop_assert_eq!(&names[..NAMES.len()], &NAMES[..]);
        prop_assert!(names[NAMES.len()..].iter().eq(FUNCTIONS.iter().take(names.len() - NAMES.len())));
        for act in &acts {
            let (before, parts) = (world.computer.save(), collect(&world.computer));
            world.act(act);
            let (after, others) = (world.computer.save(), collect(&world.computer));
            prop_assert_eq!(before == after, parts == others, "what changes shows");
            let state = postcard::to_allocvec(&after).expect("a state has bytes");
            // Only the number of slots is in no part.
            prop_assert_eq!(others.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + 1, state.len());
        }
    }
}
