//! Frequencies of words, trigrams, beginnings and ends among the names of the database, from a sample.
//!
//! A rare part of a name is the cheap access to the trigram index, and a rare beginning or end the cheap access to an
//! ordered one; neither needs exact numbers. The sample also gives the frequency of words, which is good enough for
//! single names. Whole inputs ([`Names`](super::Names)) are decided without a sample: all names are counted.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::range::Range;
use super::score::WordCounts;
use super::text::{trigram, trigram_words};

/// Counts of a sample.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    /// Number of names in the sample.
    sampled: usize,
    /// Number of names in the database for each name in the sample.
    scale: f64,
    pub(crate) words: WordCounts,
    trigrams: HashMap<u64, u32, RandomState>,
    /// The sorted sample, and the sorted sample with each name reversed.
    names: Vec<Box<str>>,
    backwards: Vec<Box<str>>,
}

impl Corpus {
    /// Counts a sample of `names` from a table of about `rows`.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>, rows: f64) -> Self {
        let mut corpus = Self::default();
        for name in names {
            corpus.sampled += 1;
            corpus.words.add(name);
            corpus.names.push(name.into());
            corpus.backwards.push(name.chars().rev().collect());
            let mut trigrams: Vec<u64> =
                trigram_words(name).iter().flat_map(|word| word.windows(3).map(trigram)).collect();
            trigrams.sort_unstable();
            trigrams.dedup();
            for trigram in trigrams {
                *corpus.trigrams.entry(trigram).or_default() += 1;
            }
        }
        corpus.names.sort_unstable();
        corpus.backwards.sort_unstable();
        corpus.scale = (rows / corpus.sampled.max(1) as f64).max(1.0);
        corpus
    }

    /// Approximate number of names with a trigram.
    pub(crate) fn rows_with(&self, trigram: u64) -> f64 {
        // A trigram that is missing from the sample may still exist.
        let seen = self.trigrams.get(&trigram).map_or(0.3, |seen| f64::from(*seen));
        seen * self.scale
    }

    /// Approximate number of names in a range.
    pub(crate) fn names_in(&self, range: &Range) -> f64 {
        self.scale * count(&self.names, range)
    }

    /// Approximate number of names that are in a range when reversed.
    pub(crate) fn names_in_backwards(&self, range: &Range) -> f64 {
        self.scale * count(&self.backwards, range)
    }

    /// Approximate number of names.
    pub(crate) fn rows(&self) -> f64 {
        self.sampled as f64 * self.scale
    }
}

fn count(sorted: &[Box<str>], range: &Range) -> f64 {
    let below = |bound: &str| sorted.partition_point(|name| **name < *bound);
    (below(&range.high) - below(&range.low)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_scaled_to_the_rows_of_the_table() {
        let corpus = Corpus::new(["abcd", "abxy"], 2_000.0);
        let rows = |text: &str| corpus.rows_with(trigram(&text.chars().collect::<Vec<_>>()));
        assert!((rows("abc") - 1_000.0).abs() < 1.0);
        assert!(rows("qqq") < rows("abc"));
    }
}
