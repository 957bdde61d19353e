//! The architecture's rules as a program: each rule looks at a tree of files and names every line that breaks it.

mod lexer;
mod rules;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Directories that hold no sources.
const SKIPPED: &[&str] = &["target", "out", ".git"];
/// Kinds of files that are read; others can break no rule.
const READ: &[&str] =
    &["rs", "toml", "md", "sh", "cc", "h", "patch", "ld", "S", "flags", "run", "yml", "c", "txt"];

/// A source tree in memory: path from the root with `/` between its parts, and text.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Sorted by path.
    pub files: Vec<(String, String)>,
    /// Where the tree lies on this machine; no file may name it. Empty in tests that do not care.
    pub place: String,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// The line, from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// A rule: its name, what it demands, and the check.
pub struct Rule {
    /// A short name.
    pub name: &'static str,
    /// What it demands, as a sentence.
    pub demands: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

impl Rule {
    /// The lines that break the rule.
    pub fn check(&self, tree: &Tree) -> Vec<Finding> {
        let mut findings = (self.check)(tree);
        findings.sort();
        findings
    }
}

/// All rules.
pub const RULES: &[Rule] = rules::ALL;

impl Tree {
    /// Reads the sources below `root`.
    ///
    /// # Errors
    /// When a directory or file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut todo = vec![root.to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() {
                    if !SKIPPED.contains(&name.as_str()) {
                        todo.push(path);
                    }
                    continue;
                }
                let suffix = name.rsplit('.').next().unwrap_or_default();
                if READ.contains(&suffix)
                    && let Ok(text) = fs::read_to_string(&path)
                {
                    files.push((path.strip_prefix(root)?.to_string_lossy().into_owned(), text));
                }
            }
        }
        files.sort();
        Ok(Tree { files, place: root.display().to_string() })
    }

    /// The files whose path ends so.
    fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(p, t)| (p.as_str(), t.as_str()))
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(p, _)| p == path).map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_read_and_what_was_built_is_not() {
        let tree = Tree::read(&crate::paths::root()).unwrap();
        assert!(tree.get("xtask/src/tidy/mod.rs").is_some());
        assert!(tree.get("Cargo.toml").is_some());
        assert!(!tree.files.iter().any(|(path, _)| path.starts_with("target/")));
    }
}
