//! Firmware of a PC starts a guest from its disk: SeaBIOS, unmodified, from its package.

use std::path::Path;

use machine_tests::{Exit, Host, Payload, Running, host, payload, runs_to_its_end};
use xtask::payload::boot_sector::{FAILURE, GREETING, SECOND_SECTOR};
use xtask::payload::disk::MENU_ENTRY;
use xtask::vm::Vm;
use xtask::vm::host::Console;

#[test]
fn a_boot_sector_reads_and_writes_its_disk_by_the_bios() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::BootSector, ""), &host());
    let console = &outcome.console;
    assert!(console.contains("SeaBIOS (version"), "{}", outcome.last_words());
    assert!(console.contains(GREETING), "{}", outcome.last_words());
    assert!(!console.contains(FAILURE), "{}", outcome.last_words());
    // Once as it stood on the disk, and once as it came back after it was written elsewhere.
    assert_eq!(console.matches(SECOND_SECTOR).count(), 2, "{}", outcome.last_words());
}

#[test]
fn the_firmware_s_log_is_in_the_host_s_log() {
    let mut host = host();
    host.words += " log=debug";
    let (outcome, _) = runs_to_its_end(&payload(Payload::BootSector, ""), &host);
    let log: Vec<&str> =
        outcome.console.lines().filter_map(|line| Some(line.split_once("firmware: ")?.1)).collect();
    // It has read the memory map and the order of devices from us, driven the disk as a virtio 1.x device, and started it.
    for wanted in [
        "Found QEMU fw_cfg",
        "pci dev 00:02.0 using modern (1.0) virtio mode",
        "sercon: using ioport 0x3f8",
        "Booting from 0000:7c00",
    ] {
        assert!(log.iter().any(|line| line.starts_with(wanted)), "no {wanted:?} in:\n{}", log.join("\n"));
    }
}

#[test]
fn a_disk_that_cannot_be_booted_is_said_to_be_so() {
    let mut description = payload(Payload::BootSector, "");
    description.disks = vec![machine_tests::DiskSource::Blank(description.memory)];
    let vm = description.vm().unwrap();
    let mut started = host().start(&vm).unwrap();
    let came = started.running.wait_for("No bootable device").unwrap();
    let (outcome, _) = started.stop().unwrap();
    assert!(came, "{}", outcome.last_words());
}

/// What it wrote before a reset is there after it, with the same checksum.
#[test]
fn an_installed_debian_boots_by_its_own_grub_and_keeps_its_files_over_a_reset() {
    let vm = payload(Payload::Disk, "twice=1").vm().unwrap();
    // A guest that resets itself is to start again.
    let host = Host { words: "exit-port=0xf4 proof=off".into(), ..host() };
    let mut started = host.start(&vm).unwrap();
    let ended = started.running.wait_for("@@ vm event=stopped").unwrap();
    let (outcome, _) = started.stop().unwrap();
    let console = &outcome.console;
    assert!(ended, "{}", outcome.last_words());
    assert_eq!(console.matches("@@ vm event=reset").count(), 1, "{}", outcome.last_words());
    assert_eq!(console.matches("SeaBIOS (version").count(), 2, "{}", outcome.last_words());
    assert!(console.matches(MENU_ENTRY).count() >= 2, "{}", outcome.last_words());
    let said: Vec<&str> = outcome.facts("DISK").collect();
    let boot = |n| format!("boot={n} init=init debian=");
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(
        said[0].starts_with(&boot(1)) && said[2..].iter().any(|line| line.starts_with(&boot(2))),
        "{said:?}"
    );
    // /dev/vda1 in the kernel's words.
    assert!(said[0].contains(" root=fe:1 "), "{said:?}");
    assert!(said.contains(&"noise=kept"), "{said:?}");
    assert_eq!(said.iter().filter(|line| **line == "clean").count(), 2, "{said:?}");
    let stopped = outcome.facts("vm").find(|fact| fact.starts_with("event=stopped ")).unwrap_or_default();
    assert!(stopped.contains(" reason=power-off "), "{stopped}");
}

/// The second of two disks, behind a network device: it is at another place on the bus, and the first has nothing to start.
#[test]
fn firmware_starts_from_the_disk_that_the_configuration_names() {
    let vm = payload(Payload::BootSector, "").vm().unwrap();
    let file =
        |name: &str| vm.files().iter().find(|(known, _)| known == name).unwrap().1.display().to_string();
    let text = format!(
        "[vm]\nname = \"second\"\nmemory = \"64M\"\ncpu = \"x86-64-v2\"\nseed = 1\n\
         [boot]\nfirmware = \"{}\"\ndisk = 1\n\
         [[disk]]\nsize = \"1M\"\n[[disk]]\nimage = \"{}\"\nserial = \"second\"\n\
         [[network]]\nmac = \"52:54:00:12:34:56\"\ncard = \"none\"\n[console]\nvirtio = true\n",
        file("firmware"),
        file("disk0")
    );
    let vm = Vm::parse(&text, Path::new("/")).unwrap();
    let (outcome, _) = host().run(&vm).unwrap();
    outcome.expect(&Exit::Success).unwrap();
    assert_eq!(outcome.console.matches(SECOND_SECTOR).count(), 2, "{}", outcome.last_words());
}

/// GRUB reads the keyboard, the partition and the file system; to switch the machine off it reads the ACPI tables by a parser of its
/// own, and finds the sleep type in the DSDT that SeaBIOS has put together.
#[test]
fn a_person_can_use_the_boot_loader() {
    let vm = payload(Payload::Disk, "").vm().unwrap();
    let mut started = Host { console: Console::Typed, ..host() }.start(&vm).unwrap();
    let mut answers = |keys: &str, wanted: &str| types(&mut started.running, keys, wanted);
    answers("", "Press enter to boot");
    answers("c", "grub>");
    answers("ls\r", "(hd0,msdos1)");
    answers("ls -l (hd0,msdos1)/boot\r", "vmlinuz-");
    answers("cat /etc/hostname-of-nobody\r", "not found");
    answers("halt\r", "@@ vm event=stopped");
    let (outcome, _) = started.wait().unwrap();
    outcome.expect(&Exit::Success).unwrap();
    let stopped = outcome.facts("vm").find(|fact| fact.starts_with("event=stopped ")).unwrap_or_default();
    assert!(stopped.contains(" reason=power-off "), "{stopped}");
    assert!(!outcome.console.contains("Linux version"), "{}", outcome.last_words());
}

#[test]
fn a_person_has_a_shell_on_the_disk() {
    let vm = payload(Payload::Disk, "wl=shell").vm().unwrap();
    let mut started = Host { console: Console::Typed, ..host() }.start(&vm).unwrap();
    // The prompt of the superuser's shell.
    assert!(started.running.wait_for("\n# ").unwrap(), "{}", started.running.console());
    let mut answers = |keys: &str, wanted: &str| types(&mut started.running, keys, wanted);
    answers("echo dev=$(stat -c %t:%T /dev/vda1) boots=$(cat /var/lib/boots)\r", "dev=fe:1 boots=1");
    answers("sha256sum -c /var/lib/noise.sum\r", "noise: OK");
    answers("exit\r", "@@ vm event=stopped");
    let (outcome, _) = started.wait().unwrap();
    outcome.expect(&Exit::Success).unwrap();
    assert_eq!(outcome.facts("DISK").last(), Some("clean"), "{}", outcome.last_words());
}

/// Types and waits for what it must bring.
fn types(running: &mut Running, keys: &str, wanted: &str) {
    let before = running.console().len();
    running.send(keys).unwrap();
    let came = running.wait_for_after(before, wanted).unwrap();
    assert!(came, "{keys:?}: no {wanted:?} in:\n{}", running.console());
}
