//! Finds names with one typing error through ordered indexes.
//!
//! A name with one error at any position begins correctly up to the error, and ends correctly after it. So at any cut
//! one of its parts is correct; the letter at the cut is left out, because two swapped letters may be on both sides.
//! All names that begin with the one part, and all that end with the other, are two short ranges: of the unique index
//! on the name, and of an index on the reversed name. The cut is chosen where these ranges have the fewest names. In a
//! million names this takes tens of microseconds, while the trigram index takes milliseconds, since the error itself
//! makes its trigrams the rarest ones.
//!
//! Not found this way: names in another case or with other accents, words in another order, two errors far from each
//! other. The [probes](super::probes) search for these.

use super::corpus::Corpus;
use super::range::Range;

/// Maximum approximate number of names in a range that is read: some milliseconds.
const ROWS_MAX: f64 = 2_000.0;
/// A part of fewer letters is not significant.
const LETTERS_MIN: usize = 2;

/// The range of names with a beginning, and of reversed names with a beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Halves {
    pub(crate) beginning: Option<Range>,
    pub(crate) end: Option<Range>,
}

/// The ranges to search for a name that may have an error.
pub(crate) fn halves(name: &str, corpus: &Corpus) -> Halves {
    let letters: Vec<char> = name.chars().collect();
    let backwards: Vec<char> = letters.iter().rev().copied().collect();
    let ranges = |cut: usize| {
        let beginning = beginning_with(&letters[..cut]);
        let end = beginning_with(&backwards[..(letters.len() - cut).saturating_sub(1)]);
        let beginning = beginning.map(|range| (corpus.names_in(&range), range));
        let end = end.map(|range| (corpus.names_in_backwards(&range), range));
        (beginning, end)
    };
    // A range that is too long counts as one that finds nothing, the worst of all.
    let cost = |range: &Option<(f64, Range)>| {
        range.as_ref().map(|(rows, _)| *rows).filter(|rows| *rows <= ROWS_MAX).unwrap_or(2.0 * ROWS_MAX)
    };
    let best = (0..letters.len())
        .map(|cut| (cut, ranges(cut)))
        // Among equal ones the one nearest to the middle, because the sample cannot distinguish them.
        .min_by(|(left, a), (right, b)| {
            let middle = |cut: usize| (2 * cut + 1).abs_diff(letters.len());
            let (a, b) = (cost(&a.0) + cost(&a.1), cost(&b.0) + cost(&b.1));
            a.total_cmp(&b).then_with(|| middle(*left).cmp(&middle(*right)))
        });
    let short = |range: Option<(f64, Range)>| range.filter(|(rows, _)| *rows <= ROWS_MAX).map(|(_, range)| range);
    match best {
        Some((_, (beginning, end))) => Halves { beginning: short(beginning), end: short(end) },
        None => Halves::default(),
    }
}

/// All texts that begin with these letters.
fn beginning_with(letters: &[char]) -> Option<Range> {
    let (last, others) = letters.split_last()?;
    // Skips the surrogates, which are not characters.
    let next = (*last..=char::MAX).nth(1)?;
    let text = |last: char| others.iter().chain([&last]).collect();
    (letters.len() >= LETTERS_MIN).then(|| Range { low: text(*last), high: text(next) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Range {
        fn contains(&self, text: &str) -> bool {
            *self.low <= *text && *text < *self.high
        }
    }

    fn finds(halves: &Halves, stored: &str) -> bool {
        let backwards: String = stored.chars().rev().collect();
        let within = |range: &Option<Range>, text: &str| range.as_ref().is_some_and(|range| range.contains(text));
        within(&halves.beginning, stored) || within(&halves.end, &backwards)
    }

    #[test]
    fn ranges_contain_the_names_that_begin_with_their_letters() {
        let range = beginning_with(&['b', 'a']).unwrap();
        assert!(range.contains("ba") && range.contains("bar\u{10ffff}"));
        assert!(!range.contains("b") && !range.contains("bb") && !range.contains("az"));
        assert_eq!(beginning_with(&['b', '\u{d7ff}']).unwrap().high, "b\u{e000}");
        assert_eq!(
            (beginning_with(&['b']), beginning_with(&[]), beginning_with(&['b', char::MAX])),
            (None, None, None)
        );
    }

    #[test]
    fn the_range_of_a_common_beginning_is_narrowed_by_more_letters() {
        let names: Vec<String> = (0..1_000).map(|number| format!("the golden {number:04} grill")).collect();
        let corpus = Corpus::new(names.iter().map(String::as_str), 1_000_000.0);
        let halves = halves("the golden 0123 brill", &corpus);
        let beginning = halves.beginning.unwrap();
        assert!(beginning.low.starts_with("the golden 0"), "{beginning:?}");
    }

    #[test]
    fn ranges_that_would_read_too_many_rows_are_left_out() {
        let corpus = Corpus::new(["cafe"; 1_000], 1_000_000.0);
        assert_eq!(halves("cafe", &corpus), Halves::default());
        assert_eq!(halves("", &corpus), Halves::default());
    }

    proptest! {
        #[test]
        fn a_name_with_one_typing_error_is_in_one_of_the_ranges(
            letters in prop::collection::vec(prop::sample::select(vec!['a', 'b', ' ', '\u{e9}']), 6..16),
            place in any::<prop::sample::Index>(),
            kind in 0..4_u8,
        ) {
            let stored: String = letters.iter().collect();
            let mut wrong = letters;
            let place = place.index(wrong.len() - 1);
            match kind {
                0 => drop(wrong.remove(place)),
                1 => wrong.insert(place, 'x'),
                2 => wrong[place] = 'x',
                _ => wrong.swap(place, place + 1),
            }
            let wrong: String = wrong.into_iter().collect();
            let halves = halves(&wrong, &Corpus::new(["something else"], 1.0));
            prop_assert!(finds(&halves, &stored), "{stored} by {wrong}: {halves:?}");
        }
    }
}
