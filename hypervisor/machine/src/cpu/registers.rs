//! Which values the control registers take, and what follows from a change (SDM vol. 2, MOV to control registers, XSETBV,
//! WRMSR; vol. 3A, "Control Registers", "Paging"). Pure: whoever emulates an access reads the registers, asks here, and
//! carries out what is answered.

/// Bits of CR0.
#[allow(missing_docs)]
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// All bits with a meaning; the other ones below bit 32 are ignored when written.
    pub const DEFINED: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4.
#[allow(missing_docs)]
pub mod cr4 {
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const PGE: u64 = 1 << 7;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const DE: u64 = 1 << 3;
    /// What every profile has: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT.
    pub const LEVEL_2: u64 = 0x7ff;
}

/// Bits of IA32_EFER.
#[allow(missing_docs)]
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// Bits of XCR0.
#[allow(missing_docs)]
pub mod xcr0 {
    pub const X87: u64 = 1 << 0;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    /// Opmask, ZMM_Hi256 and Hi16_ZMM, which come only together.
    pub const AVX512: u64 = 7 << 5;
}

/// The access faults: #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// The bits that a profile lets the guest set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CR4.
    pub cr4: u64,
    /// XCR0; 0 = there is no XSAVE.
    pub xcr0: u64,
    /// Width of a physical address, bits.
    pub physical_bits: u8,
    /// There are 1-GByte pages.
    pub gigabyte_pages: bool,
}

impl Limits {
    /// The bits of an address that must be 0.
    const fn reserved_address(self) -> u64 {
        !((1 << self.physical_bits) - 1)
    }
}

/// The registers that decide how addresses are translated, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// CS.L: with EFER.LMA, the guest runs 64-bit code.
    pub code_64: bool,
    /// TR has a 16-bit TSS, which long mode does not know.
    pub task_16: bool,
}

impl Paging {
    const fn paging(&self) -> bool {
        self.cr0 & cr0::PG != 0
    }
    const fn long(&self) -> bool {
        self.efer & efer::LMA != 0
    }
    /// PAE paging: four top entries in registers (SDM vol. 3A, "PDPTE Registers").
    const fn legacy_pae(&self) -> bool {
        self.paging() && self.cr4 & cr4::PAE != 0 && !self.long()
    }
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The registers after it.
    pub paging: Paging,
    /// The four top entries of PAE paging have to be loaded from where CR3 says; if one is not valid, the access faults.
    pub load_pdptes: bool,
    /// Translations have to be dropped.
    pub flush: bool,
}

/// MOV to CR0, LMSW, CLTS.
///
/// # Errors
/// The value is not taken.
pub const fn write_cr0(old: &Paging, value: u64) -> Result<Change, GeneralProtection> {
    const RELOADS: u64 = cr0::CD | cr0::NW | cr0::PG;
    let turns_on = value & cr0::PG != 0 && !old.paging();
    let turns_off = value & cr0::PG == 0 && old.paging();
    let enters_long = turns_on && old.efer & efer::LME != 0;
    let bad = value >> 32 != 0
        || value & cr0::PG != 0 && value & cr0::PE == 0
        || value & cr0::NW != 0 && value & cr0::CD == 0
        || enters_long && (old.cr4 & cr4::PAE == 0 || old.code_64 || old.task_16)
        || turns_off && (old.long() && old.code_64 || old.cr4 & cr4::PCIDE != 0);
    if bad {
        return Err(GeneralProtection);
    }
    let mut paging = Paging { cr0: value & cr0::DEFINED | cr0::ET, ..*old };
    if enters_long {
        paging.efer |= efer::LMA;
    } else if turns_off {
        paging.efer &= !efer::LMA;
    }
    let changed = paging.cr0 ^ old.cr0;
    let load_pdptes = paging.legacy_pae() && changed & RELOADS != 0;
    Ok(Change { paging, load_pdptes, flush: turns_on || turns_off })
}

/// MOV to CR4.
///
/// # Errors
/// The value is not taken.
pub const fn write_cr4(old: &Paging, value: u64, limits: Limits) -> Result<Change, GeneralProtection> {
    const RELOADS: u64 = cr4::PGE | cr4::PSE | cr4::PAE | cr4::SMEP;
    /// The SDM asks for less in some of these cases; more is always allowed.
    const FLUSHES: u64 = cr4::PGE | cr4::PAE | cr4::PSE | cr4::SMEP | cr4::SMAP | cr4::PCIDE;
    let sets_pcide = value & !old.cr4 & cr4::PCIDE != 0;
    let bad = value & !limits.cr4 != 0
        || old.long() && value & cr4::PAE == 0
        || sets_pcide && (!old.long() || old.cr3 & 0xfff != 0);
    if bad {
        return Err(GeneralProtection);
    }
    let paging = Paging { cr4: value, ..*old };
    let changed = value ^ old.cr4;
    let load_pdptes = paging.legacy_pae() && changed & RELOADS != 0;
    Ok(Change { paging, load_pdptes, flush: changed & FLUSHES != 0 })
}

/// MOV to CR3. Bit 63 with process-context identifiers keeps translations; it is not stored.
///
/// # Errors
/// The value is not taken.
pub const fn write_cr3(old: &Paging, value: u64, limits: Limits) -> Result<Change, GeneralProtection> {
    const KEEP: u64 = 1 << 63;
    let tagged = old.cr4 & cr4::PCIDE != 0;
    let kept = tagged && value & KEEP != 0;
    let base = if tagged { value & !KEEP } else { value };
    let base = if old.long() || base >> 32 != 0 { base } else { base & 0xffff_ffff };
    if base & limits.reserved_address() != 0 {
        return Err(GeneralProtection);
    }
    let paging = Paging { cr3: base, ..*old };
    Ok(Change { paging, load_pdptes: paging.legacy_pae(), flush: !kept })
}

/// WRMSR of IA32_EFER; the value it has afterwards. LMA is not written but follows LME and CR0.PG (SDM vol. 3A,
/// "Initializing IA-32e Mode").
///
/// # Errors
/// The value is not taken.
pub const fn write_efer(old: &Paging, value: u64) -> Result<u64, GeneralProtection> {
    const WRITABLE: u64 = efer::SCE | efer::LME | efer::NXE;
    let reserved = value & !(WRITABLE | efer::LMA) != 0;
    if reserved || old.paging() && (value ^ old.efer) & efer::LME != 0 {
        return Err(GeneralProtection);
    }
    Ok(value & WRITABLE | old.efer & efer::LMA)
}

/// XSETBV, after the checks of privilege and CR4.OSXSAVE: the value that XCR0 takes.
///
/// # Errors
/// The register or its value is not taken.
pub const fn write_xcr(index: u32, value: u64, limits: Limits) -> Result<u64, GeneralProtection> {
    let avx512 = value & xcr0::AVX512;
    let bad = index != 0
        || value & !limits.xcr0 != 0
        || value & xcr0::X87 == 0
        || value & xcr0::AVX != 0 && value & xcr0::SSE == 0
        || avx512 != 0 && (avx512 != xcr0::AVX512 || value & xcr0::AVX == 0);
    if bad { Err(GeneralProtection) } else { Ok(value) }
}

/// Checks the four top entries of PAE paging (SDM vol. 3A, table "Format of a PAE Page-Directory-Pointer-Table Entry").
///
/// # Errors
/// A present entry has a reserved bit.
pub const fn check_pdptes(entries: &[u64; 4], limits: Limits) -> Result<(), GeneralProtection> {
    const PRESENT: u64 = 1;
    const RESERVED: u64 = 0x1e6;
    let mut i = 0;
    while i < entries.len() {
        if entries[i] & PRESENT != 0 && entries[i] & (RESERVED | limits.reserved_address()) != 0 {
            return Err(GeneralProtection);
        }
        i += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;
    use proptest::prelude::*;

    const REAL: Paging = Paging { cr0: 0x10, cr3: 0, cr4: 0, efer: 0, code_64: false, task_16: false };
    const PROTECTED: Paging = Paging { cr0: 0x11, ..REAL };
    const LONG: Paging =
        Paging { cr0: 0x8005_0033, cr3: 0x1000, cr4: 0x20, efer: 0xd01, code_64: true, task_16: false };

    fn limits(level: usize) -> Limits {
        Profile::all()[level - 2].limits()
    }

    #[test]
    fn cr0_takes_no_impossible_combination() {
        for bad in [cr0::PG, cr0::NW, 1 << 32 | 1, 1 << 63] {
            assert_eq!(write_cr0(&REAL, bad), Err(GeneralProtection), "{bad:#x}");
        }
        assert_eq!(write_cr0(&PROTECTED, 0x6000_0011).unwrap().paging.cr0, 0x6000_0011, "CD and NW");
        assert_eq!(
            write_cr0(&REAL, 0xffc0 | 1).unwrap().paging.cr0,
            0x11,
            "reserved bits are ignored, ET is 1"
        );
    }

    #[test]
    fn long_mode_begins_and_ends_with_paging() {
        let ready = Paging { cr4: cr4::PAE, efer: efer::LME, ..PROTECTED };
        let change = write_cr0(&ready, 0x8000_0011).unwrap();
        assert_eq!(change.paging.efer, efer::LME | efer::LMA);
        assert!(change.flush && !change.load_pdptes);
        assert!(write_cr0(&Paging { cr4: 0, ..ready }, 0x8000_0011).is_err(), "without PAE");
        assert!(write_cr0(&Paging { code_64: true, ..ready }, 0x8000_0011).is_err(), "with CS.L");
        assert!(write_cr0(&Paging { task_16: true, ..ready }, 0x8000_0011).is_err(), "with a 16-bit TSS");
        assert!(write_cr0(&LONG, 0x11).is_err(), "64-bit code cannot leave");
        let compatible = Paging { code_64: false, ..LONG };
        assert_eq!(write_cr0(&compatible, 0x11).unwrap().paging.efer, 0x901);
        let tagged = Paging { cr4: cr4::PAE | cr4::PCIDE, ..compatible };
        assert!(write_cr0(&tagged, 0x11).is_err(), "CR4.PCIDE");
    }

    #[test]
    fn pae_paging_loads_its_entries_when_the_manual_says() {
        let ready = Paging { cr4: cr4::PAE, ..PROTECTED };
        let on = write_cr0(&ready, 0x8000_0011).unwrap();
        assert!(on.load_pdptes);
        assert!(write_cr0(&on.paging, 0xc000_0011).unwrap().load_pdptes, "CD");
        assert!(!write_cr0(&on.paging, 0x8001_0011).unwrap().load_pdptes, "WP");
        let all = limits(4);
        assert!(write_cr4(&on.paging, cr4::PAE | cr4::PGE, all).unwrap().load_pdptes);
        assert!(!write_cr4(&on.paging, cr4::PAE | cr4::DE, all).unwrap().load_pdptes);
        assert!(write_cr3(&on.paging, 0x2000, all).unwrap().load_pdptes);
        assert!(!write_cr3(&LONG, 0x2000, all).unwrap().load_pdptes);
        for (entry, fine) in [(0, true), (0x1e6, true), (0x1001, true), (0x1003, false), (0x1021, false)] {
            assert_eq!(check_pdptes(&[0, 0, 0, entry], all).is_ok(), fine, "{entry:#x}");
        }
        assert!(check_pdptes(&[1 | 1 << 39, 0, 0, 0], all).is_err(), "beyond the physical address");
    }

    #[test]
    fn cr4_takes_what_the_profile_has() {
        assert!(write_cr4(&LONG, 0x20 | cr4::OSXSAVE, limits(2)).is_err());
        assert!(write_cr4(&LONG, 0x20 | cr4::OSXSAVE, limits(3)).is_ok());
        assert!(write_cr4(&LONG, 0x20 | cr4::SMAP, limits(3)).is_err());
        for never in [1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 22, 1 << 23, 1 << 24, 1 << 32] {
            assert!(write_cr4(&LONG, 0x20 | never, limits(4)).is_err(), "{never:#x}");
        }
        assert!(write_cr4(&LONG, 0, limits(4)).is_err(), "PAE stays in long mode");
    }

    #[test]
    fn process_context_identifiers_begin_at_zero_in_long_mode() {
        let with = 0x20 | cr4::PCIDE;
        assert!(write_cr4(&LONG, with, limits(3)).is_ok());
        assert!(write_cr4(&Paging { cr3: 0x1001, ..LONG }, with, limits(3)).is_err());
        assert!(write_cr4(&Paging { cr4: 0x20, ..PROTECTED }, with, limits(3)).is_err());
        let tagged = Paging { cr4: with, ..LONG };
        let kept = write_cr3(&tagged, 1 << 63 | 0x2001, limits(3)).unwrap();
        assert_eq!((kept.paging.cr3, kept.flush), (0x2001, false));
        assert!(write_cr3(&tagged, 0x2001, limits(3)).unwrap().flush);
        assert!(write_cr3(&LONG, 1 << 63 | 0x2000, limits(3)).is_err());
        assert!(write_cr3(&LONG, 1 << 39, limits(3)).is_err(), "beyond the physical address");
    }

    #[test]
    fn efer_keeps_lma_and_its_reserved_bits() {
        assert_eq!(write_efer(&LONG, 0xd01), Ok(0xd01));
        assert_eq!(write_efer(&LONG, 0x101), Ok(0x501), "LMA is not written");
        assert_eq!(write_efer(&LONG, 0xc01), Err(GeneralProtection), "LME stays while paging is on");
        assert_eq!(write_efer(&PROTECTED, 0x900), Ok(0x900));
        assert_eq!(write_efer(&PROTECTED, 0x500), Ok(0x100));
        assert_eq!(write_efer(&PROTECTED, 1 << 12), Err(GeneralProtection));
    }

    #[test]
    fn xcr0_follows_the_rules_of_its_components() {
        let [v2, v3, v4] = [2, 3, 4].map(limits);
        for (value, in_v3, in_v4) in [
            (1, true, true),
            (3, true, true),
            (7, true, true),
            (0xe7, false, true),
            (5, false, false),
            (6, false, false),
            (0, false, false),
            (0x27, false, false),
            (0x67, false, false),
            (0xe3, false, false),
            (0x1f, false, false),
            (0x2e7, false, false),
            (1 << 63 | 7, false, false),
        ] {
            assert_eq!(write_xcr(0, value, v3).is_ok(), in_v3, "v3 {value:#x}");
            assert_eq!(write_xcr(0, value, v4).is_ok(), in_v4, "v4 {value:#x}");
            assert!(write_xcr(0, value, v2).is_err());
            assert!(write_xcr(1, value, v4).is_err(), "there is only XCR0");
        }
    }

    proptest! {
        /// Whatever is written in whatever order, the state stays one that a processor can be in.
        #[test]
        fn no_sequence_of_writes_reaches_an_impossible_state(
            writes in proptest::collection::vec((0..4u8, any::<u64>(), any::<u32>()), 0..60),
        ) {
            let limits = limits(4);
            let mut now = REAL;
            for (register, wide, bits) in writes {
                // Single bits and dense values, so that many writes are taken.
                let flip = 1u64 << (bits % 33);
                let result = match register {
                    0 => write_cr0(&now, now.cr0 ^ flip),
                    1 => write_cr4(&now, now.cr4 ^ flip, limits),
                    2 => write_cr3(&now, wide & 0x7f_ffff_f000, limits),
                    _ => write_efer(&now, now.efer ^ flip).map(|efer| Change {
                        paging: Paging { efer, ..now }, load_pdptes: false, flush: false,
                    }),
                };
                if let Ok(change) = result {
                    now = change.paging;
                }
                prop_assert!(!now.paging() || now.cr0 & cr0::PE != 0);
                prop_assert_eq!(now.long(), now.paging() && now.efer & efer::LME != 0);
                prop_assert!(!now.long() || now.cr4 & cr4::PAE != 0);
                prop_assert!(now.cr4 & cr4::PCIDE == 0 || now.long());
                prop_assert_eq!(now.cr4 & !limits.cr4, 0);
                prop_assert!(now.cr0 & cr0::NW == 0 || now.cr0 & cr0::CD != 0);
            }
        }
    }
}
