//! Which entries a person wants to see.

use anyhow::{Context, Result, bail};

use super::item::{self, Item, KINDS};

/// A position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// An entry's number, from 0 on.
    Entry(u64),
    /// A synchronous exit.
    Exit(u64),
    /// Instructions retired.
    N(u64),
}

impl At {
    /// Reads `K`, `entry:K`, `exit:K` or `n:K`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let (what, number) = text.split_once(':').unwrap_or(("entry", text));
        let number = number.replace('_', "").parse().with_context(|| format!("`{number}` is no number"))?;
        Ok(match what {
            "entry" => At::Entry(number),
            "exit" => At::Exit(number),
            "n" => At::N(number),
            other => bail!("`{other}`: entry:K, exit:K or n:K was expected"),
        })
    }

    /// Whether the guest has come so far with this entry.
    fn is_reached(self, item: &Item<'_>) -> bool {
        match self {
            At::Entry(number) => item.number >= number,
            At::Exit(exit) => item.reached.exits >= exit,
            At::N(n) => item.reached.n >= n,
        }
    }

    /// Whether the guest has gone beyond it.
    fn is_passed(self, item: &Item<'_>) -> bool {
        match self {
            At::Entry(number) => item.number > number,
            At::Exit(exit) => item.reached.exits > exit,
            At::N(n) => item.reached.n > n,
        }
    }
}

/// Which entries.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// From here on.
    pub from: Option<At>,
    /// Up to here, the last one included.
    pub to: Option<At>,
    /// Of these kinds; all if there is none.
    pub kinds: Vec<&'static str>,
}

impl Selection {
    /// Whether it is one of them.
    pub fn has(&self, item: &Item<'_>) -> bool {
        self.from.is_none_or(|from| from.is_reached(item))
            && !self.to.is_some_and(|to| to.is_passed(item))
            && (self.kinds.is_empty() || self.kinds.contains(&item::kind(&item.entry.event)))
    }
}

/// Reads the name of a kind.
///
/// # Errors
/// There is none of this name.
pub fn kind(text: &str) -> Result<&'static str> {
    let known = KINDS.into_iter().find(|known| *known == text);
    known.with_context(|| format!("`{text}` is no kind of entry; there are {}", KINDS.join(", ")))
}
