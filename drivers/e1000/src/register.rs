//! Register offsets and bits that the driver uses (SDM 13; 82574 datasheet 10).

/// Device control.
pub const CTRL: usize = 0x0000;
/// Device status.
pub const STATUS: usize = 0x0008;
/// EEPROM read.
pub const EERD: usize = 0x0014;
/// Flow control address, low and high, and type.
pub const FCAL: usize = 0x0028;
pub const FCAH: usize = 0x002c;
pub const FCT: usize = 0x0030;
/// Interrupt cause, read to clear.
pub const ICR: usize = 0x00c0;
/// Interrupt throttling: the least time between interrupts, in units of 256 ns.
pub const ITR: usize = 0x00c4;
/// Interrupt cause set: as if it had happened.
pub const ICS: usize = 0x00c8;
/// Interrupt mask set, and clear.
pub const IMS: usize = 0x00d0;
pub const IMC: usize = 0x00d8;
/// Receive control.
pub const RCTL: usize = 0x0100;
/// Flow control transmit timer.
pub const FCTTV: usize = 0x0170;
/// Transmit control, and inter-packet gap.
pub const TCTL: usize = 0x0400;
pub const TIPG: usize = 0x0410;
/// Receive descriptors: base, length in bytes, head, tail, delay.
pub const RDBAL: usize = 0x2800;
pub const RDBAH: usize = 0x2804;
pub const RDLEN: usize = 0x2808;
pub const RDH: usize = 0x2810;
pub const RDT: usize = 0x2818;
pub const RDTR: usize = 0x2820;
/// Transmit descriptors: base, length in bytes, head, tail, control.
pub const TDBAL: usize = 0x3800;
pub const TDBAH: usize = 0x3804;
pub const TDLEN: usize = 0x3808;
pub const TDH: usize = 0x3810;
pub const TDT: usize = 0x3818;
pub const TXDCTL: usize = 0x3828;
/// Counters, cleared by reading: CRC errors, alignment errors, receive errors, missed packets, length errors.
pub const CRCERRS: usize = 0x4000;
pub const ALGNERRC: usize = 0x4004;
pub const RXERRC: usize = 0x400c;
pub const MPC: usize = 0x4010;
pub const RLEC: usize = 0x4040;
/// More of them: excessive collisions, late collisions.
pub const ECOL: usize = 0x4018;
pub const LATECOL: usize = 0x4020;
/// Receive checksum control.
pub const RXCSUM: usize = 0x5000;
/// Multicast table, 128 words.
pub const MTA: usize = 0x5200;
pub const MTA_WORDS: usize = 128;
/// First receive address, low and high.
pub const RAL0: usize = 0x5400;
pub const RAH0: usize = 0x5404;
/// Second receive address.
pub const RAL1: usize = 0x5408;
pub const RAH1: usize = 0x540c;
/// Bytes of registers that the driver touches.
pub const WINDOW: usize = 0x5410;

/// CTRL: full duplex, speed detection, link reset (0 for normal), set link up, loss of signal inverted.
pub const CTRL_FD: u32 = 1 << 0;
pub const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
pub const CTRL_LRST: u32 = 1 << 3;
pub const CTRL_ASDE: u32 = 1 << 5;
pub const CTRL_SLU: u32 = 1 << 6;
pub const CTRL_ILOS: u32 = 1 << 7;
/// CTRL: software reset (clears itself), VLAN mode, PHY reset.
pub const CTRL_RST: u32 = 1 << 26;
pub const CTRL_VME: u32 = 1 << 30;
pub const CTRL_PHY_RST: u32 = 1 << 31;

/// STATUS: full duplex, link up, speed in bits 7:6, bus mastering still enabled (82574).
pub const STATUS_FD: u32 = 1 << 0;
pub const STATUS_LU: u32 = 1 << 1;
pub const STATUS_SPEED_SHIFT: u32 = 6;
pub const STATUS_GIO_MASTER: u32 = 1 << 19;

/// RCTL: enable, all stations' frames, all groups' frames, broadcast accept, strip CRC. Buffer size 2048 and no long packets are zeros.
pub const RCTL_EN: u32 = 1 << 1;
pub const RCTL_UPE: u32 = 1 << 3;
pub const RCTL_MPE: u32 = 1 << 4;
pub const RCTL_BAM: u32 = 1 << 15;
pub const RCTL_SECRC: u32 = 1 << 26;

/// TCTL: enable, pad short packets, collision threshold 15, collision distance 64.
pub const TCTL_EN: u32 = 1 << 1;
pub const TCTL_PSP: u32 = 1 << 3;
pub const TCTL_CT: u32 = 0x0f << 4;
pub const TCTL_COLD: u32 = 0x40 << 12;

/// RAH: the address is valid.
pub const RAH_AV: u32 = 1 << 31;

/// TXDCTL bit 22: reserved, must be written as 1 (82574 datasheet 10.2.6.9).
pub const TXDCTL_82574: u32 = 1 << 22;

/// Which manual a card follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 82540EM, 82545EM and their like.
    I8254x,
    /// 82574L.
    I82574,
}

impl Family {
    /// Vendor ID of all cards.
    pub const VENDOR: u16 = 0x8086;

    /// The family of a PCI device; `None` for a card that this driver does not know.
    pub const fn of(vendor: u16, device: u16) -> Option<Self> {
        match (vendor, device) {
            // 82540EM (Bochs, QEMU), 82545EM copper (QEMU, VMware).
            (Self::VENDOR, 0x100e | 0x100f) => Some(Self::I8254x),
            (Self::VENDOR, 0x10d3) => Some(Self::I82574),
            _ => None,
        }
    }

    /// Inter-packet gap for copper: SDM 13.4.34; 82574 datasheet 10.2.6.2.
    pub(crate) const fn tipg(self) -> u32 {
        match self {
            Self::I8254x => 10 | 8 << 10 | 6 << 20,
            Self::I82574 => 8 | 8 << 10 | 6 << 20,
        }
    }
}
