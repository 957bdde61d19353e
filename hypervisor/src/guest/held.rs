//! What the guest of a pair has sent and what may not leave this host yet: the output rule's queue, with console bytes put
//! together.

use crate::arch::physical::Pages;
use crate::arch::time;
use crate::memory::OutOfFrames;
use ft::outputs::{Kind, Outputs};
use heapless::Vec;

/// Bytes of the queue: what a guest sends in some milliseconds at gigabit speed.
const BYTES: usize = 2 << 20;

/// The guest stands still while the queue has less room than this, bytes: one exit can send that much at most.
const ROOM: usize = 512 << 10;

/// Console bytes that are held as one output.
const TOGETHER: usize = 64;

/// How long console bytes wait for company, nanoseconds: every output costs the log some bytes.
const PATIENCE: u64 = 2_000_000;

/// Who holds outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It lets them out when the backup has the log that leads to them.
    Primary,
    /// It keeps those that the primary may not have let out.
    Backup,
}

/// The outputs that are held.
pub struct Held {
    /// The queue.
    pub outputs: Outputs<'static>,
    holder: Holder,
    /// Console bytes that are not in the queue yet, and when the first came.
    console: Vec<u8, TOGETHER>,
    since: u64,
    /// A frame is not covered.
    frame: bool,
}

impl Held {
    /// An empty queue.
    ///
    /// # Errors
    /// No memory.
    pub fn new(holder: Holder) -> Result<Self, OutOfFrames> {
        let outputs = Outputs::new(Pages::for_good(BYTES)?);
        Ok(Self { outputs, holder, console: Vec::new(), since: 0, frame: false })
    }

    /// Whose it is.
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// Holds a frame.
    pub fn frame(&mut self, device: u8, frame: &[u8]) {
        self.put_console();
        self.frame = true;
        self.push(Kind::Frame(device), frame);
    }

    /// Holds a byte of the serial console.
    pub fn console(&mut self, byte: u8) {
        if !self.is_open() {
            self.since = time::now_ns();
        }
        // It was emptied when it was full.
        let _ = self.console.push(byte);
        if self.console.is_full() {
            self.put_console();
        }
    }

    fn put_console(&mut self) {
        let bytes = core::mem::take(&mut self.console);
        if !bytes.is_empty() {
            self.push(Kind::Console, &bytes);
        }
    }

    fn push(&mut self, kind: Kind, bytes: &[u8]) {
        let now = time::now_ns();
        match self.holder {
            // The guest stands still long before there is no room for what an exit sends.
            Holder::Primary => drop(self.outputs.push(kind, bytes, now)),
            Holder::Backup => self.outputs.push_over(kind, bytes, now),
        }
    }

    /// Everything waits for this position of the log.
    pub fn seal(&mut self, position: u64) {
        self.put_console();
        self.frame = false;
        self.outputs.seal(position);
    }

    /// Whether something waits.
    pub fn holds(&self) -> bool {
        !self.console.is_empty() || !self.outputs.is_empty()
    }

    /// Whether something is not covered by a position.
    #[inline]
    pub fn is_open(&self) -> bool {
        !self.console.is_empty() || self.outputs.is_open()
    }

    /// Whether a frame is not covered.
    pub const fn has_open_frame(&self) -> bool {
        self.frame
    }

    /// Whether it should be covered now.
    pub fn is_urgent(&self, now: u64) -> bool {
        self.frame || self.outputs.is_open() || self.urgent_at().is_some_and(|at| now >= at)
    }

    /// When console bytes have waited long enough, nanoseconds of the host.
    pub fn urgent_at(&self) -> Option<u64> {
        (!self.console.is_empty()).then(|| self.since.saturating_add(PATIENCE))
    }

    /// Whether there is room for what an exit can send.
    pub fn has_room(&self) -> bool {
        self.outputs.has_room(ROOM)
    }
}
