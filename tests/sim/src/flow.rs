//! The guest's turns on a host, and the log.

use ft::lag::FULL;
use ft::outputs::Kind;
use ft::pair::Event;
use toy::machine::Packet;

use crate::god::Broken;
use crate::guest::{Followed, Led};
use crate::host::{Gear, Incoming, PACKET};
use crate::world::{Step, World};

/// Steps of a turn at most, and the guest's time that it takes at most, nanoseconds.
const STEPS: u32 = 24;
const TURN: u64 = 400_000;
/// Of the counts' time: nanoseconds per count of a toy that is not slowed down.
const COUNT: (u64, u64) = (5, 2);
/// Nothing is waited for but what comes.
const NEVER: u64 = u64::MAX;
/// Before a block is closed for its age, parts of a heartbeat's time.
const AGE: u64 = 16;

impl World<'_> {
    /// Has the guest's turn come at this moment, or earlier if it was to.
    pub(crate) fn wake(&mut self, id: usize, at: u64) {
        let host = &mut self.hosts[id];
        if host.gear == Gear::Off || !host.is_awake() {
            return;
        }
        // A guest that is slowed down has but a share of the time.
        let share = if host.gear == Gear::Leads { u64::from(host.lag.share()) } else { u64::from(FULL) };
        let at = at.max(host.busy + host.turn * (u64::from(FULL) - share) / share);
        if host.run_at.is_none_or(|known| at < known) {
            host.run_at = Some(at);
            self.deliver(at, id, Incoming::Run);
        }
    }

    /// The guest's turn.
    pub(crate) fn run_guest(&mut self, id: usize) -> Step {
        match self.hosts[id].gear {
            Gear::Off => Ok(()),
            Gear::Leads | Gear::Alone => self.lead(id),
            Gear::Follows | Gear::Drains => self.follow(id),
        }
    }

    /// How long a host takes for so much of the guest.
    fn takes(&self, id: usize, count: u64) -> u64 {
        count * COUNT.0 * u64::from(self.plan.slower) / COUNT.1 * self.hosts[id].cost / 1000
    }

    fn lead(&mut self, id: usize) -> Step {
        let local = self.local(id);
        let begun = self.now;
        let mut taken = 0;
        for _ in 0..STEPS {
            if self.end_log_if_wanted(id)? || !self.has_room(id) {
                return Ok(());
            }
            let host = &mut self.hosts[id];
            let target = host.guest_time(local + taken);
            let Some(guest) = &mut host.guest else { return Ok(()) };
            match guest.lead(host.tape.as_mut(), target, &mut host.arrived) {
                Led::Ran(count) => taken += self.takes(id, count),
                Led::Halted(until) => {
                    let host = &mut self.hosts[id];
                    (host.busy, host.turn) = (begun + taken, taken);
                    if taken > 0 {
                        self.stepped_at = self.now;
                    }
                    let due = if until == u64::MAX { NEVER } else { host.clock.when(host.born + until) };
                    let pending = host.tape.as_ref().is_some_and(|tape| tape.is_pending());
                    let age = begun + taken + self.plan.heartbeat / 4;
                    self.close_if_old(id, local + taken)?;
                    return self.rest(id, if pending { due.min(age) } else { due });
                }
            }
            let Some(guest) = &mut self.hosts[id].guest else { return Ok(()) };
            if guest.has_sent() {
                let packets: Vec<Packet> = guest.take_sent().collect();
                self.put_out(id, &packets, local + taken)?;
                break;
            }
            if taken > TURN {
                break;
            }
        }
        self.close_if_old(id, local + taken)?;
        self.goes_on(id, begun, taken)
    }

    /// The guest's turn has taken so much time; its next comes right after.
    fn goes_on(&mut self, id: usize, begun: u64, taken: u64) -> Step {
        (self.hosts[id].busy, self.hosts[id].turn) = (begun + taken, taken);
        self.stepped_at = self.now;
        self.rest(id, begun + taken)
    }

    /// The guest rests until then.
    fn rest(&mut self, id: usize, until: u64) -> Step {
        if until < NEVER {
            self.wake(id, until.max(self.now + 1));
        }
        Ok(())
    }

    /// Whether log and outputs have room for a step. The guest stands until they have.
    fn has_room(&mut self, id: usize) -> bool {
        let host = &self.hosts[id];
        let log = host.tape.as_ref().is_none_or(|tape| tape.has_room());
        // A step sends one packet at most.
        let room = log && (host.gear == Gear::Alone || host.outputs.has_room(PACKET));
        self.facts.full += u64::from(!room);
        room
    }

    /// The guest has sent something.
    fn put_out(&mut self, id: usize, packets: &[Packet], local: u64) -> Step {
        self.hold(id, packets, local)?;
        let host = &mut self.hosts[id];
        let (Some(guest), Some(tape)) = (&host.guest, &mut host.tape) else {
            return self.let_all_out(id);
        };
        let position = guest.close(tape);
        host.closed_at = local;
        host.outputs.seal(position);
        self.tell(id, Event::Sent(position))?;
        self.send_log(id)
    }

    fn hold(&mut self, id: usize, packets: &[Packet], local: u64) -> Step {
        let host = &mut self.hosts[id];
        for packet in packets {
            let mut bytes = [0; PACKET];
            bytes[..8].copy_from_slice(&packet.number.to_le_bytes());
            bytes[8..].copy_from_slice(&packet.sum.to_le_bytes());
            host.computed = packet.number;
            if matches!(host.gear, Gear::Follows | Gear::Drains) {
                host.outputs.push_over(Kind::Frame(0), &bytes, local);
            } else if host.outputs.push(Kind::Frame(0), &bytes, local).is_err() {
                return Err(Broken::Overflow(id, "outputs"));
            }
        }
        Ok(())
    }

    fn close_if_old(&mut self, id: usize, local: u64) -> Step {
        let host = &mut self.hosts[id];
        let (Some(guest), Some(tape)) = (&host.guest, &mut host.tape) else { return Ok(()) };
        if !tape.is_pending() || local.saturating_sub(host.closed_at) < self.plan.heartbeat / AGE {
            return Ok(());
        }
        host.closed_at = local;
        let position = guest.close(tape);
        self.tell(id, Event::Sent(position))?;
        self.send_log(id)
    }

    /// Ends the log if that is wanted, and the guest stands where it can be.
    fn end_log_if_wanted(&mut self, id: usize) -> Step<bool> {
        let host = &mut self.hosts[id];
        let (Some(guest), Some(tape)) = (&mut host.guest, &mut host.tape) else { return Ok(false) };
        if !host.ending || !guest.stands_well() || !tape.has_room() {
            return Ok(false);
        }
        host.ending = false;
        host.gear = Gear::Off;
        let position = guest.end(tape, "power off");
        self.send_log(id)?;
        self.tell(id, Event::LogClosed(position))?;
        self.send_log(id)?;
        Ok(true)
    }

    fn follow(&mut self, id: usize) -> Step {
        let local = self.local(id);
        let begun = self.now;
        let mut taken = 0;
        for _ in 0..STEPS {
            let host = &mut self.hosts[id];
            let (Some(guest), Some(track)) = (&mut host.guest, &mut host.track) else { return Ok(()) };
            match track.is_open() {
                Ok(true) => {}
                Ok(false) => return self.follow_no_more(id),
                Err(error) => return Err(Broken::Diverged(id, format!("{error:?}"))),
            }
            let followed = guest.follow(track);
            let executed = track.stream().executed();
            if host.outputs.is_open() && executed > host.open_at {
                host.outputs.seal(executed);
            }
            let packets: Vec<Packet> = guest.take_sent().collect();
            if !packets.is_empty() {
                host.open_at = executed;
            }
            self.hold(id, &packets, local)?;
            match followed {
                Followed::Ran(count) => taken += self.takes(id, count),
                Followed::Waits => return self.follow_no_more(id),
                Followed::Ended => {
                    self.hosts[id].gear = Gear::Off;
                    return self.tell(id, Event::LogEnded);
                }
                Followed::Diverged(what) => return Err(Broken::Diverged(id, what)),
            }
            if taken > TURN {
                break;
            }
        }
        if local + taken >= self.hosts[id].acked_at + self.plan.heartbeat / 4 {
            self.acknowledge(id);
        }
        // What has become free may be filled again.
        let epoch = self.connection.epoch;
        self.read_stream(id, epoch)?;
        self.goes_on(id, begun, taken)
    }

    /// Everything that has arrived was executed.
    fn follow_no_more(&mut self, id: usize) -> Step {
        let host = &mut self.hosts[id];
        let Some(track) = &mut host.track else { return Ok(()) };
        if host.gear == Gear::Drains {
            let position = track.stream().executed();
            return self.tell(id, Event::Drained { position });
        }
        if track.stream().executed() > host.acked_executed {
            self.acknowledge(id);
        }
        let epoch = self.connection.epoch;
        self.read_stream(id, epoch)
    }
}
