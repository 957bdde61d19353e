//! The same loads under QEMU's own record/replay (`-icount ...,rr=record`), with the same kernel and initial file system.
//!
//! QEMU's emulated time is a function of the instructions, so what recording and replaying cost is its processor time in user
//! mode. A replay's end is judged by the guest's fingerprint alone: QEMU stops its processor at some point behind the guest's
//! power-off, so registers and memory of its last moment would differ for no fault of the replay.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::ours::words;
use super::table::{BASE, Replayed, Run, Side};
use crate::payload::Payload;
use crate::replaying::lines;
use crate::run::Owned;
use crate::vm::Start;
use crate::{paths, ui};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The guest's memory, MiB.
const MEMORY_MIB: u64 = 256;
/// Where the guest finds the servers: QEMU's own network has no other way to them than a forwarded address.
const SERVER: &str = "10.0.2.100";

/// How a run is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Record,
    Replay,
}

/// The bench's loads on QEMU.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Size of the loads, MB.
    pub size: u32,
    /// Replays of each recording.
    pub replays: u32,
    /// Loads.
    pub loads: Vec<&'static str>,
}

/// What a run left behind.
struct Seen {
    run: Run,
    /// Processor time, seconds.
    seconds: f64,
    /// What the guest says that its execution comes to.
    fingerprint: String,
}

impl Peer {
    /// Runs all of it.
    ///
    /// # Errors
    /// When QEMU cannot be started, or a load does not end when nothing is recorded. A recording that does not end is left out, and a
    /// replay that does not is counted as not equal.
    pub fn run(&self) -> Result<Side> {
        let mut side = Side::default();
        let servers = Servers::start(self.size)?;
        for &load in &self.loads {
            let timed = [BASE, "cpu", "gzip", "fork"].contains(&load);
            if timed {
                let seen = self.one(load, Mode::Plain, &servers)?;
                side.plain.insert(load, Run { cost: seen.seconds, ..seen.run });
            }
            // What it cannot record is left out of its side; our own rows are there without it.
            let recorded = match self.one(load, Mode::Record, &servers) {
                Ok(recorded) => recorded,
                Err(error) => {
                    ui::say(format!("        QEMU's recording of {load}: {error:#}"));
                    continue;
                }
            };
            side.recorded.insert(load, Run { cost: recorded.seconds, ..recorded.run });
            for _ in 0..self.replays {
                side.replays.push(self.replay(load, &recorded, &servers));
            }
        }
        Ok(side)
    }

    fn replay(&self, load: &'static str, recorded: &Seen, servers: &Servers) -> Replayed {
        let plain = Replayed { load, recorded: recorded.seconds, ..Replayed::default() };
        match self.one(load, Mode::Replay, servers) {
            Ok(seen) => {
                let equal = seen.fingerprint == recorded.fingerprint;
                if !equal {
                    ui::say(format!("        QEMU's replay of {load} gave another fingerprint"));
                }
                Replayed { equal, seconds: seen.seconds, ..plain }
            }
            Err(error) => {
                ui::say(format!("        QEMU's replay of {load}: {error:#}"));
                Replayed { seconds: f64::NAN, ..plain }
            }
        }
    }

    fn one(&self, load: &str, mode: Mode, servers: &Servers) -> Result<Seen> {
        let what = match mode {
            Mode::Plain => "without recording",
            Mode::Record => "recorded",
            Mode::Replay => "replayed",
        };
        let step = ui::step(format!("run {load} on QEMU, {what}"));
        let dir = paths::fresh_out_dir(&format!("run/bench-replay-qemu-{load}-{mode:?}"))?;
        let log = paths::out_dir()?.join(format!("bench-replay-qemu-{load}.rr"));
        let mut machine = Running::start(&self.args(load, mode, &dir, &log, servers)?, &dir)?;
        machine.wait_for_power_off()?;
        let fingerprint =
            lines::fingerprint(&machine.console()).context("the guest does not say its fingerprint")?;
        let instructions = if mode == Mode::Plain { 0.0 } else { machine.instructions()? };
        let guest_seconds = uptime(&machine.console()).context("the guest does not say its uptime")?;
        let seconds = machine.quit()?;
        let bytes = if mode == Mode::Record { fs::metadata(&log)?.len() as f64 } else { 0.0 };
        step.done_with(format!("{seconds:.1} s of processor time, {bytes} bytes of log"));
        Ok(Seen { run: Run { cost: seconds, bytes, guest_seconds, instructions }, seconds, fingerprint })
    }

    fn args(&self, load: &str, mode: Mode, dir: &Path, log: &Path, servers: &Servers) -> Result<Vec<String>> {
        let description = Payload::Cloud.describe(&format!("{} srv={SERVER}", words(load, self.size)))?;
        let Start::Kernel { kernel, initrd: Some(initrd), command_line } = description.start else {
            bail!("the standard guest has a kernel and an initial file system");
        };
        let disk = dir.join("disk");
        File::create(&disk)?.set_len(u64::from(self.size) << 21)?;
        let icount = match mode {
            Mode::Plain => "shift=1".to_owned(),
            Mode::Record => format!("shift=1,rr=record,rrfile={}", log.display()),
            Mode::Replay => format!("shift=1,rr=replay,rrfile={}", log.display()),
        };
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[
            "-accel",
            "tcg",
            "-M",
            "pc",
            "-cpu",
            "qemu64",
            "-m",
            &MEMORY_MIB.to_string(),
            "-icount",
            &icount,
        ]);
        add(&[
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-no-shutdown",
            "-rtc",
            "base=2023-11-14T22:13:20,clock=vm",
        ]);
        add(&["-serial", &format!("file:{}", dir.join("console").display())]);
        add(&["-qmp", &format!("unix:{},server=on,wait=off", dir.join("qmp").display())]);
        add(&["-kernel", &kernel.display().to_string(), "-initrd", &initrd.display().to_string()]);
        add(&["-append", &command_line]);
        add(&["-drive", &format!("file={},format=raw,if=none,snapshot=on,id=direct", disk.display())]);
        add(&["-drive", "driver=blkreplay,if=none,image=direct,id=disk"]);
        add(&["-device", "virtio-blk-pci,drive=disk"]);
        let [files, sink] = servers.ports;
        let forward = |port: u16, to: u16| format!("guestfwd=tcp:{SERVER}:{port}-tcp:127.0.0.1:{to}");
        add(&["-netdev", &format!("user,id=net,{},{}", forward(8000, files), forward(8001, sink))]);
        add(&[
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-object",
            "filter-replay,id=filter,netdev=net",
        ]);
        Ok(args)
    }
}

/// QEMU under way.
struct Running {
    process: Owned,
    qmp: BufReader<UnixStream>,
    dir: PathBuf,
    since: Instant,
    off: bool,
}

impl Running {
    fn start(args: &[String], dir: &Path) -> Result<Self> {
        fs::write(dir.join("command"), args.join(" "))?;
        let out = File::create(dir.join("out"))?;
        let mut command = Command::new(PROGRAM);
        command.args(args).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut process = Owned::spawn(&mut command)?;
        let since = Instant::now();
        let stream = loop {
            match UnixStream::connect(dir.join("qmp")) {
                Ok(stream) => break stream,
                Err(_) if process.ended()?.is_some() || since.elapsed() > Duration::from_secs(60) => {
                    bail!("QEMU did not start: {}", fs::read_to_string(dir.join("out")).unwrap_or_default());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut running =
            Running { process, qmp: BufReader::new(stream), dir: dir.into(), since, off: false };
        running.ask("qmp_capabilities", json!({}))?;
        Ok(running)
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.dir.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the guest has switched itself off; QEMU stays.
    fn wait_for_power_off(&mut self) -> Result<()> {
        while !self.off {
            self.read()?;
        }
        Ok(())
    }

    /// The next message, if one comes soon.
    fn read(&mut self) -> Result<Option<Value>> {
        if self.since.elapsed() > LIMIT {
            bail!("it did not come to its end in {}", ui::seconds(LIMIT));
        }
        let mut line = String::new();
        loop {
            match self.qmp.read_line(&mut line) {
                Ok(0) => {
                    bail!("QEMU ended: {}", fs::read_to_string(self.dir.join("out")).unwrap_or_default())
                }
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // What has come of the line stays in it.
                    if line.is_empty() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let message: Value = serde_json::from_str(&line)?;
        self.off |= message["event"] == "SHUTDOWN";
        Ok(Some(message))
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.qmp.get_mut(), "{request}")?;
        loop {
            let Some(message) = self.read()? else { continue };
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
        }
    }

    fn instructions(&mut self) -> Result<f64> {
        let answer = self.ask("query-replay", json!({}))?;
        answer["icount"].as_f64().context("QEMU does not tell its instructions")
    }

    /// Ends QEMU; the processor time that it took in user mode, seconds.
    fn quit(mut self) -> Result<f64> {
        writeln!(self.qmp.get_mut(), "{}", json!({"execute": "quit"}))?;
        let (_, killed) = self.process.wait(Some(Duration::from_secs(60)))?;
        if killed {
            bail!("QEMU did not end when it was told to");
        }
        self.process.user_time().map(|time| time.as_secs_f64()).context("QEMU's processor time is not known")
    }
}

/// The guest's uptime in the last of its marks.
fn uptime(console: &str) -> Option<f64> {
    let line = console.lines().rfind(|line| line.contains("@@ DONE"))?;
    line.trim().rsplit_once("up=")?.1.parse().ok()
}

/// What the guest's network loads talk to: a server of one file by HTTP, and one that takes what comes. They end with this.
struct Servers {
    /// Of the file, and of the sink.
    ports: [u16; 2],
    over: Arc<AtomicBool>,
}

impl Servers {
    fn start(size: u32) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let length = u64::from(size) << 20;
        let files = serve(&over, move |stream| give_file(stream, length))?;
        let sink = serve(&over, |mut stream| std::io::copy(&mut stream, &mut std::io::sink()).map(drop))?;
        Ok(Servers { ports: [files, sink], over })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for port in self.ports {
            // Wakes the one that waits.
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn serve(
    over: &Arc<AtomicBool>,
    talk: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let over = Arc::clone(over);
    let talk = Arc::new(talk);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let talk = Arc::clone(&talk);
            // A guest that goes away in the middle is its own affair. QEMU connects once at its start, for all of its run.
            std::thread::spawn(move || drop(talk(stream)));
        }
    });
    Ok(port)
}

fn give_file(mut stream: TcpStream, length: u64) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let mut seen = Vec::new();
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut request)? {
            0 => return Ok(()),
            n => seen.extend_from_slice(&request[..n]),
        }
    }
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
    let zeros = [0; 1 << 16];
    let mut left = length;
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        stream.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    stream.shutdown(std::net::Shutdown::Both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_tells_its_uptime() {
        assert_eq!(uptime("@@ INIT up=0.5\n@@ DONE up=12.34\r\nx\n"), Some(12.34));
        assert_eq!(uptime("@@ INIT up=0.5\n"), None);
    }

    #[test]
    fn the_servers_give_and_take() {
        let servers = Servers::start(1).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", servers.ports[0])).unwrap();
        stream.write_all(b"GET /file1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.0 200 OK\r\n") && all.len() > 1 << 20 && all.ends_with(&[0; 100]));
        let mut stream = TcpStream::connect(("127.0.0.1", servers.ports[1])).unwrap();
        stream.write_all(&[1; 100_000]).unwrap();
    }
}
