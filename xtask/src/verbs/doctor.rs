//! `cargo xtask doctor`: what this host can do, and what that means.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::emulator::{Variant, build};
use crate::hostfacts::{self, Accel, Complaint, Device, HostFacts, Wish};
use crate::paths;
use crate::setup::{self, Need, Plan, Probe, Purpose};

/// Say what this host can do: the emulated machine, QEMU, KVM with nested VMX and counters, and what is missing for each.
///
/// Nothing is changed. The exit status is 0 if the demo can run here as things are, 1 if something has to be installed or
/// built first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object with every fact
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the facts cannot be put into JSON.
pub fn run(args: Args) -> Result<ExitCode> {
    let examination = Examination::of_this_host();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&examination)?);
    } else {
        print!("{}", examination.describe());
    }
    Ok(if examination.ready() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// All that the doctor looks at.
#[derive(Debug, Serialize)]
struct Examination {
    host: HostFacts,
    /// Processors that this process may use.
    processors: usize,
    /// Memory that programs could have, MiB; 0 if the kernel does not tell.
    memory_mib: u64,
    cache: Option<PathBuf>,
    emulator: Emulator,
    missing: Missing,
    kvm_complaints: Vec<Complaint>,
    /// Whether QEMU would use KVM.
    kvm: bool,
}

/// The state of the emulator.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "path")]
enum Emulator {
    /// `LOCKSTEP_BOCHS` names it.
    Given(PathBuf),
    /// It is built.
    Built(PathBuf),
    /// It will be built when it is first used.
    NotBuilt,
}

/// What is not installed, by purpose.
#[derive(Debug, Default, Serialize)]
struct Missing {
    demo: Vec<String>,
    test: Vec<String>,
    bench: Vec<String>,
    /// What would install what the tests need: a command, or the reason why one has to do it by hand.
    cure: Vec<String>,
}

impl Examination {
    fn of_this_host() -> Self {
        let host = HostFacts::of_this_host();
        let given = std::env::var_os("LOCKSTEP_BOCHS").filter(|v| !v.is_empty()).map(PathBuf::from);
        let built = || build::cached(Variant::Ours).ok().flatten();
        let emulator = match given {
            Some(path) => Emulator::Given(path),
            None => built().map_or(Emulator::NotBuilt, Emulator::Built),
        };
        let kvm = hostfacts::choose(&host, Wish::Auto).is_ok_and(|choice| choice.accel == Accel::Kvm);
        Examination {
            kvm_complaints: hostfacts::complaints(&host),
            kvm,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory_mib: available_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cache: paths::cache_dir().ok(),
            emulator,
            missing: missing(),
            host,
        }
    }

    /// Whether the demo can run as things are.
    fn ready(&self) -> bool {
        self.missing.demo.is_empty() && !matches!(self.emulator, Emulator::NotBuilt)
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |heading: &str, body: &str| {
            for (number, row) in body.lines().enumerate() {
                text += &format!("{:16} {row}\n", if number == 0 { heading } else { "" });
            }
        };
        line("this host", &self.host_line());
        line("packages", &self.packages_line());
        line("emulated machine", &self.emulator_line());
        line("QEMU", &self.qemu_line());
        line("KVM", &self.kvm_line());
        line("so", &self.meaning());
        text
    }

    fn host_line(&self) -> String {
        let cpu = &self.host.processor;
        let name = if cpu.name.is_empty() { "a processor without a name" } else { &cpu.name };
        let inside = if cpu.hypervisor { "; itself a virtual machine" } else { "" };
        format!(
            "{name}, {}, Linux {}{inside}\n{} processors to use, {} MiB of memory free; cache {}",
            self.host.architecture,
            self.host.kernel,
            self.processors,
            self.memory_mib,
            self.cache
                .as_ref()
                .map_or("nowhere (set LOCKSTEP_CACHE)".into(), |dir| dir.display().to_string()),
        )
    }

    fn packages_line(&self) -> String {
        let Missing { demo, test, bench, cure } = &self.missing;
        if demo.is_empty() && test.is_empty() && bench.is_empty() {
            return "everything is installed".into();
        }
        let mut text = String::new();
        for (purpose, missing) in [("the demo", demo), ("the tests", test), ("the benchmarks", bench)] {
            if !missing.is_empty() {
                text += &format!("{purpose} want: {}\n", missing.join(", "));
            }
        }
        text + &cure.iter().map(|line| format!("-> {line}\n")).collect::<String>()
    }

    fn emulator_line(&self) -> String {
        match &self.emulator {
            Emulator::Given(path) => format!("{} (LOCKSTEP_BOCHS says so)", path.display()),
            Emulator::Built(path) => format!("built: {}", path.display()),
            Emulator::NotBuilt => "not built yet; the first use builds it, in a few minutes".into(),
        }
    }

    fn qemu_line(&self) -> String {
        match &self.host.qemu {
            Some(qemu) => format!("version {}, accelerators: {}", qemu.version, qemu.accelerators.join(", ")),
            None => "not installed".into(),
        }
    }

    fn kvm_line(&self) -> String {
        let device = match self.host.kvm.device {
            Device::Usable => "/dev/kvm can be used",
            Device::Denied => "/dev/kvm is not open to this user",
            Device::Missing => "there is no /dev/kvm",
        };
        let on = |setting: Option<bool>| match setting {
            Some(true) => "on",
            Some(false) => "off",
            None => "not there",
        };
        let kvm = &self.host.kvm;
        let mut text = format!(
            "{device}; nested VMX {}, counters for guests {}, NMI watchdog {}\n",
            on(kvm.nested),
            on(kvm.counters),
            on(self.host.nmi_watchdog)
        );
        for complaint in &self.kvm_complaints {
            text += &format!("{}\n-> {}\n", complaint.what, complaint.change);
        }
        text
    }

    /// What all that means for somebody who wants to use the project.
    fn meaning(&self) -> String {
        let mut text = match (self.missing.demo.is_empty(), &self.emulator) {
            (false, _) => {
                "`cargo xtask demo` installs what it lacks first (it asks), then runs.\n".to_owned()
            }
            (true, Emulator::NotBuilt) => {
                "`cargo xtask demo` builds the emulator first, then runs.\n".to_owned()
            }
            (true, _) => "`cargo xtask demo` runs as things are.\n".to_owned(),
        };
        text += "Guests, the boot proof and pairs of hosts run on the emulated machine: exact, slow, the same everywhere.\n";
        text += if self.kvm {
            "`cargo xtask qemu` uses KVM here: the same at the speed of the metal.\n"
        } else {
            "`cargo xtask qemu` boots the same image under emulation, up to the refusal for want of VMX; KVM is not used \
             here for the reasons above.\n"
        };
        if self.memory_mib > 0 && self.memory_mib < 2048 {
            text += "Less than 2 GiB of memory are free: building the emulator may fail; close something.\n";
        }
        text
    }
}

fn missing() -> Missing {
    let of = |purpose| setup::facts(purpose);
    let names = |facts: &setup::Facts| {
        let mut names: Vec<String> = facts.missing.iter().map(name).collect();
        names.extend((!facts.target).then(|| format!("Rust target {}", paths::KERNEL_TARGET)));
        names
    };
    let all = of(Purpose::Test);
    let cure = match setup::plan::plan(&all, true) {
        Plan::Nothing => Vec::new(),
        Plan::Install { .. } => vec!["cargo xtask setup".into()],
        Plan::ByHand { reason, commands } => std::iter::once(reason + ":").chain(commands).collect(),
    };
    Missing { demo: names(&of(Purpose::Demo)), test: names(&all), bench: names(&of(Purpose::Bench)), cure }
}

fn name(need: &Need) -> String {
    let thing = match need.probe {
        Probe::Program(name) => name,
        Probe::AnyOf(places) => places[0],
    };
    if thing == need.package { thing.into() } else { format!("{thing} (package {})", need.package) }
}

/// `MemAvailable` of `/proc/meminfo`, in MiB.
fn available_memory(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    kib.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Examination {
        Examination {
            host: HostFacts {
                architecture: "x86_64".into(),
                kernel: "6.12.1".into(),
                ..HostFacts::default()
            },
            processors: 4,
            memory_mib: 8000,
            cache: Some("/c".into()),
            emulator: Emulator::Built("/c/bochs".into()),
            missing: Missing::default(),
            kvm_complaints: Vec::new(),
            kvm: true,
        }
    }

    #[test]
    fn a_healthy_host_is_told_to_go_on() {
        let text = healthy().describe();
        assert!(healthy().ready());
        for part in ["everything is installed", "/c/bochs", "runs as things are", "uses KVM here"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_cure() {
        let missing = Missing {
            demo: vec!["xorriso".into()],
            cure: vec!["cargo xtask setup".into()],
            ..Missing::default()
        };
        let sick =
            Examination { missing, emulator: Emulator::NotBuilt, kvm: false, memory_mib: 900, ..healthy() };
        let text = sick.describe();
        assert!(!sick.ready());
        for part in
            ["the demo want: xorriso", "-> cargo xtask setup", "not built yet", "KVM is not used", "2 GiB"]
        {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn facts_come_out_as_json() {
        let json = serde_json::to_value(healthy()).unwrap();
        assert_eq!(json["emulator"]["state"], "built");
        assert_eq!(json["host"]["architecture"], "x86_64");
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"), 2048);
        assert_eq!(available_memory(""), 0);
    }
}
