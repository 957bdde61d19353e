//! The shell against a made-up host and guest.

use super::mux::HELD;
use super::system::{ExitRow, Order, VmState};
use super::*;
use core::fmt;
use log::LevelFilter;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

/// Ctrl-].
pub const ESCAPE: u8 = 0x1d;

/// A terminal: everything as text, and the guest's bytes.
#[derive(Default)]
pub struct Screen {
    pub text: String,
    pub raw: Vec<u8>,
}

impl Write for Screen {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        Ok(())
    }
}

impl Line for Screen {
    fn raw(&mut self, bytes: &[u8]) {
        self.raw.extend(bytes);
        self.text.extend(bytes.iter().map(|byte| char::from(*byte)));
    }
}

struct Machine {
    level: LevelFilter,
    reboots: usize,
}

impl Host for Machine {
    fn pmu(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "the proof's table")
    }
    fn memory(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "memory")
    }
    fn pci(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "functions")
    }
    fn network(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "host cards")
    }
    fn events(&mut self, count: usize, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "{count} events")
    }
    fn version(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "version 1")
    }
    fn uptime(&mut self) -> (u64, u64) {
        (90_061, 5)
    }
    fn log_level(&mut self) -> LevelFilter {
        self.level
    }
    fn set_log_level(&mut self, level: LevelFilter) {
        self.level = level;
    }
    fn reboot(&mut self) {
        self.reboots += 1;
    }
}

struct Computer {
    orders: Vec<Order>,
    typed: Vec<u8>,
    room: usize,
}

impl Guest for Computer {
    fn state(&self) -> VmState {
        VmState::Running
    }
    fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "256 MiB")
    }
    fn order(&mut self, order: Order) -> Result<(), &'static str> {
        self.orders.push(order);
        if order == Order::Resume { Err("it is not paused") } else { Ok(()) }
    }
    fn exits(&self, row: &mut dyn FnMut(ExitRow)) {
        row(ExitRow { reason: "CPUID", count: 10, cycles: 3000 });
        row(ExitRow { reason: "HLT", count: 2, cycles: 1000 });
        row(ExitRow { reason: "RDTSC", count: 0, cycles: 0 });
    }
    fn console_input(&mut self, byte: u8) -> bool {
        if self.typed.len() < self.room {
            self.typed.push(byte);
            return true;
        }
        false
    }
    fn network(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "guest card")
    }
}

struct Bench {
    shell: Shell,
    host: Machine,
    guest: Option<Computer>,
    out: Screen,
}

impl Bench {
    fn new(guest: bool) -> Self {
        let mut bench = Bench {
            shell: Shell::new(None),
            host: Machine { level: LevelFilter::Info, reboots: 0 },
            guest: guest.then(|| Computer { orders: Vec::new(), typed: Vec::new(), room: 1000 }),
            out: Screen::default(),
        };
        if guest {
            bench.shell.guest_starts(Some(ESCAPE), &mut bench.out);
        }
        bench
    }

    fn types(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            let guest = self.guest.as_mut().map(|guest| guest as &mut dyn Guest);
            self.shell.receive(*byte, &mut self.host, guest, &mut self.out);
            if let Some(guest) = &mut self.guest {
                self.shell.feed(guest);
            }
        }
        self
    }

    fn says(&mut self, line: &str) -> String {
        self.out.text.clear();
        self.types(line.as_bytes()).types(b"\r");
        self.out.text.clone()
    }
}

#[test]
fn the_line_changes_hands_by_the_escape_key() {
    let mut bench = Bench::new(true);
    bench.types(b"to guest\x1duptime\r\x1dagain");
    assert_eq!(bench.guest.as_ref().unwrap().typed, b"to guestagain");
    assert!(bench.out.text.contains("1 days 01:01:01.000005"), "{}", bench.out.text);
}

#[test]
fn output_is_kept_while_the_shell_has_the_line() {
    let mut bench = Bench::new(true);
    bench.shell.guest_output(b"before ", &mut bench.out);
    bench.types(&[ESCAPE]);
    bench.shell.guest_output(b"meanwhile", &mut bench.out);
    assert!(bench.out.text.contains("before ") && !bench.out.text.contains("meanwhile"));
    bench.types(b"attach\r");
    assert!(bench.out.text.ends_with("[guest; 9 bytes came meanwhile, 0 of them lost]\nmeanwhile"));
    bench.types(&[ESCAPE]);
    bench.shell.guest_output(&[b'x'; HELD + 7], &mut bench.out);
    bench.out.text.clear();
    bench.types(&[ESCAPE]);
    assert!(bench.out.text.contains(", 7 of them lost]"), "{}", &bench.out.text[..60]);
    assert_eq!(bench.out.text.matches('x').count(), HELD);
}

#[test]
fn a_guest_that_does_not_read_holds_nobody_up() {
    let mut bench = Bench::new(true);
    bench.guest.as_mut().unwrap().room = 0;
    bench.types(&[b'a'; 5000]).types(b"\x1dvm kill\r");
    assert_eq!(bench.guest.as_ref().unwrap().orders, [Order::Kill]);
    bench.guest.as_mut().unwrap().room = 9999;
    bench.types(&[ESCAPE]);
    assert_eq!(bench.guest.as_ref().unwrap().typed.len(), mux::TYPED);
    assert!(bench.out.text.contains("; 2952 typed bytes found no room]"), "5000 - 2048");
}

#[test]
fn orders_reach_the_guest() {
    let mut bench = Bench::new(true);
    bench.types(&[ESCAPE]);
    for word in ["pause", "resume", "reset", "poweroff", "kill"] {
        let said = bench.says(&std::format!("vm {word}"));
        assert!(said.contains(if word == "resume" { "not done: it is not paused" } else { "done" }));
    }
    let all = [Order::Pause, Order::Resume, Order::Reset, Order::PowerButton, Order::Kill];
    assert_eq!(bench.guest.as_ref().unwrap().orders, all);
    assert!(bench.says("vm").contains("state: running\n256 MiB"));
    assert!(bench.says("vm explode").contains("usage: vm [state|"));
    assert_eq!(bench.guest.as_ref().unwrap().orders.len(), 5);
}

#[test]
fn tables_have_their_numbers() {
    let mut bench = Bench::new(true);
    bench.types(&[ESCAPE]);
    let said = bench.says("exits");
    let row = |word: &str| {
        let line = said.lines().find(|l| l.starts_with(word)).unwrap_or_else(|| panic!("{word} in {said}"));
        line.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(row("CPUID"), ["CPUID", "10", "300", "75.0%"]);
    assert_eq!(row("HLT"), ["HLT", "2", "500", "25.0%"]);
    assert_eq!(row("all"), ["all", "12", "333"]);
    assert!(!said.contains("RDTSC"), "what did not happen is not shown");
}

#[test]
fn every_command_works_and_has_help() {
    let mut bench = Bench::new(false);
    let list = bench.says("help");
    for (word, answer) in [
        ("vm", "no virtual machine"),
        ("exits", "no virtual machine"),
        ("pmu", "the proof's table"),
        ("mem", "memory"),
        ("pci", "functions"),
        ("net", "host cards"),
        ("log", "* info"),
        ("events", "10 events"),
        ("events 3", "3 events"),
        ("events 9999", "64 events"),
        ("events 0", "1 events"),
        ("events -1", "wants a number"),
        ("version", "version 1"),
        ("reboot", "say reboot now"),
        ("attach", "no guest to attach to"),
        ("help", "all commands, or more about one"),
        ("pmu now", "usage: pmu"),
        ("log loud", "usage: log"),
        ("uptime 1 2 3 4 5 6", "usage: uptime"),
        ("sing", "sing: no such command"),
        ("help sing", "sing: no such command"),
        ("", "lockstep> "),
    ] {
        let said = bench.says(word);
        assert!(said.contains(answer), "{word}: {said}");
        if let Some(command) = word.split(' ').next().filter(|w| !w.is_empty() && *w != "sing") {
            assert!(list.lines().any(|l| l.contains(&std::format!("{command} "))), "help has {command}");
            assert!(bench.says(&std::format!("help {command}")).contains(command));
        }
    }
    assert_eq!(bench.host.reboots, 0);
    bench.says("reboot now");
    bench.says("log trace");
    assert_eq!((bench.host.reboots, bench.host.level), (1, LevelFilter::Trace));
}

#[test]
fn a_guest_that_ends_gives_the_line_back() {
    let mut bench = Bench::new(true);
    bench.shell.guest_ends(&mut bench.out);
    bench.guest = None;
    assert!(bench.says("version").contains("version 1"));
    assert!(bench.out.text.ends_with("lockstep> \x1b[K"));
}

proptest! {
    /// Nothing typed makes it panic, or write without bound.
    #[test]
    fn anything_may_be_typed(
        guest: bool,
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(ESCAPE), Just(9), Just(13), Just(27), Just(b'['), b' '..=b'z'], 0..600),
    ) {
        let mut bench = Bench::new(guest);
        for byte in bytes {
            bench.types(&[byte]);
            prop_assert!(bench.out.text.len() < 20_000, "{} bytes for one typed", bench.out.text.len());
            bench.out.text.clear();
        }
        if bench.shell.side() == Side::Guest {
            bench.types(&[ESCAPE]);
        }
        // Ctrl-C ends any sequence and line, the second time at the latest.
        prop_assert!(bench.types(b"\x03\x03").says("version").contains("version 1"));
    }

    /// Any words after any command.
    #[test]
    fn any_arguments_are_borne(command in 0usize..17, arguments in "[ -~]{0,40}") {
        let words = ["help", "vm", "exits", "pmu", "mem", "pci", "ft", "net", "log", "events", "version", "uptime",
            "reboot", "attach", "regs", "disasm", "walk"];
        let mut bench = Bench::new(true);
        bench.types(&[ESCAPE]);
        bench.says(&std::format!("{} {arguments}", words[command]));
    }
}
