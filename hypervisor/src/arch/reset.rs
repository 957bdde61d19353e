//! Restarting the machine and switching it off, by every way there is, one after the other.

use super::{paging, port, serial, time};
use crate::firmware::fadt::{Place, PowerOff, Reset};
use crate::hal::PciConfig;
use boot::memory_map::Range;
use pci::{Address, ConfigSpace};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// Microseconds given to each way before the next is tried.
const PATIENCE: u64 = 200_000;

/// Restarts: ACPI's reset register, the chipset's port CF9h, the keyboard controller, a triple fault.
pub fn restart(acpi: Option<Reset>) -> ! {
    serial::flush();
    if let Some(reset) = acpi {
        by_acpi(reset);
        time::wait_micros(PATIENCE);
    }
    log::warn!("restart: ACPI's reset register is absent or had no effect; trying port 0xcf9");
    serial::flush();
    const HARD: u8 = 0x02;
    const GO: u8 = 0x04;
    port::write_u8(0xCF9, HARD);
    port::write_u8(0xCF9, HARD | GO);
    time::wait_micros(PATIENCE);
    log::warn!("restart: port 0xcf9 had no effect; trying the keyboard controller");
    serial::flush();
    const INPUT_FULL: u8 = 2;
    time::wait_until(PATIENCE, || port::read_u8(0x64) & INPUT_FULL == 0);
    port::write_u8(0x64, 0xFE); // pulse the reset line
    time::wait_micros(PATIENCE);
    log::warn!("restart: the keyboard controller had no effect; triple fault");
    serial::flush();
    triple_fault()
}

fn by_acpi(reset: Reset) {
    match reset.place {
        Place::Port(p) => port::write_u8(p, reset.value),
        Place::Memory(address) => {
            let range = Range::from_length(address, 1);
            if paging::ensure(range, paging::Rights::DEVICE).is_ok() && paging::is_device(range) {
                // SAFETY: mapped as device memory (checked); the firmware's table says that it is the reset register.
                unsafe { (address as *mut u8).write_volatile(reset.value) };
            }
        }
        Place::Pci { device, function, offset } => {
            let Some(address) = Address::new(0, 0, device, function) else { return };
            let shift = u32::from(offset & 3) * 8;
            let mut config = PciConfig::default();
            let word = config.read_u32(address, offset & !3) & !(0xFF << shift);
            config.write_u32(address, offset & !3, word | u32::from(reset.value) << shift);
        }
    }
}

/// No interrupt table, and an exception: the processor shuts down, and the chipset resets it.
fn triple_fault() -> ! {
    let none = DescriptorTablePointer { limit: 0, base: VirtAddr::zero() };
    // SAFETY: the kernel ends here.
    unsafe {
        lidt(&none);
        core::arch::asm!("ud2", options(noreturn));
    }
}

/// Switches off by ACPI. Returns if the machine is still on.
pub fn power_off(acpi: &PowerOff) {
    serial::flush();
    if let Some((port, value)) = acpi.enable
        && port::read_u16(acpi.control_a) & PowerOff::ENABLED == 0
    {
        port::write_u8(port, value);
        time::wait_until(PATIENCE, || port::read_u16(acpi.control_a) & PowerOff::ENABLED != 0);
    }
    for (control, sleep_type) in
        [(Some(acpi.control_a), acpi.sleep_type.0), (acpi.control_b, acpi.sleep_type.1)]
    {
        if let Some(control) = control {
            port::write_u16(control, PowerOff::value(port::read_u16(control), sleep_type));
        }
    }
    time::wait_micros(PATIENCE);
    log::error!("the machine has not switched itself off");
}
