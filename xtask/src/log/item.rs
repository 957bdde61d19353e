//! Entries with what a log says about them beside: number, place in the file, and how far the guest is known to have come.

use replay::log::block::Kind;
use replay::log::codec::{Codec, Mark};
use replay::log::entry::{Entry, Event, Place};
use replay::log::open::Log;

/// An entry in its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Item<'l> {
    /// Its number, from 0 on.
    pub number: u64,
    /// The number of its block.
    pub block: u64,
    /// Where it begins, bytes from the log's beginning.
    pub at: usize,
    /// Its length, bytes.
    pub length: usize,
    /// How far the guest has come at least: N and synchronous exits of the latest place that says them; the virtual time of
    /// the block's beginning.
    pub reached: Mark,
    /// What the log says.
    pub entry: Entry<'l>,
}

/// All entries of a log.
pub fn items<'l>(log: &Log<'l>) -> impl Iterator<Item = Item<'l>> + use<'l> {
    let mut number = 0;
    let mut reached = Mark::default();
    let mut codec = Codec::new();
    log.walk().filter(|block| block.kind == Kind::Entries).flat_map(move |block| {
        // The log was checked when it was opened.
        let start = block.mark().unwrap_or_default();
        reached = Mark { n: reached.n.max(start.n), exits: reached.exits.max(start.exits), ..start };
        let Ok(mut reader) = block.entries(std::mem::take(&mut codec)) else { return Vec::new() };
        let mut items = Vec::new();
        loop {
            let from = reader.at();
            let Some(Ok(entry)) = reader.next() else { break };
            match entry.place {
                Place::Exit(at) | Place::Halted(at) => reached.exits = at,
                Place::Between { point, .. } => reached.n = point.n,
            }
            let (at, length) = (block.body_at + from, reader.at() - from);
            items.push(Item { number, block: block.sequence, at, length, reached, entry });
            number += 1;
        }
        codec = reader.into_codec();
        items
    })
}

/// The kinds of events, by the names that people use.
pub const KINDS: [&str; 15] = [
    "look",
    "correction",
    "wake",
    "wake-after-due",
    "console",
    "side-console",
    "frame",
    "starved",
    "link",
    "power-button",
    "reset",
    "output",
    "hash",
    "checkpoint",
    "end",
];

/// The name of an event's kind: one of [`KINDS`].
pub fn kind(event: &Event<'_>) -> &'static str {
    match event {
        Event::Look(None) => "look",
        Event::Look(Some(_)) => "correction",
        Event::Wake(_) => "wake",
        Event::WakeAfterDue(_) => "wake-after-due",
        Event::Console(_) => "console",
        Event::SideConsole(_) => "side-console",
        Event::Frame { .. } => "frame",
        Event::Starved { .. } => "starved",
        Event::Link { .. } => "link",
        Event::PowerButton => "power-button",
        Event::Reset => "reset",
        Event::Output => "output",
        Event::Hash(_) => "hash",
        Event::Checkpoint(_) => "checkpoint",
        Event::End(_) => "end",
    }
}

/// The bytes that came from outside and that nobody could have left out.
pub fn payload(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Console(bytes) | Event::SideConsole(bytes) => bytes.to_vec(),
        Event::Frame { frame, .. } => frame.parts().concat(),
        _ => Vec::new(),
    }
}

/// The name of a place's kind.
pub fn place(place: &Place) -> &'static str {
    match place {
        Place::Exit(_) => "exit",
        Place::Halted(_) => "halted",
        Place::Between { .. } => "between",
    }
}
