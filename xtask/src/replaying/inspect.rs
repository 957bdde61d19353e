//! Asking Lockstep's shell about a virtual machine that stands still, at the end of a replay.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::emulator::Running;

/// What the shell shows when it waits for a command.
pub const PROMPT: &str = "lockstep>";
/// How a terminal is told to clear what stands behind the cursor; the shell does so whenever it draws its line.
const CLEAR: &str = "\x1b[K";
/// The shell must have answered by then, wall-clock time: the emulator may share its processor with much else.
const ANSWER: Duration = Duration::from_secs(120);
/// The key that leads to the shell, where the guest still has the console.
const ESCAPE: &str = "\u{1d}";
/// How long the shell may take to come by itself.
const BY_ITSELF: Duration = Duration::from_secs(3);

/// A command and what the shell said to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The command.
    pub command: String,
    /// The lines of the answer.
    pub lines: Vec<String>,
}

/// The commands in a line, separated by semicolons.
pub fn commands(text: &str) -> Vec<String> {
    text.split(';').map(|command| command.trim().to_owned()).filter(|command| !command.is_empty()).collect()
}

/// Gives each command to the shell and takes its answer.
///
/// # Errors
/// When the machine ends, or the shell does not answer.
pub fn ask(running: &mut Running, commands: &[String]) -> Result<Vec<Answer>> {
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    reach_the_shell(running)?;
    commands.iter().map(|command| ask_one(running, command)).collect()
}

fn reach_the_shell(running: &mut Running) -> Result<()> {
    if !wait(running, BY_ITSELF, waits)? {
        running.send(ESCAPE)?;
    }
    if !wait(running, ANSWER, waits)? {
        bail!("Lockstep's shell does not come");
    }
    Ok(())
}

fn ask_one(running: &mut Running, command: &str) -> Result<Answer> {
    let from = running.console().len();
    running.send(&format!("{command}\r"))?;
    let whole = |text: &str| text.get(from..).is_some_and(|new| answer(new).is_some());
    if !wait(running, ANSWER, whole)? {
        bail!("Lockstep's shell did not answer `{command}`");
    }
    let lines = running.console().get(from..).and_then(answer).unwrap_or_default();
    Ok(Answer { command: command.into(), lines })
}

/// Whether the last thing on the console is the prompt.
fn waits(console: &str) -> bool {
    let end = console.len().saturating_sub(64);
    let end = (end..console.len()).find(|at| console.is_char_boundary(*at)).unwrap_or(0);
    let tail = console[end..].replace(CLEAR, "").replace('\x07', "");
    tail.trim_end().ends_with(PROMPT)
}

/// The lines between the echo of a command and the next prompt; none while they are not all there.
fn answer(text: &str) -> Option<Vec<String>> {
    let text = text.replace(CLEAR, "").replace('\x07', "");
    let (_, rest) = text.split_once('\n')?;
    let rest = rest.trim_end().strip_suffix(PROMPT)?;
    let lines = rest.lines().map(|line| line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned());
    Some(lines.filter(|line| !line.is_empty()).collect())
}

/// Waits for what the console shall say, for so long at most. False: it has not.
fn wait(running: &mut Running, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<bool> {
    let until = Instant::now() + limit;
    running.watch(|text| wanted(text) || Instant::now() >= until)?;
    Ok(wanted(running.console()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_separated() {
        assert_eq!(commands("regs; mem 0x1000 64 ;; disasm"), ["regs", "mem 0x1000 64", "disasm"]);
        assert!(commands(" ; ").is_empty());
    }

    #[test]
    fn an_answer_lies_between_echo_and_prompt() {
        let text = "\rlockstep> r\x1b[K\rlockstep> regs\x1b[K\r\nrax 0\r\nrbx 1\r\n\rlockstep> \x1b[K";
        assert_eq!(answer(text).unwrap(), ["rax 0", "rbx 1"]);
        assert_eq!(answer("regs\r\nrax 0\r\nrb"), None);
        assert_eq!(answer("\rlockstep> regs\x1b[K"), None);
        assert_eq!(answer("nothing\r\n\rlockstep> \x1b[K").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_prompt_is_known_however_it_is_drawn() {
        assert!(waits("boot\r\nlockstep> ") && waits("x\r\n\rlockstep> \x1b[K\x07"));
        assert!(!waits("lockstep> \x1b[K\r\n@@ vm event=stopped\r\n") && !waits(""));
    }
}
