//! `cargo xtask log receive`: the receiving end of the logging channel for a real host.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use replay::log::open::Log;

use crate::log::advice;
use crate::switch::station::sink::create;
use crate::ui;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// How often is told how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Receive the log of a real host, as record does that of the emulated one
///
/// The host's configuration names this address and port as record.peer. One recording is received, from one host; it is written as
/// it comes, so that what has arrived stays when either side breaks off. Exit status 0 when the log is whole, 1 if not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:5405")]
    listen: SocketAddr,
    /// The file that gets the log
    #[arg(short, long, value_name = "LOG", default_value = "run.log")]
    output: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// When nobody can be listened to, or the file cannot be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    ui::say(format!("Waiting for a host at {}", listener.local_addr()?));
    let bytes = receive(&listener, &args.output)?;
    ui::say(format!("{bytes} bytes in {}", args.output.display()));
    let log = advice::read(&args.output)?;
    Ok(match Log::open(&log) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            ui::error(&advice::explain(&args.output, &error));
            ExitCode::FAILURE
        }
    })
}

/// Takes one connection and writes what comes until its end. How many bytes that were.
///
/// # Errors
/// When nobody comes, or the file cannot be written.
pub fn receive(listener: &TcpListener, output: &Path) -> Result<u64> {
    let mut file = create(output)?;
    let (mut stream, from) = listener.accept().context("nobody can connect")?;
    ui::say(format!("A log comes from {from}"));
    copy(&mut stream, &mut file).with_context(|| format!("cannot write the log {}", output.display()))
}

/// A connection that breaks off ends the log, too: what it lacks is for the reader to say.
fn copy(stream: &mut TcpStream, file: &mut File) -> std::io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let (mut bytes, mut told) = (0, Instant::now());
    loop {
        let n = match stream.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                ui::say(format!("The connection broke off: {error}"));
                return Ok(bytes);
            }
        };
        file.write_all(&piece[..n])?;
        bytes += n as u64;
        if told.elapsed() >= TELL {
            told = Instant::now();
            ui::say(format!("{bytes} bytes so far"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_in_the_file_when_the_sender_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let bytes = sent.clone();
        let sender = std::thread::spawn(move || TcpStream::connect(to)?.write_all(&bytes));
        let file = std::env::temp_dir().join(format!("lockstep-receive-{}", std::process::id()));
        let received = receive(&listener, &file).unwrap();
        sender.join().unwrap().unwrap();
        let got = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(received == 3_000_000 && got == sent);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_before_anybody_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = format!("{:#}", receive(&listener, Path::new("/none/log")).unwrap_err());
        assert!(error.contains("/none/log"), "{error}");
    }
}
