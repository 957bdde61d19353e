//! Child processes: run one with a log file and a time-out, kill only what we started, keep its output when it fails.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed command's output an error shows.
const TAIL_LINES: usize = 25;
/// How often a waiting parent looks at its child.
const POLL: Duration = Duration::from_millis(20);

/// What is called with each line of output.
type LineSink<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// A command to run. Its standard input is empty; its output goes to a log file, to a callback, or both.
pub struct Cmd<'a> {
    command: Command,
    log: Option<PathBuf>,
    timeout: Option<Duration>,
    on_line: Option<LineSink<'a>>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether the time-out killed it.
    pub timed_out: bool,
    /// How long it ran.
    pub time: Duration,
    /// All it wrote, standard output and standard error together.
    pub output: String,
}

impl Done {
    /// Whether it ended by itself with status 0.
    pub fn ok(&self) -> bool {
        self.status.success() && !self.timed_out
    }

    /// The end of its output, for an error message.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// How it ended, in words.
    pub fn ending(&self) -> String {
        match (self.timed_out, self.status.code(), self.status.signal()) {
            (true, ..) => format!("was stopped after {}", crate::ui::seconds(self.time)),
            (_, Some(code), _) => format!("ended with status {code}"),
            (_, _, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "ended in an unknown way".into(),
        }
    }
}

impl<'a> Cmd<'a> {
    /// A command by program name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Cmd { command: Command::new(program), log: None, timeout: None, on_line: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// The directory it runs in.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Kills it (and what it started) after this time.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Keeps its output in this file too.
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Calls this with each line of output as it comes.
    pub fn on_line(mut self, see: impl FnMut(&str) + Send + 'a) -> Self {
        self.on_line = Some(Box::new(see));
        self
    }

    /// The command as one would type it, for messages.
    pub fn show(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(quote).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end. A status other than 0 is not an error here; see [`Cmd::check`].
    ///
    /// # Errors
    /// When it cannot be started or its log cannot be written.
    pub fn run(mut self) -> Result<Done> {
        let shown = self.show();
        let mut log = match &self.log {
            Some(file) => {
                Some(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
            }
            None => None,
        };
        let (reader, writer) = std::io::pipe()?;
        self.command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let since = Instant::now();
        let mut child = Owned::spawn(&mut self.command)?;
        // The command holds the pipe's write ends; keep none, or the reader never sees the end.
        drop(self.command);
        let (timeout, mut on_line) = (self.timeout, self.on_line);
        let (ending, output) = std::thread::scope(|scope| {
            let output = scope.spawn(move || {
                let mut all = Vec::new();
                let mut reader = BufReader::new(reader);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                    if let Some(log) = &mut log {
                        let _ = log.write_all(&line);
                    }
                    if let Some(see) = &mut on_line {
                        see(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
                    }
                    all.append(&mut line);
                }
                all
            });
            // Its end is the end of what it left behind as well, or that could hold the pipe open for ever.
            let ending = child.wait(timeout);
            (ending, output.join().unwrap_or_default())
        });
        let (status, timed_out) = ending.with_context(|| format!("cannot wait for `{shown}`"))?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Done { status, timed_out, time: since.elapsed(), output })
    }

    /// Runs it and gives its output; any other end than status 0 is an error that shows the end of the output.
    ///
    /// # Errors
    /// When it cannot be started, fails, or runs out of time.
    pub fn check(self) -> Result<String> {
        let (shown, log) = (self.show(), self.log.clone());
        let done = self.run()?;
        if done.ok() {
            return Ok(done.output);
        }
        let mut message = format!("`{shown}` {}", done.ending());
        if !done.output.trim().is_empty() {
            message += &format!(". Its last words:\n{}", indent(&done.tail()));
        }
        if let Some(log) = log {
            message += &format!("\n(all of it: {})", log.display());
        }
        bail!(message)
    }
}

/// A child process that we own: in a process group of its own, killed with all it started when dropped, and when the
/// user presses Ctrl-C.
pub struct Owned {
    child: Child,
    ended: Option<ExitStatus>,
    user_time: Option<Duration>,
}

/// The process groups of the children that are alive, for the Ctrl-C handler.
static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

impl Owned {
    /// Starts `command` as a child that we own. Its standard streams are as `command` says.
    ///
    /// # Errors
    /// When it cannot be started; the message says how to get the program if it is not there.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        on_interrupt_kill_all();
        let mut alive = ALIVE.lock().unwrap_or_else(|e| e.into_inner());
        let child = command.process_group(0).spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    anyhow::anyhow!(
                        "`{program}` is not installed; `cargo xtask setup` installs what is missing"
                    )
                }
                _ => anyhow::Error::new(error).context(format!("cannot start `{program}`")),
            }
        })?;
        alive.insert(child.id());
        Ok(Owned { child, ended: None, user_time: None })
    }

    /// The process id, which is its group's id too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard streams, where piped.
    pub fn streams(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its status if it has ended.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.note_user_time();
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                // What it left behind in its group is ours too. Now, not later: the number may be given to a stranger.
                signal_group(self.child.id(), rustix::process::Signal::KILL);
            }
        }
        Ok(self.ended)
    }

    /// The processor time that it spent in user mode, to 10 ms; known once its end has been seen.
    pub fn user_time(&self) -> Option<Duration> {
        self.user_time
    }

    /// The kernel keeps a dead child's times until its status is collected: look without collecting, then read them.
    fn note_user_time(&mut self) {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(_)) = waitid(WaitId::Pid(pid), look) {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
            self.user_time = parse_user_time(&stat);
        }
    }

    /// Waits for its end, or kills it at the limit. The flag says whether the limit did it.
    pub fn wait(&mut self, limit: Option<Duration>) -> std::io::Result<(ExitStatus, bool)> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok((status, false));
            }
            if limit.is_some_and(|limit| since.elapsed() >= limit) {
                self.kill();
                let status = self.child.wait()?;
                self.ended = Some(status);
                return Ok((status, true));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills it and all it started. Does nothing once its end has been seen.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            signal_group(self.child.id(), rustix::process::Signal::KILL);
        }
    }

    /// Stops it (`SIGSTOP`); [`Owned::resume`] lets it go on.
    pub fn pause(&self) {
        signal_group(self.child.id(), rustix::process::Signal::STOP);
    }

    /// Lets a paused child go on (`SIGCONT`).
    pub fn resume(&self) {
        signal_group(self.child.id(), rustix::process::Signal::CONT);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
        if self.ended.is_none() {
            let _ = self.child.wait();
        }
        ALIVE.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.child.id());
    }
}

fn signal_group(group: u32, signal: rustix::process::Signal) {
    if let Some(group) = i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw) {
        // Gone already is as good as killed.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Ctrl-C reaches only us, since each child has its own process group; pass it on as a kill.
fn on_interrupt_kill_all() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = ctrlc::set_handler(|| {
            for group in ALIVE.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                signal_group(*group, rustix::process::Signal::KILL);
            }
            eprintln!();
            std::process::exit(130);
        });
    });
}

/// The user time in `/proc/PID/stat`: field 14, in hundredths of a second. Field 2, the name, may hold anything between
/// its brackets.
fn parse_user_time(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = after_name.split_whitespace().nth(11)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Indents each line by four spaces.
pub fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Where a program of the search path lies.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    // Administrators' tools are not on every user's path, yet every user may run most of them.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir: PathBuf| dir.join(name)).find(|file| file.is_file())
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Cmd<'static> {
        Cmd::new("sh").args(["-c", script])
    }

    #[test]
    fn output_of_both_streams_is_kept_and_seen_line_by_line() {
        let mut seen = Vec::new();
        let done = sh("echo one; echo two >&2").on_line(|line| seen.push(line.to_owned())).run().unwrap();
        assert!(done.ok());
        assert_eq!(done.output, "one\ntwo\n");
        assert_eq!(seen, ["one", "two"]);
    }

    #[test]
    fn a_failure_shows_the_last_words() {
        let error = sh("echo the disk is full; exit 3").check().unwrap_err().to_string();
        assert!(error.contains("status 3") && error.contains("the disk is full"), "{error}");
    }

    #[test]
    fn the_time_out_kills_grandchildren_too() {
        let since = Instant::now();
        let done = sh("sleep 300 & sleep 300; wait").timeout(Duration::from_millis(200)).run().unwrap();
        assert!(done.timed_out && !done.ok());
        assert!(since.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_background_grandchild_does_not_keep_us_waiting() {
        let since = Instant::now();
        assert!(sh("sleep 300 & echo started").run().unwrap().ok());
        assert!(since.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn user_time_is_read_and_measured() {
        let stat = "7 (a) b c) S 1 2 3 4 5 6 7 8 9 10 123 45 0 0 20 0";
        assert_eq!(parse_user_time(stat), Some(Duration::from_millis(1230)));
        let mut busy = Command::new("sh");
        let mut busy =
            Owned::spawn(busy.args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"])).unwrap();
        busy.wait(None).unwrap();
        assert!(busy.user_time().unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let error = Cmd::new("no-such-program-anywhere").check().unwrap_err().to_string();
        assert!(error.contains("cargo xtask setup"), "{error}");
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        assert_eq!(Cmd::new("echo").args(["a b", "c", "it's"]).show(), r"echo 'a b' c 'it'\''s'");
    }
}
