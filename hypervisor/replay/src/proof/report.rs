//! What the proof found: a row per property, the verdict, the table for people and the lines for machines.

use core::fmt;

use crate::landing::{Counter, Failure};
use crate::margin::{MarginError, Skid};
use crate::point::Point;

use super::spec::{Counts, Disturbance};

/// Room for rows; more than there are properties.
pub const ROWS_MAX: usize = 32;

/// Why a property does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A counter does not keep what is written to it.
    BitsLost {
        /// Which.
        counter: Counter,
        /// Written.
        wrote: u64,
        /// Read back.
        read: u64,
    },
    /// Counts differ from what is known by construction.
    Counts {
        /// Known by construction.
        expected: Counts,
        /// Counted.
        found: Counts,
        /// What the host did meanwhile.
        under: Disturbance,
    },
    /// The host meant to disturb the runs, but some of it never happened: nothing is shown.
    Undisturbed {
        /// What did not happen.
        missing: Disturbance,
    },
    /// The fixed counter and the general one, both counting instructions, disagree.
    CountersDisagree {
        /// Fixed counter 0.
        fixed: u64,
        /// The general counter with event C0h.
        general: u64,
    },
    /// An overflow interrupt did not come.
    NoInterrupt {
        /// Of which counter.
        counter: Counter,
        /// Armed this many events ahead.
        armed: u64,
        /// Where the run ended.
        found: u64,
    },
    /// An overflow interrupt came before its count.
    Early {
        /// Of which counter.
        counter: Counter,
        /// Armed this many events ahead.
        armed: u64,
        /// Where it came.
        found: u64,
    },
    /// The overflow interrupt came, but its LVT entry is not masked.
    NotMasked,
    /// The overflow interrupt came, but the status bit of its counter is clear.
    NoStatus,
    /// The interrupt came a second time for one overflow.
    Twice,
    /// There is no margin.
    Margin(MarginError),
    /// A landing failed.
    Landing {
        /// The target.
        target: Point,
        /// How.
        failure: Failure,
        /// What the host did meanwhile.
        under: Disturbance,
    },
    /// The landing machine said landed, but the guest is not in the recorded state.
    Elsewhere {
        /// The target.
        target: Point,
        /// Where the guest is.
        found: Point,
    },
    /// The stub ended, or went to sleep, before the target.
    TargetMissed {
        /// The target.
        target: Point,
    },
    /// The stub takes more steps than the recording holds.
    TooLong,
    /// The stub does not come to its end.
    Endless,
    /// An exit the proof does not know.
    Unexpected {
        /// Basic exit reason.
        reason: u32,
        /// Exit qualification.
        qualification: u64,
        /// Where.
        rip: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BitsLost { counter, wrote, read } => {
                write!(f, "counter {counter} reads {read:#x} after {wrote:#x} was written")
            }
            Self::Counts { expected, found, under } => {
                let mut separator = "";
                for (counter, found, expected) in [("N", found.n, expected.n), ("C", found.c, expected.c)] {
                    if found != expected {
                        write!(f, "{separator}{counter} is {found}, expected {expected}")?;
                        separator = ", ";
                    }
                }
                write!(f, ", under {under}")
            }
            Self::Undisturbed { missing } => write!(f, "not tested: no exit by {missing} in any run"),
            Self::CountersDisagree { fixed, general } => {
                write!(f, "fixed counter 0 says {fixed}, event C0h says {general}")
            }
            Self::NoInterrupt { counter, armed, found } => {
                write!(f, "{counter} overflow armed {armed} ahead, no interrupt by {found}")
            }
            Self::Early { counter, armed, found } => {
                write!(f, "{counter} overflow armed {armed} ahead, interrupt at {found}")
            }
            Self::NotMasked => f.write_str("the interrupt does not mask its LVT entry"),
            Self::NoStatus => f.write_str("the interrupt comes without the overflow status"),
            Self::Twice => f.write_str("one overflow interrupts twice"),
            Self::Margin(error) => error.fmt(f),
            Self::Landing { target, failure, under } => {
                write!(f, "landing at {target} under {under}: {failure}")
            }
            Self::Elsewhere { target, found } => {
                write!(f, "landing at {target} stopped at {found} in another state")
            }
            Self::TargetMissed { target } => write!(f, "the program ended before {target}"),
            Self::TooLong => f.write_str("the program takes more steps than its counts allow"),
            Self::Endless => f.write_str("the program does not end"),
            Self::Unexpected { reason, qualification, rip } => {
                write!(f, "unexpected exit: reason {reason}, qualification {qualification:#x}, RIP {rip:#x}")
            }
        }
    }
}

/// The verdict on one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail(Reason),
}

/// One property's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the property.
    pub name: &'static str,
    /// What was to be shown.
    pub claim: &'static str,
    /// Runs with exact counts.
    pub runs: u32,
    /// VM exits in those runs.
    pub exits: u64,
    /// The counts expected (without injected interrupts).
    pub expected: Counts,
    /// Exact landings.
    pub landings: u32,
    /// VM exits in the landings.
    pub landing_exits: u64,
    /// The verdict.
    pub verdict: Verdict,
}

impl Row {
    /// Filler.
    pub(crate) const EMPTY: Self = Self {
        name: "",
        claim: "",
        runs: 0,
        exits: 0,
        expected: Counts { n: 0, c: 0 },
        landings: 0,
        landing_exits: 0,
        verdict: Verdict::Pass,
    };

    /// The heading over rows shown by [`Row`]'s `Display`.
    pub const HEADING: &'static str =
        "property              runs    exits      N      C  landings  exits each  verdict";

    /// The machine line, without its newline.
    #[must_use]
    pub const fn machine_line(&self) -> MachineLine<'_> {
        MachineLine(self)
    }

    /// Did this counter agree in every run?
    #[must_use]
    pub const fn agrees(&self, counter: Counter) -> bool {
        match self.verdict {
            Verdict::Fail(Reason::Counts { expected, found, .. }) => match counter {
                Counter::Instructions => expected.n == found.n,
                Counter::Branches => expected.c == found.c,
            },
            Verdict::Fail(Reason::CountersDisagree { .. }) => matches!(counter, Counter::Branches),
            Verdict::Fail(Reason::BitsLost { counter: bad, .. }) => bad as u8 != counter as u8,
            _ => true,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20} {:>5} {:>8} {:>6} {:>6}",
            self.name, self.runs, self.exits, self.expected.n, self.expected.c
        )?;
        if self.landings == 0 {
            write!(f, " {:>9} {:>11}", "-", "-")?;
        } else {
            let tenths = self.landing_exits * 10 / u64::from(self.landings);
            write!(f, " {:>9} {:>9}.{}", self.landings, tenths / 10, tenths % 10)?;
        }
        match self.verdict {
            Verdict::Pass => f.write_str("  holds"),
            Verdict::Fail(reason) => write!(f, "  FAILS: {reason}"),
        }
    }
}

/// Shows a row as `@@ proof property=... verdict=...`.
#[derive(Clone, Copy, Debug)]
pub struct MachineLine<'a>(&'a Row);

impl fmt::Display for MachineLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let word = |ok| if ok { "ok" } else { "wrong" };
        write!(
            f,
            "@@ proof property={} runs={} exits={} n={} c={} landings={} landing-exits={}",
            row.name,
            row.runs,
            row.exits,
            word(row.agrees(Counter::Instructions)),
            word(row.agrees(Counter::Branches)),
            row.landings,
            row.landing_exits
        )?;
        match row.verdict {
            Verdict::Pass => f.write_str(" verdict=pass"),
            Verdict::Fail(reason) => write!(f, " verdict=fail reason=\"{reason}\""),
        }
    }
}

/// The whole proof's result.
#[derive(Clone, Debug)]
pub struct Report {
    rows: [Row; ROWS_MAX],
    len: usize,
    /// Skid of N's overflow interrupt, in instructions.
    pub skid_instructions: Skid,
    /// Skid of C's overflow interrupt, in conditional branches.
    pub skid_branches: Skid,
    /// Margin for landings by N, in instructions.
    pub margin_instructions: Result<u64, MarginError>,
    /// Margin for landings by C, in conditional branches.
    pub margin_branches: Result<u64, MarginError>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            rows: [Row::EMPTY; ROWS_MAX],
            len: 0,
            skid_instructions: Skid::NONE,
            skid_branches: Skid::NONE,
            margin_instructions: Err(MarginError::Unmeasured),
            margin_branches: Err(MarginError::Unmeasured),
        }
    }
}

impl Report {
    /// Adds a row.
    ///
    /// # Panics
    /// When there are more than [`ROWS_MAX`].
    pub(crate) fn push(&mut self, row: Row) {
        assert!(self.len < ROWS_MAX, "more properties than ROWS_MAX");
        self.rows[self.len] = row;
        self.len += 1;
    }

    /// The rows, in the order tested.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows[..self.len]
    }

    /// The rows that fail.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows().iter().filter(|row| row.verdict != Verdict::Pass)
    }

    /// Every property holds and the margins are known: a guest may be protected on this host.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.len > 0
            && self.failures().next().is_none()
            && self.margin_instructions.is_ok()
            && self.margin_branches.is_ok()
    }

    /// The summary as a machine line, without its newline.
    #[must_use]
    pub const fn machine_line(&self) -> MachineSummary<'_> {
        MachineSummary(self)
    }
}

/// The summary line, then, when the proof fails, one line saying what that means.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = self.len - self.failures().count();
        write!(f, "boot proof: {good} of {} properties hold; ", self.len)?;
        match self.margin_instructions {
            Ok(margin) => write!(f, "margin {margin} instructions (skid seen {})", self.skid_instructions)?,
            Err(error) => write!(f, "no margin: {error}")?,
        }
        if !self.holds() {
            f.write_str("\nboot proof FAILED: ")?;
            let mut separator = "";
            for row in self.failures() {
                write!(f, "{separator}{}", row.name)?;
                separator = ", ";
            }
            f.write_str("\nThis host cannot protect a virtual machine; it can run one unprotected.")?;
        }
        Ok(())
    }
}

/// Shows the summary as `@@ proof-summary ...`.
#[derive(Clone, Copy, Debug)]
pub struct MachineSummary<'a>(&'a Report);

impl fmt::Display for MachineSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let landings: u64 = report.rows().iter().map(|row| u64::from(row.landings)).sum();
        let good = report.len - report.failures().count();
        write!(f, "@@ proof-summary properties={} hold={good} landings={landings}", report.len)?;
        for (name, skid, margin) in [
            ("n", &report.skid_instructions, report.margin_instructions),
            ("c", &report.skid_branches, report.margin_branches),
        ] {
            write!(f, " skid-{name}={skid} margin-{name}=")?;
            match margin {
                Ok(margin) => write!(f, "{margin}")?,
                Err(_) => f.write_str("none")?,
            }
        }
        f.write_str(if report.holds() { " verdict=pass" } else { " verdict=fail" })?;
        let mut separator = " failed=";
        for row in report.failures() {
            write!(f, "{separator}{}", row.name)?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn row(verdict: Verdict) -> Row {
        Row {
            name: "ept-violations",
            runs: 64,
            exits: 1200,
            expected: Counts { n: 990, c: 90 },
            landings: 64,
            landing_exits: 800,
            verdict,
            ..Row::EMPTY
        }
    }

    const WRONG: Verdict = Verdict::Fail(Reason::Counts {
        expected: Counts { n: 990, c: 90 },
        found: Counts { n: 993, c: 90 },
        under: Disturbance::EPT,
    });

    #[test]
    fn lines() {
        assert_eq!(
            format!("{}", row(Verdict::Pass)),
            "ept-violations          64     1200    990     90        64        12.5  holds"
        );
        assert_eq!(
            format!("{}", row(WRONG).machine_line()),
            "@@ proof property=ept-violations runs=64 exits=1200 n=wrong c=ok landings=64 landing-exits=800 verdict=fail \
             reason=\"N is 993, expected 990, under ept\""
        );
        assert_eq!(Row::HEADING.find("verdict"), format!("{}", row(Verdict::Pass)).find("holds"));
    }

    #[test]
    fn summary() {
        let mut report = Report::default();
        assert!(!report.holds(), "nothing tested is nothing proved");
        report.push(row(Verdict::Pass));
        assert!(!report.holds(), "no margin");
        report.skid_instructions.add(5);
        report.skid_instructions.add(40);
        report.skid_branches.add(2);
        report.margin_instructions = Ok(192);
        report.margin_branches = Ok(128);
        assert!(report.holds());
        assert_eq!(
            format!("{report}"),
            "boot proof: 1 of 1 properties hold; margin 192 instructions (skid seen 5..40)"
        );
        report.push(row(WRONG));
        assert!(!report.holds());
        assert!(format!("{report}").contains("boot proof FAILED: ept-violations\n"));
        assert_eq!(
            format!("{}", report.machine_line()),
            "@@ proof-summary properties=2 hold=1 landings=128 skid-n=5..40 margin-n=192 skid-c=2..2 margin-c=128 \
             verdict=fail failed=ept-violations"
        );
    }
}
