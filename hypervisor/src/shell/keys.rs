//! Bytes of a terminal become keys: control characters and the escape sequences of VT100, xterm and their like.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Character(u8),
    /// Enter.
    Enter,
    /// Tab.
    Tab,
    /// Backspace.
    Backspace,
    /// Delete.
    Delete,
    /// Cursor left, one character.
    Left,
    /// Cursor right, one character.
    Right,
    /// Start of the line.
    Home,
    /// End of the line.
    End,
    /// The line before in the history.
    Up,
    /// The line after.
    Down,
    /// Deletes to the end of the line (Ctrl-K).
    KillToEnd,
    /// Deletes to the start of the line (Ctrl-U).
    KillToStart,
    /// Deletes the word before the cursor (Ctrl-W).
    KillWord,
    /// Gives the line up (Ctrl-C).
    Cancel,
    /// Draws the line again (Ctrl-L).
    Redraw,
    /// A byte that is not ASCII.
    Foreign,
    /// A control character or sequence without a meaning here.
    Unknown,
}

/// Parameter bytes kept of an escape sequence; what is longer means nothing here.
const MAX_PARAMETERS: usize = 4;

/// Where in a sequence the decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// A carriage return came: a line feed right after it belongs to it.
    Return,
    Escape,
    /// ESC O.
    Shift3,
    /// ESC [ and parameters.
    Control {
        parameters: [u8; MAX_PARAMETERS],
        count: usize,
    },
}

/// The decoder.
#[derive(Clone, Debug)]
pub struct Decoder(State);

impl Decoder {
    /// In no sequence.
    pub const fn new() -> Self {
        Decoder(State::Plain)
    }

    /// Takes a byte; `None` while a sequence is under way.
    pub fn byte(&mut self, byte: u8) -> Option<Key> {
        match core::mem::replace(&mut self.0, State::Plain) {
            State::Return if byte == b'\n' => None,
            State::Plain | State::Return => self.plain(byte),
            State::Escape => {
                self.0 = match byte {
                    b'[' => State::Control { parameters: [0; MAX_PARAMETERS], count: 0 },
                    b'O' => State::Shift3,
                    _ => return Some(Key::Unknown),
                };
                None
            }
            State::Shift3 => Some(final_byte(byte)),
            State::Control { mut parameters, count } => match byte {
                0x20..=0x3f => {
                    if let Some(place) = parameters.get_mut(count) {
                        *place = byte;
                    }
                    self.0 = State::Control { parameters, count: (count + 1).min(MAX_PARAMETERS + 1) };
                    None
                }
                b'~' => Some(numbered(parameters.get(..count).unwrap_or(&[]))),
                _ => Some(final_byte(byte)),
            },
        }
    }

    fn plain(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            b'\r' => {
                self.0 = State::Return;
                Key::Enter
            }
            0x1b => {
                self.0 = State::Escape;
                return None;
            }
            b'\n' => Key::Enter,
            b'\t' => Key::Tab,
            0x08 | 0x7f => Key::Backspace,
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x03 => Key::Cancel,
            0x04 => Key::Delete,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x0b => Key::KillToEnd,
            0x0c => Key::Redraw,
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillToStart,
            0x17 => Key::KillWord,
            0x20..=0x7e => Key::Character(byte),
            0x80.. => Key::Foreign,
            _ => Key::Unknown,
        })
    }
}

/// The end of ESC [ or ESC O (ECMA-48, 8.3; xterm's "PC-Style Function Keys").
fn final_byte(byte: u8) -> Key {
    match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => Key::Unknown,
    }
}

/// ESC [ number ~.
fn numbered(parameters: &[u8]) -> Key {
    match parameters {
        b"1" | b"7" => Key::Home,
        b"4" | b"8" => Key::End,
        b"3" => Key::Delete,
        _ => Key::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::new();
        bytes.iter().filter_map(|b| decoder.byte(*b)).collect()
    }

    #[test]
    fn sequences_of_common_terminals() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Key::Up),
            (b"\x1bOB", Key::Down),
            (b"\x1b[1~", Key::Home),
            (b"\x1b[7~", Key::Home),
            (b"\x1b[H", Key::Home),
            (b"\x1bOF", Key::End),
            (b"\x1b[8~", Key::End),
            (b"\x1b[3~", Key::Delete),
            (b"\x1b[1;5C", Key::Right),
            (b"\x1b[15~", Key::Unknown),
            (b"\x1b[123456789~", Key::Unknown),
            (b"\x1bx", Key::Unknown),
            (b"\x7f", Key::Backspace),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:x?}");
        }
    }

    #[test]
    fn line_ends_of_all_kinds_are_one_key() {
        assert_eq!(keys(b"\r\n"), [Key::Enter]);
        assert_eq!(keys(b"\r\r"), [Key::Enter; 2]);
        assert_eq!(keys(b"\n\n"), [Key::Enter; 2]);
        assert_eq!(keys(b"\ra\n"), [Key::Enter, Key::Character(b'a'), Key::Enter]);
    }

    #[test]
    fn other_alphabets_are_told_apart() {
        assert_eq!(keys("ä".as_bytes()), [Key::Foreign; 2]);
    }
}
