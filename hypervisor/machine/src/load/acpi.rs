//! The tables that describe the board to the guest: ACPI 6.5, chapter 5. Made by `acpi_tables`; laid out here as two files
//! with pointers between them, which either we place or the guest's firmware does (`etc/table-loader` of fw_cfg).

use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::aml;

/// What differs between boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// There is a serial port, COM1.
    pub serial: bool,
}

/// Who made the tables.
const OEM: [u8; 6] = *b"LOCKST";
const OEM_TABLE: [u8; 8] = *b"LOCKSTEP";
const OEM_REVISION: u32 = 1;

/// Ports of power management: event block, control, timer.
const PM_EVENTS: u16 = 0x600;
const PM_CONTROL: u16 = 0x604;
const PM_TIMER: u16 = 0x608;
/// The sleep type of S5 in the control register.
pub const S5_TYPE: u8 = crate::devices::pm::SLEEP_TYPE_S5;
/// The reset register and what to write to it.
const RESET_PORT: u16 = 0xcf9;
const RESET_VALUE: u8 = 0x0e;
/// The interrupt of power management.
const SCI: u16 = 9;
/// Index of the RTC's century byte in CMOS memory.
const CMOS_CENTURY: u8 = 0x32;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
const IO_APIC_ID: u8 = 1;

/// FADT, IAPC_BOOT_ARCH: there are devices on ISA; no keyboard controller, no VGA.
const BOOT_ARCH: u16 = 1 << 0 | 1 << 2;

/// Bytes of a table's header, and where in it the checksum is.
const HEADER: usize = 36;
const HEADER_CHECKSUM: usize = 9;
/// Tables begin at multiples of this; the FACS, which comes first, at multiples of [`ALIGNMENT`].
const TABLE_ALIGNMENT: usize = 16;

/// The file of tables is to be placed at a multiple of this, in bytes: the FACS wants it.
pub const ALIGNMENT: u32 = 64;
/// The RSDP is to be placed at a multiple of this, in bytes: it is found by search.
pub const RSDP_ALIGNMENT: u32 = 16;

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The root pointer.
    Rsdp,
    /// Everything else.
    Tables,
}

/// What is to be done to the files once their places are known, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A field holds an offset in the file of tables; the file's address is to be added.
    Pointer {
        /// The file with the field.
        file: File,
        /// The field.
        offset: u32,
        /// Its bytes: 4 or 8.
        size: u8,
    },
    /// A byte makes a range's sum zero.
    Checksum {
        /// The file.
        file: File,
        /// The byte.
        offset: u32,
        /// The range's first byte.
        start: u32,
        /// The range's bytes.
        length: u32,
    },
}

/// The tables, not yet placed.
#[derive(Clone, Debug)]
pub struct Tables {
    /// FACS, DSDT, FADT, MADT, RSDT, XSDT. Place it at a multiple of [`ALIGNMENT`].
    pub tables: Vec<u8>,
    /// The root pointer. Place it at a multiple of [`RSDP_ALIGNMENT`].
    pub rsdp: Vec<u8>,
    /// What then is to be done.
    pub links: Vec<Link>,
}

/// The tables at their place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// All bytes, the tables first.
    pub bytes: Vec<u8>,
    /// The root pointer's address.
    pub rsdp: u64,
}

impl Tables {
    /// The tables of a board.
    pub fn new(board: &Board) -> Self {
        let mut this = Self { tables: Vec::new(), rsdp: Vec::new(), links: Vec::new() };
        let facs = this.append(&FACS::new());
        let mut code = Sdt::new(*b"DSDT", HEADER as u32, 2, OEM, OEM_TABLE, OEM_REVISION);
        code.append_slice(&aml::program(board));
        let dsdt = this.table(&code, &[]);
        // FIRMWARE_CTRL, DSDT, X_DSDT.
        let fadt = this.table(&fadt(facs, dsdt), &[(36, 4), (40, 4), (140, 8)]);
        let madt = this.table(&madt(), &[]);
        let (mut rsdt, mut xsdt) = (
            Sdt::new(*b"RSDT", HEADER as u32, 1, OEM, OEM_TABLE, OEM_REVISION),
            XSDT::new(OEM, OEM_TABLE, OEM_REVISION),
        );
        for entry in [fadt, madt] {
            rsdt.append_slice(&entry.to_le_bytes());
            xsdt.add_entry(entry.into());
        }
        let rsdt = this.table(&rsdt, &[(HEADER, 4), (HEADER + 4, 4)]);
        let xsdt = this.table(&xsdt, &[(HEADER, 8), (HEADER + 8, 8)]);
        this.root(rsdt, xsdt);
        this
    }

    /// The root pointer: it has the checksum of ACPI 1.0 over its first 20 bytes, and one over all 36.
    fn root(&mut self, rsdt: u32, xsdt: u32) {
        Rsdp::new(OEM, xsdt.into()).to_aml_bytes(&mut self.rsdp);
        self.rsdp[16..20].copy_from_slice(&rsdt.to_le_bytes());
        let file = File::Rsdp;
        self.links.extend([
            Link::Pointer { file, offset: 16, size: 4 },
            Link::Pointer { file, offset: 24, size: 8 },
            Link::Checksum { file, offset: 8, start: 0, length: 20 },
            Link::Checksum { file, offset: 32, start: 0, length: 36 },
        ]);
    }

    /// Appends something aligned; answers its offset.
    fn append(&mut self, bytes: &dyn Aml) -> u32 {
        self.tables.resize(self.tables.len().next_multiple_of(TABLE_ALIGNMENT), 0);
        let offset = self.tables.len() as u32;
        bytes.to_aml_bytes(&mut self.tables);
        offset
    }

    /// Appends a table that has pointers (offset in it, size) and a checksum; answers its offset.
    fn table(&mut self, bytes: &dyn Aml, pointers: &[(usize, u8)]) -> u32 {
        let start = self.append(bytes);
        let (file, length) = (File::Tables, self.tables.len() as u32 - start);
        for &(offset, size) in pointers {
            self.links.push(Link::Pointer { file, offset: start + offset as u32, size });
        }
        self.links.push(Link::Checksum { file, offset: start + HEADER_CHECKSUM as u32, start, length });
        start
    }

    /// Places everything at one address, a multiple of [`ALIGNMENT`] below 4 GiB, in one piece.
    pub fn placed(mut self, address: u64) -> Placed {
        for link in core::mem::take(&mut self.links) {
            self.apply(link, address);
        }
        let mut bytes = self.tables;
        bytes.resize(bytes.len().next_multiple_of(RSDP_ALIGNMENT as usize), 0);
        let rsdp = address + bytes.len() as u64;
        bytes.extend_from_slice(&self.rsdp);
        Placed { bytes, rsdp }
    }

    fn apply(&mut self, link: Link, address: u64) {
        let (Link::Pointer { file, .. } | Link::Checksum { file, .. }) = link;
        let bytes = if file == File::Rsdp { &mut self.rsdp } else { &mut self.tables };
        match link {
            Link::Pointer { offset, size, .. } => {
                let field = &mut bytes[offset as usize..][..size.into()];
                let mut wide = [0; 8];
                wide[..field.len()].copy_from_slice(field);
                let pointer = u64::from_le_bytes(wide) + address;
                field.copy_from_slice(&pointer.to_le_bytes()[..size.into()]);
            }
            Link::Checksum { offset, start, length, .. } => {
                let sum = bytes[start as usize..][..length as usize]
                    .iter()
                    .fold(0u8, |sum, &b| sum.wrapping_add(b));
                bytes[offset as usize] = bytes[offset as usize].wrapping_sub(sum);
            }
        }
    }
}

/// A register in port space.
fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, address.into())
}

/// ACPI 6.5, 5.2.9. ACPI mode is on from the beginning: there is no SMI command port.
fn fadt(facs: u32, dsdt: u32) -> FADT {
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    table.firmware_ctrl = facs.into();
    table.dsdt = dsdt.into();
    table.x_dsdt = u64::from(dsdt).into();
    table.sci_int = SCI.into();
    table.pm1a_evt_blk = u32::from(PM_EVENTS).into();
    table.pm1_evt_len = 4;
    table.x_pm1a_evt_blk = port(PM_EVENTS, 32, AccessSize::WordAccess);
    table.pm1a_cnt_blk = u32::from(PM_CONTROL).into();
    table.pm1_cnt_len = 2;
    table.x_pm1a_cnt_blk = port(PM_CONTROL, 16, AccessSize::WordAccess);
    table.pm_tmr_blk = u32::from(PM_TIMER).into();
    table.pm_tmr_len = 4;
    table.x_pm_tmr_blk = port(PM_TIMER, 32, AccessSize::DwordAccess);
    // No C2 and no C3: latencies above 100 us and 1000 us say so.
    table.p_lvl2_lat = 101.into();
    table.p_lvl3_lat = 1001.into();
    table.century = CMOS_CENTURY;
    table.iapc_boot_arch = BOOT_ARCH.into();
    table.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    table.reset_value = RESET_VALUE;
    table.finalize()
}

/// ACPI 6.5, 5.2.12. There is a pair of PICs as well.
fn madt() -> Sdt {
    /// Interrupt source overrides, 5.2.12.5: bus ISA, interrupt, GSI, flags.
    const PIT: [u8; 10] = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
    /// Active high, level-triggered.
    const POWER: [u8; 10] = [2, 10, 0, SCI as u8, SCI as u8, 0, 0, 0, 0b1101, 0];
    /// Local APIC NMI, 5.2.12.7: all processors, polarity and trigger of the bus, LINT1.
    const NMI: [u8; 6] = [4, 6, 0xff, 0, 0, 1];
    const PCAT_COMPAT: u32 = 1;
    let mut table = Sdt::new(*b"APIC", HEADER as u32 + 8, 5, OEM, OEM_TABLE, OEM_REVISION);
    table.write_u32(HEADER, LOCAL_APIC);
    table.write_u32(HEADER + 4, PCAT_COMPAT);
    let mut entries = Vec::new();
    ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled).to_aml_bytes(&mut entries);
    IoApic::new(IO_APIC_ID, IO_APIC, 0).to_aml_bytes(&mut entries);
    for entry in [PIT.as_slice(), &POWER, &NMI] {
        entries.extend_from_slice(entry);
    }
    table.append_slice(&entries);
    table
}
