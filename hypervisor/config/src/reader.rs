//! TOML tables read key by key, with the place of each for errors.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Problem, nearest};

/// Characters of a value that an error repeats.
const SHOWN: usize = 40;

/// The text, to turn places into lines.
#[derive(Clone, Copy)]
pub struct Text<'t>(pub &'t str);

impl Text<'_> {
    /// An error at a byte of the text.
    pub fn error(self, at: usize, key: String, problem: Problem) -> Error {
        let (line, column) = position(self.0.as_bytes(), at);
        Error { line, column, key, problem }
    }
}

/// Line and column (in characters) of a byte, both from 1.
pub fn position(text: &[u8], at: usize) -> (u32, u32) {
    let before = &text[..at.min(text.len())];
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before[start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
    (line.try_into().unwrap_or(u32::MAX), column.try_into().unwrap_or(u32::MAX))
}

/// A table and where it is.
pub struct Table<'t, 'd> {
    text: Text<'t>,
    /// Its path, such as `disk[1]`; empty for the document.
    path: String,
    at: usize,
    entries: Option<&'d DeTable<'t>>,
}

/// A value, its key and where they are.
pub struct Value<'t, 'd> {
    text: Text<'t>,
    key: String,
    key_at: usize,
    value: &'d Spanned<DeValue<'t>>,
}

impl<'t, 'd> Table<'t, 'd> {
    /// The document. Only `known` keys are allowed in it.
    pub fn document(
        text: Text<'t>,
        table: &'d DeTable<'t>,
        known: &'static [&'static str],
    ) -> Result<Self, Error> {
        Self { text, path: String::new(), at: 0, entries: Some(table) }.only(known)
    }

    /// Refuses the first key that is not known.
    fn only(self, known: &'static [&'static str]) -> Result<Self, Error> {
        let unknown = self.entries.iter().flat_map(|entries| entries.keys());
        let unknown = unknown.filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(self) };
        let problem = Problem::Unknown { nearest: nearest(key.get_ref(), known), known };
        Err(self.text.error(key.span().start, self.name(&shown(key.get_ref())), problem))
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'t, 'd>> {
        let (spanned, value) = self.entries?.get_key_value(key)?;
        Some(Value { text: self.text, key: self.name(key), key_at: spanned.span().start, value })
    }

    /// The value of a key that must be there.
    pub fn required(&self, key: &str, example: &'static str) -> Result<Value<'t, 'd>, Error> {
        self.get(key).ok_or_else(|| self.missing(key, example))
    }

    /// A key is not there.
    pub fn missing(&self, key: &str, example: &'static str) -> Error {
        self.text.error(self.at, self.name(key), Problem::Missing { example })
    }

    /// A table in this one; as if empty when it is not there.
    pub fn table(&self, key: &str, known: &'static [&'static str]) -> Result<Self, Error> {
        let Some(value) = self.get(key) else {
            return Ok(Self { text: self.text, path: self.name(key), at: self.at, entries: None });
        };
        value.table(value.key.clone(), value.key_at, known)
    }

    /// An array of tables in this one; empty when it is not there.
    pub fn tables(&self, key: &str, most: usize, known: &'static [&'static str]) -> Result<Vec<Self>, Error> {
        const WANTED: &str = "an array of tables, with [[...]] before each";
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value.value.get_ref() else { return Err(value.wrong_type(WANTED)) };
        if let Some(excess) = array.get(most) {
            return Err(self.text.error(excess.span().start, value.key, Problem::TooMany { most }));
        }
        let element = |(n, element): (usize, &'d Spanned<DeValue<'t>>)| {
            let path = format!("{}[{n}]", value.key);
            let at = element.span().start;
            Value { text: self.text, key: path.clone(), key_at: at, value: element }.table(path, at, known)
        };
        array.iter().enumerate().map(element).collect()
    }
}

impl<'t, 'd> Value<'t, 'd> {
    fn table(&self, path: String, at: usize, known: &'static [&'static str]) -> Result<Table<'t, 'd>, Error> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(self.wrong_type("a table"));
        };
        Table { text: self.text, path, at, entries: Some(table) }.only(known)
    }

    /// This value has the wrong type.
    pub fn wrong_type(&self, wanted: &'static str) -> Error {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.problem(Problem::Type { found, wanted })
    }

    /// This value means nothing here.
    pub fn wrong(&self, wanted: &'static str) -> Error {
        let found = match self.value.get_ref() {
            DeValue::String(string) => shown(string),
            DeValue::Integer(integer) => shown(&integer.to_string()),
            DeValue::Datetime(datetime) => shown(&datetime.to_string()),
            _ => return self.wrong_type(wanted),
        };
        self.problem(Problem::Value { found, wanted })
    }

    /// This value means nothing here, and must not be repeated.
    pub fn secret(&self, wanted: &'static str) -> Error {
        self.problem(Problem::Secret { wanted })
    }

    /// This value has a problem.
    pub fn problem(&self, problem: Problem) -> Error {
        self.text.error(self.value.span().start, self.key.clone(), problem)
    }

    /// This key cannot stand beside another one.
    pub fn conflict(&self, with: &'static str) -> Error {
        self.text.error(self.key_at, self.key.clone(), Problem::Conflict { with })
    }

    /// The value as TOML has it.
    pub fn raw(&self) -> &'d DeValue<'t> {
        self.value.get_ref()
    }

    /// The value as a string, if it is one.
    pub fn as_str(&self) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(string) => Some(string),
            _ => None,
        }
    }

    /// A string.
    pub fn string(&self, wanted: &'static str) -> Result<&'d str, Error> {
        self.as_str().ok_or_else(|| self.wrong_type(wanted))
    }

    /// A string that `meaning` understands.
    pub fn parsed<T>(
        &self,
        wanted: &'static str,
        meaning: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        meaning(self.string(wanted)?).ok_or_else(|| self.wrong(wanted))
    }

    /// An integer within a range.
    pub fn integer(&self, range: Range<u64>, wanted: &'static str) -> Result<u64, Error> {
        let DeValue::Integer(integer) = self.value.get_ref() else { return Err(self.wrong_type(wanted)) };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| self.wrong(wanted))
    }

    /// True or false.
    pub fn boolean(&self) -> Result<bool, Error> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false")),
        }
    }
}

/// What an error repeats of a text: its beginning, on one line.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
