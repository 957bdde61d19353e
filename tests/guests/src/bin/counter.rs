//! Does a server that counts answer every request once, whatever host it runs on?
//!
//! Run it as a guest of the hypervisor with a network device. On port 6379 it takes the inline commands INCR, SET, GET and PING
//! of the Redis protocol; who connects to port 9 switches it off. Words: address=A.B.C.D as a number (10.0.2.15), busy=1 to compute
//! between interrupts instead of waiting for them, quiet=1 to say nothing on the console while it counts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use guests::traps::{self, Frame};
use guests::virtio::{self, BUFFERS, Descriptor, peek, poke};
use guests::{Report, boot, cpu, devices, println};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};

guests::program!(run);

/// Vectors of the PICs begin here.
const VECTORS: u8 = 0x50;
/// PIT ticks of 20 ms: how late the stack's own deadlines may be.
const TICK: u16 = 23_864;
/// Bytes before a frame in a buffer (virtio 1.2, 5.1.6).
const HEADER: u64 = 12;
/// Bytes of a buffer, header and all.
const ROOM: u64 = 0x800;
/// The longest frame, bytes.
const LONGEST: usize = 1514;
/// The shortest, bytes.
const LEAST: usize = 60;
/// Where the buffers of sent frames begin.
const SENT: u64 = BUFFERS + ROOM * virtio::SIZE as u64;
/// The server's port.
const PORT: u16 = 6379;
/// The port that switches it off.
const QUIT: u16 = 9;
/// Connections that it serves at once.
const CLIENTS: usize = 3;
/// Bytes of each direction's buffer of a connection.
const BUFFER: usize = 2048;
/// The longest command, bytes.
const COMMAND: usize = 128;
/// Keys that it can hold.
const KEYS: usize = 4096;
/// The console hears of every so-manieth INCR.
const SAY_EVERY: u64 = 100;

/// The virtio card as the stack's device.
struct Card {
    device: virtio::Device,
    /// Received chains that have been taken.
    seen: u16,
    /// Chains that have been offered for sending.
    sent: u16,
}

/// A frame.
struct Bytes {
    bytes: [u8; LONGEST],
    length: usize,
}

/// Room for a frame to send.
struct Leaving<'a>(&'a mut Card);

impl phy::RxToken for Bytes {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.bytes[..self.length])
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = [0; LONGEST];
        let result = write(&mut frame[..length]);
        self.0.send(&frame[..length.max(LEAST)]);
        result
    }
}

impl phy::Device for Card {
    type RxToken<'a> = Bytes;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Bytes, Leaving<'_>)> {
        let frame = self.take()?;
        Some((frame, Leaving(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaving<'_>> {
        let waiting = self.sent.wrapping_sub(virtio::Device::used(1).0);
        (waiting < virtio::SIZE).then_some(Leaving(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = LONGEST;
        capabilities
    }
}

impl Card {
    fn start(device: virtio::Device) -> Option<Self> {
        (0..2).for_each(virtio::Device::clear);
        if !device.start(2, 1 << 5) {
            return None;
        }
        (0..virtio::SIZE).for_each(Self::offer);
        device.notify(0);
        Some(Card { device, seen: 0, sent: 0 })
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.device.specific(0).to_le_bytes();
        let [e, f, ..] = self.device.specific(4).to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Offers the receive buffer of a slot.
    fn offer(slot: u16) {
        let address = BUFFERS + ROOM * u64::from(slot);
        let descriptor = Descriptor { address, length: ROOM as u32, flags: 2, next: 0 };
        poke(virtio::places(0)[0] + 16 * u64::from(slot), descriptor);
        virtio::Device::offer(0, slot);
    }

    /// The next frame that has come.
    fn take(&mut self) -> Option<Bytes> {
        let used = virtio::places(0)[2];
        if peek::<u16>(used + 2) == self.seen {
            return None;
        }
        let place = used + 4 + 8 * u64::from(self.seen % virtio::SIZE);
        let (slot, length): (u32, u32) = (peek(place), peek(place + 4));
        let slot = slot as u16 % virtio::SIZE;
        let length = (length as usize).saturating_sub(HEADER as usize).min(LONGEST);
        let mut frame = Bytes { bytes: [0; LONGEST], length };
        let from = BUFFERS + ROOM * u64::from(slot) + HEADER;
        for (byte, at) in frame.bytes[..length].iter_mut().zip(from..) {
            *byte = peek(at);
        }
        self.seen = self.seen.wrapping_add(1);
        Self::offer(slot);
        self.device.notify(0);
        Some(frame)
    }

    fn send(&mut self, frame: &[u8]) {
        let slot = self.sent % virtio::SIZE;
        let at = SENT + ROOM * u64::from(slot);
        (0..HEADER).for_each(|byte| poke(at + byte, 0u8));
        frame.iter().zip(at + HEADER..).for_each(|(byte, at)| poke(at, *byte));
        let length = HEADER as u32 + frame.len() as u32;
        let descriptor = Descriptor { address: at, length, flags: 0, next: 0 };
        poke(virtio::places(1)[0] + 16 * u64::from(slot), descriptor);
        virtio::Device::offer(1, slot);
        self.device.notify(1);
        self.sent = self.sent.wrapping_add(1);
    }
}

/// What is stored: keys of 1 to 8 bytes, values of at most 16, as numbers; 0 is no key.
static STORED: [[AtomicU64; 3]; KEYS] = [const { [const { AtomicU64::new(0) }; 3] }; KEYS];

/// A text of at most 16 bytes.
#[derive(Clone, Copy, Default)]
struct Value {
    bytes: [u8; 16],
    length: usize,
}

impl Value {
    fn of(text: &[u8]) -> Option<Self> {
        let mut value = Value { bytes: [0; 16], length: text.len() };
        value.bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(value)
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn number(&self) -> Option<u64> {
        core::str::from_utf8(self.text()).ok()?.parse().ok()
    }
}

impl Write for Value {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The place of a key, or the free one where it belongs.
fn place(key: &[u8]) -> Option<(u64, &'static [AtomicU64; 3])> {
    if key.is_empty() || key.len() > 8 || key[0] == 0 {
        return None;
    }
    let number = key.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let first = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
    let mut places = (0..KEYS).map(|step| &STORED[(first + step) % KEYS]);
    let place = places.find(|place| [0, number].contains(&place[0].load(SeqCst)))?;
    Some((number, place))
}

fn get(key: &[u8]) -> Option<Value> {
    let (number, place) = place(key)?;
    let [own, low, high] = place.each_ref().map(|word| word.load(SeqCst));
    if own != number {
        return None;
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
    Some(Value { bytes, length })
}

fn set(key: &[u8], value: &Value) -> bool {
    let Some((number, place)) = place(key) else { return false };
    let half = |from: usize| u64::from_le_bytes(core::array::from_fn(|byte| value.bytes[from + byte]));
    for (word, number) in place.iter().zip([number, half(0), half(8)]) {
        word.store(number, SeqCst);
    }
    true
}

/// Answers one command. False: the answer did not fit.
fn answer(line: &[u8], socket: &mut Socket<'_>, quiet: bool) -> bool {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let mut word = || words.next().unwrap_or_default();
    let (command, key, value) = (word(), word(), word());
    match command {
        b"INCR" => {
            let next = get(key).unwrap_or_default().number().unwrap_or(0).wrapping_add(1);
            let mut value = Value::default();
            if write!(value, "{next}").is_err() || !set(key, &value) {
                return write!(socket, "-ERR no room\r\n").is_ok();
            }
            if next.is_multiple_of(SAY_EVERY) && !quiet {
                println!("counted {next}");
            }
            write!(socket, ":{next}\r\n").is_ok()
        }
        b"SET" => match Value::of(value) {
            Some(value) if set(key, &value) => write!(socket, "+OK\r\n").is_ok(),
            _ => write!(socket, "-ERR no room\r\n").is_ok(),
        },
        b"GET" => match get(key) {
            Some(value) => {
                let text = core::str::from_utf8(value.text()).unwrap_or_default();
                write!(socket, "${}\r\n{text}\r\n", text.len()).is_ok()
            }
            None => write!(socket, "$-1\r\n").is_ok(),
        },
        b"PING" => write!(socket, "+PONG\r\n").is_ok(),
        _ => write!(socket, "-ERR unknown command\r\n").is_ok(),
    }
}

/// What has come of a command on one connection. The stack's own buffer is a ring: a command may lie across its end.
struct Line {
    bytes: [u8; COMMAND],
    length: usize,
}

impl Line {
    /// Takes one byte; true: it was a command's last.
    fn take(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            return true;
        }
        // No command is so long: what does not fit makes it an unknown one.
        if byte != b'\r' && self.length < COMMAND {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        false
    }
}

/// Serves one connection: a command at a time. How many were answered.
fn serve(socket: &mut Socket<'_>, line: &mut Line, quiet: bool) -> u64 {
    if socket.state() == State::CloseWait {
        socket.close();
    }
    if !socket.is_open() {
        line.length = 0;
        // A closed socket and a port that is not 0: it cannot fail.
        let _ = socket.listen(PORT);
    }
    let (mut answered, mut byte) = (0, [0]);
    while socket.can_recv() && socket.can_send() && socket.recv_slice(&mut byte) == Ok(1) {
        if !line.take(byte[0]) {
            continue;
        }
        let length = core::mem::take(&mut line.length);
        if !answer(&line.bytes[..length], socket, quiet) {
            socket.abort();
            break;
        }
        answered += 1;
    }
    answered
}

fn on_tick(_: &mut Frame) {
    devices::pic_end_of_interrupt();
}

/// The card's pin stays up until the main loop has asked the card why.
fn on_card(_: &mut Frame) {
    devices::pic_hold_pci_off();
}

/// The guest's clock: a tick of its counter is a nanosecond.
fn now() -> Instant {
    Instant::from_micros((cpu::rdtsc() / 1_000) as i64)
}

fn run(report: &mut Report) {
    let device = virtio::devices().find(|device| device.kind == virtio::NET);
    let Some(mut card) = device.and_then(Card::start) else {
        report.holds("network-card", false);
        return;
    };
    traps::set_handler(VECTORS, Some(on_tick));
    for line in [10, 11] {
        traps::set_handler(VECTORS + line, Some(on_card));
    }
    devices::pic_set_up(VECTORS);
    devices::pit_every(TICK);
    let address = boot::number("address", u64::from(u32::from_be_bytes([10, 0, 2, 15]))) as u32;
    let (busy, quiet) = (boot::number("busy", 0) != 0, boot::number("quiet", 0) != 0);
    let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(card.mac())));
    let mut interface = Interface::new(config, &mut card, now());
    interface.update_ip_addrs(|addresses| {
        // There is room for one.
        let _ = addresses.push(IpCidr::new(Ipv4Address::from_bits(address).into(), 24));
    });
    let mut buffers = [[[0; BUFFER]; 2]; CLIENTS + 1];
    let mut storage = [const { SocketStorage::EMPTY }; CLIENTS + 1];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let mut handles = [None::<SocketHandle>; CLIENTS + 1];
    for (handle, [receive, send]) in handles.iter_mut().zip(&mut buffers) {
        let mut socket = Socket::new(SocketBuffer::new(&mut receive[..]), SocketBuffer::new(&mut send[..]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        *handle = Some(sockets.add(socket));
    }
    let mut lines = [const { Line { bytes: [0; COMMAND], length: 0 } }; CLIENTS];
    println!("serving on {PORT}");
    let (mut answered, mut sum) = (0, 1u64);
    loop {
        card.device.isr();
        interface.poll(now(), &mut card, &mut sockets);
        for (handle, line) in handles[..CLIENTS].iter().flatten().zip(&mut lines) {
            answered += serve(sockets.get_mut(*handle), line, quiet);
        }
        if let Some(handle) = handles[CLIENTS] {
            let socket = sockets.get_mut::<Socket<'_>>(handle);
            if matches!(socket.state(), State::Established | State::CloseWait) {
                socket.abort();
                interface.poll(now(), &mut card, &mut sockets);
                break;
            }
            if !socket.is_open() {
                let _ = socket.listen(QUIT);
            }
        }
        interface.poll(now(), &mut card, &mut sockets);
        devices::pic_let_pci_in();
        if busy {
            cpu::interrupts_on();
            // xorshift64: work whose result depends on every step.
            for _ in 0..2_000 {
                sum ^= sum << 13;
                sum ^= sum >> 7;
                sum ^= sum << 17;
            }
            cpu::interrupts_off();
        } else {
            cpu::wait_for_interrupt();
        }
    }
    devices::pit_stop();
    println!(
        "answered {answered}, counter {}, sum {sum:#x}",
        get(b"lockstep").and_then(|v| v.number()).unwrap_or(0)
    );
    report.holds("served", answered > 0);
}
