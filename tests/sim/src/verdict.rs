//! What must be true at the end, when nothing has gone wrong for a while.

use ft::outputs::Limit;
use ft::pair::{Halted, State};

use crate::god::Broken;
use crate::world::{Step, World};

/// Judges the end.
pub(crate) fn judge(world: &World<'_>) -> Step {
    for id in 0..2 {
        if world.hosts[id].alive {
            host(world, id)?;
        }
    }
    flow(world)
}

/// Every host that is alive must have come to somewhere.
fn host(world: &World<'_>, id: usize) -> Step {
    let state = world.hosts[id].pair.state();
    let other = &world.hosts[1 - id];
    let restarted = world.hosts.iter().any(|host| host.lives > 0);
    let stuck = |what: &str| Err(Broken::Stuck(format!("host {id} is {state}: {what}")));
    match state {
        State::Solo | State::Ended => Ok(()),
        State::Protected => match other.pair.state() {
            State::Protected if other.alive => Ok(()),
            _ => stuck("its peer is not"),
        },
        State::Joining | State::Arming => {
            let waits = other.alive && matches!(other.pair.state(), State::Joining | State::Arming);
            if waits { stuck("so is its peer, and they do not find each other") } else { Ok(()) }
        }
        State::Ending | State::Draining | State::Arbitrating => stuck("still"),
        State::Halted(Halted::Lost) if world.god.owner != Some(1 - id) => stuck("the other has not won"),
        State::Halted(Halted::Lost) => Ok(()),
        State::Halted(Halted::Refused) if !restarted => stuck("nobody has started anew"),
        State::Halted(Halted::Refused) => Ok(()),
        State::Halted(Halted::Trouble) => stuck("there was none"),
    }
}

/// Where a host is live, the guest goes on, and what it sends leaves.
fn flow(world: &World<'_>) -> Step {
    for host in world.hosts.iter().filter(|host| host.is_live()) {
        // Something comes from outside far more often.
        if world.stepped_at < world.plan.end - 2 * world.plan.timeout {
            return Err(Broken::Stuck(format!("host {}'s guest stands", host.id)));
        }
        let local = host.clock.at(world.plan.end);
        let oldest = host.outputs.front(Limit::All).map_or(local, |output| output.made_at);
        if local.saturating_sub(oldest) > 2 * world.plan.timeout {
            return Err(Broken::Stuck(format!("what host {}'s guest sends does not leave", host.id)));
        }
    }
    // A host that has won, and has power, is live; and a pair of which no host has lost anything is one.
    if let Some(owner) = world.god.owner.filter(|owner| world.hosts[*owner].alive && !world.god.off) {
        let host = &world.hosts[owner];
        if host.lives == 0 && !host.is_live() && host.pair.state() != State::Ended {
            return Err(Broken::Stuck(format!("host {owner} has won, and is {}", host.pair.state())));
        }
    }
    Ok(())
}
