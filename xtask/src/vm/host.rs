//! The emulated host of a virtual machine: a medium with kernel, configuration and files, memory enough, the guest's network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use vm_config::Card;

use super::Vm;
use super::outside::{Connected, LogPlug, Outside};
use crate::emulator::{Knobs, Machine, Nic, NicMode, Outcome, Running, Serial};
use crate::switch::cable::CableConfig;
use crate::switch::station::sink::{Received, SinkConfig};
use crate::{paths, ui};

/// Memory of the hypervisor and of the firmware, MiB, beside what the virtual machine needs.
const OWN_MIB: u64 = 128;
/// The emulated host's memory is a multiple of this, MiB.
const UNIT_MIB: u64 = 64;

/// How long a frame of the log takes through a cable, ns. With nothing else on the network, host and switch need to meet only
/// every millisecond.
const LOG_LATENCY: u64 = 500_000;

/// How to run a virtual machine on an emulated host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of the run's directory.
    pub name: String,
    /// The hypervisor.
    pub kernel: PathBuf,
    /// Its command line.
    pub words: String,
    /// Memory, MiB; by default what the virtual machine needs.
    pub memory_mib: Option<u32>,
    /// Processors.
    pub cpus: u32,
    /// Instructions per emulated second.
    pub ips: u64,
    /// Pace by the wall clock.
    pub paced: bool,
    /// What the guest's network is joined to.
    pub outside: Outside,
    /// Who sits at the console.
    pub console: Console,
    /// Skid, faults, seeds.
    pub knobs: Knobs,
    /// The file that gets the log of a recorded virtual machine: a station of this process receives it.
    pub log: Option<PathBuf>,
    /// The cables between the host's card for the log and that station.
    pub log_cable: CableConfig,
    /// Ends the run after this much wall-clock time.
    pub limit: Duration,
}

/// Who sits at the host's serial console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nobody: it goes to a file.
    File,
    /// Nobody, but it is shown as it comes.
    Shown,
    /// The caller types by [`Running::send`].
    Typed,
    /// A person types, and sees all of it.
    Person,
}

impl Host {
    /// An unattended host that ends by the exit port when the guest switches itself off. Its network is nothing.
    pub fn new(name: &str, kernel: PathBuf) -> Self {
        Host {
            name: name.into(),
            kernel,
            words: "exit-port=0xf4 after=exit proof=short".into(),
            memory_mib: None,
            cpus: 1,
            ips: Machine::default().ips,
            paced: false,
            outside: Outside::Nothing,
            console: Console::File,
            knobs: Knobs::default(),
            log: None,
            log_cable: CableConfig { latency: LOG_LATENCY, ..CableConfig::default() },
            limit: Duration::from_secs(30 * 60),
        }
    }

    /// The host's machine with `vm` on its boot medium. The medium is written.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn machine(&self, vm: &Vm) -> Result<Machine> {
        let dir = paths::out_dir()?.join("vm").join(&self.name);
        std::fs::create_dir_all(&dir)?;
        let iso = dir.join("boot.iso");
        let step = ui::step("make the boot image");
        vm.image(self.kernel.clone(), &self.words, &dir)?.write_iso(&iso)?;
        step.done();
        let (live, serial) = match self.console {
            Console::File => (false, Serial::Console),
            Console::Shown => (true, Serial::Console),
            Console::Typed => (false, Serial::Typed),
            Console::Person => (true, Serial::Typed),
        };
        Ok(Machine {
            cpus: self.cpus,
            memory_mib: self.memory_mib.unwrap_or_else(|| memory_mib(vm)),
            ips: self.ips,
            paced: self.paced,
            knobs: self.knobs.clone(),
            limit: self.limit,
            nics: cards(vm),
            serial,
            live,
            ..Machine::from_iso(&self.name, iso)
        })
    }

    /// Starts the host, with its network.
    ///
    /// # Errors
    /// When the medium cannot be made, or something cannot be started.
    pub fn start(&self, vm: &Vm) -> Result<Started> {
        let mut machine = self.machine(vm)?;
        let outside = match &self.log {
            Some(file) => self.outside.connect_with_log(&mut machine, self.log_plug(vm, file)?)?,
            None => self.outside.connect(&mut machine)?,
        };
        Ok(Started { running: machine.start()?, outside })
    }

    /// What the card of the log is plugged into.
    fn log_plug(&self, vm: &Vm, file: &Path) -> Result<LogPlug> {
        let (Some(record), Some(card)) = (&vm.config.record, vm.log_place()) else {
            bail!("a log is wanted, but the configuration has no [record]");
        };
        let (ip, port) = record.peer;
        let sink = SinkConfig { ip, prefix: record.prefix, port, seed: 1, file: file.to_owned() };
        Ok(LogPlug { card, cable: self.log_cable.clone(), sink })
    }

    /// Runs to the end: how it ended, and what the outside says about it.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn run(&self, vm: &Vm) -> Result<(Outcome, Vec<String>)> {
        self.start(vm)?.wait()
    }
}

/// A host that runs.
pub struct Started {
    /// The machine.
    pub running: Running,
    /// Its network.
    outside: Connected,
}

impl Started {
    /// What has come of the log so far; `None` if nobody receives one.
    pub fn log(&self) -> Option<Received> {
        self.outside.log()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the machine cannot be watched, or the network failed.
    pub fn wait(mut self) -> Result<(Outcome, Vec<String>)> {
        // Without a machine that has gone down, the guest might wait for it for ever.
        let alone = self.running.watch(|_| self.outside.is_broken())?;
        let outcome = if alone { self.running.kill()? } else { self.running.wait()? };
        let told = self.outside.finish(&outcome)?;
        Ok((outcome, told))
    }

    /// Waits for the end, or until `stop` says so; then the machine is ended.
    ///
    /// # Errors
    /// As [`Started::wait`].
    pub fn wait_unless(self, stop: impl Fn() -> bool) -> Result<(Outcome, Vec<String>)> {
        let outcome = self.running.wait_unless(stop)?;
        let told = self.outside.finish(&outcome)?;
        Ok((outcome, told))
    }

    /// Ends it because what was awaited has come.
    ///
    /// # Errors
    /// As [`Started::wait`].
    pub fn stop(self) -> Result<(Outcome, Vec<String>)> {
        let outcome = self.running.stop()?;
        let told = self.outside.finish(&outcome)?;
        Ok((outcome, told))
    }
}

/// Memory enough for the virtual machine and the hypervisor, MiB.
fn memory_mib(vm: &Vm) -> u32 {
    let mib = vm.host_bytes().div_ceil(1 << 20) + OWN_MIB;
    u32::try_from(mib.next_multiple_of(UNIT_MIB)).unwrap_or(u32::MAX)
}

/// The host's cards: enough for the guest's devices and the log, with the addresses by which the configuration asks for some.
fn cards(vm: &Vm) -> Vec<Nic> {
    let mut nics: Vec<Nic> =
        (0..vm.cards()).map(|number| Nic::new(0x40 + number as u8, NicMode::Unplugged)).collect();
    for (card, place) in vm.card_places() {
        if let Card::Mac(mac) = card {
            nics[place].mac = mac.0;
        }
    }
    nics
}
