//! What a pair's run means to a person who looks on: both consoles, what happens, and the client's count. Pure: lines and glimpses
//! in, sentences out.

use std::collections::VecDeque;

use vm_config::HostName;

use crate::pairing::incident::What;
use crate::pairing::watch::Glimpse;
use crate::replaying::lines::{self, Fields};
use crate::switch::time::Ns;

/// Lines of a console that are kept for the screen.
const KEPT: usize = 60;
/// So long after its moment something is news, ns: by then whatever came before it has been read.
const SETTLES: Ns = 100_000_000;

/// What a host is, as far as it has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It boots, or looks for the other host.
    #[default]
    Starting,
    /// Of a protected pair: the one that is heard outside.
    Primary,
    /// Of a protected pair: the one that follows.
    Backup,
    /// It asks who may go on.
    Asking,
    /// It goes on without the other.
    Alone,
    /// The demonstration has killed it.
    Dead,
    /// It has given up.
    Halted,
    /// The guest has switched itself off.
    Over,
}

impl Standing {
    /// In a word or two.
    pub const fn words(self) -> &'static str {
        match self {
            Standing::Starting => "starting",
            Standing::Primary => "primary, protected",
            Standing::Backup => "backup, follows",
            Standing::Asking => "asks who may go on",
            Standing::Alone => "alone, live",
            Standing::Dead => "dead",
            Standing::Halted => "halted",
            Standing::Over => "done",
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Emulated time, ns.
    pub at: Ns,
    /// What, as a sentence.
    pub text: String,
    /// The host that has told it and its own time of it, while that cannot be placed: `at` is when it was read.
    own: Option<(usize, Ns)>,
    /// It was among the news.
    said: bool,
}

impl Told {
    /// What has a moment.
    pub fn new(at: Ns, text: impl Into<String>) -> Self {
        Told { at, text: text.into(), own: None, said: false }
    }

    /// By what it is sorted. A question is placed at the moment when the arbiter heard it, and comes before the answer.
    pub fn order(&self) -> (Ns, bool) {
        (self.at, self.text.starts_with(ANSWER))
    }
}

/// How the arbiter's answer begins.
const ANSWER: &str = "the arbiter to host ";

/// A host on the screen.
#[derive(Clone, Debug, Default)]
pub struct Pane {
    /// What it is.
    pub standing: Standing,
    /// The end of its console, without what is for programs.
    pub lines: VecDeque<String>,
    /// When it first asked the arbiter, by its own clock.
    asked: Option<Ns>,
    /// The same by the arbiter's, which is emulated time.
    heard: Option<Ns>,
}

/// The client's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that were answered.
    pub answered: usize,
    /// Of them INCRs: the number that the client last heard, if every answer was right.
    pub number: u64,
    /// Answers that were wrong, connections that broke.
    pub errors: u64,
    /// When the last answer came.
    pub last: Option<Ns>,
    /// The longest time between two answers so far, ns.
    pub gap: Ns,
    /// Everything was asked and read back.
    pub done: bool,
}

/// The run as it has come to pass so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Emulated time.
    pub now: Ns,
    /// Of host a, of host b.
    pub panes: [Pane; 2],
    /// What has happened, in the order in which it was learned.
    pub events: Vec<Told>,
    /// The client, once it has an answer.
    pub count: Count,
    /// Bytes on the logging network, from host a and from host b.
    pub log_bytes: [u64; 2],
    /// When the demonstration killed a host, and how many answers the client had had.
    pub killed: Option<(Ns, usize)>,
    asks: usize,
    protected: usize,
}

impl Story {
    /// A line of a host's console; what of it is for people, if anything.
    pub fn line(&mut self, host: HostName, line: &str) -> Option<String> {
        if let Some(fields) = lines::of(line, "pair").next() {
            self.event(host, &fields);
        }
        let line = readable(line);
        // What is for programs begins with a small letter; the guest's own marks do not.
        let for_people = line.strip_prefix("@@ ").is_none_or(|mark| mark.starts_with(char::is_uppercase));
        if !for_people || line.is_empty() {
            return None;
        }
        let pane = &mut self.panes[index(host)];
        pane.lines.push_back(line.clone());
        if pane.lines.len() > KEPT {
            pane.lines.pop_front();
        }
        Some(line)
    }

    /// How the run stands now.
    pub fn glimpse(&mut self, glimpse: &Glimpse) {
        self.now = self.now.max(glimpse.beat.at);
        self.log_bytes = glimpse.beat.log_bytes;
        self.befallen(glimpse);
        for asked in glimpse.asks.iter().skip(self.asks) {
            let side = HostName::ALL.into_iter().find(|host| host.name() == asked.side);
            let sentence = match (asked.what, asked.verdict) {
                // The same question twice is the same answer twice: both hosts' requests may be repeated.
                ("arm", _) if glimpse.asks[..self.asks].iter().any(|before| before.what == "arm") => None,
                ("arm", "armed") => Some(format!(
                    "the arbiter arms generation {}: from now on one host may outlive the other",
                    asked.generation
                )),
                ("contend", "won") => Some(format!("{ANSWER}{}: you go on", asked.side)),
                ("contend", "lost") => Some(format!("{ANSWER}{}: you do not", asked.side)),
                // At their start both hosts look what is recorded.
                ("read-back", _) => None,
                (what, verdict) => Some(format!("{ANSWER}{}: {what}, {verdict}", asked.side)),
            };
            self.asks += 1;
            if let Some(side) = side.filter(|_| asked.what != "read-back") {
                self.panes[index(side)].heard.get_or_insert(asked.at);
            }
            if let Some(text) = sentence {
                self.events.push(Told::new(asked.at, text));
            }
        }
        self.place();
        self.counted(glimpse);
    }

    /// What was not among the news before, in order. The hosts' consoles, the client and the arbiter are read one after the other, so
    /// all of it waits for a while; and after the death for its moment by a clock that all share. At the `end` nothing waits.
    pub fn news(&mut self, end: bool) -> Vec<Told> {
        let (now, dead) = (self.now, self.killed.is_some());
        let ripe = |told: &Told| (told.own.is_none() || !dead) && told.at.saturating_add(SETTLES) <= now;
        let mut news = Vec::new();
        for told in self.events.iter_mut().filter(|told| !told.said && (end || ripe(told))) {
            told.said = true;
            news.push(told.clone());
        }
        news.sort_by_key(Told::order);
        news
    }

    /// Gives what hosts have told its moment, as soon as their clocks can be compared.
    fn place(&mut self) {
        for told in &mut self.events {
            let placed = told.own.and_then(|(host, own)| self.panes[host].place(Some(own)));
            if let Some(at) = placed {
                (told.at, told.own) = (at, None);
            }
        }
    }

    fn befallen(&mut self, glimpse: &Glimpse) {
        if self.killed.is_some() {
            return;
        }
        let due = |(_, at): &&(_, Ns)| *at <= self.now;
        for (incident, at) in glimpse.incidents.iter().filter(due) {
            let What::Kill(host) = incident.what else { continue };
            let answers = glimpse.counted.as_ref();
            let answers = answers.map_or(0, |seen| seen.answered.iter().filter(|when| *when <= at).count());
            self.killed = Some((*at, answers));
            self.panes[index(host)].standing = Standing::Dead;
            let text = format!("host {host} is killed; the client has had {answers} answers");
            self.events.push(Told::new(*at, text));
        }
    }

    fn counted(&mut self, glimpse: &Glimpse) {
        let Some(seen) = &glimpse.counted else { return };
        let before = self.count;
        self.count = Count {
            answered: seen.answered.len(),
            number: seen.increments,
            errors: seen.wrong + seen.broken,
            last: seen.answered.last().copied(),
            gap: seen.gap().0,
            done: seen.done.is_some(),
        };
        if let (0, Some(first)) = (before.answered, seen.answered.first()) {
            self.events.push(Told::new(*first, "the guest answers the client, which begins to count"));
        }
        // The first answer that the dead host cannot have given: a frame takes less than 10 ms.
        if let Some((at, answers)) = self.killed
            && let Some(next) = seen.answered.get(answers)
            && before.answered <= answers
        {
            let since = (next - at) as f64 / 1e6;
            let text = format!(
                "the client has its next answer, number {}, {since:.1} ms after the death",
                answers + 1
            );
            self.events.push(Told::new(*next, text));
        }
        if let (false, Some(at)) = (before.done, seen.done) {
            let text = format!(
                "the client has read all of it back: {} values, {} wrong",
                seen.read_back, seen.wrong
            );
            self.events.push(Told::new(at, text));
        }
    }

    /// An event that a host tells.
    fn event(&mut self, host: HostName, fields: &Fields) {
        let own = fields.number("ns");
        let alone = self.killed.is_some();
        let pane = &mut self.panes[index(host)];
        if let Some(own) = own.filter(|_| fields.event() == "ask") {
            pane.asked.get_or_insert(own);
        }
        let place = pane.place(own);
        let (standing, sentence) = match fields.event() {
            "joined" if host == HostName::A => (
                None,
                Some(
                    "the hosts have found each other: same build, same configuration, equal processors"
                        .into(),
                ),
            ),
            "ask" => {
                // At the start it asks for arming; the winner goes on to ask for a fence.
                let asks = matches!(pane.standing, Standing::Primary | Standing::Backup);
                (
                    asks.then_some(Standing::Asking),
                    asks.then(|| format!("host {host} asks the arbiter who may go on")),
                )
            }
            "protected" => {
                let backup = fields.get("role") == Some("backup");
                self.protected += 1;
                let both = self.protected == 2;
                let text = "the guest runs on both hosts in lockstep; only the primary is heard".to_owned();
                (Some(if backup { Standing::Backup } else { Standing::Primary }), both.then_some(text))
            }
            "suspect" => (None, Some(format!("host {host} hears nothing of the other host"))),
            "drained" => (None, Some(format!("host {host} has executed all that it had received"))),
            "guest-live" => {
                let number = fields.number("instructions").unwrap_or(0);
                let text = format!("the guest goes on at host {host}, at its instruction {number}");
                (Some(Standing::Alone), Some(text))
            }
            "solo" | "live" => (Some(Standing::Alone), None),
            "halted" => {
                let why = fields.get("why").unwrap_or("no reason given");
                (Some(Standing::Halted), Some(format!("host {host} has given up: {why}")))
            }
            "ended" => {
                (Some(Standing::Over), (!alone).then(|| format!("the guest on host {host} has ended")))
            }
            _ => (None, None),
        };
        // What a dead host has said before its death may be read after it.
        if let Some(standing) = standing.filter(|_| pane.standing != Standing::Dead) {
            pane.standing = standing;
        }
        if let Some(text) = sentence {
            let own = own.filter(|_| place.is_none()).map(|own| (index(host), own));
            self.events.push(Told { at: place.unwrap_or(self.now), text, own, said: false });
        }
    }
}

impl Pane {
    /// A moment of the host's clock as emulated time.
    fn place(&self, own: Option<Ns>) -> Option<Ns> {
        u64::try_from(i128::from(own?) - i128::from(self.asked?) + i128::from(self.heard?)).ok()
    }
}

/// The number of a host, from 0.
pub fn index(host: HostName) -> usize {
    usize::from(host == HostName::B)
}

/// A line of a console without what moves the cursor, and without the escape sequences of a loader's screen.
fn readable(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // ESC [ parameters letter
            chars.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else if c == '\t' {
            text.push(' ');
        } else if !c.is_control() {
            text.push(c);
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::incident::Incident;
    use crate::pairing::watch::Beat;
    use crate::switch::station::counter::Counted;
    use crate::switch::station::lock::Asked;

    const MS: Ns = 1_000_000;

    fn asked(at: Ns, side: &str, what: &'static str, verdict: &'static str) -> Asked {
        Asked { at, side: side.into(), what, generation: 1, verdict, said: true }
    }

    fn texts(story: &Story) -> Vec<String> {
        story.events.iter().map(|told| format!("{} {}", told.at / MS, told.text)).collect()
    }

    #[test]
    fn a_takeover_is_told_with_its_moments() {
        let mut story = Story::default();
        let mut glimpse = Glimpse { beat: Beat { at: 9_000 * MS, log_bytes: [5, 6] }, ..Glimpse::default() };
        story.glimpse(&glimpse);
        story.line(HostName::A, "@@ pair event=ask side=a role=primary generation=1 ns=4000000000\r");
        glimpse.asks = vec![
            asked(9_100 * MS, "a", "read-back", "refused"),
            asked(9_500 * MS, "a", "arm", "armed"),
            asked(9_501 * MS, "a", "arm", "armed"),
        ];
        story.glimpse(&glimpse);
        story.line(HostName::B, "@@ pair event=protected side=b role=backup generation=1 ns=4100000000");
        story.line(HostName::A, "@@ pair event=protected side=a role=primary generation=1 ns=4200000000");
        assert_eq!(story.panes[0].standing, Standing::Primary);
        glimpse.beat.at = 10_200 * MS;
        glimpse.incidents = vec![(Incident::kill("a@answer=2").unwrap(), 10_150 * MS)];
        let counted = |answered: &[Ns]| Counted {
            answered: answered.iter().map(|at| at * MS).collect(),
            increments: answered.len() as u64,
            ..Counted::default()
        };
        glimpse.counted = Some(counted(&[10_000, 10_150]));
        story.glimpse(&glimpse);
        assert_eq!((story.killed, story.panes[0].standing), (Some((10_150 * MS, 2)), Standing::Dead));
        story.line(HostName::A, "@@ pair event=solo side=a ns=1");
        assert_eq!(story.panes[0].standing, Standing::Dead, "what the dead have said is old");
        story.line(HostName::B, "@@ pair event=ask side=b role=backup generation=1 ns=5000000000");
        glimpse.asks.push(asked(10_460 * MS, "b", "contend", "won"));
        glimpse.counted = Some(counted(&[10_000, 10_150, 10_480]));
        glimpse.beat.at = 10_600 * MS;
        story.glimpse(&glimpse);
        story.line(HostName::B, "@@ pair event=guest-live instructions=77 virtual-ns=1 ns=5003000000");
        assert_eq!(story.panes[1].standing, Standing::Alone);
        let told = texts(&story);
        let last = |n: usize| told[told.len() - n].as_str();
        assert_eq!(last(1), "10463 the guest goes on at host b, at its instruction 77");
        assert_eq!(last(2), "10480 the client has its next answer, number 3, 330.0 ms after the death");
        assert_eq!(last(3), "10460 the arbiter to host b: you go on");
        assert_eq!(told.iter().filter(|text| text.contains("arms generation")).count(), 1, "{told:?}");
        // Host a's offset is known from its question: 9.5 s less 4 s.
        assert!(told.contains(
            &"9700 the guest runs on both hosts in lockstep; only the primary is heard".to_owned()
        ));
    }

    #[test]
    fn news_come_once_and_in_their_order() {
        let mut story = Story::default();
        let mut glimpse = Glimpse { beat: Beat { at: 5_000 * MS, ..Beat::default() }, ..Glimpse::default() };
        glimpse.incidents = vec![(Incident::kill("a@answer=2").unwrap(), 4_990 * MS)];
        story.glimpse(&glimpse);
        // The answer is read before what led to it.
        glimpse.asks = vec![asked(5_300 * MS, "b", "contend", "won")];
        glimpse.beat.at = 5_350 * MS;
        story.glimpse(&glimpse);
        let news = |story: &mut Story, end| -> Vec<String> {
            let news = story.news(end);
            news.iter().map(|told| format!("{} {}", told.at / MS, told.text)).collect()
        };
        assert_eq!(news(&mut story, false), ["4990 host a is killed; the client has had 0 answers"]);
        story.line(HostName::B, "@@ pair event=suspect side=b ns=1000000000");
        assert_eq!(news(&mut story, false), [""; 0], "its moment is not known");
        story.line(HostName::B, "@@ pair event=ask side=b ns=1001000000");
        glimpse.beat.at = 5_500 * MS;
        story.glimpse(&glimpse);
        let wanted = ["5299 host b hears nothing of the other host", "5300 the arbiter to host b: you go on"];
        assert_eq!(news(&mut story, false), wanted);
        story.events.push(Told::new(5_300 * MS, "the arbiter to host b: and so on"));
        story.events.push(Told::new(5_300 * MS, "host b asks"));
        assert_eq!(news(&mut story, false), ["5300 host b asks", "5300 the arbiter to host b: and so on"]);
        story.events.push(Told::new(5_499 * MS, "late"));
        assert_eq!(news(&mut story, false), [""; 0]);
        assert_eq!(news(&mut story, true), ["5499 late"]);
    }

    #[test]
    fn a_console_is_shown_without_what_is_for_programs() {
        let mut story = Story::default();
        for line in ["\x1b[H\x1b[JBooting\r", "@@ proof property=a", "@@ SERVING up=3", "", "a\tb"] {
            story.line(HostName::B, line);
        }
        assert_eq!(story.panes[1].lines, ["Booting", "@@ SERVING up=3", "a b"]);
        (0..100).for_each(|n| drop(story.line(HostName::A, &n.to_string())));
        assert_eq!((story.panes[0].lines.len(), story.panes[0].lines[0].as_str()), (KEPT, "40"));
    }
}
