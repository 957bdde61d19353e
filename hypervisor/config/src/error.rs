//! What is wrong with a configuration: where, which key, and what would be right.

use alloc::string::String;
use core::fmt;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The key with its tables, such as `disk[1].size`; empty when the text is no TOML at this place.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The text is longer than [`crate::limits::TEXT`].
    TooLong,
    /// Brackets and braces lie deeper within each other than [`crate::limits::NESTING`].
    TooDeep,
    /// The text is not UTF-8.
    NotUtf8,
    /// The text is not TOML.
    Syntax(String),
    /// The key or table is there already.
    Duplicate,
    /// Nobody knows this key.
    Unknown {
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
        /// All keys known here.
        known: &'static [&'static str],
    },
    /// The key must be there.
    Missing {
        /// A line that would be right.
        example: &'static str,
    },
    /// The value has another type.
    Type {
        /// What it is.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// The value means nothing here.
    Value {
        /// What it is, shortened.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// The value means nothing here, and is a secret.
    Secret {
        /// What it must be.
        wanted: &'static str,
    },
    /// There are more of these than a machine can have.
    TooMany {
        /// The most.
        most: usize,
    },
    /// This key cannot stand beside another one.
    Conflict {
        /// The other key.
        with: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the configuration is longer than {} bytes", crate::limits::TEXT),
            Self::TooDeep => f.write_str("this is nested too deeply; nothing here needs it"),
            Self::NotUtf8 => f.write_str("the configuration is not UTF-8 text"),
            Self::Syntax(what) => f.write_str(what),
            Self::Duplicate => f.write_str("this is here twice; keep one"),
            Self::Unknown { nearest: Some(nearest), .. } => {
                write!(f, "unknown key; did you mean `{nearest}`?")
            }
            Self::Unknown { nearest: None, known } => {
                f.write_str("unknown key; known here: ")?;
                list(f, known)
            }
            Self::Missing { example } => write!(f, "missing; write, for example, `{example}`"),
            Self::Type { found, wanted } => write!(f, "this is {found}; it must be {wanted}"),
            Self::Value { found, wanted } => write!(f, "`{found}` is not {wanted}"),
            Self::Secret { wanted } => write!(f, "this (a secret, not shown here) is not {wanted}"),
            Self::TooMany { most } => write!(f, "there can be at most {most} of these"),
            Self::Conflict { with } => write!(f, "cannot stand beside `{with}`; keep one"),
        }
    }
}

/// Writes names with commas between them.
fn list(f: &mut fmt::Formatter<'_>, names: &[&str]) -> fmt::Result {
    for (n, name) in names.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{name}")?;
    }
    Ok(())
}

/// The known name that is a slip of the finger or two away from `name`.
pub fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    /// Longer names are nobody's slip of the finger.
    const LONGEST: usize = 32;
    if name.len() > LONGEST {
        return None;
    }
    let far = 1 + name.len() / 4;
    let best = known.iter().map(|known| (distance(name.as_bytes(), known.as_bytes()), *known)).min()?;
    (best.0 <= far).then_some(best.1)
}

/// Levenshtein's distance of two short names; letter case and `_` for `-` count for nothing.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(plain(x) != plain(y));
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
