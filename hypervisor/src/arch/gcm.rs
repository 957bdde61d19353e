//! AES-256 in Galois/Counter Mode (NIST SP 800-38D) by AES-NI and PCLMULQDQ: some 2.4 instructions per byte, where ChaCha20-Poly1305
//! without SSE takes 38. All that touches XMM registers is in [`with_xmm`]; between two pieces of assembly nothing stays in them.
//!
//! GHASH is computed as POLYVAL of the bytes in reverse (RFC 8452, appendix A): then a product needs no shift, and a Montgomery
//! reduction by two multiplications.

use core::arch::asm;

/// Bytes of a key.
pub const KEY: usize = 32;

/// Bytes of a nonce.
pub const NONCE: usize = 12;

/// Bytes of a tag.
pub const TAG: usize = 16;

/// Bytes of a block.
const BLOCK: usize = 16;

/// Bytes that one round of the assembly works on: four blocks.
const BATCH: usize = 4 * BLOCK;

/// Bytes of a text that are encrypted with the block that masks its tag.
const NEAR: usize = BATCH - BLOCK;

/// Powers of the hash key: as many as a batch has blocks.
const POWERS: usize = BATCH / BLOCK;

/// Round keys of AES-256.
const ROUND_KEYS: usize = 15;

/// Constants of the assembly, aligned for it.
#[repr(C, align(16))]
struct Constants {
    /// For PSHUFB: the bytes in reverse.
    reverse: [u8; BLOCK],
    /// Added to a counter.
    one: [u32; 4],
    /// The upper half of POLYVAL's polynomial, twice.
    polynomial: [u64; 2],
}

static CONSTANTS: Constants = Constants {
    reverse: [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    one: [1, 0, 0, 0],
    polynomial: [0xc200_0000_0000_0000; 2],
};

/// Blocks that the assembly reads and writes where it wants alignment.
#[derive(Clone)]
#[repr(C, align(16))]
struct Aligned<const N: usize>([[u8; BLOCK]; N]);

/// Whether this processor has all the instructions: AES-NI, PCLMULQDQ, SSSE3.
pub fn is_there() -> bool {
    const NEEDED: u32 = 1 << 25 | 1 << 1 | 1 << 9;
    cpuid(1, 0)[2] & NEEDED == NEEDED
}

#[cfg(target_os = "none")]
use super::cpu::cpuid;
#[cfg(target_os = "none")]
use super::simd::lend as with_xmm;

/// A program of a host has registers of its own; the assembly says which it uses.
#[cfg(not(target_os = "none"))]
fn with_xmm<R>(act: impl FnOnce() -> R) -> R {
    act()
}

#[cfg(not(target_os = "none"))]
#[allow(clippy::disallowed_methods)] // as in `cpu`, which is the kernel's
fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, sub);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// The cipher with a key.
#[derive(Clone)]
pub struct AesGcm {
    round_keys: Aligned<ROUND_KEYS>,
    /// The hash key's powers 1 to 4, as POLYVAL has them; then the sum of each one's halves, in its lower half.
    powers: Aligned<{ 2 * POWERS }>,
}

impl core::fmt::Debug for AesGcm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AesGcm").finish_non_exhaustive()
    }
}

impl AesGcm {
    /// With this key; `None` where the processor lacks an instruction.
    pub fn new(key: &[u8; KEY]) -> Option<Self> {
        is_there().then(|| with_xmm(|| Self::prepare(key)))
    }

    /// Changes the key.
    pub fn set_key(&mut self, key: &[u8; KEY]) {
        // Whoever has one, has the instructions.
        *self = with_xmm(|| Self::prepare(key));
    }

    fn prepare(key: &[u8; KEY]) -> Self {
        let mut this = Self { round_keys: expand(key), powers: Aligned([[0; BLOCK]; 2 * POWERS]) };
        let mut zero = [0; BATCH];
        // A counter that is zero throughout: with the first block only.
        this.encrypt_counters(&mut Counter([0; BLOCK]), &[0; BATCH], &mut zero);
        let first = double(u128::from_be_bytes(first_block(&zero))).to_le_bytes();
        this.powers.0[0] = first;
        for power in 1..POWERS {
            // A hash that begins with the power before and takes in a block of zeros is multiplied once.
            let mut hash = Hash(this.powers.0[power - 1]);
            this.hash_blocks(&mut hash, &[0; BLOCK]);
            this.powers.0[power] = hash.0;
        }
        for power in 0..POWERS {
            let value = u128::from_le_bytes(this.powers.0[power]);
            this.powers.0[POWERS + power] = u128::from((value ^ value >> 64) as u64).to_le_bytes();
        }
        this
    }

    /// Encrypts the text to `out`, which has its length; its tag. No nonce may be used twice with a key. Up to 2^32 - 2 blocks.
    pub fn seal(&self, nonce: &[u8; NONCE], ad: &[u8], text: &[u8], out: &mut [u8]) -> [u8; TAG] {
        with_xmm(|| {
            let lengths = [ad.len(), text.len()];
            let (mut counter, mut hash) = (Counter::first(nonce), self.begin_tag(ad));
            // The block that masks the tag and the text's first ones go together: most texts are short.
            let (mut plain, mut piece) = ([0; BATCH], [0; BATCH]);
            let (near, far) = text.split_at(text.len().min(NEAR));
            let (near_out, far_out) = out.split_at_mut(near.len());
            plain[BLOCK..BLOCK + near.len()].copy_from_slice(near);
            self.encrypt_counters(&mut counter, &plain, &mut piece);
            near_out.copy_from_slice(&piece[BLOCK..BLOCK + near.len()]);
            let mask = first_block(&piece);
            if far.is_empty() {
                return self.end_tag(hash, near_out, lengths, mask);
            }
            self.hash_blocks(&mut hash, near_out);
            let whole = far.len() / BATCH * BATCH;
            let (whole_out, last_out) = far_out.split_at_mut(whole);
            self.seal_batches(&mut counter, &mut hash, &far[..whole], whole_out);
            self.encrypt_last(&mut counter, &far[whole..], last_out);
            self.end_tag(hash, last_out, lengths, mask)
        })
    }

    /// Decrypts the sealed text to `out`, which has its length, if the tag is right; else `out` stays as it is.
    #[must_use]
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        ad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        with_xmm(|| {
            let (mut counter, mut hash) = (Counter::first(nonce), self.begin_tag(ad));
            // The block that masks the tag, and those that the text's first ones are to be added to.
            let mut stream = [0; BATCH];
            self.encrypt_counters(&mut counter, &[0; BATCH], &mut stream);
            let (whole, last) = sealed.split_at(sealed.len() / BATCH * BATCH);
            self.hash_batches(&mut hash, whole);
            let right = self.end_tag(hash, last, [ad.len(), sealed.len()], first_block(&stream));
            // All bytes, whatever the first ones are: the time tells nothing.
            let same = u128::from_le_bytes(right) ^ u128::from_le_bytes(*tag) == 0;
            if same {
                let (near, far) = sealed.split_at(sealed.len().min(NEAR));
                let (near_out, far_out) = out.split_at_mut(near.len());
                near_out.copy_from_slice(near);
                add(near_out, &stream[BLOCK..]);
                let whole = far.len() / BATCH * BATCH;
                let (whole_out, last_out) = far_out.split_at_mut(whole);
                self.encrypt_counters(&mut counter, &far[..whole], whole_out);
                self.encrypt_last(&mut counter, &far[whole..], last_out);
            }
            same
        })
    }

    /// Adds the encrypted counters to less than a batch.
    #[inline]
    fn encrypt_last(&self, counter: &mut Counter, last: &[u8], out: &mut [u8]) {
        if !last.is_empty() {
            let (mut plain, mut piece) = ([0; BATCH], [0; BATCH]);
            plain[..last.len()].copy_from_slice(last);
            self.encrypt_counters(counter, &plain, &mut piece);
            out.copy_from_slice(&piece[..last.len()]);
        }
    }

    /// The hash of what is authenticated and not encrypted.
    #[inline]
    fn begin_tag(&self, ad: &[u8]) -> Hash {
        let mut hash = Hash([0; BLOCK]);
        for piece in ad.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..piece.len()].copy_from_slice(piece);
            self.hash_blocks(&mut hash, &block);
        }
        hash
    }

    /// The tag, from the hash of everything but the sealed text's last bytes, less than a batch. `lengths`: of what is not encrypted, of
    /// the text.
    #[inline]
    fn end_tag(&self, mut hash: Hash, last: &[u8], lengths: [usize; 2], mask: [u8; BLOCK]) -> [u8; TAG] {
        // Filled up; then both lengths in bits.
        let mut end = [0; BATCH + BLOCK];
        end[..last.len()].copy_from_slice(last);
        let filled = last.len().next_multiple_of(BLOCK);
        let bits = lengths.map(|bytes| (bytes as u64).wrapping_mul(8));
        let lengths = u128::from(bits[0]) << 64 | u128::from(bits[1]);
        end[filled..filled + BLOCK].copy_from_slice(&lengths.to_be_bytes());
        self.hash_blocks(&mut hash, &end[..filled + BLOCK]);
        (u128::from_le_bytes(hash.0) ^ u128::from_be_bytes(mask)).to_be_bytes()
    }

    /// Adds the encrypted counters to whole batches, and takes what comes of it into the hash: the text is read once.
    #[inline]
    fn seal_batches(&self, counter: &mut Counter, hash: &mut Hash, batches: &[u8], out: &mut [u8]) {
        let count = batches.len().min(out.len()) / BATCH;
        if count == 0 {
            return;
        }
        // SAFETY: 1. The instructions are there (`new`), and the registers are the caller's (`with_xmm`) and named below. 2. It reads
        // the round keys, powers and constants, which are aligned; it reads and writes the counter and the hash, reads `count` times
        // 64 bytes of `batches`, and writes as many of `out`.
        unsafe {
            asm!(
                "movdqa xmm6, [{constants}]",
                "movdqa xmm7, [{constants} + 16]",
                "movdqa xmm9, [{constants} + 32]",
                "movdqu xmm4, [{counter}]",
                "movdqu xmm8, [{hash}]",
                "2:",
                ".irp to, 0, 1, 2, 3",
                "movdqa xmm\\to, xmm4",
                "pshufb xmm\\to, xmm6",
                "paddd xmm4, xmm7",
                "pxor xmm\\to, [{keys}]",
                ".endr",
                ".irp key, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208",
                "aesenc xmm0, [{keys} + \\key]",
                "aesenc xmm1, [{keys} + \\key]",
                "aesenc xmm2, [{keys} + \\key]",
                "aesenc xmm3, [{keys} + \\key]",
                ".endr",
                ".irp to, 0, 1, 2, 3",
                "aesenclast xmm\\to, [{keys} + 224]",
                "movdqu xmm5, [{text} + 16 * \\to]",
                "pxor xmm\\to, xmm5",
                "movdqu [{text} + {ahead} + 16 * \\to], xmm\\to",
                "pshufb xmm\\to, xmm6",
                ".endr",
                // As in `hash_batches`; low, high and middle products go to xmm10, xmm0, xmm11.
                "pxor xmm0, xmm8",
                "movdqa xmm10, xmm0",
                "pclmulqdq xmm10, [{powers} + 48], 0x00",
                "pshufd xmm11, xmm0, 0x4e",
                "pxor xmm11, xmm0",
                "pclmulqdq xmm11, [{powers} + 112], 0x00",
                "pclmulqdq xmm0, [{powers} + 48], 0x11",
                ".irp from, 1, 2, 3",
                "movdqa xmm5, xmm\\from",
                "pclmulqdq xmm5, [{powers} + 48 - 16 * \\from], 0x00",
                "pxor xmm10, xmm5",
                "pshufd xmm5, xmm\\from, 0x4e",
                "pxor xmm5, xmm\\from",
                "pclmulqdq xmm5, [{powers} + 112 - 16 * \\from], 0x00",
                "pxor xmm11, xmm5",
                "pclmulqdq xmm\\from, [{powers} + 48 - 16 * \\from], 0x11",
                "pxor xmm0, xmm\\from",
                ".endr",
                "pxor xmm11, xmm10",
                "pxor xmm11, xmm0",
                "movdqa xmm5, xmm11",
                "pslldq xmm11, 8",
                "psrldq xmm5, 8",
                "pxor xmm10, xmm11",
                "pxor xmm0, xmm5",
                "movdqa xmm5, xmm10",
                "pclmulqdq xmm5, xmm9, 0x00",
                "pshufd xmm5, xmm5, 0x4e",
                "pxor xmm5, xmm10",
                "movdqa xmm8, xmm5",
                "pclmulqdq xmm5, xmm9, 0x11",
                "pxor xmm8, xmm0",
                "pxor xmm8, xmm5",
                "add {text}, 64",
                "dec {count}",
                "jnz 2b",
                "movdqu [{counter}], xmm4",
                "movdqu [{hash}], xmm8",
                constants = in(reg) &raw const CONSTANTS,
                keys = in(reg) self.round_keys.0.as_ptr(),
                powers = in(reg) self.powers.0.as_ptr(),
                counter = in(reg) counter.0.as_mut_ptr(),
                hash = in(reg) hash.0.as_mut_ptr(),
                text = inout(reg) batches.as_ptr() => _,
                ahead = in(reg) out.as_mut_ptr().addr().wrapping_sub(batches.as_ptr().addr()),
                count = inout(reg) count => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
                out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                options(nostack),
            );
        }
    }

    /// Adds the encrypted counters to whole batches.
    #[inline]
    fn encrypt_counters(&self, counter: &mut Counter, batches: &[u8], out: &mut [u8]) {
        let count = batches.len().min(out.len()) / BATCH;
        if count == 0 {
            return;
        }
        // SAFETY: 1. The instructions are there (`new`), and the registers are the caller's (`with_xmm`) and named below. 2. It reads
        // the round keys and constants, which are aligned; it reads and writes the counter, reads `count` times 64 bytes of `batches`, and writes
        // as many of `out`.
        unsafe {
            asm!(
                "movdqa xmm6, [{constants}]",
                "movdqa xmm7, [{constants} + 16]",
                "movdqu xmm4, [{counter}]",
                "2:",
                ".irp to, 0, 1, 2, 3",
                "movdqa xmm\\to, xmm4",
                "pshufb xmm\\to, xmm6",
                "paddd xmm4, xmm7",
                "pxor xmm\\to, [{keys}]",
                ".endr",
                ".irp key, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208",
                "aesenc xmm0, [{keys} + \\key]",
                "aesenc xmm1, [{keys} + \\key]",
                "aesenc xmm2, [{keys} + \\key]",
                "aesenc xmm3, [{keys} + \\key]",
                ".endr",
                ".irp to, 0, 1, 2, 3",
                "aesenclast xmm\\to, [{keys} + 224]",
                ".endr",
                ".irp to, 0, 1, 2, 3",
                "movdqu xmm5, [{text} + 16 * \\to]",
                "pxor xmm\\to, xmm5",
                "movdqu [{text} + {ahead} + 16 * \\to], xmm\\to",
                ".endr",
                "add {text}, 64",
                "dec {count}",
                "jnz 2b",
                "movdqu [{counter}], xmm4",
                constants = in(reg) &raw const CONSTANTS,
                keys = in(reg) self.round_keys.0.as_ptr(),
                counter = in(reg) counter.0.as_mut_ptr(),
                text = inout(reg) batches.as_ptr() => _,
                ahead = in(reg) out.as_mut_ptr().addr().wrapping_sub(batches.as_ptr().addr()),
                count = inout(reg) count => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
                out("xmm7") _,
                options(nostack),
            );
        }
    }

    /// Takes whole batches in: one reduction for four blocks.
    #[inline]
    fn hash_batches(&self, hash: &mut Hash, batches: &[u8]) {
        let count = batches.len() / BATCH;
        if count == 0 {
            return;
        }
        // SAFETY: 1. As in `encrypt_counters`. 2. It reads the powers and constants, which are aligned, and `count` times 64 bytes of
        // `batches`; it reads and writes the hash.
        unsafe {
            asm!(
                "movdqa xmm6, [{constants}]",
                "movdqa xmm7, [{constants} + 32]",
                "movdqu xmm0, [{hash}]",
                "2:",
                // Block n is multiplied by power 4 - n, by Karatsuba's way: low, high and middle products go to xmm1, xmm2, xmm3. The hash
                // so far is added to the first block.
                "movdqu xmm2, [{text}]",
                "pshufb xmm2, xmm6",
                "pxor xmm2, xmm0",
                "movdqa xmm1, xmm2",
                "pclmulqdq xmm1, [{powers} + 48], 0x00",
                "pshufd xmm3, xmm2, 0x4e",
                "pxor xmm3, xmm2",
                "pclmulqdq xmm3, [{powers} + 112], 0x00",
                "pclmulqdq xmm2, [{powers} + 48], 0x11",
                ".irp at, 16, 32, 48",
                "movdqu xmm4, [{text} + \\at]",
                "pshufb xmm4, xmm6",
                "movdqa xmm5, xmm4",
                "pclmulqdq xmm5, [{powers} + 48 - \\at], 0x00",
                "pxor xmm1, xmm5",
                "pshufd xmm5, xmm4, 0x4e",
                "pxor xmm5, xmm4",
                "pclmulqdq xmm5, [{powers} + 112 - \\at], 0x00",
                "pxor xmm3, xmm5",
                "pclmulqdq xmm4, [{powers} + 48 - \\at], 0x11",
                "pxor xmm2, xmm4",
                ".endr",
                "pxor xmm3, xmm1",
                "pxor xmm3, xmm2",
                "movdqa xmm4, xmm3",
                "pslldq xmm3, 8",
                "psrldq xmm4, 8",
                "pxor xmm1, xmm3",
                "pxor xmm2, xmm4",
                "movdqa xmm4, xmm1",
                "pclmulqdq xmm4, xmm7, 0x00",
                "pshufd xmm4, xmm4, 0x4e",
                "pxor xmm4, xmm1",
                "movdqa xmm0, xmm4",
                "pclmulqdq xmm4, xmm7, 0x11",
                "pxor xmm0, xmm2",
                "pxor xmm0, xmm4",
                "add {text}, 64",
                "dec {count}",
                "jnz 2b",
                "movdqu [{hash}], xmm0",
                constants = in(reg) &raw const CONSTANTS,
                powers = in(reg) self.powers.0.as_ptr(),
                hash = in(reg) hash.0.as_mut_ptr(),
                text = inout(reg) batches.as_ptr() => _,
                count = inout(reg) count => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
                out("xmm7") _,
                options(nostack),
            );
        }
    }

    /// Takes whole blocks in, one by one.
    #[inline]
    fn hash_blocks(&self, hash: &mut Hash, blocks: &[u8]) {
        let count = blocks.len() / BLOCK;
        if count == 0 {
            return;
        }
        // SAFETY: as in `hash_batches`, with 16 bytes for 64.
        unsafe {
            asm!(
                "movdqa xmm6, [{constants}]",
                "movdqa xmm7, [{constants} + 32]",
                "movdqa xmm5, [{powers}]",
                "movdqu xmm0, [{hash}]",
                "2:",
                "movdqu xmm4, [{text}]",
                "pshufb xmm4, xmm6",
                "pxor xmm4, xmm0",
                "movdqa xmm1, xmm4",
                "movdqa xmm2, xmm4",
                "movdqa xmm3, xmm4",
                "pclmulqdq xmm1, xmm5, 0x00",
                "pclmulqdq xmm2, xmm5, 0x11",
                "pclmulqdq xmm3, xmm5, 0x01",
                "pclmulqdq xmm4, xmm5, 0x10",
                "pxor xmm3, xmm4",
                "movdqa xmm4, xmm3",
                "pslldq xmm3, 8",
                "psrldq xmm4, 8",
                "pxor xmm1, xmm3",
                "pxor xmm2, xmm4",
                "movdqa xmm4, xmm1",
                "pclmulqdq xmm4, xmm7, 0x00",
                "pshufd xmm4, xmm4, 0x4e",
                "pxor xmm4, xmm1",
                "movdqa xmm0, xmm4",
                "pclmulqdq xmm4, xmm7, 0x11",
                "pxor xmm0, xmm2",
                "pxor xmm0, xmm4",
                "add {text}, 16",
                "dec {count}",
                "jnz 2b",
                "movdqu [{hash}], xmm0",
                constants = in(reg) &raw const CONSTANTS,
                powers = in(reg) self.powers.0.as_ptr(),
                hash = in(reg) hash.0.as_mut_ptr(),
                text = inout(reg) blocks.as_ptr() => _,
                count = inout(reg) count => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
                out("xmm7") _,
                options(nostack),
            );
        }
    }
}

/// A counter block with its bytes in reverse, so that the counter is the lowest double word.
struct Counter([u8; BLOCK]);

impl Counter {
    /// The one that the tag's mask comes from.
    #[inline]
    fn first(nonce: &[u8; NONCE]) -> Self {
        let mut block = [0; BLOCK];
        block[..NONCE].copy_from_slice(nonce);
        block[BLOCK - 1] = 1;
        Self(u128::from_be_bytes(block).to_le_bytes())
    }
}

/// A hash with its bytes in reverse.
struct Hash([u8; BLOCK]);

/// Adds (by exclusive or) as many bytes as there are.
fn add(text: &mut [u8], stream: &[u8]) {
    let (words, bytes) = text.as_chunks_mut::<8>();
    let (by_words, by_bytes) = stream.split_at(words.len() * 8);
    for (word, by) in words.iter_mut().zip(by_words.as_chunks().0) {
        *word = (u64::from_le_bytes(*word) ^ u64::from_le_bytes(*by)).to_le_bytes();
    }
    bytes.iter_mut().zip(by_bytes).for_each(|(byte, by)| *byte ^= by);
}

fn first_block(batch: &[u8; BATCH]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.copy_from_slice(&batch[..BLOCK]);
    block
}

/// Times x in POLYVAL's field: makes its key of GHASH's (RFC 8452, appendix A).
const fn double(value: u128) -> u128 {
    const POLYNOMIAL: u128 = 0xc2 << 120 | 1;
    // No branch: the value is secret.
    (value << 1) ^ ((value >> 127).wrapping_neg() & POLYNOMIAL)
}

/// The key schedule (FIPS 197, 5.2).
fn expand(key: &[u8; KEY]) -> Aligned<ROUND_KEYS> {
    const WORDS: usize = KEY / 4;
    let mut words = [0_u32; 4 * ROUND_KEYS];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut constant = 1;
    for at in WORDS..words.len() {
        let before = words[at - 1];
        let mixed = match at % WORDS {
            0 => {
                let mixed = substitute(before).rotate_right(8) ^ constant;
                constant <<= 1;
                mixed
            }
            4 => substitute(before),
            _ => before,
        };
        words[at] = words[at - WORDS] ^ mixed;
    }
    let mut keys = Aligned([[0; BLOCK]; ROUND_KEYS]);
    for (place, word) in keys.0.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    keys
}

/// AES's S-box over each byte.
fn substitute(word: u32) -> u32 {
    let result;
    // SAFETY: as in `encrypt_counters`; no memory.
    unsafe {
        asm!(
            "movd xmm0, {word:e}",
            "pshufd xmm0, xmm0, 0",
            "aeskeygenassist xmm0, xmm0, 0",
            "movd {word:e}, xmm0",
            word = inout(reg) word => result,
            out("xmm0") _,
            options(nomem, nostack, preserves_flags),
        );
    }
    result
}

/// Bytes of [`KNOWN_TEXT`]: whole batches, whole blocks and a part of one.
const KNOWN: usize = 60;

/// Test case 16 of the mode's authors (McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B).
const KNOWN_KEY: u128 = 0xfeff_e992_8665_731c_6d6a_8f94_6730_8308;
const KNOWN_NONCE: [u8; NONCE] = [0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88];
const KNOWN_AD: [u8; 20] = [
    0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab,
    0xad, 0xda, 0xd2,
];
const KNOWN_TEXT: [u128; 4] = [
    0xd931_3225_f884_06e5_a559_09c5_aff5_269a,
    0x86a7_a953_1534_f7da_2e4c_303d_8a31_8a72,
    0x1c3c_0c95_9568_0953_2fcf_0e24_49a6_b525,
    0xb16a_edf5_aa0d_e657_ba63_7b39_0000_0000,
];
const KNOWN_SEALED: [u128; 4] = [
    0x522d_c1f0_9956_7d07_f47f_37a3_2a84_427d,
    0x643a_8cdc_bfe5_c0c9_7598_a2bd_2555_d1aa,
    0x8cb0_8e48_590d_bb3d_a7b0_8b10_5682_8838,
    0xc5f6_1e63_93ba_7a0a_bcc9_f662_0000_0000,
];
const KNOWN_TAG: u128 = 0x76fc_6ece_0f4e_1768_cddf_8853_bb2d_551b;

fn bytes<const N: usize, const M: usize>(numbers: [u128; N]) -> [u8; M] {
    let mut bytes = [0; M];
    let from = numbers.iter().flat_map(|number| number.to_be_bytes());
    bytes.iter_mut().zip(from).for_each(|(place, byte)| *place = byte);
    bytes
}

/// Whether this processor seals and opens a known text as it must.
pub fn holds() -> bool {
    let Some(cipher) = AesGcm::new(&bytes([KNOWN_KEY; 2])) else { return false };
    let (text, sealed): ([u8; KNOWN], [u8; KNOWN]) = (bytes(KNOWN_TEXT), bytes(KNOWN_SEALED));
    let mut place = [0; KNOWN];
    let tag = cipher.seal(&KNOWN_NONCE, &KNOWN_AD, &text, &mut place);
    let seals = place == sealed && tag == KNOWN_TAG.to_be_bytes();
    let opens = cipher.open(&KNOWN_NONCE, &KNOWN_AD, &sealed, &mut place, &tag) && place == text;
    let refuses = !cipher.open(&KNOWN_NONCE, &KNOWN_AD, &text, &mut place, &tag) && place == text;
    seals && opens && refuses
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::aead::{AeadInPlace, KeyInit};
    use proptest::prelude::*;

    #[test]
    fn the_authors_cases() {
        assert!(is_there(), "these tests need a processor with AES-NI");
        assert!(holds());
        // 13 and 14: nothing, and a block.
        let cipher = AesGcm::new(&[0; KEY]).unwrap();
        assert_eq!(
            u128::from_be_bytes(cipher.seal(&[0; NONCE], &[], &[], &mut [])),
            0x530f_8afb_c745_36b9_a963_b4f1_c4cb_738b
        );
        let mut block = [0; BLOCK];
        let tag = cipher.seal(&[0; NONCE], &[], &[0; BLOCK], &mut block);
        assert_eq!(u128::from_be_bytes(block), 0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18);
        assert_eq!(u128::from_be_bytes(tag), 0xd0d1_c8a7_9999_6bf0_265b_98b5_d48a_b919);
    }

    /// FIPS 197, A.3: the last round key.
    #[test]
    fn key_schedule() {
        let key =
            bytes([0x603d_eb10_15ca_71be_2b73_aef0_857d_7781, 0x1f35_2c07_3b61_08d7_2d98_10a3_0914_dff4]);
        let keys = expand(&key);
        assert_eq!(u128::from_be_bytes(keys.0[14]), 0xfe48_90d1_e618_8d0b_046d_f344_706c_631e);
    }

    proptest! {
        /// The same as another implementation, for all lengths, and nothing can be changed.
        #[test]
        fn as_others_do_it(
            key: [u8; KEY], nonce: [u8; NONCE], ad in proptest::collection::vec(any::<u8>(), 0..70),
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(any::<u8>(), 16_000..17_000),
            ],
            at: usize, bit in 0_u8..8,
        ) {
            let cipher = AesGcm::new(&key).unwrap();
            let other = aes_gcm::Aes256Gcm::new(&key.into());
            let (mut ours, mut theirs) = (vec![0; text.len()], text.clone());
            let tag = cipher.seal(&nonce, &ad, &text, &mut ours);
            let expected = other.encrypt_in_place_detached(&nonce.into(), &ad, &mut theirs).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(&tag[..], &expected[..]);
            let mut changed = [&ours[..], &tag].concat();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            let (body, end) = changed.split_at(text.len());
            let mut opened = vec![0xA5; text.len()];
            prop_assert!(!cipher.open(&nonce, &ad, body, &mut opened, end.try_into().unwrap()));
            prop_assert!(!cipher.open(&nonce, &[&ad[..], &[0]].concat(), &ours, &mut opened, &tag));
            prop_assert!(opened.iter().all(|byte| *byte == 0xA5));
            prop_assert!(cipher.open(&nonce, &ad, &ours, &mut opened, &tag));
            prop_assert_eq!(opened, text);
        }
    }
}
