//! What a host must have in common with its peer: carried by the handshake, compared by both.
//!
//! Encoded facts are read in place and a difference is told in bounded texts: nothing here allocates but the encoding of
//! our own.

use crate::text::Text;
use alloc::vec::Vec;
use blake2::{Blake2s256, Digest};
use core::fmt;

/// Bytes of encoded facts at most.
pub const FACTS: usize = 8 << 10;

/// Bytes of a text in them at most.
pub const NAME: usize = 255;

/// Modules that are told of at most.
pub const MODULES: usize = 24;

/// Bytes of a digest.
pub const DIGEST: usize = 32;

/// A digest of what is compared as a whole, such as the configuration's text: BLAKE2s-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; DIGEST] {
    Blake2s256::digest(bytes).into()
}

/// A file that the loader brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32 (zlib's) of its contents.
    pub checksum: u32,
}

/// The facts.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The kernel's build: versions, and what tells two builds of one version apart.
    pub build: &'a str,
    /// Digest of the configuration's text.
    pub config: [u8; DIGEST],
    /// The processor profile's name.
    pub profile: &'a str,
    /// Hash over all that the profile shows.
    pub profile_hash: u64,
    /// Who made the host's processor (CPUID.0H).
    pub vendor: &'a str,
    /// Family, model and stepping of the host's processor (CPUID.01H:EAX).
    pub signature: u32,
    /// The host's processor in words. It may differ.
    pub processor: &'a str,
    /// Whether the boot proof lets this host protect a guest.
    pub proven: bool,
    /// The boot proof's verdict and margins in words. They may differ.
    pub proof: &'a str,
    /// The loader's modules, in the loader's order.
    pub modules: Modules<'a>,
}

/// Modules: a list, or their encoding.
#[derive(Clone, Copy, Debug)]
pub enum Modules<'a> {
    /// A list.
    List(&'a [Module<'a>]),
    /// Encoded; has been checked.
    Encoded(&'a [u8]),
}

impl<'a> Modules<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Module<'a>> {
        let (list, bytes): (&[_], &[u8]) = match *self {
            Self::List(list) => (list, &[]),
            Self::Encoded(bytes) => (&[], bytes),
        };
        let mut input = Input(bytes);
        list.iter().copied().chain(core::iter::from_fn(move || input.module()))
    }
}

/// Why facts cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A text is longer than [`NAME`] or has control characters.
    Text,
    /// More than [`MODULES`].
    Modules,
    /// More than [`FACTS`] bytes in all.
    Length,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => write!(f, "a name is longer than {NAME} bytes or has control characters"),
            Self::Modules => write!(f, "there are more than {MODULES} modules"),
            Self::Length => write!(f, "the facts for the peer are longer than {FACTS} bytes"),
        }
    }
}

impl core::error::Error for Unfit {}

fn is_text(text: &str) -> bool {
    text.len() <= NAME && !text.chars().any(char::is_control)
}

impl<'a> Facts<'a> {
    /// Writes them down.
    ///
    /// # Errors
    /// They do not keep to the limits.
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        let mut out = Vec::new();
        let texts = [self.build, self.profile, self.vendor, self.processor, self.proof];
        for text in texts {
            put_text(&mut out, text)?;
        }
        out.extend_from_slice(&self.config);
        out.extend_from_slice(&self.profile_hash.to_le_bytes());
        out.extend_from_slice(&self.signature.to_le_bytes());
        out.push(self.proven.into());
        for (index, module) in self.modules.iter().enumerate() {
            if index == MODULES {
                return Err(Unfit::Modules);
            }
            put_text(&mut out, module.name)?;
            out.extend_from_slice(&module.bytes.to_le_bytes());
            out.extend_from_slice(&module.checksum.to_le_bytes());
        }
        if out.len() > FACTS { Err(Unfit::Length) } else { Ok(out) }
    }

    /// Reads them. `None` unless `bytes` are exactly what [`encode`](Self::encode) writes.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > FACTS {
            return None;
        }
        let mut input = Input(bytes);
        let build = input.text()?;
        let profile = input.text()?;
        let vendor = input.text()?;
        let processor = input.text()?;
        let proof = input.text()?;
        let config = input.array()?;
        let profile_hash = u64::from_le_bytes(input.array()?);
        let signature = u32::from_le_bytes(input.array()?);
        let proven = match input.array()? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let modules = Modules::Encoded(input.0);
        let mut count = 0;
        while !input.0.is_empty() {
            input.module()?;
            count += 1;
        }
        let facts = Self {
            build,
            config,
            profile,
            profile_hash,
            vendor,
            signature,
            processor,
            proven,
            proof,
            modules,
        };
        (count <= MODULES).then_some(facts)
    }

    /// Compares what must be the same on both hosts.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, theirs: &Facts<'_>) -> Result<(), Difference> {
        same("build", self.build, theirs.build)?;
        same("digest of lockstep.toml", Short(&self.config), Short(&theirs.config))?;
        same("processor profile", self.profile, theirs.profile)?;
        same("processor profile's hash", Hex(self.profile_hash), Hex(theirs.profile_hash))?;
        same("processor's vendor", self.vendor, theirs.vendor)?;
        same("processor's signature", Hex(self.signature.into()), Hex(theirs.signature.into()))?;
        self.compare_modules(theirs)?;
        if self.proven && theirs.proven {
            return Ok(());
        }
        Err(Difference { fact: Text::of("boot proof"), ours: self.verdict(), theirs: theirs.verdict() })
    }

    fn verdict(&self) -> Text {
        Text::of(format_args!("{} ({})", if self.proven { "held" } else { "failed" }, self.proof))
    }

    fn compare_modules(&self, theirs: &Facts<'_>) -> Result<(), Difference> {
        let (mut ours, mut others) = (self.modules.iter(), theirs.modules.iter());
        for index in 0.. {
            let (one, other) = (ours.next(), others.next());
            if one.is_none() && other.is_none() {
                break;
            }
            if one != other {
                let show =
                    |module: Option<Module<'_>>| module.map_or(Text::of("none"), |m| Text::of(Shown(m)));
                let name = one.or(other).map_or("", |module| module.name);
                let fact = Text::of(format_args!("module {index}, {name}"));
                return Err(Difference { fact, ours: show(one), theirs: show(other) });
            }
        }
        Ok(())
    }
}

/// What two hosts do not have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub fact: Text,
    /// What this host has.
    pub ours: Text,
    /// What the peer has.
    pub theirs: Text,
}

impl Difference {
    /// A difference between two values.
    pub(crate) fn between(fact: &str, ours: impl fmt::Display, theirs: impl fmt::Display) -> Self {
        Self { fact: Text::of(fact), ours: Text::of(ours), theirs: Text::of(theirs) }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: here {}, there {}", self.fact, self.ours, self.theirs)
    }
}

fn same<T: PartialEq + fmt::Display>(fact: &str, ours: T, theirs: T) -> Result<(), Difference> {
    if ours == theirs { Ok(()) } else { Err(Difference::between(fact, ours, theirs)) }
}

#[derive(PartialEq)]
struct Hex(u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A digest, of which the beginning is shown.
#[derive(PartialEq)]
struct Short<'a>(&'a [u8; DIGEST]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Shown<'a>(Module<'a>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Module { name, bytes, checksum } = self.0;
        write!(f, "{bytes} bytes, checksum {checksum:08x}, {name}")
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Unfit> {
    let length = u8::try_from(text.len()).map_err(|_| Unfit::Text)?;
    if !is_text(text) {
        return Err(Unfit::Text);
    }
    out.push(length);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        str::from_utf8(text).ok().filter(|text| is_text(text))
    }

    fn module(&mut self) -> Option<Module<'a>> {
        let name = self.text()?;
        let bytes = u64::from_le_bytes(self.array()?);
        let checksum = u32::from_le_bytes(self.array()?);
        Some(Module { name, bytes, checksum })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;
    use std::vec;

    const MODULE: Module<'static> = Module { name: "bzImage", bytes: 9_000_000, checksum: 0x1234_5678 };

    pub(in crate::channel) const FACTS_HERE: Facts<'static> = Facts {
        build: "0.1.0 d052513",
        config: [7; DIGEST],
        profile: "baseline",
        profile_hash: 0x1122_3344_5566_7788,
        vendor: "GenuineIntel",
        signature: 0x906e9,
        processor: "a processor",
        proven: true,
        proof: "skid 3, margin 64",
        modules: Modules::List(&[MODULE]),
    };

    fn difference(theirs: &Facts<'_>) -> String {
        let encoded = theirs.encode().unwrap();
        let read = Facts::parse(&encoded).unwrap();
        let found = FACTS_HERE.compare(&read).map_err(|difference| format!("{difference}"));
        assert_eq!(found.is_ok(), read.compare(&FACTS_HERE).is_ok(), "both see it");
        found.err().unwrap_or_default()
    }

    #[test]
    fn each_difference_has_a_name_and_both_values() {
        assert_eq!(difference(&FACTS_HERE), "");
        assert_eq!(difference(&Facts { processor: "another", proof: "skid 9", ..FACTS_HERE }), "");
        let cases = [
            (Facts { build: "0.2.0", ..FACTS_HERE }, "build: here 0.1.0 d052513, there 0.2.0"),
            (
                Facts { config: [8; DIGEST], ..FACTS_HERE },
                "digest of lockstep.toml: here 0707070707070707, there 0808080808080808",
            ),
            (Facts { profile: "v3", ..FACTS_HERE }, "processor profile: here baseline, there v3"),
            (
                Facts { profile_hash: 1, ..FACTS_HERE },
                "processor profile's hash: here 0x1122334455667788, there 0x1",
            ),
            (Facts { vendor: "Other", ..FACTS_HERE }, "processor's vendor: here GenuineIntel, there Other"),
            (Facts { signature: 2, ..FACTS_HERE }, "processor's signature: here 0x906e9, there 0x2"),
            (
                Facts { proven: false, proof: "skid too large", ..FACTS_HERE },
                "boot proof: here held (skid 3, margin 64), there failed (skid too large)",
            ),
            (
                Facts { modules: Modules::List(&[]), ..FACTS_HERE },
                "module 0, bzImage: here 9000000 bytes, checksum 12345678, bzImage, there none",
            ),
            (
                Facts { modules: Modules::List(&[Module { checksum: 1, ..MODULE }]), ..FACTS_HERE },
                "module 0, bzImage: here 9000000 bytes, checksum 12345678, bzImage, there 9000000 bytes, checksum 00000001, bzImage",
            ),
            (
                Facts { modules: Modules::List(&[MODULE, MODULE]), ..FACTS_HERE },
                "module 1, bzImage: here none, there 9000000 bytes, checksum 12345678, bzImage",
            ),
        ];
        for (theirs, told) in cases {
            assert_eq!(difference(&theirs), told);
        }
        let neither = Facts { proven: false, ..FACTS_HERE };
        assert!(neither.compare(&neither).is_err());
    }

    #[test]
    fn limits() {
        let long = "x".repeat(NAME + 1);
        assert_eq!(Facts { build: &long, ..FACTS_HERE }.encode(), Err(Unfit::Text));
        assert_eq!(Facts { build: "a\nb", ..FACTS_HERE }.encode(), Err(Unfit::Text));
        let many = vec![MODULE; MODULES + 1];
        assert_eq!(Facts { modules: Modules::List(&many), ..FACTS_HERE }.encode(), Err(Unfit::Modules));
        let most = vec![Module { name: &long[1..], ..MODULE }; MODULES];
        let most = Facts { modules: Modules::List(&most), ..FACTS_HERE }.encode().unwrap();
        assert!(Facts::parse(&most).is_some());
    }

    proptest! {
        #[test]
        fn round_trip(
            texts in proptest::collection::vec("[a-z é]{0,100}", 5),
            config: [u8; DIGEST], profile_hash: u64, signature: u32, proven: bool,
            modules in proptest::collection::vec(("[a-z./]{0,200}", any::<u64>(), any::<u32>()), 0..=MODULES),
        ) {
            let list: vec::Vec<_> =
                modules.iter().map(|(name, bytes, checksum)| Module { name, bytes: *bytes, checksum: *checksum }).collect();
            let [build, profile, vendor, processor, proof] = [0, 1, 2, 3, 4].map(|i| texts[i].as_str());
            let modules = Modules::List(&list);
            let facts =
                Facts { build, config, profile, profile_hash, vendor, signature, processor, proven, proof, modules };
            let bytes = facts.encode().unwrap();
            let read = Facts::parse(&bytes).unwrap();
            prop_assert_eq!(read.encode().unwrap(), &bytes[..]);
            prop_assert_eq!(read.modules.iter().collect::<vec::Vec<_>>(), list.clone());
            prop_assert_eq!(facts.compare(&read).is_ok(), proven);
        }

        /// Whatever is read, is what would be written.
        #[test]
        fn strict(at: usize, value: u8, cut: usize) {
            let mut bytes = FACTS_HERE.encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut % 3);
            if let Some(read) = Facts::parse(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }
    }
}
