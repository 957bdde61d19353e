//! Failure detection: how long nothing authentic was heard of the peer, on each path and on the channel.

use crate::side::{PATHS, Path};

/// When the peer was heard last, nanoseconds of this host's clock.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    paths: [u64; PATHS],
    channel: u64,
}

impl Silence {
    /// As if everything had been heard just now.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { paths: [now; PATHS], channel: now }
    }

    /// A heartbeat came on this path.
    pub fn heard(&mut self, path: Path, now: u64) {
        let last = &mut self.paths[path.index()];
        *last = now.max(*last);
    }

    /// Something authentic came on the channel.
    pub fn heard_on_channel(&mut self, now: u64) {
        self.channel = now.max(self.channel);
    }

    /// When anything was heard last, nanoseconds.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.paths.iter().fold(self.channel, |last, path| last.max(*path))
    }

    /// When something was heard on this path last, nanoseconds.
    #[must_use]
    pub fn last_on(&self, path: Path) -> u64 {
        self.paths[path.index()]
    }

    /// How long nothing at all was heard, nanoseconds.
    #[must_use]
    pub fn silent_for(&self, now: u64) -> u64 {
        now.saturating_sub(self.last())
    }
}

/// Sees that this host's own clock has jumped: that the host stood still. What it has not heard meanwhile proves nothing, so it
/// has to look at what has arrived before it judges.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// Longer than this between two looks at the clock is a jump, nanoseconds.
    jump: u64,
    /// How long a grace lasts, nanoseconds.
    length: u64,
    last: Option<u64>,
    until: Option<u64>,
}

impl Grace {
    /// Jumps are longer than `jump`, and give `length` of grace, both in nanoseconds.
    #[must_use]
    pub const fn new(jump: u64, length: u64) -> Self {
        Self { jump, length, last: None, until: None }
    }

    /// Looks at the clock. Gives by how much it has jumped, if it has.
    pub fn look(&mut self, now: u64) -> Option<u64> {
        let passed = now.saturating_sub(self.last.replace(now).unwrap_or(now));
        if passed <= self.jump {
            return None;
        }
        self.until = Some(now.saturating_add(self.length));
        Some(passed)
    }

    /// Ends the grace if it is over. To be called when all that has arrived was dealt with.
    pub fn settle(&mut self, now: u64) {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
        }
    }

    /// When the grace ends, nanoseconds; `None`: there is none.
    #[must_use]
    pub const fn until(&self) -> Option<u64> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_is_enough() {
        let mut silence = Silence::new(100);
        silence.heard(Path::Guest, 500);
        assert_eq!((silence.silent_for(600), silence.last_on(Path::Logging)), (100, 100));
        silence.heard_on_channel(550);
        silence.heard(Path::Guest, 400);
        assert_eq!((silence.silent_for(600), silence.last_on(Path::Guest)), (50, 500));
        assert_eq!(silence.silent_for(10), 0);
    }

    #[test]
    fn a_jump_gives_grace_until_it_is_settled() {
        let mut grace = Grace::new(300, 50);
        assert_eq!((grace.look(5000), grace.look(5300), grace.until()), (None, None, None));
        assert_eq!((grace.look(5601), grace.until()), (Some(301), Some(5651)));
        grace.settle(5650);
        assert!(grace.until().is_some());
        assert_eq!(grace.look(5651), None);
        grace.settle(5651);
        assert_eq!(grace.until(), None);
    }
}
