//! Runs the proof and says what it found.

use super::guest::{Guest, NoGuest, VPID};
use super::machine::ProofMachine;
use crate::arch::cpu::{self, ExitCode};
use crate::arch::physical::Pages;
use crate::arch::{pmu, vmx as processor};
use crate::console;
use crate::memory::{FRAME, OutOfFrames, Zone};
use crate::options::{After, Options, Proof};
use crate::vmm::processors;
use crate::vmm::setup::{self, Pointers};
use core::fmt::{self, Write};
use replay::pmu::{Lacking, Selector};
use replay::proof::{self, Form, Mark, Report, Row};
use spin::{Mutex, Once};
use vmx::caps::Capabilities;
use vmx::controls::{self, Refusal};
use vmx::errors::VmFail;
use vmx::instructions::CurrentVmcs;
use vmx::{io_bitmap, msr_bitmap, requirements};

/// Room for one recording, in boundaries of the guest; the long form needs the most.
const MARKS: usize = Form::long(0).marks();
static ROOM: Mutex<[Mark; MARKS]> = Mutex::new([Mark::EMPTY; MARKS]);

/// How the proof ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command line says `proof=off`: nothing is proved, so nothing is protected.
    Off,
    /// Every property holds; guests may be protected.
    Holds,
    /// At least one does not; the console has said which.
    Fails,
    /// This machine cannot be tested: it lacks what the proof needs. The console has said what.
    Refused,
}

/// What the proof has found, kept for whoever sets margins and for the shell.
#[derive(Debug)]
pub struct Found {
    /// The table and the margins.
    pub report: Report,
    /// The event that counts conditional branches.
    pub selector: Selector,
    /// Seed of the proof.
    pub seed: u64,
}

static FOUND: Once<Found> = Once::new();

/// What the proof has found; nothing where it was off or refused.
pub fn report() -> Option<&'static Found> {
    FOUND.get()
}

/// Tells what the proof has found: the table again.
///
/// # Errors
/// Those of the sink.
pub fn tell(out: &mut dyn Write) -> fmt::Result {
    let Some(found) = report() else {
        return writeln!(out, "the boot proof was not run: off, or refused; the boot's log says which");
    };
    writeln!(out, "{}", Row::HEADING)?;
    found.report.rows().iter().try_for_each(|row| writeln!(out, "{row}"))?;
    writeln!(out, "{}", found.report)?;
    writeln!(
        out,
        "skid: {} instructions, {} branches",
        found.report.skid_instructions, found.report.skid_branches
    )?;
    match found.report.margin_branches {
        Ok(margin) => writeln!(out, "margin: {margin} branches")?,
        Err(why) => writeln!(out, "no margin for branches: {why}")?,
    }
    writeln!(out, "N: fixed counter 0; C: event {}; seed {}", found.selector, found.seed)
}

/// Runs the proof that the options ask for and prints its table.
pub fn run(options: &Options<'_>) -> Outcome {
    let mut form = match options.proof {
        Proof::Off => {
            log::warn!("boot proof: off by the command line; no virtual machine will be protected");
            return Outcome::Off;
        }
        Proof::Short => Form::short(options.seed),
        Proof::Long => Form::long(options.seed),
    };
    form.landings = options.landings.unwrap_or(form.landings);
    match prove(&form) {
        Ok((report, selector)) => {
            let report = &FOUND.call_once(|| Found { report, selector, seed: form.seed }).report;
            console::print(format_args!("{report}\n"));
            for row in report.rows() {
                console::print(format_args!("{}\n", row.machine_line()));
            }
            console::print(format_args!("{}\n", report.machine_line()));
            if report.holds() { Outcome::Holds } else { Outcome::Fails }
        }
        Err(why) => {
            log::error!("boot proof refused: {why}; no virtual machine will be protected");
            console::print(format_args!("@@ proof-summary verdict=refused reason=\"{why}\"\n"));
            Outcome::Refused
        }
    }
}

/// The last step of a boot that is to end by itself: says by its exit code that the proof failed, or could not be run.
/// Where it held, or the host is to stay up, nothing happens.
pub fn end_if_failed(outcome: Outcome, options: &Options<'_>) {
    let code = match outcome {
        Outcome::Off | Outcome::Holds => return,
        Outcome::Fails => ExitCode::ProofFailed,
        Outcome::Refused => ExitCode::Refused,
    };
    if options.after == After::Exit {
        cpu::exit(code)
    }
}

/// Why the proof cannot be run.
#[derive(Debug)]
enum NoProof {
    /// The processor has not looked at itself.
    Unknown,
    /// The processor lacks something.
    Missing(&'static str),
    /// Its performance-monitoring unit lacks something.
    Unit(Lacking),
    /// There is no guest.
    Guest(NoGuest),
    /// There is no memory for the VMCS and the bitmaps.
    Frames(OutOfFrames),
    /// A control cannot be as it has to.
    Control(Refusal),
    /// A VMX instruction failed: a bug.
    Vmx(VmFail),
}

impl fmt::Display for NoProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the processor has not looked at itself"),
            Self::Missing(what) => f.write_str(what),
            Self::Unit(what) => what.fmt(f),
            Self::Guest(what) => what.fmt(f),
            Self::Frames(what) => what.fmt(f),
            Self::Control(what) => what.fmt(f),
            Self::Vmx(what) => what.fmt(f),
        }
    }
}

macro_rules! reasons {
    ($($name:ident: $from:ty),*) => {
        $(impl From<$from> for NoProof {
            fn from(why: $from) -> Self {
                Self::$name(why)
            }
        })*
    };
}
reasons!(Unit: Lacking, Guest: NoGuest, Frames: OutOfFrames, Control: Refusal, Vmx: VmFail);

fn prove(form: &Form) -> Result<(Report, Selector), NoProof> {
    let findings = processors::findings().ok_or(NoProof::Unknown)?;
    if let Some(missing) = findings.missing().first() {
        return Err(NoProof::Missing(missing.name()));
    }
    let caps = processors::capabilities().ok_or(NoProof::Unknown)?;
    let mut region = Pages::one()?;
    processor::initialize_vmcs(caps, &mut region)?;
    let mut loaded = processor::load_vmcs(&region)?;
    let mut machine = machine(loaded.vmcs_mut(), caps)?;
    let selector = choose(&mut machine);
    log::info!(
        "boot proof: N is fixed counter 0, checked by event C0; C is event {selector}; seed {}",
        form.seed
    );
    console::print(format_args!("{}\n", Row::HEADING));
    let mut room = ROOM.lock();
    let report =
        proof::prove(&mut machine, form, &mut room[..], |row| console::print(format_args!("{row}\n")));
    Ok((report, selector))
}

fn machine<'a>(vmcs: &'a mut CurrentVmcs, caps: &'a Capabilities) -> Result<ProofMachine<'a>, NoProof> {
    let mut controls = requirements::guest_controls(caps)?;
    for control in [controls::IA32E_MODE_GUEST, controls::ACTIVATE_PREEMPTION_TIMER] {
        controls.set(control, caps)?;
    }
    let guest = Guest::new(caps.ept_vpid)?;
    // Everything exits.
    let (mut msrs, mut ports) = (Pages::one()?, Pages::take(2, FRAME, Zone::Any)?);
    msrs.bytes_mut().fill(msr_bitmap::ALL);
    ports.bytes_mut().fill(io_bitmap::ALL);
    let pointers = Pointers {
        msr_bitmap: &msrs,
        io_bitmap: &ports,
        ept: guest.ept_pointer(),
        vpid: VPID,
        controls: &controls,
    };
    setup::write_controls(vmcs, &controls);
    setup::write_execution(vmcs, &pointers);
    setup::write_host(vmcs, &processor::host_state(), &controls);
    let counters = pmu::Counters::new(selectors()[0])?;
    Ok(ProofMachine::new(vmcs, caps, controls, guest, counters))
}

fn selectors() -> [Selector; 2] {
    Selector::candidates(pmu::identity().signature)
}

/// The first selector under which both the taken and the not-taken loop count exactly. None: the first, whose properties
/// will then fail by name.
fn choose(machine: &mut ProofMachine<'_>) -> Selector {
    let candidates = selectors();
    for selector in candidates {
        machine.counters().program(selector);
        if proof::counts_branches(machine) {
            return selector;
        }
    }
    machine.counters().program(candidates[0]);
    candidates[0]
}
