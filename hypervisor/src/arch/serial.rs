//! The serial port COM1: 115200 8N1. No port, or one that fails its loop-back test: output is dropped.
//!
//! At boot and in the last words it is polled, and a write returns when the port has taken everything. Once [`queue`] has
//! been called, writes go to a queue that interrupts empty, and what is received is put into another: 115200 baud must
//! not hold a guest up. Where no interrupt comes, an alarm has the port looked at.

use super::alarm::{self, Alarm};
use super::idt::vector;
use super::{ioapic, percpu, port, proof, time};
use crate::duties::{self, HOST};
use crate::firmware::madt::Madt;
use crate::ring::ByteRing;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

const COM1: u16 = 0x3F8;

/// Its legacy interrupt.
const IRQ: u8 = 4;

/// Registers: received and transmitted bytes, interrupt enable, interrupt identification, modem control, line status.
const DATA: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const IDENTIFICATION: u16 = COM1 + 2;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;

/// Interrupt enable: a byte was received; the transmitter's FIFO is empty.
const ON_RECEIVED: u8 = 1 << 0;
const ON_EMPTY: u8 = 1 << 1;
/// Identification: nothing pending; FIFOs are on.
const NOTHING: u8 = 1 << 0;
const FIFOS: u8 = 3 << 6;
/// Modem control: DTR, RTS, and OUT2, which lets the PC's port interrupt.
const READY: u8 = 1 << 0 | 1 << 1 | 1 << 3;
/// Line status: a byte was received; one was lost; the transmitter's FIFO is empty; its last bit has left.
const RECEIVED: u8 = 1 << 0;
const OVERRUN: u8 = 1 << 1;
const FIFO_EMPTY: u8 = 1 << 5;
const IDLE: u8 = 1 << 6;

/// Polls until a byte is given up: longer than 16 bytes take at 115200 baud on any machine (1.4 ms), and an end for
/// a port that is stuck.
const SEND_POLLS: u32 = 1_000_000;

/// Bytes that a full FIFO holds.
const FIFO: usize = 16;

/// Bytes of the queues. 64 KiB are 6 s of transmission: whoever writes more at once waits for the port.
const TRANSMIT_QUEUE: usize = 64 * 1024;
const RECEIVE_QUEUE: usize = 4096;

/// Bytes taken from the port, or causes served, in one interrupt at most: a port that is stuck ends somewhere.
const BATCH: usize = 256;

/// Without an interrupt: how often the port is looked at while there is something to send, and else; nanoseconds.
const POLL_BUSY_NS: u64 = 1_300_000;
const POLL_IDLE_NS: u64 = 10_000_000;

/// How long the interrupt may take to come in its test, in microseconds.
const TEST_MICROS: u64 = 5_000;

/// How bytes get out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Way {
    /// Not at all.
    Absent = 0,
    /// The writer polls.
    Direct = 1,
    /// By the queue.
    Queued = 2,
}

static WAY: AtomicU8 = AtomicU8::new(Way::Absent as u8);
static DEPTH: AtomicU8 = AtomicU8::new(1);
static TRANSMIT: ByteRing<TRANSMIT_QUEUE> = ByteRing::new();
static RECEIVE: ByteRing<RECEIVE_QUEUE> = ByteRing::new();
/// Somebody uses the port's registers.
static BUSY: AtomicBool = AtomicBool::new(false);
/// The interrupt has come at least once.
static INTERRUPTS: AtomicBool = AtomicBool::new(false);
/// What the interrupt-enable register holds.
static ENABLED: AtomicU8 = AtomicU8::new(0);
/// Bytes received and lost, and bytes that found the queue full and had to wait for the port.
static LOST: AtomicU64 = AtomicU64::new(0);
static WAITED: AtomicU64 = AtomicU64::new(0);

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received bytes that found no room, in the port or in the queue.
    pub lost: u64,
    /// Bytes for which the writer had to wait.
    pub waited: u64,
    /// Bytes in the queue to be sent.
    pub queued: usize,
}

fn way() -> Way {
    match WAY.load(Ordering::Relaxed) {
        1 => Way::Direct,
        2 => Way::Queued,
        _ => Way::Absent,
    }
}

/// Sets the port up. Returns whether there is one that works.
pub fn init() -> bool {
    // SAFETY: COM1's eight ports belong to this module, and a UART cannot harm memory.
    let mut uart = unsafe { Uart16550::<PioBackend>::new_port(COM1) }.ok();
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
    let works = uart.as_mut().is_some_and(|u| u.init(config).is_ok() && u.test_loopback().is_ok());
    if works {
        port::write_u8(MODEM_CONTROL, READY);
        enable(0);
        let fifos = port::read_u8(IDENTIFICATION) & FIFOS == FIFOS;
        DEPTH.store(if fifos { FIFO as u8 } else { 1 }, Ordering::Relaxed);
    }
    WAY.store(if works { Way::Direct } else { Way::Absent } as u8, Ordering::Relaxed);
    works
}

/// From now on writes are queued, and received bytes are. On the boot processor, with its alarms at work. Returns whether
/// the port interrupts; if not, it is polled.
pub fn queue(madt: Option<&Madt>) -> bool {
    if way() != Way::Direct {
        return way() == Way::Queued && INTERRUPTS.load(Ordering::Relaxed);
    }
    // What is there already is of firmware, boot loader and loop-back test.
    for _ in 0..BATCH {
        if port::read_u8(LINE_STATUS) & RECEIVED == 0 {
            break;
        }
        port::read_u8(DATA);
    }
    let pin = madt.and_then(|madt| ioapic::route(madt.isa_line(IRQ), vector::SERIAL, |_| interrupt()).ok());
    if let Some(pin) = pin {
        pin.unmask();
        // An idle transmitter interrupts at once.
        while_busy(|| enable(ON_RECEIVED | ON_EMPTY));
        time::wait_until(TEST_MICROS, || {
            proof::drain_interrupts();
            INTERRUPTS.load(Ordering::Relaxed)
        });
        if !INTERRUPTS.load(Ordering::Relaxed) {
            while_busy(|| enable(0));
            pin.mask();
        }
    }
    WAY.store(Way::Queued as u8, Ordering::Relaxed);
    serve();
    INTERRUPTS.load(Ordering::Relaxed)
}

/// Back to writes that wait, with what is queued sent first: for the last words. Takes the port from whoever has it.
pub fn direct() {
    if way() != Way::Queued {
        return;
    }
    BUSY.store(true, Ordering::SeqCst);
    WAY.store(Way::Direct as u8, Ordering::Relaxed);
    enable(0);
    while let Some(byte) = TRANSMIT.pop() {
        send(byte);
    }
}

/// Sends text; a line feed becomes carriage return and line feed. The caller has the console's lock.
pub fn write(text: &str) {
    for byte in text.bytes() {
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
    kick();
}

/// Sends bytes as they are. The caller has the console's lock.
pub fn write_raw(bytes: &[u8]) {
    bytes.iter().for_each(|byte| put(*byte));
    kick();
}

/// The next received byte.
pub fn read() -> Option<u8> {
    RECEIVE.pop()
}

/// Does what the interrupt would have done, if there is none; to be called for [`duties::SERIAL`].
pub fn serve() {
    if way() != Way::Queued || INTERRUPTS.load(Ordering::Relaxed) {
        return;
    }
    while_busy(|| {
        receive();
        refill();
    });
    let patience = if TRANSMIT.is_empty() { POLL_IDLE_NS } else { POLL_BUSY_NS };
    alarm::set(Alarm::Serial, Some(time::now_ns().saturating_add(patience)));
}

/// What has gone wrong so far.
pub fn counters() -> Counters {
    Counters {
        lost: LOST.load(Ordering::Relaxed),
        waited: WAITED.load(Ordering::Relaxed),
        queued: TRANSMIT.len(),
    }
}

/// Waits (bounded) until the last bit has left the port, and the queue is empty.
pub fn flush() {
    if way() == Way::Absent {
        return;
    }
    let mut left = TRANSMIT_QUEUE;
    while left > 0 && !TRANSMIT.is_empty() {
        make_room();
        left = left.saturating_sub(1);
    }
    wait_for(IDLE);
}

fn put(byte: u8) {
    match way() {
        Way::Absent => {}
        Way::Direct => send(byte),
        Way::Queued => {
            if TRANSMIT.push(byte) {
                return;
            }
            WAITED.fetch_add(1, Ordering::Relaxed);
            make_room();
            // Not even now: the port is stuck.
            let _ = TRANSMIT.push(byte);
        }
    }
}

/// Sends one byte by polling.
fn send(byte: u8) {
    if wait_for(FIFO_EMPTY) {
        port::write_u8(DATA, byte);
    }
}

/// Waits (bounded) for a bit of the line status.
fn wait_for(bit: u8) -> bool {
    for _ in 0..SEND_POLLS {
        if port::read_u8(LINE_STATUS) & bit != 0 {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Sends as much of the queue as the FIFO holds, by polling.
fn make_room() {
    while_busy(|| {
        if !wait_for(FIFO_EMPTY) {
            // Stuck: what does not get out is dropped, or everybody would wait for it for ever.
            (0..FIFO).for_each(|_| _ = TRANSMIT.pop());
        }
        refill();
    });
}

/// Sees to it that what is queued gets sent, if nobody else does already.
fn kick() {
    while way() == Way::Queued
        && !TRANSMIT.is_empty()
        && ENABLED.load(Ordering::SeqCst) & ON_EMPTY == 0
        && !BUSY.swap(true, Ordering::SeqCst)
    {
        refill();
        BUSY.store(false, Ordering::SeqCst);
        if !INTERRUPTS.load(Ordering::Relaxed) {
            let due = alarm::deadline(Alarm::Serial).unwrap_or(u64::MAX);
            let soon = time::now_ns().saturating_add(POLL_BUSY_NS);
            // Another processor's lines wait for the next look at the idle port.
            if percpu::number() == 0 && soon < due {
                alarm::set(Alarm::Serial, Some(soon));
            }
            return;
        }
    }
}

/// Runs `f` as the only user of the port's registers. Who waits for too long goes in regardless: the port bears it.
fn while_busy(f: impl FnOnce()) {
    for _ in 0..SEND_POLLS {
        if !BUSY.swap(true, Ordering::SeqCst) {
            break;
        }
        core::hint::spin_loop();
    }
    f();
    BUSY.store(false, Ordering::SeqCst);
}

fn enable(interrupts: u8) {
    ENABLED.store(interrupts, Ordering::SeqCst);
    port::write_u8(INTERRUPT_ENABLE, interrupts);
}

/// Fills the FIFO if it is empty, and asks for an interrupt when it is again, if anything is left.
fn refill() {
    if port::read_u8(LINE_STATUS) & FIFO_EMPTY != 0 {
        for _ in 0..DEPTH.load(Ordering::Relaxed) {
            match TRANSMIT.pop() {
                Some(byte) => port::write_u8(DATA, byte),
                None => break,
            }
        }
    }
    if !INTERRUPTS.load(Ordering::Relaxed) {
        return;
    }
    let wanted = ON_RECEIVED | if TRANSMIT.is_empty() { 0 } else { ON_EMPTY };
    if ENABLED.load(Ordering::SeqCst) != wanted {
        enable(wanted);
    }
}

/// Takes what has been received.
fn receive() {
    for _ in 0..BATCH {
        let status = port::read_u8(LINE_STATUS);
        if status & OVERRUN != 0 {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        if status & RECEIVED == 0 {
            return;
        }
        if !RECEIVE.push(port::read_u8(DATA)) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        HOST.raise(duties::SERIAL);
    }
}

/// The port's interrupt: an edge, so it must not return while a cause is left.
fn interrupt() {
    INTERRUPTS.store(true, Ordering::Relaxed);
    while_busy(|| {
        for _ in 0..BATCH {
            let nothing_left = port::read_u8(IDENTIFICATION) & NOTHING != 0;
            receive();
            refill();
            if nothing_left {
                return;
            }
        }
    });
}
