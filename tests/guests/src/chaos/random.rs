//! The campaign's random numbers: a function of the seed alone, with a liking for the values at which things break.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed, in this stream.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// One time in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these; the default where there is none.
    pub fn pick<T: Copy + Default>(&mut self, of: &[T]) -> T {
        of.get(self.below(of.len() as u64) as usize).copied().unwrap_or_default()
    }

    /// A value: small, a power of two, next to one, all ones, or anything.
    pub fn value(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(8) {
            0 => self.below(16),
            1 => power,
            2 => power.wrapping_sub(1),
            3 => power.wrapping_neg(),
            4 => self.pick(&[
                0,
                u64::MAX,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                1 << 47,
                0xffff_8000_0000_0000,
            ]),
            5 => self.bits() & 0xffff_ffff,
            _ => self.bits(),
        }
    }

    /// A guest-physical (and linear, one to one) address: device pages, memory's edges, the code's data, anything below
    /// 4 GiB, anything at all.
    pub fn address(&mut self) -> u64 {
        let at = match self.below(10) {
            0 => 0xfee0_0000 + self.below(0x1000),
            1 => 0xfec0_0000 + self.pick(&[0, 0x10, 0x20, 0x40]),
            2 => 0xe000_0000 + self.below(0x40_0000),
            3 => self.pick(&[
                0xa_0000,
                0xc_0000,
                0xf_0000,
                0xf_ffff,
                0x200_0000,
                0x1ff_ffff,
                0xffff_fff0,
                0xfee0_0ffc,
            ]),
            4 => self.below(1 << 32),
            5 => self.value(),
            6 => 0xfee0_0000 + 16 * self.below(64),
            _ => super::code::scratch() + self.below(0x7000),
        };
        if self.one_in(3) { at & !7 } else { at }
    }

    /// A port: devices more often than nothing. Never the port that switches the machine off.
    pub fn port(&mut self) -> u16 {
        const DEVICES: [u16; 26] = [
            0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x60, 0x70, 0x71, 0x80, 0x3f8, 0x402,
            0x4d0, 0x4d1, 0x510, 0x511, 0x514, 0x518, 0x600, 0x608, 0xcf8, 0xcfc, 0x1000,
        ];
        let port = match self.below(8) {
            0 => self.bits() as u16,
            1 => 0x3f8 + self.below(8) as u16,
            2 => 0xcf8 + self.below(8) as u16,
            3 => 0x1000 + self.below(0x200) as u16,
            _ => self.pick(&DEVICES).wrapping_add(self.below(3) as u16),
        };
        match port {
            0x601..=0x605 => 0x600,
            // The watchdog's own devices, now and then only.
            0x40..=0x43 | 0x70 | 0x71 if !self.one_in(8) => port + 0x100,
            _ => port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_seed_is_all_that_matters_and_the_streams_differ() {
        let first = |seed, stream| Random::new(seed, stream).bits();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }

    #[test]
    fn no_port_switches_the_machine_off() {
        let mut random = Random::new(1, 1);
        assert!((0..100_000).all(|_| !(0x601..=0x605).contains(&random.port())));
    }
}
