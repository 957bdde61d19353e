//! An installed Debian on a disk: partition table, GRUB, kernel, initial RAM disk and a root file system of Debian's packages. It
//! is started by SeaBIOS as on a computer of its own.
//!
//! No rights are needed: packages are unpacked, not installed, and nothing is mounted. GRUB is put in its place as
//! grub-bios-setup does it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use vm_config::Memory;

use super::boot_sector::SEABIOS;
use super::workload;
use crate::cpio::Archive as Cpio;
use crate::linux::{self, Flavour};
use crate::modules::Modules;
use crate::packages::{Architecture, Archive};
use crate::run::Cmd;
use crate::vm::{Description, DiskSource, Start};
use crate::{fetch, paths, ui};

mod mbr;
mod tree;

/// The title of GRUB's only menu entry.
pub const MENU_ENTRY: &str = "Debian GNU/Linux";

/// Programs of the root file system; their libraries come with them.
const PROGRAMS: &[&str] =
    &["base-files", "coreutils", "dash", "grep", "mount", "sed", "sysvinit-core", "util-linux"];
/// Drivers in the initial RAM disk: the disk, its file system, and the checksum that the file system looks for by name.
const DRIVERS: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];

const INITRD_INIT: &str = include_str!("initrd-init");
const INITTAB: &str = include_str!("inittab");
const RC_S: &str = include_str!("rcS");

/// Where grub-pc-bin puts GRUB for BIOS.
const GRUB: &str = "/usr/lib/grub/i386-pc";
/// What core.img can do by itself: find its own file system, where the rest of GRUB is.
const CORE_MODULES: &[&str] = &["biosdisk", "part_msdos", "ext2"];

/// What the file system can: what a current ext4 can, but for what GRUB 2.06 does not read.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,\
                        dir_nlink,extra_isize,metadata_csum";
/// Its size, as mke2fs takes it, and its unique number.
const SIZE: &str = "63M";
const UUID: &str = "6c6f636b-7374-6570-0000-000000000001";

/// The virtual machine with this disk. `words` are added to the kernel's command line; `twice=1` lets it boot twice.
///
/// # Errors
/// When a package cannot be had, or the disk cannot be made.
pub fn describe(words: &str) -> Result<Description> {
    Ok(Description {
        memory: Memory { bytes: 256 << 20 },
        disks: vec![DiskSource::Image(image(words)?)],
        ..Description::new("debian", Start::Firmware(PathBuf::from(SEABIOS)))
    })
}

/// The disk's image, from the cache or made.
fn image(words: &str) -> Result<PathBuf> {
    let dir = paths::out_dir()?.join("payload");
    fs::create_dir_all(&dir)?;
    let kernel = linux::kernel_of(Flavour::Cloud)?;
    let archive = Archive::open(Architecture::Own)?;
    let mut names: Vec<String> = PROGRAMS.iter().map(|&name| name.to_owned()).collect();
    names.extend(archive.closure(PROGRAMS)?.into_iter().filter(|name| name.starts_with("lib")));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let packages = archive.all_unpacked(&names)?;
    let menu = menu(&kernel.package, words);
    let name = contents_name(&kernel.tree, &packages, &menu);
    let file = dir.join(format!("debian-{name}.img"));
    if !file.is_file() {
        let work =
            dir.join(format!("debian-{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        let step = ui::step("make the Debian disk");
        let made = make(&work, &kernel, &packages, &menu);
        let kept = made.and_then(|disk| Ok(fs::rename(&disk, &file)?));
        let _ = fs::remove_dir_all(&work);
        kept.with_context(|| format!("cannot make {}", file.display()))?;
        step.done();
    }
    Ok(file)
}

/// A name that tells what is in the disk.
fn contents_name(kernel: &Path, packages: &[PathBuf], menu: &str) -> String {
    let mut hash = Sha256::new();
    for path in packages.iter().map(PathBuf::as_path).chain([kernel]) {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
    }
    for text in [menu, INITRD_INIT, INITTAB, RC_S, FEATURES, SIZE, UUID] {
        hash.update(text);
        hash.update([0]);
    }
    fetch::hex(&hash.finalize()[..8])
}

/// Makes the disk in the directory `work`; its place.
fn make(work: &Path, kernel: &linux::Linux, packages: &[PathBuf], menu: &str) -> Result<PathBuf> {
    let root = work.join("root");
    tree::merged(&root, packages)?;
    let put = |name: &str, contents: &[u8]| tree::put(&root, name, contents);
    put("etc/inittab", INITTAB.as_bytes())?;
    put("etc/fstab", b"/dev/vda1 / ext4 defaults 0 1\n")?;
    tree::put_program(&root, "etc/init.d/rcS", RC_S.as_bytes())?;
    put(&format!("boot/{}", kernel_name(&kernel.package)), &fs::read(&kernel.kernel)?)?;
    put(&format!("boot/{}", initrd_name(&kernel.package)), &initrd(&kernel.tree)?)?;
    put("boot/grub/grub.cfg", menu.as_bytes())?;
    for file in tree::files(Path::new(GRUB))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".mod") || name.ends_with(".lst") {
            put(&format!("boot/grub/i386-pc/{name}"), &fs::read(&file)?)?;
        }
    }
    let file_system = work.join("ext4");
    let mke2fs = crate::run::find_program("mke2fs").context("there is no mke2fs (package e2fsprogs)")?;
    let extended = format!("hash_seed={UUID},root_owner=0:0,lazy_itable_init=0");
    Cmd::new(mke2fs)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-U", UUID, "-L", "debian"])
        .args(["-O", FEATURES, "-E", &extended, "-d"])
        .arg(&root)
        .arg(&file_system)
        .arg(SIZE)
        .check()?;
    let core = work.join("core.img");
    Cmd::new("grub-mkimage")
        .args(["-O", "i386-pc", "-d", GRUB, "-p", "(hd0,msdos1)/boot/grub", "-o"])
        .arg(&core)
        .args(CORE_MODULES)
        .check()?;
    let boot =
        fs::read(Path::new(GRUB).join("boot.img")).context("the package grub-pc-bin has no boot.img")?;
    let disk = mbr::disk(&boot, &fs::read(core)?, &fs::read(file_system)?)?;
    let file = work.join("disk");
    fs::write(&file, disk)?;
    Ok(file)
}

/// The initial RAM disk: a busybox, the drivers, and a program that mounts the root.
fn initrd(kernel: &Path) -> Result<Vec<u8>> {
    let busybox = fs::read(linux::busybox()?)?;
    let directories = ["bin", "dev", "modules", "proc", "root"];
    let mut archive = directories
        .into_iter()
        .fold(Cpio::new(), Cpio::directory)
        .character_device("dev/console", 5, 1)
        .character_device("dev/null", 1, 3)
        .program("bin/busybox", &busybox)
        .program("init", INITRD_INIT.as_bytes());
    let drivers = Modules::of(kernel)?.with_needs(DRIVERS)?;
    let list: Vec<&str> = drivers.iter().map(|(name, _)| name.as_str()).collect();
    archive = archive.file("modules/list", (list.join("\n") + "\n").as_bytes());
    for (name, bytes) in &drivers {
        archive = archive.file(&format!("modules/{name}.ko"), bytes);
    }
    Ok(archive.finish())
}

/// GRUB's configuration: its menu on the serial port, for a second.
fn menu(package: &str, words: &str) -> String {
    let version = version(package);
    let (kernel, initrd) = (kernel_name(package), initrd_name(package));
    let console = workload::COMMAND_LINE;
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input serial\n\
         terminal_output serial\n\
         set default=0\n\
         set timeout=1\n\
         menuentry '{MENU_ENTRY}' {{\n\
         \techo 'Loading Linux {version} ...'\n\
         \tlinux /boot/{kernel} root=/dev/vda1 ro {console} {words}\n\
         \techo 'Loading initial ramdisk ...'\n\
         \tinitrd /boot/{initrd}\n\
         }}\n"
    )
}

fn version(package: &str) -> &str {
    package.strip_prefix("linux-image-").unwrap_or(package)
}

fn kernel_name(package: &str) -> String {
    format!("vmlinuz-{}", version(package))
}

fn initrd_name(package: &str) -> String {
    format!("initrd.img-{}", version(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_starts_the_kernel_from_the_disk() {
        let menu = menu("linux-image-6.1.0-9-cloud-amd64", "twice=1");
        for wanted in [
            "linux /boot/vmlinuz-6.1.0-9-cloud-amd64 root=/dev/vda1 ro console=ttyS0,115200 panic=-1 twice=1\n",
            "initrd /boot/initrd.img-6.1.0-9-cloud-amd64\n",
        ] {
            assert!(menu.contains(wanted), "{menu}");
        }
    }

    #[test]
    fn other_contents_have_another_name() {
        let name = |menu: &str| contents_name(Path::new("a/kernel"), &[PathBuf::from("b/package_1")], menu);
        assert_eq!(name("x"), name("x"));
        assert_ne!(name("x"), name("y"));
    }
}
