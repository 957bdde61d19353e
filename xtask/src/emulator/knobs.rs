//! What can be turned on the emulated machine: skid, faults, speculative walks, seeds. Each is an environment variable of
//! our Bochs (xtask/bochs/README.md says what the model does with it).

use anyhow::{Context, Result, bail};

/// The faults that the model knows, as they are written, and whether each takes a number after a colon.
const FAULTS: &[(&str, Argument)] = &[
    ("overcount", Argument::Optional),
    ("undercount-rep", Argument::None),
    ("lost-pmi", Argument::Optional),
    ("no-pmu", Argument::None),
    ("vmx-locked", Argument::None),
    ("no-vmx", Argument::None),
    ("no-ept", Argument::None),
    ("no-unrestricted", Argument::None),
    ("no-mtf", Argument::None),
    ("atom", Argument::None),
];

#[derive(Clone, Copy, PartialEq)]
enum Argument {
    None,
    Optional,
}

/// The knobs of one run. Values are kept as written, already checked.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Knobs {
    /// Deliver a counter's overflow interrupt late by MIN to MAX instructions, drawn from SEED
    #[arg(long, value_name = "MIN:MAX[:SEED]", value_parser = skid, help_heading = "Emulator")]
    pub skid: Option<String>,
    /// Break the machine: overcount[:N], undercount-rep, lost-pmi[:N], no-pmu, vmx-locked, no-vmx, no-ept, no-unrestricted,
    /// no-mtf, atom (several: separate by commas)
    #[arg(long, value_name = "FAULT", value_parser = fault, value_delimiter = ',', help_heading = "Emulator")]
    pub fault: Vec<String>,
    /// Speculative page walks and TLB evictions, drawn from SEED, so many per million instructions
    #[arg(long, value_name = "SEED[:WALKS:EVICTIONS]", value_parser = tlb, help_heading = "Emulator")]
    pub tlb: Option<String>,
    /// The shape of the performance counters that the machine tells: architectural version, general and fixed counters, bits
    #[arg(long, value_name = "VERSION[:GENERAL[:FIXED[:BITS]]]", value_parser = shape, help_heading = "Emulator")]
    pub pmu_shape: Option<String>,
    /// Seed of the machine's RDRAND and RDSEED
    #[arg(long, value_name = "N", help_heading = "Emulator")]
    pub seed: Option<u64>,
}

impl Knobs {
    /// The environment that tells the emulator.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let fault = (!self.fault.is_empty()).then(|| self.fault.join(","));
        let all = [
            ("LOCKSTEP_SKID", self.skid.clone()),
            ("LOCKSTEP_FAULT", fault),
            ("LOCKSTEP_TLB", self.tlb.clone()),
            ("LOCKSTEP_PMU", self.pmu_shape.clone()),
            ("LOCKSTEP_SEED", self.seed.map(|seed| seed.to_string())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Checks `MIN:MAX[:SEED]`; the seed is 1 when left out.
///
/// # Errors
/// When it is not that, or MIN exceeds MAX.
pub fn skid(text: &str) -> Result<String> {
    let numbers = numbers(text)?;
    let (min, max, seed) = match numbers[..] {
        [min, max] => (min, max, 1),
        [min, max, seed] => (min, max, seed),
        _ => bail!("a skid is MIN:MAX or MIN:MAX:SEED, for instance 5:40"),
    };
    if min > max {
        bail!("the least skid, {min}, exceeds the greatest, {max}");
    }
    Ok(format!("{min}:{max}:{seed}"))
}

fn tlb(text: &str) -> Result<String> {
    match numbers(text)?.len() {
        1 | 3 => Ok(text.to_owned()),
        _ => bail!("write SEED or SEED:WALKS_PER_MILLION:EVICTIONS_PER_MILLION, for instance 7:1000:1000"),
    }
}

fn shape(text: &str) -> Result<String> {
    match numbers(text)?[..] {
        [version, ..] if !(1..=5).contains(&version) => bail!("the version is 1 to 5"),
        [_] | [_, _] | [_, _, _] | [_, _, _, _] => Ok(text.to_owned()),
        _ => bail!("write VERSION, or VERSION:GENERAL:FIXED:BITS, for instance 4:8:3:48"),
    }
}

/// Checks one fault's name and number.
///
/// # Errors
/// When the model knows no such fault; the message lists those it knows.
pub fn fault(text: &str) -> Result<String> {
    let (name, number) = match text.split_once(':') {
        Some((name, number)) => (name, Some(number)),
        None => (text, None),
    };
    let known = || FAULTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Some((_, argument)) = FAULTS.iter().find(|(known, _)| *known == name) else {
        bail!("no fault `{name}`; there are: {}", known());
    };
    if let Some(number) = number {
        if *argument == Argument::None {
            bail!("the fault `{name}` takes no number");
        }
        let n: u64 = number.parse().with_context(|| format!("`{number}` is no number"))?;
        if n == 0 {
            bail!("every 0th is never: give `{name}` a number from 1 on");
        }
    }
    Ok(text.to_owned())
}

fn numbers(text: &str) -> Result<Vec<u64>> {
    text.split(':').map(|n| n.parse().with_context(|| format!("`{n}` is no number"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skid_is_checked() {
        assert_eq!(skid("5:40").unwrap(), "5:40:1");
        assert_eq!(skid("64:128:9").unwrap(), "64:128:9");
        for bad in ["5", "40:5", "a:b", "1:2:3:4", "-1:2", ""] {
            assert!(skid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_are_checked() {
        assert_eq!(fault("overcount").unwrap(), "overcount");
        assert_eq!(fault("overcount:100").unwrap(), "overcount:100");
        assert_eq!(fault("lost-pmi").unwrap(), "lost-pmi");
        assert_eq!(fault("lost-pmi:3").unwrap(), "lost-pmi:3");
        for bad in ["no-pmu:1", "overcount:0", "lost-pmi:x", "gremlins"] {
            assert!(fault(bad).is_err(), "{bad}");
        }
        assert!(fault("gremlins").unwrap_err().to_string().contains("no-pmu"));
    }

    #[test]
    fn only_knobs_that_are_set_are_told() {
        let knobs = Knobs { fault: vec!["no-pmu".into(), "atom".into()], seed: Some(7), ..Knobs::default() };
        let wanted = [("LOCKSTEP_FAULT", "no-pmu,atom".to_owned()), ("LOCKSTEP_SEED", "7".to_owned())];
        assert_eq!(knobs.environment(), wanted);
    }
}
