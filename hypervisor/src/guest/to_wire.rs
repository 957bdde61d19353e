//! How long the log of a guest's transmit takes to the wire: from the write to a port that has a network device send, or the time at which it
//! looks for what there is to be sent, to the logging card's register that says where the log's last frame ends.
//!
//! The unit is a tick of the host's time-stamp counter; on the emulated machine that is an instruction.

use crate::arch::cpu;
use crate::machine_line;
use core::fmt::{self, Write};
use ft::histogram::Histogram;

/// From how many on it is said each time that their number has doubled.
const FIRST_SAID: u64 = 64;

/// The measurement.
#[derive(Debug, Default)]
pub struct ToWire {
    /// When the guest has last written to a port.
    kicked: u64,
    ticks: Histogram,
}

impl ToWire {
    /// The guest writes to a port, or a device does what is due.
    #[inline]
    pub fn begin(&mut self) {
        self.kicked = cpu::tsc();
    }

    /// The log of frames was on the wire at this tick; 0: it is not yet, for want of room or of a connection.
    pub fn end(&mut self, on_wire: u64) {
        if self.kicked != 0 && on_wire > self.kicked {
            self.ticks.record(on_wire - self.kicked);
            let count = self.ticks.count();
            if count >= FIRST_SAID && count.is_power_of_two() {
                self.tell();
            }
        }
        self.kicked = 0;
    }

    /// Says what was measured, if anything was.
    pub fn tell(&self) {
        let ticks = &self.ticks;
        if ticks.count() != 0 {
            machine_line!(
                "pair-transmit-to-wire count={} mean={} median={} p99={} most={}",
                ticks.count(),
                ticks.mean(),
                ticks.quantile(500),
                ticks.quantile(990),
                ticks.most()
            );
        }
    }

    /// Tells it to people.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        let ticks = &self.ticks;
        if ticks.count() == 0 {
            return Ok(());
        }
        writeln!(
            out,
            "transmit to wire: {} times, mean {} ticks, 99 of 100 {} ticks, {} at most",
            ticks.count(),
            ticks.mean(),
            ticks.quantile(990),
            ticks.most()
        )
    }
}
