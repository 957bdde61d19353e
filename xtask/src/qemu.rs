//! QEMU: the description of a machine, its command line, running it and learning how it ended.
//!
//! QEMU is the second machine that the kernel boots on: it has UEFI, NVMe and more network cards. Under TCG it has no VMX.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::emulator::Exit;
use crate::image::loader::check_packages;
use crate::run::{Cmd, Owned};
use crate::setup::needs::Work;
use crate::{paths, ui};

/// The program, unless [`PROGRAM_VARIABLE`] names another.
const PROGRAM: &str = "qemu-system-x86_64";
/// The environment variable that names another QEMU: a newer one has more cards.
const PROGRAM_VARIABLE: &str = "LOCKSTEP_QEMU";
/// How a run ended that looks like a power-off and is none.
const TRIPLE_FAULT: &str = "a triple fault: a crash, or a restart by way of one";
/// How often the console is looked at.
const POLL: Duration = Duration::from_millis(50);
/// The port by which the kernel ends a run, and its width (QEMU's isa-debug-exit).
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
/// Where packages put UEFI firmware: code, and the template of its variables.
const OVMF: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

/// The program to be run.
pub fn program() -> String {
    std::env::var(PROGRAM_VARIABLE).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| PROGRAM.into())
}

/// A machine for QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name, for the directory of its files.
    pub name: String,
    /// Machine type, accelerator and processor, as [`crate::hostfacts::choose`] gives them.
    pub platform: Vec<String>,
    /// The firmware.
    pub firmware: Firmware,
    /// What it boots from.
    pub boot: Boot,
    /// Processors.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Network cards; a network boot uses the first.
    pub nics: Vec<Nic>,
    /// Raw images of NVMe disks. The machine writes to them.
    pub nvme: Vec<PathBuf>,
    /// More arguments, at the end.
    pub more: Vec<String>,
    /// Words before QEMU's own, such as `unshare --net sh -c ...`.
    pub wrapper: Vec<String>,
    /// End it after this much wall-clock time.
    pub limit: Duration,
    /// Copy the console to our standard output as it comes.
    pub live: bool,
}

/// The firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Firmware {
    /// SeaBIOS
    Bios,
    /// OVMF, 64-bit
    Uefi,
}

/// What a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// This ISO image in a CD drive.
    Cd(PathBuf),
    /// This image on a USB stick.
    Usb(PathBuf),
    /// This image on a SATA disk.
    Disk(PathBuf),
    /// This PXE directory, by DHCP and TFTP that QEMU itself serves to the first card.
    Pxe(PathBuf),
    /// Whatever the network of the first card offers.
    Network,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// QEMU's name of the model: `e1000`, `e1000e`, `igb`, `virtio-net-pci`.
    pub model: String,
    /// Its address.
    pub mac: [u8; 6],
    /// What its cable is plugged into: QEMU's `-netdev` without the id; `None` for nothing.
    pub netdev: Option<String>,
}

impl Nic {
    /// A card with a locally administered address that ends in `number`, on QEMU's user network.
    pub fn new(number: u8, model: &str) -> Self {
        Nic { model: model.into(), mac: [0x52, 0x54, 0, 0x4C, 0x53, number], netdev: Some("user".into()) }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            name: "qemu".into(),
            platform: ["-machine", "q35", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel"]
                .map(String::from)
                .into(),
            firmware: Firmware::Bios,
            boot: Boot::Network,
            cpus: 1,
            memory_mib: 512,
            nics: vec![Nic::new(1, "e1000")],
            nvme: Vec::new(),
            more: Vec::new(),
            wrapper: Vec::new(),
            limit: Duration::from_secs(600),
            live: false,
        }
    }
}

/// The files of a run.
#[derive(Clone, Debug)]
struct Files {
    /// What the serial port says; `None`: it is the terminal that we run on.
    console: Option<PathBuf>,
    log: PathBuf,
    /// UEFI: the code, and this run's copy of the variables.
    uefi: Option<(PathBuf, PathBuf)>,
}

impl Machine {
    /// QEMU's arguments.
    fn args(&self, files: &Files) -> Result<Vec<String>> {
        let mut args = self.platform.clone();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| word.to_string()));
        add(&["-nodefaults", "-display", "none", "-vga", "std", "-no-reboot", "-device", EXIT_DEVICE]);
        add(&["-smp", &self.cpus.to_string(), "-m", &self.memory_mib.to_string()]);
        match &files.console {
            Some(file) => add(&["-chardev", &format!("file,id=console,path={}", plain(file)?)]),
            // Ctrl-C goes to the machine; Ctrl-A X ends QEMU.
            None => add(&["-chardev", "stdio,id=console,mux=on,signal=off", "-mon", "console"]),
        }
        add(&["-serial", "chardev:console"]);
        // The only trace of a triple fault, which otherwise looks like a machine that was switched off.
        add(&["-d", "cpu_reset", "-D", plain(&files.log)?]);
        if let Some((code, variables)) = &files.uefi {
            add(&["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", plain(code)?)]);
            add(&["-drive", &format!("if=pflash,format=raw,unit=1,file={}", plain(variables)?)]);
            // Newer OVMF has no network without a source of random numbers.
            add(&["-device", "virtio-rng-pci"]);
        }
        // Nothing but the first entry is tried: a machine that cannot boot says so at once.
        add(&["-boot", "strict=on"]);
        self.medium(&mut add)?;
        for (index, nic) in self.nics.iter().enumerate() {
            self.nic(index, nic, &mut add)?;
        }
        for (index, image) in self.nvme.iter().enumerate() {
            add(&["-drive", &format!("if=none,id=nvme{index},format=raw,file={}", plain(image)?)]);
            add(&["-device", &format!("nvme,drive=nvme{index},serial=LOCKSTEP{index}")]);
        }
        args.extend(self.more.iter().cloned());
        Ok(args)
    }

    fn medium(&self, add: &mut impl FnMut(&[&str])) -> Result<()> {
        let (image, devices) = match &self.boot {
            Boot::Cd(image) => (image, "ide-cd,drive=medium,bootindex=0"),
            Boot::Usb(image) => (image, "usb-storage,drive=medium,bootindex=0"),
            Boot::Disk(image) => (image, "ide-hd,drive=medium,bootindex=0"),
            Boot::Pxe(_) | Boot::Network => return Ok(()),
        };
        let media = if matches!(self.boot, Boot::Cd(_)) { "media=cdrom," } else { "" };
        // A disk may not be read-only, so what is written to it is forgotten.
        let write = if matches!(self.boot, Boot::Disk(_)) { "snapshot=on" } else { "readonly=on" };
        add(&["-drive", &format!("if=none,id=medium,{media}format=raw,{write},file={}", plain(image)?)]);
        if matches!(self.boot, Boot::Usb(_)) {
            add(&["-device", "qemu-xhci"]);
        }
        add(&["-device", devices]);
        Ok(())
    }

    fn nic(&self, index: usize, nic: &Nic, add: &mut impl FnMut(&[&str])) -> Result<()> {
        let boots = index == 0 && matches!(self.boot, Boot::Pxe(_) | Boot::Network);
        let netdev = match (&self.boot, boots) {
            (Boot::Pxe(dir), true) => {
                Some(format!("user,tftp={},bootfile={}", plain(dir)?, self.firmware.loader()))
            }
            _ => nic.netdev.clone(),
        };
        let mac = nic.mac.map(|byte| format!("{byte:02x}")).join(":");
        // A card's boot ROM costs time, and under UEFI is tried although it has no place in the order.
        let place = if boots { "bootindex=0" } else { "romfile=" };
        let mut device = format!("{},mac={mac},{place}", nic.model);
        if let Some(netdev) = netdev {
            let (kind, rest) = netdev
                .split_once(',')
                .map_or((netdev.as_str(), String::new()), |(k, r)| (k, format!(",{r}")));
            add(&["-netdev", &format!("{kind},id=net{index}{rest}")]);
            device += &format!(",netdev=net{index}");
        }
        add(&["-device", &device]);
        Ok(())
    }

    /// The command line as one would type it. Files of the run that are not there yet are named all the same.
    ///
    /// # Errors
    /// When a path cannot be given to QEMU, or the firmware is not installed.
    pub fn show(&self) -> Result<String> {
        let dir = paths::out_dir()?.join("run").join(&self.name);
        Ok(typed(&self.words(self.args(&self.files(&dir)?)?)))
    }

    fn words(&self, args: Vec<String>) -> Vec<String> {
        self.wrapper.iter().cloned().chain([program()]).chain(args).collect()
    }

    fn files(&self, dir: &Path) -> Result<Files> {
        let uefi = match self.firmware {
            Firmware::Bios => None,
            Firmware::Uefi => Some((ovmf()?.0, dir.join("uefi-variables"))),
        };
        Ok(Files { console: Some(dir.join("console")), log: dir.join("qemu.log"), uefi })
    }

    /// QEMU's arguments for a run whose console is the terminal; its files are prepared.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn interactive_args(&self) -> Result<Vec<String>> {
        check_packages(Work::Qemu)?;
        let dir = paths::fresh_out_dir(&format!("run/{}", self.name))?;
        let files = Files { console: None, ..self.files(&dir)? };
        prepare(&files)?;
        self.args(&files)
    }

    /// Runs the machine to its end or to its limit. Its files are in the target directory, in `out/run/<name>`.
    ///
    /// # Errors
    /// When it cannot be started; how it ended is in the outcome.
    pub fn run(&self) -> Result<Outcome> {
        self.run_until(None)
    }

    /// Runs the machine until its console has said `text`, its end, or its limit.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_until(&self, text: Option<&str>) -> Result<Outcome> {
        check_packages(Work::Qemu)?;
        let dir = paths::fresh_out_dir(&format!("run/{}", self.name))?;
        let files = self.files(&dir)?;
        prepare(&files)?;
        let words = self.words(self.args(&files)?);
        fs::write(dir.join("command"), typed(&words) + "\n")?;
        let out = File::create(dir.join("qemu.out"))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let since = Instant::now();
        let mut process = Owned::spawn(&mut command)?;
        let mut console = Console { path: dir.join("console"), bytes: Vec::new(), live: self.live };
        let exit = loop {
            // The order matters: what the machine said before it ended must be read after its end was seen.
            let ended = process.ended()?;
            console.read();
            if text.is_some_and(|text| console.text().contains(text)) {
                break Exit::Reached;
            }
            if let Some(status) = ended {
                break decode(status.code(), &read(&files.log), &read(&dir.join("qemu.out")));
            }
            if since.elapsed() >= self.limit {
                break Exit::Limit;
            }
            std::thread::sleep(POLL);
        };
        drop(process);
        console.read();
        Ok(Outcome { exit, console: console.text(), time: since.elapsed(), dir })
    }
}

impl Firmware {
    /// The loader in a PXE directory.
    pub fn loader(self) -> &'static str {
        match self {
            Firmware::Bios => crate::image::BIOS_LOADER,
            Firmware::Uefi => crate::image::UEFI_LOADER,
        }
    }
}

/// The installed UEFI firmware: code and template of the variables.
fn ovmf() -> Result<(PathBuf, PathBuf)> {
    let there =
        OVMF.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    match there {
        Some((code, variables)) => Ok((code.into(), variables.into())),
        None => bail!(
            "there is no UEFI firmware for QEMU; the package ovmf has it, `cargo xtask setup` installs it"
        ),
    }
}

/// A command as one would type it.
fn typed(words: &[String]) -> String {
    Cmd::new(&words[0]).args(&words[1..]).show()
}

/// Gives the run its own copy of the firmware's variables.
fn prepare(files: &Files) -> Result<()> {
    if let Some((_, variables)) = &files.uefi {
        fs::copy(ovmf()?.1, variables).context("cannot copy the firmware's variables")?;
    }
    Ok(())
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// All that the serial port said, the loader's part included.
    pub console: String,
    /// Wall-clock time of the run.
    pub time: Duration,
    /// The run's directory: `command`, `console`, `qemu.log`, `qemu.out`.
    pub dir: PathBuf,
}

impl Outcome {
    /// The end of the console, and where to read on, for an error message.
    pub fn last_words(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        let tail = if tail.trim().is_empty() { "(nothing)".into() } else { tail };
        format!(
            "The console said last:\n{}\nAll files of the run: {}",
            crate::run::indent(&tail),
            self.dir.display()
        )
    }
}

/// How QEMU ended: its status, what `-d cpu_reset` logged, and what it said.
fn decode(status: Option<i32>, log: &str, out: &str) -> Exit {
    match status {
        Some(33) => Exit::Success,
        Some(35) => Exit::Panic,
        Some(37) => Exit::Failed,
        Some(39) => Exit::Refused,
        Some(0) if log.contains("Triple fault") => Exit::Emulator(TRIPLE_FAULT.into()),
        Some(0) => Exit::PowerOff,
        // 1 is QEMU's own failure; the exit port gives 1 only for a code of 0, which nobody writes.
        Some(code) if code % 2 == 1 && code > 1 => Exit::Code(code as u32 >> 1),
        _ => Exit::Emulator(out.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no message").into()),
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The console's file, which grows while we read it.
struct Console {
    path: PathBuf,
    bytes: Vec<u8>,
    live: bool,
}

impl Console {
    fn read(&mut self) {
        let known = self.bytes.len();
        let Ok(mut file) = File::open(&self.path) else { return };
        let sought = file.seek(SeekFrom::Start(known as u64));
        if sought.is_ok() && file.read_to_end(&mut self.bytes).is_ok() && self.live {
            let mut stdout = std::io::stdout();
            let _ = stdout.write_all(&self.bytes[known..]).and_then(|()| stdout.flush());
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A path in a list of QEMU's options, where a comma separates.
fn plain(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if !text.contains([',', '\n']) => Ok(text),
        _ => bail!("QEMU cannot take the path {path:?}; use one without a comma"),
    }
}

/// Says how a run ended, for people.
pub fn report(outcome: &Outcome, tcg: bool) -> String {
    let what = match (&outcome.exit, tcg) {
        (Exit::Refused, true) => "The kernel refused this machine (exit port code 0x13, process status 39). That is how it must \
             end here: TCG has no VMX. Guests and the boot proof run on the emulated machine (cargo xtask demo)."
            .into(),
        (Exit::Refused, false) => "The kernel refused this machine (exit port code 0x13, process status 39); the console says \
             what it lacks, and `cargo xtask doctor` what the host could give."
            .into(),
        (Exit::Emulator(message), _) => format!("QEMU or the machine gave up: {message}."),
        (other, _) => other.sentence(),
    };
    format!("{what} ({}; files in {})", ui::seconds(outcome.time), outcome.dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(machine: &Machine) -> String {
        let uefi = (machine.firmware == Firmware::Uefi).then(|| ("/f/CODE".into(), "/run/vars".into()));
        machine
            .args(&Files { console: Some("/run/console".into()), log: "/run/log".into(), uefi })
            .unwrap()
            .join(" ")
    }

    fn has(machine: &Machine, words: &str) {
        assert!(args(machine).contains(words), "no {words:?} in\n{}", args(machine));
    }

    #[test]
    fn every_machine_has_an_exit_port_and_a_console() {
        let machine = Machine { boot: Boot::Cd("/x.iso".into()), ..Machine::default() };
        has(&machine, "-machine q35 -accel tcg -cpu max,vendor=GenuineIntel");
        has(&machine, "-device isa-debug-exit,iobase=0xf4,iosize=4");
        has(&machine, "-chardev file,id=console,path=/run/console -serial chardev:console");
        has(&machine, "-display none");
        has(&machine, "-no-reboot");
    }

    #[test]
    fn media_are_the_only_thing_that_boots() {
        let machine = |boot| Machine { boot, ..Machine::default() };
        let cd = machine(Boot::Cd("/x.iso".into()));
        has(
            &cd,
            "-drive if=none,id=medium,media=cdrom,format=raw,readonly=on,file=/x.iso -device ide-cd,drive=medium,bootindex=0",
        );
        has(&cd, "-device e1000,mac=52:54:00:4c:53:01,romfile=,netdev=net0");
        has(
            &machine(Boot::Usb("/x.iso".into())),
            "-device qemu-xhci -device usb-storage,drive=medium,bootindex=0",
        );
        has(
            &machine(Boot::Disk("/x.iso".into())),
            "snapshot=on,file=/x.iso -device ide-hd,drive=medium,bootindex=0",
        );
        assert_eq!(args(&cd).matches("bootindex").count(), 1);
    }

    #[test]
    fn a_network_boot_loads_what_the_firmware_wants() {
        let mut machine = Machine { boot: Boot::Pxe("/pxe".into()), ..Machine::default() };
        machine.nics.push(Nic::new(2, "e1000e"));
        has(
            &machine,
            "-netdev user,id=net0,tftp=/pxe,bootfile=bios.0 -device e1000,mac=52:54:00:4c:53:01,bootindex=0,netdev=net0",
        );
        has(&machine, "-netdev user,id=net1 -device e1000e,mac=52:54:00:4c:53:02,romfile=,netdev=net1");
        machine.firmware = Firmware::Uefi;
        has(&machine, "bootfile=uefi.efi");
        has(&machine, "if=pflash,format=raw,unit=0,readonly=on,file=/f/CODE");
        has(&machine, "if=pflash,format=raw,unit=1,file=/run/vars");
        machine.boot = Boot::Network;
        machine.nics[0].netdev = Some("tap,ifname=tap0,script=no".into());
        has(&machine, "-netdev tap,id=net0,ifname=tap0,script=no");
        machine.nics[1].netdev = None;
        has(&machine, "-device e1000e,mac=52:54:00:4c:53:02,romfile=");
    }

    #[test]
    fn disks_of_nvme_are_numbered() {
        let machine = Machine { nvme: vec!["/a".into(), "/b".into()], ..Machine::default() };
        has(&machine, "-drive if=none,id=nvme1,format=raw,file=/b -device nvme,drive=nvme1,serial=LOCKSTEP1");
    }

    #[test]
    fn a_path_that_qemu_would_misread_is_refused() {
        let machine = Machine { boot: Boot::Cd("/a,b.iso".into()), ..Machine::default() };
        let files = Files { console: None, log: "/l".into(), uefi: None };
        assert!(machine.args(&files).unwrap_err().to_string().contains("comma"));
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(decode(Some(33), "", ""), Exit::Success);
        assert_eq!(decode(Some(35), "", ""), Exit::Panic);
        assert_eq!(decode(Some(37), "", ""), Exit::Failed);
        assert_eq!(decode(Some(39), "", ""), Exit::Refused);
        assert_eq!(decode(Some(5), "", ""), Exit::Code(2));
        assert_eq!(decode(Some(0), "CPU Reset (CPU 0)", ""), Exit::PowerOff);
        assert_eq!(decode(Some(0), "Triple fault\nCPU Reset", ""), Exit::Emulator(TRIPLE_FAULT.into()));
        assert_eq!(
            decode(Some(1), "", "qemu: no such device\n"),
            Exit::Emulator("qemu: no such device".into())
        );
        assert_eq!(decode(None, "", ""), Exit::Emulator("no message".into()));
    }

    #[test]
    fn a_refusal_is_explained_by_where_it_happens() {
        let outcome =
            Outcome { exit: Exit::Refused, console: String::new(), time: Duration::ZERO, dir: "/d".into() };
        assert!(report(&outcome, true).contains("TCG has no VMX") && report(&outcome, true).contains("39"));
        assert!(report(&outcome, false).contains("doctor"));
    }
}
