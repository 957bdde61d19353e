//! What the tests of the interrupt controllers share.
#![allow(dead_code, reason = "each test uses a part")]

use machine::interrupts::Interrupts;

pub const MASTER: u16 = 0x20;
pub const SLAVE: u16 = 0xa0;

/// Controllers with the PIC programmed as a PC's BIOS does (vectors 8 and 70h), all lines open, in virtual wire mode.
pub fn pc() -> Interrupts {
    let mut all = Interrupts::new();
    all.set_virtual_wire();
    program(&mut all, MASTER, &[0x11, 0x08, 0x04, 0x01]);
    program(&mut all, SLAVE, &[0x11, 0x70, 0x02, 0x01]);
    all
}

pub fn program(all: &mut Interrupts, chip: u16, words: &[u8]) {
    all.write_port(chip, words[0]);
    words[1..].iter().for_each(|word| all.write_port(chip + 1, *word));
}

pub fn isr(all: &mut Interrupts, chip: u16) -> u8 {
    all.write_port(chip, 0x0b);
    all.read_port(chip)
}

pub fn irr(all: &mut Interrupts, chip: u16) -> u8 {
    all.write_port(chip, 0x0a);
    all.read_port(chip)
}

/// Controllers as an operating system uses them: PIC masked, local APIC on, ID 0.
pub fn apic() -> Interrupts {
    let mut all = Interrupts::new();
    all.write_apic(0xf0, 0x1ff, 0);
    all
}

pub fn redirect(all: &mut Interrupts, pin: u32, low: u32) {
    all.write_io_apic(0x00, 0x11 + 2 * pin);
    all.write_io_apic(0x10, 0);
    all.write_io_apic(0x00, 0x10 + 2 * pin);
    all.write_io_apic(0x10, low);
}

pub fn redirection(all: &mut Interrupts, pin: u32) -> u32 {
    all.write_io_apic(0x00, 0x10 + 2 * pin);
    all.read_io_apic(0x10)
}

pub fn end(all: &mut Interrupts) {
    all.write_apic(0xb0, 0, 0);
}
