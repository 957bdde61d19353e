//! What the processor's VMX can do, read once from the capability MSRs (SDM vol. 3D, appendix A) and kept as data.

use core::fmt;

/// Numbers of the capability MSRs and of the MSR that switches VMX on.
pub mod msr {
    /// IA32_FEATURE_CONTROL.
    pub const FEATURE_CONTROL: u32 = 0x3a;
    /// IA32_VMX_BASIC.
    pub const BASIC: u32 = 0x480;
    /// IA32_VMX_PINBASED_CTLS.
    pub const PINBASED_CTLS: u32 = 0x481;
    /// IA32_VMX_PROCBASED_CTLS.
    pub const PROCBASED_CTLS: u32 = 0x482;
    /// IA32_VMX_EXIT_CTLS.
    pub const EXIT_CTLS: u32 = 0x483;
    /// IA32_VMX_ENTRY_CTLS.
    pub const ENTRY_CTLS: u32 = 0x484;
    /// IA32_VMX_MISC.
    pub const MISC: u32 = 0x485;
    /// IA32_VMX_CR0_FIXED0.
    pub const CR0_FIXED0: u32 = 0x486;
    /// IA32_VMX_CR0_FIXED1.
    pub const CR0_FIXED1: u32 = 0x487;
    /// IA32_VMX_CR4_FIXED0.
    pub const CR4_FIXED0: u32 = 0x488;
    /// IA32_VMX_CR4_FIXED1.
    pub const CR4_FIXED1: u32 = 0x489;
    /// IA32_VMX_VMCS_ENUM.
    pub const VMCS_ENUM: u32 = 0x48a;
    /// IA32_VMX_PROCBASED_CTLS2.
    pub const PROCBASED_CTLS2: u32 = 0x48b;
    /// IA32_VMX_EPT_VPID_CAP.
    pub const EPT_VPID_CAP: u32 = 0x48c;
    /// IA32_VMX_TRUE_PINBASED_CTLS.
    pub const TRUE_PINBASED_CTLS: u32 = 0x48d;
    /// IA32_VMX_TRUE_PROCBASED_CTLS.
    pub const TRUE_PROCBASED_CTLS: u32 = 0x48e;
    /// IA32_VMX_TRUE_EXIT_CTLS.
    pub const TRUE_EXIT_CTLS: u32 = 0x48f;
    /// IA32_VMX_TRUE_ENTRY_CTLS.
    pub const TRUE_ENTRY_CTLS: u32 = 0x490;
    /// IA32_VMX_VMFUNC.
    pub const VMFUNC: u32 = 0x491;
    /// IA32_VMX_PROCBASED_CTLS3.
    pub const PROCBASED_CTLS3: u32 = 0x492;
    /// IA32_VMX_EXIT_CTLS2.
    pub const EXIT_CTLS2: u32 = 0x493;
}

/// A capability MSR that must exist and could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingMsr(pub u32);

impl fmt::Display for MissingMsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capability MSR {:#x} is announced and cannot be read", self.0)
    }
}

impl core::error::Error for MissingMsr {}

/// IA32_VMX_BASIC (SDM A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basic(pub u64);

impl Basic {
    /// The VMCS revision identifier that the first four bytes of a VMXON region and of a VMCS must hold.
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }
    /// Bytes to allocate for a VMXON region or a VMCS (at most 4096).
    pub const fn region_bytes(self) -> usize {
        ((self.0 >> 32) & 0x1fff) as usize
    }
    /// Physical addresses of VMX structures are limited to 32 bits.
    pub const fn addresses_limited_to_32_bits(self) -> bool {
        self.0 & 1 << 48 != 0
    }
    /// The memory type that the processor uses for the VMCS: 6 is write-back.
    pub const fn memory_type(self) -> u8 {
        ((self.0 >> 50) & 15) as u8
    }
    /// Exits of INS and OUTS fill in the instruction-information field.
    pub const fn reports_ins_outs(self) -> bool {
        self.0 & 1 << 54 != 0
    }
    /// The TRUE control MSRs exist: some default-1 controls may be cleared.
    pub const fn has_true_controls(self) -> bool {
        self.0 & 1 << 55 != 0
    }
    /// A hardware exception can be injected with or without an error code, whatever its vector.
    pub const fn injects_any_error_code(self) -> bool {
        self.0 & 1 << 56 != 0
    }
}

/// IA32_VMX_MISC (SDM A.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misc(pub u64);

impl Misc {
    /// The preemption timer counts down once each 2^this TSC ticks.
    pub const fn preemption_timer_shift(self) -> u8 {
        (self.0 & 31) as u8
    }
    /// VM exits store EFER.LMA into the entry control "IA-32e mode guest".
    pub const fn stores_lma(self) -> bool {
        self.0 & 1 << 5 != 0
    }
    /// The guest may be entered in the HLT state.
    pub const fn activity_hlt(self) -> bool {
        self.0 & 1 << 6 != 0
    }
    /// The guest may be entered in the shutdown state.
    pub const fn activity_shutdown(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// The guest may be entered in the wait-for-SIPI state.
    pub const fn activity_wait_for_sipi(self) -> bool {
        self.0 & 1 << 8 != 0
    }
    /// How many CR3-target values there are.
    pub const fn cr3_targets(self) -> u32 {
        ((self.0 >> 16) & 0x1ff) as u32
    }
    /// Entries that an MSR list should not exceed.
    pub const fn msr_list_entries(self) -> u32 {
        512 * (((self.0 >> 25) & 7) as u32 + 1)
    }
    /// VMWRITE may write VM-exit information fields.
    pub const fn writes_exit_information(self) -> bool {
        self.0 & 1 << 29 != 0
    }
    /// Software events may be injected with an instruction length of 0.
    pub const fn injects_zero_length(self) -> bool {
        self.0 & 1 << 30 != 0
    }
}

/// IA32_VMX_EPT_VPID_CAP (SDM A.10). All zero when neither EPT nor VPID exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EptVpid(pub u64);

macro_rules! ept_vpid_bits {
    ($( $(#[doc = $doc:literal])+ $name:ident = $bit:literal; )*) => {
        impl EptVpid {
            $( $(#[doc = $doc])+ pub const fn $name(self) -> bool { self.0 & 1 << $bit != 0 } )*
        }
    };
}
ept_vpid_bits! {
    /// EPT entries may allow execution without reading.
    execute_only = 0;
    /// Page walks of length 4.
    walk_length_4 = 6;
    /// Page walks of length 5.
    walk_length_5 = 7;
    /// EPT paging structures may be uncacheable.
    structures_uncacheable = 8;
    /// EPT paging structures may be write-back.
    structures_write_back = 14;
    /// 2-MByte EPT pages.
    pages_2m = 16;
    /// 1-GByte EPT pages.
    pages_1g = 17;
    /// INVEPT exists.
    invept = 20;
    /// Accessed and dirty flags for EPT.
    accessed_dirty = 21;
    /// Exits of EPT violations carry advanced information.
    advanced_information = 22;
    /// Supervisor shadow-stack control.
    supervisor_shadow_stack = 23;
    /// Single-context INVEPT.
    invept_single = 25;
    /// All-context INVEPT.
    invept_all = 26;
    /// INVVPID exists.
    invvpid = 32;
    /// Individual-address INVVPID.
    invvpid_address = 40;
    /// Single-context INVVPID.
    invvpid_single = 41;
    /// All-context INVVPID.
    invvpid_all = 42;
    /// Single-context INVVPID that keeps global translations.
    invvpid_single_keeping_globals = 43;
}

/// What one control word may be: a bit must be 1 if `must_be_one` has it, may be 1 only if `may_be_one` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowed {
    /// The allowed 0-settings: bits that must be 1.
    pub must_be_one: u64,
    /// The allowed 1-settings: bits that may be 1.
    pub may_be_one: u64,
}

impl Allowed {
    /// From a 32-bit control's MSR: low half the allowed 0-settings, high half the allowed 1-settings.
    pub const fn from_msr(value: u64) -> Self {
        Self { must_be_one: value & 0xffff_ffff, may_be_one: value >> 32 }
    }
    /// From a 64-bit control's MSR: allowed 1-settings only.
    pub const fn from_msr64(value: u64) -> Self {
        Self { must_be_one: 0, may_be_one: value }
    }
    /// Whether the word as a whole obeys.
    pub const fn permits(self, word: u64) -> bool {
        word & self.must_be_one == self.must_be_one && word & !self.may_be_one == 0
    }
}

/// Everything the capability MSRs say about one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// IA32_VMX_BASIC.
    pub basic: Basic,
    /// Pin-based VM-execution controls.
    pub pin: Allowed,
    /// Primary processor-based VM-execution controls.
    pub primary: Allowed,
    /// Secondary processor-based VM-execution controls; nothing allowed where they do not exist.
    pub secondary: Allowed,
    /// Tertiary processor-based VM-execution controls; nothing allowed where they do not exist.
    pub tertiary: Allowed,
    /// Primary VM-exit controls.
    pub exit: Allowed,
    /// Secondary VM-exit controls; nothing allowed where they do not exist.
    pub secondary_exit: Allowed,
    /// VM-entry controls.
    pub entry: Allowed,
    /// IA32_VMX_MISC.
    pub misc: Misc,
    /// Bits of CR0 that must be 1 in VMX operation.
    pub cr0_fixed0: u64,
    /// Bits of CR0 that may be 1 in VMX operation.
    pub cr0_fixed1: u64,
    /// Bits of CR4 that must be 1 in VMX operation.
    pub cr4_fixed0: u64,
    /// Bits of CR4 that may be 1 in VMX operation.
    pub cr4_fixed1: u64,
    /// Highest index of any VMCS field (bits 9:1 of IA32_VMX_VMCS_ENUM).
    pub highest_field_index: u32,
    /// EPT and VPID.
    pub ept_vpid: EptVpid,
    /// VM functions that may be enabled.
    pub vm_functions: u64,
}

impl Capabilities {
    /// Reads every capability MSR that exists, through `read_msr` (None: the read faulted).
    ///
    /// # Errors
    /// A MSR that the others announce cannot be read.
    pub fn from_reader(mut read_msr: impl FnMut(u32) -> Option<u64>) -> Result<Self, MissingMsr> {
        let mut read = |number: u32| read_msr(number).ok_or(MissingMsr(number));
        let basic = Basic(read(msr::BASIC)?);
        let exact = basic.has_true_controls();
        let mut control = |true_msr: u32, plain_msr: u32| {
            read(if exact { true_msr } else { plain_msr }).map(Allowed::from_msr)
        };
        let pin = control(msr::TRUE_PINBASED_CTLS, msr::PINBASED_CTLS)?;
        let primary = control(msr::TRUE_PROCBASED_CTLS, msr::PROCBASED_CTLS)?;
        let exit = control(msr::TRUE_EXIT_CTLS, msr::EXIT_CTLS)?;
        let entry = control(msr::TRUE_ENTRY_CTLS, msr::ENTRY_CTLS)?;

        let mut optional = |exists: bool, number: u32| if exists { read(number) } else { Ok(0) };
        let secondary = Allowed::from_msr(optional(primary.may_be_one & 1 << 31 != 0, msr::PROCBASED_CTLS2)?);
        let tertiary =
            Allowed::from_msr64(optional(primary.may_be_one & 1 << 17 != 0, msr::PROCBASED_CTLS3)?);
        let secondary_exit = Allowed::from_msr64(optional(exit.may_be_one & 1 << 31 != 0, msr::EXIT_CTLS2)?);
        let ept_vpid = EptVpid(optional(secondary.may_be_one & (1 << 1 | 1 << 5) != 0, msr::EPT_VPID_CAP)?);
        let vm_functions = optional(secondary.may_be_one & 1 << 13 != 0, msr::VMFUNC)?;

        Ok(Self {
            basic,
            pin,
            primary,
            secondary,
            tertiary,
            exit,
            secondary_exit,
            entry,
            misc: Misc(read(msr::MISC)?),
            cr0_fixed0: read(msr::CR0_FIXED0)?,
            cr0_fixed1: read(msr::CR0_FIXED1)?,
            cr4_fixed0: read(msr::CR4_FIXED0)?,
            cr4_fixed1: read(msr::CR4_FIXED1)?,
            highest_field_index: ((read(msr::VMCS_ENUM)? >> 1) & 0x1ff) as u32,
            ept_vpid,
            vm_functions,
        })
    }

    /// CR0 adjusted to what VMX operation demands of the host (SDM A.7).
    pub const fn host_cr0(&self, cr0: u64) -> u64 {
        (cr0 | self.cr0_fixed0) & self.cr0_fixed1
    }

    /// CR4 adjusted to what VMX operation demands (SDM A.8).
    pub const fn host_cr4(&self, cr4: u64) -> u64 {
        (cr4 | self.cr4_fixed0) & self.cr4_fixed1
    }

    /// Names the first item in which `other` differs; None if the two processors can run the same VMCS.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let word = |name, a: u64, b: u64| (a != b).then_some(Difference { name, this: a, other: b });
        let allowed = |name, a: Allowed, b: Allowed| {
            word(name, a.may_be_one, b.may_be_one).or(word(name, a.must_be_one, b.must_be_one))
        };
        None.or(word("IA32_VMX_BASIC", self.basic.0, other.basic.0))
            .or(allowed("pin-based controls", self.pin, other.pin))
            .or(allowed("primary processor-based controls", self.primary, other.primary))
            .or(allowed("secondary processor-based controls", self.secondary, other.secondary))
            .or(allowed("tertiary processor-based controls", self.tertiary, other.tertiary))
            .or(allowed("VM-exit controls", self.exit, other.exit))
            .or(allowed("secondary VM-exit controls", self.secondary_exit, other.secondary_exit))
            .or(allowed("VM-entry controls", self.entry, other.entry))
            .or(word("IA32_VMX_MISC", self.misc.0, other.misc.0))
            .or(word("IA32_VMX_CR0_FIXED0", self.cr0_fixed0, other.cr0_fixed0))
            .or(word("IA32_VMX_CR0_FIXED1", self.cr0_fixed1, other.cr0_fixed1))
            .or(word("IA32_VMX_CR4_FIXED0", self.cr4_fixed0, other.cr4_fixed0))
            .or(word("IA32_VMX_CR4_FIXED1", self.cr4_fixed1, other.cr4_fixed1))
            .or(word(
                "IA32_VMX_VMCS_ENUM",
                u64::from(self.highest_field_index),
                u64::from(other.highest_field_index),
            ))
            .or(word("IA32_VMX_EPT_VPID_CAP", self.ept_vpid.0, other.ept_vpid.0))
            .or(word("IA32_VMX_VMFUNC", self.vm_functions, other.vm_functions))
    }
}

/// One item in which two processors differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub name: &'static str,
    /// On the first.
    pub this: u64,
    /// On the other.
    pub other: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:#x} against {:#x}", self.name, self.this, self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;

    #[test]
    fn skylake_x_reads_as_the_manual_says() {
        let caps = recorded::SKYLAKE_X.capabilities();
        assert_eq!(caps.basic.revision(), 4);
        assert_eq!(caps.basic.region_bytes(), 1024);
        assert_eq!(caps.basic.memory_type(), 6);
        assert!(caps.basic.has_true_controls() && caps.basic.reports_ins_outs());
        assert!(!caps.basic.addresses_limited_to_32_bits());
        assert_eq!(caps.misc.preemption_timer_shift(), 7);
        assert_eq!((caps.misc.cr3_targets(), caps.misc.msr_list_entries()), (4, 512));
        assert!(caps.misc.stores_lma() && caps.misc.activity_hlt() && caps.misc.writes_exit_information());
        assert!(caps.ept_vpid.pages_1g() && caps.ept_vpid.pages_2m() && caps.ept_vpid.execute_only());
        assert!(caps.ept_vpid.invvpid_single_keeping_globals() && !caps.ept_vpid.walk_length_5());
        assert_eq!(caps.highest_field_index, 0x17);
    }

    #[test]
    fn the_true_msrs_win_where_they_exist() {
        let caps = recorded::SKYLAKE_X.capabilities();
        assert_eq!(caps.primary.must_be_one, 0x0400_6172, "CR3 exiting need not be 1");
        let old = recorded::CONROE.capabilities();
        assert_eq!(old.primary.must_be_one, 0x0401_e172, "CR3 exiting must be 1 without the TRUE MSRs");
    }

    #[test]
    fn what_does_not_exist_is_not_read_and_allows_nothing() {
        let caps = recorded::CONROE.capabilities();
        assert_eq!(caps.secondary, Allowed::default());
        assert_eq!(caps.ept_vpid, EptVpid(0));
    }

    #[test]
    fn an_announced_msr_that_faults_is_named() {
        let result = Capabilities::from_reader(|number| {
            if number == msr::EPT_VPID_CAP { None } else { recorded::SKYLAKE_X.msr(number) }
        });
        assert_eq!(result, Err(MissingMsr(msr::EPT_VPID_CAP)));
    }

    #[test]
    fn the_first_difference_between_processors_is_named() {
        let one = recorded::SKYLAKE_X.capabilities();
        assert_eq!(one.difference(&one), None);
        let mut two = one;
        two.secondary.may_be_one &= !(1 << 7);
        assert_eq!(one.difference(&two).unwrap().name, "secondary processor-based controls");
    }

    #[test]
    fn control_registers_are_bent_to_the_fixed_bits() {
        let caps = recorded::SKYLAKE_X.capabilities();
        assert_eq!(caps.host_cr0(0), 0x8000_0021);
        assert_eq!(caps.host_cr4(0x20), 0x2020);
        assert_eq!(caps.host_cr4(1 << 40), 0x2000, "a bit that may not be set is cleared");
    }
}
