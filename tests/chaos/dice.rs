//! Chance from a seed: the same seed, the same run. SplitMix64. Pure.

pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `sides - 1`.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// 0 to less than 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

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

/// Ranks 0 to `count - 1`, the lower the more often, as keys of real services are.
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

    pub(crate) fn draw(&self, dice: &mut Dice) -> usize {
        let total = self.0.last().copied().unwrap_or(0.0);
        let at = dice.fraction() * total;
        self.0
            .partition_point(|upto| *upto <= at)
            .min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_about_twice_as_often_as_the_second() {
        let (zipf, mut dice) = (Zipf::of(1000), Dice::seeded(7));
        let mut drawn = vec![0_u32; 1000];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut dice)] += 1;
        }
        let ratio = f64::from(drawn[0]) / f64::from(drawn[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(
            drawn[500..].iter().sum::<u32>() > 5_000,
            "the rare half is drawn, too"
        );
    }
}
