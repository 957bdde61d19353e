//! `cargo xtask run`: a virtual machine on Lockstep, on the emulated host.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::machine_args::MachineArgs;
use crate::emulator::{self, Running};
use crate::setup::{self, Purpose};
use crate::vm::terminal;
use crate::{paths, payload, ui};

/// Run a virtual machine on Lockstep, on the emulated machine.
///
/// The machine is described by a lockstep.toml (docs/configuration.md has the keys; file names in it are relative to it), or
/// by flags: a guest of --guest that is made of this system's packages, or a kernel of yours. On a terminal, what you type
/// goes to the machine: Ctrl-] changes between the guest's console and Lockstep's own shell, Ctrl-\ then q ends the
/// machine. Without a terminal, or with --batch, the console is only shown.
///
/// The guest's network is joined to a world inside this tool: a host at 10.0.2.2 that answers ping, serves /fileN (N MiB) by
/// HTTP on 8000 and takes what comes on 8001. The guest's own address is 10.0.2.15 by convention.
///
/// The run ends when the guest switches itself off; exit status 0 then, 1 if it ended in another way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask run
  cargo xtask run --load cpu,gzip --batch
  cargo xtask run --config lockstep.toml
  cargo xtask run --kernel bzImage --initrd rootfs.cpio --append console=ttyS0 --memory 512M
  cargo xtask run --load serve --fetch /index.html
  cargo xtask run --guest redis --client --size 1000 --batch
  cargo xtask run --guest i386 --load boot --dry-run    (prints the configuration and makes the boot medium)")]
pub struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Run the guest's kernel without Lockstep, on the same emulated machine (no virtio there)
    #[arg(long, conflicts_with_all = ["config", "client"])]
    bare: bool,
    /// Make the boot medium and print the configuration, but run nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing or wrong; how the machine ended is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, false)?;
    if args.bare {
        return bare(&args.machine);
    }
    let person = args.machine.person() && !args.dry_run;
    let vm = args.machine.vm(person)?;
    let host = args.machine.host("run", person)?;
    if args.dry_run {
        host.machine(&vm)?;
        print!("{}", vm.text());
        let medium = paths::out_dir()?.join("vm").join(&host.name).join("boot.iso");
        ui::say(format!("The boot medium: {}", medium.display()));
        return Ok(ExitCode::SUCCESS);
    }
    emulator::binary()?;
    let started = host.start(&vm)?;
    let (outcome, told) = if person {
        let desk = Desk::open(&started.running)?;
        started.wait_unless(|| desk.is_left())?
    } else {
        started.wait()?
    };
    for line in told {
        ui::say(line);
    }
    Ok(super::bochs::conclude(&outcome))
}

/// A person at a machine's console: the terminal passes keys until this is dropped.
pub struct Desk {
    leaves: Arc<AtomicBool>,
    _raw: terminal::Raw,
}

impl Desk {
    /// Tells the person the keys and gives the terminal to the machine.
    ///
    /// # Errors
    /// When there is no terminal, or the machine has no keyboard.
    pub fn open(running: &Running) -> Result<Self> {
        ui::say(terminal::HINT);
        let leaves = Arc::new(AtomicBool::new(false));
        let raw = terminal::Raw::enter()?;
        let flag = Arc::clone(&leaves);
        terminal::pass_keys(running.keyboard()?, move || flag.store(true, Ordering::Relaxed));
        Ok(Desk { leaves, _raw: raw })
    }

    /// Whether the person wants out.
    pub fn is_left(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }
}

/// The guest's kernel by itself on the emulated machine.
fn bare(args: &MachineArgs) -> Result<ExitCode> {
    let description = args.description(false)?;
    let machine = payload::bare(&description, &format!("bare-{}", description.name))?;
    let machine = emulator::Machine {
        live: true,
        cpus: args.cpus,
        ips: args.ips.unwrap_or(machine.ips),
        memory_mib: args.host_memory.unwrap_or(machine.memory_mib),
        knobs: args.knobs.clone(),
        limit: args.limit(false),
        ..machine
    };
    Ok(super::bochs::conclude(&machine.run()?))
}
