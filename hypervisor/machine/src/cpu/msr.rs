//! The model-specific registers of the guest that are neither in the VMCS, nor used by the guest directly, nor the local
//! APIC's. What is not known here faults with #GP, as a processor does, and is counted.

use super::mtrr::Mtrrs;
use super::profile::Profile;
use crate::context::Instant;
use serde::{Deserialize, Serialize};

/// Numbers of the registers (SDM vol. 4).
mod number {
    pub const P5_MC_ADDR: u32 = 0;
    pub const P5_MC_TYPE: u32 = 1;
    pub const TIME_STAMP_COUNTER: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const SMI_COUNT: u32 = 0x34;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const PKG_CST_CONFIG_CONTROL: u32 = 0xe2;
    pub const BBL_CR_CTL3: u32 = 0x11e;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const PERF_STATUS: u32 = 0x198;
    pub const MISC_ENABLE: u32 = 0x1a0;
}
use number::*;

/// IA32_MISC_ENABLE: fast strings; branch-trace storage and PEBS are not there.
const MISC_ENABLE_RESET: u64 = 1 << 12 | 1 << 11 | 1 << 0;
/// Of it, what the guest may change: fast strings. The bits that would change what CPUID says stay as they are.
const MISC_ENABLE_WRITABLE: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: locked, with nothing switched on.
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// IA32_BIOS_SIGN_ID: a microcode revision, the same on every host.
const MICROCODE_REVISION: u64 = 1 << 32;
/// MSR_PLATFORM_INFO: ratios of the processor's clock to the bus, greatest without turbo and least.
const PLATFORM_RATIOS: u64 = RATIO << 40 | RATIO << 8;
const RATIO: u64 = super::profile::TSC_HZ / 1_000_000 / super::profile::BUS_MHZ as u64;
/// MSR_PKG_CST_CONFIG_CONTROL: locked, no package C-states.
const PACKAGE_STATES_LOCKED: u64 = 1 << 15;
/// MSR_BBL_CR_CTL3: the L2 cache is on.
const L2_ON: u64 = 0xbe70_2111;
/// IA32_MCG_STATUS: RIPV, EIPV, MCIP.
const MCG_STATUS_BITS: u64 = 7;

/// Everything that can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Time-stamp counter less the virtual clock, modulo 2^64.
    pub tsc_offset: u64,
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_MCG_STATUS.
    pub mcg_status: u64,
    /// The memory-type range registers.
    pub mtrrs: Mtrrs,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tsc_offset: 0,
            tsc_adjust: 0,
            misc_enable: MISC_ENABLE_RESET,
            mcg_status: 0,
            mtrrs: Mtrrs::default(),
        }
    }
}

/// The state could not have come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState;

/// The registers.
#[derive(Clone, Debug)]
pub struct Msrs {
    state: State,
    physical_bits: u8,
    unknown: u64,
    last_unknown: u32,
}

impl Msrs {
    /// As after power-on, at the beginning of the virtual clock.
    pub fn new(profile: &Profile) -> Self {
        Self { state: State::default(), physical_bits: profile.physical_bits(), unknown: 0, last_unknown: 0 }
    }

    /// As after a reset: the time-stamp counter starts again.
    pub fn reset(&mut self, now: Instant) {
        self.state = State { tsc_offset: now.wrapping_neg(), ..State::default() };
    }

    /// Sets the memory-type range registers as firmware would have, for a kernel that is started without: see
    /// [`Mtrrs::after_firmware`].
    pub fn set_mtrrs_after_firmware(&mut self, hole: u64) {
        self.state.mtrrs = Mtrrs::after_firmware(hole, self.physical_bits);
    }

    /// Everything that can change.
    pub fn save(&self) -> State {
        self.state.clone()
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// Not a state that writes could have led to.
    pub fn restore(profile: &Profile, state: State) -> Result<Self, BadState> {
        let valid = state.misc_enable & !MISC_ENABLE_WRITABLE == MISC_ENABLE_RESET & !MISC_ENABLE_WRITABLE
            && state.mcg_status & !MCG_STATUS_BITS == 0
            && state.mtrrs.is_valid(profile.physical_bits());
        if valid { Ok(Self { state, ..Self::new(profile) }) } else { Err(BadState) }
    }

    /// The time-stamp counter.
    #[inline]
    pub const fn time_stamp(&self, now: Instant) -> u64 {
        now.wrapping_add(self.state.tsc_offset)
    }

    /// When the time-stamp counter gets to a value; now, if it is there or past it.
    pub const fn instant_of(&self, time_stamp: u64, now: Instant) -> Instant {
        now.saturating_add(time_stamp.saturating_sub(self.time_stamp(now)))
    }

    /// RDMSR; None: #GP.
    pub fn read(&mut self, number: u32, now: Instant) -> Option<u64> {
        let value = match number {
            TIME_STAMP_COUNTER => Some(self.time_stamp(now)),
            TSC_ADJUST => Some(self.state.tsc_adjust),
            MISC_ENABLE => Some(self.state.misc_enable),
            MCG_STATUS => Some(self.state.mcg_status),
            _ => constant(number).or_else(|| self.state.mtrrs.read(number)),
        };
        if value.is_none() {
            self.count_unknown(number);
        }
        value
    }

    /// WRMSR; None: #GP.
    pub fn write(&mut self, number: u32, value: u64, now: Instant) -> Option<()> {
        match number {
            TIME_STAMP_COUNTER => {
                let change = value.wrapping_sub(self.time_stamp(now));
                self.adjust(change);
            }
            TSC_ADJUST => {
                let change = value.wrapping_sub(self.state.tsc_adjust);
                self.adjust(change);
            }
            MISC_ENABLE if (value ^ self.state.misc_enable) & !MISC_ENABLE_WRITABLE == 0 => {
                self.state.misc_enable = value;
            }
            MCG_STATUS if value & !MCG_STATUS_BITS == 0 => self.state.mcg_status = value,
            // No microcode is loaded; the revision is asked for by writing 0 first, and stays what it is.
            BIOS_UPDT_TRIG | BIOS_SIGN_ID => {}
            P5_MC_ADDR | P5_MC_TYPE if value == 0 => {}
            _ => return self.write_other(number, value),
        }
        Some(())
    }

    fn write_other(&mut self, number: u32, value: u64) -> Option<()> {
        let written = self.state.mtrrs.write(number, value, self.physical_bits);
        if written.is_none() {
            self.count_unknown(number);
        }
        written
    }

    /// The counter and what software has added to it move together (SDM vol. 3B, "Time-Stamp Counter Adjustment").
    const fn adjust(&mut self, change: u64) {
        self.state.tsc_offset = self.state.tsc_offset.wrapping_add(change);
        self.state.tsc_adjust = self.state.tsc_adjust.wrapping_add(change);
    }

    #[cold]
    const fn count_unknown(&mut self, number: u32) {
        self.unknown = self.unknown.wrapping_add(1);
        self.last_unknown = number;
    }

    /// How many accesses have faulted, and the number of the last one's register.
    pub const fn refused(&self) -> (u64, u32) {
        (self.unknown, self.last_unknown)
    }
}

/// Registers that always read the same.
const fn constant(number: u32) -> Option<u64> {
    Some(match number {
        P5_MC_ADDR | P5_MC_TYPE | PLATFORM_ID | EBL_CR_POWERON | SMI_COUNT | MCG_CAP => 0,
        FEATURE_CONTROL => FEATURE_CONTROL_LOCKED,
        BIOS_SIGN_ID => MICROCODE_REVISION,
        PLATFORM_INFO => PLATFORM_RATIOS,
        PKG_CST_CONFIG_CONTROL => PACKAGE_STATES_LOCKED,
        BBL_CR_CTL3 => L2_ON,
        PERF_STATUS => RATIO << 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn profile() -> &'static Profile {
        Profile::named("x86-64-v3").unwrap()
    }

    #[test]
    fn the_time_stamp_counter_is_the_clock_and_what_was_added() {
        let mut msrs = Msrs::new(profile());
        assert_eq!(msrs.read(0x10, 1000), Some(1000));
        msrs.write(0x10, 5000, 1000).unwrap();
        assert_eq!(msrs.read(0x10, 1500), Some(5500));
        assert_eq!(msrs.read(0x3b, 1500), Some(4000), "a write of the counter is an adjustment");
        msrs.write(0x3b, 0, 2000).unwrap();
        assert_eq!(msrs.time_stamp(2000), 2000);
        msrs.write(0x3b, (-500i64) as u64, 2000).unwrap();
        assert_eq!(msrs.time_stamp(3000), 2500);
        assert_eq!(msrs.instant_of(2600, 3000), 3100);
        assert_eq!(msrs.instant_of(2400, 3000), 3000, "past");
        assert_eq!(msrs.instant_of(u64::MAX, 3000), u64::MAX, "never, at this rate");
        msrs.reset(10_000);
        assert_eq!((msrs.read(0x10, 10_005), msrs.read(0x3b, 10_005)), (Some(5), Some(0)));
    }

    #[test]
    fn constants_read_the_same_on_every_host_and_most_are_read_only() {
        let mut msrs = Msrs::new(profile());
        let table = [
            (0x17, 0),
            (0x34, 0),
            (0x3a, 1),
            (0x8b, 1 << 32),
            (0xce, 0xa00_0000_0a00),
            (0xe2, 0x8000),
            (0xfe, 0x508),
            (0x179, 0),
            (0x17a, 0),
            (0x198, 0xa00),
            (0x1a0, 0x1801),
        ];
        for (number, value) in table {
            assert_eq!(msrs.read(number, 7), Some(value), "{number:#x}");
        }
        for number in [0x17, 0x34, 0x3a, 0xce, 0xe2, 0xfe, 0x179, 0x198] {
            assert_eq!(msrs.write(number, 1, 7), None, "{number:#x}");
        }
        assert_eq!(msrs.write(0x8b, 0, 7), Some(()), "how the microcode's revision is asked for");
        assert_eq!(msrs.read(0x8b, 7), Some(1 << 32));
    }

    /// What Linux does with IA32_MISC_ENABLE: clears "limit CPUID maxval", which is clear.
    #[test]
    fn misc_enable_changes_only_fast_strings() {
        let mut msrs = Msrs::new(profile());
        assert_eq!(msrs.write(0x1a0, 0x1801, 0), Some(()));
        assert_eq!(msrs.write(0x1a0, 0x1800, 0), Some(()));
        assert_eq!(msrs.read(0x1a0, 0), Some(0x1800));
        for bit in [18, 22, 34, 11, 12, 63] {
            assert_eq!(msrs.write(0x1a0, 0x1800 ^ 1 << bit, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn what_no_profile_shows_faults_and_is_counted() {
        let mut msrs = Msrs::new(profile());
        let absent = [
            0x48,
            0x49,
            0x10a,
            0x10b, // speculation control
            0xc1,
            0x186,
            0x309,
            0x345,
            0x38f,
            0x3f1, // performance monitoring
            0xe7,
            0xe8,
            0x19c,
            0x606, // MPERF, APERF, thermal, RAPL
            0x400,
            0x480,
            0x570,
            0x6a0,
            0x770,
            0xda0, // machine checks, VMX, PT, CET, HWP, XSS
            0x4b56_4d00,
            0x4000_0000,
            0xc001_0015,
            u32::MAX,
        ];
        for (i, number) in absent.into_iter().enumerate() {
            assert_eq!(msrs.read(number, 0), None, "{number:#x}");
            assert_eq!(msrs.write(number, 0, 0), None, "{number:#x}");
            assert_eq!(msrs.refused(), (2 * i as u64 + 2, number));
        }
    }

    #[test]
    fn a_state_that_writes_cannot_lead_to_is_refused() {
        let good = Msrs::new(profile()).save();
        assert!(Msrs::restore(profile(), good.clone()).is_ok());
        assert!(Msrs::restore(profile(), State { misc_enable: 1 << 18, ..good.clone() }).is_err());
        assert!(Msrs::restore(profile(), State { mcg_status: 8, ..good }).is_err());
    }

    proptest! {
        /// Random accesses, then a save and a restore through bytes: the same future.
        #[test]
        fn a_restored_state_has_the_same_future(
            past in proptest::collection::vec((0..0x300u32, any::<u64>(), 0..64u32), 0..60),
            future in proptest::collection::vec((0..0x300u32, any::<u64>(), 0..64u32), 0..60),
        ) {
            let mut first = Msrs::new(profile());
            let mut now = 0u64;
            let step = |msrs: &mut Msrs, (number, value, shift): (u32, u64, u32), now: u64| {
                (msrs.write(number, value >> shift, now), msrs.read(number, now + 1))
            };
            for access in past {
                now += 10;
                step(&mut first, access, now);
            }
            let bytes = postcard::to_allocvec(&first.save()).unwrap();
            let state = postcard::from_bytes(&bytes).unwrap();
            let mut second = Msrs::restore(profile(), state).expect("a saved state is valid");
            for access in future {
                now += 10;
                prop_assert_eq!(step(&mut first, access, now), step(&mut second, access, now));
            }
            prop_assert_eq!(first.save(), second.save());
        }
    }
}
