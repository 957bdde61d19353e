//! The demonstration's screen: two consoles side by side, the client, the logging channel, and what has happened. Pure: a story and
//! a size in, rows out.

use std::time::Duration;

use super::story::{Count, Pane, Standing, Story, Told};
use crate::switch::time::Ns;

/// The smallest screen that is drawn, columns and rows.
pub const LEAST: (usize, usize) = (60, 16);
/// The largest that is of use.
pub const MOST: (usize, usize) = (160, 44);
/// Rows that are no console: title, borders, client, channel, events.
const OTHERS: usize = 1 + 2 + 2 + 1 + EVENTS;
/// What has happened, rows.
const EVENTS: usize = 7;

/// How a piece of a row looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Of importance.
    Bold,
    /// In the background.
    Dim,
    /// Alive.
    Good,
    /// Dead.
    Bad,
}

/// A piece of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its look.
    pub style: Style,
    /// Its text, without control characters.
    pub text: String,
}

/// A row of the screen.
pub type Row = Vec<Span>;

fn span(style: Style, text: impl Into<String>) -> Span {
    Span { style, text: text.into() }
}

/// The screen, `height` rows of at most `width` columns.
pub fn draw(story: &Story, wall: Duration, width: usize, height: usize) -> Vec<Row> {
    let (width, height) = (width.clamp(LEAST.0, MOST.0), height.clamp(LEAST.1, MOST.1));
    let left = width / 2;
    let widths = [left, width - left];
    let tall = height - OTHERS;
    let mut rows = vec![title(story, wall, width)];
    rows.push(beside(story, |pane, index| lid(pane, index, widths[index])));
    for line in 0..tall {
        rows.push(beside(story, |pane, index| inside(pane, line, tall, widths[index])));
    }
    rows.push(widths.iter().map(|width| span(Style::Dim, format!("└{}┘", "─".repeat(width - 2)))).collect());
    rows.extend(client(&story.count, story.now).map(|row| vec![row]));
    rows.push(vec![channel(story)]);
    let mut events: Vec<&Told> = story.events.iter().collect();
    // What the hosts say is read a little later than what the arbiter and the client note.
    events.sort_by_key(|told| told.order());
    let skipped = events.len().saturating_sub(EVENTS);
    let last = events.len().saturating_sub(1);
    for number in 0..EVENTS {
        rows.push(match events.get(skipped + number) {
            Some(told) => {
                let style = if skipped + number == last { Style::Bold } else { Style::Plain };
                vec![
                    span(Style::Dim, format!("{:>9.3} s  ", seconds(told.at))),
                    span(style, told.text.clone()),
                ]
            }
            None => Vec::new(),
        });
    }
    rows.into_iter().map(|row| cut(row, width)).collect()
}

fn beside(story: &Story, draw: impl Fn(&Pane, usize) -> Row) -> Row {
    story.panes.iter().enumerate().flat_map(|(index, pane)| draw(pane, index)).collect()
}

fn title(story: &Story, wall: Duration, width: usize) -> Row {
    let name = "Lockstep: one virtual machine on two hosts";
    let clock = format!("emulated {:.1} s, by the wall {} s", seconds(story.now), wall.as_secs());
    let gap = width.saturating_sub(name.len() + clock.len()).max(2);
    vec![span(Style::Bold, name), span(Style::Dim, format!("{}{clock}", " ".repeat(gap)))]
}

/// The upper border of a console, with the host's name and what it is.
fn lid(pane: &Pane, index: usize, width: usize) -> Row {
    let name = format!(" host {}: ", ["a", "b"][index]);
    let words = format!("{} ", pane.standing.words());
    let style = match pane.standing {
        Standing::Starting | Standing::Over => Style::Plain,
        Standing::Primary | Standing::Backup | Standing::Alone => Style::Good,
        Standing::Asking => Style::Bold,
        Standing::Dead | Standing::Halted => Style::Bad,
    };
    let rest = width.saturating_sub(3 + name.len() + words.len());
    vec![
        span(Style::Dim, "┌─"),
        span(Style::Plain, name),
        span(style, words),
        span(Style::Dim, format!("{}┐", "─".repeat(rest))),
    ]
}

/// A row of a console: its end is at the bottom.
fn inside(pane: &Pane, line: usize, tall: usize, width: usize) -> Row {
    let room = width - 4;
    let from = pane.lines.len().saturating_sub(tall);
    let text: String =
        pane.lines.get(from + line).map(String::as_str).unwrap_or("").chars().take(room).collect();
    let pad = " ".repeat(room - text.chars().count());
    let style = if pane.standing == Standing::Dead { Style::Dim } else { Style::Plain };
    vec![span(Style::Dim, "│ "), span(style, format!("{text}{pad}")), span(Style::Dim, " │")]
}

/// What the client counts: two rows.
fn client(count: &Count, now: Ns) -> [Span; 2] {
    let Some(last) = count.last else {
        return [span(Style::Dim, "client:   knocks at the guest's door"), span(Style::Dim, "")];
    };
    let waits = now.saturating_sub(last);
    let style = match (count.errors, waits) {
        (1.., _) => Style::Bad,
        (0, 100_000_000..) if !count.done => Style::Bold,
        _ => Style::Good,
    };
    let so_far = match (count.done, waits) {
        (true, _) => "done".into(),
        (false, 20_000_000..) => format!("waits for {:.0} ms", waits as f64 / 1e6),
        _ => "counts".into(),
    };
    [
        span(
            style,
            format!(
                "client:   the counter is {}; {} answers, {} wrong or lost; {so_far}",
                count.number, count.answered, count.errors
            ),
        ),
        span(
            Style::Plain,
            format!("          longest wait from answer to answer {:.1} ms", count.gap as f64 / 1e6),
        ),
    ]
}

fn channel(story: &Story) -> Span {
    let [a, b] = story.log_bytes;
    span(
        Style::Dim,
        format!("logging:  {} sent by host a (log, heartbeats, headers), {} by host b", bytes(a), bytes(b)),
    )
}

/// A number of bytes as people say it.
pub fn bytes(number: u64) -> String {
    match number {
        0..10_000 => format!("{number} B"),
        10_000..10_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        _ => format!("{:.1} MB", number as f64 / 1e6),
    }
}

/// Seconds of emulated time.
pub fn seconds(ns: Ns) -> f64 {
    ns as f64 / 1e9
}

/// A row that is not wider than the screen.
fn cut(row: Row, width: usize) -> Row {
    let mut room = width;
    let mut kept = Vec::new();
    for Span { style, text } in row {
        let text: String = text.chars().take(room).collect();
        room -= text.chars().count();
        kept.push(Span { style, text });
    }
    kept
}

/// A row for a terminal, to the end of its line.
pub fn ansi(row: &Row) -> String {
    let mut text = String::new();
    for Span { style, text: piece } in row {
        let code = match style {
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Dim => "\x1b[2m",
            Style::Good => "\x1b[32m",
            Style::Bad => "\x1b[31;1m",
        };
        text += code;
        text += piece;
        if !code.is_empty() {
            text += "\x1b[0m";
        }
    }
    text + "\x1b[K"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(row: &Row) -> String {
        row.iter().map(|span| span.text.as_str()).collect()
    }

    fn story() -> Story {
        let mut story = Story::default();
        (story.now, story.log_bytes) = (12_345_000_000, [1_234_567, 999]);
        story.panes[0].lines.extend((0..50).map(|n| format!("line {n} {}", "x".repeat(200))));
        story.panes[0].standing = Standing::Dead;
        story.panes[1].lines.push_back("äöü".into());
        story.count = Count { answered: 40, number: 30, last: Some(12_000_000_000), ..Count::default() };
        story.events.extend((0..9).map(|n| Told::new(n * 1_000_000_000, format!("event {n}"))));
        story
    }

    #[test]
    fn the_screen_has_its_size_whatever_is_on_it() {
        for (width, height) in [(60, 16), (80, 24), (101, 33), (1, 1), (1000, 1000)] {
            for story in [Story::default(), story()] {
                let rows = draw(&story, Duration::from_secs(9), width, height);
                assert_eq!(rows.len(), height.clamp(LEAST.1, MOST.1));
                for row in &rows {
                    assert!(plain(row).chars().count() <= width.clamp(LEAST.0, MOST.0), "{:?}", plain(row));
                }
            }
        }
    }

    #[test]
    fn what_is_new_is_at_the_bottom() {
        let rows: Vec<String> = draw(&story(), Duration::ZERO, 80, 24).iter().map(plain).collect();
        assert!(rows[1].contains("host a: dead") && rows[1].contains("host b: starting"), "{rows:#?}");
        assert!(
            rows.iter().any(|row| row.contains("line 49")) && !rows.iter().any(|row| row.contains("line 20"))
        );
        assert!(rows[23].ends_with("event 8") && rows[17].ends_with("event 2"), "{rows:#?}");
        assert!(rows.iter().any(|row| row.contains("counter is 30") && row.contains("waits for 345 ms")));
        assert!(rows.iter().any(|row| row.contains("1234.6 kB") && row.contains("999 B")), "{rows:#?}");
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_is_left_of_a_longer_line() {
        let row = vec![span(Style::Plain, "a"), span(Style::Bad, "b")];
        assert_eq!(ansi(&row), "a\x1b[31;1mb\x1b[0m\x1b[K");
    }
}
