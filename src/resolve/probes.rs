//! Cheap access paths to the trigram index.
//!
//! `pg_trgm`'s own operator `%` reads the list of every trigram of a name, even those of "the": 20 ms a name among a
//! million, whatever the threshold. A sufficiently similar name shares some of the *rare* trigrams. So it is enough to
//! search for a few short pieces of the name, four letters long, those whose trigrams are rarest, each with `like
//! '%piece%'`, which the same index serves; the similarity is then computed for the names found. Pieces do not overlap,
//! so one typing error affects only one of them. If single pieces are common, a pair in the order of the name is rare.

use super::corpus::Corpus;
use super::text::{plain_words, trigram, trigram_words};

/// Maximum number of pieces of a name.
const PROBES_MAX: usize = 4;
/// Time budget in microseconds for the pieces of one name, beyond the first: about the share of a name when a hundred
/// of them share 50 ms and most are found without pieces.
const BUDGET: f64 = 1_200.0;
/// Costs measured on a million names (PostgreSQL 15): of a scan, of a row of its shortest list, of a row that it finds.
const COST: (f64, f64, f64) = (60.0, 0.3, 6.0);
/// How much more likely two pieces occur together in a name than by chance.
const TOGETHER: f64 = 4.0;
/// A piece whose rarest trigram is in more names than this cannot be searched in bounded time.
const ROWS_MAX: f64 = 30_000.0;

/// `like` patterns that find names similar to `name`, the cheapest first.
pub(crate) fn probes(name: &str, corpus: &Corpus) -> Vec<String> {
    let mut words = trigram_words(name);
    let own_words = words.len();
    // Stored names may have or lack accents.
    for word in plain_words(name) {
        let word: Vec<char> = word.chars().collect();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let pieces: Vec<Piece<'_>> = words
        .iter()
        .enumerate()
        .flat_map(|(index, word)| tiles(word).into_iter().map(move |piece| (index < own_words, piece)))
        .map(|(is_spelt, letters)| Piece::new(letters, is_spelt, corpus))
        .collect();
    let mut probes: Vec<Probe> = Vec::new();
    for (left, piece) in pieces.iter().enumerate() {
        probes.push(Probe { first: left, last: left, listed: piece.listed, rows: piece.rows });
        for (right, other) in
            pieces.iter().enumerate().skip(left + 1).filter(|(_, other)| piece.is_spelt && other.is_spelt)
        {
            let rows = piece.rows * other.rows / corpus.rows().max(1.0) * TOGETHER;
            let rows = rows.min(piece.rows).min(other.rows);
            probes.push(Probe { first: left, last: right, listed: piece.listed.min(other.listed), rows });
        }
    }
    probes.retain(|probe| probe.listed <= ROWS_MAX);
    // A stable sort: among equal ones the first in the name comes first.
    probes.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
    let mut taken: Vec<Probe> = Vec::new();
    let mut spent = 0.0;
    for probe in probes {
        if taken.len() == PROBES_MAX || (!taken.is_empty() && spent + probe.cost() > BUDGET) {
            break;
        }
        if taken.iter().all(|other| !other.shares_a_piece_with(&probe)) {
            spent += probe.cost();
            taken.push(probe);
        }
    }
    // Letters and digits only, so they contain no special characters of `like`.
    let text = |piece: usize| pieces[piece].letters.iter().collect::<String>();
    let pattern = |probe: &Probe| {
        if probe.first == probe.last {
            format!("%{}%", text(probe.first))
        } else {
            format!("%{}%{}%", text(probe.first), text(probe.last))
        }
    };
    taken.iter().map(pattern).collect()
}

/// A few letters of a word.
struct Piece<'a> {
    letters: &'a [char],
    /// Whether it is from the name as given, in which pieces have an order.
    is_spelt: bool,
    /// The numbers of names that have its rarest trigram, and that have all of them.
    listed: f64,
    rows: f64,
}

impl<'a> Piece<'a> {
    fn new(letters: &'a [char], is_spelt: bool, corpus: &Corpus) -> Self {
        let listed = letters.windows(3).map(|three| corpus.rows_with(trigram(three))).fold(f64::MAX, f64::min);
        // For adjacent trigrams, about half of the names that have one have the other.
        let rows = if letters.len() > 3 { 0.5 * listed } else { listed };
        Self { letters, is_spelt, listed, rows }
    }
}

/// One piece, or two in the order of the name.
#[derive(Debug, Clone, Copy)]
struct Probe {
    first: usize,
    last: usize,
    listed: f64,
    rows: f64,
}

impl Probe {
    fn cost(&self) -> f64 {
        let (scan, listed, found) = COST;
        let scans = if self.first == self.last { 1.0 } else { 2.0 };
        scan * scans + listed * self.listed + found * self.rows
    }

    const fn shares_a_piece_with(&self, other: &Self) -> bool {
        self.first == other.first || self.first == other.last || self.last == other.first || self.last == other.last
    }
}

/// The pieces of a word, side by side: a typing error in one piece is not in the others. (Choosing the rarest pieces at
/// any position would choose the error.) The last piece is at the word's end and overlaps the previous one.
fn tiles(word: &[char]) -> Vec<&[char]> {
    let length = match word.len() {
        0..=2 => return Vec::new(),
        3 | 5 | 6 => 3,
        _ => 4,
    };
    let last = word.len() - length;
    let mut starts: Vec<usize> = (0..=last).step_by(length).chain([last]).collect();
    starts.dedup();
    starts.into_iter().map(|start| &word[start..start + length]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_pieces_of_a_name_are_looked_for() {
        let names: Vec<String> = (0..2_000).map(|number| format!("the restaurant {number}")).collect();
        let corpus = Corpus::new(names.iter().map(String::as_str), 1_000_000.0);
        let probes = probes("the restaurant jalisco", &corpus);
        assert!(!probes.is_empty());
        let pieces = probes.iter().flat_map(|probe| probe.split('%'));
        assert!(
            pieces.clone().any(|piece| piece == "jali") && pieces.clone().any(|piece| piece == "isco"),
            "{probes:?}"
        );
    }

    #[test]
    fn in_a_small_database_every_piece_is_looked_for() {
        let probes = probes("blue_door 100%", &Corpus::new(["blue door"], 1.0));
        assert!(probes.len() >= 3, "{probes:?}");
        assert!(probes.iter().all(|probe| probe.trim_matches('%').chars().all(char::is_alphanumeric)), "{probes:?}");
    }

    #[test]
    fn a_typing_error_leaves_another_piece_intact() {
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
