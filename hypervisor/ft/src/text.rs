//! Text of bounded length that is nowhere but in itself: for what is told about a peer while nothing may allocate.

use core::fmt;

/// Bytes of a text at most.
pub const TEXT: usize = 80;

/// A text of up to [`TEXT`] bytes; what is longer is cut, and ends with "...".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; TEXT],
    length: usize,
    /// Something did not fit.
    cut: bool,
}

const CUT: &str = "...";

impl Text {
    /// No text.
    pub const EMPTY: Self = Self { bytes: [0; TEXT], length: 0, cut: false };

    /// What `value` shows.
    pub fn of(value: impl fmt::Display) -> Self {
        let mut text = Self::EMPTY;
        // Never fails: what does not fit is cut.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{value}"));
        text
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        self.bytes[self.length..end].copy_from_slice(part);
        self.length = end;
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let room = TEXT - CUT.len() - self.length;
        let mut take = part.len().min(room);
        while !part.is_char_boundary(take) {
            take -= 1;
        }
        self.put(&part.as_bytes()[..take]);
        if take < part.len() {
            self.cut = true;
            self.put(CUT.as_bytes());
        }
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;

    proptest! {
        #[test]
        fn it_is_the_beginning(parts in proptest::collection::vec(".{0,60}", 0..5)) {
            let whole: String = parts.concat();
            let mut text = Text::EMPTY;
            for part in &parts {
                fmt::Write::write_str(&mut text, part).unwrap();
            }
            let shown = format!("{text}");
            prop_assert!(shown.len() <= TEXT);
            if whole.len() <= TEXT - CUT.len() {
                prop_assert_eq!(shown, whole);
            } else {
                let kept = shown.strip_suffix(CUT).unwrap();
                prop_assert!(whole.starts_with(kept) && kept.len() + 4 + CUT.len() > TEXT);
            }
        }
    }
}
