//! The performance-monitoring unit as numbers: what CPUID says of it, which event counts conditional branches, and
//! which writes make it count the guest. Pure; the kernel's `arch/pmu.rs` executes what is planned here.
//!
//! Sources: SDM 3B chapter 21 (architectural performance monitoring), erratum HSM154, the event lists of Intel's
//! microarchitectures.

use core::fmt;

use crate::landing::Counter;

/// Model-specific registers of the unit.
pub mod msr {
    /// IA32_PMC0; writes are sign-extended from bit 31.
    pub const PMC0: u32 = 0xC1;
    /// IA32_A_PMC0: the same counter with full-width writes.
    pub const FULL_WIDTH_PMC0: u32 = 0x4C1;
    /// IA32_PERFEVTSEL0.
    pub const PERFEVTSEL0: u32 = 0x186;
    /// IA32_FIXED_CTR0.
    pub const FIXED_CTR0: u32 = 0x309;
    /// IA32_PERF_CAPABILITIES.
    pub const PERF_CAPABILITIES: u32 = 0x345;
    /// IA32_FIXED_CTR_CTRL.
    pub const FIXED_CTR_CTRL: u32 = 0x38D;
    /// IA32_PERF_GLOBAL_STATUS.
    pub const GLOBAL_STATUS: u32 = 0x38E;
    /// IA32_PERF_GLOBAL_CTRL.
    pub const GLOBAL_CTRL: u32 = 0x38F;
    /// IA32_PERF_GLOBAL_STATUS_RESET, earlier called IA32_PERF_GLOBAL_OVF_CTRL.
    pub const GLOBAL_STATUS_RESET: u32 = 0x390;
}

/// IA32_DEBUGCTL.FREEZE_WHILE_SMM; belongs into the *guest's* field, since a VM exit clears the register.
pub const DEBUGCTL_FREEZE_WHILE_SMM: u64 = 1 << 14;

const PERF_CAPABILITIES_FREEZE_WHILE_SMM: u64 = 1 << 12;
const PERF_CAPABILITIES_FULL_WIDTH: u64 = 1 << 13;

/// What the processor says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// CPUID leaf 01h, EAX.
    pub signature: u32,
    /// CPUID leaf 0Ah: EAX, EBX, ECX, EDX; zeros where there is no such leaf.
    pub leaf: [u32; 4],
    /// IA32_PERF_CAPABILITIES; 0 where CPUID leaf 01h ECX bit 15 (PDCM) is clear.
    pub capabilities: u64,
}

/// Why the unit cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// Leaf 0Ah says version 0: there is none, or a hypervisor hides it.
    NoUnit,
    /// Version 1 has no global control for VM entries and exits to switch.
    NoGlobalControl,
    /// Fewer general counters than needed; holds how many there are.
    TooFewCounters(u32),
    /// No counter of instructions retired.
    NoInstructions,
    /// Counters are narrower than this; holds the width.
    Narrow(u32),
    /// Counters cannot be written in full, so none can be armed far ahead or carry on from a count.
    NoFullWidthWrites,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit => f.write_str("no performance-monitoring unit (CPUID leaf 0Ah version 0)"),
            Self::NoGlobalControl => {
                f.write_str("performance monitoring version 1 has no IA32_PERF_GLOBAL_CTRL")
            }
            Self::TooFewCounters(n) => {
                write!(f, "{n} general performance counters, {GENERAL_MIN} are needed")
            }
            Self::NoInstructions => f.write_str("no counter of instructions retired"),
            Self::Narrow(bits) => write!(f, "performance counters of {bits} bits, {WIDTH_MIN} are needed"),
            Self::NoFullWidthWrites => f.write_str("performance counters cannot be written in full width"),
        }
    }
}

/// General counters needed: conditional branches, and instructions once more to check the fixed counter.
const GENERAL_MIN: u32 = 2;
/// The narrowest counter that serves, in bits. A landing 2^39 instructions ahead is minutes of guest time.
const WIDTH_MIN: u32 = 40;

/// The unit of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Architectural version.
    pub version: u32,
    /// General counters.
    pub general: u32,
    /// Their width, in bits.
    pub general_width: u32,
    /// Fixed counters.
    pub fixed: u32,
    /// Their width, in bits.
    pub fixed_width: u32,
    /// The counters can be frozen while in system-management mode.
    pub freeze_while_smm: bool,
}

impl Unit {
    /// Decodes what the processor says.
    ///
    /// # Errors
    /// The first thing that is [`Lacking`].
    pub fn decode(identity: &Identity) -> Result<Self, Lacking> {
        let [eax, ebx, ecx, edx] = identity.leaf;
        let version = eax & 0xFF;
        let unit = Self {
            version,
            general: (eax >> 8) & 0xFF,
            general_width: (eax >> 16) & 0xFF,
            // From version 5 on, ECX has one bit per fixed counter, beyond the contiguous ones that EDX counts.
            fixed: if version >= 5 { (edx & 0x1F).max(ecx.trailing_ones()) } else { edx & 0x1F },
            fixed_width: (edx >> 5) & 0xFF,
            freeze_while_smm: identity.capabilities & PERF_CAPABILITIES_FREEZE_WHILE_SMM != 0,
        };
        // EBX bit 1: event "instructions retired" is not there; only bits below EAX[31:24] mean anything.
        let event_missing = (eax >> 24) < 2 || ebx & 2 != 0;
        let narrow = unit.general_width.min(unit.fixed_width);
        match () {
            () if version == 0 => Err(Lacking::NoUnit),
            () if version == 1 => Err(Lacking::NoGlobalControl),
            () if unit.general < GENERAL_MIN => Err(Lacking::TooFewCounters(unit.general)),
            () if unit.fixed == 0 || event_missing => Err(Lacking::NoInstructions),
            () if narrow < WIDTH_MIN => Err(Lacking::Narrow(narrow)),
            () if identity.capabilities & PERF_CAPABILITIES_FULL_WIDTH == 0 => {
                Err(Lacking::NoFullWidthWrites)
            }
            () => Ok(unit),
        }
    }

    /// Width of a counter, in bits.
    #[must_use]
    pub const fn width(&self, counter: Counter) -> u32 {
        match counter {
            Counter::Instructions => self.fixed_width,
            Counter::Branches => self.general_width,
        }
    }

    /// The writes that set all counters to count nothing but the guest, in this order. [`GUEST_GLOBAL_CTRL`] goes into
    /// the VMCS afterwards.
    #[must_use]
    pub const fn setup(&self, selector: Selector) -> [(u32, u64); 9] {
        [
            // HSM154: fixed counter 0 may overcount unless GLOBAL_CTRL has it off while FIXED_CTR_CTRL is programmed.
            (msr::GLOBAL_CTRL, 0),
            (msr::FIXED_CTR_CTRL, 0),
            (msr::PERFEVTSEL0, 0),
            (msr::GLOBAL_STATUS_RESET, STATUS_INSTRUCTIONS | STATUS_BRANCHES | STATUS_GENERAL),
            (msr::PERFEVTSEL0, selector.0 | SELECT_OS_USER | SELECT_INTERRUPT | SELECT_ENABLE),
            (msr::PERFEVTSEL0 + 1, EVENT_INSTRUCTIONS | SELECT_OS_USER | SELECT_ENABLE),
            (msr::FIXED_CTR0, 0),
            (msr::FULL_WIDTH_PMC0 + 1, 0),
            (msr::FIXED_CTR_CTRL, FIXED0_OS_USER_INTERRUPT),
        ]
    }

    /// The writes that switch everything off.
    pub const OFF: [(u32, u64); 4] =
        [(msr::GLOBAL_CTRL, 0), (msr::FIXED_CTR_CTRL, 0), (msr::PERFEVTSEL0, 0), (msr::PERFEVTSEL0 + 1, 0)];
}

const EVENT_INSTRUCTIONS: u64 = 0xC0;
const SELECT_OS_USER: u64 = 3 << 16;
const SELECT_INTERRUPT: u64 = 1 << 20;
const SELECT_ENABLE: u64 = 1 << 22;
/// OS, user, no AnyThread, interrupt on overflow.
const FIXED0_OS_USER_INTERRUPT: u64 = 0b1011;

/// Overflow of N (fixed counter 0) in the status registers.
pub const STATUS_INSTRUCTIONS: u64 = 1 << 32;
/// Overflow of C (general counter 0).
pub const STATUS_BRANCHES: u64 = 1;
/// Overflow of general counter 1, the check on N; it is never armed.
pub const STATUS_GENERAL: u64 = 2;
/// IA32_PERF_GLOBAL_CTRL while the guest runs: fixed counter 0, general counters 0 and 1.
pub const GUEST_GLOBAL_CTRL: u64 = STATUS_INSTRUCTIONS | STATUS_BRANCHES | STATUS_GENERAL;

/// The register a counter is read and written by, full width.
#[must_use]
pub const fn register(counter: Counter) -> u32 {
    match counter {
        Counter::Instructions => msr::FIXED_CTR0,
        Counter::Branches => msr::FULL_WIDTH_PMC0,
    }
}

/// The status bit of a counter.
#[must_use]
pub const fn status(counter: Counter) -> u64 {
    match counter {
        Counter::Instructions => STATUS_INSTRUCTIONS,
        Counter::Branches => STATUS_BRANCHES,
    }
}

/// Event and unit mask of "conditional branches retired".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Selector(u64);

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}/{:02X}", self.0 & 0xFF, (self.0 >> 8) & 0xFF)?;
        if self.0 >> 40 & 0xFF != 0 { write!(f, "+{:02X}", self.0 >> 40 & 0xFF) } else { Ok(()) }
    }
}

impl Selector {
    /// Nehalem to Comet Lake.
    pub const NEHALEM: Self = Self(0x01C4);
    /// Ice Lake on, where unit mask 01 alone is only the taken ones.
    pub const ICE_LAKE: Self = Self(0x11C4);
    /// Lunar Lake and Arrow Lake: as Ice Lake with the extended unit mask's bit 0.
    pub const LION_COVE: Self = Self(0x11C4 | 1 << 40);

    /// The selectors to try, the most likely first. The first under which both the taken and the not-taken loop count
    /// exactly is right; that matters for models which this table does not know. The extended unit mask is written only
    /// where it is known to exist: elsewhere it faults.
    #[must_use]
    pub const fn candidates(signature: u32) -> [Self; 2] {
        let family = (signature >> 8) & 0xF;
        let model = (signature >> 4) & 0xF | (signature >> 12) & 0xF0;
        match (family, model) {
            // Nehalem, Westmere; Sandy and Ivy Bridge; Haswell; Broadwell; Skylake to Cascade Lake; Kaby, Coffee and
            // Comet Lake; Cannon Lake.
            (
                6,
                0x1A | 0x1E | 0x1F | 0x2E | 0x25 | 0x2C | 0x2F | 0x2A | 0x2D | 0x3A | 0x3E | 0x3C | 0x3F
                | 0x45 | 0x46 | 0x3D | 0x47 | 0x4F | 0x56 | 0x4E | 0x5E | 0x55 | 0x8E | 0x9E | 0xA5 | 0xA6
                | 0x66,
            ) => [Self::NEHALEM, Self::ICE_LAKE],
            // Lunar Lake, Arrow Lake.
            (6, 0xBD | 0xC5 | 0xC6 | 0xB5) => [Self::LION_COVE, Self::ICE_LAKE],
            _ => [Self::ICE_LAKE, Self::NEHALEM],
        }
    }
}

/// A hardware counter carried on as a count of 64 bits, whatever is written to it in between. One of its writes must
/// come at least every 2^width events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    mask: u64,
    start: u64,
    total: u64,
}

impl Tally {
    /// At zero; the hardware counter holds 0 and is `width` bits wide.
    ///
    /// # Panics
    /// When `width` is not in 1..=64.
    #[must_use]
    pub const fn new(width: u32) -> Self {
        assert!(width >= 1 && width <= 64, "no such counter");
        Self { mask: u64::MAX >> (64 - width), start: 0, total: 0 }
    }

    /// The count when the hardware counter reads `raw`.
    #[must_use]
    pub const fn count(&self, raw: u64) -> u64 {
        self.total + (raw.wrapping_sub(self.start) & self.mask)
    }

    /// What to write so that the counter overflows `ahead` events from now, when it reads `raw`. The most that can be
    /// armed is the whole width; more is cut, and the landing arms again.
    #[must_use]
    pub const fn arm(&mut self, raw: u64, ahead: u64) -> u64 {
        self.total = self.count(raw);
        let ahead = if ahead == 0 { 1 } else { ahead };
        let ahead = if ahead > self.mask { self.mask } else { ahead };
        self.start = 0_u64.wrapping_sub(ahead) & self.mask;
        self.start
    }

    /// What to write so that the counter does not overflow soon, when it reads `raw`.
    #[must_use]
    pub const fn disarm(&mut self, raw: u64) -> u64 {
        self.total = self.count(raw);
        self.start = 0;
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    /// Skylake-X: version 4, 4 general of 48 bits, 3 fixed of 48 bits.
    const SKYLAKE: Identity =
        Identity { signature: 0x0005_0654, leaf: [0x0730_0404, 0, 0, 0x0000_0603], capabilities: 0x33C5 };

    #[test]
    fn recorded_leaves() {
        let unit = Unit::decode(&SKYLAKE).unwrap();
        assert_eq!(
            unit,
            Unit {
                version: 4,
                general: 4,
                general_width: 48,
                fixed: 3,
                fixed_width: 48,
                freeze_while_smm: true
            }
        );
        // Sapphire Rapids: version 5, 8 general, fixed counters also as a bit mask.
        let rapids = Identity { leaf: [0x0830_0805, 0, 0xF, 0x0000_8603], ..SKYLAKE };
        assert_eq!(Unit::decode(&rapids).unwrap().fixed, 4);
    }

    #[test]
    fn what_lacks_is_named() {
        let with =
            |leaf, capabilities| Unit::decode(&Identity { leaf, capabilities, ..SKYLAKE }).unwrap_err();
        let [eax, ebx, ecx, edx] = SKYLAKE.leaf;
        let all = SKYLAKE.capabilities;
        assert_eq!(with([0; 4], all), Lacking::NoUnit);
        assert_eq!(with([eax & !0xFF | 1, ebx, ecx, edx], all), Lacking::NoGlobalControl);
        assert_eq!(with([eax & !0xFF00 | 0x100, ebx, ecx, edx], all), Lacking::TooFewCounters(1));
        assert_eq!(with([eax, 2, ecx, edx], all), Lacking::NoInstructions);
        assert_eq!(with([eax & 0x00FF_FFFF, ebx, ecx, edx], all), Lacking::NoInstructions);
        assert_eq!(with([eax, ebx, ecx, 0x600], all), Lacking::NoInstructions);
        assert_eq!(with([eax & !0x00FF_0000 | 32 << 16, ebx, ecx, edx], all), Lacking::Narrow(32));
        assert_eq!(with(SKYLAKE.leaf, all & !(1 << 13)), Lacking::NoFullWidthWrites);
        assert!(format!("{}", Lacking::TooFewCounters(1)).contains("2 are needed"));
    }

    #[test]
    fn selectors_by_model() {
        let first = |signature| format!("{}", Selector::candidates(signature)[0]);
        assert_eq!(first(0x0005_0654), "C4/01"); // Skylake-X
        assert_eq!(first(0x000A_0652), "C4/01"); // Comet Lake
        assert_eq!(first(0x000A_0660), "C4/01"); // Comet Lake U62
        assert_eq!(first(0x0006_06A6), "C4/11"); // Ice Lake-SP
        assert_eq!(first(0x0008_06F8), "C4/11"); // Sapphire Rapids
        assert_eq!(first(0x000C_06D1), "C4/11"); // unknown and new
        assert_eq!(first(0x000B_06D1), "C4/11+01"); // Lunar Lake
        for signature in [0x0005_0654, 0x0006_06A6, 0x000B_06D1] {
            let all = Selector::candidates(signature);
            assert!(all[0] != all[1]);
            assert!(all[1].0 >> 32 == 0, "an extended mask only on models known to have it");
        }
    }

    #[test]
    fn fixed_control_is_programmed_while_globally_off() {
        let writes = Unit::decode(&SKYLAKE).unwrap().setup(Selector::NEHALEM);
        assert_eq!(writes[0], (msr::GLOBAL_CTRL, 0));
        assert!(
            writes[1..].iter().all(|w| w.0 != msr::GLOBAL_CTRL),
            "only the VM entry turns the counters on"
        );
        assert_eq!(writes[8], (msr::FIXED_CTR_CTRL, 0xB));
        assert!(writes.contains(&(msr::PERFEVTSEL0, 0x53_01C4)));
        assert!(writes.contains(&(msr::PERFEVTSEL0 + 1, 0x43_00C0)));
    }

    proptest! {
        #[test]
        fn a_tally_survives_every_write(width in 48_u32..=64, steps in proptest::collection::vec((0_u64..1 << 39, 0_u64..1 << 39, 0..3), 1..40)) {
            let mask = u64::MAX >> (64 - width);
            let (mut tally, mut raw, mut truth) = (Tally::new(width), 0_u64, 0_u64);
            for (events, ahead, what) in steps {
                raw = raw.wrapping_add(events) & mask;
                truth += events;
                prop_assert_eq!(tally.count(raw), truth);
                match what {
                    0 => {
                        raw = tally.arm(raw, ahead);
                        // One event fewer does not wrap, this many do.
                        let ahead = ahead.max(1);
                        prop_assert!(raw.wrapping_add(ahead) & mask == 0);
                    }
                    1 => raw = tally.disarm(raw),
                    _ => {}
                }
                prop_assert_eq!(tally.count(raw), truth);
            }
        }
    }

    #[test]
    fn the_most_that_can_be_armed_is_the_width() {
        let mut tally = Tally::new(48);
        assert_eq!(tally.arm(0, u64::MAX), 1);
        assert_eq!(tally.count(1), 0);
    }
}
