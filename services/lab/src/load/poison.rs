//! Which requests of a load are poison: as many as wanted, spread by a seed.

/// Says of one request after the other whether it is poison: as many as wanted, spread by the seed, in no memory.
#[derive(Debug, Clone)]
pub struct Poison {
    state: u64,
    /// Still to be chosen, and to choose from.
    wanted: u64,
    left: u64,
}

impl Poison {
    /// `wanted` of `count`.
    pub fn new(seed: u64, wanted: u64, count: u64) -> Self {
        Self {
            state: seed,
            wanted,
            left: count,
        }
    }

    /// Whether the next request is poison: each choice of `wanted` out of `count` is as likely as any other.
    pub fn takes_next(&mut self) -> bool {
        if self.wanted == 0 || self.left == 0 {
            return false;
        }
        let chosen = self.random() % self.left < self.wanted;
        self.left -= 1;
        self.wanted -= u64::from(chosen);
        chosen
    }

    /// `SplitMix64`: written out, so that a seed means the same for ever.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison_is_as_many_as_wanted_and_spread_by_the_seed() {
        let chosen = |seed, wanted, count: u64| -> Vec<u64> {
            let mut poison = Poison::new(seed, wanted, count);
            (0..count).filter(|_| poison.takes_next()).collect()
        };
        for seed in 0..50 {
            assert_eq!(chosen(seed, 7, 100).len(), 7);
        }
        assert_eq!(chosen(1, 7, 100), chosen(1, 7, 100));
        assert_ne!(chosen(1, 7, 100), chosen(2, 7, 100));
        assert_eq!(chosen(1, 100, 100).len(), 100);
        assert!(chosen(1, 0, 100).is_empty());
        // not all at one end
        let many = chosen(3, 1_000, 10_000);
        let first_half = many.iter().filter(|number| **number < 5_000).count();
        assert!((400..600).contains(&first_half), "{first_half}");
        // the same for ever: a seed stands in reports
        assert_eq!(chosen(42, 3, 100), FIXED);
    }

    const FIXED: [u64; 3] = [21, 93, 99];
}
