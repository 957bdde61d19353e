//! Descriptors, 16 bytes each: the legacy ones (SDM 3.2.3 and 3.3.3), and the advanced ones with one buffer (82576
//! datasheet 7.1.5 and 7.2.2). Both have the buffer's address in their first word, and when the card gets a receive
//! descriptor the second word is zero; what the card says of it stands in the second word as well, so one read of 64 bits has all.

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 16;

/// How a card's descriptors are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// That of the 8254x, which the 82574 has kept.
    Legacy,
    /// That of the 82576 and its successors.
    Advanced,
}

/// What the device wrote into a receive descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The device has filled the buffer.
    pub done: bool,
    /// The frame ends in this buffer.
    pub end_of_packet: bool,
    /// The frame is damaged. (Wrong checksums inside it are no damage.)
    pub damaged: bool,
    /// Bytes in the buffer, as the device says: to be checked.
    pub len: usize,
}

impl Format {
    /// Decodes the second word of a receive descriptor.
    pub const fn received(self, word: u64) -> Received {
        let (status, damage, len) = match self {
            // Errors: CRC or alignment, symbol, sequence, carrier extension, RX data.
            Format::Legacy => (word >> 32, (1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7) << 40, word & 0xffff),
            // RXE: any of them.
            Format::Advanced => (word, 1 << 31, word >> 32 & 0xffff),
        };
        Received {
            done: status & 1 != 0,
            end_of_packet: status & 2 != 0,
            damaged: word & damage != 0,
            len: len as usize,
        }
    }

    /// The second word of a transmit descriptor that sends `len` bytes as one frame and reports when it is done.
    pub const fn transmit(self, len: usize) -> u64 {
        const END_OF_PACKET: u64 = 1 << 24;
        const INSERT_FCS: u64 = 1 << 25;
        const REPORT_STATUS: u64 = 1 << 27;
        const TYPE_DATA: u64 = 3 << 20;
        const EXTENDED: u64 = 1 << 29;
        const PAYLOAD_SHIFT: u32 = 46;
        let len = (len & 0xffff) as u64;
        let plain = len | END_OF_PACKET | INSERT_FCS | REPORT_STATUS;
        match self {
            Format::Legacy => plain,
            Format::Advanced => plain | TYPE_DATA | EXTENDED | len << PAYLOAD_SHIFT,
        }
    }

    /// Whether the device is done with a transmit descriptor, by its second word.
    pub const fn transmitted(self, word: u64) -> bool {
        word & 1 << 32 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_legacy() {
        let r = Format::Legacy.received(0x1234 | 1 << 32);
        assert!(r.done && !r.end_of_packet && !r.damaged);
        assert_eq!(r.len, 0x1234);
        assert!(Format::Legacy.received(1 << 33).end_of_packet);
        for (bit, damaged) in
            [(0, true), (1, true), (2, true), (3, false), (4, true), (5, false), (6, false), (7, true)]
        {
            assert_eq!(Format::Legacy.received(1 << (40 + bit)).damaged, damaged, "error bit {bit}");
        }
    }

    #[test]
    fn received_advanced() {
        let r = Format::Advanced.received(0x1234 << 32 | 1);
        assert!(r.done && !r.end_of_packet && !r.damaged);
        assert_eq!(r.len, 0x1234);
        assert!(Format::Advanced.received(2).end_of_packet);
        // Bits 30 and 29 are checksum errors, 63:48 a VLAN tag.
        for (bit, damaged) in [(31, true), (30, false), (29, false), (48, false), (63, false)] {
            assert_eq!(Format::Advanced.received(1 << bit).damaged, damaged, "bit {bit}");
        }
        assert_eq!(Format::Advanced.received(0xffff << 48).len, 0);
    }

    #[test]
    fn transmit_fields() {
        assert_eq!(Format::Legacy.transmit(60), 0x0b00_003c);
        assert_eq!(Format::Advanced.transmit(60), 60 << 46 | 0x2b30_003c);
        for format in [Format::Legacy, Format::Advanced] {
            assert!(!format.transmitted(format.transmit(1514)), "what was never sent is not done");
            assert!(format.transmitted(format.transmit(1514) | 1 << 32));
        }
    }
}
