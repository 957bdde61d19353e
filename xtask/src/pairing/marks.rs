//! Moments of a run that are known only while it runs: when the arbiter armed a generation, when somebody won, when the client had
//! its n-th answer. All of them are emulated time, so what is done at one of them is as repeatable as the run.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::switch::station::counter::{Counted, Tally};
use crate::switch::station::lock::AskLog;
use crate::switch::time::{Ns, parse_duration};

/// Something that happens once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The hosts are switched on.
    Start,
    /// The arbiter has armed the first generation.
    Armed,
    /// The arbiter has said to a host that it has won.
    Won,
    /// The counting client has so many answers.
    Answers(usize),
}

/// So long after a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The mark.
    pub mark: Mark,
    /// Emulated time after it, ns.
    pub after: Ns,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.after as f64 / 1e6;
        match self.mark {
            Mark::Start => write!(f, "{ms:.3} ms after the start"),
            Mark::Armed => write!(f, "{ms:.3} ms after arming"),
            Mark::Won => write!(f, "{ms:.3} ms after somebody won"),
            Mark::Answers(number) => write!(f, "{ms:.3} ms after answer {number}"),
        }
    }
}

impl Moment {
    /// So long after the hosts are switched on.
    pub const fn at(after: Ns) -> Self {
        Moment { mark: Mark::Start, after }
    }

    /// Reads `12s`, `armed`, `armed+500ms`, `won+1s`, `answer=100` or `answer=100+3ms`.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(text: &str) -> Result<Self> {
        let (mark, after) = match text.split_once('+') {
            Some((mark, after)) => (mark, parse_duration(after)?),
            None => (text, 0),
        };
        let mark = match mark.split_once('=') {
            None if mark == "armed" => Mark::Armed,
            None if mark == "won" => Mark::Won,
            Some(("answer", number)) => {
                let number = number.parse().ok().filter(|number| *number > 0);
                Mark::Answers(
                    number.with_context(|| format!("`{text}` counts no answers; write answer=100"))?,
                )
            }
            None if mark.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('+') => {
                return Ok(Moment::at(parse_duration(text)?));
            }
            _ => bail!("`{text}` is no moment: write 12s, armed+500ms, won+1s or answer=100+3ms"),
        };
        Ok(Moment { mark, after })
    }
}

/// What the stations of a run have noted so far.
#[derive(Clone, Default)]
pub struct Marks {
    /// What the arbiter was asked.
    pub asks: AskLog,
    /// What the counting client has seen, if there is one.
    pub tally: Option<Tally>,
}

impl Marks {
    /// When a moment is, once its mark has come.
    pub fn when(&self, moment: Moment) -> Option<Ns> {
        let mark = match moment.mark {
            Mark::Start => Some(0),
            Mark::Armed => self.asks.first("armed"),
            Mark::Won => self.asks.first("won"),
            Mark::Answers(number) => {
                let nth = |counted: &Counted| counted.answered.get(number.checked_sub(1)?).copied();
                self.tally.as_ref()?.look(nth)
            }
        };
        mark.map(|mark| mark.saturating_add(moment.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::station::lock::Asked;

    #[test]
    fn moments_are_read() {
        let moment = |mark, after| Moment { mark, after };
        for (text, wanted) in [
            ("12s", moment(Mark::Start, 12_000_000_000)),
            ("0s", moment(Mark::Start, 0)),
            ("armed", moment(Mark::Armed, 0)),
            ("armed+500ms", moment(Mark::Armed, 500_000_000)),
            ("won+1us", moment(Mark::Won, 1_000)),
            ("answer=100", moment(Mark::Answers(100), 0)),
            ("answer=1+3ms", moment(Mark::Answers(1), 3_000_000)),
        ] {
            assert_eq!(Moment::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in
            ["", "12", "1s+1s", "armed+", "armed=1", "answer=0", "answer=x", "answer", "+1s", "dead+1s"]
        {
            assert!(Moment::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_is_known_when_its_mark_has_come() {
        let marks = Marks::default();
        let when = |marks: &Marks, text: &str| marks.when(Moment::parse(text).unwrap());
        let both = (when(&marks, "2us"), when(&marks, "armed+1us"), when(&marks, "answer=1"));
        assert_eq!(both, (Some(2_000), None, None));
        for (at, verdict) in [(5, "refused"), (7, "armed"), (9, "armed"), (11, "won")] {
            let (side, what) = ("a".into(), "arm");
            marks.asks.push(Asked { at, side, what, generation: 1, verdict, said: true });
        }
        assert_eq!((when(&marks, "armed+1us"), when(&marks, "won")), (Some(1_007), Some(11)));
    }
}
