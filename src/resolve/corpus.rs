//! How common words and trigrams are among the names of the database, from a sample.
//!
//! Three uses: a rare word says more than a common one when names are compared, a rare part of a name is the cheap way into
//! the trigram index, and a rare beginning or end that into an ordered one. None needs exact numbers.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::halves::Range;
use super::text::{plain_words, trigram, trigram_words};

/// How many sampled names the prior below is worth: it rules in small databases and fades in large ones.
const PRIOR_NAMES: f64 = 50.0;
/// The share of names that a word is expected in before anything is known of it.
const SHARE: f64 = 0.002;

/// Words that are common in names of places and dishes anywhere, with rough shares: in a new database everything is rare.
#[rustfmt::skip]
const COMMON: [(&str, f64); 28] = [
    ("the", 0.15), ("and", 0.10), ("of", 0.04), ("on", 0.02), ("at", 0.02), ("a", 0.02), ("in", 0.02), ("with", 0.03),
    ("la", 0.03), ("le", 0.03), ("el", 0.03), ("los", 0.02), ("de", 0.02), ("restaurant", 0.05), ("cafe", 0.08),
    ("grill", 0.05), ("bar", 0.05), ("house", 0.03), ("kitchen", 0.03), ("room", 0.02), ("bistro", 0.02),
    ("pizza", 0.02), ("bakery", 0.02), ("inn", 0.01), ("diner", 0.02), ("co", 0.01), ("food", 0.01), ("sauce", 0.01),
];

/// Counts of a sample.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    /// Names in the sample.
    sampled: usize,
    /// Names in the database for each one in the sample.
    scale: f64,
    words: HashMap<String, u32, RandomState>,
    trigrams: HashMap<u64, u32, RandomState>,
    /// The sample, and the sample with each name read backwards, in order.
    names: Vec<Box<str>>,
    backwards: Vec<Box<str>>,
}

impl Corpus {
    /// Counts a sample of `names` from a table of about `rows`.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>, rows: f64) -> Self {
        let mut corpus = Self::default();
        for name in names {
            corpus.sampled += 1;
            corpus.names.push(name.into());
            corpus.backwards.push(name.chars().rev().collect());
            let mut words = plain_words(name);
            words.sort_unstable();
            words.dedup();
            for word in words {
                *corpus.words.entry(word).or_default() += 1;
            }
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

    /// How much a word says: the logarithm of how many names there are for each one that has it (inverse document
    /// frequency). Never quite nothing: a name may consist of common words.
    pub(crate) fn weight(&self, word: &str) -> f64 {
        const LEAST: f64 = 0.2;
        let prior = COMMON.iter().find(|(common, _)| *common == word).map_or(SHARE, |(_, share)| *share);
        let seen = self.words.get(word).copied().unwrap_or(0);
        let share = (f64::from(seen) + PRIOR_NAMES * prior) / (self.sampled as f64 + PRIOR_NAMES);
        LEAST - share.min(1.0).ln()
    }

    /// About how many names have a trigram.
    pub(crate) fn rows_with(&self, trigram: u64) -> f64 {
        // What the sample has not seen may still be there.
        let seen = self.trigrams.get(&trigram).map_or(0.3, |seen| f64::from(*seen));
        seen * self.scale
    }

    /// About how many names there are in a range.
    pub(crate) fn names_in(&self, range: &Range) -> f64 {
        self.scale * count(&self.names, range)
    }

    /// About how many names there are that read backwards are in a range.
    pub(crate) fn names_in_backwards(&self, range: &Range) -> f64 {
        self.scale * count(&self.backwards, range)
    }

    /// About how many names there are.
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
    fn rare_words_say_more_than_common_ones() {
        let empty = Corpus::default();
        assert!(empty.weight("franklin") > 2.0 * empty.weight("the"));
        let names = ["tatsuya ramen", "jinya ramen", "ippudo ramen", "michi ramen"];
        let corpus = Corpus::new(names.into_iter().cycle().take(400), 400_000.0);
        assert!(corpus.weight("ramen") < corpus.weight("tatsuya"));
        assert!(corpus.weight("tatsuya") < corpus.weight("franklin"));
        assert!(corpus.weight("ramen") > 0.0);
    }

    #[test]
    fn rows_are_those_of_the_table() {
        let corpus = Corpus::new(["abcd", "abxy"], 2_000.0);
        let rows = |text: &str| corpus.rows_with(trigram(&text.chars().collect::<Vec<_>>()));
        assert!((rows("abc") - 1_000.0).abs() < 1.0);
        assert!(rows("qqq") < rows("abc"));
    }
}
