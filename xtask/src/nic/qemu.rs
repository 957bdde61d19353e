//! The driver on QEMU's cards: frames over a stream socket, which loses none, and the cable by QEMU's monitor.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Plan;
use super::peer::{Flap, Peer};
use crate::guests;
use crate::qemu::{Boot, Machine, Nic, Outcome, program};

/// Frames of a burst, of which a ring of 64 holds an eighth; and how often the link is lost.
const BURST: u32 = 500;
const FLAPS: u32 = 3;
/// Longest frame that is believed.
const MAX_FRAME: usize = 65_536;
/// How often a socket that nobody connects to is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Give up a monitor that does not answer.
const MONITOR_PATIENCE: Duration = Duration::from_secs(60);
/// Id that the machine gives to the first card's cable.
const CABLE: &str = "net0";

/// Whether the installed QEMU has this card.
///
/// # Errors
/// When QEMU cannot be started.
pub fn has(model: &str) -> Result<bool> {
    let mut command = Command::new(program());
    command.args(["-device", &format!("{model},help")]).stdin(Stdio::null());
    // The status tells nothing: 7.2 says "not found" and succeeds.
    let said = command.output().context("cannot start QEMU")?.stdout;
    Ok(String::from_utf8_lossy(&said).contains("options:"))
}

/// Runs the test kernel `nic_frames` with a card of this model, by QEMU's name; all its checks must pass, and the peer must have
/// nothing to complain about.
///
/// # Errors
/// When that is not so, or the machine cannot be started.
pub fn prove(model: &str, plan: &Plan) -> Result<Outcome> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let tag = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let [cable, monitor] =
        ["net", "qmp"].map(|kind| std::env::temp_dir().join(format!("lockstep-{kind}-{tag}.sock")));
    let listener = UnixListener::bind(&cable).with_context(|| format!("no socket {}", cable.display()))?;
    listener.set_nonblocking(true)?;
    let words =
        format!("exit-port=0xf4 frames={} seed={} burst={BURST} flaps={FLAPS}", plan.frames, plan.seed);
    let machine = Machine {
        name: format!("nic-{model}-{tag}"),
        // Its interrupt lines are those of the old interrupt controller, which is what the test kernel expects.
        platform: ["-machine", "pc", "-accel", "tcg", "-cpu", "max"].map(String::from).into(),
        boot: Boot::Cd(guests::iso(&guests::build("nic_frames")?, &words)?),
        memory_mib: 128,
        nics: vec![Nic {
            netdev: Some(format!("stream,server=off,addr.type=unix,addr.path={}", cable.display())),
            ..Nic::new(1, model)
        }],
        more: ["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())].map(String::from).into(),
        limit: plan.limit,
        ..Machine::default()
    };
    let over = AtomicBool::new(false);
    let (outcome, peer) = std::thread::scope(|scope| {
        let peer = scope.spawn(|| attend(&listener, &monitor, plan.seed, &over));
        let outcome = machine.run();
        over.store(true, Ordering::Relaxed);
        (outcome, peer.join())
    });
    for socket in [cable, monitor] {
        let _ = std::fs::remove_file(socket);
    }
    let (outcome, Ok(peer)) = (outcome?, peer) else { bail!("the peer panicked") };
    let failed: Vec<&str> = outcome.console.lines().filter(|line| line.contains("verdict=fail")).collect();
    ensure!(failed.is_empty(), "these checks failed:\n{}\n{}", failed.join("\n"), outcome.last_words());
    ensure!(outcome.exit == crate::emulator::Exit::Success, "{:?}\n{}", outcome.exit, outcome.last_words());
    let faults = peer?.faults();
    ensure!(faults.is_empty(), "the peer says: {faults}");
    let _ = std::fs::remove_dir_all(&outcome.dir);
    Ok(outcome)
}

/// Plays the peer until the machine is gone.
fn attend(listener: &UnixListener, monitor: &Path, seed: u64, over: &AtomicBool) -> Result<Peer> {
    let mut peer = Peer::new(seed);
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if over.load(Ordering::Relaxed) => return Ok(peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
            Err(error) => return Err(error).context("no connection of the card's cable"),
        }
    };
    stream.set_nonblocking(false)?;
    let (mut input, mut output) = (BufReader::new(stream.try_clone()?), stream);
    let (mut frame, mut send) = (Vec::new(), Vec::new());
    while receive(&mut input, &mut frame)? {
        if let Some(flap) = peer.frame(&frame, &mut send) {
            pull(monitor, flap)?;
            send.push(peer.flapped(&frame[6..12]));
        }
        // In one piece: a frame each costs a system call each.
        let bytes: Vec<u8> = send
            .drain(..)
            .flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], &frame].concat())
            .collect();
        if output.write_all(&bytes).is_err() {
            break;
        }
    }
    Ok(peer)
}

/// The next frame: its length as 32 bits, the most significant first, and its bytes. False: the machine is gone.
fn receive(input: &mut impl Read, frame: &mut Vec<u8>) -> Result<bool> {
    let mut len = [0; 4];
    if input.read_exact(&mut len).is_err() {
        return Ok(false);
    }
    let len = u32::from_be_bytes(len) as usize;
    ensure!(len <= MAX_FRAME, "QEMU sends a frame of {len} bytes");
    frame.resize(len, 0);
    Ok(input.read_exact(frame).is_ok())
}

/// Pulls the cable and plugs it in again.
fn pull(monitor: &Path, flap: Flap) -> Result<()> {
    let stream = UnixStream::connect(monitor).context("no connection to QEMU's monitor")?;
    stream.set_read_timeout(Some(MONITOR_PATIENCE))?;
    let mut monitor = Monitor { input: BufReader::new(stream.try_clone()?), output: stream };
    monitor.say("qmp_capabilities", serde_json::json!({}))?;
    monitor.say("set_link", serde_json::json!({"name": CABLE, "up": false}))?;
    std::thread::sleep(Duration::from_millis(flap.millis.into()));
    monitor.say("set_link", serde_json::json!({"name": CABLE, "up": true}))
}

/// QEMU's monitor, by its protocol of JSON lines.
struct Monitor {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Monitor {
    fn say(&mut self, command: &str, arguments: serde_json::Value) -> Result<()> {
        let line = serde_json::json!({"execute": command, "arguments": arguments});
        writeln!(self.output, "{line}")?;
        loop {
            let mut line = String::new();
            ensure!(self.input.read_line(&mut line)? > 0, "QEMU's monitor hung up at `{command}`");
            let answer: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses `{command}`: {error}");
            }
            // Greetings and events come in between.
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }
}
