//! A configuration as text again, for tools that make one from flags and for the console.

use alloc::string::{String, ToString};
use core::fmt;

use crate::config::{Boot, Card, Config, Disk, Medium, Network, Record, RtcStart};
use crate::pair;
use crate::values::{Ipv4, Memory, control_name};

impl Config {
    /// The text that [`Config::parse`] reads as this configuration. It has the pair's key in it: it is for files, not for people.
    pub fn text(&self) -> String {
        WithKey(self).to_string()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, with_key: bool) -> fmt::Result {
        writeln!(
            f,
            "[vm]\nname = \"{}\"\nmemory = \"{}\"\ncpu = \"{}\"",
            self.vm.name, self.vm.memory, self.vm.cpu
        )?;
        if let Some(seed) = self.vm.seed {
            writeln!(f, "seed = {seed}")?;
        }
        boot(f, &self.boot)?;
        self.disks.iter().try_for_each(|each| disk(f, each))?;
        self.networks.iter().try_for_each(|each| network(f, each))?;
        writeln!(f, "\n[console]\nserial = {}\nvirtio = {}", self.console.serial, self.console.virtio)?;
        match self.console.escape {
            Some(byte) => writeln!(f, "escape = 'ctrl-{}'", control_name(byte))?,
            None => writeln!(f, "escape = \"none\"")?,
        }
        writeln!(f, "\n[rtc]")?;
        match self.rtc {
            RtcStart::Host => writeln!(f, "start = \"host\"")?,
            RtcStart::Fixed(seconds) => writeln!(f, "start = {}", Time(seconds))?,
        }
        let follow = if self.clock.follows_host { "host" } else { "instructions" };
        writeln!(f, "\n[clock]\nfollow = \"{follow}\"")?;
        if let Some(rate) = self.clock.rate {
            writeln!(f, "rate = {rate}")?;
        }
        self.record.as_ref().map_or(Ok(()), |settings| record(f, settings))?;
        self.pair.as_ref().map_or(Ok(()), |settings| pair::write(f, settings, with_key))
    }
}

impl fmt::Display for Config {
    /// The configuration for people: as [`Config::text`], without the pair's key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

/// All of a configuration.
struct WithKey<'c>(&'c Config);

impl fmt::Display for WithKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, true)
    }
}

fn boot(f: &mut fmt::Formatter<'_>, boot: &Boot) -> fmt::Result {
    writeln!(f, "\n[boot]")?;
    match boot {
        Boot::Kernel { kernel, initrd, command_line, modules } => {
            writeln!(f, "kernel = \"{kernel}\"")?;
            if let Some(initrd) = initrd {
                writeln!(f, "initrd = \"{initrd}\"")?;
            }
            writeln!(f, "command-line = \"{}\"", Quoted(command_line))?;
            modules.iter().try_for_each(|module| {
                let line = Quoted(&module.command_line);
                writeln!(f, "\n[[boot.module]]\nfile = \"{}\"\ncommand-line = \"{line}\"", module.file)
            })
        }
        Boot::Firmware { firmware, disk } => writeln!(f, "firmware = \"{firmware}\"\ndisk = {disk}"),
    }
}

fn disk(f: &mut fmt::Formatter<'_>, disk: &Disk) -> fmt::Result {
    match &disk.medium {
        Medium::Image(name) => writeln!(f, "\n[[disk]]\nimage = \"{name}\"")?,
        Medium::Blank(bytes) => writeln!(f, "\n[[disk]]\nsize = \"{}\"", Memory { bytes: *bytes })?,
    }
    writeln!(f, "read-only = {}", disk.read_only)?;
    disk.serial.as_ref().map_or(Ok(()), |serial| writeln!(f, "serial = \"{}\"", Quoted(serial)))
}

fn network(f: &mut fmt::Formatter<'_>, network: &Network) -> fmt::Result {
    writeln!(f, "\n[[network]]\nmac = \"{}\"", network.mac)?;
    match network.card {
        Some(card) => writeln!(f, "card = {card}")?,
        None => writeln!(f, "card = \"none\"")?,
    }
    writeln!(f, "promiscuous = {}", network.promiscuous)
}

fn record(f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
    let (peer, port) = record.peer;
    writeln!(f, "\n[record]\ncard = {}", record.card)?;
    writeln!(
        f,
        "address = \"{}/{}\"\npeer = \"{}:{port}\"",
        Ipv4(record.address),
        record.prefix,
        Ipv4(peer)
    )?;
    writeln!(f, "paging = \"{}\"\ncheckpoint = {}", record.paging.name(), record.checkpoint)
}

impl fmt::Display for Card {
    /// The value of a key `card`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => write!(f, "\"{address}\""),
            Self::Mac(mac) => write!(f, "\"{mac}\""),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// The inside of a TOML string.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c => f.write_char(c),
        })
    }
}

/// Seconds since 1970 as RFC 3339 says it, in UTC.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days from 0000-03-01; eras of 400 years, years that begin in March.
        let days = self.0 / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let (year, second) = (era * 400 + year + next, self.0 % 86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}
