//! One ISO image, as a CD, as a USB stick and as a disk.

use std::fs;
use std::path::PathBuf;

use xtask::emulator;
use xtask::qemu::{Boot, Firmware};

use super::boots::{BIG, dir, expect_bochs, expect_qemu, image, qemu};
use super::expectation::Expectation;

/// An ISO image with a configuration and modules of these sizes.
fn iso(sizes: &[usize]) -> (PathBuf, Expectation) {
    let dir = dir();
    let (image, expectation) = image(&dir, sizes);
    let iso = dir.join("image.iso");
    image.write_iso(&iso).unwrap_or_else(|error| panic!("{error:#}"));
    (iso, expectation)
}

#[test]
fn cd_on_qemu_bios_with_a_big_module() {
    let (iso, expectation) = iso(&[1, BIG, 4096]);
    expect_qemu(&qemu(Firmware::Bios, Boot::Cd(iso)), &expectation);
}

#[test]
fn cd_on_qemu_uefi_with_a_big_module() {
    let (iso, expectation) = iso(&[1, BIG, 4096]);
    expect_qemu(&qemu(Firmware::Uefi, Boot::Cd(iso)), &expectation);
}

#[test]
fn usb_stick_on_qemu_bios() {
    let (iso, expectation) = iso(&[5000]);
    expect_qemu(&qemu(Firmware::Bios, Boot::Usb(iso)), &expectation);
}

#[test]
fn usb_stick_on_qemu_uefi() {
    let (iso, expectation) = iso(&[5000]);
    expect_qemu(&qemu(Firmware::Uefi, Boot::Usb(iso)), &expectation);
}

#[test]
fn disk_on_qemu_bios_and_uefi() {
    let (iso, expectation) = iso(&[]);
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        expect_qemu(&qemu(firmware, Boot::Disk(iso.clone())), &expectation);
    }
}

/// The machine has what the drivers to come will want, and the kernel sees it.
#[test]
fn the_kernel_sees_cards_and_nvme() {
    let (iso, expectation) = iso(&[]);
    let disk = iso.with_file_name("nvme.img");
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let machine = xtask::qemu::Machine { nvme: vec![disk], ..qemu(Firmware::Bios, Boot::Cd(iso)) };
    let outcome = expect_qemu(&machine, &expectation);
    for (what, id) in [
        ("e1000", "vendor=8086 device=100e"),
        ("e1000e", "vendor=8086 device=10d3"),
        ("NVMe", "class=010802"),
    ] {
        let seen =
            outcome.console.lines().filter(|l| l.starts_with("@@ pci-function") && l.contains(id)).count();
        assert_eq!(seen, 1, "{what} in\n{}", outcome.console);
    }
}

#[test]
fn cd_on_bochs() {
    let (iso, expectation) = iso(&[1, 70_000]);
    let machine = emulator::Machine {
        limit: machine_tests::LIMIT,
        ..emulator::Machine::from_iso(&machine_tests::test_name(), iso)
    };
    expect_bochs(&machine, &expectation);
}

/// The same input gives the same bytes, whenever it is written.
#[test]
fn an_image_can_be_made_again() {
    let dir = dir();
    let (image, _) = image(&dir, &[3000]);
    let write = |name: &str| {
        let file = dir.join(name);
        image.write_iso(&file).unwrap_or_else(|error| panic!("{error:#}"));
        fs::read(file).unwrap()
    };
    let first = write("first.iso");
    // FAT and ISO 9660 keep dates to the second.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert!(first == write("second.iso"), "the two images differ; they are in {}", dir.display());
    let mut other = image.clone();
    other.timeout = 1;
    other.write_iso(&dir.join("other.iso")).unwrap();
    assert!(first != fs::read(dir.join("other.iso")).unwrap(), "another menu makes another image");
}
