//! The local APIC by MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE, and the registers in x2APIC mode (SDM 3A, 12.4.3, 12.5.4.1, 12.12).
//!
//! `None` is #GP.

use super::timer::Mode;
use super::{
    BASE, BOOTSTRAP, COMMAND_BITS, ENABLED, EXTENDED, LVT_BITS, LVT_READ_ONLY, LocalApic, SPURIOUS_BITS,
    Written, at,
};
use crate::context::Instant;

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
/// The first register in x2APIC mode; each 16 bytes of the page are one.
const FIRST: u32 = 0x800;
const LAST: u32 = 0x8ff;

impl LocalApic {
    /// RDMSR.
    pub fn read_msr(&mut self, number: u32, now: Instant) -> Option<u64> {
        match number {
            APIC_BASE => Some(BASE | self.0.mode),
            TSC_DEADLINE => {
                self.advance(now);
                let armed = self.0.timer.expiry.filter(|_| self.timer_mode() == Mode::Deadline);
                Some(armed.unwrap_or(0))
            }
            FIRST..=LAST if self.extended() => match u64::from(number - FIRST) << 4 {
                // The logical ID is derived from the ID: cluster 0, processor 0.
                at::LOGICAL_DESTINATION => Some(1),
                at::COMMAND => Some(u64::from(self.0.command[1]) << 32 | u64::from(self.0.command[0])),
                at::EOI
                | at::SELF_IPI
                | at::ARBITRATION_PRIORITY
                | at::REMOTE_READ
                | at::DESTINATION_FORMAT
                | at::COMMAND_HIGH => None,
                offset => self.register(offset, now).map(u64::from),
            },
            _ => None,
        }
    }

    /// WRMSR.
    pub fn write_msr(&mut self, number: u32, value: u64, now: Instant) -> Option<Written> {
        match number {
            APIC_BASE => {
                self.set_base(value)?;
                return Some(Written::Retry);
            }
            TSC_DEADLINE => {
                self.advance(now);
                if self.timer_mode() == Mode::Deadline {
                    self.0.timer.expiry = (value != 0).then_some(value);
                    self.advance(now);
                }
            }
            FIRST..=LAST if self.extended() => return self.write_x2apic(number, value, now),
            _ => return None,
        }
        Some(Written::Done)
    }

    fn write_x2apic(&mut self, number: u32, value: u64, now: Instant) -> Option<Written> {
        let offset = u64::from(number - FIRST) << 4;
        if offset == at::EOI {
            return (value == 0).then(|| self.end());
        }
        let low = value as u32;
        // Reserved bits must be 0; this is what may be 1.
        let allowed = match offset {
            at::ERRORS => 0,
            at::COMMAND => 0xffff_ffff_0000_0000 | u64::from(COMMAND_BITS),
            at::TASK_PRIORITY | at::SELF_IPI => 0xff,
            at::SPURIOUS => u64::from(SPURIOUS_BITS),
            at::LVT..=at::LVT_END => u64::from(LVT_BITS[((offset - at::LVT) >> 4) as usize] | LVT_READ_ONLY),
            at::INITIAL => 0xffff_ffff,
            at::DIVIDE => 0xb,
            // Read-only, or not there.
            _ => return None,
        };
        if value & !allowed != 0 {
            return None;
        }
        match offset {
            at::COMMAND => {
                self.0.command = [low, (value >> 32) as u32];
                self.command(low, (value >> 32) as u32);
            }
            // A fixed interrupt to self.
            at::SELF_IPI => self.command(1 << 18 | low, 0),
            _ => {
                self.set_register(offset, low, now);
            }
        }
        Some(if offset == at::SPURIOUS { Written::Retry } else { Written::Done })
    }

    /// IA32_APIC_BASE: the transitions of SDM 3A, figure 12-27. The page cannot be moved.
    fn set_base(&mut self, value: u64) -> Option<()> {
        let mode = value & (ENABLED | EXTENDED);
        if value & !(BOOTSTRAP | ENABLED | EXTENDED) != BASE {
            return None;
        }
        let was = self.0.mode & (ENABLED | EXTENDED);
        const BOTH: u64 = ENABLED | EXTENDED;
        match (was, mode) {
            // Invalid; x2APIC to xAPIC; disabled to x2APIC.
            (_, EXTENDED) | (BOTH, ENABLED) | (0, BOTH) => return None,
            (was, mode) if was == mode => {}
            // Disabled: what was set up is lost.
            (_, 0) => {
                let (nmi, lint0, task_priority) = (self.0.nmi, self.0.lint0, self.0.task_priority);
                *self = Self::new();
                (self.0.nmi, self.0.lint0, self.0.task_priority) = (nmi, lint0, task_priority);
            }
            (_, BOTH) => {
                // The logical ID is derived from now on; the ID in the command register has 32 bits.
                self.0.command[1] = 0;
            }
            _ => {}
        }
        self.0.mode = BOOTSTRAP | mode;
        Some(())
    }
}
