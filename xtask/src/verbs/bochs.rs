//! `cargo xtask bochs`: one run on the emulated machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::emulator::{Boot, Cdrom, Disk, Knobs, Machine, Nic, NicMode, Outcome, Serial, Variant, build};
use crate::ui;

/// Run an image on the emulated machine (Bochs with VMX and performance counters) and show its console.
///
/// IMAGE is an ISO image or a raw disk image. The emulator is built on the first call and kept in the cache. The run ends
/// when the kernel says so through the exit port, when the machine powers off, or at the limit; a sentence says which,
/// and the exit status is 0 for success and power-off, 1 for a panic, a failed proof or the limit.
///
/// Two runs with the same image and the same flags agree to the last tick.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bochs target/out/lockstep.iso
  cargo xtask bochs --skid 5:40 --fault lost-pmi target/out/lockstep.iso
  cargo xtask bochs --build    (only build the emulator and print its path)")]
pub struct Args {
    /// An ISO image, or a raw disk image (any other suffix)
    #[arg(required_unless_present = "build")]
    image: Option<PathBuf>,
    /// Only build the emulator, and print its path
    #[arg(long)]
    build: bool,
    /// Build or use the emulator without our patches (no performance counters, no exit port)
    #[arg(long)]
    stock: bool,
    /// More disks: raw images; the machine writes to them
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Memory, MiB
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(8..=16384))]
    memory: u32,
    /// Emulated instructions per emulated second
    #[arg(long, default_value_t = 50_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000_000..))]
    ips: u64,
    /// The processor, by Bochs's name
    #[arg(long, default_value = "corei7_skylake_x")]
    model: String,
    /// A network card, plugged into `none`, `udp:PORT` (frames come on PORT and go to PORT+1), `tap:INTERFACE`, or
    /// `lockstep:DEVICE` (the switch); may be given four times
    #[arg(long, value_name = "CABLE", value_parser = cable)]
    nic: Vec<NicMode>,
    /// Serve the serial port on this TCP port of the loopback instead of showing it; the machine waits for a client
    #[arg(long, value_name = "PORT")]
    serial: Option<u16>,
    /// Pace the machine by the wall clock, for people and real peers; two runs then differ
    #[arg(long)]
    paced: bool,
    /// Stop when the console says this
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    /// Stop after so many seconds of wall-clock time
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    limit: u64,
    #[command(flatten)]
    knobs: Knobs,
}

/// Runs the verb.
///
/// # Errors
/// When the emulator cannot be built or started.
pub fn run(args: Args) -> Result<ExitCode> {
    let emulator = if args.stock { build::ensure(Variant::Stock)? } else { crate::emulator::binary()? };
    let Some(image) = args.image.as_ref().filter(|_| !args.build) else {
        println!("{}", emulator.display());
        return Ok(ExitCode::SUCCESS);
    };
    if !image.is_file() {
        bail!("there is no image {}; `cargo xtask image` makes one", image.display());
    }
    let mut running = machine(&args, image)?.start_with(&emulator)?;
    if let Some(port) = args.serial {
        ui::say(format!(
            "The serial port waits for a client on localhost:{port}, for instance: nc localhost {port}"
        ));
    }
    let outcome = match &args.until {
        Some(text) if running.wait_for(text)? => running.stop()?,
        _ => running.wait()?,
    };
    Ok(conclude(&outcome))
}

fn machine(args: &Args, image: &std::path::Path) -> Result<Machine> {
    let image = std::path::absolute(image)?;
    let is_iso = image.extension().is_some_and(|e| e.eq_ignore_ascii_case("iso"));
    let mut machine = Machine {
        name: "bochs".into(),
        cpus: args.cpus,
        memory_mib: args.memory,
        ips: args.ips,
        model: args.model.clone(),
        paced: args.paced,
        strict_msrs: !args.stock,
        nics: (1..).zip(&args.nic).map(|(number, mode)| Nic::new(number, mode.clone())).collect(),
        serial: args.serial.map_or(Serial::Console, |port| Serial::Server { port }),
        knobs: args.knobs.clone(),
        limit: Duration::from_secs(args.limit),
        live: true,
        ..Machine::default()
    };
    if is_iso {
        machine.cdrom = Some(Cdrom { image });
    } else {
        machine.boot = Boot::Disk;
        machine.disks.push(Disk { image, volatile: false });
    }
    for disk in &args.disk {
        machine.disks.push(Disk { image: std::path::absolute(disk)?, volatile: false });
    }
    Ok(machine)
}

/// Says how a run ended, and gives the exit status that fits.
pub fn conclude(outcome: &Outcome) -> ExitCode {
    let ticks = outcome.ticks.map(|ticks| format!(", {ticks} ticks")).unwrap_or_default();
    ui::say(format!(
        "{} ({}{ticks}; files in {})",
        outcome.exit.sentence(),
        ui::seconds(outcome.time),
        outcome.dir.display()
    ));
    if outcome.exit.is_success() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn cable(text: &str) -> Result<NicMode> {
    Ok(match text.split_once(':') {
        None if text == "none" => NicMode::Unplugged,
        Some(("udp", port)) => NicMode::Socket { port: port.parse()? },
        Some(("tap", interface)) => NicMode::Tap { interface: interface.into() },
        Some(("lockstep", device)) => NicMode::Lockstep { device: device.into() },
        _ => bail!("a cable is none, udp:PORT, tap:INTERFACE or lockstep:DEVICE"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cables_are_understood() {
        assert_eq!(cable("none").unwrap(), NicMode::Unplugged);
        assert_eq!(cable("udp:40000").unwrap(), NicMode::Socket { port: 40000 });
        assert_eq!(cable("lockstep:/a/b:1").unwrap(), NicMode::Lockstep { device: "/a/b:1".into() });
        for bad in ["", "udp", "udp:x", "wire"] {
            assert!(cable(bad).is_err(), "{bad}");
        }
    }
}
