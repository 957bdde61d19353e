//! One of the two doors: everything that leaves the virtual machine.

/// Why the guest wants to stop or start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Soft-off (ACPI S5).
    Off,
    /// Reset: by the reset register, the keyboard controller, port 92h, or a triple fault.
    Reset,
}

/// Who takes what leaves. On a primary it is held until the backup has acknowledged; on a backup it is dropped.
pub trait Output {
    /// A network frame, whole, without FCS, from the network device of this index. The bytes are only lent.
    fn frame(&mut self, device: u8, frame: &[u8]);
    /// A byte of the serial console.
    fn console(&mut self, byte: u8);
    /// A byte of the firmware's debug port or of the virtio console's port of this index.
    fn side_console(&mut self, port: u8, byte: u8);
    /// The guest switches itself off or resets itself. Comes at most once per access.
    fn power(&mut self, power: Power);
}

/// A disk behind a block device: its contents belong to the virtual machine's state, and so they are reached at once and
/// in the order of the guest's requests. Sectors have 512 bytes.
pub trait Disk {
    /// Sectors.
    fn sectors(&self) -> u64;
    /// Reads whole sectors. The caller has checked the range.
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError>;
    /// Writes whole sectors. The caller has checked the range and that the disk may be written.
    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes written sectors durable.
    fn flush(&mut self) -> Result<(), DiskError>;
}

/// The medium failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
