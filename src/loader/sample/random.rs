//! Random numbers that are the same everywhere and in every version.

/// Ranks with a probability proportional to 1 / (rank + 2), computed with integers only.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// Sum of the weights up to and including each rank.
    pub(super) sums: Vec<u64>,
}

impl Zipf {
    pub(super) fn new(ranks: u64) -> Self {
        let mut sum = 0;
        let sums = (0..ranks).map(|rank| {
            sum += (1 << 40) / (rank + 2);
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(super) fn draw(&self, random: &mut SplitMix64) -> u64 {
        let point = random.below(*self.sums.last().expect("at least one rank"));
        self.sums.partition_point(|sum| *sum <= point) as u64
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): eight lines, one fixed algorithm. A generator of the `rand` crate may
/// give other numbers in another version.
#[derive(Debug, Clone)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1. The bias of at most `bound` / 2^64 does not matter here.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    pub(super) const fn below_i64(&mut self, bound: i64) -> i64 {
        self.below(bound as u64) as i64
    }

    pub(super) const fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    /// A position in a list, more often near the front.
    pub(super) fn skewed(&mut self, length: usize) -> usize {
        let bound = 1 + self.below(length as u64);
        self.below(bound) as usize
    }

    /// Votes: most get few, some get thousands, one in twelve comments is voted down.
    pub(super) fn upvotes(&mut self, post: bool) -> i64 {
        if self.one_in(if post { 40 } else { 12 }) {
            return -self.below_i64(30);
        }
        let magnitude = self.below(if post { 12 } else { 9 });
        self.below_i64(2 << magnitude) + 1
    }
}
