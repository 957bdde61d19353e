//! A log in memory, as the replayer reads it.

use replay::log::entry::Entry;
use replay::log::open::{Entries, LogError};
use replay::replayer::Source;

/// A log that the loader has brought as a module. A clone of it is a position.
#[derive(Clone)]
pub struct LogSource(pub Entries<'static>);

impl Source<'static> for LogSource {
    type Error = LogError;

    fn next(&mut self) -> Result<Option<Entry<'static>>, LogError> {
        self.0.next().transpose()
    }
}
