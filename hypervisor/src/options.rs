//! The kernel's options: words of the command line, and of the configuration module, one word a line. Pure.
//!
//! The configuration module is read first, the command line after it, so the command line has the last word.
//! Unknown words are kept for a warning; a bad value is an error that names the word.

pub mod replay;

use core::fmt;
use ft::side::Side;
use heapless::Vec;
use log::LevelFilter;
use replay::ReplayOptions;

/// Unknown words and errors kept at most, each; the rest is only counted.
const MAX_NOTES: usize = 16;

/// The port of the only exit device that is known.
const EXIT_PORT: u64 = 0xF4;

/// The most MiB that a trial of the logging channel sends.
const MAX_TRIAL: u64 = 1 << 16;

/// What to do when the boot work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// End the emulated run; park where there is no exit port.
    Exit,
    /// Halt every processor and stay.
    Park,
    /// The hypervisor's shell, on the serial port.
    Shell,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    PowerOff,
}

impl After {
    /// The word of the command line.
    pub const fn word(self) -> &'static str {
        match self {
            After::Exit => "exit",
            After::Park => "park",
            After::Shell => "shell",
            After::Reboot => "reboot",
            After::PowerOff => "poweroff",
        }
    }
}

/// How much of the boot proof to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: the host will not protect.
    Off,
    /// A seeded slice, for every boot.
    Short,
    /// All of it.
    Long,
}

/// How a guest's paging is dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagingMode {
    /// Not at all.
    #[default]
    Plain,
    /// Accessed and dirty bits are the processor's; page faults that another host would not have are swallowed.
    Fast,
    /// Accessed and dirty bits are the hypervisor's.
    Strict,
}

impl PagingMode {
    /// The word of the command line.
    pub const fn word(self) -> &'static str {
        match self {
            PagingMode::Plain => "plain",
            PagingMode::Fast => "fast",
            PagingMode::Strict => "strict",
        }
    }
}

/// A way to crash on purpose, to test the last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// A Rust panic.
    Panic,
    /// A page fault at an address that is never mapped.
    PageFault,
    /// A fault while delivering a fault.
    DoubleFault,
    /// A stack that runs into its guard page.
    Stack,
    /// A general-protection fault.
    GeneralProtection,
    /// A write to the kernel's own code.
    WriteText,
    /// A jump into data.
    ExecuteData,
    /// A panic while another processor does not react to anything but an NMI.
    DeafCpu,
    /// A panic on another processor than the boot processor.
    OtherCpu,
    /// An allocation after the end of allocation.
    LateAllocation,
    /// Panic with a VMCS loaded, after a VM exit.
    Guest,
}

/// How the local APICs are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// x2APIC where the processor has it.
    Auto,
    /// xAPIC, unless the firmware has turned x2APIC on already.
    XApic,
}

/// A word whose value cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue<'a> {
    /// The whole word.
    pub word: &'a str,
    /// What would have been right.
    pub wants: &'static str,
}

impl fmt::Display for BadValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}: wants {}", self.word, self.wants)
    }
}

/// All options.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The emulator's exit port may be written.
    pub exit_port: bool,
    /// Log lines up to this level.
    pub log: LevelFilter,
    /// What to do when the boot work is done.
    pub after: After,
    /// How much of the boot proof to run.
    pub proof: Proof,
    /// Seed of everything that is random in tests.
    pub seed: u64,
    /// Landings per property; the proof's own number if absent.
    pub landings: Option<u32>,
    /// Results also as JSON objects.
    pub json: bool,
    /// This host's name.
    pub name: &'a str,
    /// Which host of its pair this is.
    pub host: Option<Side>,
    /// Crash on purpose after the boot work.
    pub crash: Option<Crash>,
    /// How the local APICs are driven.
    pub apic: ApicMode,
    /// Seed of differences between this host and others, which a replay must not see: when the host's own timers run out, when
    /// it is interrupted, which of the guest's memory is mapped. For tests.
    pub variation: Option<u64>,
    /// Instead of the guest: so many MiB of a pattern to the log's receiver.
    pub log_trial: Option<u32>,
    /// What a replay is told.
    pub replay: ReplayOptions<'a>,
    /// How the guest's paging is dealt with, whatever the configuration says.
    pub paging: Option<PagingMode>,
    /// Words not known.
    pub unknown: Vec<&'a str, MAX_NOTES>,
    /// Words with bad values.
    pub bad: Vec<BadValue<'a>, MAX_NOTES>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            exit_port: false,
            log: LevelFilter::Info,
            after: After::Shell,
            proof: Proof::Short,
            seed: 1,
            landings: None,
            json: false,
            name: "lockstep",
            host: None,
            crash: None,
            apic: ApicMode::Auto,
            variation: None,
            log_trial: None,
            replay: ReplayOptions::default(),
            paging: None,
            unknown: Vec::new(),
            bad: Vec::new(),
        }
    }
}

impl<'a> Options<'a> {
    /// Takes in a line of words separated by white space.
    pub fn line(&mut self, words: &'a str) {
        words.split_ascii_whitespace().for_each(|w| self.word(w));
    }

    /// Takes in a configuration file: words, several a line if need be; `#` starts a comment that ends with its line.
    pub fn file(&mut self, text: &'a str) {
        text.lines().for_each(|l| self.line(l.split('#').next().unwrap_or("")));
    }

    fn word(&mut self, word: &'a str) {
        let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        let Some(done) = self.set(key, value) else {
            // More than MAX_NOTES unknown words: the first ones are enough to see what went wrong.
            let _ = self.unknown.push(word);
            return;
        };
        if let Err(wants) = done {
            // As above: the boot stops at the first bad value anyway.
            let _ = self.bad.push(BadValue { word, wants });
        }
    }

    /// `None` = no such word; `Some(Err(what is wanted))` = a bad value.
    fn set(&mut self, key: &str, value: Option<&'a str>) -> Option<Result<(), &'static str>> {
        fn put<T>(place: &mut T, value: Option<T>, wants: &'static str) -> Option<Result<(), &'static str>> {
            Some(value.map(|v| *place = v).ok_or(wants))
        }
        match key {
            "exit-port" => {
                let right = value.and_then(number).filter(|n| *n == EXIT_PORT).map(|_| true);
                put(&mut self.exit_port, right, "0xf4")
            }
            "log" => put(&mut self.log, value.and_then(level), "error, warn, info, debug or trace"),
            "after" => put(&mut self.after, value.and_then(after), "exit, park, shell, reboot or poweroff"),
            "proof" => put(&mut self.proof, value.and_then(proof), "off, short or long"),
            "seed" => {
                put(&mut self.seed, value.and_then(number), "a number of at most 64 bits, decimal or 0x")
            }
            "landings" => {
                let n = value.and_then(number).and_then(|n| u32::try_from(n).ok());
                put(&mut self.landings, n.map(Some), "a number of at most 32 bits, decimal or 0x")
            }
            "json" => put(&mut self.json, value.is_none().then_some(true), "no value"),
            "name" => put(&mut self.name, value.filter(|n| is_name(n)), "1 to 63 letters, digits, - or ."),
            "host" => put(&mut self.host, value.and_then(host).map(Some), "a or b"),
            "crash" => put(
                &mut self.crash,
                value.and_then(crash).map(Some),
                "panic, pf, df, stack, gp, write-text, execute-data, deaf-cpu, late-allocation or guest",
            ),
            "variation" => {
                put(&mut self.variation, value.and_then(number).map(Some), "a number, decimal or 0x")
            }
            "log-trial" => {
                let mib = value.and_then(number).filter(|mib| (1..=MAX_TRIAL).contains(mib));
                put(&mut self.log_trial, mib.map(|mib| Some(mib as u32)), "a number of MiB from 1 to 65536")
            }
            "until" => put(
                &mut self.replay.until,
                value.and_then(replay::until).map(Some),
                "entry:K, exit:K, n:K or checkpoint:K",
            ),
            "plant" => put(
                &mut self.replay.plant,
                value.and_then(replay::plant).map(Some),
                "memory:ADDRESS:BIT@CHECKPOINT, register:NAME:BIT@CHECKPOINT or device:NAME:BIT@CHECKPOINT",
            ),
            "restore" => put(
                &mut self.replay.restore,
                value.and_then(replay::restore).map(Some),
                "C:D, two numbers of checkpoints, C before D",
            ),
            "apic" => put(&mut self.apic, value.and_then(apic), "auto or xapic"),
            "paging" => put(&mut self.paging, value.and_then(paging).map(Some), "plain, fast or strict"),
            _ => None,
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x");
    let parsed = digits.map_or_else(|| text.parse(), |d| u64::from_str_radix(d, 16));
    // Both take a sign, which no option has.
    parsed.ok().filter(|_| !text.contains('+'))
}

fn host(value: &str) -> Option<Side> {
    Some(match value {
        "a" => Side::A,
        "b" => Side::B,
        _ => return None,
    })
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

fn level(value: &str) -> Option<LevelFilter> {
    Some(match value {
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => return None,
    })
}

fn after(value: &str) -> Option<After> {
    [After::Exit, After::Park, After::Shell, After::Reboot, After::PowerOff]
        .into_iter()
        .find(|a| a.word() == value)
}

fn proof(value: &str) -> Option<Proof> {
    Some(match value {
        "off" => Proof::Off,
        "short" => Proof::Short,
        "long" => Proof::Long,
        _ => return None,
    })
}

fn crash(value: &str) -> Option<Crash> {
    Some(match value {
        "panic" => Crash::Panic,
        "pf" => Crash::PageFault,
        "df" => Crash::DoubleFault,
        "stack" => Crash::Stack,
        "gp" => Crash::GeneralProtection,
        "write-text" => Crash::WriteText,
        "execute-data" => Crash::ExecuteData,
        "deaf-cpu" => Crash::DeafCpu,
        "other-cpu" => Crash::OtherCpu,
        "late-allocation" => Crash::LateAllocation,
        "guest" => Crash::Guest,
        _ => return None,
    })
}

fn paging(value: &str) -> Option<PagingMode> {
    [PagingMode::Plain, PagingMode::Fast, PagingMode::Strict].into_iter().find(|mode| mode.word() == value)
}

fn apic(value: &str) -> Option<ApicMode> {
    Some(match value {
        "auto" => ApicMode::Auto,
        "xapic" => ApicMode::XApic,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Options<'_> {
        let mut options = Options::default();
        options.line(line);
        options
    }

    #[test]
    fn every_word_is_understood() {
        let o = parse(
            "exit-port=0xf4 log=trace after=poweroff proof=long seed=0x10 landings=1000 json name=host-a.lab \
             crash=df apic=xapic log-trial=4 variation=5 host=b until=entry:3 plant=memory:4096:1@2 restore=1:2",
        );
        assert!(o.unknown.is_empty() && o.bad.is_empty(), "{o:?}");
        assert!(o.exit_port && o.json);
        assert_eq!((o.log, o.after, o.proof), (LevelFilter::Trace, After::PowerOff, Proof::Long));
        assert_eq!((o.seed, o.landings, o.name), (16, Some(1000), "host-a.lab"));
        assert_eq!((o.crash, o.apic, o.log_trial), (Some(Crash::DoubleFault), ApicMode::XApic, Some(4)));
        assert_eq!(o.host, Some(Side::B));
    }

    #[test]
    fn nothing_said_means_park_and_no_exit_port() {
        let o = parse("");
        assert!(!o.exit_port && !o.json);
        assert_eq!((o.after, o.proof, o.log), (After::Shell, Proof::Short, LevelFilter::Info));
    }

    #[test]
    fn unknown_words_are_kept_and_harm_nothing() {
        let o = parse("quiet splash=1 seed=7 JSON");
        assert_eq!(&o.unknown[..], ["quiet", "splash=1", "JSON"]);
        assert_eq!(o.seed, 7);
    }

    #[test]
    fn bad_values_name_the_word_and_leave_the_default() {
        for word in [
            "exit-port=0x80",
            "exit-port",
            "log=loud",
            "after=",
            "proof=medium",
            "seed=",
            "seed=-1",
            "seed=+1",
            "seed=0x",
            "seed=0x+1",
            "seed=18446744073709551616",
            "landings=4294967296",
            "json=1",
            "name=",
            "name=a_b",
            "crash=boom",
            "log-trial=0",
            "apic=x2",
            "variation=",
            "host=c",
            "until=3",
            "plant=x",
            "restore=2:1",
        ] {
            let o = parse(word);
            assert_eq!(o.bad.len(), 1, "{word}");
            assert_eq!(o.bad[0].word, word);
            assert!(std::format!("{}", o.bad[0]).contains(word));
            assert_eq!((o.seed, o.landings, o.exit_port), (1, None, false), "{word}");
        }
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let mut o = Options::default();
        o.file("# host A\nname=a  # the left one\n\r\nseed=1 log=debug\r\nlandings=5");
        o.line("name=b seed=2");
        assert_eq!((o.name, o.seed, o.landings, o.log), ("b", 2, Some(5), LevelFilter::Debug));
        assert!(o.unknown.is_empty() && o.bad.is_empty());
    }

    #[test]
    fn more_unknown_words_than_fit_do_not_hurt() {
        let o = parse("a b c d e f g h i j k l m n o p q r s t seed=9");
        assert_eq!((o.unknown.len(), o.seed), (MAX_NOTES, 9));
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "\\PC{0,200}") {
            let mut o = Options::default();
            o.file(&text);
            o.line(&text);
        }

        #[test]
        fn numbers_round_trip(n: u64) {
            prop_assert_eq!(number(&std::format!("{n}")), Some(n));
            prop_assert_eq!(number(&std::format!("{n:#x}")), Some(n));
        }
    }
}
