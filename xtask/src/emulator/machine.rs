//! Running an emulated machine: start it, follow its console, learn how it ended.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bochsrc::{Files, Machine, Serial, bochsrc};
use super::typing::{Typing, free_port};
use crate::setup::needs::{BIOS, VGABIOS};
use crate::{paths, run::Owned, ui};

/// How often the console is looked at.
const POLL: Duration = Duration::from_millis(25);
/// How a run ended. The first four are what the kernel says through the exit port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The kernel did what it was asked to do (status 33).
    Success,
    /// The kernel panicked (35).
    Panic,
    /// A proof or a test failed (37).
    Failed,
    /// The kernel refuses this machine: it lacks something required (39).
    Refused,
    /// A guest program's own code, written to the exit port.
    Code(u32),
    /// The machine switched itself off.
    PowerOff,
    /// The awaited text appeared on the console; the machine was ended.
    Reached,
    /// The wall-clock limit ran out; the machine was ended.
    Limit,
    /// We ended it.
    Killed,
    /// The lock-step network ended the machine: 40 killed by order, 42 the switch went away, 44 refused, 46 the scenario
    /// is over (docs/switch.md).
    Network(i32),
    /// The emulator gave up, with its last message.
    Emulator(String),
}

impl Exit {
    /// What the exit means, as a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Exit::Success => "The kernel reports success.".into(),
            Exit::Panic => "The kernel panicked; the console shows why.".into(),
            Exit::Failed => "A proof or a test failed; the console names it.".into(),
            Exit::Refused => "The kernel refuses this machine; the console says what is missing.".into(),
            Exit::Code(code) => format!("The guest ended the run with code {code:#x}."),
            Exit::PowerOff => "The machine switched itself off.".into(),
            Exit::Reached => "The awaited text appeared on the console.".into(),
            Exit::Limit => "The time limit ran out before the machine ended by itself.".into(),
            Exit::Killed => "The machine was ended from outside.".into(),
            Exit::Network(40) => "The switch killed the machine, as its scenario says.".into(),
            Exit::Network(42) => "The machine lost its switch.".into(),
            Exit::Network(44) => "The switch refused the machine, or the machine the switch.".into(),
            Exit::Network(46) => "The switch's scenario is over.".into(),
            Exit::Network(code) => format!("The lock-step network ended the machine with status {code}."),
            Exit::Emulator(message) => format!("The emulator gave up: {message}"),
        }
    }

    /// Whether this is a good end. A machine that was asked to run on until the limit is the caller's to judge.
    pub fn is_success(&self) -> bool {
        matches!(self, Exit::Success | Exit::PowerOff | Exit::Reached)
    }

    /// The exit that a process status means; `end` is what the emulator said about it.
    fn decode(status: ExitStatus, end: &End) -> Exit {
        if end.by_exit_port {
            return match status.code() {
                Some(33) => Exit::Success,
                Some(35) => Exit::Panic,
                Some(37) => Exit::Failed,
                Some(39) => Exit::Refused,
                // The exit port's codes are odd.
                Some(code) if code % 2 == 0 => Exit::Network(code),
                code => Exit::Code(code.unwrap_or_default() as u32 >> 1),
            };
        }
        let power_off = end.message.contains("soft power off") || end.message.contains("Shutdown port");
        match status.code() {
            Some(_) if power_off => Exit::PowerOff,
            Some(code) if end.message.is_empty() => {
                Exit::Emulator(format!("status {code} without a message"))
            }
            Some(_) => Exit::Emulator(end.message.clone()),
            None => Exit::Emulator(format!("it was ended by {status}")),
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// Emulated time at the end: ticks of the emulator's clock, `ips` of them in an emulated second. `None` when it
    /// was killed.
    pub ticks: Option<u64>,
    /// All that the serial port said.
    pub console: String,
    /// Wall-clock time of the run.
    pub time: Duration,
    /// Processor time that the emulator spent in user mode. `None` when it was killed.
    pub user_time: Option<Duration>,
    /// The run's directory: `bochsrc`, `console`, `bochs.log`, `bochs.out`.
    pub dir: PathBuf,
}

impl Outcome {
    /// The console's lines that begin with `@@ WORD`, without those two words.
    pub fn facts<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.console.lines().filter_map(move |line| {
            let rest = line.trim().strip_prefix("@@ ")?.strip_prefix(word)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim())
        })
    }

    /// Nothing if the run ended as wanted, else an error that shows the console's end and where all of it is.
    ///
    /// # Errors
    /// When the run ended in another way than `wanted`.
    pub fn expect(&self, wanted: &Exit) -> Result<()> {
        if self.exit == *wanted {
            return Ok(());
        }
        bail!(
            "{} (wanted: {:?}) after {}.\n{}",
            self.exit.sentence(),
            wanted,
            ui::seconds(self.time),
            self.last_words()
        )
    }

    /// The end of the console, and where to read on, for an error message.
    pub fn last_words(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        let tail = if tail.trim().is_empty() { "(nothing)".into() } else { tail };
        format!(
            "The console said last:\n{}\nAll files of the run: {}",
            crate::run::indent(&tail),
            self.dir.display()
        )
    }
}

/// A machine that runs.
pub struct Running {
    process: Owned,
    since: Instant,
    limit: Duration,
    console: Tail,
    typing: Option<Typing>,
    files: Files,
}

impl Machine {
    /// Runs the machine to its end or to its limit. Its files are in the target directory, in `out/run/<name>`.
    ///
    /// # Errors
    /// When it cannot be started; how it *ended* is in the outcome.
    pub fn run(&self) -> Result<Outcome> {
        self.start()?.wait()
    }

    /// Runs the machine until its console has said `text`, its end, or its limit.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_until(&self, text: &str) -> Result<Outcome> {
        let mut running = self.start()?;
        if running.wait_for(text)? {
            return running.stop();
        }
        running.wait()
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// When the emulator or a file it needs is missing, or the description is impossible.
    pub fn start(&self) -> Result<Running> {
        self.start_with(&super::binary()?)
    }

    /// Starts the machine on this emulator.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start_with(&self, emulator: &Path) -> Result<Running> {
        let dir = paths::fresh_out_dir(&format!("run/{}", self.name))?;
        let files = Files {
            bios: first_file(BIOS, "the system BIOS (package bochsbios)")?,
            vgabios: first_file(VGABIOS, "the video BIOS (package vgabios)")?,
            console: dir.join("console"),
            log: dir.join("bochs.log"),
            dir: dir.clone(),
            typed: (self.serial == Serial::Typed).then(free_port).transpose()?,
        };
        let rc = dir.join("bochsrc");
        fs::write(&rc, bochsrc(self, &files)?)?;
        let out = File::create(dir.join("bochs.out"))?;
        let mut command = Command::new(emulator);
        command.arg("-q").arg("-f").arg(&rc).current_dir(&dir);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Only the knobs of this machine: what the caller's environment happens to hold must not leak into a run.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("LOCKSTEP_"))
        {
            command.env_remove(key);
        }
        command.envs(self.knobs.environment());
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let mut process = Owned::spawn(&mut command)
            .with_context(|| format!("cannot start the emulator {}", emulator.display()))?;
        let typing = match files.typed {
            Some(port) => Some(Typing::connect(port, &files.console, &mut process)?),
            None => None,
        };
        let shown = self.live && !matches!(self.serial, Serial::Server { .. });
        let live = match (shown, self.readable) {
            (false, _) => Live::Silent,
            (true, false) => Live::All,
            (true, true) => Live::Readable(String::new()),
        };
        let console = Tail::new(&files.console, live);
        Ok(Running { process, since: Instant::now(), limit: self.limit, console, typing, files })
    }
}

impl Running {
    /// Waits until the console has said `text`. False: the machine ended or ran into its limit before.
    ///
    /// # Errors
    /// When the console or the process cannot be watched.
    pub fn wait_for(&mut self, text: &str) -> Result<bool> {
        self.watch(|console| console.contains(text))
    }

    /// Waits for the end, or for the limit.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait(mut self) -> Result<Outcome> {
        self.watch(|_| false)?;
        let exit = if self.process.ended()?.is_some() { Exit::Killed } else { Exit::Limit };
        self.end(exit)
    }

    /// Waits for the end, for the limit, or until `stop` says so; then the machine is ended.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_unless(mut self, stop: impl Fn() -> bool) -> Result<Outcome> {
        if self.watch(|_| stop())? { self.end(Exit::Killed) } else { self.wait() }
    }

    /// Ends the machine at once, as pulling the plug would.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn kill(self) -> Result<Outcome> {
        self.end(Exit::Killed)
    }

    /// Ends the machine because what was awaited has come.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn stop(self) -> Result<Outcome> {
        self.end(Exit::Reached)
    }

    /// Types on the console of a machine whose serial port is [`Serial::Typed`].
    ///
    /// # Errors
    /// When it is not, or the machine is gone.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.typing.as_mut().context("nobody can type on this machine's console")?.send(keys.as_bytes())
    }

    /// The keyboard of such a machine, for another thread.
    ///
    /// # Errors
    /// As [`Running::send`].
    pub fn keyboard(&self) -> Result<std::net::TcpStream> {
        self.typing.as_ref().context("nobody can type on this machine's console")?.keyboard()
    }

    /// Whether the machine has ended by itself.
    ///
    /// # Errors
    /// When the process cannot be watched.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Waits until the console has said `text` behind its first `from` bytes. False: the machine ended before.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_for_after(&mut self, from: usize, text: &str) -> Result<bool> {
        self.watch(|console| console.get(from..).is_some_and(|new| new.contains(text)))
    }

    /// Freezes the machine; the network sees a host that hangs with its link up.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets a frozen machine go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// What the console has said so far.
    pub fn console(&self) -> &str {
        &self.console.text
    }

    /// The emulator's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `stop` says so of the console, which is asked again and again. False: the machine ended or ran into its
    /// limit before.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn watch(&mut self, mut stop: impl FnMut(&str) -> bool) -> Result<bool> {
        loop {
            // The order matters: what the machine said before it ended must be read after its end was seen.
            let ended = self.process.ended()?.is_some();
            if let Some(typing) = self.typing.as_mut().filter(|_| ended) {
                typing.drain();
            }
            self.console.read();
            if stop(&self.console.text) {
                return Ok(true);
            }
            if ended || self.since.elapsed() >= self.limit {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends the machine if it still runs, for the reason given, and collects the outcome.
    fn end(mut self, reason: Exit) -> Result<Outcome> {
        let by_itself = self.process.ended()?;
        if by_itself.is_none() {
            self.process.kill();
            self.process.wait(None)?;
        }
        let time = self.since.elapsed();
        if let Some(typing) = &mut self.typing {
            typing.drain();
        }
        self.console.read();
        let out = read(&self.files.dir.join("bochs.out"));
        let end = End::read(&out);
        // The unpatched emulator does not tell its ticks; its log has them.
        let ticks = by_itself.and(end.ticks.or_else(|| last_tick(&read(&self.files.log))));
        let exit = match by_itself {
            Some(status) if reason != Exit::Reached => Exit::decode(status, &end),
            _ => reason,
        };
        let user_time = by_itself.and(self.process.user_time());
        Ok(Outcome { exit, ticks, console: self.console.text, time, user_time, dir: self.files.dir.clone() })
    }
}

/// A text file that grows while we read it.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The bytes at the end that are not a whole character yet.
    partial: Vec<u8>,
    text: String,
    live: Live,
}

/// How much of the console goes to our standard output.
enum Live {
    /// Nothing.
    Silent,
    /// Every character, at once.
    All,
    /// What is for people, line by line; with the line that is not whole yet.
    Readable(String),
}

impl Live {
    /// What to show now that `new` has come.
    fn show<'a>(&mut self, new: &'a str) -> Cow<'a, str> {
        match self {
            Live::Silent => "".into(),
            Live::All => new.into(),
            Live::Readable(line) => {
                line.push_str(new);
                let Some(end) = line.rfind('\n') else { return "".into() };
                let rest = line.split_off(end + 1);
                let whole = std::mem::replace(line, rest);
                let lines = whole.lines().map(without_controls);
                let for_people = lines.filter(|line| !line.starts_with("@@ ") && !line.is_empty());
                for_people.map(|line| line + "\n").collect::<String>().into()
            }
        }
    }
}

/// A line without carriage returns and the escape sequences by which a loader draws its screen.
fn without_controls(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // ESC [ parameters letter
            chars.by_ref().skip(1).find(|c| c.is_ascii_alphabetic());
        } else if !c.is_control() || c == '\t' {
            text.push(c);
        }
    }
    text.trim_end().to_owned()
}

impl Tail {
    fn new(path: &Path, live: Live) -> Self {
        Tail { path: path.into(), file: None, partial: Vec::new(), text: String::new(), live }
    }

    fn read(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        let mut bytes = std::mem::take(&mut self.partial);
        let _ = file.read_to_end(&mut bytes);
        let whole = match std::str::from_utf8(&bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        self.partial = bytes.split_off(whole);
        let new = String::from_utf8_lossy(&bytes);
        let shown = self.live.show(&new);
        if !shown.is_empty() {
            let mut stdout = std::io::stdout();
            let _ = stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush());
        }
        self.text.push_str(&new);
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn first_file(places: &[&str], what: &str) -> Result<PathBuf> {
    places.iter().map(PathBuf::from).find(|file| file.is_file()).with_context(|| {
        format!("{what} is not in {}; `cargo xtask setup` installs it", places.join(", nor in "))
    })
}

/// What the emulator says when it ends.
#[derive(Debug, Default, PartialEq)]
struct End {
    /// The guest wrote to the exit port.
    by_exit_port: bool,
    /// Emulated time.
    ticks: Option<u64>,
    /// Why, if it was not the exit port.
    message: String,
}

impl End {
    /// Reads standard error: our part's last line `lockstep: exit code=33 ticks=123` (`code=-`: not by the exit port), the
    /// line after Bochs's `exiting with the following message`, a complaint of our part about a knob.
    fn read(out: &str) -> Self {
        let mut end = End::default();
        for (line, next) in out.lines().zip(out.lines().skip(1).chain([""])) {
            if let Some(words) = line.strip_prefix("lockstep: exit ") {
                let value = |key| words.split_whitespace().find_map(|word| word.strip_prefix(key));
                end.by_exit_port = value("code=").is_some_and(|code| code.parse::<u32>().is_ok());
                end.ticks = value("ticks=").and_then(|ticks| ticks.parse().ok());
            } else if let Some(complaint) = line.strip_prefix("lockstep: ") {
                end.message = complaint.to_owned();
            } else if line.contains("exiting with the following message") {
                end.message = next.trim().to_owned();
            }
        }
        end
    }
}

/// The tick of the last line of Bochs's log: eleven or more digits, then the severity and the device in brackets.
fn last_tick(log: &str) -> Option<u64> {
    log.lines().rev().find_map(|line| {
        let digits = line.find(|c: char| !c.is_ascii_digit())?;
        let prefix = digits >= 11 && line[digits..].get(1..2) == Some("[");
        if prefix { line[..digits].parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn exits_are_told_apart() {
        let port = End { by_exit_port: true, ..End::default() };
        assert_eq!(Exit::decode(status(33), &port), Exit::Success);
        assert_eq!(Exit::decode(status(35), &port), Exit::Panic);
        assert_eq!(Exit::decode(status(37), &port), Exit::Failed);
        assert_eq!(Exit::decode(status(39), &port), Exit::Refused);
        assert_eq!(Exit::decode(status(5), &port), Exit::Code(2));
        assert_eq!(Exit::decode(status(40), &port), Exit::Network(40));
        let said = |message: &str| End { message: message.into(), ..End::default() };
        assert_eq!(Exit::decode(status(1), &said("ACPI] ACPI control: soft power off")), Exit::PowerOff);
        let crash = Exit::decode(status(1), &said("CPU0] exception(): 3rd exception"));
        assert!(matches!(&crash, Exit::Emulator(message) if message.contains("3rd")) && !crash.is_success());
        assert!(matches!(Exit::decode(ExitStatus::from_raw(11), &said("")), Exit::Emulator(_)));
        assert!(!Exit::decode(status(33), &said("")).is_success(), "33 that the exit port knows nothing of");
    }

    #[test]
    fn the_emulator_s_last_words_are_understood() {
        let port = End::read("noise\nlockstep: exit code=11 ticks=105747130\n");
        assert_eq!(port, End { by_exit_port: true, ticks: Some(105_747_130), message: String::new() });
        let crash = "====\nBochs is exiting with the following message:\n[CPU0  ] 3rd (13) exception\n====\n\
                     lockstep: exit code=- ticks=5\n";
        let wanted =
            End { by_exit_port: false, ticks: Some(5), message: "[CPU0  ] 3rd (13) exception".into() };
        assert_eq!(End::read(crash), wanted);
        assert_eq!(End::read("lockstep: no such knob: X\n").message, "no such knob: X");
        assert_eq!(End::read("nothing here"), End::default());
    }

    #[test]
    fn the_last_tick_is_found() {
        let log = "00000000000i[      ] Bochs\n02880001234i[CPU0  ] CPU is in long mode\nno prefix\n";
        assert_eq!(last_tick(log), Some(2_880_001_234));
        assert_eq!(last_tick("123456789012e[X] wide"), Some(123_456_789_012));
        assert_eq!(last_tick("no"), None);
    }

    #[test]
    fn facts_are_picked_from_the_console() {
        let console =
            "boot\r\n@@ proof property=a verdict=pass\r\n@@ proofread no\n@@ proof property=b\n".to_owned();
        let outcome = Outcome {
            exit: Exit::Success,
            ticks: None,
            console,
            time: Duration::ZERO,
            user_time: None,
            dir: "/".into(),
        };
        assert_eq!(outcome.facts("proof").collect::<Vec<_>>(), ["property=a verdict=pass", "property=b"]);
    }

    #[test]
    fn people_are_spared_what_is_for_programs() {
        let mut live = Live::Readable(String::new());
        assert_eq!(live.show("\x1b[H\x1b[J\x1b[1;1H  Boo"), "");
        assert_eq!(live.show("ting\r\n\r\n@@ tsc hertz=1\r\n[ 0.1] cpu0"), "  Booting\n");
        assert_eq!(live.show(" up\r\n"), "[ 0.1] cpu0 up\n");
        assert_eq!(Live::All.show("\x1b[H@@ x"), "\x1b[H@@ x");
    }

    #[test]
    fn a_growing_file_is_followed_across_a_split_character() {
        let path = std::env::temp_dir().join(format!("lockstep-tail-{}", std::process::id()));
        let mut tail = Tail::new(&path, Live::Silent);
        tail.read();
        assert_eq!(tail.text, "");
        fs::write(&path, b"a\xc3").unwrap();
        tail.read();
        assert_eq!(tail.text, "a");
        File::options().append(true).open(&path).unwrap().write_all(b"\xa4b").unwrap();
        tail.read();
        fs::remove_file(&path).unwrap();
        assert_eq!(tail.text, "a\u{e4}b");
    }
}
