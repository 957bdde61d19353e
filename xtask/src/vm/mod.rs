//! A virtual machine as the tools see it: its configuration, the files that it names, and the emulated host that runs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use vm_config::{
    Boot, Card, Clock, Config, Console, Cpu, Disk, HostName, Mac, Medium, Memory, Network, RtcStart,
};

use crate::image::{Image, Module, Words};

pub mod host;
pub mod outside;
pub mod terminal;

/// The name of the module that is the configuration itself.
pub const CONFIG_MODULE: &str = "lockstep.toml";
/// The address of a guest's first network device, when nobody says another.
pub const GUEST_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x6c, 0x73, 0x01]);
/// What the guest's clock says at power-on in runs that shall be alike, seconds since 1970.
pub const FIXED_CLOCK: u64 = 1_700_000_000;

/// A virtual machine: what its configuration says, and where the files are that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// What the text says.
    pub config: Config,
    /// The configuration's text, as the kernel gets it.
    text: String,
    /// The files by the name that the configuration gives them, each once.
    files: Vec<(String, PathBuf)>,
}

/// A disk of a virtual machine that is described by flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A raw image.
    Image(PathBuf),
    /// So many zero bytes.
    Blank(Memory),
}

/// What a virtual machine boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A kernel without firmware.
    Kernel {
        /// A Linux bzImage or a Multiboot ELF file.
        kernel: PathBuf,
        /// The initial RAM disk.
        initrd: Option<PathBuf>,
        /// The kernel's command line.
        command_line: String,
    },
    /// Firmware, which boots from the first disk.
    Firmware(PathBuf),
}

/// A virtual machine that is described by flags, or by a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory: Memory,
    /// Which processor it sees.
    pub cpu: Cpu,
    /// What it boots.
    pub start: Start,
    /// Its disks, in order.
    pub disks: Vec<DiskSource>,
    /// How many network devices it has, each bridged to a host card of its own.
    pub networks: usize,
    /// Keep its clock with the host's. Off, its time is a function of its instructions alone.
    pub follows_host: bool,
    /// A virtio console beside the serial port.
    pub virtio_console: bool,
    /// Seed of its random device.
    pub seed: u64,
}

impl Description {
    /// A plain machine: 256 MiB, no disk, no network, time with the host's, a fixed seed and date.
    pub fn new(name: &str, start: Start) -> Self {
        Description {
            name: name.into(),
            memory: Memory { bytes: 256 << 20 },
            cpu: Cpu::default(),
            start,
            disks: Vec::new(),
            networks: 0,
            follows_host: true,
            virtio_console: false,
            seed: 1,
        }
    }

    /// The virtual machine.
    ///
    /// # Errors
    /// When a file is missing, or the configuration that comes of it is refused.
    pub fn vm(&self) -> Result<Vm> {
        let mut files = Vec::new();
        let mut add = |name: &str, path: &Path| -> Result<String> {
            files.push((name.to_owned(), existing(path)?));
            Ok(name.to_owned())
        };
        let boot = match &self.start {
            Start::Kernel { kernel, initrd, command_line } => Boot::Kernel {
                kernel: add("kernel", kernel)?,
                initrd: initrd.as_ref().map(|file| add("initrd", file)).transpose()?,
                command_line: command_line.clone(),
                modules: Vec::new(),
            },
            Start::Firmware(file) => Boot::Firmware { firmware: add("firmware", file)?, disk: 0 },
        };
        let mut disks = Vec::new();
        for (number, source) in self.disks.iter().enumerate() {
            let medium = match source {
                DiskSource::Image(file) => Medium::Image(add(&format!("disk{number}"), file)?),
                DiskSource::Blank(size) => Medium::Blank(size.bytes),
            };
            disks.push(Disk { medium, read_only: false, serial: None });
        }
        let networks = (0..self.networks).map(|number| Network {
            mac: guest_mac(number as u8),
            card: Some(Card::Index(number as u8)),
            promiscuous: false,
        });
        let config = Config {
            vm: vm_config::Vm {
                name: self.name.clone(),
                memory: self.memory,
                cpu: self.cpu,
                seed: Some(self.seed),
            },
            boot,
            disks,
            networks: networks.collect(),
            console: Console { virtio: self.virtio_console, ..Console::default() },
            rtc: RtcStart::Fixed(FIXED_CLOCK),
            clock: Clock { follows_host: self.follows_host, rate: None },
            record: None,
            pair: None,
        };
        let text = config.text();
        // What the kernel reads is the text: it must mean the same.
        let config = parse(&text)?;
        Ok(Vm { config, text, files })
    }
}

/// The address of a guest's `number`th network device.
pub fn guest_mac(number: u8) -> Mac {
    let Mac([a, b, c, d, e, f]) = GUEST_MAC;
    Mac([a, b, c, d, e, f.wrapping_add(number)])
}

impl Vm {
    /// Reads a configuration. Files that it names are looked for relative to its own place.
    ///
    /// # Errors
    /// When it cannot be read, the text means nothing (the message has line and key), or a file is missing.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base).with_context(|| format!("the configuration {}", path.display()))
    }

    /// The virtual machine of a configuration's text; `base` is where relative names begin.
    ///
    /// # Errors
    /// As [`Vm::read`].
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        Self::with_files(text, |name| Ok(base.join(name)))
    }

    /// The virtual machine of a configuration's text; `find` says where the file of a name is.
    ///
    /// # Errors
    /// When the text means nothing, or a file is missing.
    pub fn with_files(text: &str, find: impl Fn(&str) -> Result<PathBuf>) -> Result<Self> {
        let config = parse(text)?;
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for file in config.files() {
            if !files.iter().any(|(name, _)| name == file.name) {
                let path = find(file.name).and_then(|path| existing(&path));
                let path = path.with_context(|| format!("the key {}", file.role))?;
                files.push((file.name.to_owned(), path));
            }
        }
        Ok(Vm { text: text.to_owned(), config, files })
    }

    /// The same files with another configuration's text, which names no others.
    ///
    /// # Errors
    /// When the text means nothing, or names a file that is not there.
    pub fn with_text(&self, text: &str) -> Result<Self> {
        Self::with_files(text, |name| {
            let known = self.files.iter().find(|(known, _)| known == name);
            known.map(|(_, path)| path.clone()).with_context(|| format!("the file {name} is not known"))
        })
    }

    /// The same with one more file on the medium, which the configuration does not name.
    ///
    /// # Errors
    /// When it is not there, or there is one of that name.
    pub fn with_file(mut self, name: &str, path: &Path) -> Result<Self> {
        if self.files.iter().any(|(known, _)| known == name) {
            bail!("a file of the virtual machine is called {name}, which is taken; rename it");
        }
        self.files.push((name.to_owned(), existing(path)?));
        Ok(self)
    }

    /// The configuration's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The files, by the names in the configuration.
    pub fn files(&self) -> &[(String, PathBuf)] {
        &self.files
    }

    /// Which of the host's cards, by number from 0, each network device has, in their order, and the log after them: those that
    /// name a number have it, the others the lowest that nobody names.
    pub fn card_places(&self) -> Vec<(Card, usize)> {
        self.places(self.config.record.map(|record| record.card))
    }

    /// The same for a host of a pair: the logging channel's card is the last.
    pub fn card_places_of(&self, host: HostName) -> Vec<(Card, usize)> {
        self.places(self.config.pair.as_ref().map(|pair| pair.host(host).log_card))
    }

    fn places(&self, log: Option<Card>) -> Vec<(Card, usize)> {
        let networks = self.config.networks.iter().filter_map(|network| network.card);
        let cards: Vec<Card> = networks.chain(log).collect();
        let named = |card: &Card| match card {
            Card::Index(number) => Some(usize::from(*number)),
            Card::Pci(_) | Card::Mac(_) => None,
        };
        let taken: Vec<usize> = cards.iter().filter_map(named).collect();
        let mut free = (0..).filter(|place| !taken.contains(place));
        let mut places: Vec<(Card, usize)> = Vec::new();
        for card in cards {
            // The log may have one of theirs.
            let known = places.iter().find(|(other, _)| *other == card).map(|(_, place)| *place);
            let place = known.or_else(|| named(&card)).or_else(|| free.next()).unwrap_or_default();
            places.push((card, place));
        }
        places
    }

    /// How many cards the host must have for the guest's network devices and the log.
    pub fn cards(&self) -> usize {
        self.card_places().iter().map(|(_, place)| place + 1).max().unwrap_or(0)
    }

    /// The number of the card that the log leaves by, if the machine is recorded.
    pub fn log_place(&self) -> Option<usize> {
        self.config.record.and_then(|_| self.card_places().last().map(|(_, place)| *place))
    }

    /// A medium that starts `kernel` with this machine: the configuration is the first module, then its files. `dir` gets
    /// the configuration's file.
    ///
    /// # Errors
    /// When a name cannot be a module's, or the configuration cannot be written.
    pub fn image(&self, kernel: PathBuf, words: &str, dir: &Path) -> Result<Image> {
        let config = dir.join(CONFIG_MODULE);
        std::fs::write(&config, &self.text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut modules = vec![module(CONFIG_MODULE, &config)?];
        for (name, file) in &self.files {
            modules.push(module(name, file)?);
        }
        let names: BTreeSet<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        if names.len() != modules.len() {
            bail!("a file is called {CONFIG_MODULE}, which is the configuration's own name");
        }
        Ok(Image { modules, words: Words::parse(words)?, timeout: 0, ..Image::new(kernel) })
    }

    /// Bytes that the host needs for this machine: its memory, its files as the loader leaves them, and a copy of what it
    /// may write.
    pub fn host_bytes(&self) -> u64 {
        let sizes = |(_, file): &(String, PathBuf)| std::fs::metadata(file).map_or(0, |m| m.len());
        let files: u64 = self.files.iter().map(sizes).sum();
        let disks = self.config.disks.iter().map(|disk| match &disk.medium {
            Medium::Blank(bytes) => *bytes,
            Medium::Image(name) => {
                self.files.iter().find(|(known, _)| known == name).map(sizes).unwrap_or_default()
            }
        });
        self.config.vm.memory.bytes + files + disks.sum::<u64>()
    }
}

fn parse(text: &str) -> Result<Config> {
    Config::parse(text).map_err(|error| anyhow!("{error}"))
}

fn module(name: &str, file: &Path) -> Result<Module> {
    let words = Words::parse(name)
        .with_context(|| format!("the file name {name:?} cannot be given to the loader; rename the file"))?;
    Ok(Module { file: file.into(), name: words.to_string(), words: Words::default() })
}

/// The absolute path of a file that must be there.
fn existing(path: &Path) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("there is no file {}", path.display());
    }
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
    }

    fn description() -> Description {
        let command_line = "console=ttyS0 quote=\"x\"".to_owned();
        let start = Start::Kernel { kernel: me(), initrd: Some(me()), command_line };
        Description { networks: 2, ..Description::new("test", start) }
    }

    #[test]
    fn a_description_becomes_the_text_that_means_it() {
        let mut description = description();
        description.disks = vec![DiskSource::Blank(Memory { bytes: 64 << 20 }), DiskSource::Image(me())];
        let vm = description.vm().unwrap();
        assert_eq!(vm_config::Config::parse(vm.text()).unwrap(), vm.config);
        let names: Vec<&str> = vm.files().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["kernel", "initrd", "disk1"]);
        assert_eq!(vm.cards(), 2);
        let own = std::fs::metadata(me()).unwrap().len();
        assert_eq!(vm.host_bytes(), (256 << 20) + (64 << 20) + 4 * own);
    }

    #[test]
    fn files_are_found_beside_the_configuration() {
        let text = "[vm]\nname = \"a\"\nmemory = \"64M\"\n[boot]\nkernel = \"Cargo.toml\"\n";
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(Vm::parse(text, base).unwrap().files()[0].1, me());
        let error = format!("{:#}", Vm::parse(text, Path::new("/none")).unwrap_err());
        assert!(error.contains("boot.kernel") && error.contains("/none/Cargo.toml"), "{error}");
        let error = format!("{:#}", Vm::parse("[vm]\nname = 1\n", base).unwrap_err());
        assert!(error.contains("vm.name"), "{error}");
    }

    #[test]
    fn the_log_has_a_card_of_its_own() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        let machine = |more: &str| {
            let text = format!(
                "[vm]\nname = \"a\"\nmemory = \"64M\"\n[boot]\nkernel = \"Cargo.toml\"\n{more}\
                 address = \"10.77.0.1/24\"\npeer = \"10.77.0.2:5405\"\n"
            );
            let vm = Vm::parse(&text, base).unwrap();
            (vm.cards(), vm.log_place())
        };
        let network = "[[network]]\nmac = \"02:00:00:00:00:01\"\n";
        assert_eq!(machine("[record]\n"), (1, Some(0)));
        assert_eq!(machine(&format!("{network}[record]\n")), (2, Some(1)));
        assert_eq!(machine(&format!("{network}card = 2\n[record]\ncard = 0\n")), (3, Some(0)));
        let mac = "card = \"02:00:00:00:00:02\"\n";
        assert_eq!(machine(&format!("{network}[record]\n{mac}")), (2, Some(1)));
        assert_eq!(machine(&format!("{network}{mac}[record]\ncard = 0\n")), (2, Some(0)));
    }

    #[test]
    fn the_configuration_is_the_first_module() {
        let dir = std::env::temp_dir().join(format!("lockstep-vm-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = description().vm().unwrap().image(me(), "after=exit", &dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let names: Vec<&str> = image.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["lockstep.toml", "kernel", "initrd"]);
        assert_eq!((image.words.to_string().as_str(), image.timeout), ("after=exit", 0));
    }
}
