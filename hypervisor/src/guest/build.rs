//! Builds the virtual machine that the configuration asks for, from the modules that the loader has brought.

use super::board::{Board, MAX_DISKS};
use super::cards;
use super::checkpoint::Checkpoint;
use super::digest::StateDigest;
use super::disks::MemoryDisk;
use super::feed::Feed;
use super::first_state;
use super::journal::{Journal, Outlet};
use super::outside::Outside;
use super::paging::Paging;
use super::recording::Recording;
use super::replaying::Replaying;
use super::run::Guest;
use super::tape::Tape;
use super::time::GuestTime;
use super::variation::Variation;
use crate::arch::crc::Crc32;
use crate::arch::pmu::Counters;
use crate::arch::{cpu, physical, rtc, time};
use crate::bridge;
use crate::logging::{self, LogSender};
use crate::memory::OutOfFrames;
use crate::options::{Options, PagingMode};
use crate::pair;
use crate::proof;
use crate::vcpu::{Active, Vcpu};
use crate::vmm::processors;
use crate::vmm::virtual_processor::VcpuError;
use crate::vmm::vm::{Vm, VmError};
use alloc::boxed::Box;
use alloc::vec::Vec;
use boot::memory_map::Range;
use boot::multiboot::BootInfo;
use core::fmt;
use ft::pair::Halted;
use machine::computer::{Computer, Parts};
use machine::cpu::Profile;
use machine::cpu::profile::Missing;
use machine::devices::FwCfg;
use machine::devices::fw_cfg::Setup;
use machine::load::{self, Kernel, LoadError, Software, Start};
use machine::output::SECTOR;
use machine::pci::{Device, Pci};
use machine::ram::{Layout, Ram};
use machine::virtio::block::ID;
use replay::log::error::Error as LogError;
use replay::log::header::{self as log_header, BadHeader, Header, Module, Modules};
use replay::log::open::Log;
use replay::pmu::Lacking;
use replay::replayer::Replayer;
use vm_config::{Boot, Config, Medium, RtcStart};
use vmx::guest_state::GuestState;

/// The module that describes the virtual machine.
const CONFIGURATION: &str = "lockstep.toml";

/// The module that is the log to replay.
const LOG: &str = "run.log";

/// The side console of the virtio console.
const VIRTIO_CONSOLE: u8 = 1;

/// Why there is no virtual machine.
#[derive(Debug)]
pub enum BuildError {
    /// The configuration.
    Config(vm_config::Error),
    /// The configuration names a file that the loader has not brought.
    NoModule { role: vm_config::Role, name: alloc::string::String },
    /// The host cannot show the guest what the profile promises.
    Profile(Missing),
    /// There is no profile of this name.
    NoProfile(&'static str),
    /// The guest's memory.
    Memory(VmError),
    /// A disk.
    Disk(usize, OutOfFrames),
    /// A network card.
    Network(usize, bridge::OpenError),
    /// The counters.
    Counters(Lacking),
    /// The processor.
    Vcpu(VcpuError),
    /// The guest's software.
    Load(LoadError),
    /// This host runs no guests.
    NoVmx,
    /// The log that is to be replayed.
    Log(LogError),
    /// A file is not the one that was recorded.
    OtherFile { role: vm_config::Role, name: alloc::string::String },
    /// The boot proof does not hold, so nothing can be recorded or replayed.
    NotProven,
    /// The processor has no CRC32, by which the exits of what is recorded or replayed are hashed.
    NoCrc32,
    /// The log's header.
    Header(BadHeader),
    /// The card for the log.
    Sender(logging::Trouble),
    /// This host cannot be one of a pair.
    Pair(pair::Refused),
    /// The two hosts of the pair do not come together.
    PairHalted(Halted),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{CONFIGURATION}: {error}"),
            Self::NoModule { role, name } => write!(
                f,
                "{CONFIGURATION}: {role} is \"{name}\", but the loader has brought no module of that name; load it with \
                 module2 FILE {name}"
            ),
            Self::Profile(missing) => write!(f, "vm.cpu: {missing}"),
            Self::NoProfile(name) => write!(f, "vm.cpu: there is no profile {name}"),
            Self::Memory(error) => write!(f, "vm.memory: {error}"),
            Self::Disk(number, error) => write!(f, "disk[{number}]: {error}"),
            Self::Network(number, error) => write!(f, "network[{number}].card: {error}"),
            Self::Counters(error) => write!(f, "performance counters: {error}"),
            Self::Vcpu(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Log(error) => write!(f, "{LOG}: {error}"),
            Self::OtherFile { role, name } => write!(
                f,
                "{LOG}: {role}, the module \"{name}\", is not the file that was recorded; its length or checksum is another"
            ),
            Self::NotProven => f.write_str(
                "recording and replaying need exact performance counters, and the boot proof does not hold (or was left \
                 out by proof=off); see the table above",
            ),
            Self::NoCrc32 => f.write_str(
                "recording and replaying need the instruction CRC32 (SSE4.2), and this processor does not have it",
            ),
            Self::Header(error) => write!(f, "the log's header: {error}"),
            Self::Sender(error) => write!(f, "record.card: {error}"),
            Self::Pair(error) => write!(f, "pair: {error}"),
            Self::PairHalted(why) => write!(f, "pair: {why}"),
            Self::NoVmx => f.write_str("this host runs no guests; see above what it lacks"),
        }
    }
}

macro_rules! reasons {
    ($($name:ident: $from:ty),*) => {
        $(impl From<$from> for BuildError {
            fn from(why: $from) -> Self {
                Self::$name(why)
            }
        })*
    };
}
reasons!(Log: LogError, Header: BadHeader, Sender: logging::Trouble, Config: vm_config::Error, Profile: Missing, Memory: VmError, Counters: Lacking, Vcpu: VcpuError, Load: LoadError);

/// What a virtual machine is made from, kept for its resets.
pub struct Plan {
    pub(super) config: Config,
    pub(super) profile: &'static Profile,
    files: Vec<(vm_config::Role, &'static [u8])>,
    pub(super) seed: [u8; 32],
    /// Wall-clock time at the beginning of virtual time, seconds since 1970.
    pub(super) wall_clock: u64,
    /// The configuration's text.
    pub(super) text: &'static str,
    /// The log to replay.
    log: Option<Log<'static>>,
}

/// The configuration among the modules, if there is one, with the files that it names.
pub fn configuration(info: &BootInfo<'static>) -> Option<Result<Plan, BuildError>> {
    let module = |name: &str| info.modules.iter().find(|m| m.string == name);
    let bytes = |m: &boot::multiboot::Module<'_>| physical::read_only(Range::new(m.start, m.end));
    if let Some(log) = module(LOG) {
        return Some(recorded(bytes(log), |name| module(name).map(bytes)));
    }
    let text = bytes(module(CONFIGURATION)?);
    let plan = || {
        let config = Config::parse_bytes(text)?;
        let files = files(&config, |name| module(name).map(bytes))?;
        let profile = profile(&config)?;
        let seed = seed(config.vm.seed);
        let wall_clock = match config.rtc {
            RtcStart::Fixed(seconds) => seconds,
            RtcStart::Host => rtc::now(),
        };
        let text = core::str::from_utf8(text).unwrap_or_default();
        Ok(Plan { config, profile, files, seed, wall_clock, text, log: None })
    };
    Some(plan())
}

/// What the configuration names, from the modules.
fn files(
    config: &Config,
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<Vec<(vm_config::Role, &'static [u8])>, BuildError> {
    let missing =
        |file: &vm_config::File<'_>| BuildError::NoModule { role: file.role, name: file.name.into() };
    config.files().map(|file| Ok((file.role, module(file.name).ok_or_else(|| missing(&file))?))).collect()
}

fn profile(config: &Config) -> Result<&'static Profile, BuildError> {
    let name = config.vm.cpu.name();
    Profile::named(name).ok_or(BuildError::NoProfile(name))
}

/// The virtual machine that was recorded: its configuration and all that came from the host at power-on are in the log.
fn recorded(
    bytes: &'static [u8],
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<Plan, BuildError> {
    let (log, damage) = Log::salvage(bytes)?;
    match damage {
        None => {}
        // A recording that was cut is good as far as it goes.
        Some(cut @ (LogError::NoEnd { .. } | LogError::Truncated { .. })) => log::warn!("{LOG}: {cut}"),
        Some(damage) => return Err(damage.into()),
    }
    let header = *log.header();
    let config = Config::parse_bytes(header.config.as_bytes())?;
    let files = files(&config, module)?;
    for (file, (role, bytes)) in config.files().zip(&files) {
        let own = Module::of(file.name, bytes);
        if !header.modules.as_slice().contains(&own) {
            return Err(BuildError::OtherFile { role: *role, name: file.name.into() });
        }
    }
    let profile = profile(&config)?;
    log.require_profile(&described(profile))?;
    let (seed, wall_clock, text) = (header.seed, header.wall_clock, header.config);
    Ok(Plan { config, profile, files, seed, wall_clock, text, log: Some(log) })
}

/// A way of paging as a log's header has it.
pub const fn described_paging(paging: vm_config::Paging) -> log_header::Paging {
    match paging {
        vm_config::Paging::Strict => log_header::Paging::Strict,
        vm_config::Paging::Fast => log_header::Paging::Fast,
    }
}

/// A profile as a log's header has it.
fn described(profile: &Profile) -> log_header::Profile<'static> {
    log_header::Profile { name: profile.name(), hash: profile.fingerprint() }
}

/// The seed of the guest's random generator: as configured, or of the host's own randomness.
fn seed(configured: Option<u64>) -> [u8; 32] {
    let mut words = [0; 4];
    match configured {
        Some(seed) => {
            let mut generator = replay::seed::Seed::new(seed);
            words = core::array::from_fn(|_| generator.next());
        }
        None => words.iter_mut().for_each(|word| *word = cpu::random()),
    }
    let mut seed = [0; 32];
    for (place, word) in seed.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    seed
}

impl Plan {
    fn file(&self, role: vm_config::Role) -> Option<&'static [u8]> {
        self.files.iter().find(|(has, _)| *has == role).map(|(_, bytes)| *bytes)
    }

    /// The key that calls the shell.
    pub const fn escape(&self) -> Option<u8> {
        self.config.console.escape
    }

    /// What the virtual machine starts from.
    ///
    /// # Errors
    /// There is too much of it.
    pub fn modules(&self) -> Result<Modules<'_>, BuildError> {
        let mut modules = Modules::default();
        for (file, (_, bytes)) in self.config.files().zip(&self.files) {
            modules.push(Module::of(file.name, bytes))?;
        }
        Ok(modules)
    }

    /// The log's header. `checkpoint`: milliseconds; `rate` is the clock's first.
    ///
    /// # Errors
    /// It does not fit.
    pub fn header(
        &self,
        paging: vm_config::Paging,
        checkpoint: u32,
        rate: u64,
    ) -> Result<Header<'_>, BuildError> {
        Ok(Header {
            kernel: env!("CARGO_PKG_VERSION"),
            config: self.text,
            modules: self.modules()?,
            profile: described(self.profile),
            signature: cpu::cpuid(1, 0)[0],
            memory: self.config.vm.memory.bytes,
            seed: self.seed,
            wall_clock: self.wall_clock,
            rate,
            paging: described_paging(paging),
            checkpoint,
        })
    }

    /// What becomes of the run's log.
    fn tape(
        &self,
        vm: &mut Vm,
        time: &mut GuestTime,
        options: &Options<'static>,
    ) -> Result<Tape, BuildError> {
        if let Some(log) = &self.log {
            time.set_first_rate(log.header().rate);
            let margin = proof::report().and_then(|found| found.report.margin_instructions.ok());
            let margin = margin.filter(|_| time.is_exact()).ok_or(BuildError::NotProven)?;
            let replayer = Replayer::new(Feed::File(log.read()), margin)?;
            let digest = self.digest(vm, log.header().paging, log.header().checkpoint)?;
            let crc = Crc32::find().ok_or(BuildError::NoCrc32)?;
            return Ok(Tape::Replaying(Box::new(Replaying::new(crc, replayer, digest, options.replay))));
        }
        let Some(record) = &self.config.record else { return Ok(Tape::Off) };
        if !time.is_exact() {
            return Err(BuildError::NotProven);
        }
        let sender = LogSender::open(record)?;
        let header = self.header(record.paging, record.checkpoint, time.clock().rate)?;
        let digest = self.digest(vm, header.paging, header.checkpoint)?;
        let journal = Journal::new(&header, Outlet::Sender(Box::new(sender)))?;
        let crc = Crc32::find().ok_or(BuildError::NoCrc32)?;
        Ok(Tape::Recording(Box::new(Recording::new(crc, journal, digest, record.checkpoint))))
    }

    /// How the guest's paging is dealt with: as in the recording, or as the configuration has it.
    fn paging(&self) -> PagingMode {
        let recorded = self.config.record.as_ref().map(|record| record.paging);
        let paging = recorded.or(self.config.pair.as_ref().map(|pair| pair.paging));
        match (&self.log, paging) {
            (Some(log), _) => match log.header().paging {
                log_header::Paging::Strict => PagingMode::Strict,
                log_header::Paging::Fast => PagingMode::Fast,
            },
            (None, Some(paging)) => match paging {
                vm_config::Paging::Strict => PagingMode::Strict,
                vm_config::Paging::Fast => PagingMode::Fast,
            },
            (None, None) => PagingMode::Plain,
        }
    }

    /// The digest of the whole state, which has all memory kept track of from now on if there are to be checkpoints (every so
    /// many milliseconds). Else nobody wants to know what is written.
    ///
    /// # Errors
    /// No memory.
    pub fn digest(
        &self,
        vm: &mut Vm,
        paging: log_header::Paging,
        checkpoint: u32,
    ) -> Result<StateDigest, BuildError> {
        if checkpoint != 0 {
            vm.track(true)?;
        } else if let Some(pages) = vm.pages_mut() {
            pages.let_all_be_written();
        }
        StateDigest::new(self.config.vm.memory.bytes, paging == log_header::Paging::Fast)
            .map_err(|error| BuildError::Memory(VmError::Memory(error)))
    }

    fn layout(&self) -> Layout {
        Layout::new(self.config.vm.memory.bytes)
    }

    fn board(&self) -> load::Board {
        load::Board { serial: self.config.console.serial }
    }

    /// The computer at power-on.
    /// It is the same moment after a reset, since virtual time goes on; everything random comes from `seed`.
    fn computer(&self, seed: [u8; 32]) -> Computer {
        let layout = self.layout();
        let firmware = matches!(self.config.boot, Boot::Firmware { .. });
        let board = self.board();
        let mut computer = Computer::new(Parts {
            profile: self.profile,
            pci: self.pci(seed),
            fw_cfg: FwCfg::new(&Setup { layout, board: &board, boot: self.boot_device() }),
            layout,
            wall_clock: self.wall_clock,
            seed,
            serial: self.config.console.serial,
        });
        if !firmware {
            computer.set_up_as_firmware_does();
        }
        computer
    }

    /// The bus with what the configuration asks for, and a source of randomness.
    fn pci(&self, seed: [u8; 32]) -> Pci {
        let mut devices = Vec::new();
        devices.extend(self.config.networks.iter().map(|network| Device::Net { mac: network.mac.0 }));
        for (number, disk) in self.config.disks.iter().enumerate() {
            let sectors = match &disk.medium {
                Medium::Blank(bytes) => bytes.div_ceil(SECTOR as u64),
                Medium::Image(_) => {
                    self.file(vm_config::Role::Disk(number)).map_or(0, |image| (image.len() / SECTOR) as u64)
                }
            };
            let mut id = [0; ID];
            let name = disk.serial.as_deref().unwrap_or_default().as_bytes();
            id.iter_mut().zip(name).for_each(|(place, byte)| *place = *byte);
            devices.push(Device::Block { disk: number as u8, sectors, read_only: disk.read_only, id });
        }
        // Another stream than RDRAND's.
        let seed = seed.map(|byte| byte ^ 0x5a);
        devices.push(Device::Rng { seed });
        if self.config.console.virtio {
            devices.push(Device::Console { port: VIRTIO_CONSOLE });
        }
        devices.truncate(machine::pci::SLOTS);
        Pci::new(&devices).expect("no more devices than slots, and disks of whole sectors")
    }

    /// The device number of the disk that firmware starts from: disks come after the network devices.
    fn boot_device(&self) -> Option<u8> {
        match self.config.boot {
            Boot::Firmware { disk, .. } => {
                Some(machine::pci::FIRST_DEVICE + (self.config.networks.len() + disk) as u8)
            }
            Boot::Kernel { .. } => None,
        }
    }

    /// Puts the software into memory and the processor into its first state: power-on, and each reset.
    ///
    /// # Errors
    /// The software cannot be loaded.
    pub fn power_on(&self, board: &mut Board, on: &mut Active<'_>) -> Result<(), BuildError> {
        // Drawn from the generator as it is: a guest that starts again does not get the same numbers again.
        let seed = board.computer.seed();
        board.computer = self.computer(seed);
        board.computer.reset_clocks(board.time.now());
        let seed = board.computer.seed();
        let start = self.load(&mut board.vm.ram(), seed)?;
        let signature = self.profile.cpuid(1, 0, Default::default())[0];
        let (state, general) = first_state::of(&start, signature);
        on.set_profile(self.profile);
        on.set_state(&GuestState { perf_global_ctrl: replay::pmu::GUEST_GLOBAL_CTRL, ..state });
        on.reset_registers();
        on.registers_mut().gpr = general;
        board.begin(on);
        Ok(())
    }

    /// `seed` is for the kernel's own random generator.
    fn load(&self, ram: &mut Ram<'_>, seed: [u8; 32]) -> Result<Start, LoadError> {
        let file = |role| self.file(role).unwrap_or_default();
        let board = self.board();
        match &self.config.boot {
            Boot::Firmware { .. } => {
                load::load(ram, &Software::Firmware(file(vm_config::Role::Firmware)), &board)
            }
            Boot::Kernel { initrd, command_line, modules, .. } => {
                let modules: Vec<load::Module<'_>> = modules
                    .iter()
                    .enumerate()
                    .map(|(n, module)| load::Module {
                        bytes: file(vm_config::Role::Module(n)),
                        string: &module.command_line,
                    })
                    .collect();
                let kernel = Kernel {
                    image: file(vm_config::Role::Kernel),
                    initrd: initrd.as_ref().map(|_| file(vm_config::Role::Initrd)),
                    command_line,
                    modules: &modules,
                    seed: Some(seed),
                };
                load::load(ram, &Software::Kernel(kernel), &board)
            }
        }
    }
}

/// Builds the virtual machine; it is not powered on yet. `exact`: time is counted in instructions.
///
/// # Errors
/// [`BuildError`].
pub fn build(mut plan: Plan, exact: bool, options: &Options<'static>) -> Result<Guest, BuildError> {
    let caps = processors::capabilities().ok_or(BuildError::NoVmx)?;
    plan.profile.check(cpu::cpuid)?;
    let mut vm = Vm::new(plan.config.vm.memory.bytes, caps.ept_vpid)?;
    let paging = Paging::new(options.paging.unwrap_or(plan.paging()), &mut vm, caps.ept_vpid.pages_2m())?;
    if let Some(rom) = plan.file(vm_config::Role::Firmware) {
        // The loader knows best what is wrong with an image.
        plan.load(&mut vm.ram(), [0; 32])?;
        vm.set_rom(rom)?;
    }
    let vcpu = Vcpu::new(&vm, caps)?;
    let disks = disks(&plan)?;
    let mut outside = Outside::new(cards::bridges(&plan.config, options.host, plan.log.is_none())?);
    let mut time = guest_time(&plan, exact)?;
    let mut link = plan.link(&mut outside, options)?;
    let tape = match &mut link {
        Some(link) => plan.join(link, &mut vm, &mut outside, &mut time, options)?,
        None => plan.tape(&mut vm, &mut time, options)?,
    };
    let hertz = time::hertz() >> caps.misc.preemption_timer_shift();
    let computer = plan.computer(plan.seed);
    let mut board = Board::new(&plan.config.vm.name, computer, vm, time, outside, disks, hertz);
    board.tape = tape;
    board.pair = link;
    board.paging = paging;
    if !matches!(board.tape, Tape::Off) {
        board.disks.iter_mut().for_each(MemoryDisk::track);
    }
    if options.replay.restore.is_some() {
        let kept =
            Checkpoint::allocate(&board).map_err(|error| BuildError::Memory(VmError::Memory(error)))?;
        if let Tape::Replaying(replaying) = &mut board.tape {
            replaying.kept = Some(Box::new(kept));
        }
    }
    board.variation = options.variation.map(Variation::new);
    Ok(Guest { board, vcpu, plan })
}

fn guest_time(plan: &Plan, exact: bool) -> Result<GuestTime, BuildError> {
    let counters = match proof::report().filter(|_| exact) {
        Some(found) => Some(Counters::new(found.selector)?),
        None => {
            log::warn!("guest time comes from the host's clock, since the boot proof does not hold");
            None
        }
    };
    let clock = plan.config.clock;
    let mut time = GuestTime::new(counters, clock.follows_host);
    if let Some(rate) = clock.rate {
        // Instructions per microsecond; nanoseconds per instruction, 32.32 fixed point.
        time.set_rate((1000 << 32) / rate.max(1));
    }
    Ok(time)
}

fn disks(plan: &Plan) -> Result<heapless::Vec<MemoryDisk, MAX_DISKS>, BuildError> {
    let mut disks = heapless::Vec::new();
    for (number, disk) in plan.config.disks.iter().enumerate() {
        let made = match &disk.medium {
            Medium::Blank(bytes) => MemoryDisk::blank(*bytes),
            Medium::Image(_) => {
                let image = plan.file(vm_config::Role::Disk(number)).unwrap_or_default();
                if disk.read_only { Ok(MemoryDisk::read_only(image)) } else { MemoryDisk::copy_of(image) }
            }
        };
        // The configuration's own limit is no greater.
        let _ = disks.push(made.map_err(|error| BuildError::Disk(number, error))?);
    }
    Ok(disks)
}
