//! Any events whatever, in any order: what never happens.

use super::*;
use proptest::prelude::*;

fn any_event() -> impl Strategy<Value = Event> {
    let answers = [
        Answer::Armed,
        Answer::Won,
        Answer::Lost,
        Answer::Free,
        Answer::Fenced,
        Answer::Unknown,
        Answer::Unreachable,
        Answer::Refused,
    ];
    let orders = Order::ALL;
    let whys = [Why::Ended, Why::Refused, Why::Lost, Why::Trouble];
    prop_oneof![
        8 => Just(Event::Tick),
        2 => (0usize..2, 2u64..5, proptest::sample::select(&Status::ALL[..])).prop_map(|(path, generation, status)| {
            Event::Heard { path: Path::ALL[path], generation, status }
        }),
        4 => (90u64..100).prop_map(|peer| Event::ChannelUp { peer: Incarnation(peer.max(98)) }),
        2 => Just(Event::ChannelDown),
        2 => Just(Event::ChannelHeard),
        1 => Just(Event::PeerRestarted),
        4 => (0u64..2000).prop_map(Event::Sent),
        6 => (0u64..2000, 0u64..2000).prop_map(|(received, executed)| {
            Event::Acked(Ack { received, executed, executed_ns: executed })
        }),
        4 => (2u64..5).prop_map(Event::Armed),
        3 => (0u64..2000).prop_map(|position| Event::Drained { position }),
        1 => Just(Event::LogEnded),
        1 => Just(Event::GuestEnded),
        1 => (0u64..2000).prop_map(Event::LogClosed),
        2 => proptest::sample::select(orders.to_vec()).prop_map(Event::Order),
        1 => proptest::sample::select(orders.to_vec()).prop_map(Event::PeerOrder),
        1 => any::<bool>().prop_map(Event::Paused),
        12 => proptest::sample::select(answers.to_vec()).prop_map(Event::Answer),
        1 => proptest::sample::select(whys.to_vec()).prop_map(Event::Goodbye),
        1 => Just(Event::Trouble),
    ]
}

/// What has come in and gone out so far.
#[derive(Default)]
struct Seen {
    asked: Option<Ask>,
    won: bool,
    fenced: bool,
    sent: u64,
    acked: u64,
    released: u64,
    started: bool,
    live: bool,
    all: bool,
    over: bool,
    log_ended: bool,
}

impl Seen {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Sent(position) | Event::LogClosed(position) => self.sent = self.sent.max(position),
            Event::Acked(ack) if ack.received <= self.sent => self.acked = self.acked.max(ack.received),
            // The backup says that it has executed the log's end.
            Event::Heard { status: Status::Ended, .. } | Event::Goodbye(Why::Ended) => self.acked = self.sent,
            Event::LogEnded => self.log_ended = true,
            Event::Answer(answer) => match (self.asked.take(), answer) {
                (Some(Ask::Contend { .. } | Ask::ReadBack { .. }), Answer::Won) => self.won = true,
                (Some(Ask::Fence { .. }), Answer::Fenced) => self.fenced = self.won,
                _ => {}
            },
            _ => {}
        }
    }

    fn action(&mut self, action: &Action, role: Role) {
        let quiet = matches!(action, Action::SendBeat { .. } | Action::Note(_));
        let leaving = matches!(action, Action::SendGoodbye(_) | Action::CloseChannel);
        assert!(!self.over || quiet || leaving, "{action:?} after the end");
        match *action {
            Action::Ask(ask) => {
                assert!(ask.generation() == 3 && !self.fenced);
                assert!(role == Role::Primary || !matches!(ask, Ask::Arm { .. }));
                assert_eq!(matches!(ask, Ask::Fence { .. }), self.won, "{ask}");
                self.asked = Some(ask);
            }
            Action::StartGuest => assert!(!core::mem::replace(&mut self.started, true)),
            Action::ReleaseTo(position) => {
                assert!(role == Role::Primary && !self.live && !self.all && !self.won);
                assert!(position <= self.acked && position > self.released, "{position}");
                self.released = position;
            }
            Action::ReleaseAll => {
                assert!(self.fenced && role == Role::Primary);
                assert!(!core::mem::replace(&mut self.all, true));
            }
            Action::GoLive => {
                assert!(self.fenced && role == Role::Backup && self.started);
                assert!(!core::mem::replace(&mut self.live, true));
            }
            Action::Drain => assert!(role == Role::Backup && self.started),
            Action::EndLog => assert!(role == Role::Primary && self.started && !self.all),
            Action::Halt(_) => self.over = true,
            Action::StopGuest => {}
            Action::Apply(order) => {
                assert!(order != Order::PowerOff && self.started && (role == Role::Primary || self.live));
            }
            Action::Forward(_) => assert!(role == Role::Backup && self.started && !self.live),
            Action::SendPaused(_) => assert!(role == Role::Primary),
            Action::SendArmed { .. }
            | Action::SendBeat { .. }
            | Action::SendGoodbye(_)
            | Action::CloseChannel
            | Action::Note(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_forbidden_is_done(
        primary: bool,
        begin in 0usize..4,
        steps in proptest::collection::vec((any_event(), prop_oneof![4 => 0u64..60, 1 => 0u64..4000]), 1..60),
    ) {
        let role = if primary { Role::Primary } else { Role::Backup };
        let mut pair = Pair::new(settings(role), 0);
        let (mut seen, mut now) = (Seen::default(), 0);
        // Most runs begin well: else few would come far.
        let start = [
            Event::ChannelUp { peer: PEER },
            if primary { Event::Answer(Answer::Armed) } else { Event::Armed(3) },
            Event::Armed(3),
        ];
        let steps = start.into_iter().take(begin).map(|event| (event, 1)).chain(steps);
        for (event, ms) in steps {
            now += ms * MS;
            let was = pair.state();
            seen.event(&event);
            let mut count = 0;
            pair.step(event, now, &mut |action| {
                seen.action(&action, role);
                count += 1;
            });
            prop_assert!(count <= 16, "bounded");
            let state = pair.state();
            // What is decided stays.
            match was {
                State::Halted(_) | State::Ended => prop_assert_eq!(state, was),
                State::Solo => prop_assert!(matches!(state, State::Solo | State::Ended | State::Halted(Halted::Trouble))),
                State::Arbitrating | State::Draining => prop_assert!(!matches!(state, State::Protected | State::Ending)),
                _ => {}
            }
            if state == State::Ended {
                seen.over = true;
            }
            prop_assert!(!(seen.log_ended && seen.live && was == State::Draining));
            prop_assert_eq!(state == State::Solo && seen.over, false);
            if event == Event::Tick {
                let next = pair.next_deadline();
                prop_assert!(next.is_some_and(|at| at > now && at <= now + 50 * MS), "{next:?} at {now} in {state}");
            }
        }
    }
}
