//! The life of the virtual machine: built, run, paused, reset, ended.

use super::board::{Board, reason};
use super::build;
use super::inspection;
use super::tape::Tape;
use crate::arch::cpu::{self, ExitCode};
use crate::arch::time;
use crate::options::{After, Options};
use crate::shell::system::{Order, VmState};
use crate::vcpu::{self, Active, Stop, Vcpu};
use crate::{duties, machine_line, memory, terminal};
use boot::multiboot::BootInfo;
use machine::output::Power;

/// A virtual machine.
pub struct Guest {
    /// Its computer.
    pub board: Board,
    /// Its processor.
    pub vcpu: Vcpu,
    /// What it starts from; a reset starts from it again.
    pub plan: build::Plan,
}

/// What comes after a stop.
enum Next {
    /// The loop goes on.
    Run,
    /// The machine starts anew.
    Reset,
    /// It is over.
    End(&'static str),
}

/// Runs the virtual machine that the loader has brought a configuration for, until it ends. Without a configuration, nothing
/// happens. `protectable`: the boot proof holds, so time can be counted in instructions.
pub fn start(info: &BootInfo<'static>, options: &Options<'static>, protectable: bool) {
    let Some(found) = build::configuration(info) else { return };
    let built = found.and_then(|plan| build::build(plan, protectable, options));
    let mut guest = match built {
        Ok(guest) => guest,
        Err(why) => {
            log::error!("{why}");
            machine_line!("vm event=refused");
            return end_run(options, ExitCode::Refused);
        }
    };
    terminal::start();
    machine::emulate::warm_up();
    // A run that is to end by itself ends with a reset as well.
    let ended = life(&mut guest, options.after == After::Exit);
    guest.board.state = VmState::Stopped(ended);
    terminal::guest_ends();
    guest.board.check_marks();
    guest.board.tell_replay();
    say_end(&guest, ended);
    let well = match &guest.board.tape {
        Tape::Replaying(replaying) => replaying.is_well(),
        _ => matches!(ended, reason::POWER_OFF | reason::KILLED | reason::RESET),
    };
    if options.after != After::Exit && matches!(guest.board.tape, Tape::Replaying(_)) {
        inspection::stay(&mut guest);
    }
    end_run(options, if well { ExitCode::Success } else { ExitCode::ProofFailed });
}

fn end_run(options: &Options<'_>, code: ExitCode) {
    if options.after == After::Exit {
        cpu::exit(code)
    }
}

/// Everything from power-on to the end. Says how it ended.
fn life(guest: &mut Guest, once: bool) -> &'static str {
    let Guest { board, vcpu, plan } = guest;
    let mut active = match vcpu.load() {
        Ok(active) => active,
        Err(error) => {
            log::error!("the guest's VMCS cannot be loaded: {error}");
            return reason::NO_ENTRY;
        }
    };
    board.time.begin();
    if let Tape::Replaying(replaying) = &mut board.tape {
        replaying.begin();
    }
    if let Err(why) = plan.power_on(board, &mut active) {
        log::error!("{why}");
        return reason::NO_ENTRY;
    }
    memory::end_allocation();
    machine_line!("vm event=started name={} exact={}", board.name, board.time.is_exact());
    terminal::guest_starts(plan.escape());
    loop {
        let stop = vcpu::run(&mut active, board);
        match next(board, &mut active, stop) {
            Next::Run => {}
            // The guest of a pair starts again on both hosts.
            Next::Reset if once && board.pair.is_none() => {
                board.end_recording(&mut active, reason::RESET);
                board.end_replay(&mut active);
                board.leave_pair();
                return reason::RESET;
            }
            Next::Reset => {
                machine_line!("vm event=reset name={}", board.name);
                memory::resume_allocation();
                let started = plan.power_on(board, &mut active);
                memory::end_allocation();
                if let Err(why) = started {
                    log::error!("{why}");
                    return reason::NO_ENTRY;
                }
            }
            Next::End(why) => {
                board.end_recording(&mut active, why);
                board.end_replay(&mut active);
                board.leave_pair();
                return why;
            }
        }
    }
}

/// What a stop means.
fn next(board: &mut Board, active: &mut Active<'_>, stop: Stop) -> Next {
    board.clear_stop();
    if let Some(power) = board.outside.power.take() {
        return match power {
            Power::Off => Next::End(reason::POWER_OFF),
            Power::Reset => Next::Reset,
        };
    }
    match stop {
        Stop::Named(reason::OPERATOR) => obey(board, active),
        Stop::Named(why) => Next::End(why),
        other => {
            log::error!("the guest is stopped: {other}");
            Next::End(other.key())
        }
    }
}

/// Does what the operator has ordered; a paused guest stays here.
fn obey(board: &mut Board, active: &mut Active<'_>) -> Next {
    let mut since = time::now_ns();
    loop {
        match board.order.take() {
            Some(Order::Kill) => return Next::End(reason::KILLED),
            _ if board.state == VmState::Running => break,
            _ => {
                if let Some(why) = board.serve_paused() {
                    return Next::End(why);
                }
                time::wait_for_interrupt(duties::ALL, None);
                since = board.stand_since(since);
                duties::take(duties::NETWORK);
                if board.pair.is_some() {
                    board.discard_frames();
                }
                board.obey_peer(active);
                inspection::serve(board, active);
                board.clear_stop();
                if board.outside.power.take().is_some() {
                    return Next::Reset;
                }
            }
        }
    }
    // The guest's clock stood still.
    board.stand_since(since);
    Next::Run
}

fn say_end(guest: &Guest, why: &str) {
    let board = &guest.board;
    let (strays, out) = (board.computer.strays(), board.outside.counters);
    machine_line!(
        "vm event=stopped name={} reason={why} instructions={} virtual-ns={} real-ns={} stood-ns={} exits={} console={} \
         frames={} frames-lost={} stray-ports={} stray-memory={} stray-msrs={}",
        board.name,
        board.time.instructions(),
        board.time.now(),
        board.time.real(),
        board.time.stood(),
        guest.vcpu.exits(),
        out.console,
        out.frames,
        out.frames_lost,
        strays.ports,
        strays.memory,
        strays.msrs
    );
    board.paging.say();
    board.tell_pace();
    board.outside.to_wire.tell();
    let rows = guest.vcpu.counts().iter().zip(guest.vcpu.cycles()).enumerate();
    for (number, (count, cycles)) in rows.filter(|(_, (count, _))| **count != 0) {
        let reason = vmx::exit::reason_name(number as u16);
        machine_line!("vm-exits reason={reason} count={count} cycles={cycles}");
    }
}
