//! The screen as a text sink: a graphics framebuffer, or VGA text, as the loader has left it.
//!
//! It has no lock (the console's orders lines) and reads nothing back, so that it also works for the last words.

use super::paging::{self, Rights};
use crate::font::{self, Cursor, Step};
use crate::memory::OutOfFrames;
use boot::memory_map::Range;
use boot::multiboot::{Framebuffer, Pixels};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;

/// A screen is no larger than this, whatever the loader says: a guard for the mapping.
const MAX_BYTES: u64 = 256 << 20;

/// Light grey on black, for VGA text.
const TEXT_COLOUR: u16 = 0x0700;

#[derive(Clone, Copy, Debug)]
struct Screen {
    frame: Framebuffer,
    columns: u32,
    rows: u32,
    /// A lit pixel.
    ink: u32,
}

static SCREEN: Once<Screen> = Once::new();
/// The screen's memory is mapped.
static ON: AtomicBool = AtomicBool::new(false);
/// The cursor: row in the upper half, column in the lower.
static CURSOR: AtomicU64 = AtomicU64::new(0);

/// The memory of a screen that can be used: direct colour of 16 to 32 bits, or text.
fn range(frame: &Framebuffer) -> Option<Range> {
    let bytes = u64::from(frame.pitch) * u64::from(frame.height);
    let line = u64::from(frame.width) * u64::from(bytes_per_cell(frame)?);
    let sound = frame.address != 0 && line != 0 && line <= frame.pitch.into() && bytes <= MAX_BYTES;
    (sound && frame.address.checked_add(bytes).is_some()).then(|| Range::from_length(frame.address, bytes))
}

/// Bytes from pixel to pixel, or from character to character.
fn bytes_per_cell(frame: &Framebuffer) -> Option<u32> {
    match frame.pixels {
        Pixels::Text => Some(2),
        Pixels::Rgb(_) if (15..=32).contains(&frame.bits) => Some(u32::from(frame.bits).div_ceil(8)),
        _ => None,
    }
}

/// Uses the screen while the boot page tables are still in force, if they reach it.
pub fn init(frame: &Framebuffer) {
    let Some(range) = range(frame) else { return };
    let (columns, rows, ink) = match frame.pixels {
        Pixels::Rgb(colours) => {
            let ink = colours.iter().fold(0, |ink, (at, bits)| {
                let full = 1u32.checked_shl((*bits).into()).map_or(u32::MAX, |b| b - 1);
                ink | full.checked_shl((*at).into()).unwrap_or(0)
            });
            (frame.width / font::WIDTH, frame.height / font::HEIGHT, ink)
        }
        _ => (frame.width, frame.height, 0),
    };
    if columns == 0 || rows == 0 {
        return;
    }
    let screen = SCREEN.call_once(|| Screen { frame: *frame, columns, rows, ink });
    if range.end <= 1 << 32 {
        ON.store(true, Ordering::Relaxed);
        (0..rows).for_each(|row| screen.clear(row));
    }
}

/// Maps the screen's memory into the kernel's page tables.
///
/// # Errors
/// No memory for page tables.
pub fn map() -> Result<(), OutOfFrames> {
    let Some(range) = SCREEN.get().and_then(|s| range(&s.frame)) else { return Ok(()) };
    paging::ensure(range, Rights::DEVICE)?;
    // A "screen" in the kernel's own memory is the loader's mistake: no screen then.
    ON.store(paging::is_device(range), Ordering::Relaxed);
    Ok(())
}

/// Kind, columns and rows of the screen in use.
pub fn shape() -> Option<(&'static str, u32, u32)> {
    let screen = SCREEN.get().filter(|_| ON.load(Ordering::Relaxed))?;
    let kind = if screen.frame.pixels == Pixels::Text { "text" } else { "graphics" };
    Some((kind, screen.columns, screen.rows))
}

/// Writes text.
pub fn write(text: &str) {
    let Some(screen) = SCREEN.get().filter(|_| ON.load(Ordering::Relaxed)) else { return };
    let now = CURSOR.load(Ordering::Relaxed);
    let mut cursor = Cursor { column: now as u32, row: (now >> 32) as u32 };
    for byte in text.bytes() {
        match cursor.step(byte, screen.columns, screen.rows) {
            Step::Draw(at) => screen.draw(at, byte),
            Step::WrapAndDraw(at) => {
                screen.clear(at.row);
                screen.draw(at, byte);
            }
            Step::Clear { row } => screen.clear(row),
            Step::Nothing => {}
        }
    }
    CURSOR.store(u64::from(cursor.row) << 32 | u64::from(cursor.column), Ordering::Relaxed);
}

impl Screen {
    fn clear(&self, row: u32) {
        (0..self.columns).for_each(|column| self.draw(Cursor { column, row }, b' '));
    }

    fn draw(&self, at: Cursor, letter: u8) {
        if self.frame.pixels == Pixels::Text {
            self.put(u64::from(at.row), u64::from(at.column), u32::from(TEXT_COLOUR | u16::from(letter)));
            return;
        }
        for line in 0..font::HEIGHT {
            let dots = font::line(letter, line);
            for x in 0..font::WIDTH {
                let value = if dots & 0x80 >> x != 0 { self.ink } else { 0 };
                let (line, x) = (at.row * font::HEIGHT + line, at.column * font::WIDTH + x);
                self.put(line.into(), x.into(), value);
            }
        }
    }

    /// Writes one pixel or character.
    fn put(&self, line: u64, x: u64, value: u32) {
        let bytes = bytes_per_cell(&self.frame).unwrap_or(0);
        let address = self.frame.address + line * u64::from(self.frame.pitch) + x * u64::from(bytes);
        // SAFETY: 1. Line and x are on the screen, since columns and rows are. 2. `init` has checked that the screen's
        // lines lie in its memory, and ON says that it is mapped as device memory.
        unsafe {
            match bytes {
                4 => (address as *mut u32).write_volatile(value),
                2 => (address as *mut u16).write_volatile(value as u16),
                _ => (0..u64::from(bytes))
                    .for_each(|i| ((address + i) as *mut u8).write_volatile((value >> (8 * i)) as u8)),
            }
        }
    }
}
