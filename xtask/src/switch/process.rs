//! The switch as a process: a Unix socket, a session per host, captures, and a word when a host is stuck.
//!
//! One thread. Wall-clock time is used to warn and to give up, never to decide what a host sees.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::config::Config;
use super::core::{Action, HostId, Summary, Switch};
use super::fabric::Seen;
use super::pcap::Pcap;
use super::time::Ns;
use super::wire::{EndReason, FromHost, Reason, ToHost, split};
use crate::ui;

/// Longest path of a Unix socket in bytes (`sun_path` of 108, with a final zero).
const MAX_SOCKET_PATH: usize = 107;
/// How long ended hosts may take to hear of it.
const FAREWELL: Duration = Duration::from_secs(10);

/// Called whenever emulated time has grown; may stop hosts.
pub type Director<'a> = Box<dyn FnMut(&mut Switch) + Send + 'a>;

/// A socket on which hosts join. Removed when dropped.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Say so when nothing has happened for this long.
    pub warn_after: Duration,
    /// End with an error when nothing has happened for this long.
    pub give_up_after: Option<Duration>,
    /// Say on the terminal what hosts do.
    pub verbose: bool,
}

impl Server {
    /// Listens at `path`; a socket that a dead switch left there is replaced.
    ///
    /// # Errors
    /// When the path is too long, another switch listens there, or it cannot be made.
    pub fn bind(path: &Path) -> Result<Self> {
        let len = path.as_os_str().len();
        if len > MAX_SOCKET_PATH {
            bail!(
                "the socket path {} has {len} bytes; a socket's may have {MAX_SOCKET_PATH}: choose a shorter one",
                path.display()
            );
        }
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                bail!("another switch listens at {}: end it, or choose another path", path.display());
            }
            std::fs::remove_file(path)
                .with_context(|| format!("cannot replace the dead socket {}", path.display()))?;
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        listener.set_nonblocking(true)?;
        let warn_after = Duration::from_secs(15);
        Ok(Self { listener, path: path.into(), warn_after, give_up_after: None, verbose: false })
    }

    /// Where hosts join.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a scenario to its end.
    ///
    /// # Errors
    /// When a capture cannot be written, the socket fails, or nothing happens for too long.
    pub fn run(&self, config: &Config, switch: Switch, director: Option<Director>) -> Result<Summary> {
        let captures = Captures::open(config)?;
        let seen = switch.now();
        let run = Run { server: self, switch, sessions: Vec::new(), captures, director, seen };
        run.run()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Capture files by index of the network.
pub struct Captures(BTreeMap<usize, (PathBuf, Pcap<BufWriter<File>>)>);

impl Captures {
    /// Starts the files that the configuration wants.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn open(config: &Config) -> Result<Self> {
        let mut files = BTreeMap::new();
        for (index, network) in config.networks.iter().enumerate() {
            if let Some(path) = &network.capture {
                let file = File::create(path).and_then(|f| Pcap::new(BufWriter::new(f)));
                let file = file.with_context(|| format!("cannot write the capture {}", path.display()))?;
                files.insert(index, (path.clone(), file));
            }
        }
        Ok(Self(files))
    }

    /// Adds frames.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&mut self, frames: Vec<Seen>) -> Result<()> {
        for seen in frames {
            if let Some((path, file)) = self.0.get_mut(&seen.network) {
                file.frame(seen.at, &seen.frame)
                    .with_context(|| format!("cannot write the capture {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Hands what was added to the system, for those who look on.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        for (path, file) in self.0.values_mut() {
            file.flush().with_context(|| format!("cannot write the capture {}", path.display()))?;
        }
        Ok(())
    }

    /// Ends the files.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn finish(self) -> Result<()> {
        for (path, file) in self.0.into_values() {
            file.finish().with_context(|| format!("cannot write the capture {}", path.display()))?;
        }
        Ok(())
    }
}

/// One connection.
struct Session {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Which host it is, once it has joined and until it has ended.
    host: Option<HostId>,
    /// Nothing more is expected of it.
    over: bool,
}

impl Session {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), output: Vec::new(), host: None, over: false })
    }

    fn say(&mut self, message: &ToHost) {
        self.output.extend(message.emit());
        self.flush();
    }

    fn refuse(&mut self, text: &str) {
        self.say(&ToHost::End { reason: EndReason::Refused, text: text.into() });
        (self.host, self.over) = (None, true);
    }

    /// Writes as much as the socket takes. A broken connection shows when it is read.
    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return,
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.output.clear(),
            }
        }
    }

    /// Reads what has come. False: the connection is at its end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    self.input.extend(&chunk[..n]);
                    if n < chunk.len() {
                        return true;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

struct Run<'a> {
    server: &'a Server,
    switch: Switch,
    sessions: Vec<Session>,
    captures: Captures,
    director: Option<Director<'a>>,
    /// Emulated time that the director has seen.
    seen: Ns,
}

impl Run<'_> {
    fn run(mut self) -> Result<Summary> {
        let mut last = Instant::now();
        let mut warn_at = self.server.warn_after;
        loop {
            self.act()?;
            if self.switch.finished() {
                break;
            }
            if self.wait(Duration::from_millis(500))? {
                last = Instant::now();
                warn_at = self.server.warn_after;
                continue;
            }
            let silent = last.elapsed();
            if self.server.give_up_after.is_some_and(|limit| silent >= limit) {
                bail!("nothing has happened for {}: {}", ui::seconds(silent), self.complaint());
            }
            if silent >= warn_at {
                ui::say(format!("switch: {} (for {})", self.complaint(), ui::seconds(silent)));
                warn_at *= 2;
            }
        }
        self.farewell();
        self.captures.finish()?;
        Ok(self.switch.summary())
    }

    fn complaint(&self) -> String {
        let whom = self.switch.waiting_for().map(|(name, joining)| {
            format!("host {name} {}", if joining { "has not joined" } else { "has not come" })
        });
        let at = self.switch.now() as f64 / 1e9;
        format!("at {at:.6} s of emulated time {}", whom.collect::<Vec<_>>().join(", "))
    }

    /// Does what the switch wants done.
    fn act(&mut self) -> Result<()> {
        while let Some(action) = self.switch.next_action() {
            match action {
                Action::Await(host) => self.tell(format!("host {} may start now", self.switch.name(host))),
                Action::Run { host, until, frames } => self.say(host, &ToHost::Run { until, frames }),
                Action::End { host, reason, text } => {
                    self.tell(format!("host {} ends ({reason:?}) at {text}", self.switch.name(host)));
                    self.say(host, &ToHost::End { reason, text });
                    if let Some(session) = self.session_of(host) {
                        (session.host, session.over) = (None, true);
                    }
                }
                Action::Finished => {}
            }
        }
        self.captures.write(self.switch.take_seen())?;
        if self.switch.now() != self.seen {
            self.seen = self.switch.now();
            if let Some(director) = &mut self.director {
                director(&mut self.switch);
            }
        }
        Ok(())
    }

    fn tell(&self, text: String) {
        if self.server.verbose {
            ui::say(format!("switch: {:.6} s: {text}", self.switch.now() as f64 / 1e9));
        }
    }

    fn session_of(&mut self, host: HostId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| s.host == Some(host))
    }

    fn say(&mut self, host: HostId, message: &ToHost) {
        if let Some(session) = self.session_of(host) {
            session.say(message);
        }
    }

    /// Waits for something to happen and deals with it. False: nothing did.
    fn wait(&mut self, limit: Duration) -> Result<bool> {
        let ready = {
            let mut fds = vec![PollFd::new(&self.server.listener, PollFlags::IN)];
            for session in &self.sessions {
                let blocked = !session.output.is_empty();
                let flags = if blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                fds.push(PollFd::new(&session.stream, flags));
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => fds.iter().map(|fd| fd.revents()).collect::<Vec<_>>(),
                Err(rustix::io::Errno::INTR) => return Ok(false),
                Err(e) => return Err(e).context("cannot wait for hosts"),
            }
        };
        let mut ended = Vec::new();
        for (index, flags) in ready[1..].iter().enumerate() {
            if flags.contains(PollFlags::OUT) {
                self.sessions[index].flush();
            }
            if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.read(index) {
                ended.push(index);
            }
        }
        for index in ended.into_iter().rev() {
            if let Some(host) = self.sessions.remove(index).host {
                self.tell(format!("host {} is lost: its connection broke", self.switch.name(host)));
                self.switch.lose(host);
            }
        }
        if !ready[0].is_empty() {
            self.accept()?;
        }
        Ok(true)
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.server.listener.accept() {
                Ok((stream, _)) => self.sessions.push(Session::new(stream)?),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("cannot accept a host"),
            }
        }
    }

    /// Takes what a session has to say. False: it is at its end.
    fn read(&mut self, index: usize) -> bool {
        let open = self.sessions[index].fill();
        while !self.sessions[index].over {
            match split(&mut self.sessions[index].input)
                .and_then(|m| m.map(|(kind, body)| FromHost::parse(kind, &body)).transpose())
            {
                Ok(None) => break,
                Ok(Some(message)) => self.hear(index, message),
                Err(error) => self.violated(index, &error.to_string()),
            }
        }
        open
    }

    fn hear(&mut self, index: usize, message: FromHost) {
        match (self.sessions[index].host, message) {
            (None, FromHost::Hello(hello)) => match self.switch.join(&hello) {
                Ok(host) => {
                    let quantum = self.switch.quantum();
                    self.sessions[index].host = Some(host);
                    self.sessions[index].say(&ToHost::Welcome { quantum });
                    self.tell(format!("host {} has joined", hello.name));
                }
                Err(text) => self.violated(index, &text),
            },
            (Some(host), FromHost::Meet(meet)) => {
                let leaving = match meet.reason {
                    Reason::Leaving(code) => Some(code),
                    Reason::Reached => None,
                };
                if let Some(code) = leaving {
                    // Before the switch is told: it may await the host's next start at once.
                    (self.sessions[index].host, self.sessions[index].over) = (None, true);
                    self.tell(format!("host {} leaves with exit code {code}", self.switch.name(host)));
                }
                if let Err(text) = self.switch.meet(host, meet) {
                    self.sessions[index].refuse(&text);
                    ui::say(format!("switch: host {}: {text}", self.switch.name(host)));
                }
            }
            (None, FromHost::Meet(_)) => self.violated(index, "a MEET before HELLO"),
            (Some(_), FromHost::Hello(_)) => self.violated(index, "a second HELLO"),
        }
    }

    fn violated(&mut self, index: usize, text: &str) {
        let host = self.sessions[index].host;
        self.sessions[index].refuse(text);
        let name = host.map_or("a stranger", |host| self.switch.name(host));
        ui::say(format!("switch: refused {name}: {text}"));
        if let Some(host) = host {
            self.switch.lose(host);
        }
    }

    /// Lets the ended hosts hear of it.
    fn farewell(&mut self) {
        let since = Instant::now();
        while since.elapsed() < FAREWELL && self.sessions.iter().any(|s| !s.output.is_empty()) {
            for session in &mut self.sessions {
                session.flush();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::cable::CableConfig;
    use super::super::config::{Stop, StopKind, When};
    use super::super::core::Ended;
    use super::super::wire::{Hello, Meet, Stamped};
    use super::*;

    const Q: u64 = 5_000;

    fn server() -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut server =
            Server::bind(&std::env::temp_dir().join(format!("lsk-{}-{number}", std::process::id()))).unwrap();
        server.give_up_after = Some(Duration::from_secs(60));
        server
    }

    fn config() -> Config {
        Config::lan(1, &["a", "b"], &CableConfig { rate: 0, ..CableConfig::default() })
    }

    /// A host that speaks the protocol.
    struct Host {
        stream: UnixStream,
        input: Vec<u8>,
    }

    impl Host {
        fn join(path: &Path, name: &str) -> Self {
            let mut host = Self { stream: UnixStream::connect(path).unwrap(), input: vec![] };
            let hello = Hello { name: name.into(), ips: 50_000_000, tick: 1, ports: vec![(0, [0; 6])] };
            host.say(&FromHost::Hello(hello).emit());
            host
        }

        fn say(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).unwrap();
        }

        fn hear(&mut self) -> ToHost {
            loop {
                if let Some((kind, body)) = split(&mut self.input).unwrap() {
                    return ToHost::parse(kind, &body).unwrap();
                }
                let mut chunk = [0; 1000];
                let n = self.stream.read(&mut chunk).unwrap();
                assert!(n > 0, "the switch closed the connection");
                self.input.extend(&chunk[..n]);
            }
        }

        fn meet(&mut self, tick: u64, reason: Reason, frames: Vec<Stamped>) {
            let meet = Meet { tick, reason, cards: vec![], frames };
            self.say(&FromHost::Meet(meet).emit());
        }

        /// Runs `quanta` quanta, sending `text` in each; gives how many frames came.
        fn run(&mut self, quanta: u64, text: &str) -> usize {
            let mut came = 0;
            for _ in 0..quanta {
                let ToHost::Run { until, frames } = self.hear() else { panic!("RUN must come") };
                came += frames.len();
                let bytes = [&[0xff; 6][..], &[2; 6], &[0x88, 0xb5], text.as_bytes()].concat();
                self.meet(
                    until,
                    Reason::Reached,
                    vec![Stamped { tick: until, port: 0, frame: bytes.into() }],
                );
            }
            came
        }
    }

    #[test]
    fn two_hosts_over_a_socket_and_a_capture() {
        let server = server();
        let mut config = config();
        let capture = server.path().with_extension("pcap");
        config.networks[0].capture = Some(capture.clone());
        let switch = Switch::new(&config, vec![]).unwrap();
        let summary = std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let path = server.path();
                scope.spawn(move || {
                    let mut host = Host::join(path, name);
                    assert_eq!(host.hear(), ToHost::Welcome { quantum: 100_000 });
                    // What is sent in a quantum's last tick comes in the next one's last.
                    assert_eq!(host.run(50, name), 49);
                    let ToHost::Run { until, .. } = host.hear() else { panic!("RUN must come") };
                    host.meet(until - 7, Reason::Leaving(33), vec![]);
                });
            }
            server.run(&config, switch, None).unwrap()
        });
        for host in &summary.hosts {
            let life = &host.lives[0];
            assert_eq!((life.tick, &life.ended), (51 * Q - 7, &Ended::Left(33)));
        }
        let bytes = std::fs::read(&capture).unwrap();
        // 100 frames of 15 bytes with headers of 16, after the file's 24.
        assert_eq!(bytes.len(), 24 + 100 * 31);
        std::fs::remove_file(capture).unwrap();
    }

    #[test]
    fn a_broken_connection_a_kill_and_a_second_life() {
        let server = server();
        let mut config = config();
        config.hosts[1].starts = vec![0, 500_000];
        let kill = |host: &str, tick, life| Stop {
            host: host.into(),
            when: When::Tick { tick, life },
            what: StopKind::Kill,
        };
        config.stops = vec![kill("b", 12, 1), kill("a", 40_001, 0)];
        let switch = Switch::new(&config, vec![]).unwrap();
        let summary = std::thread::scope(|scope| {
            let path = server.path();
            scope.spawn(move || {
                let mut a = Host::join(path, "a");
                a.hear();
                a.run(9, "x");
                let end = a.hear();
                assert!(matches!(end, ToHost::End { reason: EndReason::Killed, .. }), "{end:?}");
            });
            scope.spawn(move || {
                let mut b = Host::join(path, "b");
                b.hear();
                b.run(2, "x");
                b.hear();
                drop(b);
                // Its second start is awaited at 500 us; who comes too early is refused.
                loop {
                    let mut b = Host::join(path, "b");
                    match b.hear() {
                        ToHost::End { reason, .. } => assert_eq!(reason, EndReason::Refused),
                        _ => {
                            b.run(1, "y");
                            return;
                        }
                    }
                }
            });
            server.run(&config, switch, None).unwrap()
        });
        let lives: Vec<_> =
            summary.hosts.iter().flat_map(|h| &h.lives).map(|l| (l.tick, l.ended.clone())).collect();
        assert_eq!(lives, [(40_001, Ended::Killed), (2 * Q, Ended::Lost), (12, Ended::Killed)]);
    }

    #[test]
    fn strangers_and_liars_are_refused_by_name() {
        let server = server();
        let config = config();
        let switch = Switch::new(&config, vec![]).unwrap();
        let summary = std::thread::scope(|scope| {
            let path = server.path();
            scope.spawn(move || {
                let refused = |mut host: Host, text: &str| match host.hear() {
                    ToHost::End { reason: EndReason::Refused, text: why } => {
                        assert!(why.contains(text), "{why}");
                    }
                    other => panic!("{other:?}"),
                };
                refused(Host::join(path, "z"), "no host `z`");
                refused(Host::join(path, "a b"), "no name of a host");
                let mut early = Host { stream: UnixStream::connect(path).unwrap(), input: vec![] };
                early.meet(1, Reason::Reached, vec![]);
                refused(early, "before HELLO");
                let mut a = Host::join(path, "a");
                let mut b = Host::join(path, "b");
                a.hear();
                b.hear();
                a.hear();
                a.meet(Q - 1, Reason::Reached, vec![]);
                refused(a, "met at tick 4999");
                b.hear();
                b.say(&[1, 0, 0, 0, 0x77]);
                refused(b, "kind 0x77");
            });
            server.run(&config, switch, None).unwrap()
        });
        assert!(matches!(summary.hosts[0].lives[0].ended, Ended::Violated(_)));
    }

    #[test]
    fn a_stuck_host_is_named() {
        let mut server = server();
        server.give_up_after = Some(Duration::from_millis(200));
        let config = config();
        let switch = Switch::new(&config, vec![]).unwrap();
        let error = std::thread::scope(|scope| {
            let path = server.path();
            let host = scope.spawn(move || {
                let mut a = Host::join(path, "a");
                a.hear();
                a
            });
            let error = server.run(&config, switch, None).unwrap_err().to_string();
            drop(host.join());
            error
        });
        assert!(error.contains("host b has not joined"), "{error}");
    }

    #[test]
    fn the_director_sees_each_quantum() {
        let server = server();
        let mut config = config();
        config.hosts.pop();
        config.networks[0].ports.pop();
        let switch = Switch::new(&config, vec![]).unwrap();
        let mut seen = vec![];
        let director = |switch: &mut Switch| {
            seen.push(switch.now());
            if switch.now() == 300_000 {
                switch.stop(0, When::At(450_000), StopKind::Kill);
            }
        };
        let summary = std::thread::scope(|scope| {
            let path = server.path();
            scope.spawn(move || {
                let mut a = Host::join(path, "a");
                a.hear();
                a.run(5, "x");
                a.hear()
            });
            server.run(&config, switch, Some(Box::new(director))).unwrap()
        });
        assert_eq!(summary.hosts[0].lives[0].tick, 22_500);
        assert_eq!(seen[..4], [100_000, 200_000, 300_000, 400_000]);
    }

    #[test]
    fn paths_are_checked() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        assert!(Server::bind(&long).err().unwrap().to_string().contains("choose a shorter one"));
        let server = server();
        assert!(Server::bind(server.path()).err().unwrap().to_string().contains("another switch"));
        let path = server.path().to_owned();
        drop(server);
        // A dead socket, as a killed switch leaves it.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Server::bind(&path).unwrap());
        assert!(!path.exists());
    }
}
