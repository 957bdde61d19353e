//! Whose line it is: the guest's console's or the shell's, what was typed for the guest and not yet taken, and what the
//! guest has said while the shell had the line.

use super::Line;
use super::system::Guest;
use core::fmt::Write;

/// Bytes typed for the guest that it has not taken yet; more are lost and counted. A paste of a screen fits.
pub const TYPED: usize = 2048;

/// Bytes of guest output kept while the shell has the line; of more, the newest.
pub const HELD: usize = 16 * 1024;

/// Whose the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The guest's console.
    Guest,
    /// The hypervisor's shell.
    Shell,
}

/// What a received byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// For the guest; it will get it by [`Mux::feed`].
    Guest,
    /// For the guest, which has too much already: lost.
    Lost,
    /// For the shell.
    Shell,
    /// The escape key: the line is this side's now. (For [`Side::Guest`], [`Mux::attach`] is to be called.)
    Switched(Side),
    /// The escape key, and nobody to switch to.
    NoGuest,
}

/// A ring of bytes that forgets the oldest.
#[derive(Debug)]
struct Held {
    bytes: [u8; HELD],
    /// Bytes ever put in.
    count: u64,
}

impl Held {
    fn push(&mut self, byte: u8) {
        let at = (self.count % HELD as u64) as usize;
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
        self.count += 1;
    }

    fn lost(&self) -> u64 {
        self.count.saturating_sub(HELD as u64)
    }

    fn replay(&mut self, out: &mut dyn Line) {
        let start = (self.lost() % HELD as u64) as usize;
        let kept = self.count.min(HELD as u64) as usize;
        let (new, old) = self.bytes.split_at(start);
        let parts = if kept < HELD { [&self.bytes[..kept], &[]] } else { [old, new] };
        parts.into_iter().for_each(|part| out.raw(part));
        self.count = 0;
    }
}

/// The switch.
#[derive(Debug)]
pub struct Mux {
    escape: Option<u8>,
    guest: bool,
    side: Side,
    typed: heapless::Deque<u8, TYPED>,
    typed_lost: u64,
    held: Held,
}

impl Mux {
    /// Without a guest; the line is the shell's. Without an escape key it stays whose it is.
    pub const fn new(escape: Option<u8>) -> Self {
        Mux {
            escape,
            guest: false,
            side: Side::Shell,
            typed: heapless::Deque::new(),
            typed_lost: 0,
            held: Held { bytes: [0; HELD], count: 0 },
        }
    }

    /// Whose the line is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Whether there is a guest.
    pub fn has_guest(&self) -> bool {
        self.guest
    }

    /// The escape key as people write it.
    pub fn escape_name(&self) -> heapless::String<16> {
        let mut name = heapless::String::new();
        // Both forms fit.
        let _ = match self.escape {
            Some(control @ 1..0x20) => write!(name, "Ctrl-{}", char::from(control + 0x40)),
            Some(other) => write!(name, "byte {other:#04x}"),
            None => write!(name, "no key"),
        };
        name
    }

    /// Chooses another escape key, or none.
    pub fn set_escape(&mut self, escape: Option<u8>) {
        self.escape = escape;
    }

    /// There is a guest, and the line is its.
    pub fn guest_starts(&mut self) {
        (self.guest, self.side) = (true, Side::Guest);
        self.typed.clear();
        self.held.count = 0;
    }

    /// There is none any more. Returns whether the line changed hands.
    pub fn guest_ends(&mut self) -> bool {
        self.guest = false;
        core::mem::replace(&mut self.side, Side::Shell) == Side::Guest
    }

    /// Sorts one received byte.
    pub fn input(&mut self, byte: u8) -> Input {
        match (Some(byte) == self.escape, self.side) {
            (true, _) if !self.guest => Input::NoGuest,
            (true, Side::Guest) => {
                self.side = Side::Shell;
                Input::Switched(Side::Shell)
            }
            (true, Side::Shell) => Input::Switched(Side::Guest),
            (false, Side::Shell) => Input::Shell,
            (false, Side::Guest) => match self.typed.push_back(byte) {
                Ok(()) => Input::Guest,
                Err(_) => {
                    self.typed_lost += 1;
                    Input::Lost
                }
            },
        }
    }

    /// The line is the guest's: what it has said meanwhile goes out.
    pub fn attach(&mut self, out: &mut dyn Line) {
        self.side = Side::Guest;
        self.held.replay(out);
    }

    /// Gives the guest what was typed for it, as far as it takes it. Returns whether nothing is left.
    pub fn feed(&mut self, guest: &mut dyn Guest) -> bool {
        while let Some(byte) = self.typed.front() {
            if !guest.console_input(*byte) {
                return false;
            }
            self.typed.pop_front();
        }
        true
    }

    /// The guest has said something: it goes out, or is kept.
    pub fn output(&mut self, bytes: &[u8], out: &mut dyn Line) {
        match self.side {
            Side::Guest => out.raw(bytes),
            Side::Shell => bytes.iter().for_each(|byte| self.held.push(*byte)),
        }
    }

    /// Bytes the guest has said since the shell took the line.
    pub fn came(&self) -> u64 {
        self.held.count
    }

    /// Those of them that are not kept.
    pub fn lost(&self) -> u64 {
        self.held.lost()
    }

    /// Bytes typed for the guest that found no room.
    pub fn typed_lost(&self) -> u64 {
        self.typed_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::tests::{ESCAPE, Screen};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn with_guest() -> Mux {
        let mut mux = Mux::new(Some(ESCAPE));
        mux.guest_starts();
        mux
    }

    #[test]
    fn without_a_guest_everything_is_the_shells() {
        let mut mux = Mux::new(Some(ESCAPE));
        assert_eq!(mux.input(b'a'), Input::Shell);
        assert_eq!(mux.input(ESCAPE), Input::NoGuest);
        assert_eq!(mux.side(), Side::Shell);
    }

    #[test]
    fn the_escape_key_has_a_name() {
        assert_eq!(with_guest().escape_name(), "Ctrl-]");
        assert_eq!(Mux::new(Some(1)).escape_name(), "Ctrl-A");
        assert_eq!(Mux::new(Some(0xff)).escape_name(), "byte 0xff");
        assert_eq!(Mux::new(Some(0)).escape_name(), "byte 0x00");
        assert_eq!(Mux::new(None).escape_name(), "no key");
    }

    #[test]
    fn too_much_typing_is_counted() {
        let mut mux = with_guest();
        (0..TYPED).for_each(|_| assert_eq!(mux.input(b'a'), Input::Guest));
        assert_eq!((mux.input(b'a'), mux.typed_lost()), (Input::Lost, 1));
        assert_eq!(mux.input(ESCAPE), Input::Switched(Side::Shell), "the escape key always works");
    }

    proptest! {
        /// Whatever is switched when: the guest's output comes out whole and in order, but for the oldest of what was
        /// held, which is counted.
        #[test]
        fn output_is_replayed_in_order(steps in proptest::collection::vec((any::<bool>(), 0usize..9000), 1..12)) {
            let mut mux = with_guest();
            let (mut out, mut said, mut next) = (Screen::default(), Vec::<u8>::new(), 0u8);
            for (switch, len) in steps {
                if switch && mux.side() == Side::Guest {
                    prop_assert_eq!(mux.input(ESCAPE), Input::Switched(Side::Shell));
                } else if switch {
                    prop_assert_eq!(mux.input(ESCAPE), Input::Switched(Side::Guest));
                    let this = mux.lost() as usize;
                    // The oldest held bytes are gone from what must come out.
                    let held = mux.came() as usize;
                    said.drain(said.len() - held..said.len() - held + this);
                    mux.attach(&mut out);
                }
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                mux.output(&bytes, &mut out);
                said.extend(bytes);
            }
            let out = out.raw;
            prop_assert!(said.starts_with(&out));
            if mux.side() == Side::Guest {
                prop_assert_eq!(said, out);
            }
        }
    }
}
