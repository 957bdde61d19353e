//! What was measured, and the rows that come of it.

use std::collections::BTreeMap;

use crate::report::{Goal, Report, Row};

/// The benchmark's name in its rows.
const BENCH: &str = "replay";
/// The peer's name.
const PEER: &str = "QEMU record/replay";

/// One run of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// What the run took: instructions of the emulated host, or seconds of the peer's processor time.
    pub cost: f64,
    /// Bytes of the log; 0 where nothing was recorded.
    pub bytes: f64,
    /// Seconds of the guest's clock.
    pub guest_seconds: f64,
    /// Instructions of the guest.
    pub instructions: f64,
}

/// Runs by load.
pub type Runs = BTreeMap<&'static str, Run>;

/// One replay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// The load.
    pub load: &'static str,
    /// It ended in the identical state.
    pub equal: bool,
    /// What it took: seconds of the emulated host, or of the peer's processor time; not a number where that does not count.
    pub seconds: f64,
    /// What the recording took, in the same, without the time in which the guest was halted.
    pub recorded: f64,
    /// Landings.
    pub landings: u64,
    /// Exits that they took.
    pub landing_exits: u64,
}

/// What one of the two has reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Not recorded.
    pub plain: Runs,
    /// Recorded: strict paging, or as the peer does it.
    pub recorded: Runs,
    /// Recorded with fast paging.
    pub fast: Runs,
    /// Replays.
    pub replays: Vec<Replayed>,
    /// Entries for timer interrupts, and their bytes.
    pub timer: (u64, u64),
}

/// The load whose run is part of every other.
pub const BASE: &str = "boot";
/// A kernel that does nothing: what firmware, loader and hypervisor take.
pub const NOTHING: &str = "nothing";

impl Side {
    /// The log of a load by itself, bytes per second of guest time.
    fn bytes_per_second(&self, load: &str) -> Option<f64> {
        let run = difference(&self.recorded, load, BASE)?;
        Some(run.bytes / run.guest_seconds)
    }

    /// The log of a load by itself, bytes per byte of payload.
    fn bytes_per_byte(&self, load: &str, payload: f64) -> Option<f64> {
        difference(&self.recorded, load, BASE).map(|run| run.bytes / payload)
    }

    /// The log of the boot, bytes per 1000 instructions of the guest.
    fn bytes_per_thousand(&self) -> Option<f64> {
        self.recorded.get(BASE).map(|run| run.bytes / run.instructions * 1e3)
    }

    /// Guest work per unit of cost while recording, over the same without recording.
    fn work(&self, recorded: &Runs, load: &str) -> Option<f64> {
        let less = if load == BASE { NOTHING } else { BASE };
        let plain = difference(&self.plain, load, less)?.cost;
        Some(plain / difference(recorded, load, less)?.cost)
    }

    /// What replays take over what recording took, the worst load, and its name.
    fn replay_over_record(&self) -> Option<(f64, &'static str)> {
        let ratio = |replay: &Replayed| (replay.seconds / replay.recorded, replay.load);
        let known = self.replays.iter().map(ratio).filter(|(ratio, _)| ratio.is_finite());
        known.max_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// The same of one load.
    fn replay_over_record_of(&self, load: &str) -> Option<f64> {
        let of_load: Vec<f64> = self
            .replays
            .iter()
            .filter(|replay| replay.load == load)
            .map(|replay| replay.seconds / replay.recorded)
            .filter(|ratio| ratio.is_finite())
            .collect();
        (!of_load.is_empty()).then(|| of_load.iter().sum::<f64>() / of_load.len() as f64)
    }

    fn exits_per_landing(&self) -> Option<f64> {
        let landings: u64 = self.replays.iter().map(|replay| replay.landings).sum();
        let exits: u64 = self.replays.iter().map(|replay| replay.landing_exits).sum();
        (landings > 0).then(|| exits as f64 / landings as f64)
    }

    fn equal(&self) -> String {
        let equal = self.replays.iter().filter(|replay| replay.equal).count();
        format!("{equal} of {}", self.replays.len())
    }
}

/// What a load takes beside what another takes. The loads' noise must not make a ratio of nothing.
fn difference(runs: &Runs, load: &str, less: &str) -> Option<Run> {
    let (all, less) = (runs.get(load)?, runs.get(less)?);
    Some(Run {
        cost: all.cost - less.cost,
        bytes: all.bytes - less.bytes,
        guest_seconds: all.guest_seconds - less.guest_seconds,
        instructions: all.instructions - less.instructions,
    })
}

/// The table. `payload`: bytes that the network loads carry. Rows for which a run is missing are left out.
pub fn table(ours: &Side, peer: Option<&Side>, payload: f64) -> Report {
    let mut table = Table { report: Report::default(), ours, peer };
    let bytes = "bytes";
    table.row("log of the boot, per 1000 instructions", bytes, Goal::AtMost(0.05), Side::bytes_per_thousand);
    for (load, limit) in [("idle", 1000.0), ("cpu", 3000.0), ("fork", 5000.0), ("disk", 3000.0)] {
        let name = format!("log of {load}, per guest second");
        table.row(&name, bytes, Goal::AtMost(limit), |side| side.bytes_per_second(load));
    }
    for (load, name, limit) in [("netrx", "received", 1.02), ("nettx", "sent", 0.01)] {
        let name = format!("log of the network, per byte {name}");
        table.row(&name, bytes, Goal::AtMost(limit), |side| side.bytes_per_byte(load, payload));
    }
    for load in ["cpu", "gzip"] {
        let name = format!("{load}, recording against not recording");
        table.row(&name, "", Goal::AtLeast(0.99), |side| side.work(&side.recorded, load));
    }
    for load in ["boot", "fork"] {
        let name = format!("{load}, recording against not, fast");
        table.own(&name, "", Goal::AtLeast(0.97), |side| side.work(&side.fast, load));
        let name = format!("{load}, recording against not, strict");
        table.row(&name, "", Goal::AtLeast(0.85), |side| side.work(&side.recorded, load));
    }
    let worst = ours.replay_over_record().map_or("", |(_, load)| load);
    let name = format!("replay against record, idle skipped, worst load ({worst})");
    table.row(&name, "", Goal::AtMost(1.0), |side| side.replay_over_record().map(|(ratio, _)| ratio));
    let loads: Vec<&'static str> = ours.recorded.keys().copied().collect();
    for load in loads {
        let name = format!("replay against record, {load}");
        table.inform(&name, |side| side.replay_over_record_of(load));
    }
    table.own("exits per landing, mean", "", Goal::AtMost(12.0), Side::exits_per_landing);
    table.own("log of a timer interrupt", bytes, Goal::AtMost(8.0), |side| {
        let (entries, bytes) = side.timer;
        (entries > 0).then(|| bytes as f64 / entries as f64)
    });
    table.equal();
    table.report
}

struct Table<'t> {
    report: Report,
    ours: &'t Side,
    peer: Option<&'t Side>,
}

impl Table<'_> {
    /// A row with the peer's value.
    fn row(&mut self, name: &str, unit: &str, goal: Goal, of: impl Fn(&Side) -> Option<f64>) {
        let peer = self.peer.and_then(&of);
        self.push(name, unit, Some(goal), of(self.ours), peer);
    }

    /// A row that only we have.
    fn own(&mut self, name: &str, unit: &str, goal: Goal, of: impl Fn(&Side) -> Option<f64>) {
        self.push(name, unit, Some(goal), of(self.ours), None);
    }

    /// A row without a goal.
    fn inform(&mut self, name: &str, of: impl Fn(&Side) -> Option<f64>) {
        let peer = self.peer.and_then(&of);
        self.push(name, "", None, of(self.ours), peer);
    }

    fn push(&mut self, name: &str, unit: &str, goal: Option<Goal>, value: Option<f64>, peer: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let mut row = Row::new(BENCH, name, value, unit);
        row.goal = goal;
        if let Some(peer) = peer.filter(|peer| peer.is_finite()) {
            row = row.peer(PEER, peer);
        }
        self.report.push(row);
    }

    /// How many replays ended in the identical state.
    fn equal(&mut self) {
        if self.ours.replays.is_empty() {
            return;
        }
        let all = format!("{0} of {0}", self.ours.replays.len());
        let row = Row::new(BENCH, "replays that end in the identical state", self.ours.equal().as_str(), "");
        let mut row = row.goal(Goal::Is(all.as_str().into()));
        if let Some(peer) = self.peer.filter(|peer| !peer.replays.is_empty()) {
            row = row.peer(PEER, peer.equal().as_str());
        }
        self.report.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Value;

    fn run(cost: f64, bytes: f64, guest_seconds: f64) -> Run {
        Run { cost, bytes, guest_seconds, instructions: 1e6 }
    }

    fn side() -> Side {
        let plain =
            [(NOTHING, run(10.0, 0.0, 0.0)), (BASE, run(110.0, 0.0, 1.0)), ("cpu", run(210.0, 0.0, 2.0))];
        let strict =
            [(NOTHING, run(10.0, 5.0, 0.0)), (BASE, run(120.0, 40.0, 1.0)), ("cpu", run(221.0, 2040.0, 2.0))];
        let replay = Replayed {
            load: "cpu",
            equal: true,
            seconds: 0.9,
            recorded: 1.0,
            landings: 4,
            landing_exits: 20,
        };
        let slow = Replayed { load: BASE, seconds: 1.1, ..replay.clone() };
        Side {
            plain: plain.into(),
            recorded: strict.into(),
            fast: Runs::new(),
            replays: vec![replay, slow],
            timer: (10, 60),
        }
    }

    fn value(report: &Report, name: &str) -> f64 {
        let row =
            report.rows.iter().find(|row| row.row.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        match row.value {
            Value::Number(number) => number,
            Value::Text(_) => panic!("{name} is a word"),
        }
    }

    #[test]
    fn a_load_is_what_it_adds() {
        let report = table(&side(), None, 1.0);
        assert_eq!(value(&report, "log of the boot"), 0.04);
        assert_eq!(value(&report, "log of cpu"), 2000.0);
        assert_eq!(value(&report, "cpu, recording"), 100.0 / 101.0);
        assert_eq!(value(&report, "boot, recording against not, strict"), 100.0 / 110.0);
        assert_eq!(value(&report, "exits per landing"), 5.0);
        assert_eq!(value(&report, "log of a timer interrupt"), 6.0);
        let names: Vec<&str> = report.rows.iter().map(|row| row.row.as_str()).collect();
        assert!(!names.iter().any(|name| name.contains("idle,") || name.contains("fast")), "{names:?}");
    }

    #[test]
    fn the_worst_load_decides() {
        let report = table(&side(), None, 1.0);
        assert_eq!(value(&report, "replay against record, idle skipped, worst load (boot)"), 1.1);
        assert!(!report.met());
        let mut better = side();
        better.replays[1].seconds = 1.0;
        assert!(table(&better, None, 1.0).met());
        better.replays[0].equal = false;
        assert!(!table(&better, None, 1.0).met(), "one replay is not equal");
    }

    #[test]
    fn the_peer_stands_beside() {
        let report = table(&side(), Some(&side()), 1.0);
        let row = report.rows.iter().find(|row| row.row.starts_with("log of cpu")).unwrap();
        assert_eq!(row.peer_value, Some(Value::Number(2000.0)));
        let row = report.rows.last().unwrap();
        assert_eq!((&row.value, &row.peer_value), (&"2 of 2".into(), &Some("2 of 2".into())));
    }
}
