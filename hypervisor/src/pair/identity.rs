//! What this host says of itself to its peer: what must be equal before two hosts run one virtual machine.

use crate::arch::cpu;
use crate::proof;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use boot::entry::constant_image;
use ft::channel::facts::{Facts, Module, Modules, NAME, digest};
use machine::cpu::Profile;
use replay::log::{block as log, checksum, header};

/// This host and the virtual machine that it was given.
pub struct Identity<'a> {
    build: String,
    profile: &'static Profile,
    config: &'a str,
    modules: Vec<Module<'a>>,
    vendor: String,
    processor: String,
    proof: String,
    proven: bool,
}

impl<'a> Identity<'a> {
    /// What there is to say. `config`: the whole lockstep.toml; `modules`: what the virtual machine starts from.
    pub fn new(profile: &'static Profile, config: &'a str, modules: &header::Modules<'a>) -> Self {
        let modules = modules.as_slice().iter();
        let found = proof::report();
        let proven = found.is_some_and(|found| found.report.holds());
        let said = found.map(|found| format!("{}", found.report)).unwrap_or_default();
        Self {
            build: build(),
            profile,
            config,
            modules: modules
                .map(|module| Module { name: module.name, bytes: module.length, checksum: module.crc })
                .collect(),
            vendor: text(&[cpu::cpuid(0, 0)].map(|[_, b, c, d]| [b, d, c]).concat()),
            processor: brand(),
            proof: plain(&said),
            proven,
        }
    }

    /// The facts.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            build: &self.build,
            config: digest(self.config.as_bytes()),
            profile: self.profile.name(),
            profile_hash: self.profile.fingerprint(),
            vendor: &self.vendor,
            signature: cpu::cpuid(1, 0)[0],
            processor: &self.processor,
            proven: self.proven,
            proof: &self.proof,
            modules: Modules::List(&self.modules),
        }
    }
}

/// The kernel's build: its version, the log format's, and a checksum of what it consists of. Two builds may differ in what they show the guest
/// whatever their versions say.
fn build() -> String {
    let [text, constants] = constant_image().map(checksum::block);
    format!("lockstep {}, log {}, image {text:08x}.{constants:08x}", env!("CARGO_PKG_VERSION"), log::VERSION)
}

/// The processor's name (CPUID.80000002H to 80000004H).
fn brand() -> String {
    if cpu::cpuid(0x8000_0000, 0)[0] < 0x8000_0004 {
        return String::new();
    }
    text(&[0x8000_0002, 0x8000_0003, 0x8000_0004].map(|leaf| cpu::cpuid(leaf, 0)).concat())
}

/// Letters that CPUID gives in registers.
fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers.iter().flat_map(|register| register.to_le_bytes()).collect();
    let letters: String = bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    plain(letters.trim())
}

/// As a fact may be: one short line.
fn plain(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(NAME));
    line
}
