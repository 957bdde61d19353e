//! Page faults in fast mode: those that another host's translations may not have made are swallowed.

use super::board::Board;
use super::paging::Mode;
use crate::vcpu::{Active, Verdict};
use machine::emulate::walk::{self, NoPage, Purpose};
use machine::emulate::{Bus, BusError};

impl Board {
    /// A page fault that is none of a missing page, in fast mode: another host's translations may not have made it. None: it is
    /// the guest's.
    pub fn check_page_fault(&mut self, on: &mut Active<'_>, linear: u64, code: u32) -> Option<Verdict> {
        use walk::error;
        if self.paging.mode() != Mode::Fast || code & (error::RESERVED | error::KEY) != 0 || code >> 5 != 0 {
            return None;
        }
        let purpose = match () {
            () if code & error::FETCH != 0 => Purpose::Fetch,
            () if code & error::WRITE != 0 => Purpose::Write,
            () => Purpose::Read,
        };
        let now = self.time.now();
        let paging = walk::Paging::of(on).with_user(code & error::USER != 0);
        match paging.translate(&mut Quiet(&mut self.bus(now)), linear, purpose) {
            Ok(_) => {
                self.paging.counters.swallowed += 1;
                on.flush_address(linear);
                Some(Verdict::Resume)
            }
            Err(NoPage::Fault(_) | NoPage::Bus(_)) => None,
        }
    }
}

/// A bus that writes nothing: a walk over it leaves no accessed bits.
struct Quiet<'b, B: Bus>(&'b mut B);

impl<B: Bus> Bus for Quiet<'_, B> {
    fn is_memory(&self, address: u64, length: usize) -> bool {
        self.0.is_memory(address, length)
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), BusError> {
        if self.0.is_memory(address, bytes.len()) {
            self.0.read(address, bytes)
        } else {
            Err(BusError { address })
        }
    }
    fn write(&mut self, _address: u64, _bytes: &[u8]) -> Result<(), BusError> {
        Ok(())
    }
    fn read_port(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write_port(&mut self, _port: u16, _size: u8, _value: u32) {}
}
