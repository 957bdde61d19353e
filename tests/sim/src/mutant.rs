//! Planted bugs: what the simulator must notice. They are planted around the product's code, not in it.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The backup acknowledges what the primary says that it has sent.
    AckBeforeReceipt,
    /// The backup goes live without executing the rest of what it has received.
    LiveBeforeLast,
    /// The primary releases the first output that is not acknowledged yet, too.
    ReleaseEarly,
    /// Whoever suspects its peer believes that it has won.
    NoArbitration,
    /// An answer that never came is taken for a victory.
    UnknownIsWon,
    /// The loser goes on.
    LoserGoesOn,
    /// The virtual machine is switched off without telling the backup.
    SilentEnd,
    /// The backup drops what it has not been told was sent.
    ForgetOutputs,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeReceipt,
        Self::LiveBeforeLast,
        Self::ReleaseEarly,
        Self::NoArbitration,
        Self::UnknownIsWon,
        Self::LoserGoesOn,
        Self::SilentEnd,
        Self::ForgetOutputs,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeReceipt => "ack-before-receipt",
            Self::LiveBeforeLast => "live-before-last",
            Self::ReleaseEarly => "release-early",
            Self::NoArbitration => "no-arbitration",
            Self::UnknownIsWon => "unknown-is-won",
            Self::LoserGoesOn => "loser-goes-on",
            Self::SilentEnd => "silent-end",
            Self::ForgetOutputs => "forget-outputs",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}
