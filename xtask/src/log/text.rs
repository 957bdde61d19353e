//! Entries in words.

use std::fmt::Write as _;

use replay::check::Check;
use replay::log::entry::{Correction, Event, Place};
use replay::log::header::Header;
use serde_json::{Value, json};

use super::item::{self, Item};

/// The most of a payload that a line shows, bytes.
const EXCERPT: usize = 40;

/// Where, in words.
pub fn place(place: &Place, check: Option<Check>) -> String {
    let check = check.map_or(String::new(), |check| format!(" check {check}"));
    match place {
        Place::Exit(at) => format!("exit {at}{check}"),
        Place::Halted(at) => format!("halted {at}{check}"),
        Place::Between { point, repeating, breakpoint } => {
            let mut text = format!("n {} rip {:x}", point.n, point.rip);
            if *repeating {
                let _ = write!(text, " rcx {:x}", point.rcx);
            }
            if !*breakpoint && !*repeating {
                text += " stepped";
            }
            text + &check
        }
    }
}

/// What, in words.
pub fn event(event: &Event<'_>) -> String {
    match *event {
        Event::Look(None) => "look".into(),
        Event::Look(Some(Correction { rate, step })) => {
            format!("look, rate {:.6} ns, step {step} ns", rate as f64 / 2_f64.powi(32))
        }
        Event::WakeAfterDue(0) => "wake when due".into(),
        Event::WakeAfterDue(ns) => format!("wake when due + {}", time(ns)),
        Event::Wake(ns) => format!("wake after {}", time(ns)),
        Event::Console(bytes) => format!("console {} bytes {}", bytes.len(), excerpt(bytes)),
        Event::SideConsole(bytes) => format!("side-console {} bytes {}", bytes.len(), excerpt(bytes)),
        Event::Frame { device, frame } => {
            format!("frame net{device} {} bytes {}", frame.len(), ethernet(&frame.parts().concat()))
        }
        Event::Starved { device } => format!("starved net{device}"),
        Event::Link { device, up } => format!("link net{device} {}", if up { "up" } else { "down" }),
        Event::PowerButton => "power button".into(),
        Event::Reset => "reset button".into(),
        Event::Output => "output".into(),
        Event::Hash(hash) => format!("hash {hash:016x}"),
        Event::Checkpoint(digest) => format!("checkpoint, digest of {} bytes", digest.len()),
        Event::End(why) => format!("end: {why}"),
    }
}

/// An entry on a line.
pub fn line(item: &Item<'_>) -> String {
    let Item { number, entry, length, .. } = item;
    format!("{number:>8}  {:44} {}  ({length} B)", place(&entry.place, entry.check), event(&entry.event))
}

/// An entry as JSON.
pub fn object(item: &Item<'_>) -> Value {
    let entry = &item.entry;
    let mut value = json!({
        "entry": item.number,
        "place": item::place(&entry.place),
        "kind": item::kind(&entry.event),
        "block": item.block,
        "at": item.at,
        "bytes": item.length,
    });
    let mut set = |key: &str, set: Value| value[key] = set;
    match entry.place {
        Place::Exit(at) | Place::Halted(at) => {
            set("exit", at.into());
        }
        Place::Between { point, repeating, breakpoint } => {
            set("n", point.n.into());
            set("rip", format!("{:#x}", point.rip).into());
            if repeating {
                set("rcx", point.rcx.into());
            }
            set("breakpoint", breakpoint.into());
        }
    }
    if let Some(check) = entry.check {
        set("check", check.to_string().into());
    }
    match entry.event {
        Event::Look(Some(Correction { rate, step })) => {
            set("rate", rate.into());
            set("step", step.into());
        }
        Event::WakeAfterDue(ns) | Event::Wake(ns) => set("ns", ns.into()),
        Event::Console(bytes) | Event::SideConsole(bytes) | Event::Checkpoint(bytes) => {
            set("data", hex(bytes).into());
        }
        Event::Frame { device, frame } => {
            set("device", device.into());
            set("data", hex(&frame.parts().concat()).into());
        }
        Event::Starved { device } => set("device", device.into()),
        Event::Link { device, up } => {
            set("device", device.into());
            set("up", up.into());
        }
        Event::Hash(hash) => set("hash", format!("{hash:#018x}").into()),
        Event::End(why) => set("why", why.into()),
        Event::Look(None) | Event::PowerButton | Event::Reset | Event::Output => {}
    }
    value
}

/// The header, a line for each field but the configuration.
pub fn header(header: &Header<'_>) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("kernel", header.kernel.into()),
        ("profile", format!("{} ({:016x})", header.profile.name, header.profile.hash)),
        ("processor", format!("signature {:#010x}", header.signature)),
        ("memory", format!("{} MiB", header.memory >> 20)),
        ("seed", hex(&header.seed)),
        ("wall clock", format!("{} s since 1970", header.wall_clock)),
        ("rate", format!("{:.6} ns per instruction", header.rate as f64 / 2_f64.powi(32))),
        ("paging", header.paging.to_string()),
        (
            "checkpoints",
            match header.checkpoint {
                0 => "none".into(),
                ms => format!("every {ms} ms of guest time"),
            },
        ),
        ("configuration", format!("{} lines", header.config.lines().count())),
    ];
    for module in header.modules.as_slice() {
        fields.push(("module", format!("{} {} bytes crc32 {:08x}", module.name, module.length, module.crc)));
    }
    fields
}

/// Nanoseconds, readable.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.3} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The beginning of a text.
fn excerpt(bytes: &[u8]) -> String {
    let (shown, more) = match bytes.get(..EXCERPT) {
        Some(first) => (first, "..."),
        None => (bytes, ""),
    };
    format!("\"{}\"{more}", shown.escape_ascii())
}

/// Who sends a frame to whom, and what.
fn ethernet(frame: &[u8]) -> String {
    let Some((head, _)) = frame.split_first_chunk::<14>() else { return "too short for Ethernet".into() };
    let address = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    let protocol = match u16::from_be_bytes([head[12], head[13]]) {
        0x0800 => "IPv4".into(),
        0x0806 => "ARP".into(),
        0x86DD => "IPv6".into(),
        other => format!("type {other:04x}"),
    };
    format!("{} > {} {protocol}", address(&head[6..12]), address(&head[..6]))
}
