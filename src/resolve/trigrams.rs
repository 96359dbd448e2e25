//! Finds, among many names, all that share enough trigrams with another, without comparing each.
//!
//! Two names are *similar* if the share of common trigrams (among those of either name) is at least `least`, and they
//! have at least one in common. A name of `n` trigrams then shares at least `least * n` of them with each similar name,
//! so at least one of any `n - ceil(least * n) + 1`. The index uses the rarest ones, rare among the names of the index,
//! so that trigrams common to most names are not used (prefix filtering: Chaudhuri, Ganti and Kaushik, 2006).
//!
//! Properties:
//! - Every similar name is found, whatever other names there are; `similar` is exact.
//! - The work for a name is proportional to the number of names that share one of its rarer trigrams.

use super::text::{trigram, words};
use crate::hash::HashMap;

/// The trigrams of a name's folded words, with the spaces that `pg_trgm` adds around them; sorted, without duplicates.
pub(crate) fn trigrams(name: &str) -> Vec<u64> {
    let mut trigrams = Vec::new();
    let mut letters: Vec<char> = Vec::new();
    for word in words(name) {
        letters.clear();
        letters.extend("  ".chars().chain(word.text.chars()).chain([' ']));
        trigrams.extend(letters.windows(3).map(trigram));
    }
    trigrams.sort_unstable();
    trigrams.dedup();
    trigrams
}

/// Names by their trigrams.
#[derive(Debug)]
pub(crate) struct TrigramIndex {
    least: f64,
    /// The trigrams of each name, in order.
    names: Vec<Vec<u64>>,
    /// The number of names with each trigram.
    frequencies: HashMap<u64, u32>,
    /// Names by the trigrams of their prefixes.
    listed: HashMap<u64, Vec<u32>>,
}

impl TrigramIndex {
    /// An index of names, given by their [`trigrams`].
    pub(crate) fn new(names: Vec<Vec<u64>>, least: f64) -> Self {
        let mut frequencies: HashMap<u64, u32> = HashMap::default();
        for trigram in names.iter().flatten() {
            *frequencies.entry(*trigram).or_default() += 1;
        }
        let mut index = Self { least, names, frequencies, listed: HashMap::default() };
        let mut listed: HashMap<u64, Vec<u32>> = HashMap::default();
        for (number, name) in (0_u32..).zip(&index.names) {
            for trigram in index.prefix(name) {
                listed.entry(trigram).or_default().push(number);
            }
        }
        index.listed = listed;
        index
    }

    /// The positions of all names that are similar to one with these trigrams, ascending.
    pub(crate) fn similar(&self, name: &[u64]) -> Vec<usize> {
        let lists = self.prefix(name).into_iter().filter_map(|trigram| self.listed.get(&trigram));
        let mut candidates: Vec<u32> = lists.flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let similar = |number: &usize| is_similar(name, &self.names[*number], self.least);
        candidates.into_iter().map(|number| number as usize).filter(similar).collect()
    }

    /// The rarest trigrams, of which any similar name has at least one.
    fn prefix(&self, name: &[u64]) -> Vec<u64> {
        let rarity = |trigram: &u64| (self.frequencies.get(trigram).copied().unwrap_or(0), *trigram);
        let mut prefix = name.to_vec();
        prefix.sort_unstable_by_key(rarity);
        prefix.truncate((name.len() + 1).saturating_sub(shared_least(name.len(), self.least)));
        prefix
    }
}

/// The minimum number of trigrams that a name shares with a similar one.
fn shared_least(trigrams: usize, least: f64) -> usize {
    // Rounding may give slightly more than a whole number.
    ((least * trigrams as f64 - 1e-9).ceil() as usize).max(1)
}

/// Whether two names are similar.
pub(crate) fn is_similar(left: &[u64], right: &[u64], least: f64) -> bool {
    let (mut shared, mut own, mut others) = (0_usize, left, right);
    while let (Some((first, rest)), Some((other, others_rest))) = (own.split_first(), others.split_first()) {
        match first.cmp(other) {
            std::cmp::Ordering::Less => own = rest,
            std::cmp::Ordering::Greater => others = others_rest,
            std::cmp::Ordering::Equal => {
                shared += 1;
                (own, others) = (rest, others_rest);
            }
        }
    }
    shared >= shared_least(left.len() + right.len() - shared, least)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn similar_names_share_trigrams() {
        let is_similar = |left: &str, right: &str| is_similar(&trigrams(left), &trigrams(right), 0.3);
        assert!(is_similar("blue door", "The Blue D\u{f6}or"));
        assert!(is_similar("franklin bbq", "franklin barbecue"));
        assert!(!is_similar("blue door", "red lantern"));
        assert!(!is_similar("", "blue door") && !is_similar("-", "-"), "texts without trigrams are similar to none");
    }

    proptest! {
        /// The index finds what a comparison with each name finds.
        #[test]
        fn the_trigram_index_finds_every_similar_name(
            names in prop::collection::vec("[abc]{1,4}( [abd]{1,5}){0,2}", 0..40),
            sought in "[abc]{0,4}( [abd]{1,5}){0,2}",
            least in prop::sample::select(vec![0.0, 0.1, 0.3, 0.5, 0.75, 1.0]),
        ) {
            let names: Vec<Vec<u64>> = names.iter().map(|name| trigrams(name)).collect();
            let sought = trigrams(&sought);
            let each = (0..names.len()).filter(|number| is_similar(&sought, &names[*number], least)).collect::<Vec<_>>();
            prop_assert_eq!(TrigramIndex::new(names, least).similar(&sought), each);
        }

        /// The share of all trigrams that two names have in common, by definition.
        #[test]
        fn similarity_is_the_share_of_common_trigrams(left in "[ab]{1,6}", right in "[ab]{1,6}", least in 0.01..1.0_f64) {
            let (left, right) = (trigrams(&left), trigrams(&right));
            let shared = left.iter().filter(|trigram| right.contains(trigram)).count() as f64;
            let all = left.iter().chain(&right).collect::<std::collections::BTreeSet<_>>().len() as f64;
            // Leaves out pairs that rounding would decide.
            prop_assume!((shared / all - least).abs() > 1e-6);
            prop_assert_eq!(is_similar(&left, &right, least), shared > 0.0 && shared / all >= least);
        }
    }
}
