//! The first program (init) of an unmodified Linux: do Linux's own counters, and KVM's guest-only ones, count exactly?
//!
//! Prints `@@ check` lines like the test kernels and ends the machine with their exit codes. Everything that needs
//! `unsafe` is in `sys`.
#![deny(unsafe_code)]

mod cost;
mod counter;
mod host;
mod kvm;
mod report;
mod sys;

use report::Report;

fn main() {
    if std::process::id() != 1 {
        println!("this is the first program of a test Linux; run it by: cargo xtask guest linux");
        return;
    }
    sys::machine::prepare();
    std::panic::set_hook(Box::new(|info| {
        println!("@@ panic {info}");
        sys::machine::exit(sys::machine::PANIC);
    }));
    let mut report = Report::default();
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    println!(
        "@@ fact linux={}",
        std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()
    );
    let only = |what: &str| !command_line.split_whitespace().any(|word| word == format!("skip={what}"));
    if only("host") {
        host::run(&mut report);
    }
    if only("kvm") {
        kvm::run(&mut report);
    }
    if command_line.split_whitespace().any(|word| word == "cost=1") {
        cost::run(&mut report);
    }
    sys::machine::exit(report.finish());
}
