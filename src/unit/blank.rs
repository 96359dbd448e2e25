//! Blank texts, which cannot be names because they show nothing.

/// Characters that are invisible by themselves, besides white space and control characters: those of Unicode's property
/// `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt`, version 16), the marks of interlinear annotation, and
/// the braille pattern without dots. Each range has its first and last character; ranges ascend.
#[rustfmt::skip]
const INVISIBLE: [(char, char); 19] = [
    ('\u{ad}', '\u{ad}'),         // soft hyphen
    ('\u{34f}', '\u{34f}'),       // combining grapheme joiner
    ('\u{61c}', '\u{61c}'),       // Arabic letter mark
    ('\u{115f}', '\u{1160}'),     // Hangul fillers
    ('\u{17b4}', '\u{17b5}'),     // Khmer inherent vowels
    ('\u{180b}', '\u{180f}'),     // Mongolian selectors and separator
    ('\u{200b}', '\u{200f}'),     // zero width space, joiners, marks of direction
    ('\u{202a}', '\u{202e}'),     // embeddings of direction
    ('\u{2060}', '\u{206f}'),     // word joiner, invisible operators, isolates of direction
    ('\u{2800}', '\u{2800}'),     // braille pattern blank
    ('\u{3164}', '\u{3164}'),     // Hangul filler
    ('\u{fe00}', '\u{fe0f}'),     // variation selectors
    ('\u{feff}', '\u{feff}'),     // byte order mark
    ('\u{ffa0}', '\u{ffa0}'),     // halfwidth Hangul filler
    ('\u{fff0}', '\u{fff8}'),     // unassigned, to be ignored
    ('\u{fff9}', '\u{fffb}'),     // interlinear annotation
    ('\u{1bca0}', '\u{1bca3}'),   // shorthand format controls
    ('\u{1d173}', '\u{1d17a}'),   // musical symbols: format controls
    ('\u{e0000}', '\u{e0fff}'),   // tags, variation selectors
];

/// Whether a text is empty or consists of invisible characters only.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

fn is_invisible(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_whitespace() || character.is_ascii_control();
    }
    let after = INVISIBLE.partition_point(|(first, _)| *first <= character);
    character.is_whitespace()
        || character.is_control()
        || after.checked_sub(1).is_some_and(|range| character <= INVISIBLE[range].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_a_visible_character_are_blank_and_no_others() {
        for blank in [
            "",
            " \t\n",
            "\u{200b}",
            "\u{feff}\u{2060}",
            "\u{a0}\u{3000}",
            "\u{3164}",
            "\u{2800}",
            "\u{7f}\u{85}",
            "\u{fe0f}",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for visible in ["a", "\u{200b}a", "-", "\u{301}", "\u{5bff}\u{53f8}", "\u{1f355}\u{fe0f}", "\u{0600}", "."] {
            assert!(!is_blank(visible), "{visible:?}");
        }
        assert!(
            INVISIBLE.is_sorted_by(|left, right| left.1 < right.0)
                && INVISIBLE.iter().all(|(first, last)| first <= last)
        );
    }
}
