//! What an operator types on the hosts' consoles while a pair runs.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Result, bail};
use vm_config::HostName;

use super::marks::{Marks, Moment};
use crate::switch::time::Ns;

/// The key that calls the hypervisor's shell, and gives the line back.
const ESCAPE: &str = "\x1d";

/// A command for the hypervisor's shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// On whose console.
    pub host: HostName,
    /// When. The keys reach the host some emulated milliseconds later, and not in every run the same number.
    pub when: Moment,
    /// The command.
    pub command: String,
}

impl Typed {
    /// Reads `a:armed+1s:vm pause`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(when), Some(command)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("`{text}`: write for instance a:armed+1s:vm pause");
        };
        let Some(host) = HostName::parse(host) else { bail!("`{host}` is no host: a or b") };
        Ok(Typed { host, when: Moment::parse(when)?, command: command.to_owned() })
    }
}

/// Types when it is time.
pub struct Typist {
    pending: Vec<Typed>,
    keyboards: [Option<TcpStream>; 2],
    marks: Marks,
}

impl Typist {
    /// With the keyboards of host a and host b, where there are any.
    pub fn new(typed: &[Typed], keyboards: [Option<TcpStream>; 2], marks: Marks) -> Self {
        Typist { pending: typed.to_vec(), keyboards, marks }
    }

    /// Emulated time has come to here.
    pub fn look(&mut self, now: Ns) {
        let Self { pending, keyboards, marks } = self;
        pending.retain(|typed| {
            if marks.when(typed.when).is_none_or(|at| at > now) {
                return true;
            }
            if let Some(keyboard) = &mut keyboards[usize::from(typed.host == HostName::B)] {
                // A host that has died takes no keys.
                let _ = keyboard.write_all(format!("{ESCAPE}{}\r{ESCAPE}", typed.command).as_bytes());
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let typed = Typed::parse("b:answer=20+3ms:vm pause").unwrap();
        assert_eq!((typed.host, typed.command.as_str()), (HostName::B, "vm pause"));
        assert_eq!(typed.when, Moment::parse("answer=20+3ms").unwrap());
        for bad in ["a:12s", "c:12s:vm", "a:soon:vm", ""] {
            assert!(Typed::parse(bad).is_err(), "{bad}");
        }
    }
}
