//! What the channel's records are sealed with: AES-GCM by the processor's instructions, or ChaCha20-Poly1305 in software.

use crate::arch::gcm;
use crate::machine_line;
use alloc::boxed::Box;
use ft::channel::{AesGcm, Sealing};

impl AesGcm for gcm::AesGcm {
    fn set_key(&mut self, key: &[u8; gcm::KEY]) {
        self.set_key(key);
    }

    fn seal(&self, nonce: &[u8; gcm::NONCE], ad: &[u8], text: &[u8], out: &mut [u8]) -> [u8; gcm::TAG] {
        self.seal(nonce, ad, text, out)
    }

    fn open(
        &self,
        nonce: &[u8; gcm::NONCE],
        ad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
        tag: &[u8; gcm::TAG],
    ) -> bool {
        self.open(nonce, ad, sealed, out, tag)
    }
}

/// The cipher for this processor. `None`: it has the instructions, and they do not compute what they should.
pub fn choose() -> Option<Sealing> {
    let sealing = match (gcm::is_there(), gcm::holds()) {
        (false, _) => Sealing::ChaCha20Poly1305,
        (true, true) => Sealing::AesGcm(make),
        (true, false) => return None,
    };
    machine_line!("pair event=cipher name={}", Sealing::name(sealing.number()));
    Some(sealing)
}

fn make() -> Box<dyn AesGcm> {
    // Only where `choose` has found the instructions; the key is set before anything is sealed.
    Box::new(gcm::AesGcm::new(&[0; gcm::KEY]).expect("the processor has had the instructions"))
}
