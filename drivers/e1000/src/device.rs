//! The running card: sending, receiving, counters, interrupt causes.

use crate::chip::{Chip, Family};
use crate::descriptor::Received;
use crate::register::*;
use crate::ring::{BUFFER_BYTES, Ring};
use hal::{DmaBuffer, Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, Registers, TransmitError};

/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = 14;
/// Largest frame without FCS: header and 1500 bytes.
const MAX_FRAME: usize = HEADER_BYTES + 1500;
/// Shortest frame without FCS on the wire; shorter ones are padded here, so that what is sent is the same on every card.
const MIN_FRAME: usize = 60;
/// Descriptors after which the card gets its buffers back within a long batch.
const REFILL: usize = 32;

/// A running card.
pub struct Nic<R, D> {
    pub(crate) registers: R,
    pub(crate) chip: &'static Chip,
    family: Family,
    pub(crate) mac: MacAddress,
    pub(crate) receive: Ring<D>,
    pub(crate) transmit: Ring<D>,
    /// The descriptor that the card fills next.
    receive_next: usize,
    /// A frame over several buffers is being thrown away.
    skipping: bool,
    /// The descriptor that we fill next, and the oldest that the card is not known to be done with.
    transmit_next: usize,
    transmit_oldest: usize,
    counters: NetCounters,
    /// Whether reading a counter clears it: by the manuals it does, and on QEMU's cards not all. `None`: not known yet.
    reading_clears: Option<bool>,
    scratch: [u8; BUFFER_BYTES],
}

/// Why the card interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause(pub u32);

impl Cause {
    /// Transmit descriptor written back.
    pub const TRANSMITTED: u32 = 1 << 0;
    /// The cable was plugged or pulled.
    pub const LINK: u32 = 1 << 2;
    /// Few receive buffers are left.
    pub const RECEIVE_LOW: u32 = 1 << 4;
    /// A frame found no receive buffer.
    pub const OVERRUN: u32 = 1 << 6;
    /// A frame was received.
    pub const RECEIVED: u32 = 1 << 7;

    /// What has to do with receiving: a frame, few buffers, none, the delay timer.
    pub const RECEIVING: u32 = Self::RECEIVED | Self::RECEIVE_LOW | Self::OVERRUN;

    /// Any of these bits.
    pub const fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

impl<R: Registers, D: DmaBuffer> Nic<R, D> {
    pub(crate) fn assemble(
        registers: R,
        family: Family,
        mac: MacAddress,
        receive: Ring<D>,
        transmit: Ring<D>,
    ) -> Self {
        Self {
            registers,
            chip: family.chip(),
            family,
            mac,
            receive,
            transmit,
            receive_next: 0,
            skipping: false,
            transmit_next: 0,
            transmit_oldest: 0,
            counters: NetCounters::default(),
            reading_clears: None,
            scratch: [0; BUFFER_BYTES],
        }
    }

    /// The card's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Lets the card interrupt for these causes.
    pub fn enable_interrupts(&mut self, causes: u32) {
        self.registers.write_u32(self.chip.interrupts.let_through, causes);
    }

    /// Lets the card interrupt no more.
    pub fn disable_interrupts(&mut self) {
        self.registers.write_u32(self.chip.interrupts.hold_back, !0);
    }

    /// Reads and clears the interrupt causes, and with them the interrupt. 0: it was not this card.
    pub fn interrupt_cause(&mut self) -> Cause {
        let cause = self.registers.read_u32(self.chip.interrupts.cause);
        // The 82574 clears by reading only while an interrupt is asserted (datasheet 10.2.4.1).
        if cause != 0 {
            self.registers.write_u32(self.chip.interrupts.cause, cause);
        }
        Cause(cause)
    }

    /// Descriptors given to the card and not yet sent.
    pub fn transmit_pending(&mut self) -> usize {
        self.reclaim();
        let count = self.transmit.count();
        (self.transmit_next + count - self.transmit_oldest) % count
    }

    /// Stops the card: no interrupt, no DMA after the return but for what is under way.
    pub fn stop(&mut self) {
        self.disable_interrupts();
        self.registers.write_u32(RCTL, 0);
        self.registers.write_u32(TCTL, TCTL_PSP);
        (self.chip.stop_queues)(&self.registers);
        if self.chip.express {
            self.registers.modify_u32(CTRL_EXT, CTRL_EXT_DRV_LOAD, 0);
        }
    }

    /// Fills or empties one entry of the receive addresses.
    pub(crate) fn set_receive_address(&mut self, low: usize, high: usize, mac: Option<MacAddress>) {
        let Some(MacAddress([a, b, c, d, e, f])) = mac else {
            self.registers.write_u32(high, 0);
            return self.registers.write_u32(low, 0);
        };
        self.registers.write_u32(low, u32::from_le_bytes([a, b, c, d]));
        self.registers.write_u32(high, u32::from_le_bytes([e, f, 0, 0]) | RAH_AV);
    }

    /// Counts what the card has missed. A counter that reads the same twice has not been cleared, and is a total.
    fn count_missed(&mut self) {
        let first = self.registers.read_u32(MPC);
        if first == 0 {
            return;
        }
        let clears = *self.reading_clears.get_or_insert_with(|| {
            let second = self.registers.read_u32(MPC);
            let clears = second != first;
            self.counters.missed += if clears { u64::from(second) } else { 0 };
            clears
        });
        let first = u64::from(first);
        self.counters.missed = if clears { self.counters.missed + first } else { first };
    }

    fn reclaim(&mut self) {
        while self.transmit_oldest != self.transmit_next
            && self.chip.format.transmitted(self.transmit.word(self.transmit_oldest))
        {
            self.transmit_oldest = self.transmit.after(self.transmit_oldest);
        }
    }

    /// Looks at one filled descriptor. Returns the length of the frame in `scratch`, `None` for one to be dropped.
    fn take(&mut self, index: usize, word: Received) -> Option<usize> {
        let skipped = self.skipping;
        self.skipping = !word.end_of_packet;
        // Our buffers are larger than any frame that the card accepts: one over several buffers is an error.
        if skipped || self.skipping {
            self.counters.bad_descriptors += u64::from(!skipped);
            return None;
        }
        if word.damaged {
            self.counters.receive_errors += 1;
            return None;
        }
        if !(HEADER_BYTES..=BUFFER_BYTES).contains(&word.len) {
            self.counters.bad_descriptors += 1;
            return None;
        }
        self.receive.read(index, &mut self.scratch[..word.len]);
        Some(word.len)
    }
}

impl<R: Registers, D: DmaBuffer> NetDevice for Nic<R, D> {
    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn link(&self) -> Link {
        let status = self.registers.read_u32(STATUS);
        // All ones: the card was pulled.
        if status & STATUS_LU == 0 || status == !0 {
            return Link::Down;
        }
        let megabits = match status >> STATUS_SPEED_SHIFT & 3 {
            0 => 10,
            1 => 100,
            _ => 1000,
        };
        Link::Up { megabits, full_duplex: status & STATUS_FD != 0 }
    }

    fn max_frame(&self) -> usize {
        MAX_FRAME
    }

    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        if !(HEADER_BYTES..=MAX_FRAME).contains(&frame.len()) {
            return Err(TransmitError::Length(frame.len()));
        }
        self.reclaim();
        let index = self.transmit_next;
        let after = self.transmit.after(index);
        // One descriptor stays free: tail = head means an empty ring.
        if after == self.transmit_oldest {
            self.counters.transmit_full += 1;
            return Err(TransmitError::Full);
        }
        let len = self.transmit.fill(index, frame, MIN_FRAME);
        self.transmit.arm(index, self.chip.format.transmit(len));
        self.transmit_next = after;
        self.registers.write_u32(self.chip.transmit.tail(), after as u32);
        self.counters.sent += 1;
        self.counters.sent_bytes += frame.len() as u64;
        Ok(())
    }

    fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        let (mut frames, mut used, mut last) = (0, 0, None);
        while frames < budget {
            let index = self.receive_next;
            let word = self.chip.format.received(self.receive.word(index));
            if !word.done {
                break;
            }
            if let Some(len) = self.take(index, word) {
                if !sink(&self.scratch[..len]) {
                    break;
                }
                frames += 1;
                self.counters.received += 1;
                self.counters.received_bytes += len as u64;
            }
            self.receive.arm(index, 0);
            self.receive_next = self.receive.after(index);
            last = Some(index);
            used += 1;
            // A stream of bad descriptors must not keep us here longer than good ones would.
            if used >= budget.max(self.receive.count()) {
                break;
            }
            if used % REFILL == 0 {
                self.registers.write_u32(self.chip.receive.tail(), index as u32);
                last = None;
            }
        }
        if let Some(index) = last {
            self.registers.write_u32(self.chip.receive.tail(), index as u32);
        }
        frames
    }

    fn set_filter(&mut self, filter: Filter) {
        self.set_receive_address(RAL1, RAH1, filter.station);
        let everything = if filter.everything { RCTL_UPE } else { 0 };
        let groups = if filter.groups || filter.everything { RCTL_MPE } else { 0 };
        self.registers.modify_u32(RCTL, RCTL_UPE | RCTL_MPE, everything | groups);
    }

    fn set_events(&mut self, wanted: NetEvents) {
        let mut causes = 0;
        for (wanted, bits) in [
            (wanted.received, Cause::RECEIVING),
            (wanted.sent, Cause::TRANSMITTED),
            (wanted.link, Cause::LINK),
        ] {
            causes |= if wanted { bits } else { 0 };
        }
        self.registers.write_u32(self.chip.interrupts.hold_back, !causes);
        self.registers.write_u32(self.chip.interrupts.let_through, causes);
    }

    fn take_events(&mut self) -> NetEvents {
        let cause = self.interrupt_cause();
        NetEvents {
            received: cause.any(Cause::RECEIVING),
            sent: cause.any(Cause::TRANSMITTED),
            link: cause.any(Cause::LINK),
        }
    }

    fn provoke(&mut self) {
        self.registers.write_u32(self.chip.interrupts.provoke, Cause::LINK);
    }

    fn counters(&mut self) -> NetCounters {
        self.count_missed();
        for register in [CRCERRS, ALGNERRC, RXERRC, RLEC] {
            self.counters.receive_errors += u64::from(self.registers.read_u32(register));
        }
        for register in [ECOL, LATECOL] {
            self.counters.transmit_errors += u64::from(self.registers.read_u32(register));
        }
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rings;
    use crate::model::Card;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    const SMALL: Rings = Rings { receive: 8, transmit: 8 };

    fn start(family: Family) -> (Card, crate::model::Driver) {
        let card = Card::new(family);
        let driver = card.driver(SMALL).unwrap();
        (card, driver)
    }

    fn families() -> impl Strategy<Value = Family> {
        proptest::sample::select(Family::ALL.to_vec())
    }

    fn frame(n: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![n; len];
        frame[..6].copy_from_slice(&Card::MAC);
        frame
    }

    fn drain(driver: &mut crate::model::Driver, budget: usize) -> Vec<Vec<u8>> {
        let mut got = vec![];
        driver.receive(budget, &mut |f| got.push(f.to_vec()));
        got
    }

    #[test]
    fn sends_and_pads() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            driver.transmit(&frame(1, 1514)).unwrap();
            driver.transmit(&frame(2, 14)).unwrap();
            let mut padded = frame(2, 14);
            padded.resize(60, 0);
            assert_eq!(card.inner().sent, [frame(1, 1514), padded]);
            assert_eq!(driver.transmit(&frame(1, 1515)), Err(TransmitError::Length(1515)));
            assert_eq!(driver.transmit(&[0; 13]), Err(TransmitError::Length(13)));
            let counters = driver.counters();
            assert_eq!((counters.sent, counters.sent_bytes), (2, 1528));
        }
    }

    #[test]
    fn padding_does_not_leak_what_was_sent_before() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for _ in 0..8 {
                driver.transmit(&frame(0xee, 200)).unwrap();
            }
            for _ in 0..8 {
                driver.transmit(&frame(1, 20)).unwrap();
            }
            let last = card.inner().sent.last().unwrap().clone();
            assert!(last[20..].iter().all(|b| *b == 0) && last.len() == 60);
        }
    }

    #[test]
    fn a_full_ring_refuses_and_recovers() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            card.inner().stalled = true;
            for n in 0..7 {
                driver.transmit(&frame(n, 60)).unwrap();
            }
            assert_eq!(driver.transmit(&frame(9, 60)), Err(TransmitError::Full));
            assert_eq!(driver.transmit_pending(), 7);
            card.inner().stalled = false;
            card.run_transmit();
            driver.transmit(&frame(7, 60)).unwrap();
            let sent: Vec<u8> = card.inner().sent.iter().map(|f| f[20]).collect();
            assert_eq!(sent, [0, 1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(driver.counters().transmit_full, 1);
            assert_eq!(driver.transmit_pending(), 0);
        }
    }

    #[test]
    fn receives_in_order_and_in_batches() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for n in 0..7 {
                card.receive(&frame(n, 60 + usize::from(n)));
            }
            assert_eq!(drain(&mut driver, 3), [frame(0, 60), frame(1, 61), frame(2, 62)]);
            assert_eq!(drain(&mut driver, 99).len(), 4);
            assert_eq!(drain(&mut driver, 99).len(), 0);
            for round in 0..50 {
                card.receive(&frame(round, 100));
                assert_eq!(drain(&mut driver, 1), [frame(round, 100)]);
            }
            assert_eq!(driver.counters().received, 57);
        }
    }

    #[test]
    fn a_full_ring_makes_the_card_miss_and_count() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for n in 0..10 {
                card.receive(&frame(n, 60));
            }
            assert!(driver.interrupt_cause().any(Cause::OVERRUN));
            assert_eq!(drain(&mut driver, 99).len(), 7);
            assert_eq!(driver.counters().missed, 3);
            assert_eq!(driver.counters().missed, 3, "the card's counter clears by reading, ours must not");
            card.receive(&frame(11, 60));
            assert_eq!(drain(&mut driver, 99), [frame(11, 60)]);
        }
    }

    #[test]
    fn damaged_frames_are_counted_and_dropped() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for bit in [0, 1, 2, 4, 7] {
                card.receive_with(&frame(1, 60), 60, 3, 1 << bit);
            }
            card.receive_with(&frame(2, 60), 60, 3, 1 << 5 | 1 << 6);
            assert_eq!(
                drain(&mut driver, 99),
                [frame(2, 60)],
                "a wrong TCP or IP checksum is not the card's business"
            );
            card.inner().set(CRCERRS, 4);
            assert_eq!(driver.counters().receive_errors, 9);
        }
    }

    #[test]
    fn bad_descriptors_are_survived() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for len in [0, 13, 2049, 0xffff] {
                card.receive_with(&frame(1, 60), len, 3, 0);
            }
            // One frame over three descriptors, then a good one.
            for status in [1, 1, 3] {
                card.receive_with(&frame(2, 60), 60, status, 0);
            }
            assert_eq!(drain(&mut driver, 99), Vec::<Vec<u8>>::new());
            card.receive(&frame(3, 60));
            assert_eq!(drain(&mut driver, 99), [frame(3, 60)]);
            assert_eq!(driver.counters().bad_descriptors, 5);
        }
    }

    #[test]
    fn a_card_that_marks_everything_done_cannot_hold_us() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            card.inner().babble = true;
            card.receive_with(&frame(1, 60), 0, 3, 0);
            assert_eq!(driver.receive(4, &mut |_| ()), 0);
        }
    }

    #[test]
    fn link_states() {
        for family in Family::ALL {
            let (card, driver) = start(family);
            for (status, link) in [
                (0x83, Link::Up { megabits: 1000, full_duplex: true }),
                (0x43, Link::Up { megabits: 100, full_duplex: true }),
                (0x02, Link::Up { megabits: 10, full_duplex: false }),
                (0x81, Link::Down),
                (!0, Link::Down),
            ] {
                card.inner().set(STATUS, status);
                assert_eq!(driver.link(), link);
            }
        }
    }

    #[test]
    fn interrupts_are_masked_until_wanted_and_clear_by_reading() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            card.receive(&frame(1, 60));
            assert!(!card.inner().interrupt());
            driver.enable_interrupts(Cause::RECEIVED | Cause::LINK);
            assert!(card.inner().interrupt());
            assert!(driver.interrupt_cause().any(Cause::RECEIVED));
            assert!(!card.inner().interrupt());
            assert_eq!(driver.interrupt_cause(), Cause(0));
            driver.disable_interrupts();
            card.receive(&frame(1, 60));
            assert!(!card.inner().interrupt());
        }
    }

    #[test]
    fn a_frame_that_is_not_taken_stays() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            for n in 0..7 {
                card.receive(&frame(n, 60));
            }
            let mut seen = vec![];
            let mut room = 3;
            let mut sink = |f: &[u8]| {
                seen.push(f[20]);
                room -= 1;
                room >= 0
            };
            assert_eq!(driver.receive_while(99, &mut sink), 3);
            assert_eq!(driver.receive_while(99, &mut |_| false), 0);
            assert_eq!(driver.counters().received, 3, "what is not taken is not received");
            // Its buffer is not the card's: three are, and the fourth frame is missed.
            let taken = (0..4).filter(|n| card.receive(&frame(10 + n, 60))).count();
            assert_eq!((taken, driver.counters().missed), (3, 1));
            let got: Vec<u8> = drain(&mut driver, 99).iter().map(|f| f[20]).collect();
            assert_eq!(got, [3, 4, 5, 6, 10, 11, 12]);
            assert_eq!(seen, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn the_filter_lets_in_what_it_should() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            let guest = MacAddress([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
            let to = |mac: [u8; 6]| {
                let mut f = frame(1, 60);
                f[..6].copy_from_slice(&mac);
                f
            };
            let all = [Card::MAC, guest.0, [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 2, 2, 2, 2, 2]];
            let filter = |station, groups, everything| Filter { station, groups, everything };
            for (filter, wanted) in [
                (Filter::default(), [true, false, true, false, false]),
                (filter(Some(guest), false, false), [true, true, true, false, false]),
                (filter(Some(guest), true, false), [true, true, true, true, false]),
                (filter(None, false, true), [true; 5]),
                (Filter::default(), [true, false, true, false, false]),
            ] {
                driver.set_filter(filter);
                assert_eq!(all.map(|mac| card.receive(&to(mac))), wanted, "{filter:?}");
                assert_eq!(drain(&mut driver, 99).len(), wanted.iter().filter(|w| **w).count());
            }
        }
    }

    #[test]
    fn events_interrupt_if_wanted() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            let received = NetEvents { received: true, ..NetEvents::NONE };
            driver.set_events(received);
            driver.transmit(&frame(1, 60)).unwrap();
            driver.provoke();
            assert!(!card.inner().interrupt());
            assert_eq!(driver.take_events(), NetEvents { sent: true, link: true, ..NetEvents::NONE });
            card.receive(&frame(1, 60));
            assert!(card.inner().interrupt());
            assert_eq!(driver.take_events(), received);
            assert!(!card.inner().interrupt());
            driver.set_events(NetEvents { link: true, ..NetEvents::NONE });
            card.receive(&frame(1, 60));
            assert!(!card.inner().interrupt());
            driver.provoke();
            assert!(card.inner().interrupt());
            driver.take_events();
            driver.set_events(NetEvents { sent: true, ..NetEvents::NONE });
            driver.transmit(&frame(1, 60)).unwrap();
            assert!(card.inner().interrupt());
            assert_eq!(driver.take_events(), NetEvents { sent: true, ..NetEvents::NONE });
        }
    }

    #[test]
    fn collisions_are_counted() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            card.inner().set(ECOL, 2);
            card.inner().set(LATECOL, 3);
            assert_eq!(driver.counters().transmit_errors, 5);
            assert_eq!(driver.counters().transmit_errors, 5);
        }
    }

    #[test]
    fn missed_frames_are_counted_once_also_where_reading_does_not_clear() {
        for family in Family::ALL {
            for clears in [true, false] {
                let (card, mut driver) = start(family);
                card.inner().reading_clears = clears;
                for n in 1..4 {
                    let kept = (0..20).filter(|n| card.receive(&frame(*n, 60))).count();
                    assert_eq!(kept, 7);
                    let missed = u64::from(card.inner().missed_total);
                    assert_eq!(missed, 13 * n);
                    assert_eq!([(); 3].map(|()| driver.counters().missed), [missed; 3], "{clears}");
                    assert_eq!(drain(&mut driver, 99).len(), 7);
                }
            }
        }
    }

    #[test]
    fn a_stopped_card_does_nothing() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            driver.stop();
            card.receive(&frame(1, 60));
            driver.transmit(&frame(1, 60)).unwrap();
            assert!(card.inner().sent.is_empty());
            assert_eq!(drain(&mut driver, 9).len(), 0);
        }
    }

    #[test]
    fn a_card_that_never_says_done_is_full_and_silent_and_no_more() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            card.inner().forgetful = true;
            for n in 0..7 {
                driver.transmit(&frame(n, 60)).unwrap();
            }
            assert_eq!(driver.transmit(&frame(9, 60)), Err(TransmitError::Full));
            assert_eq!((driver.transmit_pending(), card.inner().sent.len()), (7, 7));
            for n in 0..9 {
                card.receive(&frame(n, 60));
            }
            assert_eq!(drain(&mut driver, 99), Vec::<Vec<u8>>::new());
            assert_eq!(driver.counters().missed, 2, "the ring has room for seven");
        }
    }

    #[test]
    fn a_link_that_comes_and_goes_is_told_each_time_and_loses_no_frame_of_the_ring() {
        for family in Family::ALL {
            let (card, mut driver) = start(family);
            driver.set_events(NetEvents { link: true, ..NetEvents::NONE });
            for n in 0..20 {
                card.inner().stalled = true;
                card.inner().link(false);
                assert!(card.inner().interrupt());
                assert!(driver.take_events().link && driver.link() == Link::Down);
                driver.transmit(&frame(n, 60)).unwrap();
                card.inner().link(true);
                card.inner().stalled = false;
                card.run_transmit();
                assert!(card.inner().interrupt());
                assert!(driver.take_events().link && driver.link() != Link::Down);
                assert!(!card.inner().interrupt());
            }
            let sent: Vec<u8> = card.inner().sent.iter().map(|f| f[20]).collect();
            assert_eq!(sent, (0..20).collect::<Vec<u8>>());
        }
    }

    proptest! {
        /// Whatever comes in whatever batches: nothing is lost but what the card counts, nothing is altered or reordered.
        #[test]
        fn all_frames_arrive_or_are_counted(
            steps in proptest::collection::vec((0usize..12, 0usize..12, 14usize..1514), 1..60),
            family in families(),
        ) {
            let (card, mut driver) = start(family);
            let (mut offered, mut got) = (vec![], vec![]);
            for (n, (arrive, budget, len)) in steps.into_iter().enumerate() {
                for _ in 0..arrive {
                    let f = frame(n as u8, len);
                    if card.receive(&f) {
                        offered.push(f);
                    }
                }
                got.extend(drain(&mut driver, budget));
            }
            got.extend(drain(&mut driver, 99));
            prop_assert_eq!(got, offered);
            prop_assert_eq!(driver.counters().missed, u64::from(card.inner().missed_total));
        }

        /// Whatever a broken card writes into its descriptors, the driver neither panics nor leaves its buffers.
        #[test]
        fn any_descriptor_is_survived(
            words in proptest::collection::vec(any::<u64>(), 1..40),
            family in families(),
        ) {
            let (card, mut driver) = start(family);
            for word in words {
                card.write_raw(word);
                let _ = drain(&mut driver, 3);
            }
        }
    }
}
