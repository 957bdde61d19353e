//! Rows of a benchmark or a proof: a table for people, one JSON object per line for programs, a verdict for both.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

/// What a row holds: a measured number, or a word such as `pass`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A quantity in the row's unit.
    Number(f64),
    /// A word; no unit.
    Text(String),
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Number(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Number(number as f64)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl Value {
    fn show(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Number(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("{n:.0}"),
            Value::Number(n) if n.abs() >= 100.0 => format!("{n:.1}"),
            Value::Number(n) => format!("{n:.3}"),
        }
    }
}

/// What the value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// The value must not exceed this.
    AtMost(f64),
    /// The value must reach this.
    AtLeast(f64),
    /// The value must be exactly this.
    Is(Value),
}

impl Goal {
    /// Whether `value` meets the goal. A word never meets a numeric goal.
    pub fn met_by(&self, value: &Value) -> bool {
        match (self, value) {
            (Goal::AtMost(limit), Value::Number(n)) => n <= limit,
            (Goal::AtLeast(limit), Value::Number(n)) => n >= limit,
            (Goal::Is(wanted), got) => wanted == got,
            _ => false,
        }
    }

    fn show(&self) -> String {
        match self {
            Goal::AtMost(limit) => format!("<= {}", Value::Number(*limit).show()),
            Goal::AtLeast(limit) => format!(">= {}", Value::Number(*limit).show()),
            Goal::Is(value) => value.show(),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.show())
    }
}

/// One line of a report. `peer` names what the value is compared with, `peer_value` is what the peer reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The benchmark or proof, as on the command line: `emulator`, `pmu`.
    pub bench: String,
    /// What was measured or proved.
    pub row: String,
    /// The outcome.
    pub value: Value,
    /// The value's unit; empty for words and plain ratios.
    pub unit: String,
    /// What the value must be; `None` for a row that only informs.
    pub goal: Option<Goal>,
    /// Whom we compare with.
    pub peer: Option<String>,
    /// What the peer reached, in the same unit.
    pub peer_value: Option<Value>,
}

impl Row {
    /// A row that only informs; add a goal or a peer with the methods below.
    pub fn new(bench: &str, row: &str, value: impl Into<Value>, unit: &str) -> Self {
        Row {
            bench: bench.into(),
            row: row.into(),
            value: value.into(),
            unit: unit.into(),
            goal: None,
            peer: None,
            peer_value: None,
        }
    }

    /// Sets what the value must be.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Names the peer and what it reached.
    pub fn peer(mut self, peer: &str, value: impl Into<Value>) -> Self {
        self.peer = Some(peer.into());
        self.peer_value = Some(value.into());
        self
    }

    /// Whether the row meets its goal; a row without one always does.
    pub fn met(&self) -> bool {
        self.goal.as_ref().is_none_or(|goal| goal.met_by(&self.value))
    }
}

/// The rows of one run, in the order they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The rows.
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether every row meets its goal. A report without any row is a failure: nothing was measured.
    pub fn met(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::met)
    }

    /// One JSON object per line.
    pub fn json(&self) -> String {
        let line = |row| serde_json::to_string(row).expect("a row holds only numbers and text") + "\n";
        self.rows.iter().map(line).collect()
    }

    /// A table for people. Columns that no row fills are left out.
    pub fn table(&self) -> String {
        let text = |o: &Option<String>| o.clone().unwrap_or_default();
        let mut lines =
            vec![["row", "value", "unit", "goal", "peer", "peer value", "verdict"].map(String::from)];
        for row in &self.rows {
            let verdict = match (&row.goal, row.met()) {
                (None, _) => "",
                (_, true) => "ok",
                (_, false) => "MISSED",
            };
            lines.push([
                row.row.clone(),
                row.value.show(),
                row.unit.clone(),
                row.goal.as_ref().map(Goal::show).unwrap_or_default(),
                text(&row.peer),
                row.peer_value.as_ref().map(Value::show).unwrap_or_default(),
                verdict.into(),
            ]);
        }
        lay_out(&lines)
    }

    /// Prints the report to standard output and gives the exit status: 0, or 1 when a row misses its goal.
    pub fn finish(&self, json: bool) -> ExitCode {
        let text = if json { self.json() } else { self.table() };
        // A closed pipe (`| head`) is the reader's choice, not our failure.
        let _ = std::io::stdout().write_all(text.as_bytes());
        if self.met() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

/// Lays lines out in columns, each as wide as its widest cell; empty columns vanish. The first line is the heading.
fn lay_out<const N: usize>(lines: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for (column, width) in widths.iter_mut().enumerate() {
        if lines.iter().skip(1).any(|line| !line[column].is_empty()) {
            *width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        }
    }
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths).filter(|(_, width)| *width > 0) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.push(
            Row::new("emulator", "Linux boot", 1.02, "ratio")
                .goal(Goal::AtMost(1.05))
                .peer("stock Bochs", 1.0),
        );
        report.push(Row::new("pmu", "no exits", "pass", "").goal(Goal::Is("pass".into())));
        report
    }

    #[test]
    fn json_has_the_agreed_keys() {
        let report = report();
        let first: serde_json::Value = serde_json::from_str(report.json().lines().next().unwrap()).unwrap();
        let wanted = serde_json::json!({"bench": "emulator", "row": "Linux boot", "value": 1.02, "unit": "ratio",
            "goal": "<= 1.050", "peer": "stock Bochs", "peer_value": 1.0});
        assert_eq!(first, wanted);
    }

    #[test]
    fn a_missed_goal_fails_the_report_and_shows() {
        let mut report = report();
        assert!(report.met());
        report.push(Row::new("pmu", "landings", 3u64, "").goal(Goal::AtLeast(1000.0)));
        assert!(!report.met());
        assert!(report.table().contains("MISSED"), "{}", report.table());
        assert!(!Report::default().met(), "measuring nothing is no success");
    }

    #[test]
    fn a_word_never_meets_a_numeric_goal() {
        assert!(!Goal::AtMost(1.0).met_by(&"pass".into()));
        assert!(!Goal::AtLeast(1.0).met_by(&"pass".into()));
        assert!(!Goal::AtMost(1.0).met_by(&f64::NAN.into()));
    }

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        let mut report = Report::default();
        report.push(Row::new("x", "a long name", 5u64, "ms"));
        report.push(Row::new("x", "b", 12345u64, "ms"));
        assert_eq!(
            report.table(),
            "row          value  unit\na long name  5      ms\nb            12345  ms\n"
        );
    }
}
