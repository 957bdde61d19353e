//! The features that CPUID shows, each with the microarchitecture level that begins to have it.

/// A microarchitecture level of the x86-64 psABI. Each has everything of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// SSE4.2, POPCNT, CMPXCHG16B: as of Westmere.
    V2 = 2,
    /// AVX2, BMI2, FMA, XSAVE: as of Haswell.
    V3 = 3,
    /// AVX-512 F, BW, CD, DQ, VL: as of Skylake-SP.
    V4 = 4,
}

/// A word of CPUID that holds feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Leaf 1, ECX.
    Basic1Ecx,
    /// Leaf 1, EDX.
    Basic1Edx,
    /// Leaf 6, EAX.
    Basic6Eax,
    /// Leaf 7, sub-leaf 0, EBX.
    Basic7Ebx,
    /// Leaf 80000001h, ECX.
    Extended1Ecx,
    /// Leaf 80000001h, EDX.
    Extended1Edx,
    /// Leaf 80000007h, EDX.
    Extended7Edx,
}

impl Word {
    /// Leaf and register (EAX to EDX as 0 to 3).
    pub const fn place(self) -> (u32, usize) {
        match self {
            Self::Basic1Ecx => (1, 2),
            Self::Basic1Edx => (1, 3),
            Self::Basic6Eax => (6, 0),
            Self::Basic7Ebx => (7, 1),
            Self::Extended1Ecx => (0x8000_0001, 2),
            Self::Extended1Edx => (0x8000_0001, 3),
            Self::Extended7Edx => (0x8000_0007, 3),
        }
    }
}

/// Who does the work of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host's processor, without an exit: it must have the feature.
    Host,
    /// The virtual machine.
    Virtual,
}

/// One feature bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the SDM.
    pub name: &'static str,
    /// Where it is.
    pub word: Word,
    /// Its bit.
    pub bit: u8,
    /// The first level that has it.
    pub since: Level,
    /// Who does its work.
    pub source: Source,
}

impl Feature {
    /// The feature in a register.
    pub const fn mask(&self) -> u32 {
        1 << self.bit
    }
}

macro_rules! features {
    ($( $word:ident { $( $bit:literal $name:literal $since:ident $source:ident; )* } )*) => {
        /// Every feature that any profile shows. What is not here is never shown: MONITOR/MWAIT, UMWAIT, XSAVEOPT, XSAVEC, XGETBV
        /// with ECX 1, XSAVES, TSX, AMX, CET, protection keys, SGX, Processor Trace, performance monitoring and VMX, each of which
        /// would let the guest see what differs between two hosts or two runs.
        pub const FEATURES: &[Feature] = &[ $( $( Feature {
            name: $name, word: Word::$word, bit: $bit, since: Level::$since, source: Source::$source,
        }, )* )* ];
    };
}

features! {
    Basic1Ecx {
        0 "SSE3" V2 Host;
        1 "PCLMULQDQ" V3 Host;
        9 "SSSE3" V2 Host;
        12 "FMA" V3 Host;
        13 "CMPXCHG16B" V2 Host;
        17 "PCID" V3 Host;
        19 "SSE4.1" V2 Host;
        20 "SSE4.2" V2 Host;
        21 "x2APIC" V2 Virtual;
        22 "MOVBE" V3 Host;
        23 "POPCNT" V2 Host;
        24 "TSC-deadline" V2 Virtual;
        25 "AESNI" V3 Host;
        26 "XSAVE" V3 Host;
        28 "AVX" V3 Host;
        29 "F16C" V3 Host;
        30 "RDRAND" V3 Host;
        31 "hypervisor" V2 Virtual;
    }
    Basic1Edx {
        0 "FPU" V2 Host;
        1 "VME" V2 Host;
        2 "DE" V2 Host;
        3 "PSE" V2 Host;
        4 "TSC" V2 Virtual;
        5 "MSR" V2 Virtual;
        6 "PAE" V2 Host;
        7 "MCE" V2 Host;
        8 "CMPXCHG8B" V2 Host;
        9 "APIC" V2 Virtual;
        11 "SYSENTER" V2 Host;
        12 "MTRR" V2 Virtual;
        13 "PGE" V2 Host;
        14 "MCA" V2 Virtual;
        15 "CMOV" V2 Host;
        16 "PAT" V2 Host;
        17 "PSE-36" V2 Host;
        19 "CLFLUSH" V2 Host;
        23 "MMX" V2 Host;
        24 "FXSR" V2 Host;
        25 "SSE" V2 Host;
        26 "SSE2" V2 Host;
        27 "self-snoop" V2 Virtual;
    }
    Basic6Eax {
        2 "ARAT" V2 Virtual;
    }
    Basic7Ebx {
        0 "FSGSBASE" V3 Host;
        1 "IA32_TSC_ADJUST" V2 Virtual;
        3 "BMI1" V3 Host;
        5 "AVX2" V3 Host;
        7 "SMEP" V3 Host;
        8 "BMI2" V3 Host;
        9 "ERMS" V3 Host;
        10 "INVPCID" V3 Host;
        16 "AVX512F" V4 Host;
        17 "AVX512DQ" V4 Host;
        18 "RDSEED" V4 Host;
        19 "ADX" V4 Host;
        20 "SMAP" V4 Host;
        23 "CLFLUSHOPT" V4 Host;
        24 "CLWB" V4 Host;
        28 "AVX512CD" V4 Host;
        30 "AVX512BW" V4 Host;
        31 "AVX512VL" V4 Host;
    }
    Extended1Ecx {
        0 "LAHF in 64-bit mode" V2 Host;
        5 "LZCNT" V3 Host;
        8 "PREFETCHW" V4 Host;
    }
    Extended1Edx {
        11 "SYSCALL" V2 Host;
        20 "execute-disable" V2 Host;
        26 "1-GByte pages" V3 Host;
        27 "RDTSCP" V2 Host;
        29 "Intel 64" V2 Host;
    }
    Extended7Edx {
        8 "invariant TSC" V2 Virtual;
    }
}

/// The features of a level in one word of CPUID.
pub const fn word(level: Level, word: Word) -> u32 {
    let (mut value, mut i) = (0, 0);
    while i < FEATURES.len() {
        let feature = &FEATURES[i];
        if feature.word as u8 == word as u8 && feature.since as u8 <= level as u8 {
            value |= feature.mask();
        }
        i += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_features_share_a_bit_or_a_name() {
        for (i, a) in FEATURES.iter().enumerate() {
            for b in &FEATURES[i + 1..] {
                assert!((a.word, a.bit) != (b.word, b.bit) && a.name != b.name, "{} and {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn what_would_tell_two_hosts_apart_is_shown_by_no_level() {
        let v4 = |w| word(Level::V4, w);
        assert_eq!(v4(Word::Basic1Ecx) & (1 << 3 | 1 << 5 | 1 << 6 | 1 << 15), 0, "MONITOR, VMX, SMX, PDCM");
        assert_eq!(v4(Word::Basic7Ebx) & (1 << 4 | 1 << 11 | 1 << 2 | 1 << 25), 0, "HLE, RTM, SGX, PT");
        assert_eq!(v4(Word::Basic1Edx) & (1 << 21 | 1 << 28), 0, "DS, HTT: one logical processor");
    }

    /// The psABI's table of microarchitecture levels.
    #[test]
    fn each_level_has_what_its_name_promises() {
        let names = |level: Level| -> std::vec::Vec<_> {
            FEATURES.iter().filter(|f| f.since <= level).map(|f| f.name).collect()
        };
        let v2 = ["CMPXCHG16B", "LAHF in 64-bit mode", "POPCNT", "SSE3", "SSE4.1", "SSE4.2", "SSSE3"];
        let v3 = ["AVX", "AVX2", "BMI1", "BMI2", "F16C", "FMA", "LZCNT", "MOVBE", "XSAVE"];
        let v4 = ["AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL"];
        for (level, own) in [(Level::V2, &v2[..]), (Level::V3, &v3[..]), (Level::V4, &v4[..])] {
            for name in own {
                assert!(names(level).contains(name), "{level:?} {name}");
            }
        }
        assert!(!names(Level::V2).contains(&"AVX") && !names(Level::V3).contains(&"AVX512F"));
    }
}
