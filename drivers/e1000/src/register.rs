//! Register offsets and bits that all families share (SDM 13; 82574 datasheet 10; 82576 datasheet 8). Those of queues and
//! interrupts differ: `chip.rs`.

/// Device control.
pub const CTRL: usize = 0x0000;
/// Device status.
pub const STATUS: usize = 0x0008;
/// EEPROM control.
pub const EEC: usize = 0x0010;
/// EEPROM read.
pub const EERD: usize = 0x0014;
/// Extended device control.
pub const CTRL_EXT: usize = 0x0018;
/// Management interface to the PHY.
pub const MDIC: usize = 0x0020;
/// Flow control address, low and high, and type.
pub const FCAL: usize = 0x0028;
pub const FCAH: usize = 0x002c;
pub const FCT: usize = 0x0030;
/// Extended configuration control (82574): who has the PHY.
pub const EXTCNF_CTRL: usize = 0x0f00;
/// Receive control.
pub const RCTL: usize = 0x0100;
/// Flow control transmit timer.
pub const FCTTV: usize = 0x0170;
/// Transmit control, and inter-packet gap.
pub const TCTL: usize = 0x0400;
pub const TIPG: usize = 0x0410;
/// Receive delay timer of the 8254x and the 82574; nothing on later cards.
pub const RDTR: usize = 0x2820;
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
/// Software semaphore, and the owners of what is shared with firmware (82576 and later).
pub const SWSM: usize = 0x5b50;
pub const SW_FW_SYNC: usize = 0x5b5c;
/// Bytes of registers that the driver touches, up to the 82574.
pub const WINDOW: usize = 0x5410;

/// CTRL: full duplex, speed detection, link reset (0 for normal), set link up, loss of signal inverted.
pub const CTRL_FD: u32 = 1 << 0;
pub const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
pub const CTRL_LRST: u32 = 1 << 3;
pub const CTRL_ASDE: u32 = 1 << 5;
pub const CTRL_SLU: u32 = 1 << 6;
pub const CTRL_ILOS: u32 = 1 << 7;
/// CTRL: speed and duplex forced.
pub const CTRL_FRCSPD: u32 = 1 << 11;
pub const CTRL_FRCDPX: u32 = 1 << 12;
/// CTRL: software reset (clears itself), VLAN mode, PHY reset.
pub const CTRL_RST: u32 = 1 << 26;
pub const CTRL_VME: u32 = 1 << 30;
pub const CTRL_PHY_RST: u32 = 1 << 31;

/// EEC: the card has read its EEPROM.
pub const EEC_AUTO_RD: u32 = 1 << 9;
/// CTRL_EXT: a driver is there (told to firmware).
pub const CTRL_EXT_DRV_LOAD: u32 = 1 << 28;

/// STATUS: full duplex, link up, speed in bits 7:6, the card's number among those of its chip in bits 3:2, bus mastering still
/// enabled (PCI Express).
pub const STATUS_FD: u32 = 1 << 0;
pub const STATUS_LU: u32 = 1 << 1;
pub const STATUS_SPEED_SHIFT: u32 = 6;
pub const STATUS_PORT_SHIFT: u32 = 2;
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
