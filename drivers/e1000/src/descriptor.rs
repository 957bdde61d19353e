//! Legacy descriptors, 16 bytes each (SDM 3.2.3 and 3.3.3).

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 16;

/// What the device wrote into a receive descriptor: the second of its two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received(pub u64);

impl Received {
    const DONE: u64 = 1 << 32;
    const END_OF_PACKET: u64 = 1 << 33;
    /// CRC or alignment, symbol, sequence, carrier extension, RX data errors. (The checksum errors are no damage.)
    const DAMAGE: u64 = (1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7) << 40;

    /// The device has filled the buffer.
    pub const fn done(self) -> bool {
        self.0 & Self::DONE != 0
    }

    /// The frame ends in this buffer.
    pub const fn end_of_packet(self) -> bool {
        self.0 & Self::END_OF_PACKET != 0
    }

    /// The frame is damaged.
    pub const fn damaged(self) -> bool {
        self.0 & Self::DAMAGE != 0
    }

    /// Bytes in the buffer, as the device says: to be checked.
    pub const fn len(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// The second word of a transmit descriptor that sends `len` bytes as one frame and reports when it is done.
pub const fn transmit(len: usize) -> u64 {
    const END_OF_PACKET: u64 = 1 << 24;
    const INSERT_FCS: u64 = 1 << 25;
    const REPORT_STATUS: u64 = 1 << 27;
    (len & 0xffff) as u64 | END_OF_PACKET | INSERT_FCS | REPORT_STATUS
}

/// Whether the device is done with a transmit descriptor.
pub const fn transmitted(word: u64) -> bool {
    word & 1 << 32 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_fields() {
        let r = Received(0x1234 | 1 << 32);
        assert!(r.done() && !r.end_of_packet() && !r.damaged());
        assert_eq!(r.len(), 0x1234);
        assert!(Received(1 << 33).end_of_packet());
        for (bit, damaged) in
            [(0, true), (1, true), (2, true), (3, false), (4, true), (5, false), (6, false), (7, true)]
        {
            assert_eq!(Received(1 << (40 + bit)).damaged(), damaged, "error bit {bit}");
        }
    }

    #[test]
    fn transmit_fields() {
        assert_eq!(transmit(60), 0x0b00_003c);
        assert!(!transmitted(transmit(60)));
        assert!(transmitted(1 << 32));
    }
}
