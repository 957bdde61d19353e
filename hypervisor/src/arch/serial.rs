//! The serial port COM1: 115200 8N1, polled. No port, or one that fails its loop-back test: output is dropped.

use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

const COM1: u16 = 0x3F8;

/// Polls until a byte is given up: longer than 16 bytes take at 115200 baud on any machine (1.4 ms), and an end for
/// a port that is stuck.
const SEND_POLLS: u32 = 1_000_000;

static PRESENT: AtomicBool = AtomicBool::new(false);
static UART: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

fn com1() -> Option<Uart16550<PioBackend>> {
    // SAFETY: 1. COM1's eight ports belong to this module. 2. The console's lock lets one processor at a time in; who
    // comes without it (panic, NMI) must get a byte out at any price, and a UART cannot harm memory.
    unsafe { Uart16550::new_port(COM1) }.ok()
}

/// Sets the port up. Returns whether there is one that works.
pub fn init() -> bool {
    let mut uart = com1();
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
    let works = uart.as_mut().is_some_and(|u| u.init(config).is_ok() && u.test_loopback().is_ok());
    *UART.lock() = uart;
    PRESENT.store(works, Ordering::Relaxed);
    works
}

/// Sends bytes; a line feed becomes carriage return and line feed.
pub fn write(text: &str) {
    with_uart(|uart| {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(uart, b'\r');
            }
            send(uart, byte);
        }
    });
}

/// Waits (bounded) until the last bit has left the port.
pub fn flush() {
    with_uart(|uart| {
        for _ in 0..SEND_POLLS {
            if uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
            core::hint::spin_loop();
        }
    });
}

fn with_uart(use_it: impl FnOnce(&mut Uart16550<PioBackend>)) {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    match UART.try_lock() {
        Some(mut uart) => {
            if let Some(uart) = uart.as_mut() {
                use_it(uart);
            }
        }
        None => {
            if let Some(mut uart) = com1() {
                use_it(&mut uart);
            }
        }
    }
}

fn send(uart: &mut Uart16550<PioBackend>, byte: u8) {
    for _ in 0..SEND_POLLS {
        if uart.try_send_byte(byte).is_ok() {
            return;
        }
        core::hint::spin_loop();
    }
}
