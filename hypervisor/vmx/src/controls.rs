//! The VMX controls by their SDM names, and the one negotiation that turns a wish into control words.

use crate::caps::{Allowed, Capabilities};
use core::fmt;

/// A control word of the VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// Pin-based VM-execution controls.
    PinBased,
    /// Primary processor-based VM-execution controls.
    Primary,
    /// Secondary processor-based VM-execution controls.
    Secondary,
    /// Tertiary processor-based VM-execution controls.
    Tertiary,
    /// Primary VM-exit controls.
    Exit,
    /// Secondary VM-exit controls.
    SecondaryExit,
    /// VM-entry controls.
    Entry,
}

impl Word {
    const ALL: [Self; 7] = [
        Self::PinBased,
        Self::Primary,
        Self::Secondary,
        Self::Tertiary,
        Self::Exit,
        Self::SecondaryExit,
        Self::Entry,
    ];

    /// The word's name in the SDM.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PinBased => "pin-based VM-execution controls",
            Self::Primary => "primary processor-based VM-execution controls",
            Self::Secondary => "secondary processor-based VM-execution controls",
            Self::Tertiary => "tertiary processor-based VM-execution controls",
            Self::Exit => "primary VM-exit controls",
            Self::SecondaryExit => "secondary VM-exit controls",
            Self::Entry => "VM-entry controls",
        }
    }

    const fn allowed(self, caps: &Capabilities) -> Allowed {
        match self {
            Self::PinBased => caps.pin,
            Self::Primary => caps.primary,
            Self::Secondary => caps.secondary,
            Self::Tertiary => caps.tertiary,
            Self::Exit => caps.exit,
            Self::SecondaryExit => caps.secondary_exit,
            Self::Entry => caps.entry,
        }
    }
}

/// One control: a bit with a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The word it is in.
    pub word: Word,
    /// Its bit.
    pub bit: u8,
    /// Its name in the SDM.
    pub name: &'static str,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Control {
    const fn mask(self) -> u64 {
        1 << self.bit
    }
    /// Whether the processor lets it be 1.
    pub const fn can_set(self, caps: &Capabilities) -> bool {
        self.word.allowed(caps).may_be_one & self.mask() != 0
    }
    /// Whether the processor lets it be 0.
    pub const fn can_clear(self, caps: &Capabilities) -> bool {
        self.word.allowed(caps).must_be_one & self.mask() == 0
    }
}

macro_rules! controls {
    ($( $word:ident { $( $name:ident = $bit:literal $text:literal; )* } )*) => {
        $( $(
            #[doc = concat!("\"", $text, "\", bit ", stringify!($bit), ".")]
            pub const $name: Control = Control { word: Word::$word, bit: $bit, name: $text };
        )* )*
        /// Every control above.
        pub const ALL: &[Control] = &[ $( $( $name, )* )* ];
    };
}

controls! {
    // SDM table "Definitions of Pin-Based VM-Execution Controls"
    PinBased {
        EXTERNAL_INTERRUPT_EXITING = 0 "external-interrupt exiting";
        NMI_EXITING = 3 "NMI exiting";
        VIRTUAL_NMIS = 5 "virtual NMIs";
        ACTIVATE_PREEMPTION_TIMER = 6 "activate VMX-preemption timer";
        PROCESS_POSTED_INTERRUPTS = 7 "process posted interrupts";
    }
    Primary {
        INTERRUPT_WINDOW_EXITING = 2 "interrupt-window exiting";
        USE_TSC_OFFSETTING = 3 "use TSC offsetting";
        HLT_EXITING = 7 "HLT exiting";
        INVLPG_EXITING = 9 "INVLPG exiting";
        MWAIT_EXITING = 10 "MWAIT exiting";
        RDPMC_EXITING = 11 "RDPMC exiting";
        RDTSC_EXITING = 12 "RDTSC exiting";
        CR3_LOAD_EXITING = 15 "CR3-load exiting";
        CR3_STORE_EXITING = 16 "CR3-store exiting";
        ACTIVATE_TERTIARY = 17 "activate tertiary controls";
        CR8_LOAD_EXITING = 19 "CR8-load exiting";
        CR8_STORE_EXITING = 20 "CR8-store exiting";
        USE_TPR_SHADOW = 21 "use TPR shadow";
        NMI_WINDOW_EXITING = 22 "NMI-window exiting";
        MOV_DR_EXITING = 23 "MOV-DR exiting";
        UNCONDITIONAL_IO_EXITING = 24 "unconditional I/O exiting";
        USE_IO_BITMAPS = 25 "use I/O bitmaps";
        MONITOR_TRAP_FLAG = 27 "monitor trap flag";
        USE_MSR_BITMAPS = 28 "use MSR bitmaps";
        MONITOR_EXITING = 29 "MONITOR exiting";
        PAUSE_EXITING = 30 "PAUSE exiting";
        ACTIVATE_SECONDARY = 31 "activate secondary controls";
    }
    Secondary {
        VIRTUALIZE_APIC_ACCESSES = 0 "virtualize APIC accesses";
        ENABLE_EPT = 1 "enable EPT";
        DESCRIPTOR_TABLE_EXITING = 2 "descriptor-table exiting";
        ENABLE_RDTSCP = 3 "enable RDTSCP";
        VIRTUALIZE_X2APIC_MODE = 4 "virtualize x2APIC mode";
        ENABLE_VPID = 5 "enable VPID";
        WBINVD_EXITING = 6 "WBINVD exiting";
        UNRESTRICTED_GUEST = 7 "unrestricted guest";
        APIC_REGISTER_VIRTUALIZATION = 8 "APIC-register virtualization";
        VIRTUAL_INTERRUPT_DELIVERY = 9 "virtual-interrupt delivery";
        PAUSE_LOOP_EXITING = 10 "PAUSE-loop exiting";
        RDRAND_EXITING = 11 "RDRAND exiting";
        ENABLE_INVPCID = 12 "enable INVPCID";
        ENABLE_VM_FUNCTIONS = 13 "enable VM functions";
        VMCS_SHADOWING = 14 "VMCS shadowing";
        ENABLE_ENCLS_EXITING = 15 "enable ENCLS exiting";
        RDSEED_EXITING = 16 "RDSEED exiting";
        ENABLE_PML = 17 "enable PML";
        EPT_VIOLATION_VE = 18 "EPT-violation #VE";
        CONCEAL_VMX_FROM_PT = 19 "conceal VMX from PT";
        ENABLE_XSAVES = 20 "enable XSAVES/XRSTORS";
        ENABLE_PASID_TRANSLATION = 21 "PASID translation";
        MODE_BASED_EXECUTE = 22 "mode-based execute control for EPT";
        SUB_PAGE_WRITE = 23 "sub-page write permissions for EPT";
        PT_GUEST_PHYSICAL = 24 "Intel PT uses guest physical addresses";
        USE_TSC_SCALING = 25 "use TSC scaling";
        ENABLE_USER_WAIT_PAUSE = 26 "enable user wait and pause";
        ENABLE_PCONFIG = 27 "enable PCONFIG";
        ENABLE_ENCLV_EXITING = 28 "enable ENCLV exiting";
        BUS_LOCK_DETECTION = 30 "VMM bus-lock detection";
        INSTRUCTION_TIMEOUT = 31 "instruction timeout";
    }
    Tertiary {
        LOADIWKEY_EXITING = 0 "LOADIWKEY exiting";
        ENABLE_HLAT = 1 "enable HLAT";
        EPT_PAGING_WRITE = 2 "EPT paging-write control";
        GUEST_PAGING_VERIFICATION = 3 "guest-paging verification";
        IPI_VIRTUALIZATION = 4 "IPI virtualization";
        ENABLE_MSRLIST = 6 "enable MSR-list instructions";
        VIRTUALIZE_SPEC_CTRL = 7 "virtualize IA32_SPEC_CTRL";
    }
    Exit {
        SAVE_DEBUG_CONTROLS = 2 "save debug controls";
        HOST_ADDRESS_SPACE_SIZE = 9 "host address-space size";
        EXIT_LOAD_PERF_GLOBAL_CTRL = 12 "load IA32_PERF_GLOBAL_CTRL on exit";
        ACKNOWLEDGE_INTERRUPT = 15 "acknowledge interrupt on exit";
        SAVE_PAT = 18 "save IA32_PAT";
        EXIT_LOAD_PAT = 19 "load IA32_PAT on exit";
        SAVE_EFER = 20 "save IA32_EFER";
        EXIT_LOAD_EFER = 21 "load IA32_EFER on exit";
        SAVE_PREEMPTION_TIMER = 22 "save VMX-preemption timer value";
        CLEAR_BNDCFGS = 23 "clear IA32_BNDCFGS";
        EXIT_CONCEAL_VMX_FROM_PT = 24 "conceal VMX from PT on exit";
        CLEAR_RTIT_CTL = 25 "clear IA32_RTIT_CTL";
        CLEAR_LBR_CTL = 26 "clear IA32_LBR_CTL";
        CLEAR_UINV = 27 "clear UINV";
        EXIT_LOAD_CET = 28 "load CET state on exit";
        EXIT_LOAD_PKRS = 29 "load PKRS on exit";
        SAVE_PERF_GLOBAL_CTRL = 30 "save IA32_PERF_GLOBAL_CTRL";
        ACTIVATE_SECONDARY_EXIT = 31 "activate secondary exit controls";
    }
    SecondaryExit {
        SHADOW_STACK_PREMATURELY_BUSY = 3 "prematurely busy shadow stack";
    }
    Entry {
        LOAD_DEBUG_CONTROLS = 2 "load debug controls";
        IA32E_MODE_GUEST = 9 "IA-32e mode guest";
        ENTRY_TO_SMM = 10 "entry to SMM";
        DEACTIVATE_DUAL_MONITOR = 11 "deactivate dual-monitor treatment";
        ENTRY_LOAD_PERF_GLOBAL_CTRL = 13 "load IA32_PERF_GLOBAL_CTRL on entry";
        ENTRY_LOAD_PAT = 14 "load IA32_PAT on entry";
        ENTRY_LOAD_EFER = 15 "load IA32_EFER on entry";
        LOAD_BNDCFGS = 16 "load IA32_BNDCFGS";
        ENTRY_CONCEAL_VMX_FROM_PT = 17 "conceal VMX from PT on entry";
        LOAD_RTIT_CTL = 18 "load IA32_RTIT_CTL";
        LOAD_UINV = 19 "load UINV";
        ENTRY_LOAD_CET = 20 "load CET state on entry";
        LOAD_LBR_CTL = 21 "load guest IA32_LBR_CTL";
        ENTRY_LOAD_PKRS = 22 "load PKRS on entry";
    }
}

/// Why a control cannot be as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A required control that this processor does not let be 1.
    CannotSet(Control),
    /// A forbidden control that this processor does not let be 0.
    CannotClear(Control),
}

impl Refusal {
    /// The control in question.
    pub const fn control(self) -> Control {
        match self {
            Self::CannotSet(control) | Self::CannotClear(control) => control,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, control) = match self {
            Self::CannotSet(control) => ("1", control),
            Self::CannotClear(control) => ("0", control),
        };
        write!(
            f,
            "this processor does not let \"{}\" (bit {} of the {}) be {verb}",
            control.name,
            control.bit,
            control.word.name()
        )
    }
}

impl core::error::Error for Refusal {}

/// What somebody wants of the controls.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Must be 1, or there is no use going on.
    pub required: &'a [Control],
    /// 1 where the processor can.
    pub optional: &'a [Control],
    /// Must be 0, or there is no use going on.
    pub forbidden: &'a [Control],
}

/// The negotiated control words. Later changes go through [`Controls::set`] and [`Controls::clear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    words: [u64; 7],
}

impl Controls {
    /// The word as it goes into the VMCS.
    pub const fn word(&self, word: Word) -> u64 {
        self.words[word as usize]
    }
    /// A 32-bit word as it goes into the VMCS.
    pub const fn word32(&self, word: Word) -> u32 {
        self.words[word as usize] as u32
    }
    /// Whether the control is 1.
    pub const fn has(&self, control: Control) -> bool {
        self.words[control.word as usize] & control.mask() != 0
    }
    /// Makes the control 1.
    ///
    /// # Errors
    /// The processor does not let it.
    pub fn set(&mut self, control: Control, caps: &Capabilities) -> Result<(), Refusal> {
        if !control.can_set(caps) {
            return Err(Refusal::CannotSet(control));
        }
        self.words[control.word as usize] |= control.mask();
        Ok(())
    }
    /// Makes the control 0.
    ///
    /// # Errors
    /// The processor does not let it.
    pub fn clear(&mut self, control: Control, caps: &Capabilities) -> Result<(), Refusal> {
        if !control.can_clear(caps) {
            return Err(Refusal::CannotClear(control));
        }
        self.words[control.word as usize] &= !control.mask();
        Ok(())
    }
}

/// Turns a wish into control words: everything required is 1, everything forbidden is 0, everything optional is 1 where
/// it can be, and every other bit is as little as the processor allows.
///
/// # Errors
/// The first control that cannot be as asked; [`refusals`] names them all.
pub fn negotiate(caps: &Capabilities, wish: &Wish<'_>) -> Result<Controls, Refusal> {
    if let Some(refusal) = refusals(caps, wish).next() {
        return Err(refusal);
    }
    let mut controls = Controls { words: Word::ALL.map(|word| word.allowed(caps).must_be_one) };
    let granted = wish.optional.iter().filter(|control| control.can_set(caps));
    for control in wish.required.iter().chain(granted) {
        controls.words[control.word as usize] |= control.mask();
    }
    activate_further_words(caps, &mut controls)?;
    Ok(controls)
}

/// A word that the processor looks at only if another word says so.
const ACTIVATION: [(Word, Control); 3] = [
    (Word::Secondary, ACTIVATE_SECONDARY),
    (Word::Tertiary, ACTIVATE_TERTIARY),
    (Word::SecondaryExit, ACTIVATE_SECONDARY_EXIT),
];

fn activate_further_words(caps: &Capabilities, controls: &mut Controls) -> Result<(), Refusal> {
    for (word, activation) in ACTIVATION {
        if controls.word(word) != 0 {
            controls.set(activation, caps)?;
        }
    }
    Ok(())
}

/// Every control of the wish that this processor cannot grant.
pub fn refusals<'a>(caps: &'a Capabilities, wish: &'a Wish<'a>) -> impl Iterator<Item = Refusal> + 'a {
    let unset = wish.required.iter().filter(|c| !c.can_set(caps)).map(|c| Refusal::CannotSet(*c));
    let uncleared = wish.forbidden.iter().filter(|c| !c.can_clear(caps)).map(|c| Refusal::CannotClear(*c));
    unset.chain(uncleared)
}

/// A pair of controls that the SDM does not allow together (vol. 3C, "Checks on VMX Controls").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// This control ...
    pub control: Control,
    /// ... needs this one.
    pub needs: Control,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is 1 and needs \"{}\"", self.control.name, self.needs.name)
    }
}

/// The rule "if the first is 1, so is the second".
const DEPENDENCIES: &[(Control, Control)] = &[
    (VIRTUAL_NMIS, NMI_EXITING),
    (NMI_WINDOW_EXITING, VIRTUAL_NMIS),
    (VIRTUAL_INTERRUPT_DELIVERY, EXTERNAL_INTERRUPT_EXITING),
    (VIRTUALIZE_X2APIC_MODE, USE_TPR_SHADOW),
    (APIC_REGISTER_VIRTUALIZATION, USE_TPR_SHADOW),
    (VIRTUAL_INTERRUPT_DELIVERY, USE_TPR_SHADOW),
    (PROCESS_POSTED_INTERRUPTS, VIRTUAL_INTERRUPT_DELIVERY),
    (PROCESS_POSTED_INTERRUPTS, ACKNOWLEDGE_INTERRUPT),
    (UNRESTRICTED_GUEST, ENABLE_EPT),
    (MODE_BASED_EXECUTE, ENABLE_EPT),
    (SUB_PAGE_WRITE, ENABLE_EPT),
    (ENABLE_PML, ENABLE_EPT),
    (PT_GUEST_PHYSICAL, ENABLE_EPT),
    (EPT_PAGING_WRITE, ENABLE_EPT),
    (SAVE_PREEMPTION_TIMER, ACTIVATE_PREEMPTION_TIMER),
];

/// Checks the controls against each other.
///
/// # Errors
/// The first pair that does not go together.
pub fn check(controls: &Controls) -> Result<(), Conflict> {
    let activations = ACTIVATION.iter().filter(|(word, _)| controls.word(*word) != 0);
    for (word, needs) in activations {
        if !controls.has(*needs) {
            let control = ALL.iter().copied().find(|c| c.word == *word && controls.has(*c)).unwrap_or(*needs);
            return Err(Conflict { control, needs: *needs });
        }
    }
    let broken = DEPENDENCIES.iter().find(|(control, needs)| controls.has(*control) && !controls.has(*needs));
    broken.map_or(Ok(()), |&(control, needs)| Err(Conflict { control, needs }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn wish<'a>(required: &'a [Control], optional: &'a [Control], forbidden: &'a [Control]) -> Wish<'a> {
        Wish { required, optional, forbidden }
    }

    #[test]
    fn no_two_controls_share_a_bit_or_a_name() {
        for (i, a) in ALL.iter().enumerate() {
            for b in &ALL[i + 1..] {
                assert!((a.word, a.bit) != (b.word, b.bit), "{} and {}", a.name, b.name);
                assert_ne!(a.name, b.name);
            }
        }
    }

    #[test]
    fn the_least_word_is_what_the_processor_forces() {
        let caps = recorded::SKYLAKE_X.capabilities();
        let controls = negotiate(&caps, &wish(&[], &[], &[])).unwrap();
        assert_eq!(controls.word32(Word::PinBased), 0x16);
        assert_eq!(controls.word32(Word::Primary), 0x0400_6172);
        assert_eq!(controls.word32(Word::Secondary), 0);
        assert_eq!(controls.word32(Word::Exit), 0x0003_6dfb);
        assert_eq!(controls.word32(Word::Entry), 0x0000_11fb);
    }

    #[test]
    fn a_missing_bit_is_named_with_its_word() {
        let caps = recorded::YORKFIELD.capabilities();
        let error = negotiate(&caps, &wish(&[HLT_EXITING, UNRESTRICTED_GUEST], &[], &[])).unwrap_err();
        assert_eq!(error, Refusal::CannotSet(UNRESTRICTED_GUEST));
        assert_eq!(
            error.to_string(),
            "this processor does not let \"unrestricted guest\" (bit 7 of the secondary processor-based \
             VM-execution controls) be 1"
        );
    }

    #[test]
    fn a_forced_bit_that_is_forbidden_is_named() {
        let caps = recorded::CONROE.capabilities();
        let error = negotiate(&caps, &wish(&[], &[], &[CR3_LOAD_EXITING])).unwrap_err();
        assert_eq!(error, Refusal::CannotClear(CR3_LOAD_EXITING));
        assert!(error.to_string().ends_with("be 0"));
        assert!(negotiate(&recorded::SKYLAKE_X.capabilities(), &wish(&[], &[], &[CR3_LOAD_EXITING])).is_ok());
    }

    #[test]
    fn asking_for_a_secondary_control_activates_the_secondary_controls() {
        let caps = recorded::SKYLAKE_X.capabilities();
        let controls = negotiate(&caps, &wish(&[ENABLE_EPT], &[], &[])).unwrap();
        assert!(controls.has(ENABLE_EPT) && controls.has(ACTIVATE_SECONDARY));
        assert!(!negotiate(&caps, &wish(&[], &[], &[])).unwrap().has(ACTIVATE_SECONDARY));
    }

    #[test]
    fn optional_controls_are_granted_where_they_exist() {
        let asked = [RDSEED_EXITING];
        let new = recorded::SKYLAKE_X.capabilities();
        let old = recorded::HASWELL_EP.capabilities();
        assert!(negotiate(&new, &wish(&[], &asked, &[])).unwrap().has(RDSEED_EXITING));
        assert!(!negotiate(&old, &wish(&[], &asked, &[])).unwrap().has(RDSEED_EXITING));
    }

    #[test]
    fn all_refusals_are_listed() {
        let caps = recorded::CONROE.capabilities();
        let asked = [ENABLE_EPT, HLT_EXITING, MONITOR_TRAP_FLAG, EXIT_LOAD_PERF_GLOBAL_CTRL];
        let names: Vec<_> =
            refusals(&caps, &wish(&asked, &[], &[CR3_STORE_EXITING])).map(|r| r.control().name).collect();
        assert_eq!(
            names,
            ["enable EPT", "monitor trap flag", "load IA32_PERF_GLOBAL_CTRL on exit", "CR3-store exiting"]
        );
    }

    #[test]
    fn controls_that_need_others_are_caught() {
        let caps = recorded::SKYLAKE_X.capabilities();
        let controls = negotiate(&caps, &wish(&[UNRESTRICTED_GUEST], &[], &[])).unwrap();
        assert_eq!(check(&controls), Err(Conflict { control: UNRESTRICTED_GUEST, needs: ENABLE_EPT }));
        let mut controls = negotiate(&caps, &wish(&[ENABLE_EPT], &[], &[])).unwrap();
        assert_eq!(check(&controls), Ok(()));
        controls.clear(ACTIVATE_SECONDARY, &caps).unwrap();
        assert_eq!(check(&controls), Err(Conflict { control: ENABLE_EPT, needs: ACTIVATE_SECONDARY }));
    }

    proptest! {
        /// Whatever is asked, what comes out is what the processor permits, and holds what was required.
        #[test]
        fn negotiated_words_are_always_permitted(
            machine in 0..recorded::SUITABLE.len(),
            picks in proptest::collection::vec((0..ALL.len(), 0..3u8), 0..40),
        ) {
            let caps = recorded::SUITABLE[machine].capabilities();
            let chosen = |kind| picks.iter().filter(|p| p.1 == kind).map(|p| ALL[p.0]).collect::<Vec<_>>();
            let (required, optional) = (chosen(0), chosen(1));
            let forbidden: Vec<_> = chosen(2)
                .into_iter()
                .filter(|c| !required.contains(c) && !optional.contains(c))
                .filter(|c| !matches!(*c, ACTIVATE_SECONDARY | ACTIVATE_TERTIARY | ACTIVATE_SECONDARY_EXIT))
                .collect();
            let wish = wish(&required, &optional, &forbidden);
            match negotiate(&caps, &wish) {
                Ok(controls) => {
                    for word in Word::ALL {
                        prop_assert!(word.allowed(&caps).permits(controls.word(word)), "{}", word.name());
                    }
                    prop_assert!(required.iter().all(|c| controls.has(*c)));
                    prop_assert!(forbidden.iter().all(|c| !controls.has(*c)));
                    prop_assert!(optional.iter().all(|c| controls.has(*c) == c.can_set(&caps)));
                }
                Err(refusal) => prop_assert!(refusals(&caps, &wish).any(|r| r == refusal)),
            }
        }
    }
}
