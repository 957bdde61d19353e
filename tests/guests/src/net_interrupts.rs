//! A card's interrupts for test kernels: by message where the card has MSI, else by its pin and the I/O APIC. The handler
//! only counts; a pin is masked until the program has looked at the card. A tick of the APIC timer ends every wait.

use core::fmt;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicU32, Ordering};

use pci::{ConfigSpace, Function, Msi, command};

use crate::net::PortConfig;
use crate::{apic, cpu, traps};

/// Vectors of the card and of the tick.
const CARD_VECTOR: u8 = 0x51;
const TICK_VECTOR: u8 = 0x52;
/// Where messages go: the processor with APIC ID 0 (SDM 3A, 12.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
/// The I/O APIC's two registers: select, window.
const IO_APIC: usize = 0xfec0_0000;
const IO_APIC_WINDOW: usize = IO_APIC + 0x10;
/// First of the redirection table's registers, two for each pin.
const REDIRECTION: u32 = 0x10;
/// Of an entry: level, masked.
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
/// Counts of the APIC timer, divided by 16, between two ticks: some ms on the machines that run these programs.
const TICK_COUNT: u32 = 200_000;
/// No pin.
const NONE: u32 = u32::MAX;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
static PIN: AtomicU32 = AtomicU32::new(NONE);

/// How the card calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By message.
    Message,
    /// By this pin of the I/O APIC.
    Pin(u8),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Way::Message => f.write_str("message"),
            Way::Pin(pin) => write!(f, "pin-{pin}"),
        }
    }
}

/// Has the card's interrupts arrive. The card itself has still to be told to send some.
pub fn arrange(function: &Function) -> Result<Way, &'static str> {
    apic::enable();
    traps::set_handler(CARD_VECTOR, Some(|_| card()));
    traps::set_handler(TICK_VECTOR, Some(|_| apic::end_of_interrupt()));
    apic::write(apic::Register::TimerDivide, 3);
    apic::write(apic::Register::LvtTimer, 1 << 17 | u32::from(TICK_VECTOR));
    apic::write(apic::Register::TimerInitial, TICK_COUNT);
    let mut config = PortConfig;
    if let Some(msi) = Msi::find(&config, function) {
        config.modify_command(function.address, 0, command::INTERRUPT_DISABLE);
        msi.enable(&mut config, MESSAGE_ADDRESS | apic::id() << 12, CARD_VECTOR.into());
        return Ok(Way::Message);
    }
    let line = function.interrupt_line;
    if !(1..16).contains(&line) {
        return Err("firmware gave the card no interrupt line");
    }
    config.modify_command(function.address, command::INTERRUPT_DISABLE, 0);
    PIN.store(line.into(), Ordering::SeqCst);
    redirect(line.into(), true);
    Ok(Way::Pin(line))
}

/// Interrupts of the card so far.
pub fn count() -> u32 {
    INTERRUPTS.load(Ordering::SeqCst)
}

/// Waits for an interrupt of the card, or a tick: the caller has just looked at the card. True: it was the card.
pub fn wait() -> bool {
    let before = count();
    let pin = PIN.load(Ordering::SeqCst);
    if pin != NONE {
        redirect(pin, false);
    }
    cpu::wait_for_interrupt();
    count() != before
}

fn card() {
    INTERRUPTS.fetch_add(1, Ordering::SeqCst);
    let pin = PIN.load(Ordering::SeqCst);
    if pin != NONE {
        redirect(pin, true);
    }
    apic::end_of_interrupt();
}

/// Sends a pin to this processor; PCI's pins are levels.
fn redirect(pin: u32, masked: bool) {
    write_io_apic(REDIRECTION + 2 * pin + 1, apic::id() << 24);
    let mask = if masked { MASKED } else { 0 };
    write_io_apic(REDIRECTION + 2 * pin, mask | LEVEL | u32::from(CARD_VECTOR));
}

fn write_io_apic(register: u32, value: u32) {
    // SAFETY: the I/O APIC's page is mapped, uncached; it writes no memory, and its interrupts go to a handler that
    // returns.
    unsafe {
        write_volatile(IO_APIC as *mut u32, register);
        if read_volatile(IO_APIC_WINDOW as *const u32) != value {
            write_volatile(IO_APIC_WINDOW as *mut u32, value);
        }
    }
}
