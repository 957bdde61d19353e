//! Properties of digests: whatever differs is caught, and one thing that differs is named.

use super::memory::{BUCKETS, DiskSum, Memory, PAGE, PageSum, Shape, TABLE_WORDS, counted, may_be_table};
use super::packed::{MAX_PACKED, Malformed, pack, survey, unpack};
use super::{Digest, Finding, Findings, Part, Register, hash, locate};
use proptest::prelude::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

const PAGES: u64 = 70;
const SHAPE: Shape = Shape { pages: PAGES, hole: 50, high: 0x1000 };

/// A memory of some pages with its sums.
#[derive(Clone)]
struct Model {
    bytes: Vec<u8>,
    table: Vec<u64>,
    memory: Memory,
}

impl Model {
    fn new(seed: u64, masked: bool) -> Self {
        let mut state = seed;
        let words = (0..PAGES as usize * PAGE / 8).map(|at| {
            state = hash::fold(state, at as u64);
            // Much of real memory is zeros and small numbers, and some is page tables.
            match state >> 62 {
                0 => 0,
                1 => state & 0xFF,
                _ if (at / (PAGE / 8)).is_multiple_of(3) => state & 0x8000_00ff_ffff_ffff,
                _ => state,
            }
        });
        let bytes = words.flat_map(u64::to_le_bytes).collect();
        let table = vec![0; PAGES as usize * TABLE_WORDS];
        let mut model = Self { bytes, table, memory: Memory::new(SHAPE, masked) };
        (0..PAGES).for_each(|page| model.update(page));
        model
    }

    fn page(&self, index: u64) -> &[u8] {
        &self.bytes[index as usize * PAGE..][..PAGE]
    }

    fn update(&mut self, index: u64) {
        let page = &self.bytes[index as usize * PAGE..][..PAGE];
        self.memory.update(&mut self.table, index, PageSum::of(page, self.memory.masked()));
    }

    fn against(&self, recorded: &Self) -> Findings {
        let mut findings = Findings::new();
        locate::pages(recorded.memory.sums(), &self.memory, |page| self.page(page), &mut findings);
        findings
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }
}

fn digests() -> impl Strategy<Value = Digest> {
    let registers = prop::collection::vec(prop_oneof![Just(0), any::<u64>(), 0_u64..256], Register::COUNT);
    let parts = prop::collection::vec(prop_oneof![Just(0), any::<u64>()], Part::COUNT);
    let sums = prop::collection::vec(prop_oneof![Just((0, 0)), any::<(u128, u128)>()], BUCKETS);
    (registers, parts, sums).prop_map(|(registers, parts, sums)| {
        let mut digest = Digest::NONE;
        digest.registers.copy_from_slice(&registers);
        digest.parts.copy_from_slice(&parts);
        for (sum, (plain, weighted)) in digest.memory.iter_mut().zip(sums) {
            (sum.plain, sum.weighted) = (plain, weighted);
        }
        digest
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_flipped_bit_of_memory_is_found_with_its_word(
        seed: u64, masked: bool, at in 0..PAGES as usize * PAGE, bit in 0..8_u32
    ) {
        let recorded = Model::new(seed, masked);
        let mut flipped = recorded.clone();
        flipped.bytes[at] ^= 1 << bit;
        flipped.update((at / PAGE) as u64);
        let findings = flipped.against(&recorded);
        let at = at / 8 * 8;
        let (before, after) = (recorded.word(at), flipped.word(at));
        let tables = [&recorded, &flipped].map(|model| may_be_table(model.page((at / PAGE) as u64)));
        prop_assume!(tables[0] == tables[1]);
        let counted = |word| counted(word, masked && tables[0]);
        if counted(before) == counted(after) {
            prop_assert!(masked && findings.is_empty(), "only the accessed bit does not count");
        } else {
            let word = Some(((at % PAGE) as u16, counted(before), after));
            let number = SHAPE.number((at / PAGE) as u64);
            prop_assert_eq!(findings.iter().copied().collect::<Vec<_>>(), vec![Finding::Page { number, word }]);
        }
    }

    #[test]
    fn accessed_bits_of_tables_do_not_count(
        seed: u64, masked: bool, flips in prop::collection::vec(0..PAGE / 8, 1..200)
    ) {
        let table = Model::new(seed, masked).page(0).to_vec();
        let mut walked = table.clone();
        for word in flips {
            walked[word * 8] ^= (table[word * 8] & 1) << 5;
        }
        prop_assert!(may_be_table(&table) && may_be_table(&walked));
        let equal = PageSum::of(&table, masked) == PageSum::of(&walked, masked);
        prop_assert_eq!(equal, masked || walked == table);
    }

    #[test]
    fn any_changes_in_a_page_are_found_with_the_page(
        seed: u64, page in 0..PAGES, changes in prop::collection::vec((0..PAGE / 8, 1_u64..), 2..40)
    ) {
        let recorded = Model::new(seed, false);
        let mut changed = recorded.clone();
        for (word, change) in changes {
            let at = page as usize * PAGE + word * 8;
            let value = changed.word(at) ^ change;
            changed.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        changed.update(page);
        let findings = changed.against(&recorded);
        if changed.bytes == recorded.bytes {
            prop_assert!(findings.is_empty());
        } else {
            prop_assert_eq!(findings.count(), 1);
            let number = SHAPE.number(page);
            let Some(Finding::Page { number: found, .. }) = findings.iter().next() else {
                return Err(TestCaseError::fail("no page was found"));
            };
            prop_assert_eq!(*found, number);
        }
    }

    #[test]
    fn differences_in_several_pages_are_caught(
        seed: u64, changes in prop::collection::btree_map(0..PAGES, (0..PAGE, 1_u8..), 2..20)
    ) {
        let recorded = Model::new(seed, false);
        let mut changed = recorded.clone();
        for (page, (at, change)) in &changes {
            changed.bytes[*page as usize * PAGE + at] ^= change;
            changed.update(*page);
        }
        let findings = changed.against(&recorded);
        for bucket in 0..BUCKETS {
            let mut pages = changes.keys().filter(|page| **page as usize % BUCKETS == bucket);
            match (pages.next(), pages.next()) {
                (None, _) => {}
                (Some(page), None) => {
                    let number = SHAPE.number(*page);
                    let named = |f: &&Finding| {
                        matches!(f, Finding::Page { number: found, word: Some(_) } if *found == number)
                    };
                    prop_assert!(findings.iter().find(named).is_some(), "page {}", page);
                }
                (Some(_), Some(_)) => {
                    let named = |f: &&Finding| **f == Finding::Pages { bucket };
                    prop_assert!(findings.iter().find(named).is_some(), "bucket {}", bucket);
                }
            }
        }
    }

    #[test]
    fn pages_that_are_exchanged_are_caught(seed: u64, one in 0..PAGES, other in 0..PAGES) {
        prop_assume!(one != other);
        let recorded = Model::new(seed, false);
        let mut changed = recorded.clone();
        let (a, b) = (recorded.page(one).to_vec(), recorded.page(other).to_vec());
        prop_assume!(a != b);
        changed.bytes[one as usize * PAGE..][..PAGE].copy_from_slice(&b);
        changed.bytes[other as usize * PAGE..][..PAGE].copy_from_slice(&a);
        changed.update(one);
        changed.update(other);
        prop_assert!(!changed.against(&recorded).is_empty());
    }

    #[test]
    fn sums_are_a_function_of_the_content(
        seed: u64, writes in prop::collection::vec((0..PAGES as usize * PAGE, any::<u8>()), 1..50)
    ) {
        let mut step_by_step = Model::new(seed, false);
        for (at, value) in &writes {
            step_by_step.bytes[*at] = *value;
            step_by_step.update((at / PAGE) as u64);
        }
        let mut fresh = step_by_step.clone();
        fresh.table.fill(0);
        fresh.memory = Memory::new(SHAPE, false);
        (0..PAGES).for_each(|page| fresh.update(page));
        prop_assert_eq!(fresh.memory.sums(), step_by_step.memory.sums());
        prop_assert!((0..PAGES).all(|page| fresh.memory.is_current(&step_by_step.table, page, PageSum::of(fresh.page(page), false))));
    }

}

proptest! {
    #[test]
    fn one_flipped_register_is_named(digest in digests(), which in 0..Register::COUNT, bit in 0..64) {
        let mut other = digest;
        other.registers[which] ^= 1_u64 << bit;
        let findings = Digest::compare(&digest, &other);
        let (register, recorded, found) = (Register::ALL[which], digest.registers[which], other.registers[which]);
        let expected = Finding::Register { register, recorded, found };
        prop_assert_eq!(findings.iter().copied().collect::<Vec<_>>(), vec![expected]);
        prop_assert!(expected.to_string().starts_with(register.name()));
    }

    #[test]
    fn one_changed_part_is_named(digest in digests(), which in 0..Part::COUNT, flip in 1_u64..) {
        let mut other = digest;
        other.parts[which] ^= flip;
        let findings = Digest::compare(&digest, &other);
        prop_assert_eq!(findings.iter().copied().collect::<Vec<_>>(), vec![Finding::Part(Part::ALL[which])]);
    }

    #[test]
    fn what_is_packed_comes_out(before in digests(), after in digests()) {
        let mut buffer = [0; MAX_PACKED];
        let bytes = pack(&after, &before, &mut buffer);
        let mut digest = before;
        prop_assert_eq!(unpack(&mut digest, bytes), Ok(()));
        prop_assert_eq!(digest, after);
        prop_assert_eq!(survey(bytes).expect("packed").total, after.total());
    }

    #[test]
    fn a_difference_to_another_digest_is_noticed(before in digests(), after in digests(), other in digests()) {
        let mut buffer = [0; MAX_PACKED];
        let bytes = pack(&after, &before, &mut buffer);
        let mut digest = other;
        if unpack(&mut digest, bytes).is_ok() {
            prop_assert_eq!(digest, after, "all that differed was replaced");
        }
    }

    #[test]
    fn foreign_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
        prop_assert_eq!(unpack(&mut Digest::NONE.clone(), &bytes), Err(Malformed));
        bytes.truncate(cut);
        let _ = survey(&bytes);
    }

    #[test]
    fn a_damaged_digest_is_refused(after in digests(), at: prop::sample::Index, flip in 1_u8..) {
        let mut buffer = [0; MAX_PACKED];
        let mut bytes = pack(&after, &Digest::NONE, &mut buffer).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut digest = Digest::NONE;
        prop_assert_eq!(unpack(&mut digest, &bytes), Err(Malformed));
        bytes.pop();
        prop_assert_eq!(unpack(&mut Digest::NONE.clone(), &bytes), Err(Malformed));
    }

    #[test]
    fn a_hash_does_not_depend_on_how_bytes_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..100), cut: prop::sample::Index, at: prop::sample::Index, flip in 1_u8..
    ) {
        let of = |pieces: &[&[u8]]| {
            let mut hash = hash::Hash::new();
            pieces.iter().for_each(|piece| hash.bytes(piece));
            hash.finish()
        };
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(of(&[&bytes]), of(&[first, second]));
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert_ne!(of(&[&bytes]), of(&[&longer]));
        if !bytes.is_empty() {
            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= flip;
            prop_assert_ne!(of(&[&bytes]), of(&[&other]));
        }
    }

    #[test]
    fn disks_are_told_apart_by_what_was_written(sector in 0_u64..1000, other in 0_u64..1000, at in 0..512_usize, flip in 1_u8..) {
        let (zeros, mut data) = ([0; 512], [7; 512]);
        let mut one = DiskSum::default();
        one.written(sector, &zeros, &data);
        let mut two = one;
        data[at] ^= flip;
        two.written(other, &data, &zeros);
        prop_assert_ne!(one.hash(), two.hash());
        two.written(other, &zeros, &data);
        prop_assert_eq!(one, two, "written back");
    }
}

#[test]
fn an_idle_guests_checkpoint_is_short() {
    // What a tick or two changes: a dozen registers, the clock, two devices, a few pages.
    let before = Digest::NONE;
    let mut after = before;
    for register in Register::ALL.into_iter().take(18) {
        after.set(register, 0xFFFF_8880_1234_5678);
    }
    after.set_part(Part::LocalApic, 1);
    after.memory[3].plain = 1;
    let mut buffer = [0; MAX_PACKED];
    let length = pack(&after, &before, &mut buffer).len();
    assert!(length < 300, "{length} bytes");
}

#[test]
fn the_crc_is_the_instructions() {
    // CRC32 of the SDM with these operands: the reflected CRC-32C of eight bytes; "123456789" has the check value E3069283h.
    let first = super::memory::crc(!0, u64::from_le_bytes(*b"12345678"));
    let last =
        (0..8).fold(first ^ u32::from(b'9'), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 });
    assert_eq!(!last, 0xE306_9283);
    assert_eq!(PageSum::of(&[0; PAGE], false), PageSum::default());
    for start in [0, 1, 0x8000_0000, 0x1234_5678] {
        assert_eq!(super::memory::crc_before_zeros(super::memory::crc(start, 0)), start);
    }
}

#[test]
fn names_are_found_again() {
    for register in Register::ALL {
        assert_eq!(Register::named(register.name()), Some(register));
    }
    for part in Part::ALL {
        assert_eq!(Part::named(part.name()), Some(part));
    }
    assert_eq!(Part::disk(7), Part::Disk7);
}

#[test]
fn more_findings_than_are_kept_are_counted() {
    let mut other = Digest::NONE;
    other.registers.fill(1);
    let findings = Digest::compare(&Digest::NONE, &other);
    assert_eq!((findings.count(), findings.iter().count()), (Register::COUNT, super::findings::MAX_FINDINGS));
}
