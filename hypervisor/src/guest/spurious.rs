//! Page faults in fast mode: those that another host's translations may not have made are swallowed.

use super::board::Board;
use super::paging::Mode;
use crate::vcpu::{Active, Verdict};
use machine::cpu::registers::{cr0, efer};
use machine::emulate::walk::{self, NoPage, Purpose};
use machine::emulate::{Bus, BusError};
use machine::paging::format::{Format, PRESENT};
use vmx::fields::{self, VmcsRead};

/// Bits of a paging-structure entry: may be written, may be used in ring 3, maps a large page.
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;

impl Board {
    /// A page fault that is none of a missing page, in fast mode: another host's translations may not have made it. None: it is
    /// the guest's.
    pub fn check_page_fault(&mut self, on: &mut Active<'_>, linear: u64, code: u32) -> Option<Verdict> {
        use walk::error;
        if self.paging.mode() != Mode::Fast || code & (error::RESERVED | error::KEY) != 0 || code >> 5 != 0 {
            return None;
        }
        if self.forbidden(on, linear, code) {
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

    /// Whether the tables of 4-level paging, as they are now, forbid an access by their writable or user bits: so it is with nearly all
    /// faults that come here, those of pages that are to be copied when they are written.
    #[inline]
    fn forbidden(&self, on: &Active<'_>, linear: u64, code: u32) -> bool {
        use walk::error;
        let vmcs = on.vmcs();
        let (user, write) = (code & error::USER != 0, code & error::WRITE != 0);
        let obeyed = user || vmcs.read(fields::GUEST_CR0) & cr0::WP != 0;
        let needed = if write && obeyed { WRITABLE } else { 0 } | if user { USER } else { 0 };
        if needed == 0 || vmcs.read(fields::GUEST_EFER) & efer::LMA == 0 {
            return false;
        }
        let (format, ram) = (Format::FourLevel { gigabyte: true }, self.vm.memory());
        let mut table = format.root(vmcs.read(fields::GUEST_CR3));
        for level in (1..=4).rev() {
            let Some(place) = self.vm.place_of(table) else { return false };
            let bytes = ram.get(place + 8 * format.index(level, linear)..).and_then(<[u8]>::first_chunk);
            let Some(entry) = bytes.copied().map(u64::from_le_bytes) else { return false };
            if entry & PRESENT == 0 {
                return false;
            }
            if entry & needed != needed {
                return true;
            }
            if level == 1 || entry & LARGE != 0 {
                return false;
            }
            table = format.root(entry);
        }
        false
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
