//! Does a hypervisor survive this guest, which does what no guest should?
//!
//! Words: seed=N, from=K (the first episode), episodes=K (the last one is the one before), theme=NAME (only that one). An
//! episode is a function of seed and number. Episodes that end in a reset, by a triple fault or on purpose, count; the next start goes on
//! behind them.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::chaos::code::{self, Code, THEMES, Theme};
use guests::chaos::random::Random;
use guests::chaos::rings;
use guests::wild::{self, CODE, Progress};
use guests::{Report, boot, println};

guests::program!(run);

/// Episodes after which the machine is reset on purpose.
const LIFE: u64 = 48;

fn run(report: &mut Report) {
    let seed = boot::number("seed", 1);
    let last = boot::number("episodes", 100);
    let only = boot::option("theme").and_then(|name| THEMES.iter().find(|(known, _)| *known == name));
    let first = Progress { seed, next: boot::number("from", 0), starts: 0 };
    let mut progress = Progress::load(seed).unwrap_or(first);
    progress.starts += 1;
    println!("@@ wild start={} seed={seed} next={}", progress.starts, progress.next);
    wild::init();
    while progress.next < last {
        let number = progress.next;
        progress.next += 1;
        progress.store();
        episode(seed, number, only.map(|(_, theme)| *theme));
        if number % LIFE == LIFE - 1 {
            wild::reset(Random::new(seed, number).below(5));
        }
    }
    // So that a later run on this memory begins anew.
    Progress { seed: !seed, ..progress }.store();
    println!("@@ wild done seed={seed} episodes={last} starts={}", progress.starts);
    report.holds("came-to-the-end", true);
    wild::power_off()
}

fn episode(seed: u64, number: u64, only: Option<Theme>) {
    let mut random = Random::new(seed, number);
    let theme = only.unwrap_or_else(|| {
        let (_, theme) = THEMES[random.below(THEMES.len() as u64) as usize];
        // It costs a life.
        if theme == Theme::Modes && !random.one_in(3) { Theme::Mixed } else { theme }
    });
    wild::watch();
    println!("@@ wild e={number} theme={}", theme.name());
    match theme {
        Theme::Rings => {
            rings::episode(&mut random);
        }
        Theme::Modes => {
            let mut code = Code::default();
            let (what, protected) =
                (random.pick(&[Theme::Ports, Theme::Bytes, Theme::Mixed]), random.one_in(4));
            code::generate(&mut random, what, &mut code);
            wild::leave_long_mode(code.bytes(), protected);
        }
        _ => {
            for _ in 0..4 {
                let mut code = Code::default();
                code::generate(&mut random, theme, &mut code);
                wild::place(CODE, code.bytes());
                let registers = code::registers(&mut random);
                let ring3 = random.one_in(6);
                wild::run(CODE, &registers, ring3);
            }
        }
    }
}
