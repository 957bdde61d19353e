//! The station's servers: files by HTTP on 8000, a sink on 8001, an echo on 7. Each takes several connections at once.

use sha2::{Digest, Sha256};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::BUFFER;
use super::content::Content;
use crate::fetch::hex;

/// Connections that a server takes at once.
const PER_SERVER: usize = 4;
/// The longest head of a request, bytes.
const MAX_HEAD: usize = 4096;

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Files,
    Sink,
    Echo,
}

/// The servers and their ports.
const SERVERS: [(Kind, u16); 3] = [(Kind::Files, 8000), (Kind::Sink, 8001), (Kind::Echo, 7)];

/// A socket of a server, with what is under way on it.
struct Connection {
    handle: SocketHandle,
    kind: Kind,
    port: u16,
    /// The head of a request as far as it has come.
    head: Vec<u8>,
    /// What is to be sent: first the head of the answer, then a file.
    answer: Vec<u8>,
    file: Option<Content>,
    /// The answer is under way.
    answered: bool,
    /// What came into the sink.
    hash: Sha256,
    bytes: u64,
}

/// All servers, and what they have done.
pub struct Servers {
    connections: Vec<Connection>,
    served: u64,
    served_bytes: u64,
    refused: u64,
    sunk: u64,
    sunk_bytes: u64,
    sunk_sha256: String,
    echoed_bytes: u64,
}

/// A socket with buffers of the usual size.
pub fn socket() -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
    // A guest may keep its connections open for as long as it likes; an answer need not wait for more to come.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

impl Servers {
    /// All servers, each listening.
    pub fn new(sockets: &mut SocketSet<'static>) -> Self {
        let mut connections = Vec::new();
        for (kind, port) in SERVERS {
            for _ in 0..PER_SERVER {
                let handle = sockets.add(socket());
                connections.push(Connection::new(handle, kind, port));
            }
        }
        Servers {
            connections,
            served: 0,
            served_bytes: 0,
            refused: 0,
            sunk: 0,
            sunk_bytes: 0,
            sunk_sha256: "-".into(),
            echoed_bytes: 0,
        }
    }

    /// Goes on with every connection. True: something was done, the stack may have more to do.
    pub fn work(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let mut worked = false;
        for index in 0..self.connections.len() {
            let handle = self.connections[index].handle;
            worked |= self.serve(index, sockets.get_mut::<Socket>(handle));
        }
        worked
    }

    fn serve(&mut self, index: usize, socket: &mut Socket<'static>) -> bool {
        if !socket.is_open() {
            self.connections[index].listen(socket);
            return true;
        }
        match self.connections[index].kind {
            Kind::Files => self.files(index, socket),
            Kind::Sink => self.sink(index, socket),
            Kind::Echo => self.echo(socket),
        }
    }

    fn files(&mut self, index: usize, socket: &mut Socket<'static>) -> bool {
        let connection = &mut self.connections[index];
        let mut worked = false;
        if !connection.answered && socket.can_recv() {
            worked = true;
            let head = &mut connection.head;
            let _ = socket.recv(|bytes| (bytes.len(), head.extend_from_slice(bytes)));
            if connection.head.windows(4).any(|end| end == b"\r\n\r\n") || connection.head.len() > MAX_HEAD {
                connection.answer();
                match connection.file {
                    Some(_) => self.served += 1,
                    None => self.refused += 1,
                }
            }
        }
        if !connection.answered {
            if socket.state() == State::CloseWait {
                socket.close();
                return true;
            }
            return worked;
        }
        while socket.can_send() {
            let sent = connection.send(socket);
            if sent == 0 {
                break;
            }
            worked = true;
            self.served_bytes += sent;
        }
        if connection.answer.is_empty() && connection.file.as_ref().is_none_or(|file| file.left() == 0) {
            // The end of the connection is the end of the answer. Closing twice does nothing.
            socket.close();
        }
        worked
    }

    fn sink(&mut self, index: usize, socket: &mut Socket<'static>) -> bool {
        let connection = &mut self.connections[index];
        let mut worked = false;
        while socket.can_recv() {
            worked = true;
            let (hash, bytes) = (&mut connection.hash, &mut connection.bytes);
            let _ = socket.recv(|data| {
                hash.update(&*data);
                *bytes += data.len() as u64;
                (data.len(), ())
            });
        }
        if socket.state() == State::CloseWait {
            self.sunk += 1;
            self.sunk_bytes += connection.bytes;
            self.sunk_sha256 = hex(&std::mem::take(&mut connection.hash).finalize());
            connection.bytes = 0;
            socket.close();
            return true;
        }
        worked
    }

    fn echo(&mut self, socket: &mut Socket<'static>) -> bool {
        let mut worked = false;
        while socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let mut buffer = vec![0; room.min(4096)];
            let Ok(n @ 1..) = socket.recv_slice(&mut buffer) else { break };
            let _ = socket.send_slice(&buffer[..n]);
            self.echoed_bytes += n as u64;
            worked = true;
        }
        if socket.state() == State::CloseWait && !socket.can_recv() {
            socket.close();
            return true;
        }
        worked
    }

    /// What they have done, as words for programs and people.
    pub fn summary(&self) -> String {
        format!(
            "served={} served-bytes={} refused={} sunk={} sunk-bytes={} sunk-sha256={} echoed-bytes={}",
            self.served,
            self.served_bytes,
            self.refused,
            self.sunk,
            self.sunk_bytes,
            self.sunk_sha256,
            self.echoed_bytes
        )
    }
}

impl Connection {
    fn new(handle: SocketHandle, kind: Kind, port: u16) -> Self {
        Connection {
            handle,
            kind,
            port,
            head: Vec::new(),
            answer: Vec::new(),
            file: None,
            answered: false,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Back to the beginning.
    fn listen(&mut self, socket: &mut Socket<'static>) {
        *self = Connection::new(self.handle, self.kind, self.port);
        // A closed socket and a port that is not 0: it cannot fail.
        let _ = socket.listen(self.port);
    }

    /// Reads the request and prepares the answer (RFC 9112: HTTP/1.0 is enough).
    fn answer(&mut self) {
        self.answered = true;
        let head = String::from_utf8_lossy(&self.head);
        let mut words = head.split_whitespace();
        let path = if words.next() == Some("GET") { words.next().unwrap_or_default() } else { "" };
        self.file = path.strip_prefix("/file").and_then(|n| n.parse().ok()).map(Content::of);
        let (status, length) = match &self.file {
            Some(file) => ("200 OK", file.left()),
            None => ("404 Not Found", 0),
        };
        let answer = format!("HTTP/1.0 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        self.answer = answer.into_bytes();
    }

    /// Sends what fits; how many bytes of the file that were.
    fn send(&mut self, socket: &mut Socket<'static>) -> u64 {
        if !self.answer.is_empty() {
            let sent = socket.send_slice(&self.answer).unwrap_or(0);
            self.answer.drain(..sent);
            if !self.answer.is_empty() {
                return 0;
            }
        }
        let Some(file) = &mut self.file else { return 0 };
        // In whole words; the rest of the room is used next time.
        let room = (socket.send_capacity() - socket.send_queue()).min(BUFFER) / 8 * 8;
        let mut buffer = vec![0; room];
        let filled = file.read(&mut buffer);
        socket.send_slice(&buffer[..filled]).map_or(0, |sent| sent as u64)
    }
}
