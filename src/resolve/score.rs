//! The probability that two names mean the same thing.
//!
//! **Names.** Soft TF-IDF (Cohen, Ravikumar and Fienberg, 2003): words are weighted by their rarity among the
//! database's names, and words that are nearly equal by Jaro-Winkler count as equal, with a slightly lower weight. If
//! words are joined or split ("tatsu ya", "tatsuya"), the Levenshtein similarity of the whole names without spaces is
//! greater, and is used instead. Words in parentheses, and words that only repeat the city, qualify the name rather
//! than being part of it, and have a quarter of the weight.
//!
//! **Evidence.** The score is interpreted as a probability, and each piece of evidence multiplies the odds (Fellegi and
//! Sunter, 1969). The factors are round numbers chosen by their meaning, not fitted to data: equal house numbers on one
//! street favour the same place about 12 to 1, since one house may contain several restaurants; different streets
//! contradict it 7 to 1, since places move and have branches; a locality 3 to 1.

use std::borrow::Cow;

use strsim::{jaro_winkler, normalized_levenshtein};

use super::place::{Address, Agreement};
use super::text::{Word, plain_words, words};
use crate::hash::HashMap;

/// An alias may have been given wrongly.
pub(crate) const ALIAS_CONFIDENCE: f64 = 0.97;
/// The author's text is slightly weaker than the normalized name: "the place" may mean any place.
pub(crate) const TEXT_CONFIDENCE: f64 = 0.96;
/// The similarity from which two words may be one with a typing error; the value of the paper is 0.9.
const SAME_WORD: f64 = 0.88;
/// Shorter words that differ are different words.
const WORD_CHARS_MIN: usize = 3;
/// Below this, whole names have only letters in common.
const SAME_NAME: f64 = 0.7;
/// The weight of a qualifying word.
const QUALIFIER: f64 = 0.25;
/// Minimum similarity of two names that are joined because of a common author's text.
pub(crate) const TIED_SIMILARITY: f64 = 0.5;
/// Names that are equal after folding may still be two things, and names that differ completely may be one.
const CERTAINTY: f64 = 0.99;

/// Logarithms of odds.
const SAME_ADDRESS: f64 = 2.5;
const SAME_STREET: f64 = 0.5;
const OTHER_ADDRESS: f64 = -2.0;
const SAME_LOCALITY: f64 = 0.5;
const OTHER_LOCALITY: f64 = -1.0;

/// The weight of the prior below, in names: it dominates in small databases and vanishes in large ones.
const PRIOR_NAMES: f64 = 50.0;
/// The expected share of names with a word, without any data.
const SHARE: f64 = 0.002;

/// Words that are common in names of places and dishes anywhere, with rough shares: in a new database every word is
/// rare.
#[rustfmt::skip]
const COMMON: [(&str, f64); 28] = [
    ("the", 0.15), ("and", 0.10), ("of", 0.04), ("on", 0.02), ("at", 0.02), ("a", 0.02), ("in", 0.02), ("with", 0.03),
    ("la", 0.03), ("le", 0.03), ("el", 0.03), ("los", 0.02), ("de", 0.02), ("restaurant", 0.05), ("cafe", 0.08),
    ("grill", 0.05), ("bar", 0.05), ("house", 0.03), ("kitchen", 0.03), ("room", 0.02), ("bistro", 0.02),
    ("pizza", 0.02), ("bakery", 0.02), ("inn", 0.01), ("diner", 0.02), ("co", 0.01), ("food", 0.01), ("sauce", 0.01),
];

/// The number of names with each word: a rare word is more significant than a common one.
#[derive(Debug, Default)]
pub(crate) struct WordCounts {
    names: u32,
    words: HashMap<String, u32>,
}

impl WordCounts {
    /// Counts another name.
    pub(crate) fn add(&mut self, name: &str) {
        self.names += 1;
        let mut words = plain_words(name);
        words.sort_unstable();
        words.dedup();
        for word in words {
            *self.words.entry(word).or_default() += 1;
        }
    }

    /// The significance of a word: the logarithm of the number of names for each one that has it (inverse document
    /// frequency). It is never quite zero: a name may consist of common words.
    fn weight(&self, word: &str) -> f64 {
        const LEAST: f64 = 0.2;
        let prior = COMMON.iter().find(|(common, _)| *common == word).map_or(SHARE, |(_, share)| *share);
        let seen = self.words.get(word).copied().unwrap_or(0);
        let share = (f64::from(seen) + PRIOR_NAMES * prior) / (f64::from(self.names) + PRIOR_NAMES);
        LEAST - share.min(1.0).ln()
    }
}

/// A name prepared for many comparisons.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    words: Vec<Word>,
    weights: Vec<f64>,
    joined: String,
}

impl Name {
    pub(crate) fn new(name: &str, counts: &WordCounts) -> Self {
        let words = words(name);
        let weighted = |word: &Word| counts.weight(&word.text) * if word.qualifies { QUALIFIER } else { 1.0 };
        let weights = words.iter().map(weighted).collect();
        let joined = words.iter().map(|word| word.text.as_str()).collect();
        Self { words, weights, joined }
    }

    /// The similarity of two names, from 0 to [`CERTAINTY`]. Symmetric.
    pub(crate) fn similarity(&self, other: &Self, localities: [&[String]; 2]) -> f64 {
        if self.joined.is_empty() || other.joined.is_empty() {
            return 0.0;
        }
        if self.joined == other.joined {
            return CERTAINTY;
        }
        let by_words = self.soft_tf_idf(other, localities);
        // Different numbers are not typing errors.
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let by_letters = if digits(&self.joined) == digits(&other.joined) {
            normalized_levenshtein(&self.joined, &other.joined)
        } else {
            0.0
        };
        by_words.max(if by_letters >= SAME_NAME { by_letters } else { 0.0 }).clamp(0.0, CERTAINTY)
    }

    fn soft_tf_idf(&self, other: &Self, localities: [&[String]; 2]) -> f64 {
        let own = self.weighted_words(other, localities);
        let others = other.weighted_words(self, localities);
        let mut pairs = Vec::new();
        for (left, (word, weight)) in own.iter().enumerate() {
            for (right, (candidate, other_weight)) in others.iter().enumerate() {
                let similarity = word_similarity(word, candidate);
                if similarity >= SAME_WORD {
                    pairs.push((similarity, weight * other_weight, left, right));
                }
            }
        }
        // Each word is matched once, the best matches first. Ties are ordered by the texts, so that the result is
        // symmetric.
        let texts = |left: usize, right: usize| {
            let (left, right) = (&own[left].0, &others[right].0);
            (left.min(right), left.max(right))
        };
        pairs.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)).then_with(|| texts(a.2, a.3).cmp(&texts(b.2, b.3)))
        });
        let (mut taken, mut taken_there) = (vec![false; own.len()], vec![false; others.len()]);
        let mut sum = 0.0;
        for (similarity, weight, left, right) in pairs {
            if !taken[left] && !taken_there[right] {
                (taken[left], taken_there[right]) = (true, true);
                sum += similarity * weight;
            }
        }
        let norm = |words: &[(Cow<'_, str>, f64)]| words.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
        sum / (norm(&own) * norm(&others)).max(f64::MIN_POSITIVE)
    }

    /// The words with their weights: two words that are one in the other name are joined, and words that only repeat a
    /// locality weigh less.
    fn weighted_words(&self, other: &Self, localities: [&[String]; 2]) -> Vec<(Cow<'_, str>, f64)> {
        let mut words = Vec::with_capacity(self.words.len());
        let mut index = 0;
        while let Some(word) = self.words.get(index) {
            let next = self.words.get(index + 1).map(|next| format!("{}{}", word.text, next.text));
            let joined = next.filter(|joined| other.words.iter().any(|word| word.text == *joined));
            if let Some(joined) = joined {
                words.push((Cow::Owned(joined), self.weights[index].max(self.weights[index + 1])));
                index += 2;
                continue;
            }
            let explained = !word.qualifies && localities.iter().any(|locality| locality.contains(&word.text));
            words.push((word.text.as_str().into(), self.weights[index] * if explained { QUALIFIER } else { 1.0 }));
            index += 1;
        }
        words
    }
}

fn word_similarity(left: &str, right: &str) -> f64 {
    if left == right {
        return 1.0;
    }
    let long_enough = |word: &str| word.chars().count() >= WORD_CHARS_MIN;
    // "7th" and "8th" are different words.
    let digits = |word: &str| word.chars().any(|character| character.is_ascii_digit());
    if long_enough(left) && long_enough(right) && !digits(left) && !digits(right) {
        jaro_winkler(left, right)
    } else {
        0.0
    }
}

/// The probability that two things are the same, from the `similarity` of their names and from their addresses.
pub(crate) fn confidence(similarity: f64, left: &Address, right: &Address) -> f64 {
    let street = match left.street_agreement(right) {
        Agreement::Same => SAME_ADDRESS,
        Agreement::Street => SAME_STREET,
        Agreement::Unknown => 0.0,
        Agreement::Different => OTHER_ADDRESS,
    };
    let locality = match left.same_locality(right) {
        Some(true) => SAME_LOCALITY,
        Some(false) => OTHER_LOCALITY,
        None => 0.0,
    };
    let evidence = street + locality;
    if evidence == 0.0 {
        return similarity;
    }
    let odds = similarity.clamp(1.0 - CERTAINTY, CERTAINTY);
    let logit = (odds / (1.0 - odds)).ln() + evidence;
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn similarity(left: &str, right: &str) -> f64 {
        let counts = WordCounts::default();
        Name::new(left, &counts).similarity(&Name::new(right, &counts), [&[], &[]])
    }

    #[test]
    fn spellings_of_one_name_are_alike_and_other_names_are_not() {
        for (left, right) in [
            ("Tatsu-Ya Ramen", "ramen tatsuya"),
            ("Caf\u{e9} Medici", "cafe medici"),
            ("Frankln Barbecue", "franklin barbecue"),
            ("blue door restaurant", "blue door"),
            ("the blue door", "blue door"),
            ("saffron (austin)", "saffron"),
        ] {
            assert!(similarity(left, right) >= 0.85, "{left} and {right}: {}", similarity(left, right));
        }
        for (left, right) in [
            ("blue door", "red lantern"),
            ("golden wok", "golden grill"),
            ("taco town", "pasta town"),
            ("12th street deli", "13th street deli"),
            ("", "blue door"),
        ] {
            assert!(similarity(left, right) < 0.85, "{left} and {right}: {}", similarity(left, right));
        }
    }

    #[test]
    fn rare_words_weigh_more_than_common_ones() {
        let mut counts = WordCounts::default();
        assert!(counts.weight("franklin") > 2.0 * counts.weight("the"));
        let names = ["tatsuya ramen", "jinya ramen", "ippudo ramen", "michi ramen"];
        (0..100).for_each(|_| names.iter().for_each(|name| counts.add(name)));
        assert!(counts.weight("ramen") < counts.weight("tatsuya"));
        assert!(counts.weight("tatsuya") < counts.weight("franklin"));
        assert!(counts.weight("ramen") > 0.0);
    }

    #[test]
    fn evidence_changes_the_confidence() {
        let address = |text: &str| Address::parse(Some(text), None);
        let (here, there) = (address("12 Oak St, Springfield"), address("99 Elm St, Shelbyville"));
        assert!(
            (confidence(0.6, &here, &address("")) - 0.6).abs() < 1e-12,
            "no evidence leaves the confidence unchanged"
        );
        assert!(confidence(0.6, &here, &here) > 0.9);
        assert!(confidence(0.6, &here, &there) < 0.3);
        assert!(confidence(0.1, &here, &here) < 0.85, "an address alone is not enough to accept");
    }

    proptest! {
        #[test]
        fn similarity_is_symmetric_and_bounded(left in "[a-c ]{0,12}", right in "[a-c (]{0,12}") {
            let (there, back) = (similarity(&left, &right), similarity(&right, &left));
            prop_assert!((0.0..=1.0).contains(&there));
            prop_assert!((there - back).abs() < 1e-9, "{there} and {back}");
        }
    }
}
