//! VMX on every processor: what each can do, VMXON, and one clear line for each thing that is missing.

use crate::arch::percpu::{self, MAX_CPUS};
use crate::arch::physical::Pages;
use crate::arch::{probe, vmx as processor};
use crate::{machine_line, panic, smp};
use machine::cpu::Profile;
use spin::Once;
use vmx::caps::Capabilities;
use vmx::requirements::{self, Facts, Findings, Loss};

/// Microseconds a processor may take to look at itself and execute VMXON.
const PATIENCE: u64 = 2_000_000;

/// What one processor found out about itself.
struct Processor {
    facts: Facts,
    findings: Findings,
    /// It is in VMX root operation, or why it is not although nothing was missing.
    root: Result<bool, &'static str>,
}

static PROCESSORS: [Once<Processor>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// What the host can do with guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ability {
    /// Guests can run: the boot processor lacks nothing that they need.
    pub guests: bool,
    /// Guests can be protected, as far as the boot processor's own word goes.
    pub protection: bool,
}

/// Has every processor look at itself and enter VMX root operation where it can; prints what is missing.
pub fn start() -> Ability {
    probe::init();
    panic::set_vmcs_dump(super::dump::dump);
    for cpu in percpu::online() {
        if !smp::call(cpu.number(), look_at_this, PATIENCE) {
            log::error!("cpu{} did not answer within {PATIENCE} us: no VMX there", cpu.number());
        }
    }
    report()
}

/// The boot processor's capabilities; None where it has no VMX.
pub fn capabilities() -> Option<&'static Capabilities> {
    PROCESSORS[0].get()?.facts.capabilities.as_ref()
}

/// Whether a processor is in VMX root operation, once [`start`] has run.
pub fn in_root(number: usize) -> bool {
    PROCESSORS[number].get().is_some_and(|processor| processor.root == Ok(true))
}

/// What the boot processor lacks, once [`start`] has run.
pub fn findings() -> Option<&'static Findings> {
    Some(&PROCESSORS[0].get()?.findings)
}

fn look_at_this() {
    PROCESSORS[percpu::number()].call_once(|| {
        let facts = processor::facts();
        let findings = requirements::check(&facts);
        let root = match (&facts.capabilities, findings.guests_run()) {
            (Some(caps), true) => enter_root(caps),
            _ => Ok(false),
        };
        Processor { facts, findings, root }
    });
}

fn enter_root(caps: &Capabilities) -> Result<bool, &'static str> {
    let region = Pages::one().map_err(|_| "no memory for the VMXON region")?;
    match processor::enter_root(caps, region) {
        Ok(()) => Ok(true),
        Err(processor::RootError::Locked) => Err("IA32_FEATURE_CONTROL is locked with VMX off"),
        Err(processor::RootError::Failed(_)) => Err("VMXON failed"),
    }
}

fn report() -> Ability {
    let boot = PROCESSORS[0].get().expect("the boot processor has looked at itself");
    say_missing(0, &boot.findings);
    let mut in_root = 0;
    for number in percpu::online().map(|cpu| cpu.number()) {
        let Some(this) = PROCESSORS[number].get() else { continue };
        match this.root {
            Ok(root) => in_root += usize::from(root),
            Err(why) => {
                log::error!("cpu{number}: {why}");
                machine_line!("vmx-off cpu={number}");
            }
        }
        if number != 0 {
            compare(number, boot, this);
        }
    }
    let guests = boot.findings.guests_run() && boot.root == Ok(true);
    let protection = guests && boot.findings.can_protect();
    if let (Some(caps), true) = (&boot.facts.capabilities, guests) {
        describe(caps);
    }
    let yes_no = |yes| if yes { "yes" } else { "no" };
    machine_line!(
        "vmx cpus={} root={in_root} guests={} protection={}",
        percpu::online().count(),
        yes_no(guests),
        yes_no(protection)
    );
    Ability { guests, protection }
}

fn say_missing(number: usize, findings: &Findings) {
    for missing in findings.missing() {
        let loss = if missing.loss == Loss::Guests { "guests" } else { "protection" };
        match missing.loss {
            Loss::Guests => log::error!("cpu{number}: {missing}"),
            Loss::Protection => log::warn!("cpu{number}: {missing}"),
        }
        machine_line!("missing cpu={number} need={} loss={loss}", missing.key());
    }
}

/// Prints in what a processor differs from the boot processor: a virtual machine must not move between unlike ones.
fn compare(number: usize, boot: &Processor, this: &Processor) {
    if this.findings.missing().len() != boot.findings.missing().len() {
        say_missing(number, &this.findings);
    }
    let difference = match (&boot.facts.capabilities, &this.facts.capabilities) {
        (Some(a), Some(b)) => a.difference(b),
        _ => None,
    };
    if let Some(difference) = difference {
        log::warn!("cpu{number} differs from cpu0 in {difference}");
        machine_line!("vmx-differs cpu={number} first=\"{}\"", difference.name);
    }
    if this.facts.signature != boot.facts.signature {
        log::warn!(
            "cpu{number} differs from cpu0 in CPUID signature: {:#x} against {:#x}",
            this.facts.signature,
            boot.facts.signature
        );
    }
}

fn describe(caps: &Capabilities) {
    let ept = caps.ept_vpid;
    let size = match (ept.pages_1g(), ept.pages_2m()) {
        (true, _) => "1 GiB",
        (false, true) => "2 MiB",
        _ => "4 KiB",
    };
    log::info!(
        "VMX: revision {:#x}, EPT pages up to {size}, preemption timer at TSC / {}",
        caps.basic.revision(),
        1u32 << caps.misc.preemption_timer_shift()
    );
    say_profiles();
}

/// Prints which processor profiles guests can have here, and what keeps them from the next one.
fn say_profiles() {
    let best = Profile::best(processor::cpuid).map_or("none", Profile::name);
    machine_line!("profiles best={best}");
    if let Some(missing) = Profile::all().iter().find_map(|profile| profile.check(processor::cpuid).err()) {
        log::info!("{missing}");
    }
}
