//! The guest's computer on this host, as the loop of its virtual processor asks for it: the computer itself, its memory,
//! its time, and what is outside.

use super::bus::BoardBus;
use super::disks::MemoryDisk;
use super::operator::Desk;
use super::outside::Outside;
use super::time::GuestTime;
use crate::arch::time;
use crate::shell::system::{Order, VmState};
use crate::vcpu::{Active, CpuView, Machine, Stop, Verdict};
use crate::vmm::vm::Vm;
use crate::{duties, terminal};
use alloc::string::String;
use heapless::Vec;
use machine::computer::Computer;
use machine::context::Instant;
use machine::emulate::{Bus, Cause, Emulator};
use machine::input::Input;
use machine::output::Power;
use machine::ram::Ram;
use vmx::exit::{EptViolation, Exit, IoAccess};

/// Disks of a guest at most.
pub const MAX_DISKS: usize = 8;

/// The longest that the guest runs without a look at its clock, nanoseconds.
const LOOK_PERIOD: u64 = 4_000_000;

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
}

/// The guest's computer on this host.
pub struct Board {
    /// Its name.
    pub name: String,
    /// The computer.
    pub computer: Computer,
    /// Its memory.
    pub vm: Vm,
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
    emulator: Emulator,
    /// The virtual time that the preemption timer is set for.
    alarm: Instant,
    /// Ticks of the preemption timer in a nanosecond, 32.32 fixed point.
    ticks: u64,
    /// An NMI waits for the processor.
    nmi_due: bool,
    /// A window was asked for, or has opened.
    window: bool,
    /// An access has found the alarm's time past. The preemption timer stands still while exits are handled, so a guest that
    /// does little else but exit would get its interrupts late.
    late: bool,
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
            time,
            outside,
            disks,
            state: VmState::Running,
            order: None,
            emulator: Emulator::new(),
            alarm: 0,
            ticks: ((u128::from(hertz) << 32) / 1_000_000_000) as u64,
            nmi_due: false,
            window: false,
            late: false,
            stop: None,
        }
    }

    /// Takes something in by the input door, at the point where the guest is now.
    pub fn input(&mut self, input: Input<'_>) -> usize {
        self.bus().reach(|computer, context| computer.input(input, context))
    }

    /// Virtual time at an access of the guest.
    #[inline]
    fn now(&mut self) -> Instant {
        let now = self.time.now();
        self.late |= now >= self.alarm;
        now
    }

    /// What an access of the guest reaches, now.
    #[inline]
    fn bus(&mut self) -> BoardBus<'_> {
        let now = self.now();
        BoardBus {
            now,
            computer: &mut self.computer,
            vm: &mut self.vm,
            outside: &mut self.outside,
            disks: &mut self.disks,
        }
    }

    /// The processor is about to run from power-on.
    pub fn begin(&mut self, on: &mut Active<'_>) {
        (self.nmi_due, self.window) = (false, false);
        on.request_nmi_window(false);
        on.request_interrupt_window(false);
        self.look_at_clock(on);
    }

    /// Has the loop stop before the next entry.
    pub fn stop(&mut self, why: &'static str) {
        self.stop = Some(why);
    }

    /// The loop may go on.
    pub fn clear_stop(&mut self) {
        self.stop = None;
    }

    /// Lets the computer do what is due.
    fn advance(&mut self) {
        self.bus().reach(|computer, context| computer.advance(context));
    }

    /// Looks at the clock: corrects it, does what is due, and sets the preemption timer for what is due next.
    fn look_at_clock(&mut self, on: &mut Active<'_>) {
        self.time.correct();
        self.advance();
        self.set_alarm(on, self.time.now());
    }

    /// Sets the preemption timer for the next deadline, or the next look at the clock.
    fn set_alarm(&mut self, on: &mut Active<'_>, now: Instant) {
        let ahead = self.computer.due().saturating_sub(now).clamp(SHORTEST, LOOK_PERIOD);
        self.alarm = now + ahead;
        self.late = false;
        // Virtual time and the host's differ a little in speed: a timer that comes too early costs an exit for nothing.
        let ahead = ahead + (ahead >> SLACK_SHIFT);
        // At most LOOK_PERIOD and its slack, at any frequency below 1000 GHz.
        let ticks = ((u128::from(ahead) * u128::from(self.ticks)) >> 32) as u64;
        on.arm_preemption_timer(Some(u32::try_from(ticks).unwrap_or(u32::MAX).max(1)));
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

    /// HLT: waits in real time until something comes that the processor takes. If the loop is to stop before that, the
    /// instruction is executed again afterwards: a guest never leaves HLT without a cause of its own.
    fn wait(&mut self, on: &mut Active<'_>) -> Verdict {
        loop {
            self.advance();
            if self.wakes(on) {
                self.time.charge();
                return Verdict::Skip;
            }
            if self.stop.is_some() || self.outside.power.is_some() {
                return Verdict::Resume;
            }
            let due = self.computer.due();
            if duties::pending() & (duties::SERIAL | duties::NETWORK) == 0 {
                let until = (due != Instant::MAX).then(|| self.time.host_time_of(due));
                if self.time.follows_host() || until.is_none() {
                    time::wait_for_interrupt(until);
                }
            }
            self.time.wake(due);
            self.serve_duties(on);
        }
    }

    /// Whether the processor would leave HLT: an NMI waits, or an interrupt and it lets interrupts in.
    fn wakes(&mut self, on: &Active<'_>) -> bool {
        self.nmi_due |= self.computer.interrupts.take_nmi();
        self.nmi_due || self.computer.interrupts.pending() && on.interrupts_enabled()
    }

    /// Does what the host has to do beside the guest.
    fn serve_duties(&mut self, on: &mut Active<'_>) {
        let pending = duties::pending();
        if pending & duties::SERIAL != 0 {
            let (exits, cycles) = on.costs();
            terminal::serve(Some(&mut Desk { board: self, exits: &exits, cycles: &cycles }));
        }
        if pending & duties::NETWORK != 0 {
            duties::take(duties::NETWORK);
            self.bring_frames();
        }
    }

    /// Brings in what has arrived on the cards, as far as the guest takes it.
    fn bring_frames(&mut self) {
        for device in 0..self.outside.bridges.len() {
            // Out of its place while it hands frames over: what comes in does not make the guest send at once.
            let Some(mut bridge) = self.outside.bridges[device].take() else { continue };
            let device_number = device as u8;
            bridge.poll(&mut |frame| {
                // What the guest does not want is no input.
                !self.computer.pci.wants_frame(device_number, frame)
                    || self.input(Input::Frame { device: device_number, frame }) != 0
            });
            if let Some(up) = bridge.link_change() {
                self.input(Input::Link { device: device_number, up });
            }
            self.outside.bridges[device] = Some(bridge);
        }
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
}

impl Machine for Board {
    #[inline]
    fn prepare(&mut self, on: &mut Active<'_>) -> Verdict {
        if self.stop.is_some() || self.outside.power.is_some() {
            return Verdict::Stop(Stop::Named(self.stop.unwrap_or(reason::POWER)));
        }
        if self.late {
            self.look_at_clock(on);
        }
        if self.computer.due() < self.alarm {
            self.advance();
            self.set_alarm(on, self.time.now());
        }
        let interrupts = &self.computer.interrupts;
        if interrupts.pending() || interrupts.nmi_pending() || self.nmi_due || self.window {
            self.deliver(on);
        }
        Verdict::Resume
    }

    #[inline]
    fn cpuid(&mut self, leaf: u32, sub: u32, view: CpuView) -> [u32; 4] {
        self.time.charge();
        self.computer.cpuid(leaf, sub, view)
    }

    #[inline]
    fn read_port(&mut self, port: u16, size: u8) -> u32 {
        self.time.charge();
        self.bus().read_port(port, size)
    }

    #[inline]
    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        self.time.charge();
        self.bus().write_port(port, size, value);
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
        Ram::new(self.vm.memory_mut()).read(guest, bytes).is_ok()
    }

    fn halted(&mut self, on: &mut Active<'_>) -> Verdict {
        self.wait(on)
    }

    fn ept_violation(&mut self, on: &mut Active<'_>, violation: &EptViolation) -> Verdict {
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

    fn host_event(&mut self, on: &mut Active<'_>, exit: &Exit) -> Verdict {
        match exit {
            Exit::PreemptionTimer => self.look_at_clock(on),
            // The window's events are delivered before the entry.
            Exit::InterruptWindow | Exit::NmiWindow => self.window = true,
            _ => {
                if duties::pending() != 0 {
                    self.serve_duties(on);
                }
            }
        }
        Verdict::Resume
    }

    fn triple_fault(&mut self) -> Verdict {
        // The shutdown cycle resets a PC.
        self.outside.power.get_or_insert(Power::Reset);
        Verdict::Stop(Stop::Named(reason::POWER))
    }
}
