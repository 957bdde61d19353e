//! What a log consists of: bytes and entries by kind, in all and against guest time and instructions.

use std::io::{self, Write};

use replay::log::block::{Kind, PREAMBLE};
use replay::log::codec::Mark;
use replay::log::entry::{Event, Place};
use replay::log::open::Log;
use serde_json::{Value, json};

use super::item::{self, KINDS, items};
use super::text;

/// Entries of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, what came from outside: frames, typed bytes.
    pub payload: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, payload: u64) {
        self.entries += 1;
        self.bytes += bytes;
        self.payload += payload;
    }

    /// Bytes per entry.
    pub fn mean(&self) -> f64 {
        ratio(self.bytes, self.entries)
    }
}

/// A log in numbers.
#[derive(Clone, Debug)]
pub struct Stat {
    /// By kind of event, in the order of [`KINDS`]; those that occur.
    pub kinds: Vec<(&'static str, Sum)>,
    /// By kind of place.
    pub places: Vec<(&'static str, Sum)>,
    /// All entries.
    pub all: Sum,
    /// Looks at the clock between two exits: what a timer interrupt costs there.
    pub ticks: Sum,
    /// Blocks of entries.
    pub blocks: u64,
    /// Bytes of the whole log.
    pub bytes: u64,
    /// Of these the header with what is before it.
    pub header: u64,
    /// Of these notes.
    pub notes: u64,
    /// How far the execution has come, as far as the log says.
    pub reached: Mark,
    /// The log says where it ends.
    pub complete: bool,
}

impl Stat {
    /// Counts.
    pub fn of(log: &Log<'_>) -> Self {
        let mut kinds = KINDS.map(|kind| (kind, Sum::default())).to_vec();
        let mut places = ["exit", "halted", "between"].map(|place| (place, Sum::default())).to_vec();
        let (mut all, mut ticks) = (Sum::default(), Sum::default());
        let mut reached = Mark::default();
        for item in items(log) {
            let (bytes, payload) = (item.length as u64, item::payload(&item.entry.event).len() as u64);
            let add = |sums: &mut Vec<(&str, Sum)>, name: &str| {
                if let Some((_, sum)) = sums.iter_mut().find(|(known, _)| *known == name) {
                    sum.add(bytes, payload);
                }
            };
            add(&mut kinds, item::kind(&item.entry.event));
            add(&mut places, item::place(&item.entry.place));
            all.add(bytes, payload);
            if let (Place::Between { .. }, Event::Look(None)) = (item.entry.place, item.entry.event) {
                ticks.add(bytes, payload);
            }
            reached = item.reached;
        }
        kinds.retain(|(_, sum)| sum.entries > 0);
        let size = |kind| {
            log.walk().filter(|block| block.kind == kind).map(|block| block.length as u64).sum::<u64>()
        };
        Self {
            kinds,
            places,
            all,
            ticks,
            blocks: log.walk().filter(|block| block.kind == Kind::Entries).count() as u64,
            bytes: log.bytes().len() as u64,
            header: PREAMBLE as u64 + size(Kind::Header),
            notes: size(Kind::Note),
            reached: log.end().unwrap_or(reached),
            complete: log.end().is_some(),
        }
    }

    /// Bytes that were written while the guest ran: all but the header and notes.
    pub const fn stream(&self) -> u64 {
        self.bytes - self.header - self.notes
    }

    /// Of these, what is not in entries: the frames of blocks.
    pub const fn framing(&self) -> u64 {
        self.stream() - self.all.bytes
    }

    /// Log bytes beside what came from outside.
    pub const fn beside(&self) -> u64 {
        self.stream() - self.all.payload
    }

    /// Guest seconds.
    pub fn seconds(&self) -> f64 {
        self.reached.virtual_ns as f64 / 1e9
    }

    /// Log bytes per guest second.
    pub fn per_second(&self) -> f64 {
        over(self.stream(), self.seconds())
    }

    /// Log bytes per 1000 instructions of the guest.
    pub fn per_kilo_instruction(&self) -> f64 {
        ratio(self.stream(), self.reached.n) * 1000.0
    }

    /// Log bytes per byte that came from outside.
    pub fn per_payload(&self) -> f64 {
        ratio(self.stream(), self.all.payload)
    }

    /// Says it in a table.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let share = |bytes| 100.0 * ratio(bytes, self.stream());
        writeln!(
            out,
            "{:16}{:>10}{:>12}{:>9}{:>8}{:>14}",
            "", "entries", "bytes", "each", "share", "bytes/guest s"
        )?;
        let mut row = |name: &str, sum: &Sum| {
            let per_second = over(sum.bytes, self.seconds());
            let Sum { entries, bytes, .. } = *sum;
            let (mean, share) = (sum.mean(), share(bytes));
            writeln!(out, "{name:16}{entries:>10}{bytes:>12}{mean:>9.2}{share:>7.1}%{per_second:>14.1}")
        };
        for (kind, sum) in &self.kinds {
            row(kind, sum)?;
        }
        for (place, sum) in &self.places {
            row(&format!("  at: {place}"), sum)?;
        }
        row("blocks", &Sum { entries: self.blocks, bytes: self.framing(), payload: 0 })?;
        row("all", &Sum { entries: self.all.entries, bytes: self.stream(), payload: 0 })?;
        let Mark { n, exits, virtual_ns } = self.reached;
        let known = if self.complete { "" } else { " at least (the log has no end)" };
        writeln!(
            out,
            "guest: {n} instructions, {exits} synchronous exits, {}{known}",
            text::time(virtual_ns)
        )?;
        writeln!(out, "header: {} bytes; notes: {} bytes", self.header, self.notes)?;
        writeln!(out, "log bytes per 1000 instructions: {:.5}", self.per_kilo_instruction())?;
        writeln!(out, "log bytes per guest second: {:.1}", self.per_second())?;
        if self.ticks.entries > 0 {
            writeln!(out, "bytes per look between exits: {:.2}", self.ticks.mean())?;
        }
        if self.all.payload > 0 {
            let (payload, each) = (self.all.payload, self.per_payload());
            writeln!(out, "log bytes per byte from outside: {each:.4} ({payload} bytes came)")?;
        }
        Ok(())
    }

    /// As JSON.
    pub fn object(&self) -> Value {
        let sum = |sum: &Sum| json!({"entries": sum.entries, "bytes": sum.bytes, "payload": sum.payload});
        let map = |sums: &[(&str, Sum)]| {
            Value::Object(sums.iter().map(|(name, one)| ((*name).to_owned(), sum(one))).collect())
        };
        json!({
            "kinds": map(&self.kinds),
            "places": map(&self.places),
            "all": sum(&self.all),
            "ticks": sum(&self.ticks),
            "blocks": self.blocks,
            "bytes": self.bytes,
            "header_bytes": self.header,
            "note_bytes": self.notes,
            "stream_bytes": self.stream(),
            "framing_bytes": self.framing(),
            "instructions": self.reached.n,
            "exits": self.reached.exits,
            "virtual_ns": self.reached.virtual_ns,
            "complete": self.complete,
            "bytes_per_1000_instructions": self.per_kilo_instruction(),
            "bytes_per_guest_second": self.per_second(),
            "bytes_per_tick": self.ticks.mean(),
            "bytes_per_payload_byte": self.per_payload(),
        })
    }
}

/// Per second; 0 where no time is known to have passed.
fn over(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
