//! The host's real-time clock (MC146818 and its descendants): the wall-clock time, read once when a guest is built.

use super::port;

/// Index and data ports of CMOS memory.
const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

/// Registers: seconds, minutes, hours, day, month, year, status A and B.
const FIELDS: [u8; 6] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09];
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
/// Status A: an update is in progress. Status B: 24 hours, binary.
const UPDATING: u8 = 1 << 7;
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
/// Hours: afternoon, where there are 12.
const AFTERNOON: u8 = 1 << 7;

/// Readings until two agree; an update takes 2 ms once in a second.
const TRIES: usize = 100_000;

fn read(register: u8) -> u8 {
    port::write_u8(INDEX, register);
    port::read_u8(DATA)
}

/// Seconds since 1970-01-01 by the host's clock, which is taken to be in UTC; 0 where it does not answer sensibly.
pub fn now() -> u64 {
    let mut last = None;
    for _ in 0..TRIES {
        if read(STATUS_A) & UPDATING != 0 {
            continue;
        }
        let fields = FIELDS.map(read);
        if last.replace(fields) == Some(fields) {
            return seconds(fields, read(STATUS_B)).unwrap_or(0);
        }
    }
    0
}

fn seconds(fields: [u8; 6], status: u8) -> Option<u64> {
    let number =
        |value: u8| u64::from(if status & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 15) });
    let [second, minute, hour, day, month, year] = fields;
    let mut hours = number(hour & !AFTERNOON);
    if status & HOURS_24 == 0 {
        hours = hours % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 };
    }
    // The century's place differs from board to board; this kernel was not there before 2000.
    let (year, month, day) = (2000 + number(year), number(month), number(day));
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hours < 24;
    valid.then(|| ((days(year, month, day) * 24 + hours) * 60 + number(minute)) * 60 + number(second))
}

/// Days since 1970-01-01 in the Gregorian calendar, with years that begin in March.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    // To 1970-01-01 from 0000-03-01: 719,468 days.
    of_years + (153 * month + 2) / 5 + day - 1 - 719_468
}
