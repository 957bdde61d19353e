//! An operator's orders to the guest of a pair: they are the primary's to follow, wherever they are given, and what they change is
//! known to both hosts.

use super::board::{Board, reason};
use super::operator::Desk;
use super::tape::Tape;
use crate::arch::time;
use crate::duties::{self, HOST};
use crate::shell::system::{Guest, Order, VmState};
use crate::vcpu::Active;
use ft::pair::{Event as PairEvent, Order as PairOrder, Role};

/// Why an order is not followed here.
const NOT_HERE: &str =
    "this host is the backup, and does not reach the primary: give the order on the other host's console";

const fn to_pair(order: Order) -> PairOrder {
    match order {
        Order::Pause => PairOrder::Pause,
        Order::Resume => PairOrder::Resume,
        Order::Reset => PairOrder::Reset,
        Order::PowerButton => PairOrder::PowerButton,
        Order::Kill => PairOrder::PowerOff,
    }
}

const fn from_pair(order: PairOrder) -> Order {
    match order {
        PairOrder::Pause => Order::Pause,
        PairOrder::Resume => Order::Resume,
        PairOrder::Reset => Order::Reset,
        PairOrder::PowerButton => Order::PowerButton,
        PairOrder::PowerOff => Order::Kill,
    }
}

impl Board {
    /// Whether the guest is led by the other host of a pair.
    pub fn is_backup(&self) -> bool {
        matches!(self.tape, Tape::Replaying(_)) && self.pair.is_some()
    }

    /// Gives the primary an order that was given here.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn forward(&mut self, order: Order) -> Result<(), &'static str> {
        let sent = self.with_link(false, |link, ends| link.forward(to_pair(order), ends));
        if sent != Some(true) {
            return Err(NOT_HERE);
        }
        log::info!("pair: {order:?} is the primary's to follow, and was passed on to it");
        Ok(())
    }

    /// An order that was given on the other host waits: it is followed where the terminal's are.
    pub fn note_ordered(&mut self) {
        if let Some(order) = self.pair.as_mut().and_then(|link| link.take_order()) {
            self.ordered = Some(from_pair(order));
            HOST.raise(duties::SERIAL);
        }
    }

    /// Follows an order that was given on the other host. To be called where something can be recorded.
    pub fn obey_peer(&mut self, on: &Active<'_>) {
        if let Some(order) = self.ordered.take() {
            let (exits, cycles) = on.costs();
            if let Err(why) = (Desk { board: self, exits: &exits, cycles: &cycles }).order(order) {
                log::info!("pair: {order:?} was ordered on the other host, and is not done: {why}");
            }
        }
    }

    /// The guest stands still by order, or goes on: the other host has to know.
    pub fn tell_paused(&mut self, paused: bool) {
        self.with_link(false, |link, ends| {
            if link.role() == Role::Primary {
                link.tell(PairEvent::Paused(paused), ends);
            }
        });
    }

    /// While the guest stands still by order: what it has sent leaves when the backup has the log that led to it, which nothing more
    /// follows. Says why the guest cannot go on, if so.
    pub fn serve_paused(&mut self) -> Option<&'static str> {
        if self.outside.is_open() {
            self.cover_outputs(true);
        }
        let mark = self.mark();
        if let (Tape::Recording(recording), Some(_)) = (&mut self.tape, &self.pair) {
            recording.journal_mut().flush(&mark);
        }
        let behind = match &self.tape {
            Tape::Recording(recording) => {
                let logged = recording.journal().bytes().0;
                self.pair.as_ref().is_some_and(|link| link.is_behind(logged))
            }
            _ => false,
        };
        if behind { self.serve_pair() } else { self.pair_due().then(|| self.serve_pair()).flatten() }
    }

    fn pair_due(&self) -> bool {
        self.pair.is_some() && duties::pending() & duties::LOG != 0
    }

    /// The backup has gone live with a guest that stands still by order.
    pub fn keep_paused(&mut self) {
        if self.pair.as_ref().is_some_and(|link| link.is_paused()) {
            log::info!("the guest was paused on the other host: it stands still until `vm resume`");
            self.state = VmState::Paused;
            self.order = Some(Order::Pause);
            self.stop(reason::OPERATOR);
        }
    }

    /// Host time that passes while the guest stands still is none of its own. Returns the time now.
    pub fn stand_since(&mut self, since: u64) -> u64 {
        let now = time::now_ns();
        self.time.stand(now.saturating_sub(since));
        now
    }
}
