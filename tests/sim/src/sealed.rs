//! The real logging channel, with its handshakes and its cipher, over the simulated connection. Some seeds have it; the others pass
//! the same messages in the clear.

use ft::Text;
use ft::channel::facts::{Facts, Modules};
use ft::channel::{Channel, Event as Told, Message, PIECE, Refusal, Role, Sealing, Settings};
use ft::keys::{Incarnation, Keys};
use ft::pair::Event;
use replay::seed::Seed;

use crate::god::Broken;
use crate::host::{Gear, VM};
use crate::world::{Step, World};

/// The place of the one connection that there is.
const PLACE: usize = 0;
/// Bytes that are sent at a time.
const SEGMENT: usize = 1460;

const FACTS: Facts<'static> = Facts {
    build: "simulated",
    config: [7; 32],
    profile: "toy",
    profile_hash: 1,
    vendor: "toy",
    signature: 2,
    processor: "toy",
    proven: true,
    proof: "held",
    modules: Modules::List(&[]),
};

/// The channel of a host.
pub fn channel(id: usize, incarnation: Incarnation, rng: &mut Seed) -> Option<Box<Channel>> {
    let keys = Keys::new(&[42; 32], VM, 1);
    let role = if id == 0 { Role::Responder } else { Role::Initiator };
    let sealing = Sealing::ChaCha20Poly1305;
    let settings = Settings { role, sealing, keys: &keys, incarnation, facts: FACTS };
    let channel = Channel::new(&settings, || core::array::from_fn(|_| rng.next() as u8));
    channel.ok().map(Box::new)
}

impl World<'_> {
    /// A connection stands: the handshake begins.
    pub(crate) fn connect_sealed(&mut self, id: usize) -> Step {
        let local = self.local(id);
        if let Some(channel) = &mut self.hosts[id].channel {
            channel.connected(PLACE, local);
        }
        self.hosts[id].unread.clear();
        self.look_at_channel(id)
    }

    /// The connection is gone.
    pub(crate) fn disconnect_sealed(&mut self, id: usize) -> Step {
        if let Some(channel) = &mut self.hosts[id].channel {
            channel.disconnected(PLACE);
        }
        self.look_at_channel(id)
    }

    /// Seals a message.
    pub(crate) fn send_sealed(&mut self, id: usize, message: &Message<'_>) {
        if let Some(channel) = &mut self.hosts[id].channel {
            channel.send(message);
        }
        self.flush_sealed(id);
    }

    /// Sends what waits, as far as the connection takes it.
    pub(crate) fn flush_sealed(&mut self, id: usize) {
        while self.connection.up[id] && self.connection.pipes[id].room() >= SEGMENT {
            let mut bytes = [0; SEGMENT];
            let Some(channel) = &mut self.hosts[id].channel else { return };
            let count = channel.pull(PLACE, &mut bytes);
            if count == 0 || !self.stream(id, &bytes[..count]) {
                return;
            }
        }
    }

    /// Reads what has arrived, as far as there is room for it.
    pub(crate) fn read_sealed(&mut self, id: usize, epoch: u64) -> Step {
        let mut heard = false;
        while self.connection.is_up(id, epoch) && self.hosts[id].is_awake() {
            let full = self.hosts[id].track.as_mut().is_some_and(|track| track.stream().room() <= PIECE);
            if full && self.hosts[id].gear == Gear::Follows {
                break;
            }
            if self.hosts[id].unread.is_empty() {
                let Some(bytes) = self.connection.pipes[1 - id].receive(self.now) else { break };
                self.hosts[id].unread = bytes;
            }
            let host = &mut self.hosts[id];
            let Some(channel) = &mut host.channel else { break };
            let taken = channel.feed(PLACE, &host.unread);
            host.unread.drain(..taken);
            // Copied out: what the message leads to may use the channel.
            let mut copy = [0; 1 + PIECE];
            let length = channel.next().and_then(|message| message.emit(&mut copy));
            self.look_at_channel(id)?;
            match length {
                Some(length) => {
                    let Some(message) = Message::parse(&copy[..length]) else {
                        return Err(Broken::Astray(id, "a message that is none".to_owned()));
                    };
                    heard |= matches!(message, Message::Log(_));
                    self.hear(id, message)?;
                }
                None if taken == 0 => break,
                None => {}
            }
        }
        if heard {
            self.acknowledge(id);
            self.wake(id, self.now);
        }
        Ok(())
    }

    /// Does what the channel has to tell.
    pub(crate) fn look_at_channel(&mut self, id: usize) -> Step {
        self.flush_sealed(id);
        loop {
            let Some(channel) = &mut self.hosts[id].channel else { return Ok(()) };
            let Some(told) = channel.take_event() else { break };
            match told {
                Told::Secured { peer, .. } => {
                    self.tell(id, Event::ChannelUp { peer })?;
                    self.greet(id)?;
                }
                Told::Lost => self.tell(id, Event::ChannelDown)?,
                Told::Refused(Refusal::Restarted) => self.tell(id, Event::PeerRestarted)?,
                Told::Refused(why) => self.tell(id, Event::Refused(Text::of(why)))?,
            }
        }
        let local = self.local(id);
        let closes = self.hosts[id].channel.as_mut().is_some_and(|channel| channel.must_close(PLACE, local));
        if closes && self.connection.up[id] {
            self.hang_up(id);
            return self.disconnect_sealed(id);
        }
        Ok(())
    }
}
