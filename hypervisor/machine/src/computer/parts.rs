//! The computer's state part by part, without a copy: for whoever compares two computers and wants to name what differs.

use super::Computer;
use crate::pci::SLOTS;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;

/// The parts' names. Those of PCI functions are by slot.
pub const NAMES: [&str; 13] = [
    "pic",
    "io-apic",
    "local-apic",
    "msrs",
    "uart",
    "pit",
    "rtc",
    "pm",
    "keyboard",
    "diagnostics",
    "fw-cfg",
    "random",
    "pci",
];

/// The PCI functions' names, by slot.
pub const FUNCTIONS: [&str; SLOTS] = ["pci-0", "pci-1", "pci-2", "pci-3", "pci-4", "pci-5", "pci-6", "pci-7"];

/// Whoever looks at the parts.
pub trait Visitor {
    /// The state of the part of this name.
    fn part<T: Serialize>(&mut self, name: &'static str, state: &T);
}

/// The generator, as the computer's state has it.
#[derive(Serialize)]
#[serde(transparent)]
struct Generator<'g>(#[serde(serialize_with = "generator")] &'g ChaCha20Rng);

fn generator<S: serde::Serializer>(generator: &&ChaCha20Rng, to: S) -> Result<S::Ok, S::Error> {
    crate::virtio::rng::generator::serialize(generator, to)
}

impl Computer {
    /// Shows all parts: together they are the [`State`](super::State). Allocates nothing.
    pub fn visit(&self, visitor: &mut impl Visitor) {
        let interrupts = self.interrupts.save();
        visitor.part("pic", &interrupts.pic);
        visitor.part("io-apic", &interrupts.io_apic);
        visitor.part("local-apic", &interrupts.local);
        visitor.part("msrs", &self.msrs.save());
        visitor.part("uart", &self.uart.save());
        visitor.part("pit", &self.pit.save());
        visitor.part("rtc", &self.rtc.save());
        visitor.part("pm", &self.pm.save());
        visitor.part("keyboard", &self.keyboard.save());
        visitor.part("diagnostics", &self.diagnostics.save());
        visitor.part("fw-cfg", &self.fw_cfg.save());
        visitor.part("random", &Generator(&self.random));
        visitor.part("pci", &self.pci.own_state());
        for (name, state) in FUNCTIONS.into_iter().zip(self.pci.slot_states()) {
            visitor.part(name, state);
        }
    }
}
