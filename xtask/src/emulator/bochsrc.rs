//! The description of an emulated machine, and the configuration file that Bochs wants for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Knobs;

/// Bytes in a cylinder of the geometry that Bochs assumes for a flat disk image (16 heads, 63 sectors of 512 bytes).
pub const DISK_CYLINDER_BYTES: u64 = 16 * 63 * 512;
/// Cards that the e1000 model supports.
pub const MAX_NICS: usize = 4;
/// Drives on the two ATA channels.
pub const MAX_DRIVES: usize = 4;

/// An emulated machine. [`Machine::default`] is one processor of a Skylake server, 256 MiB, no drives and no network.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its name, for the directory of its files and for messages.
    pub name: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Emulated instructions per emulated second; also the rate of the emulated TSC.
    pub ips: u64,
    /// The processor, by Bochs's name of the model.
    pub model: String,
    /// An unknown model-specific register raises #GP, as on silicon. Off, it reads as 0, which the unpatched emulator
    /// needs for a Linux.
    pub strict_msrs: bool,
    /// The real-time clock at power-on, seconds since 1970. A constant, so that two runs agree.
    pub clock: u64,
    /// Pace the machine by wall-clock time. Off, it runs as fast as it can and two runs agree to the tick.
    pub paced: bool,
    /// What the firmware boots from.
    pub boot: Boot,
    /// Hard disks.
    pub disks: Vec<Disk>,
    /// The CD in the drive.
    pub cdrom: Option<Cdrom>,
    /// Network cards (Intel 82540EM), at most [`MAX_NICS`].
    pub nics: Vec<Nic>,
    /// What the first serial port is connected to.
    pub serial: Serial,
    /// Skid, faults, seeds.
    pub knobs: Knobs,
    /// More environment for the emulator, such as `LOCKSTEP_NET`.
    pub environment: Vec<(String, String)>,
    /// Kill it after this much wall-clock time.
    pub limit: Duration,
    /// Copy the console to our standard output as it comes.
    pub live: bool,
    /// Leave out of that copy what is not for people: lines for programs (`@@ ...`) and terminal controls.
    pub readable: bool,
}

/// What the firmware boots from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Boot {
    /// The CD.
    Cdrom,
    /// The first hard disk.
    Disk,
    /// The first network card's option ROM.
    Network,
}

/// A hard disk: a raw image whose size is a multiple of [`DISK_CYLINDER_BYTES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// The image.
    pub image: PathBuf,
    /// Forget what the run writes (it goes to a journal that is thrown away).
    pub volatile: bool,
}

/// A CD.
#[derive(Clone, Debug, PartialEq)]
pub struct Cdrom {
    /// The ISO image.
    pub image: PathBuf,
}

/// A network card.
#[derive(Clone, Debug, PartialEq)]
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
    /// What its cable is plugged into.
    pub mode: NicMode,
    /// Its option ROM, for booting over the network.
    pub rom: Option<PathBuf>,
}

/// What a network card's cable is plugged into.
#[derive(Clone, Debug, PartialEq)]
pub enum NicMode {
    /// Nothing.
    Unplugged,
    /// UDP on the loopback: frames arrive on `port` and leave for `port + 1`.
    Socket {
        /// The port we receive on.
        port: u16,
    },
    /// The seeded switch, in lock-step: `device` is what the emulator's `lockstep` module takes as `ethdev`.
    Lockstep {
        /// The module's argument.
        device: String,
    },
    /// A TAP interface of this host.
    Tap {
        /// The interface's name.
        interface: String,
    },
    /// A network of its own, with a DHCP and TFTP server inside the emulator.
    Vnet {
        /// What the TFTP server offers.
        root: PathBuf,
        /// The module's file, with the name of the boot file in it.
        settings: PathBuf,
    },
}

/// What the first serial port is connected to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Serial {
    /// The console file of the run.
    Console,
    /// The console file, as for [`Serial::Console`], and what is given to [`Running::send`](super::Running::send) is typed.
    Typed,
    /// A TCP server on the loopback that waits for a client before the machine starts. No console file.
    Server {
        /// Its port.
        port: u16,
    },
}

/// The files that a run needs or makes, by absolute path.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// The system BIOS.
    pub bios: PathBuf,
    /// The video BIOS.
    pub vgabios: PathBuf,
    /// What the serial port says.
    pub console: PathBuf,
    /// Bochs's log.
    pub log: PathBuf,
    /// A directory for journals of volatile disks.
    pub dir: PathBuf,
    /// The loopback's port for a console that is typed on.
    pub typed: Option<u16>,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            name: "machine".into(),
            cpus: 1,
            memory_mib: 256,
            ips: 50_000_000,
            model: "corei7_skylake_x".into(),
            strict_msrs: true,
            clock: 1_700_000_000,
            paced: false,
            boot: Boot::Cdrom,
            disks: Vec::new(),
            cdrom: None,
            nics: Vec::new(),
            serial: Serial::Console,
            knobs: Knobs::default(),
            environment: Vec::new(),
            limit: Duration::from_secs(600),
            live: false,
            readable: false,
        }
    }
}

impl Machine {
    /// A machine that boots this ISO image.
    pub fn from_iso(name: &str, image: impl Into<PathBuf>) -> Self {
        Machine { name: name.into(), cdrom: Some(Cdrom { image: image.into() }), ..Machine::default() }
    }
}

impl Nic {
    /// A card with a locally administered address that ends in `number`.
    pub fn new(number: u8, mode: NicMode) -> Self {
        Nic { mac: [0x52, 0x54, 0, 0x4c, 0x53, number], mode, rom: None }
    }
}

/// The configuration file for `machine`.
///
/// # Errors
/// When the machine cannot be built: too many drives or cards, nothing to boot from, a path that Bochs cannot read.
pub fn bochsrc(machine: &Machine, files: &Files) -> Result<String> {
    check(machine)?;
    let mut lines: Vec<String> = Vec::new();
    let mut add = |line: String| lines.push(line);
    add("config_interface: textconfig".into());
    add("display_library: nogui".into());
    add(format!("log: {}", path(&files.log)?));
    // The default, written down because the tick count of a run is read from it.
    add("logprefix: %t%e%d".into());
    add("panic: action=fatal".into());
    add("error: action=report".into());
    add("info: action=report".into());
    add("debug: action=ignore".into());
    add(format!("romimage: file={}, options=fastboot", path(&files.bios)?));
    add(format!("vgaromimage: file={}", path(&files.vgabios)?));
    add("vga: extension=none, realtime=0, update_freq=1".into());
    add(format!(
        "cpu: model={}, count=1:{}:1, ips={}, reset_on_triple_fault=0, ignore_bad_msrs={}",
        machine.model,
        machine.cpus,
        machine.ips,
        u8::from(!machine.strict_msrs)
    ));
    add(format!("memory: guest={0}, host={0}", machine.memory_mib));
    let sync = if machine.paced { "slowdown" } else { "none" };
    add(format!("clock: sync={sync}, time0={}", machine.clock));
    add("pci: enabled=1, chipset=i440fx".into());
    add("ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14".into());
    add("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15".into());
    drives(machine, files, &mut add)?;
    add(format!("boot: {}", boot(machine.boot)));
    for (card, nic) in machine.nics.iter().enumerate() {
        add(nic_line(card, nic)?);
    }
    add(match machine.serial {
        Serial::Console => format!("com1: enabled=1, mode=file, dev={}", path(&files.console)?),
        Serial::Typed => {
            let port = files.typed.context("a console that is typed on needs a port")?;
            format!("com1: enabled=1, mode=socket-server, dev=localhost:{port}")
        }
        Serial::Server { port } => format!("com1: enabled=1, mode=socket-server, dev=localhost:{port}"),
    });
    Ok(lines.join("\n") + "\n")
}

fn check(machine: &Machine) -> Result<()> {
    if machine.cpus == 0 || machine.memory_mib == 0 || machine.ips == 0 {
        bail!("machine `{}` needs at least a processor, memory and a speed", machine.name);
    }
    if machine.nics.len() > MAX_NICS {
        bail!(
            "machine `{}` has {} network cards; the emulator knows {MAX_NICS}",
            machine.name,
            machine.nics.len()
        );
    }
    if machine.disks.len() + usize::from(machine.cdrom.is_some()) > MAX_DRIVES {
        bail!("machine `{}` has more than {MAX_DRIVES} drives", machine.name);
    }
    let bootable = match machine.boot {
        Boot::Cdrom => machine.cdrom.is_some(),
        Boot::Disk => !machine.disks.is_empty(),
        Boot::Network => machine.nics.first().is_some_and(|nic| nic.rom.is_some()),
    };
    if !bootable {
        let what = match machine.boot {
            Boot::Cdrom => "a CD image",
            Boot::Disk => "a disk",
            Boot::Network => "a network card with an option ROM",
        };
        bail!("machine `{}` is to boot from {what} and has none", machine.name);
    }
    Ok(())
}

fn drives(machine: &Machine, files: &Files, add: &mut impl FnMut(String)) -> Result<()> {
    let mut places = ["ata0-master", "ata0-slave", "ata1-master", "ata1-slave"].into_iter();
    for (number, disk) in machine.disks.iter().enumerate() {
        let place = places.next().unwrap_or("ata1-slave");
        let mode = if disk.volatile {
            let journal = files.dir.join(format!("disk{number}.journal"));
            format!("mode=volatile, journal={}", path(&journal)?)
        } else {
            "mode=flat".into()
        };
        add(format!("{place}: type=disk, {mode}, path={}, cylinders=0", path(&disk.image)?));
    }
    if let Some(cdrom) = &machine.cdrom {
        let place = places.next().unwrap_or("ata1-slave");
        add(format!("{place}: type=cdrom, path={}, status=inserted", path(&cdrom.image)?));
    }
    Ok(())
}

fn boot(boot: Boot) -> &'static str {
    match boot {
        Boot::Cdrom => "cdrom",
        Boot::Disk => "disk",
        Boot::Network => "network",
    }
}

fn nic_line(card: usize, nic: &Nic) -> Result<String> {
    let mac = nic.mac.map(|byte| format!("{byte:02x}")).join(":");
    let cable = match &nic.mode {
        NicMode::Unplugged => "ethmod=null, ethdev=none".to_owned(),
        NicMode::Socket { port } => format!("ethmod=socket, ethdev={port}"),
        NicMode::Lockstep { device } => format!("ethmod=lockstep, ethdev=\"{device}\""),
        NicMode::Tap { interface } => format!("ethmod=tuntap, ethdev=/dev/net/tun:{interface}"),
        NicMode::Vnet { root, settings } => {
            format!("ethmod=vnet, ethdev={}, script={}", path(root)?, path(settings)?)
        }
    };
    let rom = match &nic.rom {
        Some(rom) => format!(", bootrom={}", path(rom)?),
        None => String::new(),
    };
    Ok(format!("e1000: card={card}, enabled=1, mac={mac}, {cable}{rom}"))
}

/// A path in quotes; Bochs has no way to write a quote or a newline within, and expands `$`.
fn path(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\n', '$']) => Ok(format!("\"{text}\"")),
        _ => bail!("the emulator cannot take the path {path:?}; use one without quotes, `$` and line ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files {
            bios: "/b/BIOS".into(),
            vgabios: "/b/VGA".into(),
            console: "/run/console".into(),
            log: "/run/log".into(),
            dir: "/run".into(),
            typed: None,
        }
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn a_plain_machine() {
        let text = bochsrc(&Machine::from_iso("m", "/a b/x.iso"), &files()).unwrap();
        has(
            &text,
            "cpu: model=corei7_skylake_x, count=1:1:1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0",
        );
        has(&text, "memory: guest=256, host=256");
        has(&text, "clock: sync=none, time0=1700000000");
        has(&text, "ata0-master: type=cdrom, path=\"/a b/x.iso\", status=inserted");
        has(&text, "boot: cdrom");
        has(&text, "com1: enabled=1, mode=file, dev=\"/run/console\"");
        has(&text, "pci: enabled=1, chipset=i440fx");
        assert!(!text.contains("e1000"));
    }

    #[test]
    fn disks_come_before_the_cd_and_may_forget() {
        let mut machine = Machine::from_iso("m", "/x.iso");
        machine.boot = Boot::Disk;
        machine.disks.push(Disk { image: "/d.img".into(), volatile: true });
        machine.paced = true;
        let text = bochsrc(&machine, &files()).unwrap();
        has(
            &text,
            "ata0-master: type=disk, mode=volatile, journal=\"/run/disk0.journal\", path=\"/d.img\", cylinders=0",
        );
        has(&text, "ata0-slave: type=cdrom, path=\"/x.iso\", status=inserted");
        has(&text, "clock: sync=slowdown, time0=1700000000");
    }

    #[test]
    fn network_cards_have_cables_and_roms() {
        let mut machine = Machine { boot: Boot::Network, ..Machine::default() };
        machine.nics = vec![
            Nic { rom: Some("/rom".into()), ..Nic::new(1, NicMode::Socket { port: 40000 }) },
            Nic::new(2, NicMode::Lockstep { device: "127.0.0.1:5000:0".into() }),
            Nic::new(3, NicMode::Unplugged),
            Nic::new(4, NicMode::Vnet { root: "/pxe".into(), settings: "/run/vnet".into() }),
        ];
        let text = bochsrc(&machine, &files()).unwrap();
        has(
            &text,
            "e1000: card=0, enabled=1, mac=52:54:00:4c:53:01, ethmod=socket, ethdev=40000, bootrom=\"/rom\"",
        );
        has(
            &text,
            "e1000: card=1, enabled=1, mac=52:54:00:4c:53:02, ethmod=lockstep, ethdev=\"127.0.0.1:5000:0\"",
        );
        has(&text, "e1000: card=2, enabled=1, mac=52:54:00:4c:53:03, ethmod=null, ethdev=none");
        has(
            &text,
            "e1000: card=3, enabled=1, mac=52:54:00:4c:53:04, ethmod=vnet, ethdev=\"/pxe\", script=\"/run/vnet\"",
        );
        has(&text, "boot: network");
    }

    #[test]
    fn impossible_machines_are_refused() {
        let nothing = bochsrc(&Machine::default(), &files()).unwrap_err().to_string();
        assert!(nothing.contains("CD image"), "{nothing}");
        let mut machine = Machine::from_iso("m", "/x.iso");
        machine.nics = (0..5).map(|n| Nic::new(n, NicMode::Unplugged)).collect();
        assert!(bochsrc(&machine, &files()).is_err());
        assert!(bochsrc(&Machine::from_iso("m", "/x\".iso"), &files()).is_err());
        assert!(bochsrc(&Machine { cpus: 0, ..Machine::from_iso("m", "/x.iso") }, &files()).is_err());
    }
}
