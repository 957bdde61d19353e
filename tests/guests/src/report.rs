//! Named checks: one `@@ check` line each, and the verdict of the whole program.

use core::fmt;

use crate::{
    exit::{self, Code},
    println,
};

/// A Debug text as one word: spaces left out.
struct Word<'a, T>(&'a T);

impl<T: fmt::Debug> fmt::Display for Word<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        struct Squeeze<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Squeeze<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.split(' ').try_for_each(|part| self.0.write_str(part))
            }
        }
        fmt::Write::write_fmt(&mut Squeeze(f), format_args!("{:?}", self.0))
    }
}

/// The checks of one run of a program.
#[derive(Default)]
pub struct Report {
    checks: u32,
    failed: u32,
}

impl Report {
    /// An empty report.
    pub const fn new() -> Self {
        Self { checks: 0, failed: 0 }
    }

    fn line(&mut self, name: fmt::Arguments, pass: bool, got: fmt::Arguments, want: fmt::Arguments) -> bool {
        self.checks += 1;
        self.failed += u32::from(!pass);
        println!("@@ check name={name} verdict={} got={got} want={want}", if pass { "pass" } else { "fail" });
        pass
    }

    /// `got` must be `want`. `name` has no spaces.
    pub fn equal(&mut self, name: impl fmt::Display, got: u64, want: u64) -> bool {
        self.line(format_args!("{name}"), got == want, format_args!("{got}"), format_args!("{want}"))
    }

    /// Like [`Self::equal`], printed in hexadecimal.
    pub fn equal_hex(&mut self, name: impl fmt::Display, got: u64, want: u64) -> bool {
        self.line(format_args!("{name}"), got == want, format_args!("{got:#x}"), format_args!("{want:#x}"))
    }

    /// `got` must be in `min..=max`.
    pub fn within(&mut self, name: impl fmt::Display, got: u64, min: u64, max: u64) -> bool {
        let pass = (min..=max).contains(&got);
        self.line(format_args!("{name}"), pass, format_args!("{got}"), format_args!("{min}..={max}"))
    }

    /// `pass` must be true.
    pub fn holds(&mut self, name: impl fmt::Display, pass: bool) -> bool {
        self.line(format_args!("{name}"), pass, format_args!("{pass}"), format_args!("true"))
    }

    /// A value printed by its Debug text, without spaces.
    pub fn same<T: PartialEq + fmt::Debug>(&mut self, name: impl fmt::Display, got: T, want: T) -> bool {
        let pass = got == want;
        self.line(
            format_args!("{name}"),
            pass,
            format_args!("{}", Word(&got)),
            format_args!("{}", Word(&want)),
        )
    }

    /// Ends the program: exit code success if all checks passed (and there was one), else failed.
    pub fn finish(self) -> ! {
        let pass = self.failed == 0 && self.checks > 0;
        println!(
            "@@ done checks={} failed={} verdict={}",
            self.checks,
            self.failed,
            if pass { "pass" } else { "fail" }
        );
        exit::exit(if pass { Code::Success } else { Code::Failed })
    }
}

#[cfg(test)]
mod tests {
    use super::Word;

    #[test]
    fn a_debug_text_becomes_one_word() {
        assert_eq!(Word(&(Some(1), "a b")).to_string(), "(Some(1),\"ab\")");
    }
}
