//! The guests that try to diverge: which there are, with which words, and the virtual machine that each one needs.

use anyhow::Result;
use vm_config::Memory;

use crate::guests;
use crate::vm::{Description, DiskSource, Start};

/// A guest that tries to execute differently the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diverging {
    /// What it is called here.
    pub name: &'static str,
    /// The test kernel.
    pub program: &'static str,
    /// Its command line.
    pub words: &'static str,
    /// It has something to do on a network, with the usual world outside.
    pub network: bool,
}

/// A guest without a network.
pub const fn alone(name: &'static str, program: &'static str, words: &'static str) -> Diverging {
    Diverging { name, program, words, network: false }
}

/// All of them, some ten million instructions each. More by `rounds=N`, at other moments by `seed=N`, more often by `period=NS`:
/// see `tests/guests/src/diverge`.
pub const ALL: &[Diverging] = &[
    alone("loops", "replay_loops", ""),
    alone("strings", "replay_strings", "part=plain"),
    alone("string-faults", "replay_strings", "part=faulting"),
    alone("string-ports", "replay_strings", "part=ports"),
    alone("long-strings", "replay_strings", "part=heavy"),
    alone("halts", "replay_flags", "part=halts"),
    alone("dances", "replay_flags", "part=dances"),
    alone("nmis", "replay_flags", "part=nmis"),
    alone("nested", "replay_flags", "part=nested x2apic=0"),
    alone("debug", "replay_debug", ""),
    alone("code", "replay_code", "part=code"),
    alone("vectors", "replay_code", "part=vectors"),
    alone("devices", "replay_devices", ""),
    Diverging { network: true, ..alone("frames", "replay_devices", "part=net") },
    alone("tasks", "replay_tasks", ""),
    alone("relax", "replay_paging", "part=relax"),
    alone("bits", "replay_paging", "part=bits"),
    alone("fork", "replay_paging", "part=fork"),
    alone("reclaim", "replay_paging", "part=reclaim"),
    alone("delivery", "replay_paging", "part=delivery"),
    alone("large-pages", "replay_paging", "part=large"),
    alone("table-writes", "replay_paging", "part=writes"),
    alone("stepped-table-writes", "replay_paging", "part=stepped"),
    alone("recycled-tables", "replay_paging", "part=recycle"),
];

/// The guest of this name.
pub fn find(name: &str) -> Option<Diverging> {
    ALL.iter().copied().find(|guest| guest.name == name)
}

impl Diverging {
    /// The virtual machine, with these words besides its own, and time by its instructions alone. The test kernel is built.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn describe(&self, more: &str) -> Result<Description> {
        let kernel = guests::build(self.program)?;
        let command_line = format!("{} {more}", self.words).trim().to_owned();
        let start = Start::Kernel { kernel, initrd: None, command_line };
        Ok(Description {
            memory: Memory { bytes: 32 << 20 },
            disks: vec![DiskSource::Blank(Memory { bytes: 1 << 20 })],
            networks: usize::from(self.network),
            follows_host: false,
            ..Description::new(self.name, start)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_programs_exist() {
        let programs = guests::programs().unwrap();
        for guest in ALL {
            assert_eq!(find(guest.name), Some(*guest), "{} twice", guest.name);
            assert!(programs.iter().any(|program| program == guest.program), "{}", guest.program);
        }
        let replaying = programs.iter().filter(|program| program.starts_with("replay_"));
        for program in replaying {
            assert!(ALL.iter().any(|guest| guest.program == program), "{program} is in no list");
        }
    }
}
