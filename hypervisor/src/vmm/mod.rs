//! The virtual-machine monitor: VMX on every processor, guests' memory, VMCSs, and the tiny guests that prove them.

pub mod capture;
pub mod control_registers;
pub mod debug_registers;
pub mod dump;
pub mod emulated;
pub mod pages;
pub mod paging_controls;
pub mod processors;
pub mod setup;
pub mod tables;
pub mod tiny_guest;
pub mod trial;
pub mod trial_chaos;
pub mod trial_registers;
pub mod virtual_processor;
pub mod vm;

use crate::arch::cpu::{self, ExitCode};
use crate::machine_line;
use crate::options::{After, Options};
pub use processors::Ability;

/// Puts every processor into VMX operation and runs the tiny guests, as far as this machine can; prints what is missing.
pub fn start() -> Ability {
    let ability = processors::start();
    let Some(caps) = processors::capabilities().filter(|_| ability.guests) else { return ability };
    match trial::run(caps) {
        Ok(score) => {
            let verdict = if score.passed == score.run { "pass" } else { "fail" };
            machine_line!("guests run={} passed={} verdict={verdict}", score.run, score.passed);
            if verdict == "fail" {
                cpu::exit(ExitCode::ProofFailed)
            }
        }
        Err(why) => {
            log::error!("{why}");
            machine_line!("guests run=0 passed=0 verdict=fail");
            cpu::exit(ExitCode::ProofFailed)
        }
    }
    ability
}

/// The last step of a boot that is to end by itself: says by its exit code that the machine lacks something. Where it
/// lacks nothing, or is to stay up, nothing happens.
pub fn end_if_refused(ability: Ability, options: &Options<'_>) {
    if ability.guests && ability.protection {
        return;
    }
    let works = if ability.guests { "guests run without a backup" } else { "no guest runs" };
    log::error!("refused: see what is missing above; {works}");
    machine_line!("boot verdict=refused guests={}", if ability.guests { "yes" } else { "no" });
    if options.after == After::Exit {
        cpu::exit(ExitCode::Refused)
    }
}
