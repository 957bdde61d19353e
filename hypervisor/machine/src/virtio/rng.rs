//! The entropy device (virtio 1.2, 5.4). Its bytes come from a generator whose seed belongs to the machine's state, so that
//! two hosts give the same.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use serde::{Deserialize, Serialize};

use super::Served;
use super::chain::{Broken, Chain};
use crate::context::Context;

/// Most bytes that one request gets; the driver asks again for more.
pub const REQUEST: u32 = 4096;
/// How much more work a random byte is than a copied one.
const COST: usize = 16;

/// A generator as seed, stream and position: the crate's own feature for serde needs a standard library.
pub(crate) mod generator {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(generator: &ChaCha20Rng, to: S) -> Result<S::Ok, S::Error> {
        (generator.get_seed(), generator.get_stream(), generator.get_word_pos()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ChaCha20Rng, D::Error> {
        let (seed, stream, position) = <([u8; 32], u64, u128)>::deserialize(from)?;
        let mut generator = ChaCha20Rng::from_seed(seed);
        generator.set_stream(stream);
        generator.set_word_pos(position);
        Ok(generator)
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    /// The generator.
    #[serde(with = "generator")]
    pub generator: ChaCha20Rng,
}

impl Rng {
    /// A device that gives this seed's bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { generator: ChaCha20Rng::from_seed(seed) }
    }

    /// Fills the driver's buffer.
    pub(super) fn serve(&mut self, chain: &Chain, ctx: &mut Context<'_, '_>) -> Result<Served, Broken> {
        let mut room = chain.writable();
        let mut written = 0;
        while written < REQUEST {
            let Some(piece) = room.piece(REQUEST - written) else { break };
            self.generator.fill_bytes(ctx.ram.slice_mut(piece.address, piece.length as usize)?);
            written += piece.length;
        }
        Ok(Served { written, work: written as usize * COST })
    }
}
