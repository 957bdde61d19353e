//! The outside world: programs inside the switch that have a cable of their own.

use super::time::Ns;
use super::wire::Frame;

/// A station without an emulator: sans-I/O, driven by emulated time only, so that it is as deterministic as the switch.
/// A TCP/IP stack fits: `frame` and `timer` poll it at `now`, `next_timer` is its next deadline.
pub trait World: Send {
    /// A frame has arrived at `now`. What is put into `send` leaves at `now`.
    fn frame(&mut self, now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>);

    /// The moment that [`next_timer`](World::next_timer) named has come.
    fn timer(&mut self, _now: Ns, _send: &mut Vec<Vec<u8>>) {}

    /// When to call [`timer`](World::timer) next; `None` for not at all. A moment that is past means at once.
    fn next_timer(&self) -> Option<Ns> {
        None
    }

    /// One line for the summary.
    fn summary(&self) -> String {
        String::new()
    }
}

/// Type of an Ethernet frame that a [`Responder`] sends back as it is: "local experimental 1" (IEEE 802).
pub const ECHO_ETHERTYPE: u16 = 0x88b5;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;

/// Answers ARP and ping for one address, and sends back frames of [`ECHO_ETHERTYPE`].
pub struct Responder {
    mac: [u8; 6],
    ip: [u8; 4],
    answered: u64,
    ignored: u64,
}

impl Responder {
    /// A responder with these addresses.
    pub fn new(mac: [u8; 6], ip: [u8; 4]) -> Self {
        Self { mac, ip, answered: 0, ignored: 0 }
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let to = frame.get(..6)?;
        if to != self.mac && to[0] & 1 == 0 {
            return None;
        }
        match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
            ECHO_ETHERTYPE => Some(self.reply_to(frame)),
            ARP => self.answer_arp(frame),
            IPV4 => self.answer_ping(frame),
            _ => None,
        }
    }

    /// The frame with its addresses turned round.
    fn reply_to(&self, frame: &[u8]) -> Vec<u8> {
        let mut reply = frame.to_vec();
        reply[..6].copy_from_slice(&frame[6..12]);
        reply[6..12].copy_from_slice(&self.mac);
        reply
    }

    fn answer_arp(&self, frame: &[u8]) -> Option<Vec<u8>> {
        // Ethernet and IPv4, a request, for our address (RFC 826).
        let request = frame.get(14..42)?;
        if request[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || request[24..28] != self.ip {
            return None;
        }
        let mut reply = self.reply_to(frame);
        reply[20..22].copy_from_slice(&[0, 2]);
        reply[22..28].copy_from_slice(&self.mac);
        reply[28..32].copy_from_slice(&self.ip);
        reply[32..42].copy_from_slice(&request[8..18]);
        Some(reply)
    }

    fn answer_ping(&self, frame: &[u8]) -> Option<Vec<u8>> {
        // IPv4 with a plain header, ICMP, to our address, an echo request (RFC 792).
        let packet = frame.get(14..)?;
        let plain = packet.len() >= 28 && packet[0] == 0x45 && packet[9] == 1;
        if !plain || packet[16..20] != self.ip || packet[20] != 8 {
            return None;
        }
        let mut reply = self.reply_to(frame);
        reply[26..30].copy_from_slice(&self.ip);
        reply[30..34].copy_from_slice(&packet[12..16]);
        reply[34] = 0;
        // Type 8 became 0: the checksum grows by 0x0800, with end-around carry.
        let sum = u32::from(u16::from_be_bytes([reply[36], reply[37]])) + 0x0800;
        let folded = (sum & 0xffff) + (sum >> 16);
        reply[36..38].copy_from_slice(&(folded as u16).to_be_bytes());
        Some(reply)
    }
}

impl World for Responder {
    fn frame(&mut self, _now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        match self.answer(frame) {
            Some(reply) => {
                self.answered += 1;
                send.push(reply);
            }
            None => self.ignored += 1,
        }
    }

    fn summary(&self) -> String {
        format!("answered {} frames, ignored {}", self.answered, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
    const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const IP: [u8; 4] = [10, 0, 0, 254];

    fn ask(frame: &[u8]) -> Option<Vec<u8>> {
        let mut send = vec![];
        Responder::new(MAC, IP).frame(0, &Frame::from(frame), &mut send);
        send.pop()
    }

    fn checksum(bytes: &[u8]) -> u16 {
        let sum: u32 = bytes
            .chunks(2)
            .map(|p| u32::from(u16::from_be_bytes([p[0], p.get(1).copied().unwrap_or(0)])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn answers_arp() {
        let mut request = [[0xff; 6], PEER].concat();
        request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend(PEER);
        request.extend([10, 0, 0, 1]);
        request.extend([0; 6]);
        request.extend(IP);
        let reply = ask(&request).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&PEER[..], &MAC[..]));
        assert_eq!(reply[20..42], [&[0, 2][..], &MAC, &IP, &PEER, &[10, 0, 0, 1]].concat());
        request[41] = 1;
        assert_eq!(ask(&request), None, "somebody else's address");
    }

    #[test]
    fn answers_ping_with_a_right_checksum() {
        for payload in [&[0u8; 8][..], &[0xff; 9], b"abcdefgh"] {
            let mut icmp = [&[8, 0, 0, 0, 1, 2, 3, 4], payload].concat();
            let sum = checksum(&icmp).to_be_bytes();
            icmp[2..4].copy_from_slice(&sum);
            let mut frame = [MAC, PEER].concat();
            frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1]);
            frame.extend(IP);
            frame.extend(&icmp);
            let reply = ask(&frame).unwrap();
            assert_eq!(reply[26..34], [&IP[..], &[10, 0, 0, 1]].concat());
            assert_eq!(reply[34], 0);
            assert_eq!(checksum(&reply[34..]), 0);
        }
    }

    #[test]
    fn echoes_its_own_type_and_ignores_what_is_for_others() {
        let frame = [&MAC[..], &PEER, &[0x88, 0xb5], b"hello"].concat();
        assert_eq!(ask(&frame).unwrap(), [&PEER[..], &MAC, &[0x88, 0xb5], b"hello"].concat());
        assert_eq!(ask(&[&PEER[..], &PEER, &[0x88, 0xb5]].concat()), None);
        for cut in 0..14 {
            assert_eq!(ask(&frame[..cut]), None);
        }
    }
}
