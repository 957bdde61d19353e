//! A PC BIOS image: its end stands at the end of the first 4 GiB, as ROM, and in the shadow below 1 MiB.

use core::fmt;

use super::map::{BIOS, EXTENDED};
use super::{LoadError, Start};
use crate::ram::Ram;

/// The least and the most bytes of an image.
const LEAST: usize = 64 << 10;
const MOST: usize = 1 << 20;
/// An image has a multiple of this.
const UNIT: usize = 4096;
/// The processor starts so many bytes before the end.
const RESET_VECTOR: usize = 16;

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiosError {
    /// A size in bytes that no ROM has.
    Size(usize),
    /// Nothing but zeros or ones where the processor starts.
    NoResetVector,
}

impl fmt::Display for BiosError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(bytes) => {
                write!(f, "it has {bytes} bytes; a PC BIOS has 64 KiB to 1 MiB, a multiple of 4 KiB")
            }
            Self::NoResetVector => {
                f.write_str("there is no instruction 16 bytes before its end; this is no PC BIOS")
            }
        }
    }
}

/// Copies the end of the image to its shadow. The caller maps the whole image below 4 GiB.
///
/// # Errors
/// See [`BiosError`].
pub fn load(ram: &mut Ram<'_>, image: &[u8]) -> Result<Start, LoadError> {
    let size = image.len();
    if !(LEAST..=MOST).contains(&size) || !size.is_multiple_of(UNIT) {
        return Err(LoadError::Bios(BiosError::Size(size)));
    }
    let vector = &image[size - RESET_VECTOR..];
    if vector.iter().all(|&byte| byte == 0) || vector.iter().all(|&byte| byte == 0xff) {
        return Err(LoadError::Bios(BiosError::NoResetVector));
    }
    let shadow = size.min((EXTENDED - BIOS) as usize);
    ram.write(EXTENDED - shadow as u64, &image[size - shadow..])?;
    Ok(Start::RealModeReset)
}
