//! The guest's computer on this host, as the loop of its virtual processor asks for it: the computer itself, its memory,
//! its time, and what is outside.

use super::bus::BoardBus;
use super::disks::MemoryDisk;
use super::follow::Gear;
use super::outside::Outside;
use super::pace::Pace;
use super::paging::Paging;
use super::tape::{Here, Tape};
use super::time::GuestTime;
use super::variation::Variation;
use crate::arch::{idt::vector, time as host_time};
use crate::duties;
use crate::memory::FRAME;
use crate::pair::Link;
use crate::shell::system::{Order, VmState};
use crate::vcpu::{self, Active, CpuView, Machine, Stop, Verdict};
use crate::vmm::vm::Vm;
use alloc::boxed::Box;
use alloc::string::String;
use heapless::Vec;
use machine::computer::Computer;
use machine::context::Instant;
use machine::emulate::{Bus, Cause, Emulator};
use machine::output::Power;
use replay::landing::Cause as ExitCause;
use vmx::exit::{EptViolation, Exit, IoAccess};

/// Disks of a guest at most.
pub const MAX_DISKS: usize = 8;

/// The longest that the guest runs without a look at its clock, nanoseconds.
const LOOK_PERIOD: u64 = 4_000_000;

/// After so many first writes the clock is looked at: the preemption timer counts only while the guest runs (SDM vol. 3C, "VMX-Preemption
/// Timer"), and one that does little else would keep its backup waiting for several times the period.
const UNLOOKED: u32 = 1024;

/// The shortest time that the preemption timer is set for, nanoseconds: a deadline that is nearer costs an exit anyway.
const SHORTEST: u64 = 2_000;

/// By what part, as a power of 2, the preemption timer is set for longer than to the deadline.
const SLACK_SHIFT: u32 = 6;

/// The reasons for which a run ends, beside the loop's own.
pub mod reason {
    /// The guest has switched itself off.
    pub const POWER_OFF: &str = "power-off";
    /// The guest has reset itself, and is not to start again.
    pub const RESET: &str = "reset";
    /// The operator has ended it.
    pub const KILLED: &str = "killed";
    /// It could not be started.
    pub const NO_ENTRY: &str = "no-entry";
    /// The delivery of an event touched device memory.
    pub const DELIVERY: &str = "delivery-to-device-memory";
    /// The loop stops, and the runner knows why: the guest wants power off or a reset.
    pub const POWER: &str = "power";
    /// The loop stops, and the runner knows why: the operator has ordered something.
    pub const OPERATOR: &str = "operator";
    /// The replay ends, and says itself why.
    pub const REPLAY: &str = "replay";
    /// The log cannot leave this host.
    pub const NO_LOG: &str = "no-log";
    /// The other host of the pair has the guest, or nobody.
    pub const LOST: &str = "lost";
}

/// The guest's computer on this host.
pub struct Board {
    /// Its name.
    pub name: String,
    /// The computer.
    pub computer: Computer,
    /// Its memory.
    pub vm: Vm,
    /// How its paging is dealt with.
    pub paging: Paging,
    /// Its time.
    pub time: GuestTime,
    /// What is outside.
    pub outside: Outside,
    /// Its disks.
    pub disks: Vec<MemoryDisk, MAX_DISKS>,
    /// What it does, for the operator.
    pub state: VmState,
    /// What the operator wants, until the runner takes it.
    pub order: Option<Order>,
    /// What an operator has ordered on the other host of the pair, until it is followed.
    pub ordered: Option<Order>,
    /// Whether what comes in is recorded, or comes from a recording.
    pub tape: Tape,
    /// Where the guest is, for the record of what comes in next.
    pub here: Here,
    /// Virtual time that the halted guest has skipped, nanoseconds.
    pub idle: u64,
    /// For how long it was halted, nanoseconds of the host's time as the guest should see it.
    pub slept: u64,
    /// The same time since which it does not run: it is halted, or held back.
    pub stands: Option<u64>,
    /// The last exit was a synchronous one, and what follows from it is not done yet.
    pub exit: bool,
    /// The next HLT is the one that the guest was in already.
    pub halt_again: bool,
    /// Something has changed since interrupts were looked at: an exit was dealt with, or something came in.
    pub changed: bool,
    /// The last exit was for the host.
    pub host_exit: bool,
    /// The preemption timer has run out.
    pub timer: bool,
    /// Why the guest exited, for a landing.
    pub cause: ExitCause,
    /// Network devices, a bit for each, whose guest was asked to tell when it has a buffer.
    pub starved: u8,
    /// The host's time, as the guest should see it, when the clock's correction was last asked for.
    pub corrected: u64,
    /// The virtual time that the preemption timer is set for.
    pub alarm: Instant,
    /// An access has found the alarm's time past. The preemption timer stands still while exits are handled, so a guest that
    /// does little else but exit would get its interrupts late.
    pub late: bool,
    /// Exits since the clock was looked at that pass without one: see [`UNLOOKED`].
    unlooked: u32,
    /// The guest is on its way out of a repeated instruction, see [`Board::leave_repeated`], for which it has until then:
    /// nanoseconds of the host.
    pub leaves_rep: Option<u64>,
    /// The other host of the pair, if there is one.
    pub pair: Option<Box<Link>>,
    /// What a primary's guest has stood still for its backup.
    pub pace: Pace,
    /// What makes this host different from others, in tests.
    pub variation: Option<Variation>,
    /// How the guest is entered while it is led through a log.
    pub gear: Gear,
    emulator: Emulator,
    /// The virtual time of the guest's last access that depends on it.
    pub reached: Instant,
    /// Ticks of the preemption timer in a nanosecond, 32.32 fixed point.
    ticks: u64,
    /// Cycles of the host's time-stamp counter in one of these ticks.
    tick: u64,
    /// An NMI waits for the processor.
    pub nmi_due: bool,
    /// A window was asked for, or has opened.
    pub window: bool,
    /// The loop is to stop before the next entry.
    stop: Option<&'static str>,
}

impl Board {
    /// The computer in these surroundings. `hertz` is what the preemption timer counts in a second.
    pub fn new(
        name: &str,
        computer: Computer,
        vm: Vm,
        time: GuestTime,
        outside: Outside,
        disks: Vec<MemoryDisk, MAX_DISKS>,
        hertz: u64,
    ) -> Self {
        Self {
            name: name.into(),
            computer,
            vm,
            paging: Paging::default(),
            time,
            outside,
            disks,
            state: VmState::Running,
            order: None,
            ordered: None,
            tape: Tape::Off,
            here: Here::AfterExit,
            idle: 0,
            slept: 0,
            stands: None,
            exit: false,
            halt_again: false,
            changed: true,
            host_exit: false,
            timer: false,
            cause: ExitCause::Other,
            starved: 0,
            corrected: 0,
            alarm: 0,
            late: false,
            unlooked: 0,
            leaves_rep: None,
            pair: None,
            pace: Pace::default(),
            variation: None,
            gear: Gear::default(),
            emulator: Emulator::new(),
            reached: 0,
            ticks: ((u128::from(hertz) << 32) / 1_000_000_000) as u64,
            tick: host_time::hertz() / hertz.max(1) + 1,
            nmi_due: false,
            window: false,
            stop: None,
        }
    }

    /// Virtual time at an access of the guest.
    #[inline]
    fn now(&mut self) -> Instant {
        let now = self.time.now();
        self.reached = now;
        self.late |= now >= self.alarm;
        now
    }

    /// What an access of the guest reaches at this time.
    #[inline]
    pub fn bus(&mut self, now: Instant) -> BoardBus<'_> {
        BoardBus {
            now,
            computer: &mut self.computer,
            vm: &mut self.vm,
            outside: &mut self.outside,
            disks: &mut self.disks,
        }
    }

    /// Whether the guest's network device has a buffer for a frame of this length now.
    pub fn has_buffer(&mut self, device: u8, length: usize) -> bool {
        let ram = self.vm.ram();
        self.computer.pci.has_buffer_for(device, length, &ram)
    }

    /// The processor is about to run from power-on.
    pub fn begin(&mut self, on: &mut Active<'_>) {
        (self.nmi_due, self.window) = (false, false);
        (self.exit, self.halt_again, self.changed) = (false, false, true);
        self.starved = 0;
        on.request_nmi_window(false);
        on.request_interrupt_window(false);
        self.begin_paging(on);
        self.set_alarm(on, self.time.now());
        if let Some(variation) = &mut self.variation {
            variation.interrupt_soon();
        }
    }

    /// Has the loop stop before the next entry.
    pub fn stop(&mut self, why: &'static str) {
        self.stop = Some(why);
    }

    /// The loop may go on.
    pub fn clear_stop(&mut self) {
        self.stop = None;
    }

    /// Why the loop is to stop, if it is.
    #[inline]
    pub fn stop_verdict(&self) -> Option<Verdict> {
        if self.stop.is_none() && self.outside.power.is_none() {
            return None;
        }
        Some(Verdict::Stop(Stop::Named(self.stop.unwrap_or(reason::POWER))))
    }

    /// The guest is at a synchronous exit.
    #[inline]
    fn begin_exit(&mut self) {
        self.exit = true;
        self.tape.begin_exit();
    }

    /// Sets the preemption timer for the next deadline, or the next look at the clock.
    pub fn set_alarm(&mut self, on: &mut Active<'_>, now: Instant) {
        let most = self.backup_due().map_or(LOOK_PERIOD, |left| left.min(LOOK_PERIOD));
        let ahead = self.computer.due().saturating_sub(now).min(most).max(SHORTEST);
        self.alarm = now + ahead;
        (self.late, self.unlooked) = (false, 0);
        // Virtual time and the host's differ a little in speed: a timer that comes too early costs an exit for nothing.
        self.set_timer(on, ahead + (ahead >> SLACK_SHIFT));
    }

    /// Has the guest exit at least as often as it would to look at its clock, though the time says nothing here.
    pub fn set_watchdog(&mut self, on: &mut Active<'_>) {
        self.set_timer(on, LOOK_PERIOD);
    }

    /// Has the guest exit after so many cycles of the host's time-stamp counter, or fewer. False: the preemption timer's ticks are
    /// too long for that.
    pub fn run_briefly(&self, on: &mut Active<'_>, cycles: u64) -> bool {
        let ticks = u32::try_from(cycles / self.tick).unwrap_or(u32::MAX);
        if ticks == 0 {
            return false;
        }
        on.arm_preemption_timer(Some(ticks));
        true
    }

    /// Sets the preemption timer: nanoseconds from now on.
    pub fn set_timer(&mut self, on: &mut Active<'_>, ahead: u64) {
        let ahead = self.variation.as_mut().map_or(ahead, |variation| variation.timer(ahead));
        // At most LOOK_PERIOD and its slack, at any frequency below 1000 GHz.
        let ticks = ((u128::from(ahead) * u128::from(self.ticks)) >> 32) as u64;
        on.arm_preemption_timer(Some(u32::try_from(ticks).unwrap_or(u32::MAX).max(1)));
    }

    /// Makes this host different, for a test.
    #[cold]
    fn vary(&mut self) {
        let Some(variation) = &mut self.variation else { return };
        if duties::take(duties::VARIATION) != 0 {
            variation.interrupt_soon();
        }
        let pages = self.vm.memory().len() as u64 / FRAME;
        if let Some(page) = variation.page_to_take(pages) {
            self.vm.put_away(page as usize);
        }
    }

    /// Interrupts follow from what has changed.
    #[inline]
    pub fn settle(&mut self, on: &mut Active<'_>) {
        if core::mem::take(&mut self.changed) {
            let interrupts = &self.computer.interrupts;
            if interrupts.pending() || interrupts.nmi_pending() || self.nmi_due || self.window {
                self.deliver(on);
            }
        }
    }

    /// Injects what is pending, or has the guest exit as soon as it can take it.
    #[cold]
    fn deliver(&mut self, on: &mut Active<'_>) {
        self.nmi_due |= self.computer.interrupts.take_nmi();
        if self.nmi_due && on.can_take_nmi() {
            on.inject_nmi();
            self.nmi_due = false;
        }
        if self.computer.interrupts.pending()
            && on.can_take_interrupt()
            && let Some(vector) = self.computer.interrupts.acknowledge()
        {
            on.inject_interrupt(vector);
        }
        let more = self.computer.interrupts.pending();
        on.request_nmi_window(self.nmi_due);
        on.request_interrupt_window(more);
        self.window = self.nmi_due || more;
    }

    /// Whether the processor would leave HLT: an NMI waits, or an interrupt and it lets interrupts in.
    pub fn wakes(&mut self, on: &Active<'_>) -> bool {
        self.nmi_due |= self.computer.interrupts.take_nmi();
        self.nmi_due || self.computer.interrupts.pending() && on.interrupts_enabled()
    }

    /// Executes the instruction that has touched device memory or done string I/O.
    fn emulate(&mut self, on: &mut Active<'_>, cause: Cause) -> Verdict {
        self.time.charge();
        let now = self.now();
        let mut bus = BoardBus {
            computer: &mut self.computer,
            vm: &mut self.vm,
            outside: &mut self.outside,
            disks: &mut self.disks,
            now,
        };
        let outcome = self.emulator.step(on, &mut bus, cause);
        on.settle(outcome)
    }

    /// Apart from what the last exit may have brought nothing is to be done before the next entry.
    #[inline(always)]
    fn nothing_waits(&self, on: &Active<'_>) -> bool {
        let elsewhere = match &self.tape {
            Tape::Replaying(_) => !self.gear.is_quiet(on.emulated()),
            _ => self.late | (self.computer.due() < self.alarm),
        };
        !(elsewhere | self.halt_again | self.host_exit)
            && self.stop_verdict().is_none()
            && !self.tables_written()
    }

    /// Deals with the last exit, a synchronous one, if nothing follows from it but that a recording or a replay has to fold it. False:
    /// nothing was done.
    #[inline(always)]
    fn passes_plain_exit(&mut self, on: &mut Active<'_>) -> bool {
        let interrupts = &self.computer.interrupts;
        let more = interrupts.pending() | interrupts.nmi_pending() | self.nmi_due | self.window;
        if more | self.outside.is_open() | (self.reached >= self.computer.due()) {
            return false;
        }
        match &mut self.tape {
            Tape::Off => {}
            Tape::Recording(recording) => {
                if !recording.only_folds(self.reached) {
                    return false;
                }
                recording.end_exit(on, self.time.instructions());
            }
            Tape::Replaying(replaying) => {
                if !replaying.passes_by() {
                    return false;
                }
                replaying.end_exit(on, self.time.instructions());
            }
        }
        true
    }

    /// What [`Machine::prepare`] does unless there is nothing to do.
    #[inline(never)]
    fn prepare_with_care(&mut self, on: &mut Active<'_>) -> Verdict {
        if let Some(verdict) = self.stop_verdict() {
            return verdict;
        }
        if self.tables_written() {
            self.rebuild_paging(on);
        }
        if self.halt_again {
            // Back into HLT first: the guest is still there.
            return Verdict::Resume;
        }
        let exit = core::mem::take(&mut self.exit);
        if exit {
            if self.reached >= self.computer.due() {
                self.advance();
            }
            self.changed = true;
            self.end_exit(on);
            self.note_registers(on);
        }
        match self.tape {
            Tape::Replaying(_) => {
                let verdict = self.follow(on, exit);
                if let Tape::Replaying(replaying) = &mut self.tape {
                    replaying.look_ahead();
                }
                verdict
            }
            _ => self.lead(on, exit),
        }
    }
}

impl Machine for Board {
    #[inline(always)]
    fn prepare(&mut self, on: &mut Active<'_>) -> Verdict {
        self.time.set_emulated(on.emulated());
        if self.nothing_waits(on) {
            if self.exit && self.passes_plain_exit(on) {
                (self.exit, self.changed) = (false, false);
                return Verdict::Resume;
            }
            if !(self.exit | self.changed) {
                return Verdict::Resume;
            }
        }
        self.prepare_with_care(on)
    }

    #[inline(always)]
    fn instruction_exited(&mut self, on: &mut Active<'_>) {
        self.time.note_exit();
        self.cause = ExitCause::Other;
        self.end_step(on);
        self.begin_exit();
    }

    #[inline(always)]
    fn written_first(&mut self, on: &Active<'_>, guest: u64) -> bool {
        self.unlooked += 1;
        self.late |= self.unlooked >= UNLOOKED;
        // What came for the host waits for this exit, or a landing does.
        let awaited = match &self.tape {
            Tape::Replaying(_) => !self.gear.is_quiet(on.emulated()),
            _ => self.late,
        };
        !(awaited | self.host_exit) && self.note_first_write(guest)
    }

    #[inline]
    fn exited(&mut self, on: &mut Active<'_>, exit: &Exit) {
        self.time.note_exit();
        self.cause = ExitCause::Other;
        self.end_iterating(on);
        self.end_step(on);
        if vcpu::is_synchronous(on, exit) {
            if matches!(exit, Exit::Hlt) && core::mem::take(&mut self.halt_again) {
                self.exit = true;
            } else {
                self.begin_exit();
            }
        }
    }

    #[inline]
    fn cpuid(&mut self, leaf: u32, sub: u32, view: CpuView) -> [u32; 4] {
        self.time.charge();
        self.computer.cpuid(leaf, sub, view)
    }

    #[inline]
    fn read_port(&mut self, port: u16, size: u8) -> u32 {
        self.time.charge();
        let now = self.now();
        self.bus(now).read_port(port, size)
    }

    #[inline]
    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        self.outside.to_wire.begin();
        self.time.charge();
        let now = self.now();
        self.bus(now).write_port(port, size, value);
    }

    fn string_io(&mut self, on: &mut Active<'_>, _access: IoAccess) -> Verdict {
        self.emulate(on, Cause::Port)
    }

    fn read_msr(&mut self, number: u32) -> Option<u64> {
        self.time.charge();
        let now = self.now();
        self.computer.read_msr(number, now)
    }

    fn write_msr(&mut self, number: u32, value: u64) -> bool {
        self.time.charge();
        let now = self.now();
        self.computer.write_msr(number, value, now).is_some()
    }

    #[inline]
    fn time_stamp(&mut self) -> u64 {
        self.time.charge();
        let now = self.now();
        self.computer.time_stamp(now)
    }

    fn random(&mut self) -> u64 {
        self.time.charge();
        self.computer.random()
    }

    fn task_priority(&mut self) -> u8 {
        self.computer.interrupts.task_priority()
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.computer.interrupts.set_task_priority(priority);
    }

    fn read_memory(&mut self, guest: u64, bytes: &mut [u8]) -> bool {
        self.vm.ram().read(guest, bytes).is_ok()
    }

    fn halted(&mut self, on: &mut Active<'_>) -> Verdict {
        match self.tape {
            Tape::Replaying(_) => self.halt_along(on),
            _ => self.wait(on),
        }
    }

    fn ept_violation(&mut self, on: &mut Active<'_>, violation: &EptViolation) -> Verdict {
        if let Some(verdict) = self.page_violation(on, violation) {
            return verdict;
        }
        // Device memory: nothing else is left.
        self.begin_exit();
        // An event whose delivery touches device memory would need the delivery emulated, and no system does that.
        if on.event_is_due() {
            log::error!(
                "the delivery of an event touches {:#x}, where there is no memory",
                violation.guest_physical
            );
            return Verdict::Stop(Stop::Named(reason::DELIVERY));
        }
        self.emulate(on, Cause::Memory)
    }

    fn paging_changed(&mut self, on: &mut Active<'_>, loaded: Option<u64>) {
        self.follow_paging(on, loaded);
    }

    fn page_fault(&mut self, on: &mut Active<'_>, linear: u64, code: u32) -> Option<Verdict> {
        self.check_page_fault(on, linear, code)
    }

    fn host_event(&mut self, on: &mut Active<'_>, exit: &Exit) -> Verdict {
        self.cause = match exit {
            Exit::PreemptionTimer => ExitCause::Timer,
            Exit::MonitorTrapFlag => ExitCause::Step,
            Exit::Exception(exception) if on.is_own_breakpoint(exception) => ExitCause::Breakpoint,
            Exit::ExternalInterrupt { vector: Some(vector::PERFORMANCE) } => ExitCause::Overflow,
            _ => ExitCause::Other,
        };
        if self.cause == ExitCause::Overflow {
            self.overflow_came();
        }
        match exit {
            // The window's events are delivered before the entry.
            Exit::InterruptWindow | Exit::NmiWindow => self.window = true,
            Exit::PreemptionTimer => (self.timer, self.host_exit) = (true, true),
            _ => self.host_exit |= duties::pending() != 0 || self.leaves_rep.is_some(),
        }
        if self.host_exit && self.variation.is_some() {
            self.vary();
        }
        Verdict::Resume
    }

    fn triple_fault(&mut self) -> Verdict {
        // The shutdown cycle resets a PC.
        self.outside.power.get_or_insert(Power::Reset);
        Verdict::Stop(Stop::Named(reason::POWER))
    }
}
