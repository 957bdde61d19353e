//! The peer of the test kernel `nic_frames`, sans-I/O: it judges every frame by what it must be, answers each with one of its own
//! sequence, and does what it is asked to.

/// Type of the frames: "local experimental 1" (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Our address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// Header of 14 bytes, kind, number, argument.
const CONTENT: usize = 14 + 1 + 4 + 4;
const MIN_LEN: u32 = 60;
const MAX_LEN: u32 = 1514;
/// How far our lengths are ahead of the machine's.
const SHIFT: u32 = 700;
/// Most frames of a burst.
const MAX_BURST: u32 = 100_000;
/// Faults that are told one by one.
const TOLD: usize = 5;

const DATA: u8 = 1;
const BURST: u8 = 2;
const FLAP: u8 = 3;
const FILTER: u8 = 4;
const TELL: u8 = 5;

/// Whose sequence, as part of the content.
const MACHINES: u64 = 0x6d69_6e65;
const OURS: u64 = 0x796f_7572;

/// What the machine asks for that the peer cannot do by frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// Pull the cable for so many milliseconds.
    pub millis: u32,
}

/// The peer.
#[derive(Debug)]
pub struct Peer {
    seed: u64,
    /// The machine's next number.
    expected: u32,
    /// Our next.
    next: u32,
    wrong: u32,
    told: Vec<String>,
}

/// The length of a number: every 1455 numbers, each comes once.
fn length(number: u32) -> usize {
    let lengths = u64::from(MAX_LEN - MIN_LEN + 1);
    MIN_LEN as usize + (u64::from(number) * 677 % lengths) as usize
}

/// The content of a number of a sequence: words of SplitMix64.
fn content(seed: u64, whose: u64, number: u32, len: usize) -> Vec<u8> {
    let mut state = seed ^ whose << 32 ^ u64::from(number);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn frame(to: &[u8], kind: u8, number: u32, argument: u32, content: &[u8]) -> Vec<u8> {
    let mut frame = [to, &MAC, &ETHERTYPE, &[kind], &number.to_le_bytes(), &argument.to_le_bytes()].concat();
    frame.extend_from_slice(content);
    frame.resize(frame.len().max(MIN_LEN as usize), 0);
    frame
}

impl Peer {
    /// A peer for a machine with this seed.
    pub fn new(seed: u64) -> Self {
        Peer { seed, expected: 0, next: 0, wrong: 0, told: Vec::new() }
    }

    /// A frame has come. The answers are put into `send`; what cannot be done by frames is returned, and
    /// [`flapped`](Self::flapped) is to be called when it is done.
    pub fn frame(&mut self, bytes: &[u8], send: &mut Vec<Vec<u8>>) -> Option<Flap> {
        let fields = bytes.get(15..CONTENT).and_then(|f| f.first_chunk::<8>());
        let Some(&[a, b, c, d, _, _, _, _]) = fields.filter(|_| bytes[12..14] == ETHERTYPE) else {
            self.fault(format!("a frame of {} bytes that is none of ours", bytes.len()));
            return None;
        };
        let (from, kind, number) = (&bytes[6..12], bytes[14], u32::from_le_bytes([a, b, c, d]));
        match kind {
            DATA => {
                self.judge(bytes, number);
                send.push(self.next(from));
            }
            BURST if number == 0 => send.push(frame(from, BURST, self.next, 0, &[])),
            BURST => send.extend((0..number.min(MAX_BURST)).map(|_| self.next(from))),
            FILTER => {
                let [other, group, ..] = number.to_le_bytes();
                let (other, group) = ([2, 0, 0, 0, 0, other], [1, 0, 0x5e, 0, 0, group]);
                let addresses = (0..).zip([from, &other, &group, &[0xff; 6]]);
                send.extend(addresses.map(|(place, to)| frame(to, FILTER, place, 0, &[])));
                send.push(frame(from, FILTER, u32::MAX, 0, &[]));
            }
            FLAP => return Some(Flap { millis: number }),
            TELL => send.push(frame(from, TELL, self.expected, self.wrong, &[])),
            _ => self.fault(format!("a frame of the unknown kind {kind}")),
        }
        None
    }

    /// The cable is plugged again: tells the machine at `to`.
    pub fn flapped(&self, to: &[u8]) -> Vec<u8> {
        frame(to, FLAP, 0, 0, &[])
    }

    /// What was wrong, for people; empty if nothing was.
    pub fn faults(&self) -> String {
        let more = if self.wrong as usize > self.told.len() { " ..." } else { "" };
        if self.wrong == 0 {
            return String::new();
        }
        format!("{} of {} frames wrong: {}{more}", self.wrong, self.expected, self.told.join("; "))
    }

    fn next(&mut self, to: &[u8]) -> Vec<u8> {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let len = length(number.wrapping_add(SHIFT));
        frame(to, DATA, number, len as u32, &content(self.seed, OURS, number, len - CONTENT))
    }

    fn judge(&mut self, bytes: &[u8], number: u32) {
        let len = length(number);
        if number != self.expected {
            self.fault(format!("number {number} in place of {}", self.expected));
        } else if bytes.len() != len {
            self.fault(format!("number {number} with {} bytes in place of {len}", bytes.len()));
        } else if bytes[..6] != MAC || bytes[CONTENT..] != content(self.seed, MACHINES, number, len - CONTENT)
        {
            self.fault(format!("number {number} has another content"));
        }
        self.expected = number.wrapping_add(1);
    }

    fn fault(&mut self, what: String) {
        self.wrong += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MACHINE: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn data(number: u32) -> Vec<u8> {
        let len = length(number);
        let mut bytes = frame(&MAC, DATA, number, len as u32, &content(7, MACHINES, number, len - CONTENT));
        bytes[6..12].copy_from_slice(&MACHINE);
        bytes
    }

    fn answers(peer: &mut Peer, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut send = Vec::new();
        assert_eq!(peer.frame(bytes, &mut send), None);
        send
    }

    #[test]
    fn all_lengths_come() {
        let lengths: BTreeSet<usize> = (0..1455).map(length).collect();
        assert_eq!((lengths.len(), lengths.first(), lengths.last()), (1455, Some(&60), Some(&1514)));
    }

    #[test]
    fn a_good_sequence_is_answered_by_ours() {
        let mut peer = Peer::new(7);
        for number in 0..3 {
            let sent = answers(&mut peer, &data(number));
            assert_eq!(sent.len(), 1);
            assert_eq!((&sent[0][..6], sent[0].len()), (&MACHINE[..], length(number + SHIFT)));
        }
        assert_eq!(peer.faults(), "");
    }

    #[test]
    fn every_kind_of_fault_is_seen() {
        let spoilt = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut peer = Peer::new(7);
            answers(&mut peer, &data(0));
            let mut bytes = data(1);
            change(&mut bytes);
            answers(&mut peer, &bytes);
            peer.faults()
        };
        assert_eq!(spoilt(&|_| ()), "");
        assert!(spoilt(&|b| *b.last_mut().unwrap() ^= 1).contains("another content"));
        assert!(spoilt(&|b| b[0] ^= 4).contains("another content"));
        assert!(spoilt(&|b| b.push(0)).contains("bytes in place of"));
        assert!(spoilt(&|b| *b = data(2)).contains("number 2 in place of 1"));
        assert!(spoilt(&|b| *b = data(0)).contains("number 0 in place of 1"));
        assert!(spoilt(&|b| b.truncate(20)).contains("none of ours"));
        assert!(spoilt(&|b| b[14] = 99).contains("unknown kind"));
    }

    #[test]
    fn it_does_what_it_is_asked_to() {
        let mut peer = Peer::new(7);
        let ask = |kind, number| {
            let mut bytes = frame(&MAC, kind, number, 0, &[]);
            bytes[6..12].copy_from_slice(&MACHINE);
            bytes
        };
        assert_eq!(answers(&mut peer, &ask(BURST, 9)).len(), 9);
        assert_eq!(answers(&mut peer, &ask(BURST, 0))[0][14..16], [BURST, 9], "the next number");
        let sent = answers(&mut peer, &ask(FILTER, 0x1177));
        let to: Vec<[u8; 6]> = sent.iter().map(|f| *f.first_chunk().unwrap()).collect();
        assert_eq!(to, [MACHINE, [2, 0, 0, 0, 0, 0x77], [1, 0, 0x5e, 0, 0, 0x11], [0xff; 6], MACHINE]);
        assert_eq!(peer.frame(&ask(FLAP, 50), &mut Vec::new()), Some(Flap { millis: 50 }));
        answers(&mut peer, &data(5));
        let told = &answers(&mut peer, &ask(TELL, 0))[0];
        assert_eq!((told[15], told[19]), (6, 1), "the next number, and how many were wrong");
    }
}
