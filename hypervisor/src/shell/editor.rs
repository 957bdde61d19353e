//! The line being typed: editing keys, history, completion, and how the terminal shows it.

use super::commands;
use super::history::History;
use super::keys::{Decoder, Key};
use core::fmt::Write;

/// Characters of a line; prompt and line fit a terminal of 80 columns, so nothing wraps.
pub const MAX_LINE: usize = 64;

/// What stands before the line.
pub const PROMPT: &str = "lockstep> ";

/// A line: ASCII only.
pub type Line = heapless::String<MAX_LINE>;

/// What a byte has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The line is not ended.
    More,
    /// It is: [`Editor::line`].
    Line,
}

/// The editor.
#[derive(Debug)]
pub struct Editor {
    line: Line,
    /// 0..=length.
    cursor: usize,
    history: History,
    keys: Decoder,
    /// The user has been told about ASCII, for this line.
    told: bool,
}

impl Editor {
    /// An empty line.
    pub const fn new() -> Self {
        Editor { line: Line::new(), cursor: 0, history: History::new(), keys: Decoder::new(), told: false }
    }

    /// The line as it is.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// A new line begins.
    pub fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.told = false;
    }

    /// Shows prompt and line, at the start of the terminal's line.
    pub fn show(&self, out: &mut dyn Write) {
        let _ = write!(out, "\r{PROMPT}{}\x1b[K", self.line);
        let behind = self.line.len() - self.cursor;
        if behind > 0 {
            let _ = write!(out, "\x1b[{behind}D");
        }
    }

    /// Says that it did not understand.
    pub fn bell(&self, out: &mut dyn Write) {
        let _ = out.write_char('\x07');
    }

    /// Takes a byte typed.
    pub fn byte(&mut self, byte: u8, out: &mut dyn Write) -> Outcome {
        let Some(key) = self.keys.byte(byte) else { return Outcome::More };
        match key {
            Key::Enter => {
                let _ = out.write_char('\n');
                self.history.add(&self.line);
                return Outcome::Line;
            }
            Key::Character(c) => self.insert(c, out),
            Key::Tab => self.complete(out),
            Key::Foreign => self.foreign(out),
            Key::Unknown => self.bell(out),
            Key::Cancel => {
                let _ = out.write_str("^C\n");
                self.clear();
                self.show(out);
            }
            edit => {
                if !self.edit(edit) {
                    self.bell(out);
                }
                self.show(out);
            }
        }
        Outcome::More
    }

    fn insert(&mut self, character: u8, out: &mut dyn Write) {
        if self.line.len() >= MAX_LINE {
            return self.bell(out);
        }
        let at_end = self.cursor == self.line.len();
        // Both cannot fail: there is room, and the cursor is on a boundary of ASCII.
        let _ = self.line.insert(self.cursor, char::from(character));
        self.cursor += 1;
        if at_end {
            let _ = out.write_char(char::from(character));
        } else {
            self.show(out);
        }
    }

    fn foreign(&mut self, out: &mut dyn Write) {
        self.bell(out);
        if !core::mem::replace(&mut self.told, true) {
            let _ = out.write_str("\n(only ASCII characters are understood here)\n");
            self.show(out);
        }
    }

    /// False: there is nothing to do for this key.
    fn edit(&mut self, key: Key) -> bool {
        let end = self.line.len();
        match key {
            Key::Left if self.cursor > 0 => self.cursor -= 1,
            Key::Right if self.cursor < end => self.cursor += 1,
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = end,
            Key::Backspace if self.cursor > 0 => self.delete(self.cursor - 1, self.cursor),
            Key::Delete if self.cursor < end => self.delete(self.cursor, self.cursor + 1),
            Key::KillToEnd => self.delete(self.cursor, end),
            Key::KillToStart => self.delete(0, self.cursor),
            Key::KillWord => self.delete(self.word_before(), self.cursor),
            Key::Up => match self.history.older().map(line) {
                Some(older) => self.replace(older),
                None => return false,
            },
            Key::Down => match self.history.newer().map(line) {
                Some(newer) => self.replace(newer),
                None => return false,
            },
            Key::Redraw => {}
            _ => return false,
        }
        true
    }

    /// Where the word before the cursor, with the blanks behind it, begins.
    fn word_before(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or("");
        before.trim_end().rfind(' ').map_or(0, |blank| blank + 1)
    }

    /// Deletes what is from `start` to `end`; the cursor is then at `start`.
    fn delete(&mut self, start: usize, end: usize) {
        for _ in start..end {
            if start < self.line.len() {
                self.line.remove(start);
            }
        }
        self.cursor = start.min(self.line.len());
    }

    fn replace(&mut self, line: Line) {
        self.cursor = line.len();
        self.line = line;
    }

    fn complete(&mut self, out: &mut dyn Write) {
        let before = line(self.line.get(..self.cursor).unwrap_or(""));
        let completion = commands::complete(&before);
        for character in completion.added.bytes() {
            self.insert(character, out);
        }
        if completion.added.is_empty() {
            match completion.choices() {
                0 => self.bell(out),
                _ => {
                    let _ = out.write_char('\n');
                    completion.list(&mut |word| {
                        let _ = write!(out, "{word}  ");
                    });
                    let _ = out.write_char('\n');
                    self.show(out);
                }
            }
        }
    }
}

/// A copy; what is too long is cut.
fn line(text: &str) -> Line {
    let mut line = Line::new();
    for character in text.chars() {
        if line.push(character).is_err() {
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn typed(bytes: &[u8]) -> (Editor, String) {
        let (mut editor, mut out) = (Editor::new(), String::new());
        editor.show(&mut out);
        for byte in bytes {
            if editor.byte(*byte, &mut out) == Outcome::Line {
                editor.clear();
                editor.show(&mut out);
            }
        }
        (editor, out)
    }

    fn line_after(bytes: &[u8]) -> String {
        typed(bytes).0.line().into()
    }

    #[test]
    fn keys_edit() {
        for (bytes, wanted) in [
            (&b"abc\x02\x02X"[..], "aXbc"),
            (b"abc\x01X\x05Y", "XabcY"),
            (b"abc\x1b[H\x1b[3~", "bc"),
            (b"abc\x7f\x08d", "ad"),
            (b"abc def\x02\x02\x0b", "abc d"),
            (b"abc def\x02\x15", "f"),
            (b"abc def \x17x", "abc x"),
            (b"abc\x17\x17\x17", ""),
            (b"one\rtwo\r\x1b[A\x1b[A", "one"),
            (b"one\rtwo\r\x1b[A\x1b[A\x1b[B", "two"),
            (b"abc\x03d", "d"),
            (b"\x04\x0bx\x06\x06", "x"),
        ] {
            assert_eq!(line_after(bytes), wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn completion_of_commands_and_arguments() {
        assert_eq!(line_after(b"ver\t"), "version ");
        assert_eq!(line_after(b"reb\t"), "reboot ");
        assert_eq!(line_after(b"reb\t\t"), "reboot now ");
        assert_eq!(line_after(b"vm p\t"), "vm p", "pause and poweroff");
        assert!(typed(b"vm p\t").1.contains("pause  poweroff"));
        assert_eq!(line_after(b"vm pa\t"), "vm pause ");
        assert_eq!(line_after(b"log d\t"), "log debug ");
        assert_eq!(line_after(b"help ve\t"), "help version ");
        assert_eq!(line_after(b"zzz\t"), "zzz");
        assert_eq!(line_after(b"e\t"), "e", "events and exits");
        assert_eq!(line_after(b"ex\t"), "exits ");
        assert_eq!(line_after(b"  ex\t"), "  exits ");
    }

    #[test]
    fn other_alphabets_are_refused_once_a_line() {
        let (editor, out) = typed("äöü".as_bytes());
        assert_eq!(editor.line(), "");
        assert_eq!(out.matches("only ASCII").count(), 1);
    }

    #[test]
    fn a_line_has_an_end() {
        let (editor, out) = typed(&[b'x'; 200]);
        assert_eq!(editor.line().len(), MAX_LINE);
        assert!(out.ends_with('\x07'));
    }

    proptest! {
        #[test]
        fn the_terminal_shows_what_the_line_is(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(9), Just(13), 1u8..24, b'a'..=b'z'], 0..200)) {
            let (editor, out) = typed(&bytes);
            prop_assert!(editor.cursor <= editor.line.len());
            prop_assert!(editor.line.is_ascii());
            let (shown, column) = screen(&out);
            let wanted = std::format!("{PROMPT}{}", editor.line());
            prop_assert_eq!(shown.trim_end(), wanted.trim_end());
            prop_assert_eq!(column, PROMPT.len() + editor.cursor);
        }
    }

    /// The last line of a terminal that has got this text, and the cursor's column.
    fn screen(out: &str) -> (String, usize) {
        let (mut line, mut column) = (std::vec::Vec::<char>::new(), 0);
        let mut text = out.chars();
        while let Some(c) = text.next() {
            match c {
                '\n' => (line, column) = (std::vec::Vec::new(), 0),
                '\r' => column = 0,
                '\x07' => {}
                '\x1b' => {
                    let mut parameter = String::new();
                    let last = text.by_ref().skip(1).find(|c| {
                        parameter.push(*c);
                        c.is_ascii_alphabetic()
                    });
                    match last {
                        Some('K') => line.truncate(column),
                        Some('D') => column -= parameter.trim_end_matches('D').parse::<usize>().unwrap(),
                        other => panic!("{other:?}"),
                    }
                }
                c => {
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = c;
                    column += 1;
                }
            }
        }
        (line.into_iter().collect(), column)
    }
}
