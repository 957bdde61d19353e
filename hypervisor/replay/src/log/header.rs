//! The header: what a recording is of, and what a replay needs to begin as it did.
//!
//! A list of fields, each a tag, a length and a value. Tags from [`OPTIONAL`] on may be skipped by who does not know them.

use super::bytes::{In, Malformed, NoRoom, Out, VARINT_MAX};
use super::checksum;
use core::fmt;

/// The most modules that a header names.
pub const MODULES_MAX: usize = 24;
/// The first tag that a reader may skip.
pub const OPTIONAL: u8 = 0x80;

/// Tags of the fields.
mod tag {
    pub const KERNEL: u8 = 1;
    pub const CONFIG: u8 = 2;
    pub const MODULE: u8 = 3;
    pub const PROFILE: u8 = 4;
    pub const SIGNATURE: u8 = 5;
    pub const MEMORY: u8 = 6;
    pub const SEED: u8 = 7;
    pub const WALL_CLOCK: u8 = 8;
    pub const RATE: u8 = 9;
    pub const PAGING: u8 = 10;
    pub const CHECKPOINT: u8 = 11;
}

/// How accessed and dirty bits in the guest's page tables come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paging {
    /// By the hypervisor alone, at committed accesses.
    #[default]
    Strict,
    /// By the processor; accessed bits are left out of what is compared.
    Fast,
}

impl fmt::Display for Paging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Fast => "fast",
        })
    }
}

/// A module of the virtual machine: a kernel, an initial RAM disk, a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its name, as in the configuration.
    pub name: &'a str,
    /// Bytes.
    pub length: u64,
    /// [`checksum::contents`] of it.
    pub crc: u32,
}

impl<'a> Module<'a> {
    /// The module of this name with these contents.
    #[must_use]
    pub fn of(name: &'a str, contents: &[u8]) -> Self {
        Self { name, length: contents.len() as u64, crc: checksum::contents(contents) }
    }
}

/// Modules, in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modules<'a> {
    all: [Module<'a>; MODULES_MAX],
    count: usize,
}

impl<'a> Modules<'a> {
    /// Adds one.
    ///
    /// # Errors
    /// There are [`MODULES_MAX`] already.
    pub fn push(&mut self, module: Module<'a>) -> Result<(), BadHeader> {
        *self.all.get_mut(self.count).ok_or(BadHeader::Modules)? = module;
        self.count += 1;
        Ok(())
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Module<'a>] {
        self.all.get(..self.count).unwrap_or_default()
    }
}

/// The processor profile that the guest saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile<'a> {
    /// Its name.
    pub name: &'a str,
    /// A hash over all that it says: CPUID and MSRs.
    pub hash: u64,
}

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// The kernel that recorded: its version, for people.
    pub kernel: &'a str,
    /// The whole lockstep.toml.
    pub config: &'a str,
    /// The modules that the virtual machine starts from.
    pub modules: Modules<'a>,
    /// The processor profile.
    pub profile: Profile<'a>,
    /// The recording host's processor: CPUID.01H:EAX.
    pub signature: u32,
    /// The guest's memory, bytes.
    pub memory: u64,
    /// The seed of the guest's random numbers.
    pub seed: [u8; 32],
    /// The guest's wall clock at power-on: seconds since 1970-01-01T00:00:00Z.
    pub wall_clock: u64,
    /// The rate of the guest's clock at power-on: nanoseconds per count, 32.32 fixed point.
    pub rate: u64,
    /// How paging is done.
    pub paging: Paging,
    /// Milliseconds of guest time between two checkpoints; 0: none.
    pub checkpoint: u32,
}

/// Why a header cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It does not fit into a block.
    TooLong,
    /// It has more than [`MODULES_MAX`] modules.
    Modules,
    /// A field is cut off or has bytes too many: its tag.
    Field(u8),
    /// A field that has to be understood is not known: its tag.
    Unknown(u8),
    /// A field is missing.
    Missing(&'static str),
    /// The fields' frame is broken.
    Malformed,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("it is too long for a block"),
            Self::Modules => write!(f, "it has more than {MODULES_MAX} modules"),
            Self::Field(tag) => write!(f, "the field with the tag {tag} is malformed"),
            Self::Unknown(tag) => write!(f, "the field with the tag {tag} is not known"),
            Self::Missing(what) => write!(f, "it has no {what}"),
            Self::Malformed => f.write_str("a field goes on beyond its end"),
        }
    }
}

impl From<NoRoom> for BadHeader {
    fn from(_: NoRoom) -> Self {
        Self::TooLong
    }
}

impl<'a> Header<'a> {
    /// Writes the fields.
    ///
    /// # Errors
    /// They do not fit.
    pub fn emit(&self, out: &mut Out<'_>) -> Result<(), BadHeader> {
        text(out, tag::KERNEL, self.kernel)?;
        text(out, tag::CONFIG, self.config)?;
        for module in self.modules.as_slice() {
            let mut length = [0; VARINT_MAX];
            let mut number = Out::new(&mut length);
            number.varint(module.length)?;
            let used = number.used();
            field(out, tag::MODULE, &[&module.crc.to_le_bytes(), &length[..used], module.name.as_bytes()])?;
        }
        field(out, tag::PROFILE, &[&self.profile.hash.to_le_bytes(), self.profile.name.as_bytes()])?;
        number(out, tag::SIGNATURE, u64::from(self.signature))?;
        number(out, tag::MEMORY, self.memory)?;
        field(out, tag::SEED, &[&self.seed])?;
        number(out, tag::WALL_CLOCK, self.wall_clock)?;
        number(out, tag::RATE, self.rate)?;
        number(out, tag::PAGING, u64::from(self.paging == Paging::Fast))?;
        number(out, tag::CHECKPOINT, u64::from(self.checkpoint))?;
        Ok(())
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// A field is missing, malformed or not known.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadHeader> {
        let mut input = In::new(bytes);
        let mut header = Self::default();
        let mut seen = 0_u16;
        while !input.is_empty() {
            let tag = input.byte().map_err(|_| BadHeader::Malformed)?;
            let value = input.string().map_err(|_| BadHeader::Malformed)?;
            if tag < OPTIONAL {
                header.set(tag, value)?;
                seen |= 1 << tag;
            }
        }
        for (tag, what) in REQUIRED {
            if seen & 1 << tag == 0 {
                return Err(BadHeader::Missing(what));
            }
        }
        Ok(header)
    }

    fn set(&mut self, tag: u8, value: &'a [u8]) -> Result<(), BadHeader> {
        let bad = |_: Malformed| BadHeader::Field(tag);
        let text = |bytes: &'a [u8]| core::str::from_utf8(bytes).map_err(|_| BadHeader::Field(tag));
        let mut input = In::new(value);
        match tag {
            tag::KERNEL => self.kernel = text(value)?,
            tag::CONFIG => self.config = text(value)?,
            tag::MODULE => {
                let crc = u32::from_le_bytes(input.array().map_err(bad)?);
                let length = input.varint().map_err(bad)?;
                self.modules.push(Module { name: text(input.rest())?, length, crc })?;
            }
            tag::PROFILE => {
                let hash = u64::from_le_bytes(input.array().map_err(bad)?);
                self.profile = Profile { name: text(input.rest())?, hash };
            }
            tag::SEED => self.seed = value.try_into().map_err(|_| BadHeader::Field(tag))?,
            tag::SIGNATURE..=tag::CHECKPOINT => {
                let number = input.varint().map_err(bad)?;
                if !input.is_empty() {
                    return Err(BadHeader::Field(tag));
                }
                self.set_number(tag, number)?;
            }
            _ => return Err(BadHeader::Unknown(tag)),
        }
        Ok(())
    }

    fn set_number(&mut self, tag: u8, number: u64) -> Result<(), BadHeader> {
        let short = || u32::try_from(number).map_err(|_| BadHeader::Field(tag));
        match tag {
            tag::SIGNATURE => self.signature = short()?,
            tag::MEMORY => self.memory = number,
            tag::WALL_CLOCK => self.wall_clock = number,
            tag::RATE => self.rate = number,
            tag::CHECKPOINT => self.checkpoint = short()?,
            _ => {
                self.paging = match number {
                    0 => Paging::Strict,
                    1 => Paging::Fast,
                    _ => return Err(BadHeader::Field(tag)),
                }
            }
        }
        Ok(())
    }
}

/// Fields that a header must have. Modules may be none.
const REQUIRED: [(u8, &str); 10] = [
    (tag::KERNEL, "kernel version"),
    (tag::CONFIG, "configuration"),
    (tag::PROFILE, "processor profile"),
    (tag::SIGNATURE, "processor signature"),
    (tag::MEMORY, "memory size"),
    (tag::SEED, "seed"),
    (tag::WALL_CLOCK, "wall clock"),
    (tag::RATE, "clock rate"),
    (tag::PAGING, "paging"),
    (tag::CHECKPOINT, "distance of checkpoints"),
];

fn field(out: &mut Out<'_>, tag: u8, parts: &[&[u8]]) -> Result<(), NoRoom> {
    out.byte(tag)?;
    out.varint(parts.iter().map(|part| part.len() as u64).sum())?;
    parts.iter().try_for_each(|part| out.raw(part))
}

fn text(out: &mut Out<'_>, tag: u8, text: &str) -> Result<(), NoRoom> {
    field(out, tag, &[text.as_bytes()])
}

fn number(out: &mut Out<'_>, tag: u8, value: u64) -> Result<(), NoRoom> {
    let mut bytes = [0; VARINT_MAX];
    let mut number = Out::new(&mut bytes);
    number.varint(value)?;
    let used = number.used();
    field(out, tag, &[&bytes[..used]])
}
