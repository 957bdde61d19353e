//! Media that are broken: the loader or the kernel says what is wrong, and the checks of the good boots notice.

use std::fs;

use machine_tests::Exit;
use xtask::image::Pxe;
use xtask::qemu::{Boot, Firmware, Machine};

use super::boots::{GIVE_UP, dir, image, qemu};

/// One byte of a module changed on the medium: the boot goes well, and the check finds the module.
#[test]
fn a_changed_byte_in_a_module_is_found() {
    let dir = dir();
    let (image, expectation) = image(&dir, &[100_000]);
    let iso = dir.join("image.iso");
    let module = dir.join("module-0.bin");
    let mut bytes = fs::read(&module).unwrap();
    bytes[77_777] ^= 0x10;
    fs::write(&module, bytes).unwrap();
    image.write_iso(&iso).unwrap();
    let outcome = qemu(Firmware::Bios, Boot::Cd(iso)).run().unwrap();
    let wrong = expectation.check(&outcome.exit, &outcome.console).unwrap_err();
    assert!(wrong.starts_with("the modules"), "{wrong}");
}

/// A PXE directory that lost a file: the loader names it, starts nothing, and goes back to its menu.
fn loses(file: &str, firmware: Firmware, says: &str) {
    let dir = dir();
    let (image, expectation) = image(&dir, &[1000]);
    let pxe = dir.join("pxe");
    image.write_pxe(&pxe, &Pxe::default()).unwrap();
    fs::remove_file(pxe.join(file)).unwrap();
    let machine = Machine { limit: GIVE_UP, ..qemu(firmware, Boot::Pxe(pxe)) };
    let outcome = machine.run_until(Some(says)).unwrap();
    assert_eq!(outcome.exit, Exit::Reached, "no {says:?}: {}", outcome.last_words());
    assert!(expectation.check(&outcome.exit, &outcome.console).is_err());
    assert!(!outcome.console.contains("loaded by"), "the kernel was started: {}", outcome.last_words());
}

#[test]
fn a_missing_kernel_is_named() {
    loses("kernel", Firmware::Bios, "Lockstep was not started: this loader could not load");
}

#[test]
fn a_missing_module_keeps_the_kernel_from_starting() {
    loses("modules/00-module-0.bin", Firmware::Bios, "modules/00-module-0.bin.");
}

#[test]
fn a_missing_configuration_keeps_the_kernel_from_starting() {
    loses("hosts/default.conf", Firmware::Uefi, "hosts/default.conf.");
}

#[test]
fn a_missing_menu_is_explained() {
    loses("grub.cfg", Firmware::Bios, "must offer the whole directory");
}
