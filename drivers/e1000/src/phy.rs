//! The PHY, through the management interface (SDM 13.4.8; 82576 datasheet 8.2.4): it negotiates by itself after a reset. What
//! is done here is to wake one that another driver has left powered down, isolated, looped back or with a forced speed, and
//! to have it negotiate anew where the family wants that.

use crate::chip::PhyOwner;
use crate::register::{EXTCNF_CTRL, MDIC, STATUS, SW_FW_SYNC, SWSM};
use hal::{Clock, Registers};

/// Address of the PHY on the chip.
const PHY: u32 = 1 << 21;
/// MDIC: operations, and the card's answers.
const WRITE: u32 = 1 << 26;
const READ: u32 = 2 << 26;
const READY: u32 = 1 << 28;
const ERROR: u32 = 1 << 30;
/// How long an access may take, in nanoseconds: one takes 64 us at most.
const ACCESS_TIMEOUT_NS: u64 = 10_000_000;
/// How long firmware may keep the PHY for itself, in nanoseconds.
const OWNER_TIMEOUT_NS: u64 = 100_000_000;

/// The control register (IEEE 802.3, 22.2.4.1), and its bits.
const CONTROL: u32 = 0;
pub const LOOPBACK: u16 = 1 << 14;
pub const NEGOTIATE: u16 = 1 << 12;
pub const POWER_DOWN: u16 = 1 << 11;
pub const ISOLATE: u16 = 1 << 10;
const RESTART: u16 = 1 << 9;
const FULL_DUPLEX: u16 = 1 << 8;
const SPEED_1000: u16 = 1 << 6;

/// EXTCNF_CTRL: software has the PHY.
const OWNED: u32 = 1 << 5;
/// SWSM: taken by reading a 0; and firmware is kept out.
const SMBI: u32 = 1 << 0;
const SWESMBI: u32 = 1 << 1;

/// Has the PHY negotiate: unless it does, or `anew` in any case. An answer that does not come leaves the PHY as firmware has set it up.
pub fn wake(registers: &dyn Registers, clock: &dyn Clock, owner: PhyOwner, anew: bool) {
    if !take(registers, clock, owner) {
        return;
    }
    let asleep = LOOPBACK | POWER_DOWN | ISOLATE;
    if let Some(control) = access(registers, clock, READ | CONTROL << 16)
        && (anew || control & asleep != 0 || control & NEGOTIATE == 0)
    {
        let value = NEGOTIATE | RESTART | FULL_DUPLEX | SPEED_1000;
        access(registers, clock, WRITE | CONTROL << 16 | u32::from(value));
    }
    give_back(registers, owner);
}

/// One access: what the PHY answers, `None` if it does not.
fn access(registers: &dyn Registers, clock: &dyn Clock, command: u32) -> Option<u16> {
    registers.write_u32(MDIC, command | PHY);
    let mut value = 0;
    let answered = (&clock).wait_until(ACCESS_TIMEOUT_NS, || {
        value = registers.read_u32(MDIC);
        value & READY != 0
    });
    (answered && value & ERROR == 0 && value != !0).then_some(value as u16)
}

/// The bit of this port's PHY among the owners; firmware's is 16 further up.
fn port_bit(registers: &dyn Registers) -> u32 {
    match registers.read_u32(STATUS) >> 2 & 3 {
        0 => 1 << 1,
        1 => 1 << 2,
        2 => 1 << 5,
        _ => 1 << 6,
    }
}

fn take(registers: &dyn Registers, clock: &dyn Clock, owner: PhyOwner) -> bool {
    match owner {
        PhyOwner::Us => true,
        PhyOwner::Ownership => (&clock).wait_until(OWNER_TIMEOUT_NS, || {
            registers.modify_u32(EXTCNF_CTRL, 0, OWNED);
            registers.read_u32(EXTCNF_CTRL) & OWNED != 0
        }),
        PhyOwner::Semaphore => {
            let bit = port_bit(registers);
            (&clock).wait_until(OWNER_TIMEOUT_NS, || {
                if !lock(registers, clock) {
                    return false;
                }
                let owners = registers.read_u32(SW_FW_SYNC);
                let free = owners & (bit | bit << 16) == 0;
                if free {
                    registers.write_u32(SW_FW_SYNC, owners | bit);
                }
                unlock(registers);
                free
            })
        }
    }
}

fn give_back(registers: &dyn Registers, owner: PhyOwner) {
    match owner {
        PhyOwner::Us => {}
        PhyOwner::Ownership => {
            registers.modify_u32(EXTCNF_CTRL, OWNED, 0);
        }
        PhyOwner::Semaphore => {
            // This processor alone drives the card: nobody else's bit can change in between but firmware's, which
            // waits for the semaphore.
            registers.modify_u32(SW_FW_SYNC, port_bit(registers), 0);
        }
    }
}

/// The semaphore that guards the register of owners (82576 datasheet 4.7.1).
fn lock(registers: &dyn Registers, clock: &dyn Clock) -> bool {
    if !(&clock).wait_until(ACCESS_TIMEOUT_NS, || registers.read_u32(SWSM) & SMBI == 0) {
        // Its holder has died: we are the only driver. The next attempt finds it free.
        unlock(registers);
        return false;
    }
    let got = (&clock).wait_until(ACCESS_TIMEOUT_NS, || {
        registers.modify_u32(SWSM, 0, SWESMBI);
        registers.read_u32(SWSM) & SWESMBI != 0
    });
    if !got {
        unlock(registers);
    }
    got
}

fn unlock(registers: &dyn Registers) {
    registers.modify_u32(SWSM, SMBI | SWESMBI, 0);
}
