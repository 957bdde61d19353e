//! How far a recording or a replay is, from what the console has said so far.

use std::time::Duration;

use super::lines::Fields;
use super::sidecar::ResultFacts;

/// Follows a console that grows.
#[derive(Debug, Default)]
pub struct Progress {
    /// How much of the console has been read.
    read: usize,
    /// The newest line of progress.
    newest: Option<Fields>,
    /// Checkpoints that were equal, and those that were not.
    pub checkpoints: (u64, u64),
    /// The kernel has said how it ended.
    pub ended: Option<Fields>,
    /// The kernel has begun to record or to replay.
    pub started: bool,
}

impl Progress {
    /// Reads what the console has said since the last call, in lines `@@ WORD ...`. True if there was one.
    pub fn see(&mut self, console: &str, word: &str) -> bool {
        let new = console.get(self.read..).unwrap_or_default();
        let Some(end) = new.rfind('\n') else { return false };
        self.read += end + 1;
        let mut any = false;
        for fields in super::lines::of(&new[..end], word) {
            any = true;
            match fields.event() {
                "started" => self.started = true,
                "progress" => self.newest = Some(fields),
                "checkpoint" if fields.get("equal") == Some("false") => self.checkpoints.1 += 1,
                "checkpoint" => self.checkpoints.0 += 1,
                "ended" => self.ended = Some(fields),
                _ => {}
            }
        }
        any
    }

    /// The newest value of a key.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.newest.as_ref()?.number(key)
    }

    /// How far a replay is, as a sentence; `recorded` is what is known of the recording, `elapsed` the wall-clock time since the
    /// replay has begun.
    pub fn of_replay(&self, recorded: Option<&ResultFacts>, elapsed: Duration) -> String {
        let Some(entry) = self.number("entry") else { return String::new() };
        let entries = match recorded.map(|facts| facts.entries) {
            Some(all @ 1..) => format!("entry {entry} of {all}"),
            _ => format!("entry {entry}"),
        };
        let guest = seconds(self.number("virtual-ns").unwrap_or_default());
        let speed = recorded.and_then(|facts| self.speed(facts, elapsed));
        let speed =
            speed.map(|times| format!(", {times:.1} times the recording's speed")).unwrap_or_default();
        let (equal, _) = self.checkpoints;
        let checkpoints = if equal == 0 { String::new() } else { format!(", {equal} checkpoints equal") };
        format!("{entries}, {guest:.1} s of the guest{speed}{checkpoints}")
    }

    /// Guest time per wall-clock time here, over the same of the recording.
    fn speed(&self, recorded: &ResultFacts, elapsed: Duration) -> Option<f64> {
        let here = seconds(self.number("virtual-ns")?) / elapsed.as_secs_f64();
        let there = seconds(recorded.virtual_ns) / recorded.seconds;
        (here.is_finite() && there.is_finite() && there > 0.0).then(|| here / there)
    }

    /// How far a recording is; `bytes` have arrived.
    pub fn of_recording(&self, bytes: u64) -> String {
        let guest = self.number("virtual-ns").map(|ns| format!("{:.1} s of the guest, ", seconds(ns)));
        format!("{}{} of log", guest.unwrap_or_default(), size(bytes))
    }
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_followed() {
        let mut console = "boot\n@@ replay event=started\n".to_owned();
        let mut progress = Progress::default();
        assert!(progress.see(&console, "replay") && progress.started);
        assert!(!progress.see(&console, "replay"));
        console += "guest @@ replay event=progress entry=5 exits=7 instructions=9 virtual-ns=2000000000\n@@ replay event=chec";
        assert!(progress.see(&console, "replay"));
        let facts =
            ResultFacts { entries: 50, virtual_ns: 4_000_000_000, seconds: 8.0, ..ResultFacts::default() };
        assert_eq!(
            progress.of_replay(Some(&facts), Duration::from_secs(2)),
            "entry 5 of 50, 2.0 s of the guest, 2.0 times the recording's speed"
        );
        assert_eq!(progress.of_replay(None, Duration::from_secs(1)), "entry 5, 2.0 s of the guest");
        console += "kpoint number=1 equal=true\n@@ replay event=checkpoint number=2 equal=false\n";
        progress.see(&console, "replay");
        assert_eq!(progress.checkpoints, (1, 1));
        assert!(progress.ended.is_none());
        console += "@@ replay event=ended verdict=diverged\n";
        progress.see(&console, "replay");
        assert_eq!(progress.ended.as_ref().unwrap().get("verdict"), Some("diverged"));
        // A recording that has said nothing yet.
        assert_eq!(Progress::default().of_recording(12_345), "12.3 kB of log");
    }
}
