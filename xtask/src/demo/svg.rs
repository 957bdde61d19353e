//! The demonstration as a moving picture: SVG whose rows appear and vanish by its own clock, without a script. What cannot move
//! shows the end. Pure: screens with their moments in, text out.

use std::fmt::Write;

use super::screen::{Row, Span, Style};
use crate::switch::time::Ns;

/// Width of a character, pixels.
const COLUMN: f64 = 7.8;
/// Height of a row, pixels.
const LINE: f64 = 16.0;
/// Space around the text, pixels.
const MARGIN: f64 = 10.0;
/// A frame is shown for so long at least, ns of the picture's time.
const LEAST: Ns = 250_000_000;
/// What comes before the interesting part takes so long, ns of the picture's time.
const BEFORE: Ns = 9_000_000_000;
/// The last frame stays for so long before all of it begins again, ns.
const STAYS: Ns = 5_000_000_000;
/// How the pieces of a row look.
const STYLES: &str = "text{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#c9d1d9;white-space:pre}\
                      .b{font-weight:bold;fill:#f0f6fc}.d{fill:#7d8590}.g{fill:#3fb950}.x{fill:#f85149;font-weight:bold}";

/// Screens with the emulated time of each.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    frames: Vec<(Ns, Vec<Row>)>,
}

/// A piece of a row while it looks the same.
struct Segment<'a> {
    from: Ns,
    until: Ns,
    /// Where it begins.
    column: usize,
    span: &'a Span,
}

/// How emulated time becomes the picture's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tempo {
    start: Ns,
    /// From here on the picture is as fast as emulated time.
    slow: Ns,
    /// How many times as fast it is before.
    times: f64,
}

impl Tempo {
    fn new(start: Ns, slow: Ns) -> Self {
        let before = slow.saturating_sub(start);
        Tempo { start, slow, times: (before as f64 / BEFORE as f64).max(1.0) }
    }

    fn place(&self, at: Ns) -> Ns {
        let before = at.min(self.slow).saturating_sub(self.start);
        (before as f64 / self.times) as Ns + at.saturating_sub(self.slow.max(self.start))
    }
}

impl Recording {
    /// Adds the screen of a moment that is not before the last one's.
    pub fn add(&mut self, at: Ns, rows: Vec<Row>) {
        if self.frames.last().is_none_or(|(_, last)| *last != rows) {
            self.frames.push((at, rows));
        }
    }

    /// The picture: from `slow` on as fast as emulated time, before that as fast as it has to be.
    pub fn svg(&self, slow: Ns, columns: usize) -> String {
        let Some((start, first)) = self.frames.first() else { return String::new() };
        let tempo = Tempo::new(*start, slow);
        let frames = self.thinned(&tempo);
        let end = frames.last().map_or(0, |(at, _)| at + STAYS);
        let rows = first.len();
        let (width, height) =
            (2.0 * MARGIN + columns as f64 * COLUMN, 2.0 * MARGIN + (rows + 1) as f64 * LINE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>{STYLES}</style>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#0d1117\"><animate id=\"t\" attributeName=\"opacity\" \
             values=\"1;1\" begin=\"0s;t.end\" dur=\"{}\"/></rect>\n",
            time(end)
        );
        for row in 0..rows {
            let pieces = frames.iter().map(|(_, rows)| rows[row].len()).max().unwrap_or(0);
            for segment in (0..pieces).flat_map(|piece| segments(&frames, row, piece, end)) {
                put(&mut svg, &segment, row, end);
            }
        }
        let note = format!(
            "played {:.1} times as fast as emulated time until two seconds before the death",
            tempo.times
        );
        let note = Span { style: Style::Dim, text: note };
        put(&mut svg, &Segment { from: 0, until: end, column: 0, span: &note }, rows, end);
        svg + "</svg>\n"
    }

    /// The frames by the picture's time, those left out that nobody could see.
    fn thinned(&self, tempo: &Tempo) -> Vec<(Ns, &Vec<Row>)> {
        let mut frames: Vec<(Ns, &Vec<Row>)> = Vec::new();
        for (number, (at, rows)) in self.frames.iter().enumerate() {
            let at = tempo.place(*at);
            let last = number + 1 == self.frames.len();
            match frames.last() {
                Some((before, _)) if at < before + LEAST && !last => {}
                _ => frames.push((at, rows)),
            }
        }
        frames
    }
}

/// The life of a piece of a row, cut where it changes; what is empty is left out.
fn segments<'a>(frames: &[(Ns, &'a Vec<Row>)], row: usize, piece: usize, end: Ns) -> Vec<Segment<'a>> {
    let mut segments: Vec<Segment<'a>> = Vec::new();
    for (at, rows) in frames {
        let spans = &rows[row];
        let column = spans.iter().take(piece).map(|span| span.text.chars().count()).sum();
        let span = spans.get(piece).filter(|span| !span.text.trim().is_empty());
        if let Some(last) = segments.last_mut().filter(|last| last.until == end) {
            if span.is_some_and(|span| (last.column, last.span) == (column, span)) {
                continue;
            }
            last.until = *at;
        }
        segments.extend(span.map(|span| Segment { from: *at, until: end, column, span }));
    }
    segments.retain(|segment| segment.until > segment.from);
    segments
}

fn put(svg: &mut String, segment: &Segment<'_>, number: usize, end: Ns) {
    let Segment { from, until, column, span: Span { style, text } } = *segment;
    let class = match style {
        Style::Plain => "",
        Style::Bold => " class=\"b\"",
        Style::Dim => " class=\"d\"",
        Style::Good => " class=\"g\"",
        Style::Bad => " class=\"x\"",
    };
    let y = MARGIN + (number as f64 + 0.8) * LINE;
    let before = text.chars().take_while(|c| *c == ' ').count();
    let x = MARGIN + (column + before) as f64 * COLUMN;
    let text = text.trim();
    // The width of a character is not the same in every font.
    let length = text.chars().count() as f64 * COLUMN;
    let (hidden, life) = match (from, until == end) {
        (0, true) => ("", String::new()),
        // What is there at the end is there where nothing moves.
        (_, true) => ("", set("hidden", 0, from)),
        _ => (" visibility=\"hidden\"", set("visible", from, until - from)),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\"{class}{hidden}>{}{life}</text>",
        escaped(text)
    );
}

/// Sets the visibility for some time.
fn set(to: &str, from: Ns, length: Ns) -> String {
    format!(
        "<set attributeName=\"visibility\" to=\"{to}\" begin=\"t.begin+{}\" dur=\"{}\"/>",
        time(from),
        time(length)
    )
}

/// A time of the picture.
fn time(ns: Ns) -> String {
    format!("{:.2}s", ns as f64 / 1e9)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ns = 1_000_000_000;

    fn rows(lines: &[&str]) -> Vec<Row> {
        lines.iter().map(|line| vec![Span { style: Style::Bold, text: (*line).into() }]).collect()
    }

    #[test]
    fn rows_come_and_go_by_the_picture_s_clock() {
        let mut recording = Recording::default();
        recording.add(10 * S, rows(&["same", "<one>", ""]));
        recording.add(11 * S, rows(&["same", "<one>", ""]));
        recording.add(34 * S, rows(&["same", "two & more", ""]));
        recording.add(35 * S, rows(&["same", "two & more", "late"]));
        let svg = recording.svg(34 * S, 80);
        // 24 s become 9.
        assert!(svg.contains("values=\"1;1\" begin=\"0s;t.end\" dur=\"15.00s\""), "{svg}");
        assert_eq!(svg.matches(">same</text>").count(), 1, "{svg}");
        let one = svg.lines().find(|line| line.contains("&lt;one&gt;")).unwrap();
        assert!(one.contains("begin=\"t.begin+0.00s\" dur=\"9.00s\""), "{one}");
        let two = svg.lines().find(|line| line.contains("two &amp; more")).unwrap();
        assert!(two.contains("to=\"hidden\" begin=\"t.begin+0.00s\" dur=\"9.00s\""), "{two}");
        let late = svg.lines().find(|line| line.contains(">late<")).unwrap();
        assert!(late.contains("dur=\"10.00s\"") && svg.contains("played 2.7 times"), "{late}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn frames_that_nobody_could_see_are_left_out() {
        let mut recording = Recording::default();
        (0..1000).for_each(|n: u64| recording.add(n * 10_000_000, rows(&[&n.to_string()])));
        let frames = recording.thinned(&Tempo::new(0, 0));
        assert!((38..44).contains(&frames.len()), "{}", frames.len());
        assert_eq!(frames.last().unwrap().1, &rows(&["999"]));
        assert_eq!(Recording::default().svg(0, 80), "");
    }
}
