//! The commands: names, arguments, help, completion, and what each does.

use super::inspect;
use super::system::{Guest, Host, Inspect, Order, VmState};
use core::fmt::{self, Write};
use log::LevelFilter;

/// Words of a line that are looked at; more are an error anyway.
const MAX_WORDS: usize = 4;

/// Events shown of each processor unless the command says how many, and at most.
const EVENTS: usize = 10;
const MAX_EVENTS: usize = 64;

/// Rows of a table of exits; there are 70 reasons or so.
const MAX_EXIT_ROWS: usize = 100;

/// What a command leaves for the shell to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Give the line to the guest.
    Attach,
}

/// What a command's argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    /// There is none.
    None,
    /// One of these words, or none.
    Word(&'static [&'static str]),
    /// The name of a command, or none.
    Command,
    /// A number, or none.
    Number,
    /// One of these words, or a number, or none.
    WordOrNumber(&'static [&'static str]),
    /// So many words at most, which the command looks at itself.
    Words(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Help,
    Vm,
    Exits,
    Pmu,
    Mem,
    Regs,
    Disasm,
    Walk,
    Pci,
    Net,
    Ft,
    Log,
    Events,
    Version,
    Uptime,
    Reboot,
    Attach,
}

#[derive(Debug)]
struct Command {
    name: Name,
    word: &'static str,
    argument: Argument,
    /// The argument, for people.
    usage: &'static str,
    /// One line.
    about: &'static str,
    /// More lines.
    details: &'static str,
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
const ORDERS: &[&str] = &["state", "pause", "resume", "reset", "poweroff", "kill"];

const COMMANDS: &[Command] = &[
    Command {
        name: Name::Help,
        word: "help",
        argument: Argument::Command,
        usage: "[COMMAND]",
        about: "all commands, or more about one",
        details: "Keys: arrows, Home, End, Delete; Ctrl-A, E, K, U, W; Tab completes; Ctrl-C gives the line up.",
    },
    Command {
        name: Name::Vm,
        word: "vm",
        argument: Argument::Word(ORDERS),
        usage: "[state|pause|resume|reset|poweroff|kill]",
        about: "the virtual machine: what it does; orders to it",
        details: "state     what it is and does (the default)
pause     stop executing it; its clock stands
resume    go on
reset     press the reset button
poweroff  press the power button: its operating system is asked to shut down
kill      end it at once",
    },
    Command {
        name: Name::Exits,
        word: "exits",
        argument: Argument::None,
        usage: "",
        about: "VM exits by reason, with their cost",
        details: "Cost is in counts of the time-stamp counter, from the exit to the next entry.",
    },
    Command {
        name: Name::Pmu,
        word: "pmu",
        argument: Argument::None,
        usage: "",
        about: "what the boot proof found about the counters",
        details: "The table of properties, the margin, and the event that counts branches.",
    },
    Command {
        name: Name::Mem,
        word: "mem",
        argument: Argument::Words(3),
        usage: "[ADDR [LEN] [virt|phys]]",
        about: "memory: of the host; the guest's bytes from ADDR on",
        details: "Without an address: free frames of each pool, and the heap, which is closed while a guest runs.
ADDR is hexadecimal, or a register: rsp, cr2, fs-base. LEN bytes, 64 unless said, at most 1024.
virt goes through the guest's page tables, as is usual where paging is on; phys does not.",
    },
    Command {
        name: Name::Regs,
        word: "regs",
        argument: Argument::None,
        usage: "",
        about: "the guest's registers, while it stands still",
        details: "Segments with their hidden parts, MSRs, what waits to be delivered, and the virtual clock.",
    },
    Command {
        name: Name::Disasm,
        word: "disasm",
        argument: Argument::Words(2),
        usage: "[ADDR] [COUNT]",
        about: "the guest's instructions, from RIP or ADDR on",
        details: "ADDR is linear: hexadecimal, or a register. COUNT instructions, 10 unless said, at most 64.",
    },
    Command {
        name: Name::Walk,
        word: "walk",
        argument: Argument::Words(1),
        usage: "ADDR",
        about: "the guest's page tables on the way to ADDR",
        details: "Every entry with its bits, and where the address is. No accessed bit is set by that.",
    },
    Command {
        name: Name::Pci,
        word: "pci",
        argument: Argument::None,
        usage: "",
        about: "PCI functions of the host",
        details: "Address, vendor:device, class, revision, interrupt pin and line.",
    },
    Command {
        name: Name::Ft,
        word: "ft",
        argument: Argument::Word(&["events"]),
        usage: "[events]",
        about: "the pair: role, peer, positions, heartbeats; or what has happened",
        details: "Role and state of this host, generation, the log's positions and how far the backup is behind, the logging
channel, how long outputs were held back, and heartbeats on each path. `ft events` tells the history.",
    },
    Command {
        name: Name::Net,
        word: "net",
        argument: Argument::None,
        usage: "",
        about: "network cards: link, counters",
        details: "Of the host's cards, and of the guest's where there is one.",
    },
    Command {
        name: Name::Log,
        word: "log",
        argument: Argument::WordOrNumber(LEVELS),
        usage: "[error|warn|info|debug|trace|N]",
        about: "the level up to which the hypervisor logs; a replay's log",
        details: "Without a level: says which it is. N: that many entries of the log that is replayed, before and after
the point where it is.",
    },
    Command {
        name: Name::Events,
        word: "events",
        argument: Argument::Number,
        usage: "[N]",
        about: "the newest events of each processor",
        details: "N = how many, 10 unless said, at most 64.",
    },
    Command {
        name: Name::Version,
        word: "version",
        argument: Argument::None,
        usage: "",
        about: "what this is, and how it was booted",
        details: "",
    },
    Command {
        name: Name::Uptime,
        word: "uptime",
        argument: Argument::None,
        usage: "",
        about: "time since the kernel's start",
        details: "",
    },
    Command {
        name: Name::Reboot,
        word: "reboot",
        argument: Argument::Word(&["now"]),
        usage: "now",
        about: "restart the host; a guest ends as if its plug were pulled",
        details: "The word now must be said.",
    },
    Command {
        name: Name::Attach,
        word: "attach",
        argument: Argument::None,
        usage: "",
        about: "give the line to the guest's console",
        details: "The escape key does the same. What the guest has said meanwhile is shown, the newest 16 KiB of it.",
    },
];

/// The arguments that word can be, for completion.
fn choices(argument: Argument) -> impl Iterator<Item = &'static str> {
    let words = match argument {
        Argument::Word(words) | Argument::WordOrNumber(words) => words,
        _ => &[],
    };
    let commands = if argument == Argument::Command { COMMANDS } else { &[] };
    words.iter().copied().chain(commands.iter().map(|command| command.word))
}

fn find(word: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.word == word)
}

/// What completes a line.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Text to be added at the cursor; none where several words go on differently, or none fits.
    pub added: heapless::String<32>,
    argument: Option<Argument>,
    prefix: super::editor::Line,
}

impl Completion {
    /// Words that fit what is there.
    pub fn choices(&self) -> usize {
        let mut count = 0;
        self.list(&mut |_| count += 1);
        count
    }

    /// Calls `each` for the words that fit.
    pub fn list(&self, each: &mut dyn FnMut(&'static str)) {
        match self.argument {
            Some(argument) => choices(argument).filter(|word| self.fits(word)).for_each(each),
            None => COMMANDS.iter().map(|c| c.word).filter(|word| self.fits(word)).for_each(each),
        }
    }

    fn fits(&self, word: &str) -> bool {
        word.starts_with(self.prefix.as_str())
    }
}

/// Completes the word at the end of `line`, which is what stands before the cursor.
pub fn complete(line: &str) -> Completion {
    let (before, prefix) = line.rsplit_once(' ').unwrap_or(("", line));
    let mut words = before.split_ascii_whitespace();
    let argument = words.next().map(|command| match (find(command), words.next()) {
        (Some(command), None) => command.argument,
        _ => Argument::None,
    });
    let mut kept = super::editor::Line::new();
    // Never longer than the line that it is a part of; if it were, nothing fits.
    let _ = kept.push_str(prefix);
    let mut completion = Completion { added: heapless::String::new(), argument, prefix: kept };
    let (mut common, mut count) = (None::<&'static str>, 0);
    completion.list(&mut |word| {
        count += 1;
        common = Some(common.map_or(word, |c| shared(c, word)));
    });
    if let Some(rest) = common.and_then(|common| common.get(prefix.len()..)) {
        // Words of the table are shorter than the room.
        let _ = completion.added.push_str(rest);
        if count == 1 {
            let _ = completion.added.push(' ');
        }
    }
    completion
}

/// What two words have in common at their beginning.
fn shared(a: &'static str, b: &str) -> &'static str {
    let len = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.get(..len).unwrap_or("")
}

/// Executes a line.
///
/// # Errors
/// Those of the sink.
pub fn execute(
    line: &str,
    host: &mut dyn Host,
    guest: Option<&mut dyn Guest>,
    out: &mut dyn Write,
) -> Result<Effect, fmt::Error> {
    let mut words = heapless::Vec::<&str, MAX_WORDS>::new();
    let fits = line.split_ascii_whitespace().try_for_each(|word| words.push(word)).is_ok();
    let Some((first, arguments)) = words.split_first() else { return Ok(Effect::None) };
    let Some(command) = find(first) else {
        writeln!(out, "{first}: no such command; help lists them")?;
        return Ok(Effect::None);
    };
    if !fits || !takes(command.argument, arguments) {
        writeln!(out, "usage: {} {}", command.word, command.usage)?;
        return Ok(Effect::None);
    }
    if let Some(look) = look(command.name, arguments) {
        if !look_inside(look, arguments, guest, out)? {
            writeln!(out, "usage: {} {}", command.word, command.usage)?;
        }
        return Ok(Effect::None);
    }
    run(command.name, arguments.first().copied(), host, guest, out)
}

/// Whether these words can be the argument.
fn takes(argument: Argument, words: &[&str]) -> bool {
    match (argument, words) {
        (_, []) => true,
        (Argument::None, _) => false,
        (Argument::Words(most), all) => all.len() <= most,
        (Argument::Word(allowed), [one]) => allowed.contains(one),
        (Argument::WordOrNumber(allowed), [one]) => allowed.contains(one) || one.parse::<u64>().is_ok(),
        (Argument::Command | Argument::Number, [_]) => true,
        _ => false,
    }
}

/// What looks into a guest that stands still; Ok(false): the words are none of its arguments.
type Look = fn(&[&str], &mut dyn Inspect, &mut dyn Write) -> Result<bool, fmt::Error>;

/// The look that a command takes; None: it is another command.
fn look(name: Name, words: &[&str]) -> Option<Look> {
    let is_number = |word: &&str| word.parse::<u64>().is_ok();
    match name {
        Name::Regs => Some(|_, guest, out| inspect::registers(guest, out).map(|()| true)),
        Name::Disasm => Some(inspect::disassemble),
        Name::Walk => Some(inspect::walk_tables),
        Name::Mem if !words.is_empty() => Some(inspect::memory),
        Name::Log if words.first().is_some_and(is_number) => Some(inspect::entries),
        _ => None,
    }
}

fn look_inside(
    look: Look,
    words: &[&str],
    guest: Option<&mut dyn Guest>,
    out: &mut dyn Write,
) -> Result<bool, fmt::Error> {
    let why = match guest.map(Guest::inspect) {
        Some(Some(inside)) => return look(words, inside, out),
        Some(None) => "the virtual machine runs: vm pause first",
        None => "there is no virtual machine",
    };
    writeln!(out, "{why}").map(|()| true)
}

fn run(
    name: Name,
    argument: Option<&str>,
    host: &mut dyn Host,
    guest: Option<&mut dyn Guest>,
    out: &mut dyn Write,
) -> Result<Effect, fmt::Error> {
    match name {
        Name::Help => help(argument, out)?,
        Name::Vm => vm(argument, guest, out)?,
        Name::Exits => exits(guest, out)?,
        Name::Pmu => host.pmu(out)?,
        Name::Mem => host.memory(out)?,
        // They look inside, and were done before.
        Name::Regs | Name::Disasm | Name::Walk => {}
        Name::Pci => host.pci(out)?,
        Name::Net => {
            host.network(out)?;
            if let Some(guest) = guest {
                guest.network(out)?;
            }
        }
        Name::Ft => match guest {
            Some(guest) => guest.pair(argument.is_some(), out)?,
            None => writeln!(out, "there is no virtual machine")?,
        },
        Name::Log => log(argument, host, out)?,
        Name::Events => match argument.map_or(Ok(EVENTS), str::parse) {
            Ok(count) => host.events(count.clamp(1, MAX_EVENTS), out)?,
            Err(_) => writeln!(out, "events: wants a number")?,
        },
        Name::Version => host.version(out)?,
        Name::Uptime => {
            let (seconds, micros) = host.uptime();
            let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
            let rest = seconds % 60;
            writeln!(out, "{days} days {hours:02}:{minutes:02}:{rest:02}.{micros:06}")?;
        }
        Name::Reboot => match argument {
            Some(_) => {
                writeln!(out, "restart")?;
                host.reboot();
            }
            None => writeln!(out, "reboot: say reboot now, if that is meant")?,
        },
        Name::Attach => return Ok(Effect::Attach),
    }
    Ok(Effect::None)
}

fn help(about: Option<&str>, out: &mut dyn Write) -> fmt::Result {
    match about.map(|word| (word, find(word))) {
        None => COMMANDS.iter().try_for_each(|c| writeln!(out, "{:8} {}", c.word, c.about)),
        Some((_, Some(c))) => {
            writeln!(out, "{} {}\n{}", c.word, c.usage, c.about)?;
            if c.details.is_empty() { Ok(()) } else { writeln!(out, "{}", c.details) }
        }
        Some((word, None)) => writeln!(out, "{word}: no such command; help lists them"),
    }
}

fn vm(argument: Option<&str>, guest: Option<&mut dyn Guest>, out: &mut dyn Write) -> fmt::Result {
    let Some(guest) = guest else { return writeln!(out, "there is no virtual machine") };
    let order = match argument {
        Some("pause") => Order::Pause,
        Some("resume") => Order::Resume,
        Some("reset") => Order::Reset,
        Some("poweroff") => Order::PowerButton,
        Some("kill") => Order::Kill,
        _ => {
            match guest.state() {
                VmState::Running => writeln!(out, "state: running")?,
                VmState::Paused => writeln!(out, "state: paused")?,
                VmState::Stopped(why) => writeln!(out, "state: stopped ({why})")?,
            }
            return guest.describe(out);
        }
    };
    match guest.order(order) {
        Ok(()) => writeln!(out, "done"),
        Err(why) => writeln!(out, "not done: {why}"),
    }
}

fn exits(guest: Option<&mut dyn Guest>, out: &mut dyn Write) -> fmt::Result {
    let Some(guest) = guest else { return writeln!(out, "there is no virtual machine") };
    writeln!(out, "{:32} {:>14} {:>10} {:>7}", "reason", "exits", "cost", "share")?;
    let mut all = 0u64;
    guest.exits(&mut |row| all = all.saturating_add(row.cycles));
    let (mut rows, mut count, mut result) = (0, 0u64, Ok(()));
    guest.exits(&mut |row| {
        if row.count == 0 || rows >= MAX_EXIT_ROWS || result.is_err() {
            return;
        }
        rows += 1;
        count = count.saturating_add(row.count);
        let tenths = (u128::from(row.cycles) * 1000).checked_div(all.into()).unwrap_or(0);
        let (mean, whole, part) = (row.cycles / row.count, tenths / 10, tenths % 10);
        result = writeln!(out, "{:32} {:>14} {mean:>10} {whole:>4}.{part}%", row.reason, row.count);
    });
    result?;
    writeln!(out, "{:32} {count:>14} {:>10}", "all", all.checked_div(count).unwrap_or(0))
}

fn log(argument: Option<&str>, host: &mut dyn Host, out: &mut dyn Write) -> fmt::Result {
    let level = match argument {
        None => {
            let level = host.log_level();
            return LEVELS.iter().try_for_each(|word| {
                let mark = if level_of(word) == level { "*" } else { " " };
                writeln!(out, "{mark} {word}")
            });
        }
        Some(word) => level_of(word),
    };
    host.set_log_level(level);
    Ok(())
}

fn level_of(word: &str) -> LevelFilter {
    match word {
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => LevelFilter::Info,
    }
}
