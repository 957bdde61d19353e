//! CRC-32C by the processor's instruction: the checksum of the log's blocks, some forty times as fast as by tables, and the hash of the
//! guest's registers.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use raw_cpuid::CpuId;
use replay::point::{RFLAGS_RF, Registers, RegistersHash};

/// The processor has the instruction.
static THERE: AtomicBool = AtomicBool::new(false);

/// Has the log's blocks and the guest's registers summed by the instruction, where there is one. Once, before the first of either.
pub fn accelerate() {
    if CpuId::new().get_feature_info().is_some_and(|features| features.has_sse42()) {
        THERE.store(true, Ordering::Relaxed);
        // One that computed something else would not be taken.
        let taken = replay::log::checksum::accelerate(crc32c);
        debug_assert!(taken, "CRC32 computes CRC-32C");
    }
}

/// [`Registers::hash`] of registers in the order of the instruction encoding.
#[inline(always)]
pub fn registers(general: &[u64; 16], rip: u64, rflags: u64) -> RegistersHash {
    if !THERE.load(Ordering::Relaxed) {
        return Registers { general: *general, rip, rflags }.hash();
    }
    let (mut low, mut high) = (u64::from(u32::MAX), u64::from(u32::MAX));
    // SAFETY: 1. The processor has CRC32: `accelerate` has seen it. 2. It reads the 128 bytes of `general`, and nothing else.
    unsafe {
        asm!(
            ".irp at, 0, 8, 16, 24, 32, 40, 48, 56",
            "crc32 {low}, qword ptr [{general} + \\at]",
            "crc32 {high}, qword ptr [{general} + \\at + 64]",
            ".endr",
            "crc32 {low}, {rip}",
            "crc32 {high}, {rflags}",
            low = inout(reg) low,
            high = inout(reg) high,
            general = in(reg) general.as_ptr(),
            rip = in(reg) rip,
            rflags = in(reg) rflags & !RFLAGS_RF,
            options(nostack, readonly, pure, preserves_flags),
        );
    }
    // The upper halves are 0.
    RegistersHash(!(low | high << 32))
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

    #[test]
    fn computes_what_the_tables_do() {
        if !std::is_x86_feature_detected!("sse4.2") {
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
        THERE.store(true, Ordering::Relaxed);
        let general = core::array::from_fn(|n| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + 1));
        let (rip, rflags) = (0xffff_ffff_8100_0010, 0x1_0246);
        assert_eq!(registers(&general, rip, rflags), Registers { general, rip, rflags }.hash());
        assert_eq!(registers(&general, rip, rflags), registers(&general, rip, 0x246));
        assert_eq!(replay::log::checksum::block(b"123456789"), 0xE306_9283);
    }
}
