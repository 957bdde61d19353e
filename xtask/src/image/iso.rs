//! The hybrid ISO image: El Torito for BIOS and UEFI, a boot sector and a GPT with an EFI system partition for sticks.
//!
//! It is what `grub-mkrescue` makes, put together by hand because that one takes the date for an identity and so never
//! makes the same image twice, and because a loader with all modules inside boots faster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::loader::{self, Kind};
use super::{CONFIG_NAME, Image, copy, date, grub, module_file, set_dates, write};
use crate::run::Cmd;
use crate::setup::needs::Work;

/// The name that the medium shows.
const VOLUME: &str = "LOCKSTEP";
/// The serial number of the EFI system partition's file system: a constant, for reproducible images.
const FAT_SERIAL: &str = "4C4F434B";
/// The EFI system partition is a multiple of this, bytes.
const ESP_UNIT: u64 = 1 << 20;
/// What the FAT file system itself needs, bytes, with room to spare.
const ESP_OVERHEAD: u64 = 128 << 10;

/// Writes the image; intermediate files are in a directory beside it until all went well.
pub(super) fn write_image(image: &Image, file: &Path) -> Result<()> {
    loader::check_packages(Work::Image)?;
    let work = work_dir(file)?;
    let (date, id, tree) = (date()?, image.id()?, work.join("tree"));
    content(image, &id, &tree)?;
    loaders(&id, date, &work, &tree)?;
    set_dates(&tree, date)?;
    // Into a new file: a machine that still runs from the old image keeps it.
    let new = work.join("image.iso");
    xorriso(date, &tree, &new)?;
    fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn work_dir(file: &Path) -> Result<PathBuf> {
    let mut name = std::path::absolute(file)?.into_os_string();
    name.push(format!(".{}.work", std::process::id()));
    let dir = PathBuf::from(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// The kernel, its modules, and the menu.
fn content(image: &Image, id: &str, tree: &Path) -> Result<()> {
    let ours = tree.join("boot/lockstep");
    fs::create_dir_all(ours.join("modules"))?;
    fs::create_dir_all(tree.join("boot/grub"))?;
    copy(&image.kernel, &ours.join("kernel"))?;
    if let Some(config) = &image.config {
        copy(config, &ours.join(CONFIG_NAME))?;
    }
    for (index, module) in image.modules.iter().enumerate() {
        copy(&module.file, &ours.join("modules").join(module_file(index, module)))?;
    }
    write(&tree.join(grub::id_file(id).trim_start_matches('/')), "")?;
    write(&tree.join("boot/grub/grub.cfg"), &grub::medium_menu(image))
}

/// `bios.img`: the CD's boot sector and the loader. `efi.img`: a FAT file system with the loader as BOOTX64.EFI.
fn loaders(id: &str, date: u64, work: &Path, tree: &Path) -> Result<()> {
    let early = grub::early_for_medium(id);
    let core = work.join("core.img");
    loader::build(Kind::BiosMedium, &early, work, &core)?;
    let mut bios = fs::read(loader::bios_file("cdboot.img")).context("cannot read GRUB's cdboot.img")?;
    bios.extend(fs::read(&core)?);
    fs::write(tree.join("boot/grub/bios.img"), bios)?;

    let uefi = work.join("bootx64.efi");
    loader::build(Kind::UefiMedium, &early, work, &uefi)?;
    let size = (fs::metadata(&uefi)?.len() + ESP_OVERHEAD).next_multiple_of(ESP_UNIT);
    let fat = tree.join("boot/grub/efi.img");
    fs::File::create(&fat)?.set_len(size)?;
    let mtools =
        |program: &str| Cmd::new(program).env("SOURCE_DATE_EPOCH", date.to_string()).arg("-i").arg(&fat);
    mtools("mformat").args(["-N", FAT_SERIAL, "-v", VOLUME, "::"]).check()?;
    mtools("mmd").args(["::/EFI", "::/EFI/BOOT"]).check()?;
    mtools("mcopy").arg(&uefi).arg("::/EFI/BOOT/BOOTX64.EFI").check()?;
    Ok(())
}

fn xorriso(date: u64, tree: &Path, file: &Path) -> Result<()> {
    Cmd::new("xorriso")
        .env("SOURCE_DATE_EPOCH", date.to_string())
        .args(["-as", "mkisofs", "-quiet", "-V", VOLUME, "-r", "-J", "-joliet-long"])
        .args(["--set_all_file_dates", "set_to_mtime", &format!("--modification-date={}", iso_date(date))])
        .args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["--grub2-boot-info", "--protective-msdos-label", "--mbr-force-bootable", "--grub2-mbr"])
        .arg(loader::bios_file("boot_hybrid.img"))
        .args(["--efi-boot", "boot/grub/efi.img", "-efi-boot-part", "--efi-boot-image"])
        .arg("-o")
        .arg(file)
        .arg(tree)
        .check()?;
    Ok(())
}

/// A date as ISO 9660 writes it in its volume descriptor: `YYYYMMDDhhmmsscc`, UTC.
fn iso_date(seconds: u64) -> String {
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to a civil date, counting from 1 March of year 0 so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_volume_descriptor_wants_them() {
        assert_eq!(iso_date(0), "1970010100000000");
        assert_eq!(iso_date(1_700_000_000), "2023111422132000");
        assert_eq!(iso_date(951_782_400), "2000022900000000");
        assert_eq!(iso_date(4_107_542_399), "2100022823595900");
        assert_eq!(iso_date(4_107_542_400), "2100030100000000");
    }
}
