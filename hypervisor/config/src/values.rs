//! Values with a meaning of their own: amounts of memory, addresses, keys, times.

use core::fmt;

use toml_datetime::Datetime;

use crate::config::{Card, Cpu, Paging, PciAddress};
use crate::limits;

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
}

impl Memory {
    /// Reads a number with a unit: K, M, G (powers of 1024), also as KiB, MiB, GiB.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift).map(|bytes| Self { bytes })
    }
}

impl fmt::Display for Memory {
    /// As [`Memory::parse`] reads it, by the largest unit that fits; bytes beyond a whole K are not said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.bytes {
            bytes if bytes != 0 && bytes % (1 << 30) == 0 => (30, 'G'),
            bytes if bytes != 0 && bytes % (1 << 20) == 0 => (20, 'M'),
            _ => (10, 'K'),
        };
        write!(f, "{}{unit}", self.bytes >> shift)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads six pairs of hexadecimal digits with colons between them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            *byte = hex(parts.next()?, 2)?.try_into().ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// One station's address: not a group's, not zero.
    pub const fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4(pub [u8; 4]);

impl Ipv4 {
    /// Reads four decimal numbers with dots between them, none with a needless zero before it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            *byte = decimal(parts.next()?)?.try_into().ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// One station's address (RFC 1122, 3.2.1.3): no group's, no loopback's, not 0.x.x.x, nothing reserved.
    pub const fn is_station(self) -> bool {
        matches!(self.0[0], 1..=126 | 128..=223)
    }

    /// The part of the address that names the network, by a prefix of 1 to 32 bits.
    pub const fn network(self, prefix: u8) -> u32 {
        u32::from_be_bytes(self.0) & Self::mask(prefix)
    }

    /// The part that names the station within it: all zeros and all ones mean other things.
    pub const fn is_host(self, prefix: u8) -> bool {
        let host = u32::from_be_bytes(self.0) & !Self::mask(prefix);
        host != 0 && host != !Self::mask(prefix)
    }

    const fn mask(prefix: u8) -> u32 {
        match u32::MAX.checked_shl(32_u32.saturating_sub(prefix as u32)) {
            Some(mask) => mask,
            None => 0,
        }
    }
}

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

/// Reads `10.0.0.1/24`: a station's address, and how many of its bits name the network.
pub fn ipv4_with_prefix(text: &str) -> Option<(Ipv4, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (Ipv4::parse(address)?, decimal(prefix)?);
    let prefix = u8::try_from(prefix).ok().filter(|prefix| (1..=30).contains(prefix))?;
    (address.is_station() && address.is_host(prefix)).then_some((address, prefix))
}

/// Reads `10.0.0.2:5405`: a station's address and a port that is not 0.
pub fn ipv4_with_port(text: &str) -> Option<(Ipv4, u16)> {
    let (address, port) = text.split_once(':')?;
    let (address, port) = (Ipv4::parse(address)?, u16::try_from(decimal(port)?).ok()?);
    (address.is_station() && port != 0).then_some((address, port))
}

/// A number of at most five decimal digits, without sign and without needless zeros.
fn decimal(text: &str) -> Option<u32> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (text.len() == 1 || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

impl Paging {
    /// The mode's name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Fast => "fast",
        }
    }

    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Strict, Self::Fast].into_iter().find(|paging| paging.name() == name)
    }
}

/// A number of exactly so many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let right = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    right.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl PciAddress {
    /// Reads `bus:device.function`, with or without the segment 0000 before it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("0000:").unwrap_or(text);
        let (bus, rest) = text.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let (bus, device, function) = (hex(bus, 2)?, hex(device, 2)?, hex(function, 1)?);
        (device < 32 && function < 8).then_some(Self {
            bus: bus as u8,
            device: device as u8,
            function: function as u8,
        })
    }
}

impl Card {
    /// Reads a PCI address or an Ethernet address.
    pub fn parse(text: &str) -> Option<Self> {
        PciAddress::parse(text).map(Self::Pci).or_else(|| Mac::parse(text).map(Self::Mac))
    }
}

impl Cpu {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::V2, Self::V3, Self::V4];

    /// The profile's name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    /// The profile of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cpu| cpu.name() == name)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a control key: `ctrl-` and a letter or one of `[ \ ] ^ _`.
pub fn control_key(text: &str) -> Option<u8> {
    let key = text.strip_prefix("ctrl-").or_else(|| text.strip_prefix("Ctrl-"))?;
    let [key] = key.as_bytes() else { return None };
    match key.to_ascii_uppercase() {
        key @ b'A'..=b'_' => Some(key & 0x1f),
        _ => None,
    }
}

/// The name that [`control_key`] reads as this byte, which is 1 to 31.
pub const fn control_name(byte: u8) -> char {
    (byte | 0x40).to_ascii_lowercase() as char
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, from 1970 on.
pub fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March here, so that the leap day is the last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    // From March on, five months have 153 days.
    before + (153 * month + 2) / 5 + (day - 1) - 719_468
}

/// Seconds since 1970-01-01T00:00:00Z of a full RFC 3339 time, whole seconds, within the years that a clock can be set to.
pub fn seconds(time: &Datetime) -> Option<u64> {
    let (date, clock, offset) = (time.date?, time.time?, time.offset?);
    let seconds = u64::from(clock.second.unwrap_or(0));
    if !(1970..=limits::LAST_YEAR).contains(&date.year) || seconds > 59 {
        return None;
    }
    let days = days(date.year.into(), date.month.into(), date.day.into());
    let local = days * 86_400 + u64::from(clock.hour) * 3600 + u64::from(clock.minute) * 60 + seconds;
    let east = match offset {
        toml_datetime::Offset::Z => 0,
        toml_datetime::Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    local.checked_add_signed(-east)
}
