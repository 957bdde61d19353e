//! The commands that look into a virtual machine that stands still: registers, memory, page tables, instructions.

use super::system::Inspect;
use super::walk::{self, End, Registers, Step};
use alloc::string::String;
use core::fmt::{self, Write};
use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use replay::digest::Register;

/// Bytes that `mem` shows unless told, and at most.
const BYTES: u64 = 64;
const MAX_BYTES: u64 = 1024;
/// Bytes in a line.
const LINE: usize = 16;

/// Instructions that `disasm` shows unless told, and at most.
const INSTRUCTIONS: u64 = 10;
const MAX_INSTRUCTIONS: u64 = 64;
/// Bytes of an instruction at most.
const MAX_LENGTH: usize = 15;

/// Log entries that `log N` shows at most.
const MAX_ENTRIES: u64 = 64;

/// All registers, by group.
///
/// # Errors
/// Those of the sink.
pub fn registers(guest: &mut dyn Inspect, out: &mut dyn Write) -> fmt::Result {
    let values = guest.registers();
    general(&values, out)?;
    writeln!(out, "control")?;
    rows(&values, Register::Cr0, Register::Cr4, out)?;
    rows(&values, Register::Xcr0, Register::Xcr0, out)?;
    rows(&values, Register::Efer, Register::Debugctl, out)?;
    segments(&values, out)?;
    writeln!(out, "tables")?;
    rows(&values, Register::GdtrBase, Register::IdtrLimit, out)?;
    rows(&values, Register::Pdpte0, Register::Pdpte3, out)?;
    writeln!(out, "debug")?;
    rows(&values, Register::Dr0, Register::Dr7, out)?;
    writeln!(out, "system calls")?;
    rows(&values, Register::SysenterCs, Register::TscAux, out)?;
    writeln!(out, "events")?;
    rows(&values, Register::Activity, Register::NmiDue, out)?;
    writeln!(out, "time")?;
    rows(&values, Register::Instructions, Register::ClockRate, out)
}

fn general(values: &Registers, out: &mut dyn Write) -> fmt::Result {
    const FLAGS: [(u32, &str); 16] = [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (9, "IF"),
        (10, "DF"),
        (11, "OF"),
        (14, "NT"),
        (16, "RF"),
        (17, "VM"),
        (18, "AC"),
        (19, "VIF"),
        (20, "VIP"),
        (21, "ID"),
    ];
    writeln!(out, "general")?;
    rows(values, Register::Rax, Register::Rflags, out)?;
    write!(out, "  flags:")?;
    let flags = values[Register::Rflags as usize];
    for (_, name) in FLAGS.iter().filter(|(bit, _)| flags >> bit & 1 != 0) {
        write!(out, " {name}")?;
    }
    writeln!(out, " IOPL={}", flags >> 12 & 3)
}

/// The registers from one to another, two in a line.
fn rows(values: &Registers, first: Register, last: Register, out: &mut dyn Write) -> fmt::Result {
    for line in Register::ALL[first as usize..=last as usize].chunks(2) {
        write!(out, " ")?;
        for register in line {
            write!(out, " {:>16} {:016x}", register.name(), values[*register as usize])?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn segments(values: &Registers, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "segments  selector             base    limit access")?;
    for first in (Register::CsSelector as usize..=Register::TrSelector as usize).step_by(4) {
        let [selector, base, limit, access] = [0, 1, 2, 3].map(|next| values[first + next]);
        let unusable = if access & 1 << 16 != 0 { "  unusable" } else { "" };
        let name = Register::ALL[first].name();
        writeln!(out, "  {name:>6}      {selector:04x} {base:016x} {limit:08x}  {access:05x}{unusable}")?;
    }
    Ok(())
}

/// A number: of a register that is named, or in hexadecimal.
fn address(word: &str, values: &Registers) -> Option<u64> {
    Register::named(word)
        .map(|register| values[register as usize])
        .or_else(|| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok())
}

/// A number: decimal, or hexadecimal behind 0x.
fn count(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// `mem ADDR [LEN] [virt|phys]`. False: the arguments are none.
///
/// # Errors
/// Those of the sink.
pub fn memory(words: &[&str], guest: &mut dyn Inspect, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let values = guest.registers();
    let (words, physical) = match words {
        [rest @ .., "phys"] => (rest, true),
        [rest @ .., "virt"] => (rest, false),
        all => (all, !walk::is_on(&values)),
    };
    let (start, length) = match words {
        [at] => (address(at, &values), Some(BYTES)),
        [at, length] => (address(at, &values), count(length)),
        _ => return Ok(false),
    };
    let (Some(start), Some(length)) = (start, length) else { return Ok(false) };
    let length = length.clamp(1, MAX_BYTES);
    for offset in (0..length).step_by(LINE) {
        let at = start.wrapping_add(offset);
        let mut line = [0; LINE];
        let line = &mut line[..LINE.min((length - offset) as usize)];
        let read = read(guest, &values, physical, at, line);
        hex_line(at, line, read, out)?;
    }
    Ok(true)
}

/// Reads; returns how many bytes there were.
fn read(guest: &mut dyn Inspect, values: &Registers, physical: bool, at: u64, bytes: &mut [u8]) -> usize {
    let length = bytes.len();
    let mut reach = |at, bytes: &mut [u8]| guest.physical(at, bytes);
    if physical {
        return if reach(at, bytes) { length } else { 0 };
    }
    walk::read_linear(values, at, bytes, &mut reach).map_or(length, |bad| bad.wrapping_sub(at) as usize)
}

fn hex_line(at: u64, line: &[u8], read: usize, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{at:016x} ")?;
    for index in 0..LINE {
        let gap = if index == LINE / 2 { "  " } else { " " };
        match line.get(index) {
            Some(byte) if index < read => write!(out, "{gap}{byte:02x}")?,
            Some(_) => write!(out, "{gap}--")?,
            None => write!(out, "{gap}  ")?,
        }
    }
    write!(out, "  ")?;
    for byte in &line[..read.min(line.len())] {
        let printable = byte.is_ascii_graphic() || *byte == b' ';
        write!(out, "{}", if printable { char::from(*byte) } else { '.' })?;
    }
    writeln!(out)
}

/// `walk ADDR`. False: the argument is none.
///
/// # Errors
/// Those of the sink.
pub fn walk_tables(words: &[&str], guest: &mut dyn Inspect, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let values = guest.registers();
    let Some(linear) = words.first().and_then(|word| address(word, &values)) else { return Ok(false) };
    let mut result = Ok(());
    let mut each = |step: Step| result = result.and_then(|()| tell_step(&step, out));
    let end = walk::walk(&values, linear, &mut |at, bytes| guest.physical(at, bytes), &mut each);
    result?;
    match end {
        End::Page(physical, size) => {
            writeln!(out, "{linear:#x} is at {physical:#x}, in a page of {} KiB", size >> 10)
        }
        End::NotPresent => writeln!(out, "{linear:#x} is not mapped"),
        End::NoMemory => writeln!(out, "{linear:#x}: the tables lead to where there is no memory"),
        End::NotCanonical => writeln!(out, "{linear:#x} is not canonical"),
    }?;
    Ok(true)
}

fn tell_step(step: &Step, out: &mut dyn Write) -> fmt::Result {
    const BITS: [(u32, &str); 10] = [
        (0, "P"),
        (1, "W"),
        (2, "U"),
        (3, "PWT"),
        (4, "PCD"),
        (5, "A"),
        (6, "D"),
        (7, "PS/PAT"),
        (8, "G"),
        (63, "XD"),
    ];
    write!(out, "  {:5} ", step.name)?;
    match step.at {
        Some(at) => write!(out, "at {at:#014x}: ")?,
        None => write!(out, "in its register: ")?,
    }
    write!(out, "{:#018x}", step.entry)?;
    for (_, name) in BITS.iter().filter(|(bit, _)| step.entry >> bit & 1 != 0) {
        write!(out, " {name}")?;
    }
    writeln!(out)
}

/// `disasm [ADDR] [COUNT]`. False: the arguments are none.
///
/// # Errors
/// Those of the sink.
pub fn disassemble(words: &[&str], guest: &mut dyn Inspect, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let values = guest.registers();
    let base = values[Register::CsBase as usize];
    let current = values[Register::Rip as usize].wrapping_add(base);
    let (start, instructions) = match words {
        [] => (Some(current), Some(INSTRUCTIONS)),
        [at] => (address(at, &values), Some(INSTRUCTIONS)),
        [at, instructions] => (address(at, &values), count(instructions)),
        _ => return Ok(false),
    };
    let (Some(mut at), Some(instructions)) = (start, instructions) else { return Ok(false) };
    let bits = code_width(&values);
    let (mut formatter, mut text) = (FastFormatter::new(), String::new());
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_use_hex_prefix(true);
    formatter.options_mut().set_uppercase_hex(false);
    for _ in 0..instructions.clamp(1, MAX_INSTRUCTIONS) {
        let mut bytes = [0; MAX_LENGTH];
        let read = read(guest, &values, !walk::is_on(&values), at, &mut bytes);
        if read == 0 {
            writeln!(out, "  {at:016x}  cannot be read")?;
            break;
        }
        let mut decoder = Decoder::with_ip(bits, &bytes[..read], at.wrapping_sub(base), DecoderOptions::NONE);
        let instruction = decoder.decode();
        let length = if instruction.is_invalid() { 1 } else { instruction.len() };
        text.clear();
        formatter.format(&instruction, &mut text);
        let mark = if at == current { '>' } else { ' ' };
        write!(out, "{mark} {at:016x} ")?;
        bytes[..length].iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        writeln!(out, "{:width$} {text}", "", width = 2 * (10_usize.saturating_sub(length)))?;
        at = at.wrapping_add(length as u64);
    }
    Ok(true)
}

/// By the code segment, and by long mode.
fn code_width(values: &Registers) -> u32 {
    const EFER_LMA: u64 = 1 << 10;
    let access = values[Register::CsAccess as usize];
    match () {
        () if values[Register::Efer as usize] & EFER_LMA != 0 && access & 1 << 13 != 0 => 64,
        () if access & 1 << 14 != 0 => 32,
        () => 16,
    }
}

/// `log N`. False: not a number.
///
/// # Errors
/// Those of the sink.
pub fn entries(words: &[&str], guest: &mut dyn Inspect, out: &mut dyn Write) -> Result<bool, fmt::Error> {
    let Some(around) = words.first().and_then(|word| count(word)) else { return Ok(false) };
    guest.entries(around.clamp(1, MAX_ENTRIES) as usize, out)?;
    Ok(true)
}
