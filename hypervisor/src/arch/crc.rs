//! CRC-32C by the processor's instruction: the checksum of the log's blocks, some forty times as fast as by tables, and the hash over a
//! guest's synchronous exits.

use core::arch::asm;
use raw_cpuid::CpuId;
use replay::exits_hash::ExitsHash;
use replay::point::RFLAGS_RF;

/// Who holds this has seen that the processor has the instruction.
#[derive(Clone, Copy, Debug)]
pub struct Crc32(());

impl Crc32 {
    /// Looks for it.
    pub fn find() -> Option<Self> {
        let features = CpuId::new().get_feature_info()?;
        features.has_sse42().then_some(Self(()))
    }

    /// [`ExitsHash::fold`], with the registers in the order of the instruction encoding.
    #[inline(always)]
    pub fn fold(self, hash: &mut ExitsHash, reason: u16, n: u64, general: &[u64; 16], rip: u64, rflags: u64) {
        let (mut low, mut high) = (u64::from(hash.low), u64::from(hash.high));
        // SAFETY: 1. The processor has CRC32: `self` shows it. 2. It reads the 128 bytes of `general`, and nothing else.
        unsafe {
            asm!(
                "crc32 {low}, {n}",
                "crc32 {high}, {reason}",
                ".irp at, 0, 8, 16, 24, 32, 40, 48, 56",
                "crc32 {low}, qword ptr [{general} + \\at]",
                "crc32 {high}, qword ptr [{general} + \\at + 64]",
                ".endr",
                "crc32 {low}, {rip}",
                "crc32 {high}, {rflags}",
                low = inout(reg) low,
                high = inout(reg) high,
                n = in(reg) n,
                reason = in(reg) u64::from(reason),
                general = in(reg) general.as_ptr(),
                rip = in(reg) rip,
                rflags = in(reg) rflags & !RFLAGS_RF,
                options(nostack, readonly, pure, preserves_flags),
            );
        }
        // The upper halves are 0.
        *hash = ExitsHash { low: low as u32, high: high as u32 };
    }
}

/// Has the log's blocks summed by the instruction, where there is one. Once, before the first.
pub fn accelerate() {
    if Crc32::find().is_some() {
        // One that computed something else would not be taken.
        let taken = replay::log::checksum::accelerate(crc32c);
        debug_assert!(taken, "CRC32 computes CRC-32C");
    }
}

/// CRC-32C (Castagnoli), begun with ones and complemented at the end. The processor must have SSE4.2.
fn crc32c(bytes: &[u8]) -> u32 {
    let (rounds, rest) = bytes.as_chunks::<64>();
    let (words, bytes) = rest.as_chunks::<8>();
    let mut crc = u64::from(u32::MAX);
    if !rounds.is_empty() {
        // SAFETY: 1. The processor has CRC32: `accelerate` has seen it. 2. It reads 64 bytes in each of as many rounds as there are chunks
        // of them, from their beginning, and nothing else.
        unsafe {
            asm!(
                "2:",
                ".irp at, 0, 8, 16, 24, 32, 40, 48, 56",
                "crc32 {crc}, qword ptr [{from} + \\at]",
                ".endr",
                "add {from}, 64",
                "dec {rounds}",
                "jnz 2b",
                crc = inout(reg) crc,
                from = inout(reg) rounds.as_ptr() => _,
                rounds = inout(reg) rounds.len() => _,
                options(nostack, readonly),
            );
        }
    }
    for word in words {
        // SAFETY: as above; only registers.
        unsafe {
            asm!(
                "crc32 {crc}, {word}",
                crc = inout(reg) crc,
                word = in(reg) u64::from_le_bytes(*word),
                options(nostack, nomem, pure),
            );
        }
    }
    let mut crc = crc as u32;
    for byte in bytes {
        // SAFETY: as above; only registers.
        unsafe {
            asm!(
                "crc32 {crc:e}, {byte}",
                crc = inout(reg) crc,
                byte = in(reg_byte) *byte,
                options(nostack, nomem, pure),
            );
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use replay::point::Registers;

    #[test]
    fn computes_what_the_tables_do() {
        if Crc32::find().is_none() {
            eprintln!("this processor has no CRC32");
            return;
        }
        let bytes: Vec<u8> = (0..700_u32).map(|n| ((n * n) >> 3) as u8).collect();
        for length in (0..200).chain([255, 256, 511, 700]) {
            for from in 0..length.min(9) {
                let part = &bytes[from..length];
                assert_eq!(crc32c(part), replay::log::checksum::block_by_table(part), "{from}..{length}");
            }
        }
        assert!(replay::log::checksum::accelerate(crc32c));
        assert_eq!(replay::log::checksum::block(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn folds_as_is_written_down() {
        let Some(crc) = Crc32::find() else {
            eprintln!("this processor has no CRC32");
            return;
        };
        let (mut own, mut other) = (ExitsHash::BEGIN, ExitsHash::BEGIN);
        for exit in 1..100_u64 {
            let general = core::array::from_fn(|n| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + exit));
            let (reason, n, rip, rflags) = (exit as u16, exit << 33, 0xffff_ffff_8100_0010 + exit, 0x1_0246);
            crc.fold(&mut own, reason, n, &general, rip, rflags);
            other.fold(reason, n, &Registers { general, rip, rflags });
            assert_eq!(own, other, "after exit {exit}");
        }
    }
}
