//! Named checks, printed as the test kernels print them.

use crate::sys::machine;

/// The checks of a run.
#[derive(Default)]
pub struct Report {
    checks: u32,
    failed: u32,
}

impl Report {
    /// `got` must be `want`.
    pub fn equal(&mut self, name: &str, got: u64, want: u64) {
        self.line(name, got == want, got, &want.to_string());
    }

    /// `got` must be in `min..=max`.
    pub fn within(&mut self, name: &str, got: u64, min: u64, max: u64) {
        self.line(name, (min..=max).contains(&got), got, &format!("{min}..={max}"));
    }

    fn line(&mut self, name: &str, pass: bool, got: u64, want: &str) {
        self.checks += 1;
        self.failed += u32::from(!pass);
        println!("@@ check name={name} verdict={} got={got} want={want}", if pass { "pass" } else { "fail" });
    }

    /// The last line; the machine's exit code.
    pub fn finish(self) -> u32 {
        let pass = self.failed == 0 && self.checks > 0;
        let verdict = if pass { "pass" } else { "fail" };
        println!("@@ done checks={} failed={} verdict={verdict}", self.checks, self.failed);
        if pass { machine::SUCCESS } else { machine::FAILED }
    }
}
