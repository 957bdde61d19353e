//! What people see while the tools work: steps with elapsed time, plain errors. All of it goes to standard error, so that
//! standard output stays for results.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a step that is not on a terminal says that it is still at work.
const STILL_AT_WORK: Duration = Duration::from_secs(60);

/// Whether somebody sits at a terminal who can see a moving line.
pub fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether nobody may be asked anything: `CI` is set.
pub fn unattended() -> bool {
    std::env::var("CI").is_ok_and(|v| !v.is_empty() && v != "0" && v != "false")
}

/// A line for people.
pub fn say(text: impl AsRef<str>) {
    // One write for the whole line: several threads and processes may speak at once.
    let line = format!("{}\n", text.as_ref());
    if cfg!(test) {
        eprint!("{line}");
    } else {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// An error, with its causes, each on a line.
pub fn error(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        text += &format!("\n  because: {cause}");
    }
    say(text);
}

/// Asks a yes-or-no question on the terminal; without a terminal the answer is no.
pub fn ask(question: &str) -> bool {
    if unattended() || !interactive() || !std::io::stdin().is_terminal() {
        return false;
    }
    let _ = write!(std::io::stderr(), "{question} [Y/n] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).unwrap_or(0);
    read > 0 && matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
}

/// A duration as people say it: `0.4 s`, `41 s`, `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..60 => format!("{s} s"),
        s => format!("{} min {:02} s", s / 60, s % 60),
    }
}

/// A piece of long work under way. On a terminal its line moves; elsewhere it prints one line at the end and a sign of
/// life each minute. Dropping it without [`Step::done`] marks it as failed.
pub struct Step {
    what: String,
    since: Instant,
    detail: Arc<Mutex<String>>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Starts a step; `what` reads like `build the emulator`.
pub fn step(what: impl Into<String>) -> Step {
    let what = what.into();
    let since = Instant::now();
    let detail = Arc::new(Mutex::new(String::new()));
    let (stop, stopped) = channel();
    let ticker = std::thread::spawn({
        let (what, detail) = (what.clone(), detail.clone());
        let every = if interactive() { Duration::from_millis(500) } else { STILL_AT_WORK };
        move || {
            while stopped.recv_timeout(every).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                draw(&what, &detail.lock().unwrap_or_else(|e| e.into_inner()), since);
            }
        }
    });
    Step { what, since, detail, ticker: Some((stop, ticker)) }
}

fn draw(what: &str, detail: &str, since: Instant) {
    let line = format!("  ...   {what}{} ({})", spaced(detail), seconds(since.elapsed()));
    if interactive() {
        // ESC [K clears what a longer line left behind.
        let _ = std::io::stderr().write_all(format!("\r{line}\x1b[K\r").as_bytes());
    } else {
        say(line);
    }
}

fn spaced(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

impl Step {
    /// Says how far it is, for instance `120 of 214 files`.
    pub fn detail(&self, text: impl Into<String>) {
        *self.detail.lock().unwrap_or_else(|e| e.into_inner()) = text.into();
    }

    /// The time since the step began.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The work is done.
    pub fn done(mut self) {
        self.finish("ok", "");
    }

    /// The work is done, and here is what came of it.
    pub fn done_with(mut self, result: impl AsRef<str>) {
        self.finish("ok", result.as_ref());
    }

    /// The work failed; the line says why.
    pub fn failed(mut self, why: impl AsRef<str>) {
        self.finish("FAIL", why.as_ref());
    }

    fn finish(&mut self, verdict: &str, result: &str) {
        let Some((stop, ticker)) = self.ticker.take() else { return };
        drop(stop);
        let _ = ticker.join();
        let clear = if interactive() { "\r\x1b[K" } else { "" };
        say(format!(
            "{clear}  {verdict:<5} {}{} ({})",
            self.what,
            spaced(result),
            seconds(self.since.elapsed())
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish("FAIL", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(41)), "41 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn a_finished_step_stops_its_ticker() {
        let step = step("test the steps");
        step.detail("half way");
        step.done_with("well");
    }
}
