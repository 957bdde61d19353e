//! Repeated string instructions: a replay that lands in one or comes by one runs through exactly as many iterations as it has to,
//! and a recording leaves one before something comes in.

use super::board::Board;
use super::follow::{DR7_ENABLES, DR7_FIRST};
use super::paging::Mode;
use crate::vcpu::Active;
use machine::emulate::repeated::Repeated;
use replay::repeat::Repeat;
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::guest_state::bits::RFLAGS_TF;

/// RCX among the general registers.
const RCX: usize = 1;

/// Within so many ticks of the preemption timer the guest makes an iteration or more. With 1 it might never: a timer that has run out
/// at the entry comes before it.
const SOME_ITERATIONS: u32 = 1000;

/// A run through some iterations, until the next exit.
#[derive(Clone, Copy, Debug)]
pub struct Iterating {
    repeat: Repeat,
    string: Repeated,
}

impl Board {
    /// The repeated string instruction that the guest is at, with iterations left.
    fn string_at(&mut self, on: &Active<'_>) -> Option<Repeated> {
        let now = self.time.now();
        Repeated::at(on, &mut self.bus(now)).filter(|string| string.goes_on(on))
    }

    /// Has the guest make so many iterations of the instruction that it is at, in the next run. False: it is at none, or cannot be
    /// stopped in time.
    pub fn iterate(&mut self, on: &mut Active<'_>, iterations: u64) -> bool {
        // Each iteration of a guest that single-steps is a trap.
        let rflags = on.vmcs().read(fields::GUEST_RFLAGS);
        if rflags & RFLAGS_TF != 0 || on.dr7() & DR7_ENABLES != 0 || on.delivery_is_due() {
            return false;
        }
        let Some(string) = self.string_at(on) else { return false };
        let (rip, rcx) = (on.vmcs().read(fields::GUEST_RIP), on.registers().gpr[RCX]);
        let Some((repeat, rcx)) = Repeat::new(rip, string.behind, string.address_bytes, rcx, iterations)
        else {
            return false;
        };
        on.registers_mut().gpr[RCX] = rcx;
        on.set_breakpoints([string.linear_behind, 0, 0, 0], DR7_FIRST);
        on.watch_faults();
        // It stays until the next run is set up: the exit is still to be told from the guest's own.
        self.gear.breakpoint = true;
        self.gear.iterating = Some(Iterating { repeat, string });
        true
    }

    /// Comes right after every exit: the guest's registers are what they would be had it been let run without an end.
    #[inline]
    pub fn end_iterating(&mut self, on: &mut Active<'_>) {
        if let Some(iterating) = self.gear.iterating.take() {
            self.settle_iterations(on, iterating);
        }
    }

    #[cold]
    fn settle_iterations(&mut self, on: &mut Active<'_>, Iterating { repeat, string }: Iterating) {
        on.watch_page_faults(self.paging.mode() == Mode::Fast);
        let (rip, rcx) = (on.vmcs().read(fields::GUEST_RIP), on.registers().gpr[RCX]);
        let ended = string.ended_by(on.vmcs().read(fields::GUEST_RFLAGS));
        let settled = repeat.settle(rip, rcx, ended);
        on.registers_mut().gpr[RCX] = settled.rcx;
        if settled.uncount {
            on.vmcs_mut().write(fields::GUEST_RIP, settled.rip);
            on.resume_over_breakpoint();
            on.set_emulated(on.emulated().wrapping_sub(1));
            self.time.set_emulated(on.emulated());
        }
    }

    /// Something that has come waits for the end of the instruction that the guest is in the midst of: has it exit there, and after so
    /// many nanoseconds of the host anyway. 0: only the iteration is to end.
    pub fn leave_repeated(&mut self, on: &mut Active<'_>, within: u64) {
        if within == 0 {
            on.arm_preemption_timer(Some(SOME_ITERATIONS));
            self.time.arm(Some(1));
            return;
        }
        let free = on.dr7() & DR7_ENABLES == 0;
        let string = if free && on.repeats() { self.string_at(on) } else { None };
        match string {
            Some(string) => {
                on.set_breakpoints([string.linear_behind, 0, 0, 0], DR7_FIRST);
                // If it faults first, the guest is soon in a handler.
                self.time.arm(Some(2));
            }
            None => self.time.arm(Some(1)),
        }
        self.set_timer(on, within);
    }

    /// The guest is to exit no more where [`Board::leave_repeated`] has said.
    pub fn end_leaving(&mut self, on: &mut Active<'_>) -> Option<u64> {
        let until = self.leaves_rep.take()?;
        self.time.arm(None);
        on.clear_breakpoints();
        Some(until)
    }
}
