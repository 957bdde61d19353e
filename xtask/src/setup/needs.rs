//! What the tools need from the system: each thing with the Debian package that brings it and the work that wants it.

use crate::payload::boot_sector::SEABIOS;

/// A piece of work that needs things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Building the emulator.
    Emulator,
    /// Running it.
    Run,
    /// Making bootable media.
    Image,
    /// Running QEMU, with BIOS and with UEFI.
    Qemu,
    /// Booting over the network.
    Network,
    /// Measuring against other systems.
    Bench,
}

/// What a user wants to do; it decides which work comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// `cargo xtask demo` and running guests: the emulator and images
    Demo,
    /// `cargo xtask test`: all of it but the peers of the benchmarks
    Test,
    /// `cargo xtask bench`
    Bench,
}

impl Purpose {
    /// The work that the purpose brings.
    pub fn work(self) -> &'static [Work] {
        match self {
            Purpose::Demo => &[Work::Emulator, Work::Run, Work::Image],
            Purpose::Test => &[Work::Emulator, Work::Run, Work::Image, Work::Qemu, Work::Network],
            Purpose::Bench => &[Work::Emulator, Work::Run, Work::Image, Work::Bench],
        }
    }
}

/// How to see whether a thing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// One of these files or directories.
    AnyOf(&'static [&'static str]),
}

/// A thing that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How to see whether it is there.
    pub probe: Probe,
    /// The Debian and Ubuntu package that brings it.
    pub package: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// The work that wants it.
    pub work: Work,
}

const fn program(name: &'static str, package: &'static str, work: Work, why: &'static str) -> Need {
    Need { probe: Probe::Program(name), package, why, work }
}

const fn file(places: &'static [&'static str], package: &'static str, work: Work, why: &'static str) -> Need {
    Need { probe: Probe::AnyOf(places), package, why, work }
}

/// Where packages put the system BIOS of the emulator.
pub const BIOS: &[&str] = &["/usr/share/bochs/BIOS-bochs-latest"];
/// Where packages put its video BIOS.
pub const VGABIOS: &[&str] = &[
    "/usr/share/vgabios/vgabios.bin",
    "/usr/share/bochs/VGABIOS-lgpl-latest.bin",
    "/usr/share/bochs/VGABIOS-lgpl-latest",
];

/// Everything that is needed for anything.
pub const NEEDS: &[Need] = &[
    program("g++", "g++", Work::Emulator, "compiles the emulator"),
    program("make", "make", Work::Emulator, "drives the emulator's build"),
    program("patch", "patch", Work::Emulator, "puts our hooks into the emulator"),
    program("tar", "tar", Work::Emulator, "unpacks the emulator's source"),
    program("xz", "xz-utils", Work::Emulator, "unpacks the emulator's source"),
    file(BIOS, "bochsbios", Work::Run, "the emulated machine's BIOS"),
    file(&[SEABIOS], "seabios", Work::Run, "the BIOS of guests that start from a disk"),
    file(VGABIOS, "vgabios", Work::Run, "the emulated machine's video BIOS"),
    program("grub-mkrescue", "grub-common", Work::Image, "makes the ISO image"),
    file(&["/usr/lib/grub/i386-pc"], "grub-pc-bin", Work::Image, "boots images on BIOS"),
    file(&["/usr/lib/grub/x86_64-efi"], "grub-efi-amd64-bin", Work::Image, "boots images on UEFI"),
    program("xorriso", "xorriso", Work::Image, "writes the ISO image"),
    program("mke2fs", "e2fsprogs", Work::Image, "writes the file systems of guests' disks"),
    program("mformat", "mtools", Work::Image, "writes the image's EFI partition"),
    program("qemu-system-x86_64", "qemu-system-x86", Work::Qemu, "the second machine the kernel boots on"),
    file(
        &["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"],
        "ovmf",
        Work::Qemu,
        "UEFI firmware for QEMU",
    ),
    file(
        &["/usr/lib/ipxe/qemu/pxe-e1000.rom", "/usr/share/qemu/pxe-e1000.rom"],
        "ipxe-qemu",
        Work::Network,
        "network boot ROMs",
    ),
    program(
        "dnsmasq",
        "dnsmasq-base",
        Work::Network,
        "serves DHCP and TFTP to machines that boot over the network",
    ),
    program("dpkg-deb", "dpkg", Work::Bench, "unpacks the Linux that benchmarks boot"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_needs_less_than_the_tests() {
        let packages = |purpose: Purpose| NEEDS.iter().filter(|n| purpose.work().contains(&n.work)).count();
        assert!(packages(Purpose::Demo) < packages(Purpose::Test));
    }

    #[test]
    fn every_work_has_its_needs() {
        for purpose in [Purpose::Demo, Purpose::Test, Purpose::Bench] {
            for work in purpose.work() {
                assert!(NEEDS.iter().any(|need| need.work == *work), "{work:?}");
            }
        }
    }
}
