//! Processor profiles: CPUID as a table, one for each microarchitecture level. A profile is the same on every host, so
//! that a virtual machine may move between unlike ones; what it shows must be there, which [`Profile::check`] says.

use super::CpuView;
use super::features::{self, FEATURES, Feature, Level, Source, Word};
use super::registers::{Limits, cr4, xcr0};
use core::fmt;

/// What CPUID returns: EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

/// The highest basic leaf.
const BASIC_MAX: u32 = 0x16;
/// The highest extended leaf.
const EXTENDED_MAX: u32 = 0x8000_0008;
/// The leaf that a hypervisor has to itself; its highest is the same.
pub const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// What EBX, ECX and EDX of that leaf say.
pub const HYPERVISOR_NAME: [u8; 12] = *b"LockstepLock";

/// The first leaf of a second interface: KVM's, where Linux and others look for it, with no paravirtual device in it. It is
/// how a kernel learns that x2APIC mode works here without interrupt remapping: an end of interrupt is then one WRMSR,
/// not a store that has to be decoded.
pub const KVM_LEAF: u32 = 0x4000_0100;
/// What EBX, ECX and EDX of that leaf say.
const KVM_NAME: [u8; 12] = *b"KVMKVMKVM\0\0\0";
/// The leaf behind it.
const KVM_FEATURES_LEAF: u32 = KVM_LEAF + 1;
/// Its features: no delays between accesses of ports are needed (KVM_FEATURE_NOP_IO_DELAY).
const KVM_FEATURES: u32 = 1 << 1;

/// Ticks of the time-stamp counter in a second: exactly 1 GHz.
pub const TSC_HZ: u64 = 1_000_000_000;
/// The core crystal clock in Hz, which the local APIC's timer counts.
pub const CRYSTAL_HZ: u32 = 25_000_000;
/// Ticks of the time-stamp counter in one of the crystal.
const TSC_PER_CRYSTAL: u32 = (TSC_HZ / CRYSTAL_HZ as u64) as u32;
/// The time-stamp counter's frequency in MHz, which is what the processor says its own is.
const CORE_MHZ: u32 = (TSC_HZ / 1_000_000) as u32;
/// The bus clock in MHz.
pub const BUS_MHZ: u32 = 100;

/// A state component in the XSAVE area (SDM vol. 1, "XSAVE-Managed State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Component {
    /// Its bit in XCR0.
    bit: u8,
    /// Where it is in the standard form, bytes.
    offset: u32,
    /// Bytes.
    size: u32,
    since: Level,
}

/// Bytes of the legacy region and the header, which every XSAVE area begins with.
const XSAVE_BASE: u32 = 576;

const COMPONENTS: [Component; 4] = [
    Component { bit: 2, offset: 576, size: 256, since: Level::V3 },
    Component { bit: 5, offset: 1088, size: 64, since: Level::V4 },
    Component { bit: 6, offset: 1152, size: 512, since: Level::V4 },
    Component { bit: 7, offset: 1664, size: 1024, since: Level::V4 },
];

/// One profile.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    name: &'static str,
    level: Level,
    physical_bits: u8,
    basic: [Answer; BASIC_MAX as usize + 1],
    caches: [Answer; 4],
    extended: [Answer; (EXTENDED_MAX & 0xff) as usize + 1],
}

static PROFILES: [Profile; 3] = [
    // Westmere-EP, Haswell-EP, Skylake-SP: what each level began with.
    Profile::build(
        "x86-64-v2",
        Level::V2,
        0x0002_06c2,
        36,
        *b"Lockstep Virtual Processor (x86-64-v2)\0\0\0\0\0\0\0\0\0\0",
    ),
    Profile::build(
        "x86-64-v3",
        Level::V3,
        0x0003_06f2,
        39,
        *b"Lockstep Virtual Processor (x86-64-v3)\0\0\0\0\0\0\0\0\0\0",
    ),
    Profile::build(
        "x86-64-v4",
        Level::V4,
        0x0005_0654,
        39,
        *b"Lockstep Virtual Processor (x86-64-v4)\0\0\0\0\0\0\0\0\0\0",
    ),
];

/// What a host lacks for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The profile.
    pub profile: &'static str,
    /// The feature, as the SDM calls it.
    pub feature: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this host has no {}, which the processor profile {} shows", self.feature, self.profile)
    }
}

impl core::error::Error for Missing {}

const fn little(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Profile {
    /// All profiles, the least first.
    pub fn all() -> &'static [Self] {
        &PROFILES
    }

    /// The profile of this name: x86-64-v2, x86-64-v3 or x86-64-v4.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// The greatest profile that a host has everything for. `host` executes CPUID there.
    pub fn best(host: impl Fn(u32, u32) -> Answer) -> Option<&'static Self> {
        PROFILES.iter().rev().find(|profile| profile.check(&host).is_ok())
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its level.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Width of a physical address, bits.
    pub const fn physical_bits(&self) -> u8 {
        self.physical_bits
    }

    /// The features that it shows.
    pub fn features(&self) -> impl Iterator<Item = &'static Feature> + use<> {
        let level = self.level;
        FEATURES.iter().filter(move |feature| feature.since <= level)
    }

    /// Whether it shows a feature of this name.
    pub fn has(&self, name: &str) -> bool {
        self.features().any(|feature| feature.name == name)
    }

    /// The control-register bits that go with its features.
    pub const fn limits(&self) -> Limits {
        let (v3, v4) = (self.level as u8 >= Level::V3 as u8, self.level as u8 >= Level::V4 as u8);
        let physical_bits = self.physical_bits;
        let mut limits = Limits { cr4: cr4::LEVEL_2, xcr0: 0, physical_bits, gigabyte_pages: v3 };
        if v3 {
            limits.cr4 |= cr4::FSGSBASE | cr4::PCIDE | cr4::OSXSAVE | cr4::SMEP;
            limits.xcr0 |= xcr0::X87 | xcr0::SSE | xcr0::AVX;
        }
        if v4 {
            limits.cr4 |= cr4::SMAP;
            limits.xcr0 |= xcr0::AVX512;
        }
        limits
    }

    /// A hash over everything that it says, for logs and hosts to be compared by.
    pub fn fingerprint(&self) -> u64 {
        let fold =
            |hash: u64, word: u32| (hash ^ u64::from(word)).wrapping_mul(0x100_0000_01b3).rotate_left(29);
        let leaves = (0..=BASIC_MAX).chain(0x4000_0000..=0x4000_0001).chain(0x4000_0100..=0x4000_0101);
        let answers = leaves
            .chain(0x8000_0000..=EXTENDED_MAX)
            .flat_map(|leaf| (0..8).flat_map(move |sub| self.cpuid(leaf, sub, CpuView::default())));
        answers.fold(0xcbf2_9ce4_8422_2325, fold)
    }

    /// CPUID. A leaf beyond the highest is answered as the highest basic leaf (SDM vol. 2, CPUID).
    #[inline]
    pub fn cpuid(&self, leaf: u32, sub: u32, view: CpuView) -> Answer {
        match leaf {
            1 => self.leaf_1(view),
            4 => self.caches.get(sub as usize).copied().unwrap_or_default(),
            7 => {
                if sub == 0 {
                    self.basic[7]
                } else {
                    [0; 4]
                }
            }
            0xb => topology(sub),
            0xd => self.xsave(sub, view),
            HYPERVISOR_LEAF => hypervisor(HYPERVISOR_LEAF, &HYPERVISOR_NAME),
            KVM_LEAF => hypervisor(KVM_LEAF + 1, &KVM_NAME),
            KVM_FEATURES_LEAF => [KVM_FEATURES, 0, 0, 0],
            0x8000_0000..=EXTENDED_MAX => self.extended[(leaf & 0xff) as usize],
            // Leaves that only a known hypervisor has.
            0x4000_0001..=0x4000_ffff => [0; 4],
            _ => self.basic.get(leaf as usize).copied().unwrap_or(self.basic[BASIC_MAX as usize]),
        }
    }

    #[inline]
    fn leaf_1(&self, view: CpuView) -> Answer {
        const OSXSAVE: u32 = 1 << 27;
        let mut answer = self.basic[1];
        if view.cr4 & cr4::OSXSAVE != 0 {
            answer[2] |= OSXSAVE;
        }
        answer
    }

    /// Leaf 0Dh: sizes of what XCR0 enables and of all; then each component's size and offset. Sub-leaf 1 has none of the
    /// forms of XSAVE that go by what was used since.
    fn xsave(&self, sub: u32, view: CpuView) -> Answer {
        let all = self.limits().xcr0;
        if all == 0 {
            return [0; 4];
        }
        let component =
            |bit: u32| COMPONENTS.iter().find(|c| u32::from(c.bit) == bit && all & 1 << c.bit != 0);
        match sub {
            0 => [all as u32, xsave_bytes(view.xcr0 & all), xsave_bytes(all), (all >> 32) as u32],
            1 => [0; 4],
            _ => component(sub).map_or([0; 4], |c| [c.size, c.offset, 0, 0]),
        }
    }

    /// Compares with a host. `host` executes CPUID there.
    ///
    /// # Errors
    /// The first thing that it lacks.
    pub fn check(&self, host: impl Fn(u32, u32) -> Answer) -> Result<(), Missing> {
        let missing = |feature| Err(Missing { profile: self.name, feature });
        let (basic, extended) = (host(0, 0)[0], host(0x8000_0000, 0)[0]);
        let exists = |leaf: u32| if leaf < 0x8000_0000 { leaf <= basic } else { leaf <= extended };
        let ask = |leaf, sub| if exists(leaf) { host(leaf, sub) } else { [0; 4] };
        for feature in self.features().filter(|feature| feature.source == Source::Host) {
            let (leaf, register) = feature.word.place();
            if ask(leaf, 0)[register] & feature.mask() == 0 {
                return missing(feature.name);
            }
        }
        let width = ask(0x8000_0008, 0)[0] & 0xff;
        if width < u32::from(self.physical_bits) {
            return missing("physical address of that width");
        }
        let all = self.limits().xcr0;
        let supported = |[eax, _, _, edx]: Answer| u64::from(edx) << 32 | u64::from(eax);
        if all & !supported(ask(0xd, 0)) != 0 {
            return missing("XSAVE of all state components");
        }
        for part in COMPONENTS.iter().filter(|c| all & 1 << c.bit != 0) {
            if ask(0xd, part.bit.into())[..2] != [part.size, part.offset] {
                return missing("XSAVE area of the usual layout");
            }
        }
        Ok(())
    }

    const fn build(
        name: &'static str,
        level: Level,
        signature: u32,
        physical_bits: u8,
        brand: [u8; 48],
    ) -> Self {
        let v4 = level as u8 >= Level::V4 as u8;
        let mut basic = [[0; 4]; BASIC_MAX as usize + 1];
        basic[0] = [BASIC_MAX, little(b"Genu", 0), little(b"ntel", 0), little(b"ineI", 0)];
        // EBX: APIC identifier 0, one logical processor, CLFLUSH of 8 times 8 bytes.
        basic[1] = [
            signature,
            0x0001_0800,
            features::word(level, Word::Basic1Ecx),
            features::word(level, Word::Basic1Edx),
        ];
        // TLBs and prefetching by descriptor; FFh: the caches are in leaf 4.
        basic[2] = [0x7603_6301, 0x00f0_b5ff, 0, 0x00c3_0000];
        basic[6][0] = features::word(level, Word::Basic6Eax);
        basic[7][1] = features::word(level, Word::Basic7Ebx);
        basic[0x15] = [1, TSC_PER_CRYSTAL, CRYSTAL_HZ, 0];
        basic[0x16] = [CORE_MHZ, CORE_MHZ, BUS_MHZ, 0];
        let mut extended = [[0; 4]; (EXTENDED_MAX & 0xff) as usize + 1];
        extended[0][0] = EXTENDED_MAX;
        extended[1][2] = features::word(level, Word::Extended1Ecx);
        extended[1][3] = features::word(level, Word::Extended1Edx);
        let mut i = 0;
        while i < 12 {
            extended[2 + i / 4][i % 4] = little(&brand, 4 * i);
            i += 1;
        }
        extended[6][2] = if v4 { 0x0400_8040 } else { 0x0100_6040 };
        extended[7][3] = features::word(level, Word::Extended7Edx);
        // 48 bits of linear address.
        extended[8][0] = 48 << 8 | physical_bits as u32;
        Self { name, level, physical_bits, basic, caches: caches(v4), extended }
    }
}

/// Leaf 4: L1 data and instructions, L2, L3, none of them shared. Skylake-SP has a larger L2 and a smaller L3.
const fn caches(v4: bool) -> [Answer; 4] {
    const fn cache(kind: u32, level: u32, ways: u32, sets: u32, flags: u32) -> Answer {
        const LINE: u32 = 64;
        const SELF_INITIALIZING: u32 = 1 << 8;
        [SELF_INITIALIZING | level << 5 | kind, (ways - 1) << 22 | (LINE - 1), sets - 1, flags]
    }
    const DATA: u32 = 1;
    const CODE: u32 = 2;
    const UNIFIED: u32 = 3;
    const INCLUSIVE: u32 = 2;
    const HASHED: u32 = 4;
    let (second, third) = if v4 {
        (cache(UNIFIED, 2, 16, 1024, 0), cache(UNIFIED, 3, 11, 12288, HASHED))
    } else {
        (cache(UNIFIED, 2, 8, 512, 0), cache(UNIFIED, 3, 16, 8192, INCLUSIVE | HASHED))
    };
    [cache(DATA, 1, 8, 64, 0), cache(CODE, 1, 8, 64, 0), second, third]
}

/// Leaf 0Bh: one thread in one core, x2APIC identifier 0.
const fn topology(sub: u32) -> Answer {
    match sub {
        0 => [0, 1, 0x100, 0],
        1 => [0, 1, 0x201, 0],
        _ => [0, 0, sub & 0xff, 0],
    }
}

/// The first leaf of a hypervisor's interface: its last leaf and its name.
const fn hypervisor(last: u32, name: &[u8; 12]) -> Answer {
    [last, little(name, 0), little(name, 4), little(name, 8)]
}

/// Bytes of a standard XSAVE area with these components.
fn xsave_bytes(mask: u64) -> u32 {
    let enabled = COMPONENTS.iter().filter(|c| mask & 1 << c.bit != 0);
    enabled.map(|c| c.offset + c.size).max().unwrap_or(XSAVE_BASE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const IDLE: CpuView = CpuView { cr4: 0, xcr0: 1 };

    fn v(n: usize) -> &'static Profile {
        &PROFILES[n - 2]
    }

    /// A host that is exactly like the profile.
    fn host(profile: &'static Profile) -> impl Fn(u32, u32) -> Answer {
        move |leaf, sub| profile.cpuid(leaf, sub, IDLE)
    }

    #[test]
    fn profiles_are_found_by_name() {
        for profile in Profile::all() {
            assert_eq!(profile.limits().gigabyte_pages, profile.has("1-GByte pages"), "{}", profile.name);
            assert_eq!(Profile::named(profile.name()).map(Profile::level), Some(profile.level()));
        }
        assert_eq!(Profile::named("x86-64-v5"), None);
    }

    #[test]
    fn the_fixed_leaves_say_what_they_should() {
        for profile in Profile::all() {
            let cpuid = |leaf, sub| profile.cpuid(leaf, sub, IDLE);
            let [max, b, c, d] = cpuid(0, 0);
            let vendor: std::vec::Vec<u8> = [b, d, c].into_iter().flat_map(u32::to_le_bytes).collect();
            assert_eq!((max, &vendor[..]), (0x16, &b"GenuineIntel"[..]));
            assert_eq!(cpuid(0x4000_0000, 0), [0x4000_0000, 0x6b63_6f4c, 0x7065_7473, 0x6b63_6f4c]);
            assert_eq!(cpuid(0x4000_0100, 0), [0x4000_0101, 0x4b4d_564b, 0x564b_4d56, 0x4d], "KVMKVMKVM");
            assert_eq!(cpuid(0x4000_0101, 0), [2, 0, 0, 0], "no paravirtual clock, no other device");
            assert_ne!(cpuid(1, 0)[2] & 1 << 31, 0, "hypervisor");
            assert_eq!(cpuid(1, 0)[1] >> 24, 0, "APIC identifier");
            for zero in [5, 9, 0xa, 0x12, 0x14] {
                assert_eq!(cpuid(zero, 0), [0; 4], "leaf {zero:#x}");
            }
            assert_eq!(cpuid(0xd, 1), [0; 4], "no XSAVEOPT, XSAVEC, XGETBV 1, XSAVES");
            assert_eq!(cpuid(7, 1), [0; 4]);
            let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
            assert_eq!(u64::from(crystal) * u64::from(numerator) / u64::from(denominator), TSC_HZ);
            assert_eq!(cpuid(0x16, 0)[0], 1000);
            assert_eq!(cpuid(0x17, 9), cpuid(0x16, 0), "beyond the highest");
            assert_eq!(cpuid(0x8000_0009, 0), cpuid(0x16, 0), "beyond the highest");
            assert_eq!(cpuid(0x8000_0008, 0)[0], 48 << 8 | u32::from(profile.physical_bits()));
        }
    }

    #[test]
    fn the_brand_string_names_the_profile() {
        for profile in Profile::all() {
            let words = (0x8000_0002..=0x8000_0004).flat_map(|leaf| profile.cpuid(leaf, 0, IDLE));
            let bytes: std::vec::Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            let text = core::str::from_utf8(&bytes).unwrap().trim_end_matches('\0');
            assert!(text.contains(profile.name()) && bytes[47] == 0, "{text}");
        }
    }

    #[test]
    fn the_caches_have_their_sizes() {
        let kib = |profile: &Profile, sub| {
            let [_, b, c, _] = profile.cpuid(4, sub, IDLE);
            ((b >> 22) + 1) * ((b & 0xfff) + 1) * (c + 1) / 1024
        };
        assert_eq!([0, 1, 2, 3].map(|i| kib(v(3), i)), [32, 32, 256, 8192]);
        assert_eq!([0, 1, 2, 3].map(|i| kib(v(4), i)), [32, 32, 1024, 8448]);
        assert_eq!(v(3).cpuid(4, 4, IDLE), [0; 4], "no more caches");
        // Leaf 80000006h repeats the size of the L2.
        assert_eq!(v(3).cpuid(0x8000_0006, 0, IDLE)[2] >> 16, 256);
        assert_eq!(v(4).cpuid(0x8000_0006, 0, IDLE)[2] >> 16, 1024);
    }

    #[test]
    fn osxsave_and_the_size_of_the_state_follow_the_guest() {
        let view = |cr4, xcr0| CpuView { cr4, xcr0 };
        assert_eq!(v(3).cpuid(1, 0, view(0, 1))[2] & 1 << 27, 0);
        assert_ne!(v(3).cpuid(1, 0, view(cr4::OSXSAVE, 1))[2] & 1 << 27, 0);
        let sizes = |profile: &Profile, xcr0| profile.cpuid(0xd, 0, view(0, xcr0));
        assert_eq!(sizes(v(3), 1), [7, 576, 832, 0]);
        assert_eq!(sizes(v(3), 3), [7, 576, 832, 0]);
        assert_eq!(sizes(v(3), 7), [7, 832, 832, 0]);
        assert_eq!(sizes(v(4), 7), [0xe7, 832, 2688, 0]);
        assert_eq!(sizes(v(4), 0xe7), [0xe7, 2688, 2688, 0]);
        assert_eq!(v(4).cpuid(0xd, 7, IDLE), [1024, 1664, 0, 0]);
        assert_eq!(v(3).cpuid(0xd, 7, IDLE), [0; 4], "v3 has no ZMM registers");
        assert_eq!(v(2).cpuid(0xd, 0, IDLE), [0; 4], "v2 has no XSAVE");
    }

    #[test]
    fn topology_is_one_thread_of_one_core() {
        assert_eq!(v(3).cpuid(0xb, 0, IDLE), [0, 1, 0x100, 0]);
        assert_eq!(v(3).cpuid(0xb, 1, IDLE), [0, 1, 0x201, 0]);
        assert_eq!(v(3).cpuid(0xb, 7, IDLE), [0, 0, 7, 0]);
    }

    #[test]
    fn a_host_must_have_at_least_the_level() {
        for profile in Profile::all() {
            for wanted in Profile::all() {
                let fits = wanted.check(host(profile)).is_ok();
                assert_eq!(fits, wanted.level() <= profile.level(), "{} on {}", wanted.name, profile.name);
            }
            assert_eq!(Profile::best(host(profile)).map(Profile::name), Some(profile.name));
        }
        let error = v(3).check(host(v(2))).unwrap_err();
        assert_eq!(error.feature, "PCLMULQDQ");
        assert_eq!(
            error.to_string(),
            "this host has no PCLMULQDQ, which the processor profile x86-64-v3 shows"
        );
    }

    /// Two recorded hosts: the emulated machine's Skylake-X, and a Haswell-EP (Xeon E5-2690 v3).
    #[test]
    fn recorded_hosts_get_the_best_profile_they_can() {
        let skylake_x = |leaf: u32, sub: u32| match (leaf, sub) {
            (0, _) => [0x16, 0, 0, 0],
            (1, _) => [0x50654, 0x10800, 0x7ffe_fbff, 0xbfeb_fbff],
            (7, 0) => [0, 0xd19f_67eb, 0, 0],
            (0xd, 0) => [0xe7, 0xa80, 0xa80, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0xd, 5) => [64, 1088, 0, 0],
            (0xd, 6) => [512, 1152, 0, 0],
            (0xd, 7) => [1024, 1664, 0, 0],
            (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, 0x121, 0x2c10_0800],
            (0x8000_0008, _) => [0x3028, 0, 0, 0],
            _ => [0; 4],
        };
        assert_eq!(Profile::best(skylake_x).map(Profile::name), Some("x86-64-v4"));
        let haswell_ep = |leaf: u32, sub: u32| match (leaf, sub) {
            (0, _) => [0xf, 0, 0, 0],
            (1, _) => [0x306f2, 0x20_0800, 0x7ffe_fbff, 0xbfeb_fbff],
            (7, 0) => [0, 0x37ab, 0, 0],
            (0xd, 0) => [7, 832, 832, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, 0x21, 0x2c10_0800],
            (0x8000_0008, _) => [0x302e, 0, 0, 0],
            _ => [0; 4],
        };
        assert_eq!(Profile::best(haswell_ep).map(Profile::name), Some("x86-64-v3"));
        assert_eq!(v(4).check(haswell_ep).map_err(|m| m.feature), Err("AVX512F"));
        let narrow = |leaf, sub| if leaf == 0x8000_0008 { [0x3024, 0, 0, 0] } else { haswell_ep(leaf, sub) };
        assert_eq!(v(3).check(narrow).map_err(|m| m.feature), Err("physical address of that width"));
        let moved =
            |leaf, sub| if (leaf, sub) == (0xd, 2) { [256, 640, 0, 0] } else { haswell_ep(leaf, sub) };
        assert_eq!(v(3).check(moved).map_err(|m| m.feature), Err("XSAVE area of the usual layout"));
        let old = |leaf, sub| if leaf == 7 || leaf == 0 { [6, 0, 0, 0] } else { haswell_ep(leaf, sub) };
        assert!(v(3).check(old).is_err(), "leaf 7 beyond the highest is not looked at");
    }

    #[test]
    fn every_leaf_is_answered_whatever_the_guest_asks() {
        for profile in Profile::all() {
            for leaf in
                (0..0x30).chain(0x3fff_fff0..0x4000_0110).chain(0x8000_0000..0x8000_0020).chain([u32::MAX])
            {
                for sub in [0, 1, 2, 5, 63, 64, u32::MAX] {
                    let all = CpuView { cr4: u64::MAX, xcr0: u64::MAX };
                    let _ = profile.cpuid(leaf, sub, all);
                }
            }
        }
    }
}
