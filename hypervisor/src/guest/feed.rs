//! Where a guest that is led through a log has the log from: a file that is there whole, or the logging channel.

use replay::log::entry::Entry;
use replay::log::error::Error;
use replay::log::open::Entries;
use replay::log::stream::Stream;
use replay::replayer::{Replayer, Source};

/// The replayer of a log of either kind.
pub type Follower = Replayer<'static, Feed>;

/// The log of a guest that is led.
pub enum Feed {
    /// All of it.
    File(Entries<'static>),
    /// What the primary has sent so far.
    Channel(Stream<'static>),
}

impl Source<'static> for Feed {
    type Error = Error;

    fn next(&mut self) -> Result<Option<Entry<'static>>, Error> {
        match self {
            Self::File(entries) => Source::next(entries),
            Self::Channel(stream) => stream.next(),
        }
    }
}

impl Feed {
    /// The position in a file. The channel has none to go back to.
    pub fn place(&self) -> Option<Entries<'static>> {
        match self {
            Self::File(entries) => Some(entries.clone()),
            Self::Channel(_) => None,
        }
    }

    /// What arrives on the logging channel, if the log comes from there.
    pub const fn channel(&mut self) -> Option<&mut Stream<'static>> {
        match self {
            Self::File(_) => None,
            Self::Channel(stream) => Some(stream),
        }
    }
}

/// The entries of a file from the one that comes next on; of the channel that one alone.
pub fn ahead(follower: &Follower) -> impl Iterator<Item = Entry<'static>> + use<> {
    follower.upcoming().copied().into_iter().chain(follower.source().place().into_iter().flatten())
}
