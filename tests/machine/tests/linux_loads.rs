//! The standard loads that stay inside the guest: processor, memory, processes, time, disk. What they compute must be right.

use machine_tests::{
    DiskSource, Host, Outcome, Payload, host, load_output, number, payload, runs_to_its_end,
};
use vm_config::Memory;
use xtask::fetch::sha256_of;
use xtask::linux;
use xtask::run::Cmd;
use xtask::switch::station::content::zeros_sha256;

/// Size of the loads, MiB.
const SIZE: u64 = 8;

/// Seconds of the guest's uptime between the marks of a load.
fn seconds(outcome: &Outcome, load: &str) -> f64 {
    let at = |mark: &str| {
        let fact = outcome
            .facts(mark)
            .find(|fact| fact.starts_with(load))
            .unwrap_or_else(|| panic!("no {mark} {load}"));
        number(fact, "up")
    };
    at("END") - at("START")
}

#[test]
fn processor_loads_compute_what_they_should() {
    let words = format!("wl=cpu,gzip,fork n={SIZE}");
    let (outcome, _) = runs_to_its_end(&payload(Payload::Cloud, &words), &host());
    let wanted = format!("{}  -", zeros_sha256(SIZE << 20));
    assert_eq!(load_output(&outcome, "cpu"), [wanted.as_str()]);
    // The same program, on this machine.
    let busybox = linux::busybox().unwrap();
    let here =
        format!("dd if=/dev/zero bs=1M count={SIZE} 2>/dev/null | {} gzip -1 | wc -c", busybox.display());
    let here = Cmd::new("sh").args(["-c", &here]).check().unwrap();
    assert_eq!(load_output(&outcome, "gzip"), [here.trim()]);
    assert_eq!(load_output(&outcome, "fork"), [format!("forks={}", SIZE * 8).as_str()]);
}

#[test]
fn an_idle_guest_sleeps_as_long_as_it_means_to() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::Cloud, "wl=idle"), &host());
    assert_eq!(load_output(&outcome, "idle"), ["wakeups=50"]);
    // Fifty times 100 ms, and what the shell does between.
    let slept = seconds(&outcome, "idle");
    assert!((5.0..7.5).contains(&slept), "{slept} s");
}

#[test]
fn a_guest_s_clocks_agree_with_each_other_and_with_the_host_s() {
    // With the boot proof, so that time is counted in instructions.
    let host = host();
    let host = Host { words: host.words.replace("proof=off", "proof=short"), ..host };
    let (outcome, _) = runs_to_its_end(&payload(Payload::Cloud, "wl=clock"), &host);
    let told = load_output(&outcome, "clock");
    assert_eq!(told.len(), 1, "{told:?}");
    let (centiseconds, seconds) = (number(told[0], "centiseconds"), number(told[0], "seconds"));
    assert!(seconds >= 30.0, "{told:?}");
    // A thousandth, and what it takes to look (a shell's loop).
    assert!((centiseconds - seconds * 100.0).abs() <= 0.1 * seconds + 3.0, "{told:?}");
    let vm =
        outcome.facts("vm").find(|fact| fact.starts_with("event=stopped ")).expect("the guest has stopped");
    let (guest, host) = (number(vm, "virtual-ns"), number(vm, "real-ns"));
    assert!(host >= 6e10, "{host} ns are less than a minute");
    assert!((guest - host).abs() <= host / 1000.0, "{guest} ns in the guest are {host} ns of the host");
    assert!(
        outcome.facts("vm").any(|fact| fact.contains("exact=true")),
        "time is not counted in instructions"
    );
}

#[test]
fn what_is_written_to_a_disk_is_read_back() {
    let words = format!("wl=diskw,diskr n={SIZE}");
    let mut description = payload(Payload::Cloud, &words);
    description.disks = vec![DiskSource::Blank(Memory { bytes: (2 * SIZE) << 20 })];
    let (outcome, _) = runs_to_its_end(&description, &host());
    let contents = b"0123456789abcde\n".repeat((SIZE << 20) as usize / 16);
    let wanted = format!("{}  -", sha256_of(&contents));
    assert!(load_output(&outcome, "diskr").contains(&wanted.as_str()), "{}", outcome.last_words());
}

#[test]
fn a_disk_has_the_contents_of_its_image() {
    let image = std::env::temp_dir().join(format!("lockstep-disk-{}", std::process::id()));
    std::fs::write(&image, vec![0; (SIZE << 20) as usize]).unwrap();
    let mut description = payload(Payload::Cloud, &format!("wl=diskr n={SIZE}"));
    description.disks = vec![DiskSource::Image(image.clone())];
    let (outcome, _) = runs_to_its_end(&description, &host());
    std::fs::remove_file(image).unwrap();
    let wanted = format!("{}  -", zeros_sha256(SIZE << 20));
    assert!(load_output(&outcome, "diskr").contains(&wanted.as_str()), "{}", outcome.last_words());
}
