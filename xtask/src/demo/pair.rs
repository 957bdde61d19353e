//! The demonstration of a pair: two emulated hosts run one guest, a client counts in it, the primary is killed.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::termios::tcgetwinsize;
use vm_config::HostName;

use super::figures::Figures;
use super::screen::{self, ansi, draw, seconds};
use super::story::{Standing, Story, Told};
use super::svg::Recording;
use crate::emulator::Knobs;
use crate::pairing::incident::{Incident, What};
use crate::pairing::marks::{Mark, Moment};
use crate::pairing::plan::{PairOptions, paired};
use crate::pairing::run::{PairOutcome, PairRun};
use crate::pairing::watch::Seen;
use crate::payload::Payload;
use crate::switch::station::counter::CounterConfig;
use crate::switch::station::ping::PingConfig;
use crate::switch::time::Ns;
use crate::vm::host::Host;
use crate::vm::{Description, Vm};
use crate::{paths, ui};

const MS: Ns = 1_000_000;
/// A demonstration that runs longer hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// How far behind an answer the primary dies: in the middle of the client's pause, or of the next request.
const DEATH: Ns = 7 * MS;
/// How long the client waits between an answer and the next request.
const PAUSE: Ns = 5 * MS;
/// The run goes on for so long after the client is done, if the guest does not end it: the pings' end.
const LINGER: Ns = 1_000 * MS;
/// Columns and rows of the recording.
const RECORDED: (usize, usize) = (116, 30);
/// Without a terminal the count is told every so many answers.
const TOLD_EVERY: usize = 50;

/// What runs on both hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Guest {
    /// Debian's Linux with redis-server
    #[default]
    Redis,
    /// A small kernel of our own that counts: some seconds
    Counter,
}

impl Guest {
    fn name(self) -> &'static str {
        match self {
            Guest::Redis => "Debian's Linux with redis-server",
            Guest::Counter => "A small kernel that counts",
        }
    }

    fn vm(self, seed: u64) -> Result<Vm> {
        let (payload, words) = match self {
            Guest::Redis => (Payload::Redis, "quiet wl=redis tick=1"),
            Guest::Counter => (Payload::Counter, ""),
        };
        let description = Description { networks: 1, ..payload.describe(words)? };
        paired(&description.vm()?, seed)
    }

    /// Instructions per emulated second. Where more is to be done than the client's waiting, a faster processor means fewer
    /// meetings of the hosts with their network for the same work.
    fn ips(self) -> u64 {
        match self {
            Guest::Redis => 500_000_000,
            Guest::Counter => 50_000_000,
        }
    }
}

/// How the demonstration is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A screen that is drawn again and again.
    Screen,
    /// Lines as they come.
    Lines,
    /// What came of it, for programs.
    Json,
}

impl Show {
    /// What fits standard output.
    pub fn fitting() -> Self {
        if std::io::stdout().is_terminal() && !ui::unattended() { Show::Screen } else { Show::Lines }
    }
}

/// A demonstration of a pair.
#[derive(Clone, Debug)]
pub struct PairDemo {
    /// The hypervisor.
    pub kernel: PathBuf,
    /// What runs.
    pub guest: Guest,
    /// Requests of the client; the primary dies after half of them.
    pub requests: u32,
    /// Of everything that is left to chance.
    pub seed: u64,
    /// More words for the hypervisor's command line.
    pub words: String,
    /// Processors of a host.
    pub cpus: u32,
    /// How late overflow interrupts come, instructions, where the hosts are not to differ in that.
    pub skid: Option<String>,
    /// How it is seen.
    pub show: Show,
    /// Where the screen is recorded.
    pub record: Option<PathBuf>,
}

impl PairDemo {
    /// Shows it.
    ///
    /// # Errors
    /// When something cannot be made or started; what came of it is the exit status.
    pub fn run(self) -> Result<ExitCode> {
        let since = Instant::now();
        let vm = self.guest.vm(self.seed)?;
        let run = PairRun::start(&vm, &self.options())?;
        let mut view = View::new(self.show, since);
        let outcome = run.follow(|seen| view.see(&seen))?;
        view.end();
        let figures = Figures::of(&outcome, since.elapsed());
        if let Some(file) = &self.record {
            let slow = figures.killed_ns.unwrap_or(0).saturating_sub(2_000 * MS);
            let picture = view.recording.svg(slow, RECORDED.0);
            std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
            ui::say(format!("The recording: {}", paths::show(file)));
        }
        Ok(self.conclude(&outcome, &figures))
    }

    fn options(&self) -> PairOptions {
        let words = format!("exit-port=0xf4 after=exit proof=short {}", self.words);
        let host = Host {
            words: words.trim().into(),
            cpus: self.cpus,
            ips: self.guest.ips(),
            knobs: Knobs { skid: self.skid.clone(), ..Knobs::default() },
            limit: LIMIT,
            ..Host::new("demo", self.kernel.clone())
        };
        let half = (self.requests / 2).max(1) as usize;
        let when = Moment { mark: Mark::Answers(half), after: DEATH };
        PairOptions {
            seed: self.seed,
            incidents: vec![Incident { what: What::Kill(HostName::A), when }],
            linger: LINGER,
            end: Some(300_000 * MS),
            counter: Some(CounterConfig {
                requests: self.requests,
                pause: PAUSE,
                ..CounterConfig::default()
            }),
            ping: Some(PingConfig { every: 10 * MS, ..PingConfig::default() }),
            ..PairOptions::new(host)
        }
    }

    /// Says what came of it.
    fn conclude(&self, outcome: &PairOutcome, figures: &Figures) -> ExitCode {
        let sound = outcome.check().and_then(|()| outcome.check_client());
        if self.show == Show::Json {
            let mut json = outcome.json();
            json["figures"] = serde_json::json!(figures);
            json["error"] = serde_json::json!(sound.as_ref().err().map(|error| format!("{error:#}")));
            println!("{json}");
        } else {
            println!("\nWhat you have seen:");
            figures.sentences(self.guest.name()).iter().for_each(|sentence| println!("  {sentence}"));
        }
        match sound {
            Ok(()) if self.show == Show::Json => ExitCode::SUCCESS,
            Ok(()) => {
                println!(
                    "\nGo on with `cargo xtask pair --help` (other misfortunes), `cargo xtask demo --single` (a shell in the \
                     guest), `docs/pair.md`."
                );
                ExitCode::SUCCESS
            }
            Err(error) => {
                ui::error(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// What is shown while it runs.
struct View {
    show: Show,
    since: Instant,
    story: Story,
    recording: Recording,
    /// Rows of the screen that is on the terminal.
    drawn: usize,
    /// Answers that have been told as lines.
    answers: usize,
}

impl View {
    fn new(show: Show, since: Instant) -> Self {
        let (story, recording) = (Story::default(), Recording::default());
        View { show, since, story, recording, drawn: 0, answers: 0 }
    }

    fn see(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Line(host, line) => {
                if let (Some(shown), Show::Lines) = (self.story.line(*host, line), self.show) {
                    println!("{host}| {shown}");
                }
            }
            Seen::Now(glimpse) => {
                self.story.glimpse(glimpse);
                let wall = self.since.elapsed();
                self.recording.add(self.story.now, draw(&self.story, wall, RECORDED.0, RECORDED.1));
                match self.show {
                    Show::Screen => self.draw(wall),
                    Show::Lines => self.tell(false),
                    Show::Json => {}
                }
            }
        }
    }

    /// Draws the screen over the one before.
    fn draw(&mut self, wall: Duration) {
        let size = tcgetwinsize(std::io::stdout()).map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let rows = draw(&self.story, wall, size.0.into(), usize::from(size.1).saturating_sub(1));
        let back = if self.drawn == rows.len() { format!("\x1b[{}A\r", self.drawn) } else { String::new() };
        let text: String = rows.iter().map(|row| ansi(row) + "\r\n").collect();
        self.drawn = rows.len();
        let mut out = std::io::stdout();
        let _ = out.write_all((back + &text).as_bytes()).and_then(|()| out.flush());
    }

    /// Prints what is new.
    fn tell(&mut self, end: bool) {
        for Told { at, text, .. } in self.story.news(end) {
            println!("{:>9.3} s  {text}", seconds(at));
        }
        let count = self.story.count;
        if count.answered >= self.answers + TOLD_EVERY {
            self.answers = count.answered - count.answered % TOLD_EVERY;
            let wrong = count.errors;
            println!(
                "client: {} answers, {wrong} wrong or lost; the counter is {}",
                count.answered, count.number
            );
        }
    }

    /// The last picture, as it is to stay.
    fn end(&mut self) {
        for pane in &mut self.story.panes {
            if pane.standing == Standing::Alone {
                pane.standing = Standing::Over;
            }
        }
        match self.show {
            Show::Screen => self.draw(self.since.elapsed()),
            Show::Lines => self.tell(true),
            Show::Json => {}
        }
    }
}

const _: () = assert!(RECORDED.0 <= screen::MOST.0 && RECORDED.1 <= screen::MOST.1);
