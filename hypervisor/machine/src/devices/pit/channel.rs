//! One counter of the 8254: its six modes, as functions of the tick of its clock.

use serde::{Deserialize, Serialize};

/// What a counter knows. Ticks are those of the 1.193182 MHz clock since power-on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Mode, 0 to 5.
    pub mode: u8,
    /// Counts in decimal.
    pub bcd: bool,
    /// Which bytes are read and written: 1 low, 2 high, 3 low then high.
    pub access: u8,
    /// A low byte that waits for its high byte.
    pub low: Option<u8>,
    /// The next byte read is the high one.
    pub read_high: bool,
    /// Latched count.
    pub latched: Option<u16>,
    /// Latched status.
    pub latched_status: Option<u8>,
    /// The count that is counted down from.
    pub reload: u32,
    /// A count has been written since the mode was.
    pub loaded: bool,
    /// The tick at which the count was loaded.
    pub start: u64,
    /// In modes 1 and 5: the gate has triggered.
    pub triggered: bool,
    /// A count that is loaded at this tick, or by the next trigger.
    pub next: Option<(u32, u64)>,
    /// The gate's level.
    pub gate: bool,
    /// Ticks counted when the gate stopped the counter.
    pub stopped: Option<u64>,
    /// Up to which tick the edges are counted.
    pub seen: u64,
    /// Rising edges of the output that nobody has asked for yet.
    pub edges: u32,
}

/// Edges that come closer than this are announced together, ticks (10 µs): more interrupts than that no guest can take.
const TOGETHER: u64 = 12;

impl State {
    pub(super) const fn new(gate: bool) -> Self {
        Self {
            // Nothing has chosen a mode yet: one in which the output is high.
            mode: 3,
            bcd: false,
            access: 3,
            low: None,
            read_high: false,
            latched: None,
            latched_status: None,
            reload: 0x1_0000,
            loaded: false,
            start: 0,
            triggered: false,
            next: None,
            gate,
            stopped: None,
            seen: 0,
            edges: 0,
        }
    }

    /// Whether no access could have left this behind.
    pub(super) fn is_bad(&self) -> bool {
        let bad_count = |count: u32| !(1..=0x1_0000).contains(&count);
        let modes_with_next = matches!(self.mode, 1 | 2 | 3 | 5);
        self.mode > 5
            || !(1..=3).contains(&self.access)
            || bad_count(self.reload)
            || self.next.is_some_and(|(count, _)| bad_count(count) || !modes_with_next)
    }

    /// Ticks of a period in modes 2 and 3; a count of 1 is illegal there.
    fn period(&self) -> u64 {
        u64::from(self.reload.max(2))
    }

    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// Waits for the gate's rising edge.
    fn by_trigger(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Ticks counted since the count was loaded.
    fn elapsed(&self, tick: u64) -> u64 {
        self.stopped.unwrap_or_else(|| tick.saturating_sub(self.start))
    }

    fn counting(&self) -> bool {
        self.loaded && (!self.by_trigger() || self.triggered)
    }

    /// The level of the output.
    pub(super) fn out(&self, tick: u64) -> bool {
        if !self.counting() {
            return self.mode != 0;
        }
        let (elapsed, count) = (self.elapsed(tick), u64::from(self.reload));
        match self.mode {
            0 | 1 => elapsed >= count,
            2 | 3 if !self.gate => true,
            2 => elapsed % self.period() != self.period() - 1,
            3 => elapsed % self.period() < self.period().div_ceil(2),
            _ => elapsed != count,
        }
    }

    /// What the counter reads as.
    fn count(&self, tick: u64) -> u16 {
        let modulus = if self.bcd { 10_000 } else { 0x1_0000 };
        let count = if !self.counting() {
            u64::from(self.reload) % modulus
        } else {
            let elapsed = self.elapsed(tick);
            match self.mode {
                2 => (self.period() - elapsed % self.period()) % modulus,
                3 => {
                    let half = self.period().div_ceil(2);
                    let phase = elapsed % self.period();
                    let phase = if phase < half { phase } else { phase - half };
                    ((self.period() & !1) - 2 * phase) % modulus
                }
                _ => (u64::from(self.reload) + modulus - elapsed % modulus) % modulus,
            }
        };
        if self.bcd { to_bcd(count as u16) } else { count as u16 }
    }

    /// Brings edges and a count that was to be loaded up to this tick.
    pub(super) fn sync(&mut self, tick: u64) {
        if let Some((count, at)) = self.next
            && tick >= at
        {
            self.count_edges(at);
            (self.reload, self.start, self.next) = (count, at, None);
        }
        self.count_edges(tick);
    }

    fn count_edges(&mut self, tick: u64) {
        if tick <= self.seen {
            return;
        }
        let from = core::mem::replace(&mut self.seen, tick);
        if !self.counting() || self.stopped.is_some() {
            return;
        }
        let (from, to) = (from.saturating_sub(self.start), tick.saturating_sub(self.start));
        let passed = |at: u64| u64::from(from < at && to >= at);
        let count = u64::from(self.reload);
        let edges = match self.mode {
            0 | 1 => passed(count),
            2 | 3 => to / self.period() - from / self.period(),
            _ => passed(count + 1),
        };
        self.edges = self.edges.saturating_add(u32::try_from(edges).unwrap_or(u32::MAX));
    }

    /// The tick of the next rising edge that is to be told, after the last one synchronised.
    pub(super) fn next_edge(&self) -> Option<u64> {
        if self.edges != 0 {
            return Some(self.seen);
        }
        if !self.counting() || self.stopped.is_some() {
            return None;
        }
        let elapsed = self.elapsed(self.seen);
        let count = u64::from(self.reload);
        let after = match self.mode {
            0 | 1 => (elapsed < count).then_some(count),
            2 | 3 => {
                let group = self.period() * TOGETHER.div_ceil(self.period());
                Some((elapsed / group + 1).saturating_mul(group))
            }
            _ => (elapsed <= count).then_some(count + 1),
        }?;
        let edge = self.start.saturating_add(after);
        Some(self.next.map_or(edge, |(_, at)| edge.min(at.max(self.seen.saturating_add(1)))))
    }

    /// Sets mode, access and base.
    pub(super) fn program(&mut self, control: u8, tick: u64) {
        self.sync(tick);
        let was = self.out(tick);
        let mode = control >> 1 & 7;
        // Modes 6 and 7 are 2 and 3.
        self.mode = if mode > 5 { mode - 4 } else { mode };
        self.bcd = control & 1 != 0;
        self.access = control >> 4 & 3;
        (self.low, self.read_high, self.latched, self.latched_status) = (None, false, None, None);
        (self.loaded, self.triggered, self.next, self.stopped) = (false, false, None, None);
        self.edge_since(was, tick);
    }

    fn edge_since(&mut self, was: bool, tick: u64) {
        if !was && self.out(tick) {
            self.edges = self.edges.saturating_add(1);
        }
    }

    pub(super) fn latch_count(&mut self, tick: u64) {
        self.sync(tick);
        if self.latched.is_none() {
            self.latched = Some(self.count(tick));
            self.read_high = false;
        }
    }

    pub(super) fn latch_status(&mut self, tick: u64) {
        self.sync(tick);
        let null = !self.loaded || self.next.is_some() || tick < self.start;
        let status = u8::from(self.out(tick)) << 7 | u8::from(null) << 6;
        let status = status | self.access << 4 | self.mode << 1 | u8::from(self.bcd);
        self.latched_status.get_or_insert(status);
    }

    pub(super) fn read(&mut self, tick: u64) -> u8 {
        self.sync(tick);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or_else(|| self.count(tick)).to_le_bytes();
        let (byte, last) = match self.access {
            1 => (low, true),
            2 => (high, true),
            _ if self.read_high => (high, true),
            _ => (low, false),
        };
        self.read_high = !last;
        if last {
            self.latched = None;
        }
        byte
    }

    pub(super) fn write(&mut self, byte: u8, tick: u64) {
        self.sync(tick);
        let was = self.out(tick);
        match (self.access, self.low) {
            (1, _) => self.load(u16::from(byte), tick),
            (2, _) => self.load(u16::from(byte) << 8, tick),
            (_, Some(low)) => {
                self.low = None;
                self.load(u16::from_le_bytes([low, byte]), tick);
            }
            (_, None) => {
                self.low = Some(byte);
                // In mode 0 the first byte stops the counter.
                self.loaded &= self.mode != 0;
            }
        }
        self.edge_since(was, tick);
    }

    /// A whole count has been written; the clock's next edge loads it, unless it has to wait.
    fn load(&mut self, written: u16, tick: u64) {
        let count = match (self.bcd, written) {
            (false, 0) => 0x1_0000,
            (true, 0) => 10_000,
            (false, count) => u32::from(count),
            (true, digits) => from_bcd(digits),
        };
        let running = self.counting() && self.stopped.is_none();
        if self.periodic() && running && tick >= self.start {
            let periods = self.elapsed(tick) / self.period() + 1;
            self.next = Some((count, self.start.saturating_add(periods.saturating_mul(self.period()))));
            return;
        }
        if self.by_trigger() && self.loaded {
            self.next = Some((count, u64::MAX));
            return;
        }
        self.reload = count;
        self.loaded = true;
        self.start = tick.saturating_add(1);
        self.stopped = (!self.gate && !self.by_trigger()).then_some(0);
    }

    pub(super) fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.sync(tick);
        let was = self.out(tick);
        self.gate = gate;
        match (gate, self.mode) {
            // The gate's rising edge loads the count...
            (true, 1 | 5) => {
                self.triggered = self.loaded;
                self.restart(tick);
            }
            (true, 2 | 3) => self.restart(tick),
            // ...or only lets the counter go on.
            (true, _) => {
                if let Some(elapsed) = self.stopped.take() {
                    self.start = tick.saturating_sub(elapsed);
                }
            }
            (false, 1 | 5) => {}
            (false, _) => self.stopped = self.loaded.then(|| self.elapsed(tick)),
        }
        self.edge_since(was, tick);
    }

    fn restart(&mut self, tick: u64) {
        if let Some((count, _)) = self.next.take() {
            self.reload = count;
        }
        self.stopped = None;
        self.start = tick.saturating_add(1);
    }
}

fn to_bcd(count: u16) -> u16 {
    let digit = |unit: u16, place: u32| (count / unit % 10) << (4 * place);
    digit(1, 0) | digit(10, 1) | digit(100, 2) | digit(1000, 3)
}

/// Digits beyond 9 count as what they are: at most 16665.
fn from_bcd(digits: u16) -> u32 {
    let digit = |place: u32| u32::from(digits >> (4 * place) & 0xf);
    digit(0) + 10 * digit(1) + 100 * digit(2) + 1000 * digit(3)
}
