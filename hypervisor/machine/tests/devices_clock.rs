//! The virtual clock: never back, the same wherever the records are the same, and close to real time.

use machine::clock::{Correction, MAX_RATE, MIN_RATE, NANOSECOND, State, VirtualClock};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// A record in the log of a clock.
#[derive(Clone, Copy, Debug)]
enum Record {
    Correction(Correction),
    Jump(u64),
}

fn apply(clock: &mut VirtualClock, count: u64, record: &Record) {
    match record {
        Record::Correction(correction) => clock.apply(count, correction),
        Record::Jump(to) => {
            clock.jump(count, *to);
        }
    }
}

/// Numbers of all sizes.
fn any_size() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (any_size(), any::<u32>()).prop_map(|(rate, step)| Record::Correction(Correction { rate, step })),
        any_size().prop_map(Record::Jump),
    ]
}

fn clock() -> impl Strategy<Value = VirtualClock> {
    (any_size(), any_size(), any::<u32>(), MIN_RATE..=MAX_RATE).prop_map(
        |(count, nanoseconds, fraction, rate)| {
            VirtualClock::restore(State { count, nanoseconds, fraction, rate }).expect("valid")
        },
    )
}

proptest! {
    /// Whatever a log says, also one that no primary writes.
    #[test]
    fn time_never_goes_back(mut clock in clock(), steps in prop::collection::vec((0_u64..1 << 40, record()), 1..50)) {
        let mut count = clock.save().count;
        let mut last = clock.now(count);
        for (counts, record) in steps {
            count = count.saturating_add(counts);
            let before = clock.now(count);
            prop_assert!(before >= last, "in between");
            apply(&mut clock, count, &record);
            last = clock.now(count);
            prop_assert!(last >= before, "by a record");
        }
    }

    /// A record that changes nothing changes no moment: rebasing is exact.
    #[test]
    fn a_record_of_the_same_rate_changes_nothing(clock in clock(), at in 0_u64..1 << 40, later in 0_u64..1 << 40) {
        let State { count, rate, .. } = clock.save();
        let mut recorded = clock.clone();
        let at = count.saturating_add(at);
        recorded.apply(at, &Correction { rate, step: 0 });
        let later = at.saturating_add(later);
        prop_assert_eq!(recorded.now(later), clock.now(later));
    }

    #[test]
    fn the_count_at_a_deadline_is_the_first(clock in clock(), ahead in 1_u64..1 << 45) {
        let State { count, nanoseconds, .. } = clock.save();
        prop_assume!(count < 1 << 62 && nanoseconds < 1 << 62);
        let deadline = nanoseconds + ahead;
        let at = clock.count_at(deadline);
        prop_assert!(clock.now(at) >= deadline);
        prop_assert!(at == count || clock.now(at - 1) < deadline);
        prop_assert_eq!(clock.count_at(nanoseconds), count, "already there");
    }

    #[test]
    fn a_saved_clock_has_the_same_future(clock in clock(), steps in prop::collection::vec((0_u64..1 << 40, record()), 1..20)) {
        let bytes = postcard::to_allocvec(&clock.save()).expect("plain data");
        let mut restored = VirtualClock::restore(postcard::from_bytes(&bytes).expect("as saved")).expect("valid");
        let mut clock = clock;
        let mut count = clock.save().count;
        for (counts, record) in steps {
            count = count.saturating_add(counts);
            apply(&mut clock, count, &record);
            apply(&mut restored, count, &record);
            prop_assert_eq!(clock.save(), restored.save());
        }
    }
}

/// A simulated primary: a guest whose pace changes wildly, that halts, on a host that stalls.
struct Primary {
    random: ChaCha20Rng,
    clock: VirtualClock,
    count: u64,
    /// Real time, nanoseconds.
    real: u64,
    /// Nanoseconds per count now, as a rate.
    pace: u64,
    log: Vec<(u64, Record)>,
}

impl Primary {
    fn new(seed: u64) -> Self {
        let mut primary = Self {
            random: ChaCha20Rng::seed_from_u64(seed),
            clock: VirtualClock::new(),
            count: 0,
            real: 0,
            pace: 0,
            log: Vec::new(),
        };
        primary.change_pace();
        primary
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    /// From 10 million to 5000 million a second, evenly over the magnitudes.
    fn change_pace(&mut self) {
        let exponent = self.below(9000) as f64 / 9000.0;
        let per_second = 10e6 * 500_f64.powf(exponent);
        self.pace = (1e9 / per_second * NANOSECOND as f64) as u64;
    }

    /// Executes for so much real time, in slices that end with an exit.
    fn execute(&mut self, mut nanoseconds: u64) {
        while nanoseconds != 0 {
            // An exit comes at the latest when the preemption timer asks for a look at the clock.
            let slice = (50_000 + self.below(3_950_000)).min(nanoseconds);
            nanoseconds -= slice;
            self.real += slice;
            self.count += (u128::from(slice) << 32).div_ceil(u128::from(self.pace)) as u64;
            self.look();
        }
    }

    fn look(&mut self) {
        if let Some(correction) = self.clock.correct(self.count, self.real) {
            self.record(Record::Correction(correction));
        }
    }

    fn record(&mut self, record: Record) {
        let before = self.clock.now(self.count);
        apply(&mut self.clock, self.count, &record);
        assert!(self.clock.now(self.count) >= before, "the clock went back");
        self.log.push((self.count, record));
    }

    /// Halts for so long in real time; then time is what it should be, or goes on if it is ahead.
    fn halt(&mut self, nanoseconds: u64) {
        self.real += nanoseconds;
        let to = self.real.max(self.clock.now(self.count));
        self.record(Record::Jump(to));
        self.look();
    }

    /// Nanoseconds by which virtual time is ahead of real time.
    fn ahead(&self) -> i64 {
        self.clock.now(self.count) as i64 - self.real as i64
    }
}

#[test]
fn virtual_time_keeps_to_real_time_under_wild_paces() {
    for seed in 0..20 {
        let mut primary = Primary::new(seed);
        let mut worst = 0;
        while primary.real < 60 * SECOND {
            primary.change_pace();
            let time = primary.below(400 * MILLISECOND) + 1;
            primary.execute(time);
            if primary.below(4) == 0 {
                let time = primary.below(20 * MILLISECOND);
                primary.halt(time);
            }
            worst = worst.max(primary.ahead().abs());
        }
        let allowed = (primary.real / 1000) as i64;
        assert!(primary.ahead().abs() < allowed, "seed {seed}: {} ns ahead after a minute", primary.ahead());
        assert!(worst < allowed, "seed {seed}: {worst} ns off at some time");
    }
}

#[test]
fn a_steady_guest_needs_few_records_and_is_exact() {
    let mut primary = Primary::new(1);
    primary.pace = NANOSECOND / 3;
    primary.execute(SECOND);
    let start = primary.log.len();
    primary.execute(9 * SECOND);
    assert!(primary.log.len() - start < 90, "{} records in nine seconds", primary.log.len() - start);
    assert!(primary.ahead().abs() < 200_000, "{} ns ahead", primary.ahead());
}

#[test]
fn a_guest_that_stays_slow_gets_even_time_again() {
    let mut primary = Primary::new(1);
    primary.pace = NANOSECOND / 5;
    primary.execute(SECOND);
    primary.pace = NANOSECOND * 50;
    primary.execute(SECOND);
    let steps = |log: &[(u64, Record)]| {
        let stepped = |record: &&(u64, Record)| matches!(record.1, Record::Correction(it) if it.step != 0);
        log.iter().filter(stepped).count()
    };
    assert!(
        steps(&primary.log) > 100,
        "at first the rate stays near the fastest pace, and steps do the rest"
    );
    primary.execute(60 * SECOND);
    let start = primary.log.len();
    primary.execute(SECOND);
    assert_eq!(steps(&primary.log[start..]), 0, "the fast time is forgotten");
}

#[test]
fn a_stall_of_the_host_is_caught_up_smoothly() {
    for seed in 0..10 {
        let mut primary = Primary::new(seed);
        primary.execute(2 * SECOND);
        let stall = SECOND + primary.below(4 * SECOND);
        primary.real += stall;
        primary.look();
        assert!(primary.ahead() < -(stall as i64) / 2, "not in one jump");
        let end = primary.real + 2 * stall + SECOND;
        while primary.real < end {
            let (virtual_before, real_before) = (primary.clock.now(primary.count), primary.real);
            primary.execute(10 * MILLISECOND);
            let (passed, real) =
                (primary.clock.now(primary.count) - virtual_before, primary.real - real_before);
            assert!(passed <= 2 * real + 20 * MILLISECOND, "seed {seed}: {passed} ns within {real} ns");
        }
        assert!(primary.ahead().abs() < 3 * MILLISECOND as i64, "seed {seed}: {} ns ahead", primary.ahead());
    }
}

#[test]
fn a_replica_that_has_the_records_has_the_clock() {
    let mut primary = Primary::new(7);
    let mut samples = Vec::new();
    for _ in 0..300 {
        primary.change_pace();
        let time = primary.below(30 * MILLISECOND) + 1;
        primary.execute(time);
        samples.push((primary.log.len(), primary.count, primary.clock.now(primary.count)));
        if primary.below(3) == 0 {
            let time = primary.below(20 * MILLISECOND);
            primary.halt(time);
        }
    }
    let mut replica = VirtualClock::new();
    let mut applied = 0;
    for (records, count, now) in samples {
        for (at, record) in &primary.log[applied..records] {
            apply(&mut replica, *at, record);
        }
        applied = records;
        assert_eq!(replica.now(count), now, "at count {count}");
    }
    assert!(applied > 300, "there was something to replay: {applied}");
}

#[test]
fn a_replica_that_goes_live_goes_on_without_going_back() {
    let mut primary = Primary::new(3);
    primary.execute(3 * SECOND);
    // Only the state comes over; the new host takes half a second to take over, and its own clock is the reference.
    primary.clock = VirtualClock::restore(primary.clock.save()).expect("valid");
    primary.real += SECOND / 2;
    primary.execute(4 * SECOND);
    assert!(primary.ahead().abs() < 3 * MILLISECOND as i64, "{} ns ahead", primary.ahead());
}

#[test]
fn nothing_overflows_in_a_hundred_years() {
    let century = 100 * 366 * 86_400 * SECOND;
    let mut clock = VirtualClock::new();
    let mut count = 0;
    // At 5 counts a nanosecond, one record a year.
    clock.apply(0, &Correction { rate: NANOSECOND / 5, step: 0 });
    for _ in 0..100 {
        count += 5 * century / 100;
        let now = clock.now(count);
        clock.apply(count, &Correction { rate: NANOSECOND / 5, step: 0 });
        assert_eq!(clock.now(count), now);
    }
    assert!(clock.now(count).abs_diff(century) < century / 1000, "as late as it should be");
    assert_eq!(clock.now(u64::MAX), clock.now(u64::MAX), "and no panic far beyond");
    assert!(clock.count_at(u64::MAX) > count);
}

#[test]
fn a_rate_out_of_bounds_is_refused_in_a_state_and_bounded_in_a_record() {
    let state = VirtualClock::new().save();
    assert!(VirtualClock::restore(State { rate: 0, ..state.clone() }).is_err());
    assert!(VirtualClock::restore(State { rate: MAX_RATE + 1, ..state }).is_err());
    let mut clock = VirtualClock::new();
    clock.apply(0, &Correction { rate: 0, step: u32::MAX });
    assert_eq!(clock.save().rate, MIN_RATE);
    assert_eq!(clock.now(0), 10 * MILLISECOND);
}

#[test]
fn a_clock_that_knows_its_host_is_right_from_the_first_moment() {
    // A slow host: 20 ns for a count, which a clock that expects nothing believes only after many seconds.
    const PACE: u64 = 20;
    let mut clock = VirtualClock::expecting(PACE << 32);
    let (mut count, mut real) = (0, 0);
    for _ in 0..500 {
        count += 50_000;
        real += 50_000 * PACE;
        if let Some(correction) = clock.correct(count, real) {
            assert_eq!(correction.step, 0, "no step is needed");
            clock.apply(count, &correction);
        }
        assert!(real.abs_diff(clock.now(count)) <= 100_000, "at {real} ns: {}", clock.now(count));
    }
}

/// How far the clock swings while a guest with a constant pace is looked at so often, after a disturbance: once it has had
/// two seconds for it, nanoseconds.
fn swings(period: u64, disturbance: i64) -> u64 {
    const PACE: u64 = 2;
    let mut clock = VirtualClock::expecting(PACE << 32);
    let (mut count, mut real, mut worst) = (0, 0_u64, 0);
    for n in 0..4 * SECOND / period {
        count += period / PACE;
        real += period;
        if n == 20 {
            real = real.saturating_add_signed(disturbance);
        }
        if let Some(correction) = clock.correct(count, real) {
            clock.apply(count, &correction);
        }
        if real > 3 * SECOND {
            worst = real.abs_diff(clock.now(count)).max(worst);
        }
    }
    worst
}

#[test]
fn the_clock_does_not_swing_however_seldom_it_is_looked_at() {
    for period in [500_000, 1_000_000, 4 * MILLISECOND, 16 * MILLISECOND, 40 * MILLISECOND] {
        for disturbance in [5 * MILLISECOND as i64, -3 * MILLISECOND as i64] {
            let worst = swings(period, disturbance);
            assert!(worst <= 400_000, "{period} ns apart, {disturbance}: off by {worst} ns");
        }
    }
}
