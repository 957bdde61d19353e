//! Noise as the channel uses it: `NNpsk0`, and handshakes that are made ahead.
//!
//! A handshake allocates when it is made and never after, so all that may be needed while a guest runs are made before: the
//! [`Spares`]. Only who knows the key can use one up: a message of a stranger leaves the handshake as it was, and a first
//! message that was seen before is refused before a handshake looks at it.

use crate::keys::KEY;
use alloc::boxed::Box;
use alloc::vec::Vec;
use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};

/// The pattern: both ephemeral, authenticated by a key that both know.
const CHACHA: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const AES: &str = "Noise_NNpsk0_25519_AESGCM_BLAKE2s";

/// Bytes that sealing adds to a message.
pub const TAG: usize = 16;

/// AES-256 in Galois/Counter Mode, as whoever has instructions for it computes it. Nothing of it may allocate.
pub trait AesGcm: Send + Sync {
    /// Changes the key.
    fn set_key(&mut self, key: &[u8; KEY]);
    /// Encrypts the text to `out`, which has its length; its tag.
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], text: &[u8], out: &mut [u8]) -> [u8; TAG];
    /// Decrypts the sealed text to `out`, which has its length; false: the tag is wrong.
    fn open(&self, nonce: &[u8; 12], ad: &[u8], sealed: &[u8], out: &mut [u8], tag: &[u8; TAG]) -> bool;
}

/// The cipher of a channel's records. Both ends need the same.
#[derive(Clone, Copy, Debug)]
pub enum Sealing {
    /// ChaCha20-Poly1305 in software.
    ChaCha20Poly1305,
    /// AES-256-GCM; makes ciphers with any key.
    AesGcm(fn() -> Box<dyn AesGcm>),
}

impl Sealing {
    const fn pattern(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => CHACHA,
            Self::AesGcm(_) => AES,
        }
    }

    /// Its number in greetings.
    pub const fn number(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 1,
            Self::AesGcm(_) => 2,
        }
    }

    /// The name of a number in greetings, for people.
    pub const fn name(number: u8) -> &'static str {
        match number {
            1 => "ChaCha20-Poly1305",
            2 => "AES-256-GCM",
            _ => "unknown",
        }
    }
}

/// Somebody's AES-GCM as snow's.
struct Outside(Box<dyn AesGcm>);

/// A nonce of AES-GCM (Noise specification, 12.4).
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

impl Cipher for Outside {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.0.set_key(key);
    }

    fn encrypt(&self, number: u64, ad: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        let (place, rest) = out.split_at_mut(text.len());
        rest[..TAG].copy_from_slice(&self.0.seal(&nonce(number), ad, text, place));
        text.len() + TAG
    }

    fn decrypt(&self, number: u64, ad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let place = out.get_mut(..text.len()).ok_or(Error::Decrypt)?;
        let right = self.0.open(&nonce(number), ad, text, place, tag);
        if right { Ok(text.len()) } else { Err(Error::Decrypt) }
    }
}

/// Bytes of an ephemeral public key, with which each message of the handshake begins.
pub const EPHEMERAL: usize = 32;

/// Which end of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connects and speaks first.
    Initiator,
    /// Listens and answers.
    Responder,
}

/// Random bytes from a seed: BLAKE2s over seed and a counter.
struct Seeded {
    seed: [u8; 32],
    count: u64,
}

impl Random for Seeded {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for piece in out.chunks_mut(32) {
            let mut hash = Blake2s256::new_with_prefix(self.seed);
            hash.update(self.count.to_le_bytes());
            self.count = self.count.wrapping_add(1);
            let block: [u8; 32] = hash.finalize().into();
            piece.copy_from_slice(&block[..piece.len()]);
        }
        Ok(())
    }
}

/// snow's own algorithms, but for AES-GCM, and randomness from a seed.
struct Resolver {
    seed: [u8; 32],
    sealing: Sealing,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded { seed: self.seed, count: 0 }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match (self.sealing, choice) {
            (Sealing::AesGcm(make), CipherChoice::AESGCM) => Some(Box::new(Outside(make()))),
            _ => DefaultResolver.resolve_cipher(choice),
        }
    }
}

/// Handshakes that are ready to be used.
pub struct Spares {
    role: Role,
    sealing: Sealing,
    key: [u8; KEY],
    prologue: Vec<u8>,
    ready: Vec<HandshakeState>,
    /// Ephemeral keys of first messages that were authentic.
    seen: Vec<[u8; EPHEMERAL]>,
}

impl Spares {
    /// None yet. `prologue`: what both must agree on, in the clear.
    pub fn new(role: Role, sealing: Sealing, key: [u8; KEY], prologue: &[u8]) -> Self {
        Self { role, sealing, key, prologue: prologue.to_vec(), ready: Vec::new(), seen: Vec::new() }
    }

    /// Makes handshakes until there are `count`, each from 32 random bytes of its own. Allocates.
    pub fn refill(&mut self, count: usize, mut seed: impl FnMut() -> [u8; 32]) {
        while self.ready.len() < count {
            self.ready.push(self.make(seed()));
        }
        // Room for what those may see.
        self.seen.reserve(count);
    }

    fn make(&self, seed: [u8; 32]) -> HandshakeState {
        let params: Result<NoiseParams, Error> = self.sealing.pattern().parse();
        let made = params.and_then(|params| {
            let resolver = Resolver { seed, sealing: self.sealing };
            let builder = Builder::with_resolver(params, Box::new(resolver));
            let builder = builder.psk(0, &self.key)?.prologue(&self.prologue)?;
            match self.role {
                Role::Initiator => builder.build_initiator(),
                Role::Responder => builder.build_responder(),
            }
        });
        // Pattern and algorithms are constants that snow has, and the key has the right length.
        made.unwrap_or_else(|error| panic!("{} cannot be made: {error}", self.sealing.pattern()))
    }

    /// Which end these are.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// How many there are.
    pub const fn left(&self) -> usize {
        self.ready.len()
    }

    /// One of them.
    pub fn take(&mut self) -> Option<HandshakeState> {
        self.ready.pop()
    }

    /// Takes one back that has not been used: there was room for it.
    pub fn give_back(&mut self, unused: HandshakeState) {
        self.ready.push(unused);
    }

    /// Whether a first message with this key was authentic before.
    pub fn has_seen(&self, ephemeral: &[u8; EPHEMERAL]) -> bool {
        self.seen.contains(ephemeral)
    }

    /// Remembers the key of an authentic first message, for which a handshake was used up.
    pub fn remember(&mut self, ephemeral: [u8; EPHEMERAL]) {
        self.seen.push(ephemeral);
    }
}
