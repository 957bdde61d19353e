//! Which accelerator QEMU is to use on a host, and what is wrong with the host's settings (pure).

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Device, HostFacts};

/// Before this kernel, KVM did not mask the counter interrupt on delivery and could deliver several for one overflow.
const FIRST_GOOD_KERNEL: (u32, u32) = (6, 6);
/// VMX features that the kernel cannot do without, by Linux's names and by ours.
const NEEDED_FEATURES: [(&str, &str); 3] =
    [("ept", "EPT"), ("unrestricted_guest", "unrestricted guest"), ("mtf", "the monitor trap flag")];
/// Models of family 6 with small cores only. They count too much around VM entries and exits, and the kernel refuses
/// them: Silvermont, Airmont, Goldmont, Tremont, Gracemont, Crestmont and Darkmont parts.
const ATOM_MODELS: [u32; 16] =
    [0x37, 0x4A, 0x4D, 0x5A, 0x5D, 0x4C, 0x5C, 0x5F, 0x7A, 0x86, 0x96, 0x9C, 0xBE, 0xAF, 0xB6, 0xDD];

/// How QEMU runs a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// It emulates the processor. It has no VMX to offer.
    Tcg,
    /// The host's processor runs the machine, VMX and counters included.
    Kvm,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// KVM where everything is right for it, TCG elsewhere
    #[default]
    Auto,
    /// TCG: QEMU emulates the processor, without VMX
    Tcg,
    /// KVM, also when the counters are likely to be wrong
    Kvm,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, and could work better.
    Hint,
    /// KVM can run the kernel, but its counters are missing or not to be trusted.
    Spoils,
    /// KVM cannot run the kernel.
    Blocks,
}

/// Something that keeps the kernel from running well on KVM here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub change: String,
}

/// The accelerator, the arguments for it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The accelerator.
    pub accel: Accel,
    /// QEMU's arguments for machine, accelerator and processor.
    pub args: Vec<String>,
    /// Why this one.
    pub reasons: Vec<String>,
    /// What is wrong or could be better, the weightiest first.
    pub complaints: Vec<Complaint>,
}

/// Chooses the accelerator.
///
/// # Errors
/// When QEMU is not installed, or KVM is wished for and cannot work; the message says what is in the way.
pub fn choose(facts: &HostFacts, wish: Wish) -> Result<Choice> {
    if facts.qemu.is_none() {
        bail!(
            "QEMU is not installed: `cargo xtask setup` installs it, and so does `apt-get install qemu-system-x86`"
        );
    }
    let complaints = complaints(facts);
    let worst = complaints.iter().map(|c| c.severity).max();
    let (accel, reason) = match (wish, worst) {
        (Wish::Tcg, _) => (Accel::Tcg, "TCG, as asked for".into()),
        (Wish::Kvm, Some(Severity::Blocks)) => {
            bail!("KVM cannot run the kernel on this host.\n{}", list(&complaints, Severity::Blocks))
        }
        (Wish::Kvm, Some(Severity::Spoils)) => {
            (Accel::Kvm, "KVM, as asked for, although the counters are likely to fail the boot proof".into())
        }
        (Wish::Kvm, _) => (Accel::Kvm, "KVM, as asked for".into()),
        (Wish::Auto, None | Some(Severity::Hint)) => (
            Accel::Kvm,
            "KVM: this host offers nested VMX and performance counters, and nothing else uses them".into(),
        ),
        (Wish::Auto, Some(Severity::Spoils)) => {
            (Accel::Tcg, "TCG: KVM would run the kernel here, but not with counters to rely on".into())
        }
        (Wish::Auto, Some(Severity::Blocks)) => {
            (Accel::Tcg, "TCG: KVM on this host cannot give the kernel VMX".into())
        }
    };
    Ok(Choice { accel, args: args(accel), reasons: reasons(accel, reason), complaints })
}

/// QEMU's arguments. The counters' interrupt needs KVM's own interrupt controllers. TCG gets an Intel processor, so that
/// what the kernel misses is VMX and not the vendor.
fn args(accel: Accel) -> Vec<String> {
    let words = match accel {
        Accel::Kvm => {
            ["-machine", "q35,kernel-irqchip=on", "-accel", "kvm", "-cpu", "host,migratable=off,pmu=on,+vmx"]
        }
        Accel::Tcg => ["-machine", "q35", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel"],
    };
    words.map(String::from).to_vec()
}

fn reasons(accel: Accel, first: String) -> Vec<String> {
    let mut reasons = vec![first];
    if accel == Accel::Tcg {
        reasons.push(
            "TCG emulates no VMX, so the kernel boots up to its refusal; guests and the boot proof run on the emulated \
             machine: cargo xtask demo, cargo xtask bochs"
                .into(),
        );
    }
    reasons
}

impl Choice {
    /// The choice for people: accelerator and reasons, then each complaint with its cure.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (index, reason) in self.reasons.iter().enumerate() {
            let heading = if index == 0 { "accelerator" } else { "" };
            let _ = writeln!(text, "{heading:<11} {reason}");
        }
        text + &list(&self.complaints, Severity::Hint)
    }
}

/// Complaints of at least this severity, one paragraph each.
fn list(complaints: &[Complaint], least: Severity) -> String {
    let mut text = String::new();
    for complaint in complaints.iter().filter(|c| c.severity >= least) {
        let word = match complaint.severity {
            Severity::Blocks => "in the way",
            Severity::Spoils => "wrong",
            Severity::Hint => "better",
        };
        let _ = writeln!(text, "{word:<11} {}", complaint.what);
        let _ = writeln!(text, "{:<11} -> {}", "", complaint.change);
    }
    text
}

/// Everything that keeps the kernel from running well on KVM here, the weightiest first.
pub fn complaints(facts: &HostFacts) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut add = |severity, what: &str, change: &str| {
        found.push(Complaint { severity, what: what.into(), change: change.into() });
    };
    if processor(facts, &mut add) {
        kvm(facts, &mut add);
        counters(facts, &mut add);
    }
    found.sort_by_key(|complaint| std::cmp::Reverse(complaint.severity));
    found
}

/// Takes a complaint: severity, what is wrong, what to do.
type Add<'a> = &'a mut dyn FnMut(Severity, &str, &str);

/// The processor. False if it will never do, so that settings do not matter.
fn processor(facts: &HostFacts, add: Add) -> bool {
    let cpu = &facts.processor;
    let elsewhere = "nothing on this host; `cargo xtask qemu` uses KVM on an Intel host with VMX";
    if facts.architecture != "x86_64" {
        add(Severity::Blocks, &format!("this host is {}, not x86_64", facts.architecture), elsewhere);
        return false;
    }
    if cpu.vendor != "GenuineIntel" {
        let svm = if cpu.svm { ", with SVM in place of VMX" } else { "" };
        add(Severity::Blocks, &format!("the processor is no Intel ({}{svm})", cpu.vendor), elsewhere);
        if facts.kvm.device == Device::Usable && !cpu.svm {
            let what = format!(
                "/dev/kvm is there without help from the processor ({}): it offers guests neither VMX nor counters",
                if facts.kvm.drivers.is_empty() { "no driver".into() } else { facts.kvm.drivers.join(", ") }
            );
            add(Severity::Blocks, &what, elsewhere);
        }
        return false;
    }
    if !cpu.vmx {
        let change = if cpu.hypervisor {
            "this host is itself a virtual machine: switch on nested virtualisation for it on the host below"
        } else {
            "switch on \"Intel Virtualization Technology\" (VMX) in the firmware's set-up"
        };
        add(Severity::Blocks, "the processor offers no VMX", change);
    }
    let missing = |name: &str| !cpu.vmx_features.is_empty() && !cpu.vmx_features.iter().any(|f| f == name);
    for (_, name) in NEEDED_FEATURES.iter().filter(|(linux, _)| missing(linux)) {
        add(Severity::Blocks, &format!("the processor's VMX has no {name}"), elsewhere);
    }
    if cpu.family == 6 && ATOM_MODELS.contains(&cpu.model) {
        let what =
            "the processor is of the Atom class, whose counters count too much around VM entries and exits";
        add(Severity::Spoils, what, "use a host with a Core or Xeon processor of big cores");
    }
    if cpu.hypervisor && cpu.vmx {
        let what = "this host is itself a virtual machine, so guests run three levels deep: slow, and counts may be off";
        add(Severity::Hint, what, "let the boot proof judge, or use a host of metal");
    }
    true
}

fn kvm(facts: &HostFacts, add: Add) {
    match facts.kvm.device {
        Device::Usable => {}
        Device::Missing => add(Severity::Blocks, "there is no /dev/kvm", "sudo modprobe kvm_intel nested=1"),
        Device::Denied => add(
            Severity::Blocks,
            "/dev/kvm is not open to this user",
            "sudo usermod -aG kvm $USER, then log in again",
        ),
    }
    let reload = "sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1; for good: \
                  echo 'options kvm_intel nested=1' | sudo tee /etc/modprobe.d/kvm_intel.conf";
    match facts.kvm.nested {
        Some(true) => {}
        Some(false) => add(Severity::Blocks, "kvm_intel.nested is off, so guests get no VMX", reload),
        None if facts.kvm.device == Device::Missing => {}
        None => add(Severity::Blocks, "the module kvm_intel is not loaded, whatever /dev/kvm is", reload),
    }
    if facts.qemu.as_ref().is_some_and(|qemu| !qemu.accelerators.iter().any(|name| name == "kvm")) {
        add(
            Severity::Blocks,
            "this QEMU was built without KVM",
            "install the distribution's qemu-system-x86",
        );
    }
    let (major, minor) = FIRST_GOOD_KERNEL;
    if facts.kernel_version().is_none_or(|version| version < FIRST_GOOD_KERNEL) {
        let what = format!(
            "kernel {} is older than {major}.{minor}: counter interrupts come twice or unmasked",
            facts.kernel
        );
        add(
            Severity::Spoils,
            &what,
            &format!("boot a kernel from {major}.{minor} on (Debian 13, or Debian 12's backports)"),
        );
    }
}

fn counters(facts: &HostFacts, add: Add) {
    let cpu = &facts.processor;
    if !cpu.counters {
        let change = if cpu.hypervisor {
            "this host is itself a virtual machine: give it counters on the host below (QEMU: -cpu host,pmu=on)"
        } else {
            "switch the performance counters on in the firmware's set-up"
        };
        add(Severity::Spoils, "the processor offers no architectural performance counters", change);
    }
    if cpu.hybrid {
        let what = "the processor has cores of two kinds; KVM gives guests no counters on such";
        add(
            Severity::Spoils,
            what,
            "switch off the small cores (E-cores) in the firmware's set-up, or use another host",
        );
    } else if facts.kvm.counters == Some(false) {
        let change = "sudo modprobe -r kvm_intel kvm && sudo modprobe kvm enable_pmu=1 && sudo modprobe kvm_intel nested=1";
        add(Severity::Spoils, "kvm.enable_pmu is off, so guests get no counters", change);
    }
    if facts.nmi_watchdog == Some(true) {
        let what =
            "the NMI watchdog holds a counter; a guest's counter may stop silently, or the guest not start";
        add(
            Severity::Spoils,
            what,
            "sudo sysctl kernel.nmi_watchdog=0; for good: nmi_watchdog=0 on the kernel's command line",
        );
    }
    for process in &facts.perf {
        let what = format!("{process} runs; it takes counters from guests");
        add(Severity::Spoils, &what, "end it");
    }
    if facts.kvm.mediated == Some(false) && !cpu.hybrid && cpu.counters {
        let what = "kvm_intel.enable_mediated_pmu is off: guests share the counters with perf instead of owning them";
        add(
            Severity::Hint,
            what,
            "sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1 enable_mediated_pmu=1",
        );
    }
}
