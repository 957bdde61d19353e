//! What the kernel's console says of the boot proof, as rows of a report.
//!
//! The kernel prints `@@ proof property=NAME runs=N exits=N n=ok c=ok landings=N landing-exits=N verdict=pass` for each
//! property, `verdict=fail reason="..."` for one that does not hold, and at the end `@@ proof-summary ...`. Every property
//! that the `replay` crate lists must be there: silence is no proof.

use replay::proof::PROPERTIES;
use replay::proof::spec::Kind;

use crate::report::{Goal, Report, Row, Value};

/// The bench's name in the rows.
const BENCH: &str = "pmu";

/// The value of `key=` in a line of words; a value in double quotes may hold spaces.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let (word, next) = split_word(rest);
        if let Some(found) = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            return Some(found.trim_matches('"'));
        }
        rest = next;
    }
}

/// The first word, which ends at a space outside quotes, and the rest.
fn split_word(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let end = text.find(|c: char| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// Lines of the console that begin with `@@ WORD `, without those words.
fn facts<'a>(console: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    let prefix = format!("@@ {word} ");
    console.lines().filter_map(move |line| line.trim().strip_prefix(prefix.as_str()))
}

/// The rows of a run: each property's verdict, the landings it was to have, the skid and the margin.
pub fn rows(console: &str, landings: u64) -> Report {
    let mut report = Report::default();
    let pass = || Goal::Is("pass".into());
    if let Some(reason) = refusal(console) {
        report.push(Row::new(BENCH, "proof", format!("refused: {reason}").as_str(), "").goal(pass()));
        return report;
    }
    for property in PROPERTIES {
        let found = facts(console, "proof").find(|fact| value(fact, "property") == Some(property.name));
        let verdict = match found.map(|fact| (value(fact, "verdict"), value(fact, "reason"))) {
            None => "not reported".to_owned(),
            Some((Some("pass"), _)) => "pass".to_owned(),
            Some((_, reason)) => format!("fail: {}", reason.unwrap_or("no reason given")),
        };
        report.push(Row::new(BENCH, property.name, verdict.as_str(), "").goal(pass()));
        if property.kind == Kind::Counting {
            let number = |key| found.and_then(|fact| value(fact, key)?.parse::<u64>().ok()).unwrap_or(0);
            let done = number("landings");
            let row = Row::new(BENCH, &format!("{}, exact landings", property.name), done, "landings");
            report.push(row.goal(Goal::AtLeast(landings as f64)));
            if done > 0 {
                let each = number("landing-exits") as f64 / done as f64;
                report.push(Row::new(BENCH, &format!("{}, a landing", property.name), each, "VM exits"));
            }
        }
    }
    report.rows.extend(summary_rows(console));
    report
}

/// The verdict on all, and what informs: skids and margins.
fn summary_rows(console: &str) -> Vec<Row> {
    let Some(summary) = facts(console, "proof-summary").next() else {
        return vec![Row::new(BENCH, "proof", "no summary", "").goal(Goal::Is("pass".into()))];
    };
    let word = |key: &str| value(summary, key).unwrap_or("none");
    let mut rows = vec![Row::new(BENCH, "proof", word("verdict"), "").goal(Goal::Is("pass".into()))];
    for (key, what, unit) in
        [("n", "instructions retired", "instructions"), ("c", "conditional branches", "branches")]
    {
        rows.push(Row::new(BENCH, &format!("skid by {what}"), word(&format!("skid-{key}")), unit));
        let name = format!("margin by {what}");
        rows.push(match word(&format!("margin-{key}")).parse::<u64>() {
            Ok(margin) => Row::new(BENCH, &name, margin, unit),
            Err(_) => Row::new(BENCH, &name, "none", ""),
        });
    }
    rows
}

/// Why the kernel would not run the proof, if it would not.
fn refusal(console: &str) -> Option<&str> {
    let summary = facts(console, "proof-summary").next()?;
    (value(summary, "verdict") == Some("refused"))
        .then(|| value(summary, "reason").unwrap_or("no reason given"))
}

/// The verdict for people: the first property that fails is the one to look at, since the later ones stand on it.
pub fn verdict(console: &str, report: &Report) -> String {
    if let Some(reason) = refusal(console) {
        return format!("The proof was refused: {reason}.");
    }
    let row = |name: &str| report.rows.iter().find(|row| row.row == name);
    let mut failed = PROPERTIES.iter().filter(|property| !row(property.name).is_some_and(Row::met));
    let landings: u64 =
        facts(console, "proof").filter_map(|fact| value(fact, "landings")?.parse::<u64>().ok()).sum();
    let Some(first) = failed.next() else {
        return match report.met() {
            true => format!("All {} properties hold; {landings} landings, each exact.", PROPERTIES.len()),
            false => "The properties hold, but there were fewer landings than asked for.".into(),
        };
    };
    let why = row(first.name).map(|row| match &row.value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    });
    let others: Vec<&str> = failed.map(|property| property.name).collect();
    let mut text =
        format!("The property {} ({}) does not hold: {}.", first.name, first.claim, why.unwrap_or_default());
    if !others.is_empty() {
        text += &format!("\nNor do these, which may stand on it: {}.", others.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(edit: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::from("[    0.1] cpu0 info  Lockstep\n");
        for property in PROPERTIES {
            let landings = if property.kind == Kind::Counting { 1000 } else { 0 };
            let line = format!(
                "@@ proof property={} runs=8 exits=9 n=ok c=ok landings={landings} landing-exits=12000 verdict=pass",
                property.name
            );
            text += &edit(&line).map(|line| line + "\r\n").unwrap_or_default();
        }
        text + "@@ proof-summary properties=28 hold=28 landings=25000 skid-n=5..40 margin-n=192 skid-c=1..9 margin-c=128 \
                verdict=pass\n"
    }

    fn keep(line: &str) -> Option<String> {
        Some(line.to_owned())
    }

    #[test]
    fn a_good_console_meets_every_goal() {
        let console = console(keep);
        let report = rows(&console, 1000);
        assert!(report.met(), "{}", report.table());
        assert!(verdict(&console, &report).starts_with("All "), "{}", verdict(&console, &report));
        let row = |name: &str| report.rows.iter().find(|row| row.row == name).unwrap().value.clone();
        assert_eq!(row("margin by instructions retired"), 192_u64.into());
        assert_eq!(row("skid by conditional branches"), "1..9".into());
        assert_eq!(row("mtf, a landing"), 12_u64.into());
    }

    #[test]
    fn fewer_landings_miss_the_goal() {
        let console = console(keep);
        let report = rows(&console, 1001);
        assert!(!report.met());
        assert!(verdict(&console, &report).contains("fewer landings"));
    }

    #[test]
    fn a_property_that_is_missing_or_fails_is_named() {
        let silent = console(|line| (!line.contains("property=syscall ")).then(|| line.to_owned()));
        let report = rows(&silent, 1000);
        assert!(!report.met());
        let text = verdict(&silent, &report);
        assert!(
            text.starts_with("The property syscall (") && text.ends_with("does not hold: not reported."),
            "{text}"
        );
        let failing = console(|line| {
            Some(line.replace(
                "property=halt runs",
                "property=halt verdict=fail reason=\"N is 9, expected 8\" runs",
            ))
        });
        let report = rows(&failing, 1000);
        let row = report.rows.iter().find(|row| row.row == "halt").unwrap();
        assert_eq!(row.value, "fail: N is 9, expected 8".into());
        let text = verdict(&failing, &report);
        assert!(text.ends_with("does not hold: fail: N is 9, expected 8."), "{text}");
    }

    #[test]
    fn a_refusal_says_why() {
        let console =
            "@@ proof-summary verdict=refused reason=\"no performance-monitoring unit (CPUID leaf 0Ah)\"\n";
        let report = rows(console, 1000);
        assert!(!report.met());
        assert_eq!(
            verdict(console, &report),
            "The proof was refused: no performance-monitoring unit (CPUID leaf 0Ah)."
        );
    }

    #[test]
    fn silence_is_no_proof() {
        let report = rows("", 1);
        assert!(!report.met());
        assert!(report.rows.iter().filter(|row| !row.met()).count() > PROPERTIES.len());
    }

    #[test]
    fn values() {
        let line = "a=1 reason=\"b=2 and c\" b=3";
        assert_eq!(value(line, "a"), Some("1"));
        assert_eq!(value(line, "b"), Some("3"));
        assert_eq!(value(line, "reason"), Some("b=2 and c"));
        assert_eq!(value(line, "eason"), None);
    }
}
