//! What was measured, and the rows that come of it.

use std::collections::BTreeMap;

use crate::report::{Goal, Report, Row};

/// The benchmark's name in its rows.
const BENCH: &str = "ft";
/// Scales, Nelson, Venkitachalam 2010, table 1 and table 2.
const PAPER: &str = "paper";
/// QEMU COLO as published: a bench of its authors and ours of an earlier session, on other machines.
const COLO: &str = "COLO";

/// The load whose run is part of every other.
pub const BASE: &str = "boot";
/// A kernel that does nothing: what starting and ending a guest takes.
pub const NOTHING: &str = "nothing";

/// One figure of the same thing, unprotected and protected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Unprotected.
    pub plain: f64,
    /// Protected.
    pub protected: f64,
}

impl Pair {
    fn minus(self, other: Pair) -> Pair {
        Pair { plain: self.plain - other.plain, protected: self.protected - other.protected }
    }
}

/// Emulated seconds of whole runs by load.
pub type Runs = BTreeMap<&'static str, Pair>;
/// Bytes per emulated second of streams by load.
pub type Streams = BTreeMap<&'static str, Pair>;

/// What a primary has told at the end of a protected run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// The load.
    pub load: &'static str,
    /// How far the backup was behind, at 99 of 100 acknowledgements, ns.
    pub lag_p99_ns: Option<f64>,
    /// And at most.
    pub lag_most_ns: Option<f64>,
    /// What the guest stood still for it, ns.
    pub stood_ns: Option<f64>,
    /// Instructions from the guest's transmit to the log entry on the wire, mean: ticks of the time-stamp counter, which the emulated
    /// machine advances by one for each.
    pub to_wire: Option<f64>,
    /// And no more than this in 99 of 100, by a histogram of powers of two.
    pub to_wire_p99: Option<f64>,
    /// What the logging card has sent, bits per second.
    pub log_bits: Option<f64>,
}

/// Pings, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Echo {
    /// Unprotected, median.
    pub plain_p50_ns: f64,
    /// Unprotected, 99 of 100.
    pub plain_p99_ns: f64,
    /// Protected, median.
    pub protected_p50_ns: f64,
    /// Protected, 99 of 100.
    pub protected_p99_ns: f64,
    /// The round trip of the logging network.
    pub logging_ns: f64,
}

/// A takeover, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Takeover {
    /// The longest time without an answer to a ping.
    pub gap_ns: f64,
    /// The longest time that a connection's client waited for an answer.
    pub connection_gap_ns: f64,
    /// From suspicion to the running guest.
    pub after_detection_ns: f64,
}

/// An idle guest, bits per second on the logging network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Idle {
    /// The log's frames, headers and all.
    pub log_bits: f64,
    /// Its TCP payload.
    pub payload_bits: f64,
    /// The acknowledgements' frames.
    pub ack_bits: f64,
    /// Heartbeats, both ways.
    pub heartbeat_bits: f64,
}

/// All of it; what was not measured is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Bytes that the streams carry.
    pub payload: u64,
    /// Loads.
    pub runs: Runs,
    /// Streams.
    pub streams: Streams,
    /// What primaries told.
    pub figures: Vec<Figures>,
    /// Pings.
    pub echo: Option<Echo>,
    /// Takeovers; none for one that a client saw as more than delay.
    pub takeovers: Vec<Option<Takeover>>,
    /// An idle guest.
    pub idle: Option<Idle>,
}

/// The table. Rows for which a run is missing are left out.
pub fn table(seen: &Seen) -> Report {
    let mut table = Table(Report::default());
    table.work(&seen.runs);
    table.streams(&seen.streams);
    table.echo(seen.echo.as_ref());
    table.takeovers(&seen.takeovers);
    table.primaries(&seen.figures);
    table.idle(seen.idle.as_ref());
    table.0
}

struct Table(Report);

/// What a load takes beside what another takes.
fn difference(runs: &Runs, load: &str, less: &str) -> Option<Pair> {
    Some(runs.get(load)?.minus(*runs.get(less)?))
}

/// The value that so many per mille of the values do not exceed.
fn quantile(mut values: Vec<f64>, per_mille: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * per_mille).div_ceil(1000).max(1) - 1;
    values.get(index).copied()
}

impl Table {
    fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// A row without a goal.
    fn inform(&mut self, name: &str, value: f64, unit: &str) {
        self.push(Row::new(BENCH, name, value, unit));
    }

    fn work(&mut self, runs: &Runs) {
        let rows = [
            ("cpu", BASE, 0.98, "SPECjbb 0.98"),
            ("gzip", BASE, 0.98, "kernel compile 0.95"),
            (BASE, NOTHING, 0.95, "kernel compile 0.95"),
            ("fork", BASE, 0.95, "kernel compile 0.95"),
            ("redis", "redis-start", 0.95, "Swingbench 0.99, DVD Store 0.94"),
        ];
        for (load, less, goal, reference) in rows {
            let Some(pair) = difference(runs, load, less) else { continue };
            let name = format!("{load}, work protected / unprotected");
            // Two starts may differ by more than a short load takes.
            let row = if pair.plain > 0.0 && pair.protected > 0.0 {
                Row::new(BENCH, &name, pair.plain / pair.protected, "")
            } else {
                Row::new(BENCH, &name, "too short to tell: take a larger --size", "")
            };
            self.push(row.goal(Goal::AtLeast(goal)).peer(PAPER, reference));
            self.inform(&format!("{load}, unprotected"), pair.plain, "s");
            self.inform(&format!("{load}, protected"), pair.protected, "s");
        }
    }

    fn streams(&mut self, streams: &Streams) {
        let rows = [
            ("netrx", "received", 0.92, "0.64 at 1 Gbit/s, 0.91 at 10"),
            ("nettx", "sent", 0.97, "0.91 at 1 Gbit/s, 0.99 at 10"),
        ];
        for (load, name, goal, reference) in rows {
            let Some(pair) = streams.get(load) else { continue };
            let row = Row::new(
                BENCH,
                &format!("stream {name}, protected / unprotected"),
                pair.protected / pair.plain,
                "",
            );
            self.push(row.goal(Goal::AtLeast(goal)).peer(PAPER, reference));
            self.inform(&format!("stream {name}, unprotected"), pair.plain * 8.0 / 1e6, "Mbit/s");
            self.inform(&format!("stream {name}, protected"), pair.protected * 8.0 / 1e6, "Mbit/s");
        }
    }

    fn echo(&mut self, echo: Option<&Echo>) {
        let Some(echo) = echo else { return };
        let added = echo.protected_p50_ns - echo.plain_p50_ns;
        let row = Row::new(
            BENCH,
            "ping, added beyond a logging round trip, median",
            (added - echo.logging_ns) / 1e3,
            "us",
        );
        self.push(row.goal(Goal::AtMost(50.0)).peer(COLO, "stalls up to 2 s"));
        self.inform("ping, added, median", added / 1e3, "us");
        self.inform("logging round trip", echo.logging_ns / 1e3, "us");
        self.inform("ping unprotected, median", echo.plain_p50_ns / 1e3, "us");
        self.inform("ping unprotected, p99", echo.plain_p99_ns / 1e3, "us");
        self.inform("ping protected, median", echo.protected_p50_ns / 1e3, "us");
        self.inform("ping protected, p99", echo.protected_p99_ns / 1e3, "us");
    }

    fn takeovers(&mut self, takeovers: &[Option<Takeover>]) {
        if takeovers.is_empty() {
            return;
        }
        let well: Vec<Takeover> = takeovers.iter().flatten().copied().collect();
        let all = format!("{0} of {0}", takeovers.len());
        let row = Row::new(
            BENCH,
            "takeovers that a client saw as delay only",
            &*format!("{} of {}", well.len(), takeovers.len()),
            "",
        );
        self.push(row.goal(Goal::Is(all.as_str().into())));
        let of = |value: fn(&Takeover) -> f64| well.iter().map(value).collect::<Vec<f64>>();
        let gaps = of(|takeover| takeover.gap_ns / 1e6);
        let after = of(|takeover| takeover.after_detection_ns / 1e6);
        let waits = of(|takeover| takeover.connection_gap_ns / 1e6);
        if let Some(value) = quantile(gaps.clone(), 990) {
            let row = Row::new(BENCH, "takeover, time without an answer, p99", value, "ms");
            self.push(
                row.goal(Goal::AtMost(350.0)).peer(COLO, "does not detect; told at once 49, TCP 190-240"),
            );
        }
        if let Some(value) = quantile(gaps, 500) {
            self.inform("takeover, time without an answer, median", value, "ms");
        }
        if let Some(value) = quantile(after, 990) {
            let row = Row::new(BENCH, "takeover after detection, p99", value, "ms");
            self.push(row.goal(Goal::AtMost(30.0)).peer(COLO, 49.0));
        }
        if let Some(value) = quantile(waits, 990) {
            self.inform("takeover, wait of a TCP client, p99", value, "ms");
        }
    }

    /// What primaries have told: the worst of the loads decides.
    fn primaries(&mut self, figures: &[Figures]) {
        let worst = |value: fn(&Figures) -> Option<f64>| {
            let known = figures.iter().filter_map(|figures| Some((value(figures)?, figures.load)));
            known.max_by(|one, other| one.0.total_cmp(&other.0))
        };
        if let Some((instructions, load)) = worst(|figures| figures.to_wire) {
            let name = format!("transmit to log entry on the wire, mean, worst load ({load})");
            self.push(Row::new(BENCH, &name, instructions, "instructions").goal(Goal::AtMost(5000.0)));
        }
        if let Some((instructions, load)) = worst(|figures| figures.to_wire_p99) {
            self.inform(
                &format!("transmit to log entry on the wire, p99, worst load ({load})"),
                instructions,
                "instructions",
            );
        }
        if let Some((lag, load)) = worst(|figures| figures.lag_p99_ns) {
            let row = Row::new(BENCH, &format!("execution lag, p99, worst load ({load})"), lag / 1e6, "ms");
            self.push(row.goal(Goal::AtMost(10.0)).peer(PAPER, "< 100"));
        }
        for figures in figures {
            let load = figures.load;
            let rows = [
                ("execution lag, p99", figures.lag_p99_ns, 1e6, "ms"),
                ("execution lag, at most", figures.lag_most_ns, 1e6, "ms"),
                ("the guest stood for its backup", figures.stood_ns, 1e6, "ms"),
                ("logging card sent", figures.log_bits, 1e6, "Mbit/s"),
            ];
            for (name, value, scale, unit) in rows {
                if let Some(value) = value {
                    self.inform(&format!("{load}: {name}"), value / scale, unit);
                }
            }
        }
    }

    fn idle(&mut self, idle: Option<&Idle>) {
        let Some(idle) = idle else { return };
        let row = Row::new(BENCH, "log rate, idle, on the wire", idle.log_bits / 1e3, "kbit/s");
        self.push(row.goal(Goal::AtMost(8.0)).peer(PAPER, "500-1500"));
        self.inform("log rate, idle, TCP payload", idle.payload_bits / 1e3, "kbit/s");
        self.inform("acknowledgements, idle, on the wire", idle.ack_bits / 1e3, "kbit/s");
        self.inform("heartbeats on the logging network, both ways", idle.heartbeat_bits / 1e3, "kbit/s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Value;

    fn find<'r>(report: &'r Report, name: &str) -> &'r Row {
        report.rows.iter().find(|row| row.row.starts_with(name)).unwrap_or_else(|| panic!("no {name}"))
    }

    fn number(report: &Report, name: &str) -> f64 {
        match &find(report, name).value {
            Value::Number(number) => *number,
            Value::Text(text) => panic!("{name} is {text}"),
        }
    }

    fn pair(plain: f64, protected: f64) -> Pair {
        Pair { plain, protected }
    }

    #[test]
    fn a_load_that_vanishes_between_two_starts_has_no_ratio() {
        let runs: Runs = [("redis-start", pair(2.0, 2.5)), ("redis", pair(1.9, 2.6))].into();
        let report = table(&Seen { runs, ..Seen::default() });
        let row = find(&report, "redis, work");
        assert!(matches!(&row.value, Value::Text(text) if text.contains("--size")) && !row.met());
    }

    #[test]
    fn a_load_is_what_it_adds() {
        let runs: Runs =
            [(NOTHING, pair(1.0, 1.5)), (BASE, pair(2.0, 2.75)), ("cpu", pair(3.0, 3.75))].into();
        let report = table(&Seen { runs, ..Seen::default() });
        assert_eq!(number(&report, "boot, work"), 1.0 / 1.25);
        assert_eq!(number(&report, "cpu, work"), 1.0);
        assert!(!find(&report, "boot, work").met() && find(&report, "cpu, work").met());
        assert!(!report.rows.iter().any(|row| row.row.starts_with("redis")), "it was not run");
        assert!(!report.met());
    }

    #[test]
    fn streams_are_rates_and_not_times() {
        let streams: Streams = [("netrx", pair(1e8, 0.93e8)), ("nettx", pair(1e8, 0.96e8))].into();
        let report = table(&Seen { streams, ..Seen::default() });
        assert!(find(&report, "stream received, protected /").met());
        assert!(!find(&report, "stream sent, protected /").met());
        assert_eq!(number(&report, "stream received, unprotected"), 800.0);
    }

    #[test]
    fn a_ping_may_take_a_round_trip_more() {
        let echo = Echo {
            plain_p50_ns: 210e3,
            plain_p99_ns: 220e3,
            protected_p50_ns: 460e3,
            protected_p99_ns: 500e3,
            logging_ns: 205e3,
        };
        let report = table(&Seen { echo: Some(echo), ..Seen::default() });
        assert_eq!(number(&report, "ping, added beyond"), 45.0);
        assert!(report.met());
        let slow = Echo { protected_p50_ns: 470e3, ..echo };
        assert!(!table(&Seen { echo: Some(slow), ..Seen::default() }).met());
    }

    #[test]
    fn one_takeover_that_a_client_saw_fails_the_row() {
        let well = Takeover { gap_ns: 305e6, connection_gap_ns: 500e6, after_detection_ns: 4e6 };
        let slow = Takeover { gap_ns: 351e6, ..well };
        let report = table(&Seen { takeovers: vec![Some(well); 20], ..Seen::default() });
        assert!(report.met(), "{}", report.table());
        let report = table(&Seen { takeovers: vec![Some(well), None], ..Seen::default() });
        assert_eq!(find(&report, "takeovers").value, "1 of 2".into());
        assert!(!report.met());
        let takeovers = [vec![Some(well); 19], vec![Some(slow)]].concat();
        let report = table(&Seen { takeovers, ..Seen::default() });
        assert_eq!(number(&report, "takeover, time without an answer, p99"), 351.0);
        assert_eq!(number(&report, "takeover, time without an answer, median"), 305.0);
        assert!(!report.met());
    }

    #[test]
    fn the_worst_load_decides() {
        let figures =
            |load, lag, wire| Figures { load, lag_p99_ns: Some(lag), to_wire: wire, ..Figures::default() };
        let told = vec![figures("cpu", 4e6, Some(4000.0)), figures("fork", 11e6, None)];
        let report = table(&Seen { figures: told, ..Seen::default() });
        assert_eq!(number(&report, "execution lag, p99, worst load (fork)"), 11.0);
        assert_eq!(number(&report, "transmit to log entry on the wire, mean, worst load (cpu)"), 4000.0);
        assert_eq!(report.rows.iter().filter(|row| !row.met()).count(), 1);
    }

    #[test]
    fn quantiles() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(values.clone(), 990), Some(99.0));
        assert_eq!(quantile(values, 500), Some(50.0));
        assert_eq!((quantile(vec![7.0], 990), quantile(vec![], 990)), (Some(7.0), None));
    }
}
