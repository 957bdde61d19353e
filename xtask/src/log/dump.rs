//! A log entry by entry.

use std::io::{self, Write};

use replay::log::codec::Mark;
use replay::log::open::Log;
use serde_json::json;

use super::item::items;
use super::select::Selection;
use super::{item, text};

/// How it is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// One JSON object per line.
    pub json: bool,
    /// All bytes that came in.
    pub hex: bool,
    /// The recorded configuration as well.
    pub config: bool,
}

/// Bytes on a line of a hex dump.
const ROW: usize = 16;

/// Writes the log.
///
/// # Errors
/// It cannot be written.
pub fn dump(log: &Log<'_>, select: &Selection, style: Style, out: &mut dyn Write) -> io::Result<()> {
    header(log, style, out)?;
    let mut block = 0;
    for item in items(log).filter(|item| select.has(item)) {
        if style.json {
            writeln!(out, "{}", text::object(&item))?;
            continue;
        }
        if block != item.block {
            block = item.block;
            let virtual_ns = item.reached.virtual_ns;
            writeln!(out, "-- block {block}, from {} of guest time on", text::time(virtual_ns))?;
        }
        writeln!(out, "{}", text::line(&item))?;
        if style.hex {
            let payload = item::payload(&item.entry.event);
            for (row, bytes) in payload.chunks(ROW).enumerate() {
                writeln!(out, "            {:04x}  {}", row * ROW, text::hex(bytes))?;
            }
        }
    }
    if let Some(Mark { n, exits, virtual_ns }) = log.end() {
        match style.json {
            true => writeln!(out, "{}", json!({"end": {"n": n, "exits": exits, "virtual_ns": virtual_ns}}))?,
            false => writeln!(out, "-- the end: n {n}, exit {exits}, {}", text::time(virtual_ns))?,
        }
    }
    Ok(())
}

fn header(log: &Log<'_>, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let header = log.header();
    if style.json {
        let modules = header.modules.as_slice().iter().map(|module| {
            json!({"name": module.name, "bytes": module.length, "crc32": format!("{:08x}", module.crc)})
        });
        let header = json!({
            "kernel": header.kernel,
            "config": header.config,
            "modules": modules.collect::<Vec<_>>(),
            "profile": header.profile.name,
            "profile_hash": format!("{:016x}", header.profile.hash),
            "signature": header.signature,
            "memory": header.memory,
            "seed": text::hex(&header.seed),
            "wall_clock": header.wall_clock,
            "rate": header.rate,
            "paging": header.paging.to_string(),
            "checkpoint_ms": header.checkpoint,
        });
        return writeln!(out, "{}", json!({ "header": header }));
    }
    for (name, value) in text::header(header) {
        writeln!(out, "{name:14}{value}")?;
    }
    if style.config {
        for line in header.config.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    for note in log.notes() {
        for line in note.lines() {
            writeln!(out, "{:14}{line}", "note")?;
        }
    }
    writeln!(out, "{:14}{} in {} blocks, {} bytes", "entries", log.entries(), log.blocks(), log.bytes().len())
}
