//! The hypervisor's own shell, and how it shares one serial line with the guest's console. Pure: bytes come in, text goes
//! to a [`core::fmt::Write`], and what commands ask and order goes through the traits of [`system`].
//!
//! Nothing typed can make it panic or write without bound: lines, history, output of a command and what is kept of the
//! guest's output while the shell has the line all have a named limit.

pub mod commands;
pub mod editor;
pub mod history;
pub mod inspect;
pub mod keys;
pub mod mux;
pub mod system;
pub mod walk;

use commands::Effect;
use core::fmt::Write;
use editor::{Editor, Outcome};
use mux::{Input, Mux, Side};
use system::{Guest, Host};

/// The serial line, for text and for the guest's bytes.
pub trait Line: Write {
    /// Sends bytes as they are; in text, a line feed ends the line.
    fn raw(&mut self, bytes: &[u8]);
}

/// The shell and the guest's console on one line.
#[derive(Debug)]
pub struct Shell {
    mux: Mux,
    editor: Editor,
}

impl Shell {
    /// A shell whose line belongs to the guest (or to itself, without one) and changes hands by the byte `escape`.
    pub const fn new(escape: Option<u8>) -> Self {
        Shell { mux: Mux::new(escape), editor: Editor::new() }
    }

    /// There is a guest from now on, and the line is its until `escape` is typed.
    pub fn guest_starts(&mut self, escape: Option<u8>, out: &mut dyn Line) {
        self.mux.set_escape(escape);
        let escape = self.mux.escape_name();
        say(out, format_args!("\n[the line is the guest's; {escape} calls the hypervisor's shell]\n"));
        self.mux.guest_starts();
    }

    /// There is no guest any more: the shell takes the line.
    pub fn guest_ends(&mut self, out: &mut dyn Line) {
        if self.mux.guest_ends() {
            say(out, format_args!("\n[the guest has ended; this is the hypervisor's shell, try help]\n"));
            self.editor.show(out);
        }
    }

    /// Greets and shows the first prompt: for a machine without a guest.
    pub fn greet(&mut self, out: &mut dyn Line) {
        say(out, format_args!("This is the hypervisor's shell; help lists the commands.\n"));
        self.editor.show(out);
    }

    /// Whose the line is.
    fn side(&self) -> Side {
        self.mux.side()
    }

    /// Something else has been printed in the middle of the line being typed: shows it again.
    pub fn redraw(&mut self, out: &mut dyn Line) {
        if self.side() == Side::Shell {
            self.editor.show(out);
        }
    }

    /// Takes one received byte.
    pub fn receive(
        &mut self,
        byte: u8,
        host: &mut dyn Host,
        guest: Option<&mut dyn Guest>,
        out: &mut dyn Line,
    ) {
        match self.mux.input(byte) {
            Input::Guest | Input::Lost => {}
            Input::NoGuest => self.editor.bell(out),
            Input::Switched(Side::Shell) => {
                say(out, format_args!("\n[hypervisor; attach or {} returns]\n", self.mux.escape_name()));
                self.editor.show(out);
            }
            Input::Switched(Side::Guest) => self.attach(out),
            Input::Shell => match self.editor.byte(byte, out) {
                Outcome::More => {}
                Outcome::Line => self.execute(host, guest, out),
            },
        }
    }

    /// Gives the guest what was typed for it, as far as it takes it. Returns whether nothing is left.
    pub fn feed(&mut self, guest: &mut dyn Guest) -> bool {
        self.mux.feed(guest)
    }

    /// The guest has said something.
    pub fn guest_output(&mut self, bytes: &[u8], out: &mut dyn Line) {
        self.mux.output(bytes, out);
    }

    fn execute(&mut self, host: &mut dyn Host, guest: Option<&mut dyn Guest>, out: &mut dyn Line) {
        match commands::execute(self.editor.line(), host, guest, out) {
            Ok(Effect::Attach) if self.mux.has_guest() => {
                self.editor.clear();
                return self.attach(out);
            }
            Ok(Effect::Attach) => say(out, format_args!("there is no guest to attach to\n")),
            // A sink that fails has nobody to tell.
            Ok(Effect::None) | Err(_) => {}
        }
        self.editor.clear();
        self.editor.show(out);
    }

    fn attach(&mut self, out: &mut dyn Line) {
        let lost = self.mux.lost();
        say(out, format_args!("\n[guest; {} bytes came meanwhile, {lost} of them lost", self.mux.came()));
        match self.mux.typed_lost() {
            0 => say(out, format_args!("]\n")),
            typed => say(out, format_args!("; {typed} typed bytes found no room]\n")),
        }
        self.mux.attach(out);
    }
}

/// Writes; a sink that fails has nobody to tell.
fn say(out: &mut dyn Line, text: core::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_inspect;
