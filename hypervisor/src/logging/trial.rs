//! A trial of the logging channel without a guest, by the word `log-trial=MIB`: a pattern goes through log buffer and sender to
//! the receiver that the configuration names, and the run ends.

use super::LogSender;
use crate::arch::cpu::{self, ExitCode};
use crate::arch::{physical, time};
use crate::machine_line;
use crate::options::Options;
use alloc::boxed::Box;
use alloc::vec;
use boot::memory_map::Range;
use boot::multiboot::BootInfo;
use replay::log::buffer::{self, LogBuffer};
use replay::seed::Seed;
use vm_config::{Config, Record};

/// The configuration's module.
const CONFIGURATION: &str = "lockstep.toml";

/// Bytes that are put into the buffer at once, about a block of a log; whole words.
const PIECE: usize = 1_400;

/// The receiver may take nothing for so long, nanoseconds.
const PATIENCE: u64 = 60_000_000_000;

/// Does nothing unless the trial is asked for; then it does not return where there is an exit port.
pub fn run_if_wanted(info: &BootInfo<'static>, options: &Options<'_>) {
    let Some(mib) = options.log_trial else { return };
    let sent = record(info).is_some_and(|record| send(&record, u64::from(mib) << 20, options.seed));
    if !sent {
        log::error!("the trial of the logging channel has failed");
    }
    cpu::exit(if sent { ExitCode::Success } else { ExitCode::ProofFailed })
}

/// Where the log goes.
fn record(info: &BootInfo<'static>) -> Option<Record> {
    let Some(module) = info.modules.iter().find(|module| module.string == CONFIGURATION) else {
        log::error!("log-trial: there is no {CONFIGURATION}");
        return None;
    };
    match Config::parse_bytes(physical::read_only(Range::new(module.start, module.end))) {
        Ok(Config { record: Some(record), .. }) => Some(record),
        Ok(_) => {
            log::error!("log-trial: {CONFIGURATION} has no [record]");
            None
        }
        Err(error) => {
            log::error!("{CONFIGURATION}: {error}");
            None
        }
    }
}

/// Sends so many bytes of the generator of `seed`; whether all have arrived.
fn send(record: &Record, bytes: u64, seed: u64) -> bool {
    let mut sender = match LogSender::open(record) {
        Ok(sender) => sender,
        Err(trouble) => {
            log::error!("{trouble}");
            return false;
        }
    };
    let mut buffer = LogBuffer::new(Box::leak(vec![0; buffer::BYTES].into_boxed_slice()));
    let (mut generator, mut left) = (Seed::new(seed), bytes);
    let (start, mut progress) = (time::now_ns(), time::now_ns());
    let mut acknowledged = 0;
    loop {
        while left > 0 && buffer.free() >= PIECE {
            let mut piece = [0; PIECE];
            piece.as_chunks_mut().0.iter_mut().for_each(|word| *word = generator.next().to_le_bytes());
            let whole = left.min(PIECE as u64) as usize;
            // There is room.
            let _ = buffer.push(&piece[..whole]);
            left -= whole as u64;
        }
        sender.poll(&mut buffer);
        if left == 0 && sender.drained(&buffer) {
            break;
        }
        let now = time::now_ns();
        if core::mem::replace(&mut acknowledged, sender.acknowledged()) != sender.acknowledged() {
            progress = now;
        }
        if sender.is_lost() || now.saturating_sub(progress) > PATIENCE {
            sender.close();
            return false;
        }
    }
    let took = time::now_ns() - start;
    machine_line!(
        "log-trial bytes={bytes} ns={took} buffer-most={} refused={}",
        buffer.most(),
        buffer.refused()
    );
    sender.close()
}
