//! The guest's time on this host: what it retires is counted, counts become virtual time, and the host's time corrects the
//! rate.

use crate::arch::pmu::Counters;
use crate::arch::{cpu, time};
use machine::clock::ticks::SECOND;
use machine::clock::{Correction, VirtualClock};
use machine::context::Instant;
use machine::devices::BadState;
use replay::landing::Counter;

/// What an exit whose instruction is emulated counts beside the guest's own instructions. About what it costs: without it,
/// a loop that waits for the time-stamp counter would run far too long.
pub const CHARGE: u64 = 400;

/// What counts.
enum Source {
    /// The guest's instructions, by the performance counters: the same on two hosts.
    Instructions(Counters),
    /// The host's time-stamp counter, where there are no counters that hold: such a guest cannot be protected.
    Host {
        /// The time-stamp counter at power-on.
        start: u64,
    },
}

/// The guest's time.
pub struct GuestTime {
    source: Source,
    clock: VirtualClock,
    /// What emulated exits so far count beside their instructions.
    charged: u64,
    /// Instructions that the guest has retired up to its last exit: the counter stands still while the host runs.
    retired: u64,
    /// Instructions that software has completed in the guest's place: [`Active::emulated`](crate::vcpu::Active::emulated).
    emulated: u64,
    /// The rate is corrected; otherwise it stays as configured, and time has nothing to do with the host's.
    follows_host: bool,
    /// Host time that the guest has stood still on the operator's order, nanoseconds: none of the guest's.
    stood: u64,
    /// Host time at power-on, nanoseconds; less than nothing where another host has run the guest before.
    start: i64,
}

impl GuestTime {
    /// Time begins, by these counters if there are any.
    pub fn new(counters: Option<Counters>, follows_host: bool) -> Self {
        let source = counters.map_or(Source::Host { start: cpu::tsc() }, Source::Instructions);
        let start = time::now_ns() as i64;
        // A count is an instruction, or a tick of the time-stamp counter itself.
        let pace = (u128::from(SECOND) << 32) / u128::from(time::hertz().max(1));
        let clock = VirtualClock::expecting(u64::try_from(pace).unwrap_or(u64::MAX));
        let mut this =
            Self { source, clock, charged: 0, retired: 0, emulated: 0, follows_host, stood: 0, start };
        this.note_exit();
        this
    }

    /// The guest has exited. To be called after every exit, before anything asks for the time.
    #[inline(always)]
    pub fn note_exit(&mut self) {
        if let Source::Instructions(counters) = &self.source {
            self.retired = counters.instructions();
        }
    }

    /// The guest is powered on: what the host has done before is none of its time.
    pub fn begin(&mut self) {
        self.start = time::now_ns() as i64;
        if let Source::Host { start } = &mut self.source {
            *start = cpu::tsc();
        }
    }

    /// Whether it is a function of the guest's instructions.
    pub const fn is_exact(&self) -> bool {
        matches!(self.source, Source::Instructions(_))
    }

    /// The count that time is a function of.
    #[inline]
    pub fn count(&self) -> u64 {
        match &self.source {
            Source::Instructions(_) => self.instructions() + self.charged,
            Source::Host { start } => cpu::tsc() - start,
        }
    }

    /// Whether its rate is corrected to follow the host's.
    pub const fn follows_host(&self) -> bool {
        self.follows_host
    }

    /// The host's uptime, nanoseconds, at which the guest's time should be this.
    pub const fn host_time_of(&self, at: Instant) -> u64 {
        at.saturating_add_signed(self.start).saturating_add(self.stood)
    }

    /// N: instructions that the guest has retired, and those that software has completed in its place. 0 without counters.
    #[inline]
    pub fn instructions(&self) -> u64 {
        match &self.source {
            Source::Instructions(counters) => {
                debug_assert_eq!(self.retired, counters.instructions(), "an exit was not noted");
                // Going back in time makes what software has completed less than nothing.
                self.retired.wrapping_add(self.emulated)
            }
            Source::Host { .. } => 0,
        }
    }

    /// Software has completed so many instructions in the guest's place, ever.
    #[inline]
    pub const fn set_emulated(&mut self, emulated: u64) {
        self.emulated = emulated;
    }

    /// Has the counter of instructions interrupt when so many more are retired, or not at all. Nothing without counters.
    pub fn arm(&mut self, ahead: Option<u64>) {
        if let Source::Instructions(counters) = &mut self.source {
            counters.arm(ahead.map(|ahead| (Counter::Instructions, ahead.max(1))));
        }
    }

    /// What emulated exits so far count beside their instructions.
    pub const fn charged(&self) -> u64 {
        self.charged
    }

    /// Brings a replayed guest's time back to what [`GuestTime::charged`] and [`GuestTime::clock`] were.
    ///
    /// # Errors
    /// [`BadState`].
    pub fn put_back(&mut self, charged: u64, clock: machine::clock::State) -> Result<(), BadState> {
        (self.charged, self.clock) = (charged, VirtualClock::restore(clock)?);
        Ok(())
    }

    /// The clock's state.
    pub fn clock(&self) -> machine::clock::State {
        self.clock.save()
    }

    /// An instruction of the guest is emulated.
    #[inline]
    pub const fn charge(&mut self) {
        self.charged += CHARGE;
    }

    /// Virtual time.
    #[inline]
    pub fn now(&self) -> Instant {
        self.clock.now(self.count())
    }

    /// The host's time as the guest should see it: since its power-on, without what it stood still.
    pub fn real(&self) -> Instant {
        time::now_ns().saturating_add_signed(-self.start).saturating_sub(self.stood)
    }

    /// For how long the guest stood still, nanoseconds of the host.
    pub const fn stood(&self) -> u64 {
        self.stood
    }

    /// The clock begins at this rate, whatever this host's pace is: as it was recorded. Nothing has been counted yet.
    pub const fn set_first_rate(&mut self, rate: u64) {
        self.clock = VirtualClock::expecting(rate);
    }

    /// Sets the rate of a clock that follows instructions only: nanoseconds per count, 32.32 fixed point.
    pub fn set_rate(&mut self, rate: u64) {
        self.clock.apply(self.count(), &Correction { rate, step: 0 });
    }

    /// The correction that the rate needs now, if any. To be called every few milliseconds while the guest runs.
    pub fn correction(&mut self) -> Option<Correction> {
        if !self.follows_host {
            return None;
        }
        let count = self.count();
        self.clock.correct(count, self.real())
    }

    /// Corrects the rate.
    pub fn correct(&mut self, correction: &Correction) {
        let count = self.count();
        self.clock.apply(count, correction);
    }

    /// A halted guest's time jumps there, or stays where it is if that has passed.
    pub fn jump(&mut self, to: Instant) {
        let count = self.count();
        self.clock.jump(count, to);
    }

    /// From now on the guest's time follows this host's: it goes on from where another host's has brought it.
    pub fn take_over(&mut self) {
        self.start = (time::now_ns() as i64).saturating_sub_unsigned(self.now());
        self.stood = 0;
    }

    /// The guest stood still for so many nanoseconds of the host, which are none of its own.
    pub const fn stand(&mut self, nanoseconds: u64) {
        self.stood += nanoseconds;
    }
}
