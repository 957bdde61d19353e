//! The console: log lines with level, uptime and processor, machine-readable `@@` lines, one line at a time.
//!
//! The lock orders lines and can never hold a processor up for good: it lets the processor that owns it in again (an
//! NMI or a panic in the middle of a line), and after [`LOCK_POLLS`] polls it lets in anybody. The sinks below bear that.

use crate::arch::{percpu, screen, serial, time};
use crate::duties;
use crate::shell::Line;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Polls of the lock before a line goes out without it: seconds, far more than a line takes.
const LOCK_POLLS: u32 = 200_000_000;

/// 0 = free, else the owner's number + 1.
static OWNER: AtomicU32 = AtomicU32::new(0);

struct Guard {
    release: bool,
}

impl Guard {
    fn acquire() -> Guard {
        let me = percpu::number() as u32 + 1;
        if OWNER.load(Ordering::Relaxed) == me {
            return Guard { release: false };
        }
        for _ in 0..LOCK_POLLS {
            if OWNER.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Guard { release: true };
            }
            core::hint::spin_loop();
        }
        Guard { release: false }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.release {
            OWNER.store(0, Ordering::Release);
        }
    }
}

/// What the serial line has got last did not end a line.
static MID_LINE: AtomicBool = AtomicBool::new(false);

/// A line of the hypervisor's has come between others' text on the serial line since [`take_disturbed`].
static DISTURBED: AtomicBool = AtomicBool::new(false);

/// Where text goes: every sink that is present.
struct Sinks;

impl Sinks {
    /// Ends the serial line's current line, if it has begun, so that ours is not torn.
    fn begin_line(&mut self) {
        if MID_LINE.swap(false, Ordering::Relaxed) {
            serial::write("\n");
        }
        DISTURBED.store(true, Ordering::Relaxed);
        duties::HOST.raise(duties::SERIAL);
    }
}

impl Write for Sinks {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        serial::write(text);
        note_end(text.as_bytes());
        screen::write(text);
        Ok(())
    }
}

/// Where the serial line is after these bytes.
fn note_end(bytes: &[u8]) {
    if let Some(last) = bytes.last() {
        MID_LINE.store(*last != b'\n', Ordering::Relaxed);
    }
}

/// The serial line alone: for the shell and a guest's console, which have no business on the screen.
#[derive(Clone, Copy, Debug)]
pub struct SerialLine;

impl Write for SerialLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let _line = Guard::acquire();
        serial::write(text);
        note_end(text.as_bytes());
        Ok(())
    }
}

impl Line for SerialLine {
    fn raw(&mut self, bytes: &[u8]) {
        let _line = Guard::acquire();
        serial::write_raw(bytes);
        note_end(bytes);
    }
}

/// Whether a line of the hypervisor's has come in between since the last call.
pub fn take_disturbed() -> bool {
    DISTURBED.swap(false, Ordering::Relaxed)
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let _line = Guard::acquire();
            Sinks.begin_line();
            let (seconds, micros) = time::uptime();
            let _ = writeln!(
                Sinks,
                "[{seconds:5}.{micros:06}] cpu{} {:5} {}",
                percpu::number(),
                level_name(record.level()),
                record.args()
            );
        }
    }

    fn flush(&self) {
        serial::flush();
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Sets up the sinks and the log. Lines go out from now on.
pub fn init() {
    serial::init();
    // The only error is a logger that is there already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// Takes the lock, whoever has it, and lets nothing wait in a queue any more: for the last words, when all other
/// processors are stopped.
pub fn seize() {
    OWNER.store(percpu::number() as u32 + 1, Ordering::SeqCst);
    serial::direct();
}

/// Prints text as it is, without a stamp: for machine-readable lines and tables. One call is never torn apart by
/// another processor's line.
pub fn print(text: fmt::Arguments<'_>) {
    let _line = Guard::acquire();
    let _ = Sinks.write_fmt(text);
}

/// Prints text as it is, at the start of a line.
pub fn print_line(text: fmt::Arguments<'_>) {
    let _line = Guard::acquire();
    Sinks.begin_line();
    let _ = Sinks.write_fmt(text);
}

/// Prints one machine-readable line: `@@ ` and what follows. See the README for the words.
#[macro_export]
macro_rules! machine_line {
    ($($arg:tt)*) => {
        $crate::console::print_line(format_args!("@@ {}\n", format_args!($($arg)*)))
    };
}
