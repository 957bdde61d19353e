//! The choice on every kind of host that was recorded, and the facts behind it.

use super::*;

/// The recorded hosts, by name.
macro_rules! hosts {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("testdata/", $name, ".json")))),*]
    };
}

const HOSTS: [(&str, &str); 20] = hosts![
    "amd-software-kvm",
    "amd-svm",
    "arm64",
    "intel-atom",
    "intel-firmware-off",
    "intel-good",
    "intel-hybrid",
    "intel-mediated-off",
    "intel-mediated-on",
    "intel-nested-off",
    "intel-no-kvm",
    "intel-no-unrestricted",
    "intel-not-in-group",
    "intel-old-kernel",
    "intel-perf",
    "intel-pmu-off",
    "intel-vm-good",
    "intel-vm-no-vpmu",
    "intel-watchdog",
    "no-qemu",
];

fn facts(name: &str) -> HostFacts {
    let (_, text) = HOSTS.iter().find(|(known, _)| *known == name).expect("a recorded host");
    let recorded: Recorded = serde_json::from_str(text).expect("a recording");
    HostFacts::collect(&recorded)
}

/// On this host, `auto` chooses `accel`, and each complaint contains the phrase of its place, with that severity.
fn expect(name: &str, accel: Accel, complaints: &[(Severity, &str, &str)]) {
    let choice = choose(&facts(name), Wish::Auto).unwrap();
    assert_eq!(choice.accel, accel, "{name}: {}", choice.describe());
    let found: Vec<_> =
        choice.complaints.iter().map(|c| (c.severity, c.what.as_str(), c.change.as_str())).collect();
    assert_eq!(found.len(), complaints.len(), "{name}: {found:?}");
    for ((severity, what, change), (wanted, what_has, change_has)) in found.into_iter().zip(complaints) {
        assert_eq!(severity, *wanted, "{name}: {what}");
        assert!(what.contains(what_has), "{name}: {what:?} does not say {what_has:?}");
        assert!(change.contains(change_has), "{name}: {change:?} does not say {change_has:?}");
    }
}

use Severity::{Blocks, Hint, Spoils};

#[test]
fn a_good_intel_host_gets_kvm_and_no_complaint() {
    expect("intel-good", Accel::Kvm, &[]);
    let choice = choose(&facts("intel-good"), Wish::Auto).unwrap();
    let args = choice.args.join(" ");
    assert_eq!(args, "-machine q35,kernel-irqchip=on -accel kvm -cpu host,migratable=off,pmu=on,+vmx");
}

#[test]
fn one_wrong_setting_is_named_with_its_cure() {
    expect("intel-nested-off", Accel::Tcg, &[(Blocks, "kvm_intel.nested is off", "nested=1")]);
    expect("intel-watchdog", Accel::Tcg, &[(Spoils, "NMI watchdog", "kernel.nmi_watchdog=0")]);
    expect("intel-perf", Accel::Tcg, &[(Spoils, "perf (process 4711)", "end it")]);
    expect(
        "intel-old-kernel",
        Accel::Tcg,
        &[(Spoils, "6.1.0-37-amd64 is older than 6.6", "kernel from 6.6")],
    );
    expect("intel-pmu-off", Accel::Tcg, &[(Spoils, "kvm.enable_pmu is off", "enable_pmu=1")]);
    expect("intel-not-in-group", Accel::Tcg, &[(Blocks, "not open to this user", "usermod -aG kvm")]);
    expect("intel-no-kvm", Accel::Tcg, &[(Blocks, "no /dev/kvm", "modprobe kvm_intel")]);
}

#[test]
fn processors_that_will_not_do_are_told_apart() {
    expect("intel-no-unrestricted", Accel::Tcg, &[(Blocks, "no unrestricted guest", "Intel host")]);
    expect("intel-hybrid", Accel::Tcg, &[(Spoils, "cores of two kinds", "E-cores")]);
    expect("intel-atom", Accel::Tcg, &[(Spoils, "Atom class", "big cores")]);
    expect("amd-svm", Accel::Tcg, &[(Blocks, "AuthenticAMD, with SVM", "Intel host")]);
    expect("arm64", Accel::Tcg, &[(Blocks, "aarch64, not x86_64", "Intel host")]);
    let off = [(Blocks, "no VMX", "firmware's set-up"), (Blocks, "no /dev/kvm", "modprobe")];
    expect("intel-firmware-off", Accel::Tcg, &off);
    let software = [
        (Blocks, "no Intel (AuthenticAMD)", "Intel host"),
        (Blocks, "without help from the processor (kvm_pvm)", ""),
    ];
    expect("amd-software-kvm", Accel::Tcg, &software);
}

#[test]
fn virtual_machines_are_judged_by_what_they_offer() {
    expect("intel-vm-good", Accel::Kvm, &[(Hint, "three levels", "boot proof")]);
    let no_counters =
        [(Spoils, "no architectural performance counters", "pmu=on"), (Hint, "three levels", "")];
    expect("intel-vm-no-vpmu", Accel::Tcg, &no_counters);
}

#[test]
fn newer_kernels_can_do_better() {
    expect("intel-mediated-on", Accel::Kvm, &[]);
    expect(
        "intel-mediated-off",
        Accel::Kvm,
        &[(Hint, "enable_mediated_pmu is off", "enable_mediated_pmu=1")],
    );
}

#[test]
fn wishes_are_granted_where_they_can_be() {
    assert_eq!(choose(&facts("intel-good"), Wish::Tcg).unwrap().accel, Accel::Tcg);
    let forced = choose(&facts("intel-watchdog"), Wish::Kvm).unwrap();
    assert_eq!(forced.accel, Accel::Kvm);
    assert!(forced.describe().contains("likely to fail the boot proof"), "{}", forced.describe());
    let refused = choose(&facts("intel-nested-off"), Wish::Kvm).unwrap_err().to_string();
    assert!(refused.contains("kvm_intel.nested") && refused.contains("modprobe"), "{refused}");
    let missing = choose(&facts("no-qemu"), Wish::Auto).unwrap_err().to_string();
    assert!(missing.contains("apt-get install"), "{missing}");
}

#[test]
fn tcg_is_announced_with_what_it_cannot_do() {
    for (name, _) in HOSTS.iter().filter(|(name, _)| *name != "no-qemu") {
        let choice = choose(&facts(name), Wish::Auto).unwrap();
        assert_eq!(choice.accel == Accel::Tcg, choice.describe().contains("TCG emulates no VMX"), "{name}");
        assert!(!choice.reasons.is_empty());
    }
}

#[test]
fn facts_are_read_from_the_recordings() {
    let facts = facts("amd-software-kvm");
    assert_eq!(facts.processor.vendor, "AuthenticAMD");
    assert_eq!((facts.processor.family, facts.processor.model, facts.processor.stepping), (25, 17, 1));
    assert!(
        facts.processor.hypervisor
            && !facts.processor.vmx
            && !facts.processor.svm
            && !facts.processor.counters
    );
    assert_eq!(facts.kvm.drivers, ["kvm_pvm"]);
    assert_eq!(facts.kernel_version(), Some((6, 18)));
    assert_eq!(facts.nmi_watchdog, Some(false));
    let qemu = facts.qemu.unwrap();
    assert_eq!((qemu.version.as_str(), qemu.accelerators.join(" ").as_str()), ("7.2.22", "tcg kvm"));
}

#[test]
fn the_description_names_every_fact_and_the_verdict() {
    let text = facts("intel-watchdog").describe();
    for phrase in [
        "Xeon(R) Gold 6230",
        "GenuineIntel 6h/55h/7",
        "VMX yes",
        "Linux 6.12.41",
        "/dev/kvm can be used",
        "nested=Y",
        "the NMI watchdog holds one",
        "10.0.2 with tcg, kvm",
        "accelerator TCG",
        "sudo sysctl",
    ] {
        assert!(
            text.split_whitespace().collect::<Vec<_>>().join(" ").contains(phrase),
            "no {phrase:?} in\n{text}"
        );
    }
}

#[test]
fn facts_survive_json() {
    for (name, _) in HOSTS {
        let facts = facts(name);
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<HostFacts>(&text).unwrap(), facts);
    }
}

#[test]
fn this_host_can_be_looked_at() {
    let facts = HostFacts::of_this_host();
    assert!(!facts.architecture.is_empty() && facts.kernel_version().is_some(), "{facts:?}");
    assert!(facts.describe().lines().count() >= 5);
}
