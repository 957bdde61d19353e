//! Sums of pages, by the instruction for CRC-32C: what `replay::digest::PageSum` computes byte by byte.

use core::arch::asm;
use raw_cpuid::CpuId;
use replay::digest::PageSum;
use replay::digest::memory::{PAGE, may_be_table};

/// How this processor computes sums of pages.
#[derive(Clone, Copy, Debug)]
pub struct Summer {
    by_instruction: bool,
}

impl Summer {
    /// By the instruction, where there is one.
    pub fn new() -> Self {
        Self { by_instruction: CpuId::new().get_feature_info().is_some_and(|features| features.has_sse42()) }
    }

    /// The sum of a page. `masked`: accessed bits of tables are left out, see [`replay::digest::Memory::new`]. About 1,150
    /// instructions, masked 1,400 (all zeros) to 4,000 for what may be a table.
    pub fn sum(self, page: &[u8; PAGE], masked: bool) -> PageSum {
        match (self.by_instruction, masked) {
            (false, _) => PageSum::of(page, masked),
            (true, true) if may_be_table(page) => without_accessed_bits(page),
            (true, _) => plain(page),
        }
    }
}

/// 16 words in a round.
fn plain(page: &[u8; PAGE]) -> PageSum {
    let (crc, sum): (u64, u64);
    // SAFETY: 1. The processor has CRC32 (`Summer::new`). 2. It reads the page, 128 bytes in each of 32 rounds, and nothing else.
    unsafe {
        asm!(
            "2:",
            ".irp at, 0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120",
            "crc32 {crc}, qword ptr [{page} + \\at]",
            "add {sum}, qword ptr [{page} + \\at]",
            ".endr",
            "add {page}, 128",
            "dec {rounds:e}",
            "jnz 2b",
            crc = inout(reg) 0_u64 => crc,
            sum = inout(reg) 0_u64 => sum,
            page = inout(reg) page.as_ptr() => _,
            rounds = inout(reg) PAGE / 128 => _,
            options(nostack, readonly),
        );
    }
    PageSum::new(crc as u32, sum)
}

/// Bit 5 of words whose bit 0 is set counts as 0. Eight words in a round: all zeros, or none with bit 5, or one by one.
fn without_accessed_bits(page: &[u8; PAGE]) -> PageSum {
    let (crc, sum): (u64, u64);
    // SAFETY: 1. The processor has CRC32 (`Summer::new`). 2. `end` is the page's, and `at` goes from minus its length to 0 in steps
    // of 64, so that nothing but the page is read.
    unsafe {
        asm!(
            "2:",
            "mov {word}, qword ptr [{end} + {at}]",
            ".irp n, 8, 16, 24, 32, 40, 48, 56",
            "or {word}, qword ptr [{end} + {at} + \\n]",
            ".endr",
            "jz 6f",
            "test {word:l}, 32",
            "jnz 7f",
            ".irp n, 0, 8, 16, 24, 32, 40, 48, 56",
            "crc32 {crc}, qword ptr [{end} + {at} + \\n]",
            "add {sum}, qword ptr [{end} + {at} + \\n]",
            ".endr",
            "5:",
            "add {at}, 64",
            "jnz 2b",
            "jmp 8f",
            // A sum is not changed by zeros.
            "6:",
            ".rept 8",
            "crc32 {crc}, {word}",
            ".endr",
            "jmp 5b",
            "7:",
            ".irp n, 0, 8, 16, 24, 32, 40, 48, 56",
            "test byte ptr [{end} + {at} + \\n], 32",
            "jz 3f",
            "test byte ptr [{end} + {at} + \\n], 1",
            "jz 3f",
            "mov {word}, qword ptr [{end} + {at} + \\n]",
            "xor {word}, 32",
            "crc32 {crc}, {word}",
            "add {sum}, {word}",
            "jmp 4f",
            "3:",
            "crc32 {crc}, qword ptr [{end} + {at} + \\n]",
            "add {sum}, qword ptr [{end} + {at} + \\n]",
            "4:",
            ".endr",
            "jmp 5b",
            "8:",
            crc = inout(reg) 0_u64 => crc,
            sum = inout(reg) 0_u64 => sum,
            end = in(reg) page.as_ptr_range().end,
            at = inout(reg) -(PAGE as i64) => _,
            word = out(reg) _,
            options(nostack, readonly),
        );
    }
    PageSum::new(crc as u32, sum)
}
