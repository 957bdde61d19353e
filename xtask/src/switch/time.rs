//! Emulated time: nanoseconds, ticks of a host, and how people write durations and shares.

use anyhow::{Context, Result, bail};

/// Nanoseconds of emulated time since the scenario began.
pub type Ns = u64;

const NS_PER_SECOND: u128 = 1_000_000_000;

/// A host's clock: ticks (instructions, roughly) per emulated second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// `ips` ticks per second; `None` for 0.
    pub fn new(ips: u64) -> Option<Self> {
        (ips > 0).then_some(Self(ips))
    }

    /// Time of a tick, rounded down.
    pub fn ns_of(self, tick: u64) -> Ns {
        let ns = u128::from(tick) * NS_PER_SECOND / u128::from(self.0);
        Ns::try_from(ns).unwrap_or(Ns::MAX)
    }

    /// The first tick whose time is not before `ns`.
    pub fn tick_at(self, ns: Ns) -> u64 {
        let ticks = (u128::from(ns) * u128::from(self.0)).div_ceil(NS_PER_SECOND);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// Reads a duration or a moment: `100us`, `1.5 ms`, `2s`, `250ns`.
///
/// # Errors
/// When there is no unit, or no number before it.
pub fn parse_duration(text: &str) -> Result<Ns> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let digits = match unit {
        "ns" => 0,
        "us" => 3,
        "ms" => 6,
        "s" => 9,
        _ => bail!("`{text}` is no duration: write a number and ns, us, ms or s, for instance 100us"),
    };
    let ns = parse_fixed(number.trim(), digits).with_context(|| format!("`{text}` is no duration"))?;
    Ok(ns)
}

/// A share in parts per million. Integers only, so that a scenario means the same everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ppm(pub u32);

impl Ppm {
    /// All of it.
    pub const ONE: Self = Self(1_000_000);
}

/// Reads a share: `5%`, `0.25 %`, `300ppm`, or a plain fraction such as `0.05`.
///
/// # Errors
/// When it is no number or lies outside 0 to 1.
pub fn parse_share(text: &str) -> Result<Ppm> {
    let trimmed = text.trim();
    let (number, digits) = if let Some(percent) = trimmed.strip_suffix('%') {
        (percent, 4)
    } else if let Some(ppm) = trimmed.strip_suffix("ppm") {
        (ppm, 0)
    } else {
        (trimmed, 6)
    };
    let ppm = parse_fixed(number.trim(), digits).with_context(|| format!("`{text}` is no share"))?;
    match u32::try_from(ppm) {
        Ok(ppm) if Ppm(ppm) <= Ppm::ONE => Ok(Ppm(ppm)),
        _ => bail!("`{text}` is no share: it must lie between 0 and 100%"),
    }
}

/// A decimal number times 10^`digits`, exact; digits beyond are refused rather than rounded.
fn parse_fixed(text: &str, digits: usize) -> Result<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        bail!("`{text}` is no decimal number");
    }
    if fraction.len() > digits {
        bail!("`{text}` is finer than the unit allows");
    }
    format!("{whole}{fraction:0<digits$}").parse().with_context(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("100us").unwrap(), 100_000);
        assert_eq!(parse_duration(" 1.5 ms ").unwrap(), 1_500_000);
        assert_eq!(parse_duration("2s").unwrap(), 2_000_000_000);
        assert_eq!(parse_duration("0.10s").unwrap(), 100_000_000);
        for bad in ["", "5", "us", "-1s", "1.5ns", "1e3us", "99999999999999999999s", "1..2s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(parse_share("5%").unwrap(), Ppm(50_000));
        assert_eq!(parse_share("0.25 %").unwrap(), Ppm(2_500));
        assert_eq!(parse_share("0.05").unwrap(), Ppm(50_000));
        assert_eq!(parse_share("300ppm").unwrap(), Ppm(300));
        assert_eq!(parse_share("1").unwrap(), Ppm::ONE);
        for bad in ["101%", "2", "x", "", "-1%"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn tick_at_is_the_first_tick_not_before(ips in 1u64..10_000_000_000, ns in 0u64..1 << 50) {
            let rate = Rate::new(ips).unwrap();
            let tick = rate.tick_at(ns);
            prop_assert!(rate.ns_of(tick) >= ns);
            prop_assert!(tick == 0 || rate.ns_of(tick - 1) < ns);
        }
    }
}
