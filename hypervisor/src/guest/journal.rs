//! The way of the log out of this host: entries become blocks, blocks wait in the log buffer until the log's receiver has
//! them: whoever stores a recording, or the backup.

use crate::arch::time;
use crate::logging::LogSender;
use alloc::boxed::Box;
use alloc::vec;
use core::fmt::{self, Write};
use replay::log::buffer::LogBuffer;
use replay::log::codec::{Frames, Mark};
use replay::log::entry::Entry;
use replay::log::header::{BadHeader, Header};
use replay::log::writer::{BUFFER, Refused, Writer};

/// Bytes of the log buffer: about a second of a busy network.
const LOG_BUFFER: usize = 2 << 20;

/// The guest stands still while the log buffer has less room than this, bytes: one exit can bring in that much at most.
const ROOM: usize = 256 << 10;

/// A block is closed when it has so many bytes: what a block has beside its entries is then little, also beside frames.
const BLOCK_BYTES: usize = 8 << 10;

/// A primary closes a block with so many bytes at the end of an exit: the guest's answer to the frames in it shall not have to wait for
/// their being sealed. A block is then a hundredth longer than what is in it, at most.
const EAGER_BYTES: usize = 2 << 10;

/// A block of a recording is closed when its first entry is so old, nanoseconds of the host.
const BLOCK_AGE: u64 = 500_000_000;

/// A primary whose guest runs closes no more than one block in this time, nanoseconds, unless there is an output: at once with what is
/// recorded then, since the backup executes no further than the last block says.
const BLOCK_GAP_PAIR: u64 = 2_000_000;

/// For so long a primary's guest may run without a block before one is made for its backup alone, nanoseconds.
const LONE_GAP: u64 = 3_000_000;

/// A block of a primary whose guest is halted is closed when its first entry is so old, nanoseconds of the host: then next to nothing
/// is to be executed either, and what a guest does sends a block at once or makes it run. At a takeover the guest's clock is behind by so
/// much more at most.
const BLOCK_AGE_IDLE: u64 = 200_000_000;

/// The receiver may take nothing for so long before the recording is given up, nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// Who takes the log out of the buffer.
pub enum Outlet {
    /// A connection to whoever stores it.
    Sender(Box<LogSender>),
    /// The pair's logging channel, which helps itself.
    Pair,
}

/// The log on its way out.
pub struct Journal {
    writer: Writer<Box<[u8]>>,
    buffer: LogBuffer<'static>,
    outlet: Outlet,
    /// When the block's first entry was made, nanoseconds of the host.
    since: u64,
    /// When a block was closed last, nanoseconds of the host.
    closed: u64,
    /// When the guest was first seen to run since it was halted: one that only wakes and halts again leaves next to nothing to execute.
    running: Option<u64>,
    /// An entry was lost: the log is worth nothing from there on.
    broken: bool,
}

impl Journal {
    /// A log that begins with this header. Allocates everything that it will need.
    ///
    /// # Errors
    /// The header is too long.
    pub fn new(header: &Header<'_>, outlet: Outlet) -> Result<Self, BadHeader> {
        let memory = Box::leak(vec![0; LOG_BUFFER].into_boxed_slice());
        let mut buffer = LogBuffer::new(memory);
        let writer = Writer::new(vec![0; BUFFER].into_boxed_slice()).expect("as many bytes as it wants");
        let mut writer = writer.with_frames(match outlet {
            Outlet::Sender(_) => Frames::Predicted,
            // The prediction takes 1,850 instructions, and 50 bytes more to be sealed take 150.
            Outlet::Pair => Frames::Plain,
        });
        // The buffer is empty, and much longer.
        let broken = buffer.push(writer.begin(header)?).is_err();
        Ok(Self { writer, buffer, outlet, since: 0, closed: 0, running: None, broken })
    }

    /// Adds an entry.
    pub fn write(&mut self, entry: &Entry<'_>, mark: &Mark) {
        if self.writer.is_empty() {
            self.since = time::now_ns();
        }
        let done = match self.writer.entry(entry) {
            Err(Refused::Full) => {
                self.close(mark);
                self.since = time::now_ns();
                self.writer.entry(entry)
            }
            other => other,
        };
        self.broken |= done.is_err();
        if self.writer.pending_bytes() >= BLOCK_BYTES {
            self.close(mark);
        }
    }

    /// Closes the block: it goes to the log buffer.
    fn close(&mut self, mark: &Mark) {
        if let Some(block) = self.writer.close(mark) {
            self.closed = time::now_ns();
            // There is room: the guest stands still without it.
            self.broken |= self.buffer.push(block).is_err();
        }
    }

    /// Closes a block that has waited long enough, and sends. `halted`: the guest is. False: the log is broken.
    pub fn send(&mut self, mark: &Mark, halted: bool) -> bool {
        self.running = (!halted).then(|| self.running.unwrap_or_else(time::now_ns));
        let much = matches!(self.outlet, Outlet::Pair) && self.writer.pending_bytes() >= EAGER_BYTES;
        if much || self.block_due(halted).is_some_and(|due| time::now_ns() >= due) {
            self.close(mark);
        }
        self.poll();
        !self.broken && !self.is_lost()
    }

    /// When the block is to be closed, nanoseconds of the host; `None`: there is none.
    pub fn block_due(&self, halted: bool) -> Option<u64> {
        let old = |age| self.since.saturating_add(age);
        let due = match (&self.outlet, self.running) {
            (Outlet::Sender(_), _) => old(BLOCK_AGE),
            (Outlet::Pair, Some(running)) if !halted => {
                old(BLOCK_AGE_IDLE).min(running.max(self.closed).saturating_add(BLOCK_GAP_PAIR))
            }
            (Outlet::Pair, _) => old(BLOCK_AGE_IDLE),
        };
        (!self.writer.is_empty()).then_some(due)
    }

    /// Whether the backup has had nothing to go by for long, while the guest ran.
    pub fn keeps_waiting(&self) -> bool {
        self.writer.is_empty() && self.lone_due().is_some_and(|due| time::now_ns() >= due)
    }

    /// When a block is made for the backup alone, if none is made before.
    fn lone_due(&self) -> Option<u64> {
        let running = self.running.filter(|_| matches!(self.outlet, Outlet::Pair))?;
        Some(running.max(self.closed).saturating_add(LONE_GAP))
    }

    /// When a running guest is to be looked at for the sake of its backup, nanoseconds of the host; `None`: it is halted, or there is no
    /// backup.
    pub fn look_due(&self) -> Option<u64> {
        let (due, now) = (self.lone_due()?, time::now_ns());
        // What is due now is sent before the guest goes on.
        Some(if due > now { due } else { now.saturating_add(LONE_GAP) })
    }

    /// Closes the block. Returns the position behind it: bytes of the log so far.
    pub fn flush(&mut self, mark: &Mark) -> u64 {
        self.close(mark);
        self.buffer.pushed()
    }

    /// The log buffer, for the pair's channel.
    pub const fn buffer(&mut self) -> &mut LogBuffer<'static> {
        &mut self.buffer
    }

    fn poll(&mut self) {
        if let Outlet::Sender(sender) = &mut self.outlet {
            sender.poll(&mut self.buffer);
        }
    }

    fn is_lost(&self) -> bool {
        match &self.outlet {
            Outlet::Sender(sender) => sender.is_lost(),
            Outlet::Pair => false,
        }
    }

    /// There is room for what one exit can bring in.
    pub fn has_room(&self) -> bool {
        self.buffer.free() >= ROOM
    }

    /// Sends until there is room. False: the receiver takes nothing.
    pub fn wait_for_room(&mut self) -> bool {
        self.send_until(Self::has_room)
    }

    /// Ends the log: its last block. The position behind it; `None`: the log is broken.
    pub fn close_log(&mut self, mark: &Mark) -> Option<u64> {
        self.close(mark);
        self.broken |= self.buffer.push(self.writer.end(mark)).is_err();
        (!self.broken).then_some(self.buffer.pushed())
    }

    /// Ends the log, and sends all of it. Whether the receiver has said that it has it.
    pub fn end(&mut self, mark: &Mark) -> bool {
        let sent = self.wait_for_room() && self.close_log(mark).is_some() && self.send_until(Self::drained);
        let Outlet::Sender(sender) = &mut self.outlet else { return false };
        sender.close() && sent
    }

    /// Everything that was in the buffer has left, and the receiver has it.
    fn drained(&self) -> bool {
        match &self.outlet {
            Outlet::Sender(sender) => sender.drained(&self.buffer),
            Outlet::Pair => self.buffer.is_empty(),
        }
    }

    /// Entries so far.
    pub const fn entries(&self) -> u64 {
        self.writer.entries()
    }

    /// Bytes so far, and the most that have waited.
    pub const fn bytes(&self) -> (u64, usize) {
        (self.buffer.pushed(), self.buffer.most())
    }

    /// Tells about the log and its way out, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn tell(&self, out: &mut dyn Write) -> fmt::Result {
        let (bytes, most) = self.bytes();
        let (entries, waiting) = (self.entries(), self.buffer.used());
        writeln!(out, "log: {entries} entries, {bytes} bytes, of which {waiting} wait; {most} at most")?;
        match &self.outlet {
            Outlet::Sender(sender) => sender.tell(out),
            Outlet::Pair => Ok(()),
        }
    }

    /// Sends until it is enough; false if the receiver takes nothing for too long.
    fn send_until(&mut self, enough: impl Fn(&Self) -> bool) -> bool {
        let (mut taken, mut until) = (self.buffer.consumed(), time::now_ns().saturating_add(PATIENCE));
        while !enough(self) {
            self.poll();
            let now = time::now_ns();
            if self.buffer.consumed() != taken {
                (taken, until) = (self.buffer.consumed(), now.saturating_add(PATIENCE));
            }
            if now >= until || self.is_lost() {
                return false;
            }
        }
        true
    }
}
