//! The verbs of `cargo xtask`. To add one: a file here with a doc comment on its `Args` (that comment is the help), a
//! `pub fn run(args: Args) -> anyhow::Result<ExitCode>`, a line in the enum and a line in `run` below.

use std::process::ExitCode;

use clap::Subcommand;

pub mod bench;
pub mod bochs;
pub mod build;
pub mod chaos_guest;
pub mod demo;
pub mod doctor;
pub mod guest;
pub mod image;
pub mod lock_server;
pub mod log;
pub mod log_receive;
mod machine_args;
pub mod pair;
pub mod pair_campaign;
pub mod pmu;
pub mod qemu;
pub mod record;
pub mod replay;
pub mod replay_campaign;
pub mod run;
pub mod setup;
pub mod sim;
pub mod switch;
pub mod test;
pub mod tidy;

/// What `cargo xtask` can do. A variant has no doc comment of its own: it would hide the help that its `Args` carry.
#[allow(missing_docs, clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
pub enum Verb {
    Bench(bench::Args),
    Bochs(bochs::Args),
    Build(build::Args),
    ChaosGuest(chaos_guest::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Guest(guest::Args),
    Image(image::Args),
    LockServer(lock_server::Args),
    Log(log::Args),
    Pair(pair::Args),
    PairCampaign(pair_campaign::Args),
    Pmu(pmu::Args),
    Qemu(qemu::Args),
    Record(record::Args),
    Replay(replay::Args),
    ReplayCampaign(replay_campaign::Args),
    Run(run::Args),
    Setup(setup::Args),
    Sim(sim::Args),
    Switch(switch::Args),
    Test(test::Args),
    Tidy(tidy::Args),
}

impl Verb {
    /// Runs the verb.
    ///
    /// # Errors
    /// When something is missing or broken that kept the verb from doing its work; what the verb found out (a failed
    /// test, a missed goal) is its exit status instead.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Verb::Bench(args) => bench::run(args),
            Verb::Bochs(args) => bochs::run(args),
            Verb::Build(args) => build::run(args),
            Verb::ChaosGuest(args) => chaos_guest::run(args),
            Verb::Demo(args) => demo::run(args),
            Verb::Doctor(args) => doctor::run(args),
            Verb::Guest(args) => guest::run(args),
            Verb::Image(args) => image::run(args),
            Verb::LockServer(args) => lock_server::run(args),
            Verb::Log(args) => log::run(args),
            Verb::Pair(args) => pair::run(args),
            Verb::PairCampaign(args) => pair_campaign::run(args),
            Verb::Pmu(args) => pmu::run(args),
            Verb::Qemu(args) => qemu::run(args),
            Verb::Record(args) => record::run(args),
            Verb::Replay(args) => replay::run(args),
            Verb::ReplayCampaign(args) => replay_campaign::run(args),
            Verb::Run(args) => run::run(args),
            Verb::Setup(args) => setup::run(args),
            Verb::Sim(args) => sim::run(args),
            Verb::Switch(args) => switch::run(args),
            Verb::Test(args) => test::run(args),
            Verb::Tidy(args) => tidy::run(args),
        }
    }
}
