//! Moments of a run that are known only while it runs: when the arbiter armed a generation, when somebody won, when the client had
//! its n-th answer, when a program on another machine told that it is so far. All of them are emulated time, so what is done at one of them is as repeatable as the run.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::switch::station::counter::{Counted, Tally};
use crate::switch::station::lock::AskLog;
use crate::switch::station::notes::NoteLog;
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
    /// A program on another machine has noted this.
    Note(Name),
}

/// The longest name of a note, bytes.
const NAME: usize = 12;

/// What a program notes: a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME]);

impl Name {
    /// A name, if it is one: letters and digits, not too many.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= NAME && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let mut bytes = [0; NAME];
        bytes.get_mut(..text.len()).filter(|_| fits)?.copy_from_slice(text.as_bytes());
        Some(Name(bytes))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }
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
            Mark::Note(name) => write!(f, "{ms:.3} ms after the note \"{}\"", name.text()),
        }
    }
}

impl Moment {
    /// So long after the hosts are switched on.
    pub const fn at(after: Ns) -> Self {
        Moment { mark: Mark::Start, after }
    }

    /// Reads `12s`, `armed`, `armed+500ms`, `won+1s`, `answer=100`, `answer=100+3ms` or `note=load+50ms`.
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
            Some(("note", name)) => {
                Mark::Note(Name::new(name).with_context(|| format!("`{name}` is no note: write note=load"))?)
            }
            None if mark.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('+') => {
                return Ok(Moment::at(parse_duration(text)?));
            }
            _ => bail!(
                "`{text}` is no moment: write 12s, armed+500ms, won+1s, answer=100+3ms or note=load+50ms"
            ),
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
    /// What programs on other machines have noted.
    pub notes: NoteLog,
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
            Mark::Note(name) => self.notes.first(name.text()),
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
            ("note=load+50ms", moment(Mark::Note(Name::new("load").unwrap()), 50_000_000)),
            ("answer=1+3ms", moment(Mark::Answers(1), 3_000_000)),
        ] {
            assert_eq!(Moment::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in [
            "",
            "12",
            "note=",
            "note=a-b",
            "note=morethantwelve",
            "1s+1s",
            "armed+",
            "armed=1",
            "answer=0",
            "answer=x",
            "answer",
            "+1s",
            "dead+1s",
        ] {
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
        marks.notes.push(20, "load".into());
        assert_eq!((when(&marks, "note=load+1us"), when(&marks, "note=loa")), (Some(1_020), None));
        assert_eq!((when(&marks, "armed+1us"), when(&marks, "won")), (Some(1_007), Some(11)));
    }
}
