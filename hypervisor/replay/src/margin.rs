//! From the measured skid of the overflow interrupt to the margin it is armed with.

use core::fmt;

/// Head-room factor over the largest skid seen: a boot-time sample is not the worst case.
const FACTOR: u64 = 2;
/// Head-room added on top, in events: long-latency instructions delay an interrupt by more than a sample shows.
const HEADROOM: u64 = 64;
/// Margins are multiples of this many events.
const STEP: u64 = 64;
/// The smallest margin, in events. Skids up to 128 were seen in the field on Core parts; a machine that shows none
/// at boot (an emulator) still gets this.
pub const MARGIN_MIN: u64 = 128;
/// The largest margin accepted, in events. Each event of the margin may cost a VM exit on the backup; a part that
/// needs more than this (the AMD parts with skids of thousands) is refused.
pub const MARGIN_MAX: u64 = 2048;

/// The skids seen so far: how many events after the armed count the guest really stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skid {
    /// Smallest, in events.
    pub min: u64,
    /// Largest, in events.
    pub max: u64,
    /// How many overflows were seen.
    pub samples: u64,
}

impl Default for Skid {
    fn default() -> Self {
        Self::NONE
    }
}

impl Skid {
    /// Nothing measured yet.
    pub const NONE: Self = Self { min: u64::MAX, max: 0, samples: 0 };

    /// Adds one measured overflow.
    pub fn add(&mut self, skid: u64) {
        self.min = self.min.min(skid);
        self.max = self.max.max(skid);
        self.samples += 1;
    }
}

impl fmt::Display for Skid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.samples == 0 {
            return f.write_str("none");
        }
        write!(f, "{}..{}", self.min, self.max)
    }
}

/// Why there is no margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarginError {
    /// No overflow interrupt was seen at all.
    Unmeasured,
    /// The skid is so large that landing would cost too much; holds the largest skid seen.
    TooLarge(u64),
}

impl fmt::Display for MarginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmeasured => f.write_str("no overflow interrupt was seen, so the skid is unknown"),
            Self::TooLarge(skid) => {
                write!(f, "a skid of {skid} needs a margin above the limit of {MARGIN_MAX}")
            }
        }
    }
}

/// The margin for a measured skid, in events: how far before its target an overflow is armed.
///
/// # Errors
/// [`MarginError`] when nothing was measured or the result would exceed [`MARGIN_MAX`].
pub fn margin(skid: &Skid) -> Result<u64, MarginError> {
    if skid.samples == 0 {
        return Err(MarginError::Unmeasured);
    }
    let wanted = skid
        .max
        .checked_mul(FACTOR)
        .and_then(|x| x.checked_add(HEADROOM))
        .and_then(|x| x.checked_next_multiple_of(STEP))
        .ok_or(MarginError::TooLarge(skid.max))?
        .max(MARGIN_MIN);
    if wanted > MARGIN_MAX { Err(MarginError::TooLarge(skid.max)) } else { Ok(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(skids: &[u64]) -> Skid {
        let mut skid = Skid::NONE;
        skids.iter().for_each(|&s| skid.add(s));
        skid
    }

    #[test]
    fn table() {
        assert_eq!(margin(&Skid::NONE), Err(MarginError::Unmeasured));
        assert_eq!(margin(&seen(&[0])), Ok(128));
        assert_eq!(margin(&seen(&[5, 40, 17])), Ok(192));
        assert_eq!(margin(&seen(&[64, 128])), Ok(320));
        assert_eq!(margin(&seen(&[992])), Ok(2048));
        assert_eq!(margin(&seen(&[993])), Err(MarginError::TooLarge(993)));
        assert_eq!(margin(&seen(&[u64::MAX])), Err(MarginError::TooLarge(u64::MAX)));
    }

    #[test]
    fn margin_always_covers_the_skid_seen() {
        for max in 0..=992 {
            let m = margin(&seen(&[max])).unwrap();
            assert!(m >= max + HEADROOM && m.is_multiple_of(STEP), "skid {max} margin {m}");
        }
    }

    #[test]
    fn display() {
        assert_eq!(std::format!("{}", seen(&[5, 40])), "5..40");
        assert_eq!(std::format!("{}", Skid::NONE), "none");
    }
}
