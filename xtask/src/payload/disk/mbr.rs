//! A disk with a PC's partition table, one partition, and GRUB in the sectors before it (pure). What grub-bios-setup writes is in
//! GRUB's manual ("BIOS installation") and in the comments of its boot.img and core.img.

use anyhow::{Result, bail};

/// Bytes of a sector.
const SECTOR: usize = 512;
/// The partition's first sector: at 1 MiB, as every partitioning tool puts it today. GRUB's core lies before it.
const FIRST: usize = 2048;
/// In boot.img: a jump that is taken when the BIOS gives a wrong drive; on a hard disk it is taken out.
const DRIVE_CHECK: usize = 0x66;
/// In boot.img: where core.img lies, a sector number of 64 bits.
const CORE_SECTOR: usize = 0x5c;
/// In core.img's first sector, which loads the rest: where that lies (64 bits), and how many sectors it has (16 bits).
const REST_SECTOR: usize = SECTOR - 12;
const REST_COUNT: usize = SECTOR - 4;
/// The first sectors of core.img and of its rest.
const CORE: u64 = 1;
/// In the master boot record: the disk's number, the first partition, the signature.
const DISK_NUMBER: usize = 0x1b8;
const PARTITION: usize = 0x1be;
const SIGNATURE: usize = 0x1fe;
/// The partition's type: a Linux file system.
const LINUX: u8 = 0x83;
/// Cylinder, head and sector of what lies beyond their reach.
const FAR: [u8; 3] = [0xfe, 0xff, 0xff];

/// The disk: boot.img with a partition table, core.img behind it, the file system in the partition.
///
/// # Errors
/// When an image is not what it should be, or core.img does not fit.
pub fn disk(boot: &[u8], core: &[u8], file_system: &[u8]) -> Result<Vec<u8>> {
    if boot.len() != SECTOR || boot[SIGNATURE..] != [0x55, 0xaa] {
        bail!("GRUB's boot.img is no boot sector");
    }
    let core_sectors = core.len().div_ceil(SECTOR);
    if core_sectors < 2 || core_sectors > FIRST - CORE as usize {
        bail!("GRUB's core.img has {} bytes, which do not fit before the partition", core.len());
    }
    let sectors = file_system.len() / SECTOR;
    let mut disk = vec![0; (FIRST + sectors) * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, boot);
    put(CORE_SECTOR, &CORE.to_le_bytes());
    put(DRIVE_CHECK, &[0x90, 0x90]);
    put(DISK_NUMBER, &[0; SIGNATURE - DISK_NUMBER]);
    put(DISK_NUMBER, b"lock");
    put(PARTITION, &partition(FIRST as u32, u32::try_from(sectors)?));
    put(SECTOR, core);
    // In one piece behind its first sector.
    put(SECTOR + REST_SECTOR, &(CORE + 1).to_le_bytes());
    put(SECTOR + REST_COUNT, &((core_sectors - 1) as u16).to_le_bytes());
    put(FIRST * SECTOR, &file_system[..sectors * SECTOR]);
    Ok(disk)
}

/// A bootable partition as the table has it.
fn partition(first: u32, sectors: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&FAR);
    entry[4] = LINUX;
    entry[5..8].copy_from_slice(&FAR);
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> Vec<u8> {
        let mut boot = vec![0x11; SECTOR];
        boot[SIGNATURE..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    #[test]
    fn everything_lies_where_the_boot_sector_looks() {
        let disk = disk(&boot(), &[0x22; 3 * SECTOR + 1], &[0x33; 8 * SECTOR]).unwrap();
        assert_eq!(disk.len(), (FIRST + 8) * SECTOR);
        assert_eq!(&disk[CORE_SECTOR..][..8], 1u64.to_le_bytes());
        assert_eq!(&disk[DRIVE_CHECK..][..2], [0x90, 0x90]);
        assert_eq!(
            &disk[PARTITION..][..16],
            [0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 8, 0, 0, 0]
        );
        assert_eq!(&disk[SIGNATURE..][..2], [0x55, 0xaa]);
        assert_eq!(&disk[SECTOR + REST_SECTOR..][..10], [2, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
        // The segment that the rest is loaded to stays as it was.
        assert_eq!(&disk[SECTOR + REST_COUNT + 2..][..2], [0x22, 0x22]);
        assert_eq!((disk[4 * SECTOR], disk[4 * SECTOR + 1]), (0x22, 0));
        assert!(disk[FIRST * SECTOR..].iter().all(|&byte| byte == 0x33));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(disk(&boot()[..100], &[0; 4096], &[]).is_err());
        assert!(disk(&[0; SECTOR], &[0; 4096], &[]).is_err());
        assert!(disk(&boot(), &[0; SECTOR], &[]).is_err());
        assert!(disk(&boot(), &vec![0; FIRST * SECTOR], &[]).is_err());
    }
}
