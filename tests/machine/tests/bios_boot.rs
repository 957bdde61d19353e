//! Firmware of a PC starts a guest from its disk: SeaBIOS, unmodified, from its package.

use machine_tests::{Payload, host, payload, runs_to_its_end};
use xtask::payload::boot_sector::{FAILURE, GREETING, SECOND_SECTOR};

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
