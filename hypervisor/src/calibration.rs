//! Which frequency of the time-stamp counter to believe. Pure.
//!
//! Sources, by SDM 3B, 20.7.3: CPUID leaf 15h (exact), leaf 16h (base frequency, rounded), and a measurement against the
//! legacy timer, which checks what CPUID says: emulators are known to say what is not so.

use core::fmt;

/// Farther apart than this, in thousandths, and the measurement is believed instead of CPUID.
const TOLERANCE: u64 = 20;

/// Leaf 15h: denominator and numerator of TSC over crystal, and the crystal's frequency in hertz (0 = not said).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrystalRatio {
    /// EAX.
    pub denominator: u32,
    /// EBX.
    pub numerator: u32,
    /// ECX.
    pub crystal: u32,
}

/// Where a frequency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 15h.
    Crystal,
    /// CPUID leaf 16h.
    Base,
    /// Measured against the legacy timer.
    Measured,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Crystal => "cpuid-15h",
            Source::Base => "cpuid-16h",
            Source::Measured => "pit",
        })
    }
}

/// The frequency to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// Counts in a second.
    pub hertz: u64,
    /// Where it comes from.
    pub source: Source,
    /// What CPUID says, if that is not believed.
    pub disbelieved: Option<u64>,
}

/// Chooses. `base_mhz` is leaf 16h's EAX, `measured` the measurement; `None` if no source says anything.
pub fn choose(
    ratio: Option<CrystalRatio>,
    base_mhz: Option<u32>,
    measured: Option<u64>,
) -> Option<Frequency> {
    let base = base_mhz.filter(|m| *m != 0).map(|m| u64::from(m) * 1_000_000);
    let crystal = ratio.filter(|r| r.denominator != 0 && r.numerator != 0 && r.crystal != 0).map(|r| {
        // At most 2^64 / 1 before division: no overflow.
        u64::from(r.crystal) * u64::from(r.numerator) / u64::from(r.denominator)
    });
    let said = crystal.map(|h| (h, Source::Crystal)).or(base.map(|h| (h, Source::Base)));
    let said = said.filter(|(h, _)| *h != 0);
    match (said, measured.filter(|h| *h != 0)) {
        (Some((hertz, source)), None) => Some(Frequency { hertz, source, disbelieved: None }),
        (Some((hertz, source)), Some(m)) if hertz.abs_diff(m) <= m / 1000 * TOLERANCE => {
            Some(Frequency { hertz, source, disbelieved: None })
        }
        (said, Some(hertz)) => {
            Some(Frequency { hertz, source: Source::Measured, disbelieved: said.map(|(h, _)| h) })
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: CrystalRatio = CrystalRatio { denominator: 2, numerator: 292, crystal: 24_000_000 };

    #[test]
    fn leaf_15h_is_exact_and_wins_when_the_measurement_agrees() {
        let f = choose(Some(RATIO), Some(3500), Some(3_490_000_000)).unwrap();
        assert_eq!((f.hertz, f.source, f.disbelieved), (3_504_000_000, Source::Crystal, None));
        assert_eq!(choose(Some(RATIO), None, None).unwrap().hertz, 3_504_000_000);
    }

    #[test]
    fn a_crystal_that_is_not_said_falls_back_to_leaf_16h() {
        let f = choose(Some(CrystalRatio { crystal: 0, ..RATIO }), Some(2100), Some(2_095_000_000)).unwrap();
        assert_eq!((f.hertz, f.source), (2_100_000_000, Source::Base));
    }

    #[test]
    fn an_emulator_that_lies_is_not_believed() {
        let f = choose(Some(RATIO), None, Some(50_000_000)).unwrap();
        assert_eq!(
            f,
            Frequency { hertz: 50_000_000, source: Source::Measured, disbelieved: Some(3_504_000_000) }
        );
        // Just inside and just outside 2 %.
        assert_eq!(choose(None, Some(1020), Some(1_000_000_000)).unwrap().source, Source::Base);
        assert_eq!(choose(None, Some(1021), Some(1_000_000_000)).unwrap().source, Source::Measured);
    }

    #[test]
    fn nothing_known_is_said() {
        assert_eq!(choose(None, None, None), None);
        assert_eq!(choose(Some(CrystalRatio { denominator: 0, ..RATIO }), Some(0), Some(0)), None);
        let tiny = CrystalRatio { denominator: u32::MAX, numerator: 1, crystal: 1 };
        assert_eq!(choose(Some(tiny), None, None), None, "rounds to zero");
        let huge = CrystalRatio { denominator: 1, numerator: u32::MAX, crystal: u32::MAX };
        assert!(choose(Some(huge), None, None).is_some());
    }
}
