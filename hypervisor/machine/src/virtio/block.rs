//! The block device (virtio 1.2, 5.2).

use serde::{Deserialize, Serialize};

use super::chain::{Broken, Chain, Cursor};
use super::{CONFIG, Served};
use crate::context::Context;
use crate::devices::BadState;
use crate::output::{Disk, DiskError, SECTOR};
use crate::ram::Ram;

/// Bytes of the ID string.
pub const ID: usize = 20;
/// Most segments of data in a request: with the header and the status they fill a queue.
pub const SEGMENTS: u32 = 254;
/// Most bytes of a segment.
pub const SEGMENT: u32 = 16 << 10;
/// Most bytes of a request. A longer one fails.
const REQUEST: u64 = SEGMENTS as u64 * SEGMENT as u64;
/// Sectors of the largest disk: the bytes of it can be counted in 64 bits.
const SECTORS: u64 = u64::MAX / SECTOR as u64;

/// VIRTIO_BLK_F_SIZE_MAX, _SEG_MAX, _BLK_SIZE, _FLUSH.
const FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9;
/// VIRTIO_BLK_F_RO.
const READ_ONLY: u64 = 1 << 5;

/// Types of requests.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Which of the machine's disks it is.
    pub disk: u8,
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// The guest cannot write.
    pub read_only: bool,
    /// Its name for the guest, filled up with zeros.
    pub id: [u8; ID],
}

/// What a request asks for.
struct Request {
    kind: u32,
    sector: u64,
}

impl Block {
    /// The features offered.
    pub(super) const fn features(&self) -> u64 {
        FEATURES | if self.read_only { READ_ONLY } else { 0 }
    }

    /// The configuration structure (5.2.4).
    pub(super) fn config(&self) -> [u8; CONFIG] {
        let mut config = [0; CONFIG];
        config[0..8].copy_from_slice(&self.sectors.to_le_bytes());
        config[8..12].copy_from_slice(&SEGMENT.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config
    }

    pub(super) fn check(&self) -> Result<(), BadState> {
        if self.sectors > SECTORS {
            Err(BadState("a disk has more sectors than there can be"))
        } else {
            Ok(())
        }
    }

    /// Serves a request: header, data, and room for the status in the last byte (5.2.6).
    pub(super) fn serve(
        &mut self,
        chain: &Chain,
        ctx: &mut Context<'_, '_>,
        sector: &mut [u8; SECTOR],
    ) -> Result<Served, Broken> {
        let mut data = chain.readable();
        let header: [u8; 16] = data.read_array(ctx.ram)?;
        let word = u128::from_le_bytes(header);
        let request = Request { kind: word as u32, sector: (word >> 64) as u64 };
        let room = chain.writable();
        let room_for_data = room.left().checked_sub(1).ok_or(Broken)?;
        let (status, written) = match request.kind {
            IN => match self.disk_for(&request, room_for_data, ctx) {
                Some((ram, disk)) => {
                    let mut room = room.clone();
                    (read(disk, ram, request.sector, &mut room, room_for_data, sector)?, room_for_data)
                }
                None => (Status::IoError, 0),
            },
            OUT => match self.disk_for(&request, data.left(), ctx) {
                Some((ram, disk)) if !self.read_only => {
                    (write(disk, ram, request.sector, &mut data, sector)?, 0)
                }
                _ => (Status::IoError, 0),
            },
            FLUSH => (self.flush(ctx), 0),
            GET_ID if room_for_data >= ID as u64 => {
                room.clone().write(ctx.ram, &self.id)?;
                (Status::Ok, ID as u64)
            }
            _ => (Status::Unsupported, 0),
        };
        let mut last = room;
        last.skip(room_for_data);
        last.write(ctx.ram, &[status as u8])?;
        let moved = chain.readable().left() + written;
        // Counted are bytes written from the beginning without a gap: with the status only if the data before it are whole.
        let written = match status {
            Status::Ok if written == room_for_data => written + 1,
            Status::Ok => written,
            _ if room_for_data == 0 => 1,
            _ => 0,
        };
        let work = usize::try_from(moved).unwrap_or(usize::MAX).saturating_add(SECTOR);
        Ok(Served { written: u32::try_from(written).unwrap_or(u32::MAX), work })
    }

    /// The disk, if the request's range is on it, whole, and not too long; and the memory.
    fn disk_for<'c, 'm>(
        &self,
        request: &Request,
        bytes: u64,
        ctx: &'c mut Context<'_, 'm>,
    ) -> Option<(&'c mut Ram<'m>, &'c mut (dyn Disk + 'm))> {
        let disk = ctx.disks.get_mut(usize::from(self.disk))?;
        let end = request.sector.checked_add(bytes / SECTOR as u64)?;
        let fits = end <= self.sectors.min(disk.sectors());
        let whole = bytes.is_multiple_of(SECTOR as u64) && bytes <= REQUEST;
        if fits && whole { Some((ctx.ram, &mut **disk)) } else { None }
    }

    /// Makes what was written durable.
    fn flush(&self, ctx: &mut Context<'_, '_>) -> Status {
        let disk = ctx.disks.get_mut(usize::from(self.disk));
        disk.map_or(Status::IoError, |disk| disk.flush().into())
    }
}

impl From<Result<(), DiskError>> for Status {
    fn from(result: Result<(), DiskError>) -> Self {
        if result.is_ok() { Self::Ok } else { Self::IoError }
    }
}

/// Reads so many bytes, whole sectors, from the disk: straight into the driver's memory where a piece has whole sectors.
fn read(
    disk: &mut dyn Disk,
    ram: &mut Ram<'_>,
    from: u64,
    room: &mut Cursor<'_>,
    bytes: u64,
    buffer: &mut [u8; SECTOR],
) -> Result<Status, Broken> {
    let (mut next, mut left) = (from, bytes);
    while left != 0 {
        let whole = room.whole_sectors(left);
        if whole == 0 {
            if disk.read(next, buffer).is_err() {
                return Ok(Status::IoError);
            }
            room.write(ram, buffer)?;
            (next, left) = (next + 1, left - SECTOR as u64);
            continue;
        }
        let Some(piece) = room.piece(whole) else { break };
        if disk.read(next, ram.slice_mut(piece.address, piece.length as usize)?).is_err() {
            return Ok(Status::IoError);
        }
        next += u64::from(piece.length) / SECTOR as u64;
        left -= u64::from(piece.length);
    }
    Ok(Status::Ok)
}

/// Writes all of the data, whole sectors, to the disk, as [`read`] does.
fn write(
    disk: &mut dyn Disk,
    ram: &Ram<'_>,
    to: u64,
    data: &mut Cursor<'_>,
    buffer: &mut [u8; SECTOR],
) -> Result<Status, Broken> {
    let (mut next, mut left) = (to, data.left());
    while left != 0 {
        let whole = data.whole_sectors(left);
        if whole == 0 {
            data.read(ram, buffer)?;
            if disk.write(next, buffer).is_err() {
                return Ok(Status::IoError);
            }
            (next, left) = (next + 1, left - SECTOR as u64);
            continue;
        }
        let Some(piece) = data.piece(whole) else { break };
        if disk.write(next, ram.slice(piece.address, piece.length as usize)?).is_err() {
            return Ok(Status::IoError);
        }
        next += u64::from(piece.length) / SECTOR as u64;
        left -= u64::from(piece.length);
    }
    Ok(Status::Ok)
}
