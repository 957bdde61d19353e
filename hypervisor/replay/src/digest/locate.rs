//! Which page it is that differs, and which word: found from the recorded sums alone.

use super::findings::{Finding, Findings};
use super::memory::{
    BUCKETS, Memory, PAGE, PageSum, Sum, counted, crc, crc_before_zeros, may_be_table, place,
};

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
    // If the word makes the difference between a table and none, the sums are none of the same words, and no word fits.
    let masked = memory.masked() && may_be_table(page);
    let found = PageSum::of(page, masked);
    let (recorded_crc, recorded_sum) = found.less(difference).parts()?;
    let (found_crc, found_sum) = found.parts()?;
    let change = found_sum.wrapping_sub(recorded_sum);
    let (words, _) = page.as_chunks::<8>();
    // A CRC begun with 0 is linear: words that are alike add nothing but zeros behind what one word has changed. From the last
    // word on, they are taken back.
    let mut wanted = found_crc ^ recorded_crc;
    let mut fitting = words.iter().enumerate().rev().filter_map(|(index, word)| {
        let found = u64::from_le_bytes(*word);
        let here = counted(found, masked);
        let before = here.wrapping_sub(change);
        let fits = crc(0, here ^ before) == wanted && counted(before, masked) == before;
        wanted = crc_before_zeros(wanted);
        (fits && before != here).then_some(((index * 8) as u16, before, found))
    });
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

const _: () = assert!(PAGE <= u16::MAX as usize);
