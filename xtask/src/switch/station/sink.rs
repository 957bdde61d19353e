//! The station that receives a log: a TCP server that writes what comes into a file, as it comes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::device::Queues;
use super::{MAX_ROUNDS, instant, nanoseconds};
use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;

/// Bytes that may have arrived and not been written.
const WINDOW: usize = 512 << 10;
/// Bytes to the sender, who is told nothing.
const ANSWER: usize = 1024;
/// The station's Ethernet address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x6c, 0x73, 0xfd];

/// What has become of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the file.
    pub bytes: u64,
    /// The sender has said that it has everything.
    pub complete: bool,
    /// Why the file does not have what was received.
    pub error: Option<String>,
}

/// What has become of a log, while it is received and after.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Received>>);

impl Progress {
    /// As it is now.
    pub fn get(&self) -> Received {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Received)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where a log is received, and where it is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The station's address.
    pub ip: [u8; 4],
    /// Bits of it that name the network.
    pub prefix: u8,
    /// The port on which it listens.
    pub port: u16,
    /// Seed of its sequence numbers.
    pub seed: u64,
    /// The file. It is made at once, empty.
    pub file: PathBuf,
}

/// The station. It takes one connection in its life: a log has one sender.
pub struct Sink {
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: u16,
    /// The connection has come.
    taken: bool,
    file: File,
    progress: Progress,
    next: Option<Ns>,
}

impl Sink {
    /// The station as it is at time 0.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(config: &SinkConfig) -> Result<Self> {
        let file = create(&config.file)?;
        let mut queues = Queues::default();
        let mut settings = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        settings.random_seed = config.seed;
        let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
        let address = IpAddress::Ipv4(Ipv4Address::from(config.ip));
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(address, config.prefix.min(32)));
        });
        let mut socket = Socket::new(SocketBuffer::new(vec![0; WINDOW]), SocketBuffer::new(vec![0; ANSWER]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let (taken, progress) = (false, Progress::default());
        let mut sink =
            Sink { queues, interface, sockets, handle, port: config.port, taken, file, progress, next: None };
        sink.serve();
        Ok(sink)
    }

    /// What has become of the log; lasts longer than the station.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Goes on with the connection. True: something was done, the stack may have more to do.
    fn serve(&mut self) -> bool {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        match socket.state() {
            State::Closed if !self.taken => {
                // A closed socket and a port that is not 0: it cannot fail.
                let _ = socket.listen(self.port);
                return true;
            }
            State::Established | State::CloseWait => self.taken = true,
            _ => {}
        }
        let mut worked = false;
        while socket.can_recv() {
            worked = true;
            let (file, progress) = (&mut self.file, &self.progress);
            let _ = socket.recv(|bytes| {
                keep(file, progress, bytes);
                (bytes.len(), ())
            });
        }
        if socket.state() == State::CloseWait {
            self.progress.set(|received| received.complete = received.error.is_none());
            socket.close();
            return true;
        }
        worked
    }

    fn work(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        let at = instant(now);
        for _ in 0..MAX_ROUNDS {
            self.interface.poll(at, &mut self.queues, &mut self.sockets);
            if !self.serve() {
                break;
            }
        }
        self.interface.poll(at, &mut self.queues, &mut self.sockets);
        send.append(&mut self.queues.outgoing);
        let next = self.interface.poll_at(at, &self.sockets).map(nanoseconds);
        // A stack that wants to be asked at once has just been asked: time must pass.
        self.next = next.map(|at| at.max(now + 1_000));
    }
}

/// An empty file for a log.
///
/// # Errors
/// When it cannot be made.
pub fn create(file: &Path) -> Result<File> {
    File::create(file).with_context(|| format!("cannot write the log {}", file.display()))
}

/// Writes what has come. After an error nothing more is written: a log with a hole is worth less than its beginning.
fn keep(file: &mut File, progress: &Progress, bytes: &[u8]) {
    if progress.get().error.is_some() {
        return;
    }
    let written = file.write_all(bytes);
    progress.set(|received| match written {
        Ok(()) => received.bytes += bytes.len() as u64,
        Err(error) => received.error = Some(error.to_string()),
    });
}

impl World for Sink {
    fn frame(&mut self, now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        self.queues.incoming.push_back(frame.clone());
        self.work(now, send);
    }

    fn timer(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        self.work(now, send);
    }

    fn next_timer(&self) -> Option<Ns> {
        self.next
    }

    fn summary(&self) -> String {
        let Received { bytes, complete, error } = self.progress.get();
        let error = error.map(|error| format!(" error=\"{error}\"")).unwrap_or_default();
        format!("log-bytes={bytes} complete={complete}{error}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Station, StationConfig, Task, content};
    use super::*;

    /// A station sends 1 MiB to the sink over a wire of 100 us that loses one frame in `loss` and lets some wait.
    fn send(name: &str, loss: usize) -> (Received, Vec<u8>) {
        let file = std::env::temp_dir().join(format!("lockstep-sink-{}-{name}", std::process::id()));
        let config = SinkConfig { ip: [10, 0, 2, 15], prefix: 24, port: 5405, seed: 2, file: file.clone() };
        let mut sink = Sink::new(&config).unwrap();
        let progress = sink.progress();
        let task = Task::Send { port: 5405, mib: 1 };
        let clients = vec![Client { at: 0, to: [10, 0, 2, 15], task }];
        let mut station = Station::new(&StationConfig { clients, ..StationConfig::default() });
        let (mut now, mut passed) = (0, 0usize);
        let mut under_way: Vec<(Ns, bool, Vec<u8>)> = Vec::new();
        while !progress.get().complete && now < 600_000_000_000 {
            let (due, later) = under_way.into_iter().partition(|(at, ..)| *at <= now);
            under_way = later;
            let (mut up, mut down) = (Vec::new(), Vec::new());
            for (_, to_sink, frame) in due {
                if to_sink {
                    sink.frame(now, &Frame::from(frame), &mut down);
                } else {
                    station.frame(now, &Frame::from(frame), &mut up);
                }
            }
            if station.next_timer().is_some_and(|at| at <= now) {
                station.timer(now, &mut up);
            }
            if sink.next_timer().is_some_and(|at| at <= now) {
                sink.timer(now, &mut down);
            }
            for (to_sink, frame) in
                up.into_iter().map(|f| (true, f)).chain(down.into_iter().map(|f| (false, f)))
            {
                passed += 1;
                // Not every n-th: a repeated frame would meet the same fate again.
                let chance = (passed * 2_654_435_761) >> 16;
                if loss == 0 || chance % loss != 0 {
                    let late = if loss != 0 && passed % 7 == 0 { 300_000 } else { 0 };
                    under_way.push((now + 100_000 + late, to_sink, frame));
                }
            }
            let timers = [station.next_timer(), sink.next_timer()];
            let next = timers.into_iter().flatten().chain(under_way.iter().map(|(at, ..)| *at)).min();
            now = next.unwrap_or(u64::MAX).max(now + 1_000);
        }
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(sink.summary().starts_with("log-bytes="), "{}", sink.summary());
        (progress.get(), bytes)
    }

    #[test]
    fn what_is_sent_is_in_the_file() {
        for (name, loss) in [("good", 0), ("bad", 31)] {
            let (received, bytes) = send(name, loss);
            // The other station's stack may forget to repeat its last word when that is lost.
            assert_eq!((received.bytes, received.error), (1 << 20, None), "{name}");
            assert!(received.complete || name == "bad", "{name}");
            let digest = sha2::Digest::finalize({
                let mut hash = <sha2::Sha256 as sha2::Digest>::new();
                sha2::Digest::update(&mut hash, &bytes);
                hash
            });
            assert_eq!(crate::fetch::hex(&digest), content::file_sha256(1), "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let config =
            SinkConfig { ip: [10, 0, 2, 15], prefix: 24, port: 1, seed: 1, file: "/none/log".into() };
        let error = format!("{:#}", Sink::new(&config).err().unwrap());
        assert!(error.contains("/none/log"), "{error}");
    }

    #[test]
    fn a_full_disk_is_told() {
        let mut file = File::options().write(true).open("/dev/full").unwrap();
        let progress = Progress::default();
        keep(&mut file, &progress, b"log");
        let received = progress.get();
        assert!(received.bytes == 0 && received.error.is_some(), "{received:?}");
    }
}
