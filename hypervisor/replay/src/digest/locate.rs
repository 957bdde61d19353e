//! Which page it is that differs, and which word: found from the recorded sums alone.

use super::findings::{Finding, Findings};
use super::hash::multiplier;
use super::memory::{BUCKETS, MULTIPLIERS, Memory, PAGE, Sum, place};

/// Adds what differs in memory to the findings. `contents` is asked for the pages that are looked at; they are as the sums
/// say.
pub fn pages<'p>(
    recorded: &[Sum; BUCKETS],
    memory: &Memory,
    contents: impl Fn(u64) -> &'p [u8],
    findings: &mut Findings,
) {
    for (bucket, (recorded, found)) in recorded.iter().zip(memory.sums()).enumerate() {
        if recorded == found {
            continue;
        }
        let plain = found.plain.wrapping_sub(recorded.plain);
        let weighted = found.weighted.wrapping_sub(recorded.weighted);
        let in_bucket = (bucket as u64..memory.shape().pages).step_by(BUCKETS);
        let mut fitting = in_bucket.filter(|page| plain.wrapping_mul(place(*page).1.into()) == weighted);
        // A difference of whole pages could fit two by chance: then it is neither's.
        let finding = match (fitting.next(), fitting.next()) {
            (Some(page), None) => Finding::Page {
                number: memory.shape().number(page),
                word: word(memory, contents(page), plain),
            },
            _ => Finding::Pages { bucket },
        };
        findings.add(finding);
    }
}

/// The word that makes the difference, if one alone does: its offset in the page, what was recorded, and what is there.
fn word(memory: &Memory, page: &[u8], difference: u128) -> Option<(u16, u64, u64)> {
    let (words, _) = page.as_chunks::<8>();
    let mut fitting = words.iter().zip(MULTIPLIERS).enumerate().filter_map(|(index, (word, multiplier))| {
        let found = u64::from_le_bytes(*word);
        let change = difference.wrapping_mul(inverse(multiplier));
        // What counts was some 64-bit number before: the change is between -2^64 and 2^64.
        let before = u128::from(memory.counted(found)).wrapping_sub(change);
        let before = u64::try_from(before).ok()?;
        Some(((index * 8) as u16, before, found))
    });
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

/// The inverse of an odd number modulo 2^128.
const fn inverse(odd: u64) -> u128 {
    let odd = odd as u128;
    // Newton: an odd number is its own inverse modulo 8, and each step doubles the number of bits that are right.
    let (mut inverse, mut step) = (odd, 0);
    while step < 6 {
        inverse = inverse.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

const _: () = {
    let odd = multiplier(7);
    assert!(inverse(odd).wrapping_mul(odd as u128) == 1);
    assert!(PAGE <= u16::MAX as usize);
};
