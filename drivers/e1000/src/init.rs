//! From an unknown state to a running card (SDM 14; 82574 datasheet 4.6; 82576 datasheet 4.5).

use crate::chip::{Chip, Family};
use crate::register::*;
use crate::ring::Ring;
use crate::{Nic, eeprom, phy};
use core::fmt;
use hal::{Clock, DmaAllocator, DmaBuffer, DmaError, MacAddress, Registers};

/// How long a reset may take, in nanoseconds.
const RESET_TIMEOUT_NS: u64 = 100_000_000;
/// How long the card reloads its EEPROM after a reset, in nanoseconds (SDM 14.3: some ms).
const RELOAD_NS: u64 = 5_000_000;
/// How long the card may take beyond that to say that it has read it; one without an EEPROM never says so.
const AUTO_READ_TIMEOUT_NS: u64 = 20_000_000;
/// Words of the EEPROM by which the station addresses of a chip's cards are apart, but for the first two (82576 datasheet 6.2).
const EEPROM_PORT_WORDS: u16 = 0x40;
/// How long pending DMA may take to end, in nanoseconds (82574 datasheet 3.1.3.10).
const MASTER_TIMEOUT_NS: u64 = 80_000_000;

/// Sizes of the rings, in descriptors: multiples of 8, from 8 to 4096. Each costs 2 KiB of buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Receive descriptors.
    pub receive: usize,
    /// Transmit descriptors.
    pub transmit: usize,
}

impl Default for Rings {
    /// 256 and 128: a burst of 3 ms at gigabit speed.
    fn default() -> Self {
        Self { receive: 256, transmit: 128 }
    }
}

/// Why a card cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// The register window has only so many bytes.
    Window(usize),
    /// All registers read as ones: the card is not there, or its memory decoding is off.
    Absent,
    /// A ring of a size that the card cannot have.
    RingSize(usize),
    /// The reset does not end.
    Reset,
    /// A queue does not start.
    Queue,
    /// Neither the receive address register nor the EEPROM has a station address.
    NoAddress,
    /// No memory for the rings.
    Memory(DmaError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(n) => {
                write!(f, "its register window has only {n:#x} bytes: check BAR 0")
            }
            Self::Absent => {
                write!(f, "its registers read as all ones: enable memory decoding, or it is gone")
            }
            Self::RingSize(n) => {
                write!(f, "a ring of {n} descriptors: the size must be a multiple of 8 in 8..=4096")
            }
            Self::Reset => write!(f, "it does not come out of reset"),
            Self::Queue => write!(f, "one of its queues does not start"),
            Self::NoAddress => write!(f, "it has no station address, neither in RAL/RAH nor in its EEPROM"),
            Self::Memory(e) => write!(f, "{e}"),
        }
    }
}

impl core::error::Error for InitError {}

impl From<DmaError> for InitError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

impl<R: Registers, D: DmaBuffer> Nic<R, D> {
    /// Resets the card and starts it, with interrupts masked. Memory decoding and bus mastering must be on.
    pub fn new(
        registers: R,
        memory: &mut impl DmaAllocator<Buffer = D>,
        clock: &impl Clock,
        family: Family,
        rings: Rings,
    ) -> Result<Self, InitError> {
        let chip = family.chip();
        if registers.len() < chip.window {
            return Err(InitError::Window(registers.len()));
        }
        for size in [rings.receive, rings.transmit] {
            if !(8..=4096).contains(&size) || !size.is_multiple_of(8) {
                return Err(InitError::RingSize(size));
            }
        }
        if registers.read_u32(STATUS) == !0 {
            return Err(InitError::Absent);
        }
        reset(&registers, clock, chip)?;
        let mac = station_address(&registers, clock, chip).ok_or(InitError::NoAddress)?;
        let receive = Ring::new(memory, rings.receive)?;
        let transmit = Ring::new(memory, rings.transmit)?;
        let mut card = Nic::assemble(registers, family, mac, receive, transmit);
        card.set_up_link(clock);
        card.set_up_filter();
        (chip.set_up)(&card.registers);
        let (throttle, interval) = chip.interrupts.throttle;
        card.registers.write_u32(throttle, interval);
        card.set_up_receive(clock)?;
        card.set_up_transmit(clock)?;
        Ok(card)
    }

    /// Link up, speed and duplex from the PHY; no flow control (SDM 14.3, 14.5.6).
    fn set_up_link(&mut self, clock: &impl Clock) {
        let clear = CTRL_LRST
            | CTRL_ILOS
            | CTRL_FRCSPD
            | CTRL_FRCDPX
            | CTRL_PHY_RST
            | CTRL_VME
            | CTRL_GIO_MASTER_DISABLE;
        self.registers.modify_u32(CTRL, clear, CTRL_SLU | self.chip.link);
        for register in [FCAL, FCAH, FCT, FCTTV] {
            self.registers.write_u32(register, 0);
        }
        if self.chip.express {
            self.registers.modify_u32(CTRL_EXT, 0, CTRL_EXT_DRV_LOAD);
        }
        phy::wake(&self.registers, clock, self.chip.phy, self.chip.negotiate);
    }

    /// Our own address and broadcast; no multicast (SDM 14.4).
    fn set_up_filter(&mut self) {
        self.set_receive_address(RAL0, RAH0, Some(self.mac));
        self.set_receive_address(RAL1, RAH1, None);
        for word in 0..MTA_WORDS {
            self.registers.write_u32(MTA + 4 * word, 0);
        }
    }

    /// SDM 14.4. All but one descriptor are the card's: with all, head = tail would mean none.
    fn set_up_receive(&mut self, clock: &impl Clock) -> Result<(), InitError> {
        for index in 0..self.receive.count() {
            self.receive.arm(index, 0);
        }
        let queue = self.chip.receive;
        self.registers.write_u32(queue.base_low(), self.receive.base() as u32);
        self.registers.write_u32(queue.base_high(), (self.receive.base() >> 32) as u32);
        self.registers.write_u32(queue.length(), self.receive.bytes());
        // Checksums are for whoever reads the frame: the card computes none.
        self.registers.write_u32(RXCSUM, 0);
        self.registers.write_u32(queue.head(), 0);
        self.registers.write_u32(queue.tail(), 0);
        if !(self.chip.start_receive)(&self.registers, clock) {
            return Err(InitError::Queue);
        }
        self.registers.write_u32(RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
        self.registers.write_u32(queue.tail(), self.receive.count() as u32 - 1);
        Ok(())
    }

    /// SDM 14.5.
    fn set_up_transmit(&mut self, clock: &impl Clock) -> Result<(), InitError> {
        let queue = self.chip.transmit;
        self.registers.write_u32(queue.base_low(), self.transmit.base() as u32);
        self.registers.write_u32(queue.base_high(), (self.transmit.base() >> 32) as u32);
        self.registers.write_u32(queue.length(), self.transmit.bytes());
        self.registers.write_u32(queue.head(), 0);
        self.registers.write_u32(queue.tail(), 0);
        if let Some(gap) = self.chip.tipg {
            self.registers.write_u32(TIPG, gap);
        }
        if !(self.chip.start_transmit)(&self.registers, clock) {
            return Err(InitError::Queue);
        }
        self.registers.write_u32(TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | self.chip.tctl);
        Ok(())
    }
}

/// Stops all DMA and interrupts, then resets. The explicit stops matter: firmware's network boot leaves rings running,
/// and not every emulation of the card stops them on reset.
fn reset(registers: &impl Registers, clock: &impl Clock, chip: &Chip) -> Result<(), InitError> {
    registers.write_u32(chip.interrupts.hold_back, !0);
    registers.write_u32(RCTL, 0);
    registers.write_u32(TCTL, TCTL_PSP);
    (chip.quiesce)(registers);
    if chip.express {
        registers.modify_u32(CTRL, 0, CTRL_GIO_MASTER_DISABLE);
        // If it does not end, the reset ends it: no error (82574 datasheet 3.1.3.10).
        clock.wait_until(MASTER_TIMEOUT_NS, || registers.read_u32(STATUS) & STATUS_GIO_MASTER == 0);
    }
    // Pending DMA of the 8254x: "wait 10 ms" is what SDM 14.3 has for everything before the reset.
    clock.delay_ns(RELOAD_NS);
    registers.modify_u32(CTRL, 0, CTRL_RST);
    clock.delay_ns(RELOAD_NS);
    if !clock.wait_until(RESET_TIMEOUT_NS, || registers.read_u32(CTRL) & CTRL_RST == 0) {
        return Err(InitError::Reset);
    }
    if chip.express {
        clock.wait_until(AUTO_READ_TIMEOUT_NS, || registers.read_u32(EEC) & EEC_AUTO_RD != 0);
    }
    registers.write_u32(chip.interrupts.hold_back, !0);
    (chip.quiesce)(registers);
    registers.read_u32(chip.interrupts.cause);
    Ok(())
}

/// The address that the card loaded into its first receive address register, else the EEPROM's.
fn station_address(registers: &impl Registers, clock: &impl Clock, chip: &Chip) -> Option<MacAddress> {
    let (low, high) = (registers.read_u32(RAL0), registers.read_u32(RAH0));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let loaded = MacAddress([a, b, c, d, e, f]);
    if high & RAH_AV != 0 && loaded.is_station() {
        return Some(loaded);
    }
    let first = match registers.read_u32(STATUS) >> STATUS_PORT_SHIFT & 3 {
        port @ 1.. if chip.express => EEPROM_PORT_WORDS * (port as u16 + 1),
        _ => 0,
    };
    eeprom::mac(registers, clock, chip.eeprom, first).map(MacAddress).filter(|mac| mac.is_station())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::igb;
    use crate::model::Card;
    use hal::DmaRequest;
    use std::string::ToString;

    fn error(card: &Card, rings: Rings) -> InitError {
        card.driver(rings).err().expect("this card must be refused")
    }

    #[test]
    fn starts_with_what_the_manual_wants() {
        for family in Family::ALL {
            let card = Card::new(family);
            let driver = card.driver(Rings { receive: 16, transmit: 8 }).unwrap();
            assert_eq!(driver.mac, MacAddress(Card::MAC));
            let (model, chip) = (card.inner(), family.chip());
            assert!(model.was_reset);
            assert_eq!(model.get(chip.receive.length()), 256);
            assert_eq!((model.get(chip.receive.head()), model.get(chip.receive.tail())), (0, 15));
            assert_eq!(model.get(chip.receive.base_high()), (hal::fake::FakeMemory::BASE >> 32) as u32);
            assert_eq!(model.get(RCTL), 0x0400_8002);
            assert_eq!(model.get(TCTL), if family == Family::Igb { 0x0000_00fa } else { 0x0004_00fa });
            assert_eq!(model.get(RAL0), u32::from_le_bytes([0x52, 0x54, 0, 0x12]));
            assert_eq!(model.get(RAH0), RAH_AV | 0x5634);
            let ctrl = model.get(CTRL);
            assert_eq!(ctrl & (CTRL_SLU | CTRL_PHY_RST | CTRL_FRCSPD | CTRL_GIO_MASTER_DISABLE), CTRL_SLU);
            assert_eq!(model.get(CTRL_EXT) & CTRL_EXT_DRV_LOAD != 0, family != Family::E1000);
            assert_eq!(model.mask, 0);
        }
    }

    #[test]
    fn each_family_gets_what_only_it_has() {
        let card = Card::new(Family::E1000e);
        let _driver = card.driver(Rings::default()).unwrap();
        let control = card.inner().get(Family::E1000e.chip().transmit.control());
        assert_ne!(control & crate::e1000e::TXDCTL_MUST_BE_ONE, 0);
        let card = Card::new(Family::Igb);
        card.inner().set(igb::UTA + 4 * 127, 5);
        let _driver = card.driver(Rings::default()).unwrap();
        let (model, chip) = (card.inner(), Family::Igb.chip());
        assert_eq!(model.get(chip.receive.split()), 1 << 25 | 2, "advanced, one buffer of 2 KiB");
        assert_ne!(model.get(chip.receive.control()) & igb::DCTL_ENABLE, 0);
        assert_ne!(model.get(chip.transmit.control()) & igb::DCTL_ENABLE, 0);
        assert_eq!((model.get(igb::GPIE), model.get(igb::IVAR0)), (igb::GPIE_NSICR, igb::IVAR0_QUEUE_0));
        assert_eq!(model.get(igb::UTA + 4 * 127), 0, "no reset clears the unicast table");
    }

    #[test]
    fn a_sleeping_phy_is_woken_and_another_left_alone() {
        for family in Family::ALL {
            for (control, wanted) in [
                (0x1140, 0x1140),
                (0x1140 | phy::POWER_DOWN, 0x1340),
                (0x1140 | phy::ISOLATE, 0x1340),
                (phy::LOOPBACK | phy::NEGOTIATE, 0x1340),
                (0x2100, 0x1340),
            ] {
                let card = Card::new(family);
                card.inner().phy = Some(control);
                let _driver = card.driver(Rings::default()).unwrap();
                let wanted = if family == Family::Igb { 0x1340 } else { wanted };
                assert_eq!(card.inner().phy, Some(wanted), "{family:?} {control:#x}");
                // Firmware may have the PHY again.
                assert_eq!(card.inner().get(EXTCNF_CTRL) & 1 << 5, 0);
                assert_eq!(card.inner().get(SW_FW_SYNC), 0);
                assert_eq!(card.inner().get(SWSM) & 3, 0);
            }
        }
    }

    #[test]
    fn a_phy_that_does_not_answer_or_that_firmware_keeps_is_no_obstacle() {
        for family in Family::ALL {
            let card = Card::new(family);
            card.inner().phy = None;
            card.driver(Rings::default()).unwrap();
        }
        let card = Card::new(Family::Igb);
        card.inner().phy = Some(phy::POWER_DOWN);
        card.inner().set(SW_FW_SYNC, 1 << 17);
        card.driver(Rings::default()).unwrap();
        assert_eq!(card.inner().phy, Some(phy::POWER_DOWN));
        // The semaphore's holder is gone: taken all the same.
        let card = Card::new(Family::Igb);
        card.inner().phy = Some(phy::POWER_DOWN);
        card.inner().set(SWSM, 1);
        card.driver(Rings::default()).unwrap();
        assert_eq!(card.inner().phy, Some(0x1340));
    }

    #[test]
    fn the_address_comes_from_the_eeprom_if_not_loaded() {
        for family in Family::ALL {
            let card = Card::new(family);
            card.inner().loads_address = false;
            assert_eq!(card.driver(Rings::default()).unwrap().mac, MacAddress(Card::MAC));
        }
        // The fourth card of a chip, and its words of the EEPROM.
        let card = Card::new(Family::Igb);
        card.inner().loads_address = false;
        card.inner().set(STATUS, 0x83 | 3 << STATUS_PORT_SHIFT);
        card.inner().eeprom.resize(0x110, 0);
        card.inner().eeprom[0x100..0x103].copy_from_slice(&[0x5452, 0x1100, 0x3322]);
        let mac = card.driver(Rings::default()).unwrap().mac;
        assert_eq!(mac, MacAddress([0x52, 0x54, 0, 0x11, 0x22, 0x33]));
    }

    #[test]
    fn a_queue_that_does_not_start_is_told() {
        let card = Card::new(Family::Igb);
        card.inner().queues_start = false;
        assert_eq!(error(&card, Rings::default()), InitError::Queue);
    }

    #[test]
    fn a_window_that_is_too_small_is_told() {
        let card = Card::new(Family::Igb);
        card.inner().window = 0x8000;
        assert_eq!(error(&card, Rings::default()), InitError::Window(0x8000));
    }

    #[test]
    fn faults_are_told_apart() {
        let rings = Rings { receive: 16, transmit: 16 };
        let card = Card::new(Family::E1000);
        for size in [0, 4, 12, 4104] {
            assert_eq!(error(&card, Rings { receive: size, ..rings }), InitError::RingSize(size));
            assert_eq!(error(&card, Rings { transmit: size, ..rings }), InitError::RingSize(size));
        }
        card.memory.fail_after(3);
        let request = DmaRequest::new(16 * 2048, 4096);
        assert_eq!(error(&card, rings), InitError::Memory(DmaError::Exhausted(request)));

        let card = Card::new(Family::E1000);
        card.inner().stuck_in_reset = true;
        assert_eq!(error(&card, rings), InitError::Reset);

        let card = Card::new(Family::E1000);
        card.inner().loads_address = false;
        card.inner().eeprom_answers = false;
        assert_eq!(error(&card, rings), InitError::NoAddress);

        let card = Card::new(Family::E1000);
        card.inner().loads_address = false;
        card.inner().eeprom = std::vec![0xffff; 64];
        assert_eq!(error(&card, rings), InitError::NoAddress);

        let card = Card::new(Family::E1000);
        card.inner().absent = true;
        assert_eq!(error(&card, rings), InitError::Absent);
        assert!(InitError::Absent.to_string().contains("memory decoding"));
    }

    #[test]
    fn a_card_left_running_by_firmware_is_stopped_first() {
        for family in Family::ALL {
            let card = Card::new(family);
            // Rings in memory that is not there any more: the model panics on a wild DMA.
            card.inner().leave_running();
            let _driver = card.driver(Rings::default()).unwrap();
            assert!(card.receive(&[0xff; 60]));
        }
    }
}
