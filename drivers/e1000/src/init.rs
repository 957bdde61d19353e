//! From an unknown state to a running card (SDM 14; 82574 datasheet 4.6).

use crate::descriptor::Received;
use crate::register::*;
use crate::ring::Ring;
use crate::{E1000, eeprom};
use core::fmt;
use hal::{Clock, DmaAllocator, DmaBuffer, DmaError, MacAddress, Registers};

/// How long a reset may take, in nanoseconds.
const RESET_TIMEOUT_NS: u64 = 100_000_000;
/// How long the card reloads its EEPROM after a reset, in nanoseconds (SDM 14.3: some ms).
const RELOAD_NS: u64 = 5_000_000;
/// How long pending DMA may take to end, in nanoseconds (82574 datasheet 3.1.3.10).
const MASTER_TIMEOUT_NS: u64 = 80_000_000;

/// The least time between two interrupts, in units of 256 ns: 20 us, which costs a guest's round trip little and a flood
/// of frames 50,000 exits a second at most.
const THROTTLE: u32 = 78;

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
    /// Neither the receive address register nor the EEPROM has a station address.
    NoAddress,
    /// No memory for the rings.
    Memory(DmaError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(n) => {
                write!(f, "its register window has {n:#x} bytes, {WINDOW:#x} are needed: check BAR 0")
            }
            Self::Absent => {
                write!(f, "its registers read as all ones: enable memory decoding, or it is gone")
            }
            Self::RingSize(n) => {
                write!(f, "a ring of {n} descriptors: the size must be a multiple of 8 in 8..=4096")
            }
            Self::Reset => write!(f, "it does not come out of reset"),
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

impl<R: Registers, D: DmaBuffer> E1000<R, D> {
    /// Resets the card and starts it, with interrupts masked. Memory decoding and bus mastering must be on.
    pub fn new(
        registers: R,
        memory: &mut impl DmaAllocator<Buffer = D>,
        clock: &impl Clock,
        family: Family,
        rings: Rings,
    ) -> Result<Self, InitError> {
        if registers.len() < WINDOW {
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
        reset(&registers, clock, family)?;
        let mac = station_address(&registers, clock, family).ok_or(InitError::NoAddress)?;
        let receive = Ring::new(memory, rings.receive)?;
        let transmit = Ring::new(memory, rings.transmit)?;
        let mut card = E1000::assemble(registers, mac, receive, transmit);
        card.set_up_link();
        card.set_up_filter();
        card.set_up_receive();
        card.set_up_transmit(family);
        Ok(card)
    }

    /// Link up, speed and duplex from the PHY; no flow control (SDM 14.3, 14.5.6).
    fn set_up_link(&mut self) {
        let clear = CTRL_LRST | CTRL_ILOS | CTRL_PHY_RST | CTRL_VME | CTRL_GIO_MASTER_DISABLE;
        self.registers.modify_u32(CTRL, clear, CTRL_SLU | CTRL_ASDE | CTRL_FD);
        for register in [FCAL, FCAH, FCT, FCTTV] {
            self.registers.write_u32(register, 0);
        }
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
    fn set_up_receive(&mut self) {
        for index in 0..self.receive.count() {
            self.receive.arm(index, 0);
            debug_assert!(!Received(self.receive.word(index)).done());
        }
        self.registers.write_u32(RDBAL, self.receive.base() as u32);
        self.registers.write_u32(RDBAH, (self.receive.base() >> 32) as u32);
        self.registers.write_u32(RDLEN, self.receive.bytes());
        self.registers.write_u32(RDTR, 0);
        // Checksums are for whoever reads the frame: the card computes none.
        self.registers.write_u32(RXCSUM, 0);
        self.registers.write_u32(ITR, THROTTLE);
        self.registers.write_u32(RDH, 0);
        self.registers.write_u32(RDT, 0);
        self.registers.write_u32(RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
        self.registers.write_u32(RDT, self.receive.count() as u32 - 1);
    }

    /// SDM 14.5.
    fn set_up_transmit(&mut self, family: Family) {
        self.registers.write_u32(TDBAL, self.transmit.base() as u32);
        self.registers.write_u32(TDBAH, (self.transmit.base() >> 32) as u32);
        self.registers.write_u32(TDLEN, self.transmit.bytes());
        self.registers.write_u32(TDH, 0);
        self.registers.write_u32(TDT, 0);
        self.registers.write_u32(TIPG, family.tipg());
        if family == Family::I82574 {
            self.registers.modify_u32(TXDCTL, 0, TXDCTL_82574);
        }
        self.registers.write_u32(TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | TCTL_COLD);
    }
}

/// Stops all DMA and interrupts, then resets. The explicit stops matter: firmware's network boot leaves rings running,
/// and not every emulation of the card stops them on reset.
fn reset(registers: &impl Registers, clock: &impl Clock, family: Family) -> Result<(), InitError> {
    registers.write_u32(IMC, !0);
    registers.write_u32(RCTL, 0);
    registers.write_u32(TCTL, TCTL_PSP);
    if family == Family::I82574 {
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
    registers.write_u32(IMC, !0);
    registers.read_u32(ICR);
    Ok(())
}

/// The address that the card loaded into its first receive address register, else the EEPROM's.
fn station_address(registers: &impl Registers, clock: &impl Clock, family: Family) -> Option<MacAddress> {
    let (low, high) = (registers.read_u32(RAL0), registers.read_u32(RAH0));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let loaded = MacAddress([a, b, c, d, e, f]);
    if high & RAH_AV != 0 && loaded.is_station() {
        return Some(loaded);
    }
    eeprom::mac(registers, clock, family).map(MacAddress).filter(|mac| mac.is_station())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Card;
    use hal::DmaRequest;
    use std::string::ToString;

    fn error(card: &Card, rings: Rings) -> InitError {
        card.driver(rings).err().expect("this card must be refused")
    }

    #[test]
    fn starts_with_what_the_manual_wants() {
        for family in [Family::I8254x, Family::I82574] {
            let card = Card::new(family);
            let driver = card.driver(Rings { receive: 16, transmit: 8 }).unwrap();
            assert_eq!(driver.mac, MacAddress(Card::MAC));
            let model = card.inner();
            assert!(model.was_reset);
            assert_eq!(model.get(RDLEN), 256);
            assert_eq!((model.get(RDH), model.get(RDT)), (0, 15));
            assert_eq!(model.get(RDBAH), (hal::fake::FakeMemory::BASE >> 32) as u32);
            assert_eq!(model.get(RCTL), 0x0400_8002);
            assert_eq!(model.get(TCTL), 0x0004_00fa);
            assert_eq!(model.get(RAL0), u32::from_le_bytes([0x52, 0x54, 0, 0x12]));
            assert_eq!(model.get(RAH0), RAH_AV | 0x5634);
            assert_eq!(model.get(CTRL) & (CTRL_SLU | CTRL_PHY_RST | CTRL_GIO_MASTER_DISABLE), CTRL_SLU);
            assert_eq!(model.get(TXDCTL) & TXDCTL_82574 != 0, family == Family::I82574);
            assert_eq!(model.mask, 0);
        }
    }

    #[test]
    fn the_address_comes_from_the_eeprom_if_not_loaded() {
        for family in [Family::I8254x, Family::I82574] {
            let card = Card::new(family);
            card.inner().loads_address = false;
            assert_eq!(card.driver(Rings::default()).unwrap().mac, MacAddress(Card::MAC));
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let rings = Rings { receive: 16, transmit: 16 };
        let card = Card::new(Family::I8254x);
        for size in [0, 4, 12, 4104] {
            assert_eq!(error(&card, Rings { receive: size, ..rings }), InitError::RingSize(size));
            assert_eq!(error(&card, Rings { transmit: size, ..rings }), InitError::RingSize(size));
        }
        card.memory.fail_after(3);
        let request = DmaRequest::new(16 * 2048, 4096);
        assert_eq!(error(&card, rings), InitError::Memory(DmaError::Exhausted(request)));

        let card = Card::new(Family::I8254x);
        card.inner().stuck_in_reset = true;
        assert_eq!(error(&card, rings), InitError::Reset);

        let card = Card::new(Family::I8254x);
        card.inner().loads_address = false;
        card.inner().eeprom_answers = false;
        assert_eq!(error(&card, rings), InitError::NoAddress);

        let card = Card::new(Family::I8254x);
        card.inner().loads_address = false;
        card.inner().eeprom = [0xffff; 64];
        assert_eq!(error(&card, rings), InitError::NoAddress);

        let card = Card::new(Family::I8254x);
        card.inner().absent = true;
        assert_eq!(error(&card, rings), InitError::Absent);
        assert!(InitError::Absent.to_string().contains("memory decoding"));
    }

    #[test]
    fn a_card_left_running_by_firmware_is_stopped_first() {
        let card = Card::new(Family::I8254x);
        // Rings in memory that is not there any more: the model panics on a wild DMA.
        card.inner().leave_running();
        let _driver = card.driver(Rings::default()).unwrap();
        card.receive(&[0xff; 60]);
    }

    #[test]
    fn known_cards() {
        assert_eq!(Family::of(0x8086, 0x100e), Some(Family::I8254x));
        assert_eq!(Family::of(0x8086, 0x100f), Some(Family::I8254x));
        assert_eq!(Family::of(0x8086, 0x10d3), Some(Family::I82574));
        assert_eq!(Family::of(0x8086, 0x1533), None);
        assert_eq!(Family::of(0x1af4, 0x100e), None);
    }
}
