//! What the outside world sees of the virtual machine, and whether one execution explains it.

use toy::machine::Packet;

/// The history of a virtual machine, as the packets that have left it tell it.
#[derive(Debug, Default)]
pub struct Observer {
    /// The sums of packets 1, 2, ... and which host sent each first.
    seen: Vec<(u64, usize)>,
    /// Packets that came more than once.
    doubled: u64,
}

/// Why no single execution explains what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absurd {
    /// A packet says something else than one of the same number did.
    Contradiction {
        /// Its number.
        number: u64,
        /// The host that sent it now.
        host: usize,
        /// The host that sent it first.
        first: usize,
    },
    /// A packet comes before the one before it.
    Gap {
        /// Its number.
        number: u64,
        /// What should have come.
        expected: u64,
        /// The host that sent it.
        host: usize,
    },
    /// A host sends a packet a second time.
    Stutter {
        /// Its number.
        number: u64,
        /// The host.
        host: usize,
    },
}

impl Observer {
    /// A packet leaves a host.
    ///
    /// # Errors
    /// It does not fit what was seen before.
    pub fn see(&mut self, host: usize, packet: Packet) -> Result<(), Absurd> {
        let Packet { number, sum } = packet;
        let expected = self.seen.len() as u64 + 1;
        if number == expected {
            self.seen.push((sum, host));
            return Ok(());
        }
        let Some((known, first)) = self.seen.get(number.wrapping_sub(1) as usize) else {
            return Err(Absurd::Gap { number, expected, host });
        };
        if *known != sum {
            return Err(Absurd::Contradiction { number, host, first: *first });
        }
        if *first == host {
            return Err(Absurd::Stutter { number, host });
        }
        self.doubled += 1;
        Ok(())
    }

    /// How many different packets were seen.
    pub const fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// How many came twice.
    pub const fn doubled(&self) -> u64 {
        self.doubled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_execution_or_not() {
        let mut observer = Observer::default();
        let packet = |number| Packet { number, sum: number * 3 };
        for number in 1..5 {
            observer.see(0, packet(number)).unwrap();
        }
        observer.see(1, packet(4)).unwrap();
        observer.see(1, packet(5)).unwrap();
        assert_eq!(observer.see(1, packet(7)), Err(Absurd::Gap { number: 7, expected: 6, host: 1 }));
        let other = Packet { number: 2, sum: 1 };
        assert_eq!(observer.see(1, other), Err(Absurd::Contradiction { number: 2, host: 1, first: 0 }));
        assert_eq!(observer.see(1, packet(5)), Err(Absurd::Stutter { number: 5, host: 1 }));
        assert_eq!((observer.count(), observer.doubled()), (5, 1));
    }
}
