//! The 82576 and its successors I350 and I210: queues that are enabled one by one, advanced descriptors, and interrupt
//! registers of their own. One queue each way is used, and interrupts as the older cards have them (pin or MSI; MSI-X
//! stays off), so that all queues' causes come in ICR. Sources: "Intel 82576EB Gigabit Ethernet Controller Datasheet" (320961), called
//! datasheet here, and those of the I350 (336626) and the I210 (333016), which agree in everything used.

use crate::chip::{Chip, Eeprom, Interrupts, PhyOwner, Queue};
use crate::descriptor::Format;
use crate::e1000::INTERRUPTS;
use crate::register::CTRL_FD;
use crate::ring::BUFFER_BYTES;
use hal::{Clock, Registers};

/// Cards with a copper PHY, by PCI device ID. The I211 is an I210 with fewer queues.
pub const MODELS: &[(u16, &str)] = &[
    (0x10c9, "82576"),
    (0x10e8, "82576"),
    (0x150a, "82576NS"),
    (0x1526, "82576"),
    (0x1521, "I350"),
    (0x1533, "I210"),
    (0x157b, "I210"),
    (0x1539, "I211"),
];

const RECEIVE: Queue = Queue(0xc000);
const TRANSMIT: Queue = Queue(0xe000);

/// General purpose interrupt enable: all zero but "reading ICR clears it, whatever is masked" (datasheet 8.8.17).
pub const GPIE: usize = 0x1514;
pub const GPIE_NSICR: u32 = 1 << 0;
/// Extended interrupt mask clear: the causes of MSI-X.
pub const EIMC: usize = 0x1528;
/// Which vector the causes of queue 0 have: 0, valid, for both directions (datasheet 8.8.15).
pub const IVAR0: usize = 0x1700;
pub const IVAR0_QUEUE_0: u32 = 0x8080;
/// Multiple receive queues: none.
const MRQC: usize = 0x5818;
/// Unicast table, 128 words: memory that no reset clears (datasheet 8.10.9).
pub const UTA: usize = 0xa000;
const UTA_WORDS: usize = 128;

/// SRRCTL: buffers in units of 1 KiB, advanced descriptors with one buffer (datasheet 8.10.2). A frame without a descriptor
/// waits in the card's packet buffer: drop-enable is 0.
pub const SRRCTL: u32 = (BUFFER_BYTES / 1024) as u32 | 1 << 25;
/// RXDCTL and TXDCTL: the queue is on; descriptors are fetched when 8 are free in the card, written back each by itself.
pub const DCTL_ENABLE: u32 = 1 << 25;
const DCTL_THRESHOLDS: u32 = 8 | 8 << 8 | 1 << 16;
/// How long a queue may take to start, in nanoseconds.
const QUEUE_TIMEOUT_NS: u64 = 10_000_000;

/// The family.
pub static CHIP: Chip = Chip {
    window: 0x1_0000,
    receive: RECEIVE,
    transmit: TRANSMIT,
    // At the older cards' places, which these keep as aliases of 0x1500 and so on (datasheet 8.1.3), and which is where other
    // systems and emulators have them. EITR 0: microseconds, from bit 2 on (datasheet 8.8.14).
    interrupts: Interrupts { throttle: (0x1680, 20 << 2), ..INTERRUPTS },
    format: Format::Advanced,
    eeprom: Eeprom { address_shift: 2, done: 1 << 1 },
    phy: PhyOwner::Semaphore,
    negotiate: true,
    express: true,
    link: CTRL_FD,
    tctl: 0,
    tipg: None,
    quiesce: |registers| {
        registers.write_u32(EIMC, !0);
        stop_queues(registers);
    },
    set_up: |registers| {
        registers.write_u32(GPIE, GPIE_NSICR);
        registers.write_u32(IVAR0, IVAR0_QUEUE_0);
        registers.write_u32(MRQC, 0);
        (0..UTA_WORDS).for_each(|word| registers.write_u32(UTA + 4 * word, 0));
    },
    start_receive: |registers, clock| {
        registers.write_u32(RECEIVE.split(), SRRCTL);
        start(registers, clock, RECEIVE)
    },
    start_transmit: |registers, clock| start(registers, clock, TRANSMIT),
    stop_queues,
};

/// The tail may not be moved before the card says that the queue is on (datasheet 4.5.9 and 4.5.10).
fn start(registers: &dyn Registers, clock: &dyn Clock, queue: Queue) -> bool {
    registers.write_u32(queue.control(), DCTL_ENABLE | DCTL_THRESHOLDS);
    (&clock).wait_until(QUEUE_TIMEOUT_NS, || registers.read_u32(queue.control()) & DCTL_ENABLE != 0)
}

fn stop_queues(registers: &dyn Registers) {
    for queue in [RECEIVE, TRANSMIT] {
        registers.modify_u32(queue.control(), DCTL_ENABLE, 0);
    }
}
