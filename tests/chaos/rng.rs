//! Random numbers from a seed (SplitMix64): a seed always gives the same sequence. Pure.

/// A pseudo-random number generator.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number from 0 to less than 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with a probability of `chance` percent.
    pub(crate) fn percent(&mut self, chance: f64) -> bool {
        self.fraction() * 100.0 < chance
    }

    pub(crate) fn between(&mut self, least: f64, most: f64) -> f64 {
        least + self.fraction() * (most - least)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// Zipf's distribution over the ranks 0 to `count - 1`: low ranks come more often, like the hot
/// keys of real services.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn of(count: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|rank| 1.0 / rank as f64)
                .map(|share| {
                    sum += share;
                    sum
                })
                .collect(),
        )
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.0.last().copied().unwrap_or(0.0);
        let at = rng.fraction() * total;
        self.0
            .partition_point(|upto| *upto <= at)
            .min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_is_drawn_about_twice_as_often_as_the_second() {
        let (zipf, mut rng) = (Zipf::of(1000), Rng::from_seed(7));
        let mut drawn = vec![0_u32; 1000];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut rng)] += 1;
        }
        let ratio = f64::from(drawn[0]) / f64::from(drawn[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(
            drawn[500..].iter().sum::<u32>() > 5_000,
            "the rare half is also drawn"
        );
    }
}
