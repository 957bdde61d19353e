//! What this host can do for us: its processor, KVM, the counters, QEMU; and what follows for `cargo xtask qemu`.
//!
//! [`HostFacts`] are collected from a [`Source`]: the running system, or a recording of one. [`choose`] is a pure function
//! of them, so every kind of host is tested wherever the tests run.

mod choice;
mod source;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub use choice::{Accel, Choice, Complaint, Severity, Wish, choose, complaints};
pub use source::{Live, Recorded, Source};

/// Facts about a host. They serialise to JSON, for `cargo xtask doctor --json` and for bug reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What `uname -m` says: `x86_64`, `aarch64`.
    pub architecture: String,
    /// What `uname -r` says.
    pub kernel: String,
    /// The processor.
    pub processor: Processor,
    /// KVM.
    pub kvm: Kvm,
    /// Whether the NMI watchdog holds a counter (`/proc/sys/kernel/nmi_watchdog`); `None` if the kernel has none.
    pub nmi_watchdog: Option<bool>,
    /// Running processes of perf, which hold counters.
    pub perf: Vec<String>,
    /// QEMU; `None` if it is not installed.
    pub qemu: Option<Qemu>,
}

/// The processor, as `/proc/cpuinfo` and `/sys/devices` have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// `GenuineIntel`, `AuthenticAMD`; empty if it is no x86 processor.
    pub vendor: String,
    /// The name that it calls itself.
    pub name: String,
    /// Family.
    pub family: u32,
    /// Model, extended bits included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// It has VMX, and the firmware has not locked it off.
    pub vmx: bool,
    /// It has SVM, AMD's counterpart.
    pub svm: bool,
    /// It has architectural performance counters.
    pub counters: bool,
    /// It is a virtual machine's.
    pub hypervisor: bool,
    /// It has cores of two kinds.
    pub hybrid: bool,
    /// VMX features by the kernel's names; empty if the kernel (before 5.8) does not list them.
    pub vmx_features: Vec<String>,
}

/// KVM on this host. The settings are `None` where the module or the setting is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// `/dev/kvm`.
    pub device: Device,
    /// Loaded modules of KVM that drive a processor: `kvm_intel`, `kvm_amd`.
    pub drivers: Vec<String>,
    /// `kvm_intel.nested`: guests get VMX.
    pub nested: Option<bool>,
    /// `kvm.enable_pmu`: guests get counters.
    pub counters: Option<bool>,
    /// `kvm_intel.enable_mediated_pmu`: guests own the counters while they run.
    pub mediated: Option<bool>,
}

/// What `/dev/kvm` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// Not there.
    #[default]
    Missing,
    /// There, and not for us.
    Denied,
    /// There, and we can open it.
    Usable,
}

/// The installed QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Its version.
    pub version: String,
    /// Its accelerators.
    pub accelerators: Vec<String>,
}

impl HostFacts {
    /// The facts about this host.
    pub fn of_this_host() -> Self {
        Self::collect(&Live)
    }

    /// Collects the facts from a source.
    pub fn collect(source: &impl Source) -> Self {
        let flag = |path: &str| source.read(path).and_then(|text| parse_flag(&text));
        HostFacts {
            architecture: trimmed(source.command(&["uname", "-m"])),
            kernel: trimmed(source.command(&["uname", "-r"])),
            processor: processor(source),
            kvm: Kvm {
                device: source.kvm_device(),
                drivers: drivers(source),
                nested: flag("/sys/module/kvm_intel/parameters/nested"),
                counters: flag("/sys/module/kvm/parameters/enable_pmu"),
                mediated: flag("/sys/module/kvm_intel/parameters/enable_mediated_pmu"),
            },
            nmi_watchdog: flag("/proc/sys/kernel/nmi_watchdog"),
            perf: perf_processes(source),
            qemu: qemu(source),
        }
    }

    /// The kernel's version, major and minor.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// The facts for people: a few lines with a heading each, then what they mean for this project.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |heading: &str, fact: String| {
            let _ = writeln!(text, "{heading:<11} {fact}");
        };
        line("processor", self.processor.describe(&self.architecture));
        line("kernel", format!("Linux {} on {}", self.kernel, self.architecture));
        line("KVM", self.kvm.describe());
        line("counters", self.describe_counters());
        line(
            "QEMU",
            match &self.qemu {
                Some(qemu) => format!("{} with {}", qemu.version, qemu.accelerators.join(", ")),
                None => "not installed (package qemu-system-x86)".into(),
            },
        );
        text + &choose(self, Wish::Auto).map_or_else(|error| format!("{error}\n"), |choice| choice.describe())
    }

    fn describe_counters(&self) -> String {
        let watchdog = match self.nmi_watchdog {
            Some(true) => "the NMI watchdog holds one",
            Some(false) => "the NMI watchdog is off",
            None => "no NMI watchdog in this kernel",
        };
        let perf = if self.perf.is_empty() {
            "no perf runs".into()
        } else {
            format!("held by {}", self.perf.join(", "))
        };
        let there = if self.processor.counters { "there" } else { "none that are architectural" };
        format!("{there}; {watchdog}; {perf}")
    }
}

impl Processor {
    fn describe(&self, architecture: &str) -> String {
        if self.vendor.is_empty() {
            return format!("{architecture}, no x86 processor");
        }
        let has = |what: &str, there: bool| format!("{what} {}", if there { "yes" } else { "no" });
        let mut facts =
            vec![has("VMX", self.vmx), has("SVM", self.svm), has("architectural counters", self.counters)];
        if self.hybrid {
            facts.push("cores of two kinds".into());
        }
        if self.hypervisor {
            facts.push("this host is itself a virtual machine".into());
        }
        let id = format!("{} {:x}h/{:02X}h/{}", self.vendor, self.family, self.model, self.stepping);
        format!("{} ({id}): {}", self.name, facts.join(", "))
    }
}

impl Kvm {
    fn describe(&self) -> String {
        let device = match self.device {
            Device::Missing => "no /dev/kvm",
            Device::Denied => "/dev/kvm is not open to this user",
            Device::Usable => "/dev/kvm can be used",
        };
        let mut facts = vec![device.to_owned()];
        facts.push(if self.drivers.is_empty() { "no driver loaded".into() } else { self.drivers.join(", ") });
        let settings =
            [("nested", self.nested), ("enable_pmu", self.counters), ("enable_mediated_pmu", self.mediated)];
        for (name, value) in settings {
            facts.extend(value.map(|on| format!("{name}={}", if on { "Y" } else { "N" })));
        }
        facts.join("; ")
    }
}

fn trimmed(text: Option<String>) -> String {
    text.unwrap_or_default().trim().to_owned()
}

/// A setting of a kernel module or a sysctl: `Y`, `N`, `1`, `0`.
fn parse_flag(text: &str) -> Option<bool> {
    match text.trim() {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// The first processor of `/proc/cpuinfo`; hosts whose processors differ are hybrid, and those have directories of their
/// own for the counters of each kind.
fn processor(source: &impl Source) -> Processor {
    let cpuinfo = source.read("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let number = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let flags: Vec<&str> = field("flags").unwrap_or_default().split_whitespace().collect();
    let has = |flag| flags.contains(&flag);
    Processor {
        vendor: field("vendor_id").unwrap_or_default().into(),
        name: field("model name").unwrap_or_default().into(),
        family: number("cpu family"),
        model: number("model"),
        stepping: number("stepping"),
        vmx: has("vmx"),
        svm: has("svm"),
        counters: has("arch_perfmon"),
        hypervisor: has("hypervisor"),
        hybrid: source.list("/sys/devices").iter().any(|name| name == "cpu_atom"),
        vmx_features: field("vmx flags").unwrap_or_default().split_whitespace().map(String::from).collect(),
    }
}

fn drivers(source: &impl Source) -> Vec<String> {
    let mut names = source.list("/sys/module");
    names.retain(|name| name.starts_with("kvm_"));
    names.sort();
    names
}

fn perf_processes(source: &impl Source) -> Vec<String> {
    let is_process = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
    let processes = source.list("/proc").into_iter().filter(is_process);
    let perf = processes
        .filter(|id| source.read(&format!("/proc/{id}/comm")).is_some_and(|name| name.trim() == "perf"));
    perf.map(|id| format!("perf (process {id})")).collect()
}

fn qemu(source: &impl Source) -> Option<Qemu> {
    let version = source.command(&["qemu-system-x86_64", "--version"])?;
    let version =
        version.split_whitespace().skip_while(|&word| word != "version").nth(1).unwrap_or("unknown");
    let help = source.command(&["qemu-system-x86_64", "-accel", "help"]).unwrap_or_default();
    // A heading, then a name a line.
    let accelerators =
        help.lines().skip(1).map(|line| line.trim().to_owned()).filter(|name| !name.is_empty());
    Some(Qemu { version: version.into(), accelerators: accelerators.collect() })
}

#[cfg(test)]
mod tests;
