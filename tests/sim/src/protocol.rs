//! What a host does with what comes to it, and what its core has it do.

use ft::arbiter::{Answer, Arbiter as _, Ask};
use ft::channel::{Ack, Message, PIECE};
use ft::heartbeat::Beat;
use ft::outputs::Limit;
use ft::pair::{Action, Event, Order, Role, State};
use ft::side::Path;
use toy::machine::Packet;

use crate::god::Broken;
use crate::guest::{Guest, Tape, Track};
use crate::host::{Gear, Incoming};
use crate::mutant::Mutant;
use crate::plan::Net;
use crate::world::{Step, World};

/// The network that a path leads over.
const fn net(path: Path) -> Net {
    match path {
        Path::Logging => Net::Logging,
        Path::Guest => Net::Guest,
    }
}

impl World<'_> {
    /// Something comes to a host that is awake.
    pub(crate) fn receive(&mut self, id: usize, incoming: Incoming) -> Step {
        let local = self.local(id);
        match incoming {
            Incoming::Beat(path, bytes) => self.heard(id, Path::ALL[path], &bytes)?,
            Incoming::Disk(reply) => self.hosts[id].client.receive(&reply),
            Incoming::Stream(epoch) => self.read_stream(id, epoch)?,
            Incoming::Established(epoch, peer) => {
                self.established(id, epoch, peer)?;
                // What the other end has sent may have overtaken the news.
                self.read_stream(id, epoch)?;
            }
            Incoming::Hangup(epoch) => {
                if self.connection.is_up(id, epoch) {
                    self.connection.up[id] = false;
                    if self.plan.sealed {
                        self.disconnect_sealed(id)?;
                    } else {
                        self.tell(id, Event::ChannelDown)?;
                    }
                }
            }
            Incoming::Arrival(arrival) => {
                self.hosts[id].take_arrival(arrival);
                self.wake(id, self.now);
            }
            Incoming::PowerOff => self.tell(id, Event::Order(Order::PowerOff))?,
            // Only the one that is waited for: others were overtaken.
            Incoming::Tick if self.hosts[id].tick_at.is_some_and(|at| at > self.now) => return Ok(()),
            Incoming::Run if self.hosts[id].run_at.is_none_or(|at| at > self.now) => return Ok(()),
            Incoming::Tick => {
                self.hosts[id].tick_at = None;
                self.tell(id, Event::Tick)?;
                if self.plan.sealed {
                    self.look_at_channel(id)?;
                }
            }
            Incoming::Run => {
                self.hosts[id].run_at = None;
                self.run_guest(id)?;
            }
        }
        if self.hosts[id].is_awake() {
            while let Some(answer) = self.hosts[id].client.poll(local) {
                self.answer(id, answer)?;
            }
            self.ask_again(id);
        }
        self.schedule_tick(id);
        Ok(())
    }

    fn answer(&mut self, id: usize, answer: Answer) -> Step {
        let answer = match (self.mutant, answer) {
            (Some(Mutant::UnknownIsWon), Answer::Unknown | Answer::Unreachable) => Answer::Won,
            (Some(Mutant::LoserGoesOn), Answer::Lost) => Answer::Won,
            _ => answer,
        };
        self.tell(id, Event::Answer(answer))
    }

    /// Sends what the arbiter's client has to send.
    fn ask_again(&mut self, id: usize) {
        let local = self.local(id);
        while let Some(request) = self.hosts[id].client.transmit(local) {
            self.ask_disk(id, &request);
        }
    }

    fn heard(&mut self, id: usize, path: Path, bytes: &[u8; ft::heartbeat::BEAT]) -> Step {
        let Some(beat) = Beat::parse(bytes) else { return Ok(()) };
        let host = &mut self.hosts[id];
        host.peer_sent = host.peer_sent.max(beat.sent);
        if matches!(host.gear, Gear::Follows | Gear::Drains) {
            // A primary says there what has left.
            let limit = if self.mutant == Some(Mutant::ForgetOutputs) { beat.sent } else { beat.received };
            host.outputs.forget(Limit::To(limit));
        }
        let Beat { generation, status, .. } = beat;
        self.tell(id, Event::Heard { path, generation, status })?;
        if self.mutant == Some(Mutant::AckBeforeReceipt) {
            self.acknowledge(id);
        }
        Ok(())
    }

    /// Tells a host's core something, and does what it says, until it has nothing more to say.
    pub(crate) fn tell(&mut self, id: usize, event: Event) -> Step {
        self.hosts[id].events.push_back(event);
        while self.hosts[id].is_awake()
            && let Some(event) = self.hosts[id].events.pop_front()
        {
            let local = self.local(id);
            let before = self.hosts[id].pair.state();
            let host = &mut self.hosts[id];
            let deferred = &mut host.deferred;
            host.pair.step(event, local, &mut |action| deferred.push_back(action));
            let after = self.hosts[id].pair.state();
            if before != after {
                self.say(|| format!("host {id}: {event:?}: {before} -> {after}"));
                self.changed(id, after)?;
            }
            self.perform_deferred(id)?;
        }
        Ok(())
    }

    fn changed(&mut self, id: usize, state: State) -> Step {
        match state {
            State::Solo => {
                let computed = self.hosts[id].computed;
                match self.hosts[id].pair.role() {
                    Role::Primary if self.hosts[id].track.is_none() => self.facts.alone += 1,
                    _ => self.facts.takeovers += 1,
                }
                self.god.alone(id, computed)
            }
            State::Ended => {
                // Of a host that had no part in it, it says nothing.
                if self.hosts[id].guest.is_some() {
                    self.god.off = true;
                    self.facts.ended += 1;
                }
                Ok(())
            }
            State::Halted(_) => {
                self.facts.lost += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Does what the core has said, unless something befalls the host meanwhile.
    pub(crate) fn perform_deferred(&mut self, id: usize) -> Step {
        while self.hosts[id].is_awake() {
            let Some(action) = self.hosts[id].deferred.pop_front() else { return Ok(()) };
            let rare = !matches!(action, Action::SendBeat { .. } | Action::ReleaseTo(_) | Action::Note(_));
            self.hosts[id].actions[0] += 1;
            self.hosts[id].actions[1] += u64::from(rare);
            if self.struck(id, &action, true) {
                self.hosts[id].deferred.push_front(action);
                return Ok(());
            }
            self.perform(id, action)?;
            if self.struck(id, &action, false) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn perform(&mut self, id: usize, action: Action) -> Step {
        if !matches!(action, Action::SendBeat { .. } | Action::ReleaseTo(_)) {
            self.say(|| format!("host {id}: {action:?}"));
        }
        let local = self.local(id);
        match action {
            Action::SendBeat { path, status } => {
                let beat = self.hosts[id].beat(status).emit();
                self.datagram(id, net(path), &Incoming::Beat(path.index(), beat));
            }
            Action::Ask(ask) => self.ask(id, ask),
            Action::SendArmed { generation } => self.message(id, &Message::Armed { generation }),
            Action::SendGoodbye(why) => self.message(id, &Message::Goodbye(why)),
            Action::StartGuest => self.start_guest(id),
            Action::ReleaseTo(position) => self.release(id, position)?,
            Action::ReleaseAll => {
                self.let_all_out(id)?;
                if self.hosts[id].gear == Gear::Leads {
                    self.hosts[id].gear = Gear::Alone;
                    self.hosts[id].tape = None;
                }
                self.wake(id, self.now);
            }
            Action::Drain => {
                self.hosts[id].gear = Gear::Drains;
                if self.mutant == Some(Mutant::LiveBeforeLast) {
                    self.hosts[id].events.push_back(Event::Drained { position: 0 });
                }
                self.wake(id, self.now);
            }
            Action::GoLive => self.go_live(id, local)?,
            Action::EndLog => {
                self.hosts[id].ending = true;
                if self.mutant == Some(Mutant::SilentEnd) {
                    self.hosts[id].events.push_back(Event::LogClosed(0));
                }
                self.wake(id, self.now);
            }
            Action::StopGuest | Action::Halt(_) => self.hosts[id].gear = Gear::Off,
            Action::Forward(order) => self.message(id, &Message::Order(order)),
            Action::SendPaused(paused) => self.message(id, &Message::Paused(paused)),
            Action::Apply(_) | Action::Note(_) => {}
            Action::CloseChannel => self.close(id),
        }
        Ok(())
    }

    fn ask(&mut self, id: usize, ask: Ask) {
        if self.mutant == Some(Mutant::NoArbitration) && matches!(ask, Ask::Contend { .. }) {
            return self.hosts[id].events.push_back(Event::Answer(Answer::Won));
        }
        let local = self.local(id);
        self.hosts[id].client.ask(ask, local);
        self.ask_again(id);
        if let Some(answer) = self.hosts[id].client.poll(local) {
            self.hosts[id].events.push_back(Event::Answer(answer));
        }
    }

    fn start_guest(&mut self, id: usize) {
        let local = self.local(id);
        let seed = self.seed.wrapping_mul(4).wrapping_add(id as u64);
        let silicon = self.plan.silicon[id];
        let host = &mut self.hosts[id];
        let Some(set) = host.set.take() else { return };
        host.guest = Some(Guest::new(&self.program, silicon, seed, self.plan.slower));
        (host.born, host.closed_at) = (local, local);
        host.pinned = host.pair.peer();
        if let (Some(channel), Some(peer)) = (&mut host.channel, host.pinned) {
            channel.pin(peer);
        }
        host.gear = match (host.pair.state(), host.pair.role()) {
            (State::Solo, _) => Gear::Alone,
            (_, Role::Primary) => {
                let tape = Tape::new(set.buffer, set.log);
                host.events.push_back(Event::Sent(tape.log.pushed()));
                host.tape = Some(tape);
                self.facts.paired += 1;
                Gear::Leads
            }
            (_, Role::Backup) => {
                host.track = Track::new(set.ring, set.working, silicon).ok();
                Gear::Follows
            }
        };
        // Where the log is to be sent from, or that it is wanted from its beginning.
        if host.gear == Gear::Follows {
            self.acknowledge(id);
        }
        self.wake(id, self.now);
    }

    fn go_live(&mut self, id: usize, local: u64) -> Step {
        let host = &mut self.hosts[id];
        let Some(guest) = &mut host.guest else {
            return Err(Broken::Astray(id, "goes live without a guest".to_owned()));
        };
        guest.go_live();
        host.born = local.saturating_sub(guest.now());
        host.gear = Gear::Alone;
        if self.mutant == Some(Mutant::ForgetOutputs) {
            host.outputs.forget(Limit::All);
        }
        self.let_all_out(id)?;
        self.wake(id, self.now);
        Ok(())
    }

    /// Lets out what may leave.
    fn release(&mut self, id: usize, position: u64) -> Step {
        self.let_out(id, Limit::To(position))?;
        if self.mutant == Some(Mutant::ReleaseEarly)
            && let Some(next) =
                self.hosts[id].outputs.front(Limit::To(u64::MAX)).and_then(|next| next.position)
        {
            self.let_out(id, Limit::To(next))?;
        }
        self.wake(id, self.now);
        Ok(())
    }

    /// Lets out everything.
    pub(crate) fn let_all_out(&mut self, id: usize) -> Step {
        self.let_out(id, Limit::All)
    }

    fn let_out(&mut self, id: usize, limit: Limit) -> Step {
        let local = self.local(id);
        while let Some(output) = self.hosts[id].outputs.front(limit) {
            let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| output.bytes[at + n]));
            let packet = Packet { number: number(0), sum: number(8) };
            let position = if limit == Limit::All { None } else { output.position };
            self.hosts[id].outputs.pop(local);
            self.god.released(id, packet, position)?;
        }
        Ok(())
    }

    /// A message on the channel; nothing if it is gone.
    pub(crate) fn message(&mut self, id: usize, message: &Message<'_>) {
        if self.plan.sealed {
            return self.send_sealed(id, message);
        }
        let mut bytes = [0; 64];
        if let Some(length) = message.emit(&mut bytes) {
            self.stream(id, &bytes[..length]);
        }
    }

    /// A connection stands: a backup says where the log goes on.
    pub(crate) fn greet(&mut self, id: usize) -> Step {
        self.facts.connections += u64::from(id == 0);
        if self.hosts[id].gear == Gear::Follows {
            self.acknowledge(id);
        }
        Ok(())
    }

    /// The backup says how far it is.
    pub(crate) fn acknowledge(&mut self, id: usize) {
        let local = self.local(id);
        let host = &mut self.hosts[id];
        host.acked_at = local;
        let executed_ns = host.guest.as_ref().map_or(0, Guest::now);
        let (Gear::Follows, Some(track)) = (host.gear, &mut host.track) else { return };
        let stream = track.stream();
        let mut ack = Ack { received: stream.received(), executed: stream.executed(), executed_ns };
        host.acked_executed = ack.executed;
        if self.mutant == Some(Mutant::AckBeforeReceipt) {
            ack.received = ack.received.max(host.peer_sent);
        }
        self.message(id, &Message::Ack(ack));
    }

    /// Reads what has arrived on the connection, as far as there is room for it.
    pub(crate) fn read_stream(&mut self, id: usize, epoch: u64) -> Step {
        if self.plan.sealed {
            return self.read_sealed(id, epoch);
        }
        let mut heard = false;
        while self.connection.is_up(id, epoch) && self.hosts[id].is_awake() {
            let full = self.hosts[id].track.as_mut().is_some_and(|track| track.stream().room() <= PIECE);
            if full && self.hosts[id].gear == Gear::Follows {
                break;
            }
            let Some(bytes) = self.connection.pipes[1 - id].receive(self.now) else { break };
            let message = Message::parse(&bytes);
            let Some(message) = message else {
                return Err(Broken::Astray(id, "a message that is none".to_owned()));
            };
            heard |= matches!(message, Message::Log(_));
            self.hear(id, message)?;
        }
        if heard {
            self.acknowledge(id);
            self.wake(id, self.now);
        }
        Ok(())
    }

    /// A message has arrived.
    pub(crate) fn hear(&mut self, id: usize, message: Message<'_>) -> Step {
        match message {
            Message::Log(bytes) => {
                let host = &mut self.hosts[id];
                if let (Gear::Follows, Some(track)) = (host.gear, &mut host.track) {
                    if track.stream().push(bytes).is_err() {
                        return Err(Broken::Overflow(id, "the log that has arrived"));
                    }
                    self.god.received[id] = self.god.received[id].max(track.stream().received());
                }
                self.tell(id, Event::ChannelHeard)
            }
            Message::Ack(ack) => self.acked(id, ack),
            Message::Armed { generation } => self.tell(id, Event::Armed(generation)),
            Message::Goodbye(why) => self.tell(id, Event::Goodbye(why)),
            Message::Order(order) => self.tell(id, Event::PeerOrder(order)),
            Message::Paused(paused) => self.tell(id, Event::Paused(paused)),
            Message::Ready | Message::Ping => self.tell(id, Event::ChannelHeard),
        }
    }

    /// The backup says how far it is: on a new connection, where the log goes on.
    fn acked(&mut self, id: usize, ack: Ack) -> Step {
        let local = self.local(id);
        let host = &mut self.hosts[id];
        if let (Some(tape), Some(guest)) = (&mut host.tape, &host.guest) {
            host.lag.acked(local, guest.now(), ack.executed_ns);
            let known = tape.log.consumed()..=tape.log.pushed();
            if known.contains(&ack.received) {
                let gone = (ack.received - tape.log.consumed()) as usize;
                tape.log.consume(gone);
                host.acknowledged = ack.received;
                host.sent = Some(host.sent.unwrap_or(ack.received).max(ack.received));
            } else if host.sent.is_none() && self.mutant.is_none() {
                return Err(Broken::Astray(id, format!("{ack:?} is not in {known:?}")));
            }
        }
        self.tell(id, Event::Acked(ack))?;
        self.send_log(id)?;
        self.wake(id, self.now);
        Ok(())
    }

    /// Sends what there is of the log.
    pub(crate) fn send_log(&mut self, id: usize) -> Step {
        while self.hosts[id].is_awake() && self.connection.up[id] {
            let host = &self.hosts[id];
            let (Some(tape), Some(sent)) = (&host.tape, host.sent) else { return Ok(()) };
            let skip = (sent - tape.log.consumed()) as usize;
            let (near, far) = tape.log.readable();
            let piece = if skip < near.len() { &near[skip..] } else { &far[skip - near.len()..] };
            // Small pieces: the more there are, the more can happen between them.
            let length = piece.len().min(self.rng.between(1, 3000) as usize);
            if length == 0 || self.connection.pipes[id].room() < PIECE {
                return Ok(());
            }
            if self.plan.sealed {
                let piece = piece[..length].to_vec();
                let Some(channel) = &mut self.hosts[id].channel else { return Ok(()) };
                let count = channel.send_log(&piece);
                self.flush_sealed(id);
                if count == 0 {
                    return Ok(());
                }
                self.hosts[id].sent = Some(sent + count as u64);
                continue;
            }
            let mut bytes = [0; 1 + 3000];
            let Some(length) = Message::Log(&piece[..length]).emit(&mut bytes) else { return Ok(()) };
            if !self.stream(id, &bytes[..length]) {
                return Ok(());
            }
            self.hosts[id].sent = Some(sent + length as u64 - 1);
        }
        Ok(())
    }

    /// The host closes the channel for good.
    fn close(&mut self, id: usize) {
        self.hosts[id].closed = true;
        self.hang_up(id);
    }

    /// The host closes the connection.
    pub(crate) fn hang_up(&mut self, id: usize) {
        if !std::mem::replace(&mut self.connection.up[id], false) {
            return;
        }
        let epoch = self.connection.epoch;
        let delay = self.weather(Net::Logging).delay(&mut self.rng);
        let after = self.connection.pipes[id].last().max(self.now);
        if self.passes(Net::Logging, id) {
            self.deliver(after + delay, 1 - id, Incoming::Hangup(epoch));
        }
    }
}
