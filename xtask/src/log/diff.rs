//! Where two logs begin to differ.

use std::collections::VecDeque;
use std::io::{self, Write};

use replay::log::open::Log;
use serde_json::json;

use super::item::{Item, items};
use super::text;

/// How two logs compare.
#[derive(Debug)]
pub struct Difference<'l> {
    /// Fields of the headers that differ: name, in the one, in the other.
    pub header: Vec<(&'static str, String, String)>,
    /// The last equal entries before the first that differs.
    pub before: Vec<Item<'l>>,
    /// The first entries that differ and what follows, in each. Both empty: all entries are equal.
    pub behind: [Vec<Item<'l>>; 2],
}

impl<'l> Difference<'l> {
    /// Compares; keeps up to `context` entries before and behind the first difference.
    pub fn between(one: &Log<'l>, other: &Log<'l>, context: usize) -> Self {
        let header = headers(one, other);
        let (mut left, mut right) = (items(one), items(other));
        let mut before = VecDeque::new();
        loop {
            match (left.next(), right.next()) {
                (None, None) => return Self { header, before: Vec::new(), behind: [Vec::new(), Vec::new()] },
                (Some(a), Some(b)) if a.entry == b.entry => {
                    before.push_back(a);
                    if before.len() > context {
                        before.pop_front();
                    }
                }
                (a, b) => {
                    let behind = [
                        a.into_iter().chain(left.take(context)).collect(),
                        b.into_iter().chain(right.take(context)).collect(),
                    ];
                    return Self { header, before: before.into(), behind };
                }
            }
        }
    }

    /// No entry differs.
    pub fn is_none(&self) -> bool {
        self.behind.iter().all(Vec::is_empty)
    }

    /// Says it in words.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, names: [&str; 2], out: &mut dyn Write) -> io::Result<()> {
        for (field, one, other) in &self.header {
            writeln!(out, "header: {field} differs\n< {one}\n> {other}")?;
        }
        if self.is_none() {
            return writeln!(out, "all entries are equal");
        }
        let number = self.number();
        writeln!(out, "entry {number} is the first that differs (< {}, > {})", names[0], names[1])?;
        for item in &self.before {
            writeln!(out, "  {}", text::line(item))?;
        }
        for (sign, items) in ["<", ">"].into_iter().zip(&self.behind) {
            if items.is_empty() {
                writeln!(out, "{sign} {number:>8}  (this log ends before)")?;
            }
            for item in items {
                writeln!(out, "{sign} {}", text::line(item))?;
            }
        }
        Ok(())
    }

    /// The number of the first entry that differs.
    pub fn number(&self) -> u64 {
        self.behind.iter().flatten().map(|item| item.number).min().unwrap_or_default()
    }

    /// As JSON.
    pub fn object(&self) -> serde_json::Value {
        let list = |items: &[Item<'_>]| items.iter().map(text::object).collect::<Vec<_>>();
        let header =
            self.header.iter().map(|(field, one, other)| json!({"field": field, "one": one, "other": other}));
        json!({
            "equal": self.is_none(),
            "header": header.collect::<Vec<_>>(),
            "entry": (!self.is_none()).then(|| self.number()),
            "before": list(&self.before),
            "one": list(&self.behind[0]),
            "other": list(&self.behind[1]),
        })
    }
}

fn headers(one: &Log<'_>, other: &Log<'_>) -> Vec<(&'static str, String, String)> {
    let mut fields = Vec::new();
    let (left, right) = (text::header(one.header()), text::header(other.header()));
    for index in 0..left.len().max(right.len()) {
        let nothing = (String::new(), "");
        let part = |fields: &[(&'static str, String)]| {
            fields.get(index).map_or(nothing.clone(), |(name, value)| (value.clone(), *name))
        };
        let ((a, left_name), (b, right_name)) = (part(&left), part(&right));
        if a != b {
            fields.push((if left_name.is_empty() { right_name } else { left_name }, a, b));
        }
    }
    if one.header().config != other.header().config {
        let changed = one.header().config.lines().zip(other.header().config.lines()).find(|(a, b)| a != b);
        if let Some((a, b)) = changed {
            fields.push(("configuration", a.into(), b.into()));
        }
    }
    fields
}
