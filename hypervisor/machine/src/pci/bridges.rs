//! The board's two functions without ports and memory: the host bridge (Intel 82441FX, the "440FX" PMC) and the ISA bridge
//! (Intel 82371SB, PIIX3), as far as firmware and kernels use them.

use super::header::{Header, REGISTERS, Registers, command, register};

/// Device number of the ISA bridge; the host bridge is 0.
pub const ISA_DEVICE: u8 = 1;

/// The four routing registers of the ISA bridge, PIRQRCA to PIRQRCD, at 60h.
pub const ROUTES: usize = 0x60 / 4;
/// A route that leads nowhere.
const UNROUTED: u32 = 0x80;
/// Interrupts of the board that other devices drive, or that the bridge cannot reach: PIT, keyboard, cascade, COM1, RTC, SCI,
/// coprocessor. A route to one of those is not wired.
const NOT_WIRED: u16 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8 | 1 << 9 | 1 << 13;

/// The host bridge after reset. The subsystem tells firmware that this is a virtual board with a fw_cfg device.
const HOST: Registers = {
    let mut all = [0; REGISTERS];
    all[register::IDENTITY] = 0x1237_8086;
    all[register::COMMAND] = command::MEMORY | command::MASTER;
    all[register::CLASS] = 0x0600_0002;
    all[register::SUBSYSTEM] = 0x1100_1af4;
    // SMRAM at 72h: closed, at A0000h.
    all[0x70 / 4] = 0x0002_0000;
    all
};

/// The memory attributes PAM0 to PAM6 at 59h to 5Fh can be written; memory there is RAM whatever they say.
const HOST_WRITABLE: Registers = {
    let mut all = [0; REGISTERS];
    all[0x58 / 4] = 0xffff_ff00;
    all[0x5c / 4] = 0xffff_ffff;
    all
};

/// The ISA bridge after reset.
const ISA: Registers = {
    let mut all = [0; REGISTERS];
    all[register::IDENTITY] = 0x7000_8086;
    all[register::COMMAND] = command::IO | command::MEMORY | command::MASTER | 0x0200_0000;
    all[register::CLASS] = 0x0601_0000;
    all[register::SUBSYSTEM] = 0x1100_1af4;
    all[ROUTES] = UNROUTED * 0x0101_0101;
    all
};

const ISA_WRITABLE: Registers = {
    let mut all = [0; REGISTERS];
    all[ROUTES] = 0x8f8f_8f8f;
    all
};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bridge {
    Host,
    Isa,
}

impl Bridge {
    const fn tables(self) -> (&'static Registers, &'static Registers) {
        match self {
            Self::Host => (&HOST, &HOST_WRITABLE),
            Self::Isa => (&ISA, &ISA_WRITABLE),
        }
    }

    /// Its configuration space after reset.
    pub(super) const fn reset(self) -> Header {
        Header { registers: *self.tables().0 }
    }

    pub(super) fn write(self, header: &mut Header, register: usize, value: u32, lanes: u32) {
        header.write(register, value, lanes, self.tables().1);
    }

    pub(super) fn is_sound(self, header: &Header) -> bool {
        header.is_sound(self.tables().0, self.tables().1)
    }
}

/// The ISA interrupt that this one of PIRQA to PIRQD leads to.
pub(super) fn route(isa: &Header, pirq: usize) -> Option<u8> {
    let route = isa.get(ROUTES).to_le_bytes()[pirq % 4];
    let irq = route & 0xf;
    (u32::from(route) & UNROUTED == 0 && NOT_WIRED & 1 << irq == 0).then_some(irq)
}
