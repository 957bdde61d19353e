//! The station's clients: they do their tasks one after another, each again until it is answered.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Duration;
use smoltcp::wire::{IpAddress, Ipv4Address};

use super::super::time::Ns;
use super::content::Content;
use super::server::socket;
use crate::fetch::hex;

/// How long after a failure a task is tried again.
const RETRY: Ns = 500_000_000;
/// A connection on which nothing is acknowledged for so long is given up.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The first port of a client.
const FIRST_PORT: u16 = 49152;
/// The longest head of an answer, bytes.
const MAX_HEAD: usize = 8192;

/// Something that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Not before this moment.
    pub at: Ns,
    /// Whom it talks to.
    pub to: [u8; 4],
    /// What it does.
    pub task: Task,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Fetches a file by HTTP.
    Fetch {
        /// The server's port.
        port: u16,
        /// The file.
        path: String,
        /// What it must be.
        expect: Expect,
    },
    /// Sends lines to an echo server and waits for each.
    Echo {
        /// The server's port.
        port: u16,
        /// How many lines.
        rounds: u32,
    },
    /// Sends so many MiB and closes.
    Send {
        /// The server's port.
        port: u16,
        /// How much.
        mib: u32,
    },
    /// Connects and closes.
    Touch {
        /// The server's port.
        port: u16,
    },
}

impl Task {
    const fn port(&self) -> u16 {
        match self {
            Task::Fetch { port, .. }
            | Task::Echo { port, .. }
            | Task::Send { port, .. }
            | Task::Touch { port } => *port,
        }
    }
}

/// What a fetched file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever comes with status 200.
    Anything,
    /// These bytes.
    Text(String),
    /// Bytes with this SHA-256.
    Sha256(String),
}

/// What is under way.
enum Progress {
    /// Nothing; not before this moment.
    Waiting(Ns),
    /// A connection.
    Busy(Box<Attempt>),
}

/// One try of a task.
struct Attempt {
    /// What is still to be sent.
    to_send: Vec<u8>,
    content: Option<Content>,
    /// The head of an HTTP answer, or a line of an echo, as far as it has come.
    head: Vec<u8>,
    in_body: bool,
    hash: Sha256,
    text: Vec<u8>,
    bytes: u64,
    rounds: u32,
    /// The connection was there.
    connected: bool,
}

/// The clients, which take turns on one socket.
pub struct Clients {
    handle: Option<SocketHandle>,
    tasks: VecDeque<Client>,
    progress: Progress,
    port: u16,
    tries: u64,
    fetched: u64,
    right: u64,
    bytes: u64,
    echoed: u64,
    touched: u64,
    sent: u64,
    last: String,
}

/// How a try went on.
enum Step {
    /// Nothing happened.
    Idle,
    /// Something happened, and it goes on.
    Worked,
    /// The task is done.
    Done,
    /// It has to be tried again.
    Failed,
}

impl Clients {
    /// Clients with these tasks.
    pub fn new(sockets: &mut SocketSet<'static>, tasks: &[Client]) -> Self {
        let handle = (!tasks.is_empty()).then(|| {
            let mut socket = socket();
            socket.set_timeout(Some(TIMEOUT));
            sockets.add(socket)
        });
        let first = tasks.first().map_or(0, |task| task.at);
        Clients {
            handle,
            tasks: tasks.iter().cloned().collect(),
            progress: Progress::Waiting(first),
            port: FIRST_PORT,
            tries: 0,
            fetched: 0,
            right: 0,
            bytes: 0,
            echoed: 0,
            touched: 0,
            sent: 0,
            last: "-".into(),
        }
    }

    /// When they want to do something by themselves. What was due before waits for the end of the last connection, and that
    /// is the stack's to tell.
    pub fn next(&self, now: Ns) -> Option<Ns> {
        match self.progress {
            Progress::Waiting(at) if !self.tasks.is_empty() && at > now => Some(at),
            _ => None,
        }
    }

    /// Goes on. True: something was done, the stack may have more to do.
    pub fn work(&mut self, now: Ns, context: &mut Context, sockets: &mut SocketSet<'static>) -> bool {
        let Some(handle) = self.handle else { return false };
        let socket = sockets.get_mut::<Socket>(handle);
        let Some(client) = self.tasks.front().cloned() else { return false };
        let attempt = match &mut self.progress {
            Progress::Waiting(at) if *at > now => return false,
            // The last connection must be over, or its port is not free.
            Progress::Waiting(_) if socket.is_open() && socket.state() != State::TimeWait => return false,
            Progress::Waiting(_) => {
                socket.abort();
                return self.connect(now, &client, context, socket);
            }
            Progress::Busy(attempt) => attempt,
        };
        let step = attempt.step(&client.task, socket);
        match step {
            Step::Idle => false,
            Step::Worked => true,
            Step::Failed => {
                socket.abort();
                self.progress = Progress::Waiting(now + RETRY);
                true
            }
            Step::Done => {
                self.finish(now, &client.task);
                socket.close();
                true
            }
        }
    }

    fn connect(
        &mut self,
        now: Ns,
        client: &Client,
        context: &mut Context,
        socket: &mut Socket<'static>,
    ) -> bool {
        self.tries += 1;
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        let [a, b, c, d] = client.to;
        let to = (IpAddress::Ipv4(Ipv4Address::new(a, b, c, d)), client.task.port());
        self.progress = match socket.connect(context, to, self.port) {
            Ok(()) => Progress::Busy(Box::new(Attempt::new(&client.task))),
            Err(_) => Progress::Waiting(now + RETRY),
        };
        true
    }

    /// Counts what was done and goes to the next task.
    fn finish(&mut self, now: Ns, task: &Task) {
        let done = std::mem::replace(&mut self.progress, Progress::Waiting(now));
        self.tasks.pop_front();
        if let Some(next) = self.tasks.front() {
            self.progress = Progress::Waiting(now.max(next.at));
        }
        let Progress::Busy(attempt) = done else { return };
        match task {
            Task::Fetch { expect, .. } => {
                self.fetched += 1;
                self.bytes += attempt.bytes;
                self.last = hex(&attempt.hash.clone().finalize());
                let right = match expect {
                    Expect::Anything => true,
                    Expect::Text(text) => attempt.text == text.as_bytes(),
                    Expect::Sha256(sum) => *sum == self.last,
                };
                self.right += u64::from(right);
            }
            Task::Echo { rounds, .. } => self.echoed += u64::from(*rounds),
            Task::Send { .. } => self.sent += 1,
            Task::Touch { .. } => self.touched += 1,
        }
    }

    /// Tasks that are not done yet.
    pub fn left(&self) -> usize {
        self.tasks.len()
    }

    /// What they have done, as words for programs and people.
    pub fn summary(&self) -> String {
        format!(
            "fetched={} right={} wrong={} bytes={} last-sha256={} echoed={} sent={} touched={} left={} tries={}",
            self.fetched,
            self.right,
            self.fetched - self.right,
            self.bytes,
            self.last,
            self.echoed,
            self.sent,
            self.touched,
            self.tasks.len(),
            self.tries
        )
    }
}

impl Attempt {
    fn new(task: &Task) -> Self {
        let (to_send, content) = match task {
            Task::Fetch { path, .. } => {
                let head = format!("GET {path} HTTP/1.0\r\nHost: guest\r\nConnection: close\r\n\r\n");
                (head.into_bytes(), None)
            }
            Task::Send { mib, .. } => (Vec::new(), Some(Content::of(*mib))),
            Task::Echo { .. } | Task::Touch { .. } => (Vec::new(), None),
        };
        Attempt {
            to_send,
            content,
            head: Vec::new(),
            in_body: false,
            hash: Sha256::new(),
            text: Vec::new(),
            bytes: 0,
            rounds: 0,
            connected: false,
        }
    }

    fn step(&mut self, task: &Task, socket: &mut Socket<'static>) -> Step {
        if !socket.is_open() {
            return Step::Failed;
        }
        if !self.connected {
            if !socket.may_send() {
                return Step::Idle;
            }
            self.connected = true;
        }
        let sent = self.send(socket);
        let step = match task {
            Task::Fetch { .. } => self.fetch(socket),
            Task::Echo { rounds, .. } => self.echo(socket, *rounds),
            Task::Send { .. } => self.sent(socket),
            Task::Touch { .. } => Step::Done,
        };
        match step {
            Step::Idle if sent => Step::Worked,
            step => step,
        }
    }

    /// Sends what fits.
    fn send(&mut self, socket: &mut Socket<'static>) -> bool {
        let mut worked = false;
        if !self.to_send.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.to_send).unwrap_or(0);
            self.to_send.drain(..sent);
            worked = sent > 0;
        }
        while let Some(content) = self.content.as_mut().filter(|content| content.left() > 0) {
            let mut buffer = vec![0; (socket.send_capacity() - socket.send_queue()) / 8 * 8];
            let filled = content.read(&mut buffer);
            if filled == 0 || socket.send_slice(&buffer[..filled]).is_err() {
                break;
            }
            worked = true;
        }
        worked
    }

    fn sent(&mut self, socket: &Socket<'static>) -> Step {
        let all = self.content.as_ref().is_none_or(|content| content.left() == 0) && socket.send_queue() == 0;
        if all { Step::Done } else { Step::Idle }
    }

    fn fetch(&mut self, socket: &mut Socket<'static>) -> Step {
        let mut worked = false;
        while socket.can_recv() {
            worked = true;
            let mut new = Vec::new();
            let _ = socket.recv(|bytes| (bytes.len(), new.extend_from_slice(bytes)));
            self.take(&new);
        }
        if socket.may_recv() {
            return if worked { Step::Worked } else { Step::Idle };
        }
        // The server has closed: this is all of it.
        let status = String::from_utf8_lossy(&self.head).split_whitespace().nth(1).map(str::to_owned);
        if self.in_body && status.as_deref() == Some("200") { Step::Done } else { Step::Failed }
    }

    /// Tells the head of the answer from its body.
    fn take(&mut self, new: &[u8]) {
        let body = if self.in_body {
            new.to_vec()
        } else {
            self.head.extend_from_slice(new);
            let Some(end) = self.head.windows(4).position(|end| end == b"\r\n\r\n") else {
                self.head.truncate(MAX_HEAD);
                return;
            };
            self.in_body = true;
            self.head.split_off(end + 4)
        };
        self.hash.update(&body);
        self.bytes += body.len() as u64;
        // Enough to compare with a short text.
        self.text.extend(body.iter().take(MAX_HEAD.saturating_sub(self.text.len())));
    }

    fn echo(&mut self, socket: &mut Socket<'static>, rounds: u32) -> Step {
        let line = |round: u32| format!("line {round} of {rounds}\n").into_bytes();
        let mut worked = false;
        if socket.can_recv() {
            worked = true;
            let head = &mut self.head;
            let _ = socket.recv(|bytes| (bytes.len(), head.extend_from_slice(bytes)));
        }
        if self.in_body && self.head == line(self.rounds) {
            self.head.clear();
            self.in_body = false;
            self.rounds += 1;
            worked = true;
        }
        if self.rounds == rounds {
            return Step::Done;
        }
        if !self.in_body {
            self.in_body = true;
            self.to_send = line(self.rounds);
            worked = true;
        } else if !socket.may_recv() || self.head.len() > line(self.rounds).len() {
            return Step::Failed;
        }
        if worked { Step::Worked } else { Step::Idle }
    }
}
