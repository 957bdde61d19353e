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
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Bytes that sealing adds to a message.
pub const TAG: usize = 16;

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

/// snow's own algorithms, and randomness from a seed.
struct Resolver([u8; 32]);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded { seed: self.0, count: 0 }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Handshakes that are ready to be used.
pub struct Spares {
    role: Role,
    key: [u8; KEY],
    prologue: Vec<u8>,
    ready: Vec<HandshakeState>,
    /// Ephemeral keys of first messages that were authentic.
    seen: Vec<[u8; EPHEMERAL]>,
}

impl Spares {
    /// None yet. `prologue`: what both must agree on, in the clear.
    pub fn new(role: Role, key: [u8; KEY], prologue: &[u8]) -> Self {
        Self { role, key, prologue: prologue.to_vec(), ready: Vec::new(), seen: Vec::new() }
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
        let params: Result<NoiseParams, Error> = PATTERN.parse();
        let made = params.and_then(|params| {
            let builder = Builder::with_resolver(params, Box::new(Resolver(seed)));
            let builder = builder.psk(0, &self.key)?.prologue(&self.prologue)?;
            match self.role {
                Role::Initiator => builder.build_initiator(),
                Role::Responder => builder.build_responder(),
            }
        });
        // Pattern and algorithms are constants that snow has, and the key has the right length.
        made.unwrap_or_else(|error| panic!("{PATTERN} cannot be made: {error}"))
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
