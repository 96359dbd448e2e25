//! The cheap ways into the trigram index.
//!
//! `pg_trgm`'s own operator `%` reads the list of every trigram of a name, also those of "the": 20 ms a name among a
//! million, whatever the threshold. A name that is similar enough shares some of the *rare* trigrams, so it is enough
//! to look for a few short pieces of the name, four letters long, those whose trigrams are rarest, each with `like '%piece%'`, which the
//! same index serves; the similarity is then computed for what they find. Pieces lie side by side: one typing
//! error spoils one of them.

use super::corpus::Corpus;
use super::text::{plain_words, trigram, trigram_words};

/// Pieces of a name at most.
const PROBES_MAX: usize = 4;
/// Microseconds that the pieces of one name may take in all, beyond the first: about what is left for a name when a
/// hundred of them share 50 ms and most are found without.
const BUDGET: f64 = 1_200.0;
/// Measured on a million names (PostgreSQL 15): a scan, a row of its shortest list, a row that it finds.
const COST: (f64, f64, f64) = (60.0, 0.3, 6.0);
/// A piece whose rarest trigram is in more names than this finds nothing in bounded time.
const ROWS_MAX: f64 = 30_000.0;

/// `like` patterns by which names similar to `name` can be found, the cheapest first.
pub(crate) fn probes(name: &str, corpus: &Corpus) -> Vec<String> {
    let mut words = trigram_words(name);
    // Stored names may have lost their accents, or kept them.
    for word in plain_words(name) {
        let word: Vec<char> = word.chars().collect();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let mut pieces = Vec::new();
    for (index, word) in words.iter().enumerate() {
        for (start, piece) in tiles(word) {
            let rarest = piece.windows(3).map(|three| corpus.rows_with(trigram(three))).fold(f64::MAX, f64::min);
            if rarest <= ROWS_MAX {
                // Of trigrams beside each other, about half of the names that have one have the other.
                let share = if piece.len() > 3 { 0.5 } else { 1.0 };
                let (scan, listed, found) = COST;
                let cost = scan * (piece.len() - 2) as f64 + listed * rarest + found * rarest * share;
                pieces.push((cost, index, start, piece));
            }
        }
    }
    pieces.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut spent = 0.0;
    let mut taken = Vec::new();
    for (cost, _, _, piece) in pieces {
        if taken.len() == PROBES_MAX || (!taken.is_empty() && spent + cost > BUDGET) {
            break;
        }
        spent += cost;
        taken.push(piece);
    }
    // Letters and digits only: nothing in them means anything to `like`.
    taken.into_iter().map(|piece| format!("%{}%", piece.iter().collect::<String>())).collect()
}

/// The pieces of a word, side by side: whichever piece a typing error is in, it is not in the others. (Picking the
/// rarest pieces wherever they begin would pick the error.) The last is at the word's end, over the one before.
fn tiles(word: &[char]) -> Vec<(usize, &[char])> {
    let length = match word.len() {
        0..=2 => return Vec::new(),
        3 | 5 | 6 => 3,
        _ => 4,
    };
    let last = word.len() - length;
    let starts = (0..=last).step_by(length).chain([last]);
    let mut tiles: Vec<(usize, &[char])> = starts.map(|start| (start, &word[start..start + length])).collect();
    tiles.dedup_by_key(|(start, _)| *start);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_rare_and_apart() {
        let names: Vec<String> = (0..2_000).map(|number| format!("the restaurant {number}")).collect();
        let corpus = Corpus::new(names.iter().map(String::as_str), 1_000_000.0);
        let probes = probes("the restaurant jalisco", &corpus);
        assert!(!probes.is_empty());
        assert!(probes.iter().all(|probe| "%jalisco%".contains(probe.trim_matches('%'))), "{probes:?}");
    }

    #[test]
    fn in_a_small_database_every_part_is_looked_for() {
        let probes = probes("blue_door 100%", &Corpus::new(["blue door"], 1.0));
        assert!(probes.len() >= 3, "{probes:?}");
        assert!(probes.iter().all(|probe| probe.trim_matches('%').chars().all(char::is_alphanumeric)), "{probes:?}");
    }

    #[test]
    fn a_typing_error_leaves_another_piece() {
        let corpus = Corpus::new(["italian", "blue door"], 2.0);
        let stored = "italian";
        assert!(probes("itallian", &corpus).iter().any(|probe| stored.contains(probe.trim_matches('%'))));
        for position in 0..8 {
            let mut name: Vec<char> = "franklin".chars().collect();
            name[position] = 'x';
            let probes = probes(&name.iter().collect::<String>(), &corpus);
            assert!(probes.iter().any(|probe| "franklin".contains(probe.trim_matches('%'))), "{probes:?}");
        }
    }

    #[test]
    fn names_without_letters_have_no_pieces() {
        assert!(probes("-- !", &Corpus::default()).is_empty());
    }
}
