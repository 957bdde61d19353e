//! Capture files: pcap with nanosecond stamps, link type Ethernet. Wireshark and tcpdump read them.

use std::io::{self, Write};

use super::time::Ns;

/// Magic number of a little-endian pcap file with nanosecond stamps.
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// Longest frame kept; ours are shorter.
const SNAP_LENGTH: u32 = 65_535;

/// A capture being written.
pub struct Pcap<W: Write>(W);

impl<W: Write> Pcap<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC_NS.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0])?;
        out.write_all(&[0; 8])?;
        out.write_all(&SNAP_LENGTH.to_le_bytes())?;
        out.write_all(&LINKTYPE_ETHERNET.to_le_bytes())?;
        Ok(Self(out))
    }

    /// Adds a frame seen at `at`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn frame(&mut self, at: Ns, frame: &[u8]) -> io::Result<()> {
        let words = [at / 1_000_000_000, at % 1_000_000_000, frame.len() as u64, frame.len() as u64];
        for word in words {
            self.0.write_all(&(word as u32).to_le_bytes())?;
        }
        self.0.write_all(frame)
    }

    /// Hands what was added to the system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    /// Makes sure that all of it is written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_capture() {
        let mut pcap = Pcap::new(Vec::new()).unwrap();
        pcap.frame(2_000_000_007, &[1, 2, 3]).unwrap();
        let bytes = pcap.finish().unwrap();
        assert_eq!(bytes[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(bytes[16..24], [0xff, 0xff, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[24..], [2, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
    }
}
