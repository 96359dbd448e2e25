//! The compared form of names: without case, accents and punctuation.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A word of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// It is in parentheses, where authors name which one they mean: "palm (los angeles)".
    pub(crate) qualifies: bool,
}

/// The words of a name, without duplicates, in the order of the name.
pub(crate) fn words(name: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut depth = 0_usize;
    let mut end = |text: &mut String, depth: usize| {
        let text = std::mem::take(text);
        if !text.is_empty() && words.iter().all(|word| word.text != text) {
            words.push(Word { text, qualifies: depth > 0 });
        }
    };
    let mut text = String::new();
    for character in name.nfkd().filter(|character| !is_combining_mark(*character)) {
        match character {
            // "franklin's" is "franklins": half of the authors omit the apostrophe.
            '\'' | '\u{2019}' | '\u{2018}' | '`' => {}
            '&' | '+' => {
                end(&mut text, depth);
                end(&mut "and".to_owned(), depth);
            }
            _ if character.is_alphanumeric() => text.extend(character.to_lowercase()),
            _ => {
                end(&mut text, depth);
                match character {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
    end(&mut text, depth);
    words
}

/// The words of a text, including duplicates.
pub(crate) fn plain_words(text: &str) -> Vec<String> {
    let folded: String = text
        .nfkd()
        .filter(|character| !is_combining_mark(*character) && !matches!(character, '\'' | '\u{2019}'))
        .flat_map(char::to_lowercase)
        .collect();
    folded
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The words of a text as split by `pg_trgm`: accents stay.
pub(crate) fn trigram_words(text: &str) -> Vec<Vec<char>> {
    let lower = text.to_lowercase();
    let words = lower.split(|character: char| !character.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(|word| word.chars().collect()).collect()
}

/// Three characters as a number.
pub(crate) fn trigram(characters: &[char]) -> u64 {
    characters.iter().fold(0, |packed, character| packed << 21 | u64::from(u32::from(*character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_case_accents_and_punctuation() {
        let check = |name: &str, expected: &[&str]| {
            let found: Vec<String> = words(name).into_iter().map(|word| word.text).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("Franklin's BBQ", &["franklins", "bbq"]);
        check("Caf\u{e9}  M\u{fc}ller", &["cafe", "muller"]);
        check("panos & pauls", &["panos", "and", "pauls"]);
        check("the the", &["the"]);
        check("ritz-carlton", &["ritz", "carlton"]);
        check("\u{5bff}\u{53f8}", &["\u{5bff}\u{53f8}"]);
        check(" - ", &[]);
    }

    #[test]
    fn words_in_parentheses_are_qualifiers() {
        let found = words("palm (los angeles) grill)");
        let qualifying: Vec<bool> = found.iter().map(|word| word.qualifies).collect();
        assert_eq!(qualifying, [false, true, true, false]);
    }
}
