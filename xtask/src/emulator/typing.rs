//! A machine's serial port as a connection: what it says goes to the console file, and somebody can type.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::Owned;

/// How long the emulator may take to listen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port of the loopback that nobody uses now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The connection to a machine's serial port.
pub struct Typing {
    stream: TcpStream,
    copier: Option<JoinHandle<()>>,
}

impl Typing {
    /// Connects to the machine that listens on `port`, and begins to copy what it says to `console`.
    ///
    /// # Errors
    /// When the machine ends before it listens, or the file cannot be written.
    pub fn connect(port: u16, console: &Path, machine: &mut Owned) -> Result<Self> {
        let file = File::create(console).with_context(|| format!("cannot write {}", console.display()))?;
        let since = Instant::now();
        let stream = loop {
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                break stream;
            }
            if machine.ended()?.is_some() {
                bail!("the emulator ended before it was ready");
            }
            if since.elapsed() > PATIENCE {
                bail!("the emulator does not listen for its console");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_nodelay(true)?;
        let from = stream.try_clone()?;
        let copier = Some(std::thread::spawn(move || copy(from, file)));
        Ok(Typing { stream, copier })
    }

    /// Types.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn send(&mut self, keys: &[u8]) -> Result<()> {
        self.stream.write_all(keys).context("the machine takes no more keys")
    }

    /// The keyboard alone, for another thread.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn keyboard(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Waits until all that an ended machine has said is in the file.
    pub fn drain(&mut self) {
        if let Some(copier) = self.copier.take() {
            let _ = copier.join();
        }
    }
}

fn copy(mut from: TcpStream, mut to: File) {
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..n]).is_err() {
            return;
        }
    }
}
