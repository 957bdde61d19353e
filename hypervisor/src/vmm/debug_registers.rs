//! The guest's debug registers. DR0 to DR3 and DR6 are in the processor while the guest is loaded, DR7 is in the VMCS; when
//! the hypervisor has breakpoints of its own, the guest's DR0 to DR3 and DR7 wait beside them.

use crate::arch::vmx as processor;
use crate::vcpu::{Active, Verdict, fault};
use machine::cpu::debug::{self, Fault, dr7};
use vmx::exit::{DrAccess, Exception};
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::inject::{Event, EventKind};

/// IA32_DEBUGCTL: LBR and BTF, which end with a debug exception.
const DEBUGCTL_LBR_BTF: u64 = 3;

/// What of the debug registers is not in the VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugState {
    /// The guest's DR0 to DR3.
    pub addresses: [u64; 4],
    /// The guest's DR6 while it is not loaded.
    pub dr6: u64,
    /// The guest's DR7 while the hypervisor has breakpoints.
    waiting: Option<u64>,
}

impl Default for DebugState {
    fn default() -> Self {
        Self { addresses: [0; 4], dr6: debug::dr6::ONES, waiting: None }
    }
}

impl DebugState {
    /// Puts the guest's registers into the processor.
    pub fn load(&self) {
        processor::set_breakpoint_addresses(self.addresses);
        processor::set_dr6(self.dr6);
    }

    /// Takes DR6 out of the processor.
    pub fn save(&mut self) {
        self.dr6 = processor::dr6();
    }
}

impl Active<'_> {
    /// The guest's DR7.
    pub fn dr7(&self) -> u64 {
        self.debug().waiting.unwrap_or_else(|| self.vmcs().read(fields::GUEST_DR7))
    }

    fn set_dr7(&mut self, value: u64) {
        match &mut self.debug_mut().waiting {
            Some(waiting) => *waiting = value,
            None => self.vmcs_mut().write(fields::GUEST_DR7, value),
        }
    }

    /// Breakpoints of the hypervisor: DR0 to DR3, and DR7 while the guest runs. The guest's own are off until [`Active::clear_breakpoints`].
    pub fn set_breakpoints(&mut self, addresses: [u64; 4], control: u64) {
        let guest = self.dr7();
        self.debug_mut().waiting = Some(guest);
        processor::set_breakpoint_addresses(addresses);
        self.vmcs_mut().write(fields::GUEST_DR7, control);
    }

    /// Gives the guest its debug registers back.
    pub fn clear_breakpoints(&mut self) {
        if let Some(control) = self.debug_mut().waiting.take() {
            processor::set_breakpoint_addresses(self.debug().addresses);
            self.vmcs_mut().write(fields::GUEST_DR7, control);
        }
    }

    /// Whether a debug exception that exited comes from a breakpoint of the hypervisor, and from nothing else: the guest's
    /// single-step trap goes first, and the breakpoint, which is a fault of the next instruction, is met again after it.
    pub fn is_own_breakpoint(&self, exception: &Exception) -> bool {
        let causes = exception.qualification;
        exception.event == Event::exception(1)
            && self.debug().waiting.is_some()
            && causes & debug::dr6::BREAKPOINTS != 0
            && causes & (debug::dr6::BS | debug::dr6::BD) == 0
    }

    /// Gives the guest a debug exception that exited. INT1 says nothing of itself in DR6, and is delivered as the instruction
    /// that it is.
    pub fn reflect_debug_exception(&mut self, exception: &Exception) -> Verdict {
        match exception.event.kind {
            EventKind::HardwareException => {
                // While the hypervisor has breakpoints, the guest has none.
                let foreign = if self.debug().waiting.is_some() { debug::dr6::BREAKPOINTS } else { 0 };
                self.raise_debug_exception(exception.qualification & !foreign)
            }
            _ => fault(self, exception.event),
        }
    }

    /// Delivers a debug exception to the guest, with all that a processor does besides (SDM vol. 3B, "Debug Exceptions"): an
    /// injected one leaves DR6, DR7 and IA32_DEBUGCTL alone.
    pub fn raise_debug_exception(&mut self, causes: u64) -> Verdict {
        processor::set_dr6(debug::after_exception(processor::dr6(), causes));
        let control = self.dr7() & !dr7::GD;
        self.set_dr7(control);
        let debugctl = self.vmcs().read(fields::GUEST_DEBUGCTL);
        self.vmcs_mut().write(fields::GUEST_DEBUGCTL, debugctl & !DEBUGCTL_LBR_BTF);
        fault(self, Event::exception(1))
    }
}

/// MOV to or from a debug register. It exits before privilege is looked at (SDM vol. 3C, "Relative Priority of Faults and
/// VM Exits").
pub fn access(on: &mut Active<'_>, access: DrAccess) -> Verdict {
    match carry_out(on, access) {
        Ok(()) => Verdict::Skip,
        Err(Fault::GeneralProtection) => fault(on, Event::general_protection()),
        Err(Fault::InvalidOpcode) => fault(on, Event::invalid_opcode()),
        Err(Fault::GeneralDetect) => on.raise_debug_exception(debug::dr6::BD),
    }
}

fn carry_out(on: &mut Active<'_>, access: DrAccess) -> Result<(), Fault> {
    let control = on.vmcs().read(fields::GUEST_CR4);
    let register = debug::resolve(access.register, on.privilege(), control, on.dr7())?;
    let width = if on.in_64_bit_code() { 8 } else { 4 };
    if !access.write {
        let value = match register {
            7 => on.dr7(),
            6 => processor::dr6(),
            n => on.debug().addresses[usize::from(n & 3)],
        };
        on.write_general(access.general, width, value);
        return Ok(());
    }
    let value = on.read_general(access.general);
    let value = debug::stored(register, if width == 8 { value } else { value & 0xffff_ffff })?;
    match register {
        7 => on.set_dr7(value),
        6 => processor::set_dr6(value),
        n => {
            on.debug_mut().addresses[usize::from(n & 3)] = value;
            if on.debug().waiting.is_none() {
                processor::set_breakpoint_addresses(on.debug().addresses);
            }
        }
    }
    Ok(())
}
