//! A person's terminal as the machine's console: every key goes to the machine, but one that leads out.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::ui;

/// The key that leads out: Ctrl-\. Pressed twice, the machine gets one.
const WAY_OUT: u8 = 0x1c;

/// What a person is told at the start.
pub const HINT: &str = "Keys go to the machine. Ctrl-] changes between the guest's console and Lockstep's own shell \
                        (`help` there); Ctrl-\\ then q ends the machine.";

/// Whether a person sits at standard input and standard output.
pub fn is_there() -> bool {
    !ui::unattended() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal without its own ideas about keys, until this is dropped.
pub struct Raw(Termios);

impl Raw {
    /// Gives each key as it is pressed.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("standard input is no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        // Whatever colours and half lines the guest has left.
        let _ = std::io::stdout().write_all(b"\x1b[0m\r\n");
    }
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// It goes to the machine.
    Pass(u8),
    /// It is the first half of something.
    Wait,
    /// The person wants to leave.
    Leave,
}

/// What has been typed: whether the last key was [`WAY_OUT`].
#[derive(Clone, Copy, Debug, Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    fn take(&mut self, key: u8) -> Key {
        match (std::mem::take(&mut self.escaped), key) {
            (false, WAY_OUT) => {
                self.escaped = true;
                Key::Wait
            }
            (true, b'q' | b'Q' | b'x') => Key::Leave,
            (_, key) => Key::Pass(key),
        }
    }
}

/// Passes keys from standard input to the machine in a thread of its own; `leave` is called when the person wants out.
/// The thread ends with the process: a read from a terminal cannot be called off.
pub fn pass_keys(mut keyboard: TcpStream, leave: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let mut keys = Keys::default();
        let mut chunk = [0; 256];
        while let Ok(n @ 1..) = std::io::stdin().read(&mut chunk) {
            for &key in &chunk[..n] {
                match keys.take(key) {
                    Key::Pass(key) if keyboard.write_all(&[key]).is_err() => return,
                    Key::Pass(_) | Key::Wait => {}
                    Key::Leave => return leave(),
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_way_out_is_kept_from_the_machine() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(0x1d), Key::Pass(0x1d));
        assert_eq!(keys.take(3), Key::Pass(3));
        assert_eq!((keys.take(WAY_OUT), keys.take(WAY_OUT)), (Key::Wait, Key::Pass(WAY_OUT)));
        assert_eq!((keys.take(b'q'), keys.take(WAY_OUT)), (Key::Pass(b'q'), Key::Wait));
        assert_eq!(keys.take(b'q'), Key::Leave);
    }
}
