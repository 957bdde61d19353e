//! What Rust's test programs print, read into counts.

/// Counts of tests, and the names of those that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that were not run because they say so.
    pub ignored: usize,
    /// The names of the failed ones.
    pub failures: Vec<String>,
}

impl Counts {
    /// One thing that passed.
    pub fn pass() -> Self {
        Counts { passed: 1, ..Counts::default() }
    }

    /// One thing that failed.
    pub fn fail(name: &str) -> Self {
        Counts { failed: 1, failures: vec![name.into()], ..Counts::default() }
    }

    /// Adds others.
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
    }

    /// Reads a line of a test program's output; gives the test's name if the line is a test's verdict.
    ///
    /// A verdict is `test NAME ... ok`. What the test itself printed may stand between (`test NAME ... noise ok` happens
    /// with processes that write past the capture), so only the line's ends count.
    pub fn read_line(&mut self, line: &str) -> Option<String> {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
        // `test NAME - should panic ... ok`
        let name = name.trim_end_matches(" - should panic").to_owned();
        match rest.split_whitespace().next_back()? {
            "ok" => self.passed += 1,
            "FAILED" => {
                self.failed += 1;
                self.failures.push(name.clone());
            }
            _ if rest.starts_with("ignored") => self.ignored += 1,
            _ => return None,
        }
        Some(name)
    }
}

/// The part of a test program's output that tells why its tests failed.
pub fn explanations(output: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in output.lines() {
        match line {
            "failures:" => inside = true,
            _ if line.starts_with("test result:") => inside = false,
            _ => {}
        }
        // The second `failures:` of a program only lists the names again; stack backtraces help nobody here.
        if inside && line != "failures:" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The complaints of a compiler in cargo's output: from each line that begins with `error` to the next empty one.
pub fn complaints(output: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in output.lines() {
        inside = (inside && !line.is_empty()) || line.starts_with("error");
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted() {
        let output = "running 4 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored, needs KVM\n\
                      test e - should panic ... ok\ntest result: FAILED. 2 passed; 1 failed; 1 ignored;\n";
        let mut counts = Counts::default();
        let names: Vec<_> = output.lines().filter_map(|line| counts.read_line(line)).collect();
        assert_eq!(names, ["a::b", "c", "d", "e"]);
        assert_eq!(counts, Counts { passed: 2, failed: 1, ignored: 1, failures: vec!["c".into()] });
    }

    #[test]
    fn documentation_tests_are_counted() {
        let mut counts = Counts::default();
        assert!(counts.read_line("test boot/src/lib.rs - x::y (line 12) ... ok").is_some());
        assert_eq!(counts.passed, 1);
    }

    #[test]
    fn complaints_are_cut_out() {
        let output = "   Compiling x\nerror: no space left on device\n  --> x.rs\n\nwarning: y\nerror: could not compile `x`\n";
        assert_eq!(
            complaints(output),
            "error: no space left on device\n  --> x.rs\nerror: could not compile `x`\n"
        );
        assert_eq!(complaints("test a ... ok\n"), "");
    }

    #[test]
    fn explanations_are_cut_out() {
        let output = "test c ... FAILED\n\nfailures:\n\n---- c stdout ----\nwhy\n\nfailures:\n    c\n\ntest result: x\nmore\n";
        assert_eq!(explanations(output), "\n---- c stdout ----\nwhy\n\n    c\n\n");
    }
}
