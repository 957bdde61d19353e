//! The DSDT's code: what the board has that cannot be found by looking.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, If, Interrupt, Method, Name,
    PackageBuilder, Path, ResourceTemplate, Return, Scope, Store,
};

use super::acpi::{Board, S5_TYPE};

/// The bridge's window for device memory: first and last address.
pub const PCI_MEMORY: (u32, u32) = (0xe000_0000, 0xfebf_ffff);
/// GSI of pin A of device 0; the pins of four devices rotate through this one and the next three.
pub const PCI_GSI: u32 = 16;
/// The ISA interrupts that the ISA bridge routes PIRQA to PIRQD to: what SeaBIOS programs on this board, and what the
/// bridge has at power-on.
pub const PIRQ: [u32; 4] = [10, 10, 11, 11];
/// Devices on bus 0 that can have an interrupt: all but the two bridges.
const SLOTS: core::ops::Range<u32> = 2..32;

/// GSI of a pin (0 for A) with the I/O APIC.
pub const fn apic_interrupt(device: u32, pin: u32) -> u32 {
    PCI_GSI + (device + pin) % 4
}

/// ISA interrupt of a pin (0 for A) with the PIC: PIIX3's wiring, one behind.
pub const fn pic_interrupt(device: u32, pin: u32) -> u32 {
    PIRQ[((device + 3 + pin) % 4) as usize]
}

/// The whole program.
pub fn program(board: &Board) -> Vec<u8> {
    let mut code = Vec::new();
    // The sleep types for the two control registers, of which there is one.
    let mut s5 = PackageBuilder::new();
    [S5_TYPE, 0, 0, 0].iter().for_each(|value| s5.add_element(value));
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut code);
    // The system says here which interrupt controller it uses: 0 for the PIC, 1 for the I/O APIC.
    Name::new("PICF".into(), &0u8).to_aml_bytes(&mut code);
    let remember = Store::new(&path("PICF"), &Arg(0)).bytes();
    Method::new("_PIC".into(), 1, false, vec![&remember]).to_aml_bytes(&mut code);
    let (processor, bridge) = (processor(), host_bridge(board));
    Scope::new("_SB_".into(), vec![&processor, &bridge]).to_aml_bytes(&mut code);
    code
}

/// AML that is made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// AML of something that borrows, as something that does not.
trait Bytes {
    fn bytes(&self) -> Raw;
}

impl<T: Aml> Bytes for T {
    fn bytes(&self) -> Raw {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        Raw(bytes)
    }
}

fn path(name: &str) -> Path {
    Path::new(name)
}

fn name(path: &str, value: &dyn Aml) -> Raw {
    Name::new(path.into(), value).bytes()
}

/// A device with `_HID` and `_CRS`.
fn device(path: &str, id: &str, resources: &[&dyn Aml], more: &[&dyn Aml]) -> Raw {
    let id = name("_HID", &EISAName::new(id));
    let resources = name("_CRS", &ResourceTemplate::new(resources.to_vec()));
    let children = [&id as &dyn Aml, &resources].into_iter().chain(more.iter().copied());
    Device::new(path.into(), children.collect()).bytes()
}

/// Ports, decoded at 16 bits.
fn ports(first: u16, length: u8) -> IO {
    IO::new(first, first, 1, length)
}

/// An ISA interrupt: edge-triggered, active high, not shared.
fn isa(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

/// The processor, by the number that the MADT has for it.
fn processor() -> Raw {
    let (id, number) = (name("_HID", &"ACPI0007"), name("_UID", &0u8));
    Device::new("CPU0".into(), vec![&id, &number]).bytes()
}

fn host_bridge(board: &Board) -> Raw {
    let bus = AddressSpace::new_bus_number(0u16, 0xff);
    let (low, high) = (AddressSpace::new_io(0u16, 0xcf7, None), AddressSpace::new_io(0xd00u16, 0xffff, None));
    let (first, last) = PCI_MEMORY;
    let memory = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let number = name("_UID", &0u8);
    let (apic, pic) = (name("PRTA", &routing(apic_interrupt)), name("PRTP", &routing(pic_interrupt)));
    let with_apic = Return::new(&path("PRTA")).bytes();
    let choose = If::new(&path("PICF"), vec![&with_apic]).bytes();
    let with_pic = Return::new(&path("PRTP")).bytes();
    let route = Method::new("_PRT".into(), 0, false, vec![&choose, &with_pic]).bytes();
    let isa = isa_bridge(board);
    device(
        "PCI0",
        "PNP0A03",
        &[&bus, &ports(0xcf8, 8), &low, &high, &memory],
        &[&number, &apic, &pic, &route, &isa],
    )
}

/// Which interrupt each pin of each device has: packages of address, pin, no link device, interrupt.
fn routing(interrupt: impl Fn(u32, u32) -> u32) -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for (device, pin) in SLOTS.flat_map(|device| (0..4).map(move |pin| (device, pin))) {
        let mut entry = PackageBuilder::new();
        for value in [device << 16 | 0xffff, pin, 0, interrupt(device, pin)] {
            entry.add_element(&value);
        }
        table.add_element(&entry);
    }
    table
}

/// The ISA bridge and what hangs on it. There is no keyboard controller here: nothing is plugged into it.
fn isa_bridge(board: &Board) -> Raw {
    let address = name("_ADR", &0x0001_0000u32);
    let pic = device("PIC_", "PNP0000", &[&ports(0x20, 2), &ports(0xa0, 2), &ports(0x4d0, 2)], &[]);
    let timer = device("TIMR", "PNP0100", &[&ports(0x40, 4), &isa(0)], &[]);
    let clock = device("RTC_", "PNP0B00", &[&ports(0x70, 2), &isa(8)], &[]);
    // Ports that no driver may take for free: system control, POST code, reset, debug, fw_cfg, power management.
    let taken = [(0x61, 1), (0x80, 1), (0x92, 1), (0x402, 1), (0x510, 12), (0x600, 16)];
    let taken = taken.map(|(first, length)| ports(first, length));
    let taken: Vec<&dyn Aml> = taken.iter().map(|ports| ports as &dyn Aml).collect();
    let board_itself = device("MBRD", "PNP0C02", &taken, &[]);
    let mut children: Vec<Box<dyn Aml>> =
        vec![Box::new(address), Box::new(pic), Box::new(timer), Box::new(clock), Box::new(board_itself)];
    if board.serial {
        let number = name("_UID", &1u8);
        children.push(Box::new(device("COM1", "PNP0501", &[&ports(0x3f8, 8), &isa(4)], &[&number])));
    }
    Device::new("ISA_".into(), children.iter().map(AsRef::as_ref).collect()).bytes()
}
