//! The virtual machine of a pair before it runs: the two hosts find each other, and the backup learns how the primary's begins.

use super::build::{BuildError, Plan};
use super::feed::Feed;
use super::held::Holder;
use super::journal::{Journal, Outlet};
use super::outside::Outside;
use super::recording::Recording;
use super::replaying::Replaying;
use super::tape::Tape;
use super::time::GuestTime;
use crate::arch::crc::Crc32;
use crate::arch::physical::Pages;
use crate::arch::{alarm, time};
use crate::duties::{self, HOST};
use crate::memory::OutOfFrames;
use crate::options::Options;
use crate::pair::{self, Ends, Link, Request, Shared};
use crate::proof;
use crate::vmm::vm::{Vm, VmError};
use alloc::boxed::Box;
use ft::pair::{Role, State};
use hal::MacAddress;
use replay::log::stream::{Stream, WORKING_BYTES};
use replay::replayer::Replayer;

/// Bytes of the log that the backup has and has not executed, at most.
const BACKLOG: usize = 8 << 20;

/// The peer is looked for at least as often, nanoseconds.
const LOOK_NS: u64 = 5_000_000;

/// How often it is said that the peer is not there, nanoseconds.
const SAY_NS: u64 = 10_000_000_000;

impl Plan {
    /// The link to the other host, if the configuration has a pair. It has not found its peer yet.
    ///
    /// # Errors
    /// This host cannot be one of a pair.
    pub fn link(
        &self,
        outside: &mut Outside,
        options: &Options<'_>,
    ) -> Result<Option<Box<Link>>, BuildError> {
        let Some(pair) = &self.config.pair else { return Ok(None) };
        let modules = self.modules()?;
        let shared = outside.bridges.iter_mut().flatten().enumerate().find_map(|(number, bridge)| {
            let guest = bridge.guest();
            bridge.host_half().map(|half| Shared { half, guest, is_first: number == 0 })
        });
        let request = Request {
            pair,
            side: options.host,
            profile: self.profile,
            config: self.text,
            modules: &modules,
            guest_card: outside.first_card().map(|card| card.mac()),
        };
        pair::open(&request, shared).map(Some).map_err(BuildError::Pair)
    }

    /// Finds the peer, and gives what becomes of the log.
    ///
    /// # Errors
    /// The two do not come together, or this host cannot record.
    pub fn join(
        &mut self,
        link: &mut Link,
        vm: &mut Vm,
        outside: &mut Outside,
        time: &mut GuestTime,
        options: &Options<'static>,
    ) -> Result<Tape, BuildError> {
        let margin = proof::report().and_then(|found| found.report.margin_instructions.ok());
        let margin = margin.filter(|_| time.is_exact()).ok_or(BuildError::NotProven)?;
        alarm::init();
        let tape = match link.role() {
            Role::Primary => self.join_as_primary(link, vm, outside, time)?,
            Role::Backup => self.join_as_backup(link, vm, outside, time, margin, options)?,
        };
        // What the cards have raised meanwhile was not looked at.
        HOST.raise(duties::NETWORK | duties::SERIAL | duties::LOG);
        Ok(tape)
    }

    fn macs(&self) -> impl Iterator<Item = MacAddress> {
        self.config.networks.iter().map(|network| MacAddress(network.mac.0))
    }

    fn join_as_primary(
        &self,
        link: &mut Link,
        vm: &mut Vm,
        outside: &mut Outside,
        time: &GuestTime,
    ) -> Result<Tape, BuildError> {
        let Some(pair) = &self.config.pair else { return Ok(Tape::Off) };
        let crc = Crc32::find().ok_or(BuildError::NoCrc32)?;
        let header = self.header(pair.paging, pair.checkpoint, time.clock().rate)?;
        let digest = self.digest(vm, header.paging, header.checkpoint)?;
        let mut journal = Journal::new(&header, Outlet::Pair)?;
        serve_until(link, Some(&mut journal), None, |link, _| link.has_started())?;
        if link.state() == State::Solo {
            // The backup was lost at the last moment.
            return Ok(Tape::Off);
        }
        outside.hold(Holder::Primary, self.macs()).map_err(no_memory)?;
        Ok(Tape::Recording(Box::new(Recording::new(crc, journal, digest, pair.checkpoint))))
    }

    fn join_as_backup(
        &mut self,
        link: &mut Link,
        vm: &mut Vm,
        outside: &mut Outside,
        time: &mut GuestTime,
        margin: u64,
        options: &Options<'static>,
    ) -> Result<Tape, BuildError> {
        let crc = Crc32::find().ok_or(BuildError::NoCrc32)?;
        let memory = |bytes| Pages::for_good(bytes).map_err(no_memory);
        let mut stream = Stream::new(memory(BACKLOG)?, memory(WORKING_BYTES)?).expect("it is large enough");
        let mut rate = None;
        loop {
            if rate.is_none()
                && let Some(header) = stream.header()?
            {
                rate = Some(header.rate);
                (self.seed, self.wall_clock) = (header.seed, header.wall_clock);
            }
            if rate.is_some() && link.has_started() {
                break;
            }
            let before = stream.received();
            serve_until(link, None, Some(&mut stream), |link, stream| {
                link.has_started() && rate.is_some()
                    || stream.is_some_and(|stream| stream.received() != before)
            })?;
        }
        time.set_first_rate(rate.unwrap_or_default());
        let pair = self.config.pair.as_ref();
        let (paging, checkpoint) = pair.map(|pair| (pair.paging, pair.checkpoint)).unwrap_or_default();
        let digest = self.digest(vm, super::build::described_paging(paging), checkpoint)?;
        let replayer = Replayer::new(Feed::Channel(stream), margin)?;
        outside.hold(Holder::Backup, self.macs()).map_err(no_memory)?;
        Ok(Tape::Replaying(Box::new(Replaying::new(crc, replayer, digest, options.replay))))
    }
}

const fn no_memory(error: OutOfFrames) -> BuildError {
    BuildError::Memory(VmError::Memory(error))
}

/// Serves the link until it is enough.
fn serve_until(
    link: &mut Link,
    mut journal: Option<&mut Journal>,
    mut stream: Option<&mut Stream<'static>>,
    enough: impl Fn(&Link, Option<&Stream<'static>>) -> bool,
) -> Result<(), BuildError> {
    let mut say = time::now_ns().saturating_add(SAY_NS);
    loop {
        duties::take(!0);
        link.refill();
        link.serve(&mut Ends {
            journal: journal.as_deref_mut(),
            stream: stream.as_deref_mut(),
            ..Ends::nothing()
        });
        if let Some(why) = link.halted() {
            return Err(BuildError::PairHalted(why));
        }
        if enough(link, stream.as_deref()) {
            return Ok(());
        }
        let now = time::now_ns();
        if now >= say && link.state() == State::Joining {
            log::info!("pair: the other host is not there yet");
            say = now.saturating_add(SAY_NS);
        }
        time::wait_for_interrupt(duties::ALL, Some(now + LOOK_NS));
    }
}
