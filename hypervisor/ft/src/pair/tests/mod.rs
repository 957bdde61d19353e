//! Tests of the state machine: each transition, any events whatever, and two hosts in a world of faults.

mod any;
mod world;

use super::*;
use std::vec;
use std::vec::Vec;

pub(super) const MS: u64 = 1_000_000;

pub(super) const fn settings(role: Role) -> Settings {
    Settings {
        role,
        generation: 3,
        paths: [true; PATHS],
        heartbeat_ns: 50 * MS,
        timeout_ns: 300 * MS,
        stall_ns: 3000 * MS,
        retry_ns: Settings::RETRY_NS,
    }
}

const PEER: Incarnation = Incarnation(99);
const ARM: Ask = Ask::Arm { generation: 3, peer: PEER };
const READ_BACK: Ask = Ask::ReadBack { generation: 3 };
const FENCE: Ask = Ask::Fence { generation: 3 };

const fn contend(position: u64) -> Action {
    Action::Ask(Ask::Contend { generation: 3, position })
}

const fn ack(received: u64) -> Event {
    Event::Acked(Ack { received, executed: 0, executed_ns: 0 })
}

const fn heard(status: Status) -> Event {
    Event::Heard { path: Path::Guest, generation: 3, status }
}

/// A host, its clock, and what it was told to do, heartbeats and notes left out.
struct Host {
    pair: Pair,
    now: u64,
}

impl Host {
    fn new(role: Role) -> Self {
        Self { pair: Pair::new(settings(role), 0), now: 0 }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.pair.step(event, self.now, &mut |action| actions.push(action));
        actions.retain(|action| !matches!(action, Action::SendBeat { .. } | Action::Note(_)));
        actions
    }

    /// Lets time pass, a heartbeat at a time, while the peer has heartbeats of this status, or none.
    fn pass(&mut self, ms: u64, peer: Option<Status>) -> Vec<Action> {
        let mut actions = Vec::new();
        let end = self.now + ms * MS;
        while self.now < end {
            self.now = self.pair.next_deadline().unwrap().min(end);
            if let Some(status) = peer {
                actions.extend(self.tell(heard(status)));
            }
            actions.extend(self.tell(Event::Tick));
        }
        actions
    }

    /// A host that is protected, at 100 ms.
    fn protected(role: Role) -> Self {
        let mut host = Self::new(role);
        host.pass(100, None);
        let joined = host.tell(Event::ChannelUp { peer: PEER });
        match role {
            Role::Primary => {
                assert_eq!(joined, [Action::Ask(ARM)]);
                assert_eq!(host.pair.state(), State::Arming);
                assert_eq!(host.tell(Event::Answer(Answer::Armed)), [Action::SendArmed { generation: 3 }]);
                assert_eq!(host.tell(Event::Armed(3)), [Action::StartGuest]);
            }
            Role::Backup => {
                assert_eq!((joined, host.pair.state()), (vec![], State::Arming));
                assert_eq!(host.tell(Event::Armed(2)), []);
                let actions = host.tell(Event::Armed(3));
                assert_eq!(actions, [Action::SendArmed { generation: 3 }, Action::StartGuest]);
            }
        }
        assert_eq!(host.pair.state(), State::Protected);
        host
    }

    fn events(&self) -> Vec<&'static str> {
        self.pair.history().iter().map(|(_, event)| event.name()).collect()
    }
}

#[test]
fn outputs_follow_acknowledgements() {
    let mut host = Host::protected(Role::Primary);
    assert_eq!(host.tell(Event::Sent(1000)), []);
    assert_eq!(host.tell(ack(400)), [Action::ReleaseTo(400)]);
    for late in [400, 300, 1001, u64::MAX] {
        assert_eq!(host.tell(ack(late)), []);
    }
    assert_eq!(host.tell(ack(1000)), [Action::ReleaseTo(1000)]);
    assert_eq!((host.pair.released(), host.pair.acked().received), (1000, 1000));
    assert!(host.events().contains(&"wrong-ack"));
}

#[test]
fn heartbeats_go_on_every_path_and_at_once_when_something_changes() {
    let mut host = Host::new(Role::Backup);
    let mut beats = Vec::new();
    let mut all = |host: &mut Host, event| {
        let now = host.now;
        host.pair.step(event, now, &mut |action| {
            if let Action::SendBeat { path, status } = action {
                beats.push((now / MS, path, status));
            }
        });
    };
    all(&mut host, Event::Tick);
    host.now = 20 * MS;
    all(&mut host, Event::Tick);
    all(&mut host, Event::ChannelUp { peer: PEER });
    all(&mut host, Event::Armed(3));
    all(&mut host, Event::Tick);
    host.now = 70 * MS;
    all(&mut host, Event::Tick);
    let expected = [(0, Status::Starting), (20, Status::Backup), (70, Status::Backup)];
    let expected: Vec<_> =
        expected.into_iter().flat_map(|(at, status)| Path::ALL.map(|path| (at, path, status))).collect();
    assert_eq!(beats, expected);
    assert_eq!(host.pair.next_deadline(), Some(120 * MS));
}

#[test]
fn one_path_is_enough() {
    for role in [Role::Primary, Role::Backup] {
        let mut host = Host::protected(role);
        assert_eq!(host.pass(10_000, Some(Status::Primary)), [], "only the guest's card is heard");
        assert!(host.pair.hears(Path::Guest) && !host.pair.hears(Path::Logging));
        let other = Event::Heard { path: Path::Logging, generation: 3, status: Status::Primary };
        host.tell(other);
        host.pass(400, Some(Status::Primary));
        assert!(host.events().ends_with(&["path-back", "path-lost"]), "{:?}", host.events());
    }
}

#[test]
fn a_silent_primary_is_drained_then_contended_for() {
    let mut host = Host::protected(Role::Backup);
    assert_eq!(host.pass(299, None), []);
    assert_eq!(host.pass(1, None), [Action::CloseChannel, Action::Drain]);
    assert_eq!(host.pair.state(), State::Draining);
    assert_eq!(host.pass(1000, None), [], "whatever time that takes");
    assert_eq!(host.tell(Event::Answer(Answer::Won)), [], "nothing was asked");
    assert_eq!(host.tell(Event::Drained { position: 77 }), [contend(77)]);
    assert_eq!(host.tell(Event::Answer(Answer::Won)), [Action::Ask(FENCE)]);
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), [Action::GoLive]);
    assert_eq!((host.pair.state(), host.pair.role()), (State::Solo, Role::Primary));
    assert_eq!(host.tell(Event::Order(Order::Pause)), [Action::Apply(Order::Pause)]);
}

#[test]
fn a_silent_backup_is_contended_for_too() {
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::Sent(500));
    host.tell(ack(200));
    assert_eq!(host.pass(300, None), [Action::CloseChannel, contend(500)]);
    assert_eq!(host.tell(ack(300)), [], "nothing leaves meanwhile");
    host.tell(Event::Answer(Answer::Won));
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), [Action::ReleaseAll]);
    assert_eq!((host.pair.state(), host.pair.released()), (State::Solo, 200));
    assert_eq!(host.tell(ack(400)), []);
    assert_eq!(host.tell(heard(Status::Solo)), [], "what was won is won");
    assert_eq!(host.tell(Event::GuestEnded), [Action::StopGuest, Action::CloseChannel]);
}

#[test]
fn a_loser_halts_and_asks_no_more() {
    for role in [Role::Primary, Role::Backup] {
        let mut host = Host::protected(role);
        host.pass(300, None);
        host.tell(Event::Drained { position: 0 });
        assert_eq!(host.pair.state(), State::Arbitrating);
        assert_eq!(
            host.tell(Event::Answer(Answer::Lost)),
            [Action::Halt(Halted::Lost), Action::CloseChannel]
        );
        for event in [
            Event::Answer(Answer::Won),
            Event::Answer(Answer::Fenced),
            Event::ChannelUp { peer: PEER },
            ack(0),
            Event::Armed(3),
            Event::Drained { position: 0 },
            Event::Order(Order::PowerOff),
            Event::Order(Order::Reset),
        ] {
            assert_eq!(host.tell(event), [], "{event:?}");
        }
        assert_eq!(host.pass(10_000, None), []);
        assert_eq!(host.pair.status(), Status::Halted);
    }
}

#[test]
fn who_hears_that_the_other_is_alone_has_lost() {
    for role in [Role::Primary, Role::Backup] {
        let mut host = Host::protected(role);
        let lost = [Action::Halt(Halted::Lost), Action::SendGoodbye(Why::Lost), Action::CloseChannel];
        let old = Event::Heard { path: Path::Guest, generation: 2, status: Status::Solo };
        assert_eq!(host.tell(old), []);
        assert_eq!(host.tell(heard(Status::Solo)), lost);
        let mut host = Host::new(role);
        assert_eq!(host.tell(heard(Status::Solo))[0], Action::Halt(Halted::Lost));
        let mut host = Host::protected(role);
        host.pass(300, None);
        assert_eq!(host.tell(heard(Status::Solo))[0], Action::Halt(Halted::Lost));
    }
}

#[test]
fn an_unknown_answer_is_read_back() {
    let mut host = Host::protected(Role::Primary);
    host.pass(300, None);
    assert_eq!(host.tell(Event::Answer(Answer::Unknown)), [Action::Ask(READ_BACK)]);
    assert_eq!(host.tell(Event::Answer(Answer::Unreachable)), []);
    assert_eq!(host.pass(99, None), []);
    assert_eq!(host.pass(1, None), [Action::Ask(READ_BACK)]);
    assert_eq!(host.tell(Event::Answer(Answer::Free)), []);
    assert_eq!(host.pass(100, None), [contend(0)]);
    assert_eq!(host.tell(Event::Answer(Answer::Unreachable)), []);
    assert_eq!(host.pass(100, None), [contend(0)]);
    assert_eq!(host.tell(Event::Answer(Answer::Unknown)), [Action::Ask(READ_BACK)]);
    assert_eq!(host.tell(Event::Answer(Answer::Won)), [Action::Ask(FENCE)]);
    assert_eq!(host.tell(Event::Answer(Answer::Unknown)), []);
    assert_eq!(host.pass(100, None), [Action::Ask(FENCE)]);
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), [Action::ReleaseAll]);
}

#[test]
fn a_primary_whose_backup_stalls_gives_it_up() {
    let stalls = |host: &mut Host, ms: u64| {
        assert_eq!(host.pass(ms - 1, Some(Status::Backup)), []);
        assert_eq!(host.pass(1, Some(Status::Backup))[..1], [Action::CloseChannel]);
        assert_eq!(host.pair.state(), State::Arbitrating);
    };
    // Nothing is acknowledged.
    let mut host = Host::protected(Role::Primary);
    host.pass(5000, Some(Status::Backup));
    host.tell(Event::Sent(10));
    host.pass(2000, Some(Status::Backup));
    host.tell(Event::Sent(20));
    host.tell(ack(10));
    stalls(&mut host, 3000);
    // The channel is gone, though nothing is outstanding; that it comes back for a moment changes that.
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::ChannelDown);
    host.pass(2000, Some(Status::Backup));
    host.tell(Event::ChannelUp { peer: PEER });
    host.pass(2000, Some(Status::Backup));
    host.tell(Event::ChannelDown);
    stalls(&mut host, 3000);
    // It comes and goes, and nothing is acknowledged.
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::Sent(10));
    for _ in 0..29 {
        host.tell(Event::ChannelDown);
        host.pass(100, Some(Status::Backup));
        host.tell(Event::ChannelUp { peer: PEER });
    }
    stalls(&mut host, 100);
}

#[test]
fn a_backup_without_a_channel_waits() {
    let mut host = Host::protected(Role::Backup);
    host.tell(Event::ChannelDown);
    assert_eq!(host.pass(60_000, Some(Status::Primary)), []);
    assert_eq!(host.pass(60_000, Some(Status::Arbitrating)), []);
    assert_eq!(host.tell(heard(Status::Solo))[0], Action::Halt(Halted::Lost));
}

#[test]
fn a_peer_that_has_left_is_suspected_at_once() {
    let leaves = [
        heard(Status::Halted),
        heard(Status::Ended),
        Event::PeerRestarted,
        Event::ChannelUp { peer: Incarnation(1) },
        Event::Goodbye(Why::Trouble),
        Event::Goodbye(Why::Lost),
    ];
    for event in leaves {
        assert_eq!(Host::protected(Role::Primary).tell(event), [Action::CloseChannel, contend(0)]);
        assert_eq!(Host::protected(Role::Backup).tell(event), [Action::CloseChannel, Action::Drain]);
    }
}

#[test]
fn a_host_that_stood_still_first_looks_at_what_has_arrived() {
    for role in [Role::Primary, Role::Backup] {
        // The other one has taken over meanwhile.
        let mut host = Host::protected(role);
        host.now += 5000 * MS;
        assert_eq!(host.tell(Event::Tick), []);
        assert_eq!(host.tell(heard(Status::Primary)), []);
        assert_eq!(host.tell(heard(Status::Solo))[0], Action::Halt(Halted::Lost));
        // Nobody is there.
        let mut host = Host::protected(role);
        host.now += 5000 * MS;
        assert_eq!(host.tell(Event::Tick), []);
        assert_eq!(host.pass(49, None), []);
        assert_eq!(host.pass(1, None)[0], Action::CloseChannel);
        // All is well.
        let mut host = Host::protected(role);
        host.now += 5000 * MS;
        assert_eq!(host.pass(1000, Some(Status::Primary)), []);
    }
    // Nothing is released before that.
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::Sent(100));
    host.now += 5000 * MS;
    assert_eq!(host.tell(ack(100)), []);
    assert_eq!(host.pass(49, Some(Status::Backup)), []);
    assert_eq!(host.pass(1, Some(Status::Backup)), [Action::ReleaseTo(100)]);
}

#[test]
fn power_off_waits_for_the_backup() {
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::Sent(100));
    assert_eq!(host.tell(Event::Order(Order::PowerOff)), [Action::EndLog]);
    assert_eq!(host.tell(Event::Order(Order::PowerOff)), []);
    assert_eq!(host.tell(Event::Order(Order::Reset)), []);
    assert_eq!(host.tell(Event::LogClosed(150)), []);
    assert_eq!(host.tell(ack(149)), [Action::ReleaseTo(149)]);
    let ended =
        [Action::ReleaseTo(150), Action::StopGuest, Action::SendGoodbye(Why::Ended), Action::CloseChannel];
    assert_eq!(host.tell(ack(150)), ended);
    assert_eq!((host.pair.state(), host.pair.status()), (State::Ended, Status::Ended));
    assert_eq!(host.pass(10_000, None), []);
    // The backup has said that it has ended: it had everything.
    for event in [heard(Status::Ended), Event::Goodbye(Why::Ended)] {
        let mut host = Host::protected(Role::Primary);
        host.tell(Event::GuestEnded);
        host.tell(Event::LogClosed(150));
        assert_eq!(host.tell(event), ended);
    }
}

#[test]
fn power_off_without_a_backup_consumes_the_generation_first() {
    let mut host = Host::protected(Role::Primary);
    host.tell(Event::Order(Order::PowerOff));
    host.tell(Event::LogClosed(150));
    assert_eq!(host.pass(300, None), [Action::CloseChannel, contend(150)]);
    host.tell(Event::Answer(Answer::Won));
    let off = [Action::ReleaseAll, Action::StopGuest, Action::CloseChannel];
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), off);
    assert_eq!(host.pair.state(), State::Ended);
    // The backup was suspected before.
    let mut host = Host::protected(Role::Primary);
    host.pass(300, None);
    assert_eq!(host.tell(Event::GuestEnded), [Action::StopGuest]);
    assert_eq!(host.tell(Event::GuestEnded), []);
    host.tell(Event::Answer(Answer::Won));
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), off);
    // Ordered before anything runs, but perhaps after the backup knows that it may contend.
    let mut host = Host::new(Role::Primary);
    host.tell(Event::ChannelUp { peer: PEER });
    host.tell(Event::Answer(Answer::Armed));
    assert_eq!(host.tell(Event::Order(Order::PowerOff)), []);
    assert_eq!(host.tell(Event::Armed(3)), [Action::StartGuest, Action::EndLog]);
}

#[test]
fn a_backup_that_has_the_logs_end_does_not_go_live() {
    let mut host = Host::protected(Role::Backup);
    let ended = [Action::StopGuest, Action::SendGoodbye(Why::Ended), Action::CloseChannel];
    assert_eq!(host.clone_pair().tell(Event::LogEnded), ended);
    host.pass(300, None);
    assert_eq!(host.tell(Event::LogEnded), [Action::StopGuest, Action::CloseChannel]);
    assert_eq!(host.tell(Event::Drained { position: 9 }), []);
    assert_eq!(host.pass(10_000, None), []);
}

impl Host {
    fn clone_pair(&self) -> Self {
        Self { pair: self.pair.clone(), now: self.now }
    }
}

#[test]
fn orders_are_the_primarys() {
    let mut host = Host::protected(Role::Primary);
    for order in [Order::Reset, Order::Pause, Order::Resume, Order::PowerButton] {
        assert_eq!(host.tell(Event::Order(order)), [Action::Apply(order)]);
        assert_eq!(host.tell(Event::PeerOrder(order)), [Action::Apply(order)]);
    }
    assert_eq!(host.tell(Event::PeerOrder(Order::PowerOff)), [Action::EndLog]);
    let mut host = Host::protected(Role::Backup);
    for order in Order::ALL {
        assert_eq!(host.tell(Event::Order(order)), [Action::Forward(order)]);
        assert_eq!(host.tell(Event::PeerOrder(order)), [], "it is no echo");
    }
    host.tell(Event::ChannelDown);
    for order in Order::ALL {
        assert_eq!(host.tell(Event::Order(order)), []);
    }
    assert!(host.events().ends_with(&["order-refused"; 5]));
    for role in [Role::Primary, Role::Backup] {
        let off = [Action::StopGuest, Action::CloseChannel];
        assert_eq!(Host::new(role).tell(Event::Order(Order::PowerOff)), off, "alone from the start");
        assert_eq!(Host::new(role).tell(Event::Order(Order::Reset)), []);
    }
}

#[test]
fn a_pause_is_known_to_both_and_is_no_failure() {
    let mut host = Host::protected(Role::Primary);
    assert_eq!(host.tell(Event::Paused(true)), [Action::SendPaused(true)]);
    assert_eq!((host.tell(Event::Paused(true)), host.pair.status()), (vec![], Status::Paused));
    assert_eq!(host.pass(2000, Some(Status::Backup)), []);
    // A connection that was lost may have taken it along.
    host.tell(Event::ChannelDown);
    assert_eq!(host.tell(Event::ChannelUp { peer: PEER }), [Action::SendPaused(true)]);
    assert_eq!(host.tell(Event::Paused(false)), [Action::SendPaused(false)]);
    assert_eq!(host.pair.status(), Status::Primary);

    let mut host = Host::protected(Role::Backup);
    assert_eq!(host.tell(Event::Paused(true)), []);
    assert_eq!(host.pass(2000, Some(Status::Paused)), []);
    assert!(host.pair.is_paused());
    assert_eq!(host.pair.status(), Status::Backup);
    host.pass(300, None);
    host.tell(Event::Drained { position: 0 });
    host.tell(Event::Answer(Answer::Won));
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), [Action::GoLive]);
    assert!(host.pair.is_paused(), "nobody has said that it goes on");
}

#[test]
fn arming_is_repeated_until_both_know() {
    let mut host = Host::new(Role::Primary);
    host.tell(Event::ChannelUp { peer: PEER });
    assert_eq!(host.tell(Event::Armed(3)), [], "not before the arbiter knows");
    assert_eq!(host.tell(Event::Answer(Answer::Unknown)), []);
    assert_eq!(host.pass(100, None), [Action::Ask(ARM)]);
    assert_eq!(host.tell(Event::ChannelDown), []);
    assert_eq!(host.tell(Event::Answer(Answer::Armed)), []);
    assert_eq!(host.tell(Event::ChannelUp { peer: PEER }), [Action::SendArmed { generation: 3 }]);
    // The backup knows, and dies before it says so: it might be live.
    assert_eq!(host.pass(300, None), [Action::CloseChannel, contend(0)]);
    host.tell(Event::Answer(Answer::Won));
    assert_eq!(host.tell(Event::Answer(Answer::Fenced)), [Action::ReleaseAll, Action::StartGuest]);
    let mut host = Host::new(Role::Primary);
    host.tell(Event::ChannelUp { peer: PEER });
    assert_eq!(host.tell(Event::Answer(Answer::Refused))[0], Action::Halt(Halted::Refused));
    // The backup's answer was lost.
    let mut host = Host::protected(Role::Backup);
    assert_eq!(host.tell(Event::Armed(3)), [Action::SendArmed { generation: 3 }]);
    // A backup that knows of nothing has nothing to contend for.
    let mut host = Host::new(Role::Backup);
    host.tell(Event::ChannelUp { peer: PEER });
    assert_eq!(host.pass(10_000, None), []);
    host.tell(Event::ChannelDown);
    assert_eq!(host.pair.state(), State::Joining);
    assert_eq!(host.tell(Event::ChannelUp { peer: Incarnation(5) }), []);
    assert_eq!(host.pair.peer(), Some(Incarnation(5)));
}

#[test]
fn a_backup_that_never_confirms_is_given_up() {
    let mut host = Host::new(Role::Primary);
    host.tell(Event::ChannelUp { peer: PEER });
    host.tell(Event::Answer(Answer::Armed));
    assert_eq!(host.pass(2999, Some(Status::Starting)), []);
    assert_eq!(host.pass(1, Some(Status::Starting)), [Action::CloseChannel, contend(0)]);
}

#[test]
fn trouble_halts() {
    for role in [Role::Primary, Role::Backup] {
        let halted = [Action::Halt(Halted::Trouble), Action::SendGoodbye(Why::Trouble), Action::CloseChannel];
        let mut host = Host::protected(role);
        assert_eq!(host.tell(Event::Trouble), halted);
        assert_eq!(host.tell(Event::Trouble), []);
    }
}
