//! What has happened in a world, or in many.

/// Counts of what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Worlds.
    pub seeds: u64,
    /// Things that have happened in them.
    pub events: u64,
    /// Packets that have left, each counted once.
    pub packets: u64,
    /// Packets that have left twice.
    pub doubled: u64,
    /// Virtual machines that were protected at all.
    pub paired: u64,
    /// Backups that have gone live.
    pub takeovers: u64,
    /// Primaries that have gone on alone.
    pub alone: u64,
    /// Hosts that were told that they have lost.
    pub lost: u64,
    /// Virtual machines that were switched off.
    pub ended: u64,
    /// Pairs that were still pairs at the end.
    pub protected: u64,
    /// Hosts that lost their power.
    pub crashes: u64,
    /// Hosts that stood still.
    pub pauses: u64,
    /// Of both, those in the midst of something.
    pub strikes: u64,
    /// Connections of the channel.
    pub connections: u64,
    /// Worlds with the real channel.
    pub sealed: u64,
    /// Times that a primary's guest stood because the log buffer was full.
    pub full: u64,
}

impl Facts {
    /// Adds those of other worlds.
    pub const fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.packets += other.packets;
        self.doubled += other.doubled;
        self.paired += other.paired;
        self.takeovers += other.takeovers;
        self.alone += other.alone;
        self.lost += other.lost;
        self.ended += other.ended;
        self.protected += other.protected;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.strikes += other.strikes;
        self.connections += other.connections;
        self.sealed += other.sealed;
        self.full += other.full;
    }

    /// Their names and values.
    pub const fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("seeds", self.seeds),
            ("events", self.events),
            ("packets", self.packets),
            ("doubled", self.doubled),
            ("paired", self.paired),
            ("takeovers", self.takeovers),
            ("alone", self.alone),
            ("lost", self.lost),
            ("ended", self.ended),
            ("protected", self.protected),
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("strikes", self.strikes),
            ("connections", self.connections),
            ("sealed", self.sealed),
            ("full", self.full),
        ]
    }
}
