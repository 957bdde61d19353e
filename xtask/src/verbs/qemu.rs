//! `cargo xtask qemu`: the kernel on QEMU.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::build;
use crate::emulator::Exit;
use crate::hostfacts::{Accel, HostFacts, Wish, choose};
use crate::image::{Image, Module, Pxe, Words};
use crate::qemu::{Boot, Firmware, Machine, Nic, report};
use crate::{paths, ui};

/// Boot the kernel on QEMU, with BIOS or UEFI, from CD, USB stick, disk or network.
///
/// On an Intel host with nested VMX and performance counters the machine runs on KVM and the kernel can do all its work.
/// Elsewhere QEMU emulates the processor (TCG): the kernel then boots up to its refusal, since TCG has no VMX. The choice,
/// its reason, and each setting of the host that is in the way are printed first.
///
/// The kernel ends the run through the exit port. The exit status is 0 for success, 35 for a panic, 37 for a failed proof,
/// 39 for a refusal, 1 for any other end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask qemu
  cargo xtask qemu --firmware uefi --boot pxe --nic e1000e --nvme disk.img
  cargo xtask qemu --show-command
  cargo xtask qemu --stdio --cmdline 'after=park'    (Ctrl-A X ends QEMU)")]
pub struct Args {
    /// The firmware
    #[arg(long, value_enum, default_value = "bios")]
    firmware: Firmware,
    /// What the machine boots from
    #[arg(long, value_enum, default_value = "cd")]
    boot: Medium,
    /// The accelerator
    #[arg(long, value_enum, default_value = "auto")]
    accel: Wish,
    /// A network card by QEMU's name (e1000, e1000e, igb, virtio-net-pci); may be given more than once [default: e1000]
    #[arg(long, value_name = "MODEL", value_parser = ["e1000", "e1000e", "igb", "virtio-net-pci", "none"])]
    nic: Vec<String>,
    /// An NVMe disk: a raw image, which the machine writes to; may be given more than once
    #[arg(long, value_name = "FILE")]
    nvme: Vec<PathBuf>,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Memory, MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(128..))]
    memory: u32,
    /// More words for the kernel's command line, which begins with exit-port=0xf4 after=exit
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = Words::parse)]
    cmdline: Words,
    /// The configuration that the kernel gets as a module
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A module for the kernel; may be given more than once
    #[arg(long, value_name = "FILE[:WORDS]", value_parser = Module::parse)]
    module: Vec<Module>,
    /// Boot this instead of a medium made for the run: an ISO image, or with --boot pxe a PXE directory
    #[arg(long, value_name = "PATH", conflicts_with_all = ["cmdline", "config", "module"])]
    image: Option<PathBuf>,
    /// Stop after so many seconds of wall-clock time
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    limit: u64,
    /// The console is this terminal, for input too; no limit
    #[arg(long)]
    stdio: bool,
    /// Print QEMU's command line and do not run it
    #[arg(long)]
    show_command: bool,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    more: Vec<String>,
}

/// What the machine boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Medium {
    /// The ISO image in a CD drive
    Cd,
    /// The same image on a USB stick
    Usb,
    /// The same image on a SATA disk
    Disk,
    /// The PXE directory over the first network card
    Pxe,
}

/// Runs the verb.
///
/// # Errors
/// When QEMU, the firmware or an input is missing, or the wished-for accelerator cannot work.
pub fn run(args: Args) -> Result<ExitCode> {
    let facts = HostFacts::of_this_host();
    let choice = choose(&facts, args.accel)?;
    ui::say(choice.describe().trim_end());
    let machine = Machine { platform: choice.args.clone(), ..machine(&args)? };
    if args.show_command {
        println!("{}", machine.show()?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.stdio {
        return interactive(&machine);
    }
    let outcome = machine.run()?;
    ui::say(report(&outcome, choice.accel == Accel::Tcg));
    Ok(match outcome.exit {
        Exit::Success | Exit::PowerOff => ExitCode::SUCCESS,
        Exit::Panic => ExitCode::from(35),
        Exit::Failed => ExitCode::from(37),
        Exit::Refused => ExitCode::from(39),
        _ => ExitCode::from(1),
    })
}

fn machine(args: &Args) -> Result<Machine> {
    let nics = match &args.nic[..] {
        [] => vec![Nic::new(1, "e1000")],
        models => {
            (1..).zip(models).filter(|(_, m)| *m != "none").map(|(n, model)| Nic::new(n, model)).collect()
        }
    };
    if args.boot == Medium::Pxe && nics.is_empty() {
        bail!("a network boot needs a network card; leave out --nic none");
    }
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .ok()
            .filter(|path| path.exists())
            .with_context(|| format!("there is no {}", path.display()))
    };
    Ok(Machine {
        name: "qemu".into(),
        firmware: args.firmware,
        boot: boot(args)?,
        cpus: args.smp,
        memory_mib: args.memory,
        nics,
        nvme: args.nvme.iter().map(absolute).collect::<Result<_>>()?,
        more: args.more.clone(),
        limit: Duration::from_secs(args.limit),
        live: true,
        ..Machine::default()
    })
}

/// The medium: the given one, or one made for this run.
fn boot(args: &Args) -> Result<Boot> {
    let given = args.image.as_ref().map(std::path::absolute).transpose()?;
    let path = match given {
        Some(path) if path.exists() => path,
        Some(path) => bail!("there is no {}; `cargo xtask image` makes media", path.display()),
        None => make(args)?,
    };
    Ok(match args.boot {
        Medium::Cd => Boot::Cd(path),
        Medium::Usb => Boot::Usb(path),
        Medium::Disk => Boot::Disk(path),
        Medium::Pxe if path.is_dir() => Boot::Pxe(path),
        Medium::Pxe => bail!(
            "{} is no directory; a network boot needs what `cargo xtask image --pxe` writes",
            path.display()
        ),
    })
}

fn make(args: &Args) -> Result<PathBuf> {
    let words =
        if args.stdio { Words::parse("exit-port=0xf4")? } else { Words::parse("exit-port=0xf4 after=exit")? };
    let image = Image {
        words: words.with(&args.cmdline),
        config: args.config.clone(),
        modules: args.module.clone(),
        timeout: 0,
        ..Image::new(build::kernel()?)
    };
    let step = ui::step("make the boot medium");
    let path = if args.boot == Medium::Pxe {
        let dir = paths::fresh_out_dir("qemu-pxe")?;
        image.write_pxe(&dir, &Pxe::default())?;
        dir
    } else {
        let file = paths::out_dir()?.join("qemu.iso");
        image.write_iso(&file)?;
        file
    };
    step.done();
    Ok(path)
}

/// QEMU in the foreground, its console on this terminal.
fn interactive(machine: &Machine) -> Result<ExitCode> {
    let status = Command::new(crate::qemu::program())
        .args(machine.interactive_args()?)
        .status()
        .context("cannot start QEMU")?;
    Ok(match status.code() {
        Some(0 | 33) => ExitCode::SUCCESS,
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::from(1),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn machine_of(words: &str) -> Result<Machine> {
        machine(&Cli::try_parse_from(["qemu"].into_iter().chain(words.split_whitespace()))?.args)
    }

    #[test]
    fn the_command_line_becomes_a_machine() {
        let iso = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let machine = machine_of(&format!(
            "--image {iso} --firmware uefi --boot usb --nic e1000e --nic igb --smp 3 --memory 1024 -- -snapshot"
        ));
        let machine = machine.unwrap();
        assert_eq!((machine.firmware, machine.cpus, machine.memory_mib), (Firmware::Uefi, 3, 1024));
        assert_eq!(machine.boot, Boot::Usb(iso.into()));
        assert_eq!(machine.nics.iter().map(|nic| nic.model.as_str()).collect::<Vec<_>>(), ["e1000e", "igb"]);
        assert_eq!(machine.more, ["-snapshot"]);
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let iso = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(machine_of(&format!("--image {iso} --boot pxe")).is_err(), "a file is no PXE directory");
        assert!(
            machine_of(&format!("--image {} --boot pxe --nic none", env!("CARGO_MANIFEST_DIR"))).is_err()
        );
        assert!(machine_of("--image /no/such.iso").unwrap_err().to_string().contains("cargo xtask image"));
        assert!(machine_of(&format!("--image {iso} --nvme /no/such.img")).is_err());
        assert!(machine_of("--nic rtl8139").is_err());
    }
}
