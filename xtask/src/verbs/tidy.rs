//! `cargo xtask tidy`: the architecture's rules, checked.

use std::process::ExitCode;

use anyhow::Result;

use crate::{paths, tidy};

/// Check the architecture's rules: arrows between crates, where `unsafe` may stand, headers, licences.
///
/// Each broken rule is shown with file, line and what to do. Exit status 1 if there is one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only list the rules
    #[arg(long)]
    list: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the tree cannot be read.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.list {
        for rule in tidy::RULES {
            println!("{:10} {}", rule.name, rule.demands);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let tree = tidy::Tree::read(&paths::root())?;
    let mut broken = 0;
    for rule in tidy::RULES {
        for finding in rule.check(&tree) {
            broken += 1;
            println!("{}:{}: [{}] {}", finding.path, finding.line, rule.name, finding.message);
        }
    }
    println!("{} files, {} rules, {broken} broken", tree.files.len(), tidy::RULES.len());
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
