//! The virtual processor as the instruction emulator sees it, and what follows from what the emulator has done.

use crate::vcpu::{Active, Stop, Verdict, fault};
use machine::emulate::{Cpu, Outcome, Seg, Segment};
use vmx::fields::{self, Field, Natural, ReadWrite, VmcsRead, VmcsWrite};
use vmx::inject::{Event, EventKind};

struct Fields {
    selector: Field<u16, ReadWrite>,
    base: Field<Natural, ReadWrite>,
    limit: Field<u32, ReadWrite>,
    access: Field<u32, ReadWrite>,
}

macro_rules! segments {
    ($($selector:ident $base:ident $limit:ident $access:ident;)*) => {
        [$( Fields {
            selector: fields::$selector,
            base: fields::$base,
            limit: fields::$limit,
            access: fields::$access,
        }, )*]
    };
}

/// By the numbers that instructions give to segment registers.
const SEGMENTS: [Fields; 6] = segments! {
    GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS;
    GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS;
    GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS;
    GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS;
    GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS;
    GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS;
};

const PDPTES: [Field<u64, ReadWrite>; 4] =
    [fields::GUEST_PDPTE_0, fields::GUEST_PDPTE_1, fields::GUEST_PDPTE_2, fields::GUEST_PDPTE_3];

impl Cpu for Active<'_> {
    fn gpr(&self, number: usize) -> u64 {
        self.read_general(number as u8)
    }
    fn set_gpr(&mut self, number: usize, value: u64) {
        self.write_general(number as u8, 8, value);
    }
    fn rip(&self) -> u64 {
        self.vmcs().read(fields::GUEST_RIP)
    }
    fn set_rip(&mut self, rip: u64) {
        self.vmcs_mut().write(fields::GUEST_RIP, rip);
    }
    fn rflags(&self) -> u64 {
        self.vmcs().read(fields::GUEST_RFLAGS)
    }
    fn set_rflags(&mut self, rflags: u64) {
        self.vmcs_mut().write(fields::GUEST_RFLAGS, rflags);
    }
    fn segment(&self, which: Seg) -> Segment {
        let (vmcs, of) = (self.vmcs(), &SEGMENTS[which as usize]);
        Segment {
            selector: vmcs.read(of.selector),
            base: vmcs.read(of.base),
            limit: vmcs.read(of.limit),
            access: vmcs.read(of.access),
        }
    }
    fn cr0(&self) -> u64 {
        self.visible_cr0()
    }
    fn cr3(&self) -> u64 {
        self.vmcs().read(fields::GUEST_CR3)
    }
    fn cr4(&self) -> u64 {
        self.visible_cr4()
    }
    fn efer(&self) -> u64 {
        self.vmcs().read(fields::GUEST_EFER)
    }
    fn cpl(&self) -> u8 {
        self.privilege()
    }
    fn pdpte(&self, number: usize) -> u64 {
        PDPTES.get(number).map_or(0, |field| self.vmcs().read(*field))
    }
    fn physical_bits(&self) -> u32 {
        self.limits().physical_bits.into()
    }
    fn gigabyte_pages(&self) -> bool {
        self.limits().gigabyte_pages
    }
}

impl Active<'_> {
    /// Does what the emulator leaves to its caller: shadows end with an executed instruction, a single-stepping guest gets its
    /// trap, an exception is delivered; what could not be emulated stops the guest. The emulator has moved RIP already, so
    /// nothing is left to skip.
    pub fn settle(&mut self, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Done { single_step } | Outcome::Continue { single_step } => {
                if matches!(outcome, Outcome::Done { .. }) {
                    // A REP counts once, when it is through.
                    self.count_emulated();
                } else {
                    // As a processor leaves a REP between two iterations: RCX tells the place, not RIP alone.
                    self.resume_over_breakpoint();
                }
                self.end_shadows();
                if single_step {
                    self.pend_single_step();
                }
                Verdict::Resume
            }
            Outcome::Fault(exception) => {
                if let Some(address) = exception.cr2 {
                    self.registers_mut().cr2 = address;
                }
                let (vector, error_code) = (exception.vector, exception.error);
                fault(self, Event { vector, kind: EventKind::HardwareException, error_code, length: 0 })
            }
            Outcome::Undecodable(text) => Verdict::Stop(Stop::NotEmulated("an unknown instruction", text)),
            Outcome::Unsupported { what, text } => Verdict::Stop(Stop::NotEmulated(what, text)),
            Outcome::Refused { address, text } => Verdict::Stop(Stop::Refused(address, text)),
        }
    }
}
