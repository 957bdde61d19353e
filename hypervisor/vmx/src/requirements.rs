//! What Lockstep needs of a processor, and for each thing it lacks one line: what, why, what still works, what to do.

use crate::caps::Capabilities;
use crate::controls::{self, Control, Controls, Refusal, Wish};
use core::fmt;

/// What has to be known of a processor; every number as CPUID and RDMSR return it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// CPUID.0: EBX, EDX, ECX, the vendor's name.
    pub vendor: [u8; 12],
    /// CPUID.1:EAX, family, model and stepping.
    pub signature: u32,
    /// CPUID.1:ECX.
    pub features: u32,
    /// CPUID.7.0:EBX; 0 where there is no leaf 7.
    pub extended_features: u32,
    /// CPUID.1AH:EAX, the kind of core in a hybrid; 0 where there is no such leaf.
    pub core_type: u32,
    /// CPUID.0AH: EAX, EBX, ECX, EDX; zeros where there is no such leaf.
    pub perfmon: [u32; 4],
    /// IA32_FEATURE_CONTROL; None if it cannot be read.
    pub feature_control: Option<u64>,
    /// The capability MSRs; None where there is no VMX.
    pub capabilities: Option<Capabilities>,
}

impl Facts {
    const VMX: u32 = 1 << 5;
    const SSE4_2: u32 = 1 << 20;
    const RDRAND: u32 = 1 << 30;
    const HYPERVISOR: u32 = 1 << 31;
    const RDSEED: u32 = 1 << 18;

    /// Display family (SDM, CPUID leaf 1).
    pub const fn family(&self) -> u32 {
        let family = (self.signature >> 8) & 15;
        if family == 15 { family + ((self.signature >> 20) & 0xff) } else { family }
    }

    /// Display model (SDM, CPUID leaf 1).
    pub const fn model(&self) -> u32 {
        let model = (self.signature >> 4) & 15;
        match (self.signature >> 8) & 15 {
            6 | 15 => model | ((self.signature >> 12) & 0xf0),
            _ => model,
        }
    }

    /// Whether this core is of the Atom line, whose counters overcount around VM entries and exits: by the kind that a
    /// hybrid reports, otherwise by model.
    pub fn atom_class(&self) -> bool {
        match self.core_type >> 24 {
            0x20 => true,
            0x40 => false,
            _ => self.family() == 6 && ATOM_MODELS.contains(&(self.model() as u8)),
        }
    }

    /// IA32_FEATURE_CONTROL is locked with VMX outside SMX off.
    fn locked_off(&self) -> bool {
        self.feature_control.is_some_and(|value| value & FEATURE_LOCKED != 0 && value & FEATURE_VMX == 0)
    }

    fn under_a_hypervisor(&self) -> bool {
        self.features & Self::HYPERVISOR != 0
    }
}

/// IA32_FEATURE_CONTROL: locked until reset.
pub const FEATURE_LOCKED: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMX outside SMX operation.
pub const FEATURE_VMX: u64 = 1 << 2;

/// Family 6 models of the Atom line, Knights Landing and Mill among them (they are Silvermont cores).
const ATOM_MODELS: &[u8] = &[
    0x1c, 0x26, 0x27, 0x35, 0x36, // Bonnell, Saltwell
    0x37, 0x4a, 0x4d, 0x5a, 0x5d, 0x65, 0x6e, // Silvermont
    0x4c, 0x75, // Airmont
    0x57, 0x85, // Knights Landing, Knights Mill
    0x5c, 0x5f, 0x7a, // Goldmont, Denverton, Goldmont Plus
    0x86, 0x8a, 0x96, 0x9c, // Tremont: Snow Ridge, Lakefield, Elkhart Lake, Jasper Lake
    0xbe, 0xaf, 0xb6, 0xdd, // Gracemont, Sierra Forest, Grand Ridge, Clearwater Forest
];

/// How much is lost without the thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Guests run; none can be protected.
    Protection,
    /// No guest runs.
    Guests,
}

/// The thing in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An Intel processor.
    Intel,
    /// VMX in CPUID.
    Vmx,
    /// VMX not locked off by the firmware.
    VmxUnlocked,
    /// Capability MSRs that make sense.
    Capabilities,
    /// EPT: second-level translation.
    Ept,
    /// A form of EPT or of the VMCS that is needed besides its existence.
    EptForm(&'static str),
    /// Unrestricted guest.
    UnrestrictedGuest,
    /// Monitor trap flag.
    MonitorTrapFlag,
    /// A control that has no line of its own.
    Control(Refusal),
    /// A performance-monitoring unit with a counter of retired instructions.
    Pmu,
    /// Loading of IA32_PERF_GLOBAL_CTRL by entries and exits.
    PerfGlobalCtrl,
    /// The instruction CRC32.
    Crc32,
    /// A core that is not of the Atom line.
    CoreClass,
}

/// One thing that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub need: Need,
    /// How much is lost.
    pub loss: Loss,
    /// CPUID.1:EAX of the processor that lacks it.
    pub signature: u32,
    /// The machine is a virtual one.
    pub nested: bool,
    /// All in all, guests run.
    pub guests_run: bool,
}

impl Missing {
    /// A word for tools: the console's `missing=` and the tests go by it.
    pub const fn key(&self) -> &'static str {
        match self.need {
            Need::Intel => "intel",
            Need::Vmx => "vmx",
            Need::VmxUnlocked => "vmx-locked",
            Need::Capabilities => "vmx-capabilities",
            Need::Ept => "ept",
            Need::EptForm(_) => "ept-form",
            Need::UnrestrictedGuest => "unrestricted-guest",
            Need::MonitorTrapFlag => "monitor-trap-flag",
            Need::Control(_) => "control",
            Need::Pmu => "pmu",
            Need::PerfGlobalCtrl => "perf-global-ctrl",
            Need::Crc32 => "crc32",
            Need::CoreClass => "core-class",
        }
    }

    /// What is missing, in one clause.
    pub const fn name(&self) -> &'static str {
        match self.need {
            Need::Intel => "not an Intel processor",
            Need::Vmx => "no VMX",
            Need::VmxUnlocked => "VMX is locked off (IA32_FEATURE_CONTROL)",
            Need::Capabilities => "VMX capability MSRs cannot be read",
            Need::Ept => "no EPT",
            Need::EptForm(what) => what,
            Need::UnrestrictedGuest => "no unrestricted guest",
            Need::MonitorTrapFlag => "no monitor trap flag (MTF)",
            Need::Control(_) => "a VMX control is missing",
            Need::Pmu => "no performance-monitoring unit (CPUID leaf 0Ah)",
            Need::PerfGlobalCtrl => "VM entries and exits cannot switch the performance counters",
            Need::Crc32 => "no CRC32 instruction (SSE4.2)",
            Need::CoreClass => "an Atom-class core",
        }
    }

    /// Why it is needed.
    pub const fn why(&self) -> &'static str {
        match self.need {
            Need::Intel | Need::Vmx | Need::VmxUnlocked | Need::Capabilities => "guests run by VMX",
            Need::Ept | Need::EptForm(_) => "guest memory is mapped by it",
            Need::UnrestrictedGuest => "guests start in real mode",
            Need::MonitorTrapFlag => "a backup reaches an execution point by single steps",
            Need::Control(_) => "the execution of a guest depends on it",
            Need::Pmu | Need::PerfGlobalCtrl => "execution points are counts of the guest's instructions",
            Need::Crc32 => "the guest's registers are compared by it at every exit",
            Need::CoreClass => {
                "its counters overcount around VM entries and exits, so a backup cannot follow"
            }
        }
    }

    /// What works all the same.
    pub const fn still_works(&self) -> &'static str {
        if self.guests_run {
            "everything but protection: a guest runs, without a backup"
        } else {
            "the host's console, its report of devices and memory"
        }
    }

    /// What the operator can do.
    pub const fn what_to_do(&self) -> &'static str {
        match (self.need, self.nested) {
            (Need::CoreClass, _) => "use a Core or Xeon processor, or a performance core",
            (Need::VmxUnlocked, false) => "switch on Intel Virtualization Technology in the firmware's setup",
            (Need::Vmx, false) => "use a processor with VT-x, or switch it on in the firmware's setup",
            (Need::Pmu | Need::PerfGlobalCtrl, true) => {
                "give the virtual machine a PMU (QEMU: -cpu host,pmu=on on an Intel host)"
            }
            (Need::Crc32, true) => "show the virtual machine SSE4.2 (QEMU: -cpu host on an Intel host)",
            (Need::Intel, _) => "use an Intel Core or Xeon processor",
            (_, true) => {
                "allow nested VMX on the host below (kvm_intel.nested=1, QEMU: -accel kvm -cpu host), or use Bochs"
            }
            (_, false) => "use an Intel Core or Xeon processor, Westmere or later",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.need {
            Need::Control(refusal) => write!(f, ": {refusal}")?,
            Need::CoreClass => write!(f, " (CPUID signature {:#x})", self.signature)?,
            _ => {}
        }
        write!(f, ": {}. Still works: {}. To do: {}.", self.why(), self.still_works(), self.what_to_do())
    }
}

/// No more lines than this of one processor; what does not fit is less important than what is listed.
pub const MISSING_MAX: usize = 16;

/// Of controls without a line of their own, no more than this many are named: an old processor lacks dozens.
const OTHER_CONTROLS_MAX: usize = 3;

/// What one processor lacks, the gravest first within each group of checks.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: heapless::Vec<Missing, MISSING_MAX>,
}

impl Findings {
    /// Everything that is missing.
    pub fn missing(&self) -> &[Missing] {
        &self.list
    }
    /// Guests can run.
    pub fn guests_run(&self) -> bool {
        self.list.iter().all(|missing| missing.loss < Loss::Guests)
    }
    /// Guests can be protected, as far as the processor's own word goes; the boot proof has the last.
    pub fn can_protect(&self) -> bool {
        self.list.is_empty()
    }
    fn push(&mut self, facts: &Facts, need: Need, loss: Loss) {
        let nested = facts.under_a_hypervisor();
        let missing = Missing { need, loss, signature: facts.signature, nested, guests_run: true };
        let _ = self.list.push(missing);
    }
}

/// Controls without which no guest runs.
const GUESTS: &[Control] = &[
    controls::EXTERNAL_INTERRUPT_EXITING,
    controls::NMI_EXITING,
    controls::VIRTUAL_NMIS,
    controls::HLT_EXITING,
    controls::RDPMC_EXITING,
    controls::RDTSC_EXITING,
    controls::MWAIT_EXITING,
    controls::MONITOR_EXITING,
    controls::MOV_DR_EXITING,
    controls::CR8_LOAD_EXITING,
    controls::CR8_STORE_EXITING,
    controls::UNCONDITIONAL_IO_EXITING,
    controls::USE_IO_BITMAPS,
    controls::USE_MSR_BITMAPS,
    controls::ACTIVATE_SECONDARY,
    controls::ENABLE_EPT,
    controls::ENABLE_VPID,
    controls::UNRESTRICTED_GUEST,
    controls::WBINVD_EXITING,
    controls::HOST_ADDRESS_SPACE_SIZE,
    controls::ACKNOWLEDGE_INTERRUPT,
    controls::SAVE_DEBUG_CONTROLS,
    controls::SAVE_PAT,
    controls::EXIT_LOAD_PAT,
    controls::SAVE_EFER,
    controls::EXIT_LOAD_EFER,
    controls::LOAD_DEBUG_CONTROLS,
    controls::ENTRY_LOAD_PAT,
    controls::ENTRY_LOAD_EFER,
];

/// Controls that come and go while a guest runs; they must be settable.
const SWITCHED: &[Control] = &[
    controls::INTERRUPT_WINDOW_EXITING,
    controls::NMI_WINDOW_EXITING,
    controls::ACTIVATE_PREEMPTION_TIMER,
    controls::SAVE_PREEMPTION_TIMER,
];

/// Controls without which no guest can be protected.
const PROTECTION: &[Control] = &[
    controls::MONITOR_TRAP_FLAG,
    controls::EXIT_LOAD_PERF_GLOBAL_CTRL,
    controls::ENTRY_LOAD_PERF_GLOBAL_CTRL,
];

/// Controls that must be off: with them nothing deterministic, or nothing quick, runs.
const FORBIDDEN: &[Control] = &[controls::CR3_LOAD_EXITING, controls::CR3_STORE_EXITING];

/// Controls set for a guest where the processor has them: each makes an instruction exit that would otherwise bring a
/// value in from outside, or lets one run that the guest may be shown.
const OPTIONAL: &[Control] = &[
    controls::RDRAND_EXITING,
    controls::RDSEED_EXITING,
    controls::EXIT_LOAD_PERF_GLOBAL_CTRL,
    controls::ENTRY_LOAD_PERF_GLOBAL_CTRL,
    controls::ENABLE_RDTSCP,
    controls::ENABLE_INVPCID,
    controls::ENABLE_ENCLS_EXITING,
];

/// The controls a guest starts with. I/O bitmaps make "unconditional I/O exiting" moot (SDM table of primary controls):
/// the bitmaps decide, and they start with every port intercepted. The monitor trap flag, window exiting and the like
/// are switched later through [`Controls::set`].
///
/// # Errors
/// The first control that the processor cannot grant.
pub fn guest_controls(caps: &Capabilities) -> Result<Controls, Refusal> {
    controls::negotiate(caps, &Wish { required: GUESTS, optional: OPTIONAL, forbidden: FORBIDDEN })
}

/// Compares a processor with what Lockstep needs.
pub fn check(facts: &Facts) -> Findings {
    let mut found = Findings::default();
    check_virtualization(facts, &mut found);
    check_counting(facts, &mut found);
    let guests_run = found.guests_run();
    found.list.iter_mut().for_each(|missing| missing.guests_run = guests_run);
    found
}

fn check_virtualization(facts: &Facts, found: &mut Findings) {
    if facts.vendor != *b"GenuineIntel" {
        found.push(facts, Need::Intel, Loss::Guests);
    }
    if facts.features & Facts::VMX == 0 {
        return found.push(facts, Need::Vmx, Loss::Guests);
    }
    if facts.locked_off() {
        found.push(facts, Need::VmxUnlocked, Loss::Guests);
    }
    match &facts.capabilities {
        None => found.push(facts, Need::Capabilities, Loss::Guests),
        Some(caps) => check_capabilities(facts, caps, found),
    }
}

fn check_capabilities(facts: &Facts, caps: &Capabilities, found: &mut Findings) {
    let listed = |control: &Control| {
        matches!(*control, controls::ENABLE_EPT | controls::UNRESTRICTED_GUEST | controls::MONITOR_TRAP_FLAG)
            || PROTECTION.contains(control)
    };
    if !controls::ENABLE_EPT.can_set(caps) {
        // Unrestricted guest goes with it and needs no line of its own.
        found.push(facts, Need::Ept, Loss::Guests);
    } else {
        check_ept_form(facts, caps, found);
        if !controls::UNRESTRICTED_GUEST.can_set(caps) {
            found.push(facts, Need::UnrestrictedGuest, Loss::Guests);
        }
    }
    if !controls::MONITOR_TRAP_FLAG.can_set(caps) {
        found.push(facts, Need::MonitorTrapFlag, Loss::Protection);
    }
    check_random_numbers(facts, caps, found);
    let wish = Wish { required: GUESTS, optional: &[], forbidden: FORBIDDEN };
    let switched = SWITCHED.iter().filter(|control| !control.can_set(caps)).map(|c| Refusal::CannotSet(*c));
    let others =
        controls::refusals(caps, &wish).filter(|refusal| !listed(&refusal.control())).chain(switched);
    for refusal in others.take(OTHER_CONTROLS_MAX) {
        found.push(facts, Need::Control(refusal), Loss::Guests);
    }
}

/// An instruction that brings in randomness must exit, if the processor has it at all.
fn check_random_numbers(facts: &Facts, caps: &Capabilities, found: &mut Findings) {
    let instructions = [
        (facts.features & Facts::RDRAND != 0, controls::RDRAND_EXITING),
        (facts.extended_features & Facts::RDSEED != 0, controls::RDSEED_EXITING),
    ];
    for (exists, control) in instructions {
        if exists && !control.can_set(caps) {
            found.push(facts, Need::Control(Refusal::CannotSet(control)), Loss::Protection);
        }
    }
}

fn check_ept_form(facts: &Facts, caps: &Capabilities, found: &mut Findings) {
    let ept = caps.ept_vpid;
    let forms = [
        (ept.walk_length_4(), "no EPT page walks of length 4"),
        (ept.structures_write_back(), "no write-back EPT paging structures"),
        (ept.pages_2m(), "no 2-MByte EPT pages"),
        (ept.invept() && ept.invept_single(), "no single-context INVEPT"),
        (ept.invvpid() && ept.invvpid_single(), "no single-context INVVPID"),
        (!caps.basic.addresses_limited_to_32_bits(), "VMX structures limited to 32-bit addresses"),
        (caps.basic.memory_type() == 6, "the VMCS is not write-back memory"),
        (caps.misc.stores_lma(), "VM exits do not store EFER.LMA into the entry controls"),
        (caps.misc.activity_hlt(), "no VM entry into the HLT state"),
    ];
    for (_, what) in forms.iter().filter(|(present, _)| !present) {
        found.push(facts, Need::EptForm(what), Loss::Guests);
    }
}

fn check_counting(facts: &Facts, found: &mut Findings) {
    let switches = [controls::EXIT_LOAD_PERF_GLOBAL_CTRL, controls::ENTRY_LOAD_PERF_GLOBAL_CTRL];
    let can_switch = |caps: &Capabilities| switches.iter().all(|control| control.can_set(caps));
    if !has_pmu(facts.perfmon) {
        // The switching goes with it and needs no line of its own.
        found.push(facts, Need::Pmu, Loss::Protection);
    } else if facts.capabilities.as_ref().is_some_and(|caps| !can_switch(caps)) {
        found.push(facts, Need::PerfGlobalCtrl, Loss::Protection);
    }
    if facts.features & Facts::SSE4_2 == 0 {
        found.push(facts, Need::Crc32, Loss::Protection);
    }
    if facts.atom_class() {
        found.push(facts, Need::CoreClass, Loss::Protection);
    }
}

/// CPUID leaf 0Ah: version 2 or later (it brought IA32_PERF_GLOBAL_CTRL), at least two general counters, and the events
/// "instructions retired" and "branch instructions retired" not marked absent.
fn has_pmu([eax, ebx, _, _]: [u32; 4]) -> bool {
    let (version, general, events) = (eax & 0xff, (eax >> 8) & 0xff, eax >> 24);
    let present = |event: u32| event < events && ebx & 1 << event == 0;
    version >= 2 && general >= 2 && present(1) && present(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::{self, Machine};
    use std::string::ToString;
    use std::vec::Vec;

    fn facts(machine: &Machine) -> Facts {
        Facts {
            vendor: *b"GenuineIntel",
            signature: machine.leaf1[0],
            features: machine.leaf1[2],
            extended_features: machine.leaf7[1],
            core_type: machine.leaf_1a,
            perfmon: machine.leaf_a,
            feature_control: Some(FEATURE_LOCKED | FEATURE_VMX),
            capabilities: Some(machine.capabilities()),
        }
    }

    fn keys(facts: &Facts) -> Vec<&'static str> {
        check(facts).missing().iter().map(Missing::key).collect()
    }

    #[test]
    fn core_processors_since_westmere_lack_nothing() {
        for machine in recorded::SUITABLE {
            assert_eq!(keys(&facts(machine)), [""; 0], "{}", machine.name);
            let controls = guest_controls(&machine.capabilities()).unwrap();
            assert_eq!(controls::check(&controls), Ok(()), "{}", machine.name);
        }
    }

    #[test]
    fn atom_class_processors_run_guests_and_do_not_protect() {
        for machine in recorded::ATOMS {
            let found = check(&facts(machine));
            assert!(found.missing().iter().any(|m| m.key() == "core-class"), "{}", machine.name);
            assert!(!found.can_protect());
        }
        let found = check(&facts(&recorded::ALDER_LAKE_N));
        assert!(found.guests_run());
        assert_eq!(keys(&facts(&recorded::ALDER_LAKE_N)), ["core-class"]);
    }

    #[test]
    fn the_named_atom_models_are_refused_and_their_neighbours_are_not() {
        let mut facts = facts(&recorded::SKYLAKE_X);
        for model in [0x4d, 0x5f, 0x86, 0xaf, 0xdd, 0xb6, 0xbe] {
            facts.signature = (model & 0xf0) << 12 | 0x600 | (model & 15) << 4;
            assert_eq!(facts.model(), model);
            assert!(facts.atom_class(), "{model:#x}");
        }
        for model in [0x55, 0x6a, 0x8f, 0xcf, 0xad, 0x97, 0x9e, 0xb7] {
            facts.signature = (model & 0xf0) << 12 | 0x600 | (model & 15) << 4;
            assert!(!facts.atom_class(), "{model:#x}");
        }
        facts.core_type = 0x2000_0001;
        assert!(facts.atom_class(), "an efficient core of a hybrid");
    }

    #[test]
    fn old_processors_lack_what_they_lack() {
        let conroe = facts(&recorded::CONROE);
        let lacks = keys(&conroe);
        for key in ["ept", "monitor-trap-flag", "control"] {
            assert!(lacks.contains(&key), "{key} in {lacks:?}");
        }
        assert!(!check(&conroe).guests_run());
        assert!(keys(&facts(&recorded::YORKFIELD)).contains(&"ept"));
    }

    #[test]
    fn a_processor_without_vmx_gets_one_line_about_vmx() {
        let mut facts = facts(&recorded::SKYLAKE_X);
        facts.features &= !(1 << 5);
        facts.capabilities = None;
        assert_eq!(keys(&facts), ["vmx"]);
        let line = check(&facts).missing()[0].to_string();
        assert_eq!(
            line,
            "no VMX: guests run by VMX. Still works: the host's console, its report of devices and memory. To do: use \
             a processor with VT-x, or switch it on in the firmware's setup."
        );
        facts.features |= 1 << 31;
        assert!(check(&facts).missing()[0].to_string().contains("kvm_intel.nested=1"));
    }

    #[test]
    fn the_lock_counts_only_when_it_is_locked() {
        let mut facts = facts(&recorded::SKYLAKE_X);
        for (value, lacks) in [(0, false), (4, false), (5, false), (1, true), (3, true)] {
            facts.feature_control = Some(value);
            assert_eq!(keys(&facts).contains(&"vmx-locked"), lacks, "{value:#x}");
        }
    }

    #[test]
    fn each_missing_capability_has_its_own_line() {
        let one = |change: fn(&mut Capabilities)| {
            let mut facts = facts(&recorded::BOCHS);
            change(facts.capabilities.as_mut().unwrap());
            keys(&facts)
        };
        assert_eq!(one(|c| c.primary.may_be_one &= !(1 << 27)), ["monitor-trap-flag"]);
        assert_eq!(one(|c| c.secondary.may_be_one &= !(1 << 7)), ["unrestricted-guest"]);
        assert_eq!(one(|c| c.entry.may_be_one &= !(1 << 13)), ["perf-global-ctrl"]);
        assert_eq!(one(|c| c.secondary.may_be_one &= !(1 << 1)), ["ept"]);
        assert_eq!(one(|c| c.ept_vpid.0 &= !(1 << 16)), ["ept-form"]);
        assert_eq!(one(|c| c.secondary.may_be_one &= !(1 << 11)), ["control"], "RDRAND that does not exit");
        assert_eq!(one(|c| c.primary.may_be_one &= !(1 << 2)), ["control"], "interrupt-window exiting");
        assert_eq!(one(|_| ()), [""; 0]);
    }

    #[test]
    fn without_crc32_guests_run_unprotected() {
        let mut facts = facts(&recorded::SKYLAKE_X);
        facts.features &= !(1 << 20);
        assert_eq!(keys(&facts), ["crc32"]);
        assert!(check(&facts).guests_run());
    }

    #[test]
    fn what_stops_guests_and_what_stops_protection_differ() {
        let mut facts = facts(&recorded::BOCHS);
        facts.perfmon = [0; 4];
        let found = check(&facts);
        assert!(found.guests_run() && !found.can_protect());
        assert!(found.missing()[0].to_string().contains("a guest runs, without a backup"));
        facts.capabilities.as_mut().unwrap().secondary.may_be_one &= !(1 << 1);
        let found = check(&facts);
        assert!(!found.guests_run());
        assert!(found.missing().iter().all(|missing| !missing.to_string().contains("a guest runs")));
    }

    #[test]
    fn the_pmu_must_have_version_2_two_counters_and_both_events() {
        let good = 0x0730_0404;
        assert!(has_pmu([good, 0, 0, 0]));
        assert!(!has_pmu([0, 0, 0, 0]));
        assert!(!has_pmu([0x0730_0401, 0, 0, 0]), "version 1 has no global control");
        assert!(!has_pmu([0x0730_0104, 0, 0, 0]), "one counter");
        assert!(!has_pmu([good, 1 << 1, 0, 0]), "no instructions retired");
        assert!(!has_pmu([good, 1 << 5, 0, 0]), "no branches retired");
        assert!(!has_pmu([0x0330_0404, 0, 0, 0]), "the list of events ends before the branches");
    }
}
