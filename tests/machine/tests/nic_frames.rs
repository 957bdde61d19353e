//! The network driver against a real peer, one card after another: frames of all sizes both ways, polled and interrupted, bursts,
//! filters, a link that comes and goes. LOCKSTEP_NIC_FRAMES says how many frames each way.

use machine_tests::{Exit, LIMIT, kernel, test_name};
use xtask::image::Image;
use xtask::nic::{self, Plan};
use xtask::paths;
use xtask::qemu::{Boot, Machine, Nic};

/// Frames each way: three rounds of all sizes, and some.
const FRAMES: u32 = 5_000;

/// Skipped tests say so by these words.
const NO_IGB: &str =
    "skipped: this QEMU has no igb (8.0 has it, and Debian 12's backports; LOCKSTEP_QEMU names another one)";

/// One emulator at a time: each is judged by its clock.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn plan() -> Plan {
    let frames = std::env::var("LOCKSTEP_NIC_FRAMES").ok().map(|text| text.parse().expect("a number"));
    let frames = frames.unwrap_or(FRAMES);
    // An emulated card does thousands of frames a second, also where little of the processor is ours.
    Plan { frames, seed: 5, limit: LIMIT + LIMIT * (frames / 50_000) }
}

fn on_qemu(model: &str) {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let outcome = nic::qemu::prove(model, &plan()).unwrap_or_else(|error| panic!("{error:#}"));
    tell(model, &outcome.console);
}

/// What the machine says at the end, for those who ask by `--nocapture`.
fn tell(name: &str, console: &str) {
    for line in console.lines().filter(|line| line.starts_with("@@ frames")) {
        println!("{name}: {line}");
    }
}

#[test]
fn e1000_on_qemu() {
    on_qemu("e1000");
}

#[test]
fn e1000_82545em_on_qemu() {
    on_qemu("e1000-82545em");
}

#[test]
fn e1000e_on_qemu() {
    on_qemu("e1000e");
}

#[test]
fn igb_on_qemu() {
    if !nic::qemu::has("igb").unwrap() {
        println!("{NO_IGB}");
        return;
    }
    on_qemu("igb");
}

#[test]
fn e1000_on_the_lock_step_network() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(xtask::guests::programs().unwrap().iter().any(|name| name == "nic_frames"));
    let outcome = nic::lockstep::prove("test", &plan()).unwrap_or_else(|error| panic!("{error:#}"));
    tell("lock-step", &outcome.console);
}

/// The kernel finds and starts every card that it has a driver for, and names one that it has none for.
#[test]
fn the_kernel_finds_its_cards() {
    let mut models = vec!["e1000", "e1000-82545em", "e1000e"];
    if nic::qemu::has("igb").unwrap() {
        models.push("igb");
    } else {
        println!("{NO_IGB}");
    }
    let dir = paths::fresh_out_dir(&format!("media/{}", test_name())).unwrap();
    let iso = dir.join("image.iso");
    Image::for_run(kernel(), "proof=off").unwrap().write_iso(&iso).unwrap();
    let nics = (1..).zip(models.iter().chain(&["virtio-net-pci"]));
    let machine = Machine {
        name: test_name(),
        boot: Boot::Cd(iso),
        nics: nics.map(|(number, model)| Nic::new(number, model)).collect(),
        limit: LIMIT,
        ..Machine::default()
    };
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(outcome.exit, Exit::Refused, "{}", outcome.last_words());
    for (number, model) in (1..).zip(&models) {
        // The 82576 negotiates for longer than the kernel waits there.
        let link = if *model == "igb" { "" } else { "1" };
        let wanted = format!("mac=52:54:00:4c:53:{number:02x} link={link}");
        assert!(outcome.console.contains(&wanted), "{model}: no \"{wanted}\"\n{}", outcome.last_words());
    }
    for name in ["(82540EM by e1000)", "(82545EM by e1000)", "(82574L by e1000e)"] {
        assert!(outcome.console.contains(name), "no \"{name}\"\n{}", outcome.last_words());
    }
    assert_eq!(models.contains(&"igb"), outcome.console.contains("(82576 by igb)"));
    assert!(outcome.console.contains("(1af4:1000): no driver"), "{}", outcome.last_words());
}
