//! Addresses as evidence, and their comparison.
//!
//! An address is parsed into a house number, the words of a street and the words of a locality; the usual abbreviations
//! and ordinals are normalized. No knowledge of specific cities is built in.

use strsim::jaro_winkler;

use super::text::plain_words;

/// The similarity from which two streets are the same with a typing error.
const SAME_STREET: f64 = 0.9;

#[rustfmt::skip]
const ORDINALS: [(&str, &str); 12] = [
    ("first", "1"), ("second", "2"), ("third", "3"), ("fourth", "4"), ("fifth", "5"), ("sixth", "6"), ("seventh", "7"),
    ("eighth", "8"), ("ninth", "9"), ("tenth", "10"), ("eleventh", "11"), ("twelfth", "12"),
];
/// Kinds of streets, which end the street's name. They are removed, because half of the authors omit them.
#[rustfmt::skip]
const KINDS: [&str; 34] = [
    "st", "street", "sts", "ave", "avenue", "av", "blvd", "blv", "boulevard", "rd", "road", "dr", "drive", "ln", "lane",
    "la", "pl", "place", "sq", "square", "pkwy", "parkway", "hwy", "highway", "ct", "court", "plz", "plaza", "way",
    "ter", "terrace", "cir", "circle", "trl",
];
#[rustfmt::skip]
const DIRECTIONS: [&str; 12] =
    ["n", "s", "e", "w", "north", "south", "east", "west", "ne", "nw", "se", "sw"];
/// Words that are followed by the neighbourhood, not the street.
const NEARBY: [&str; 6] = ["between", "near", "off", "at", "corner", "opposite"];

/// A parsed address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Address {
    number: Option<String>,
    /// As one word: "north point" is "northpoint".
    street: String,
    /// The first word of the street's name that is long enough to search for.
    street_word: Option<String>,
    locality: Vec<String>,
}

/// The relation of two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// Same number, same street.
    Same,
    /// Same street; the numbers differ, or one is missing.
    Street,
    /// One of them has no data.
    Unknown,
    /// Different streets.
    Different,
}

impl Address {
    /// Parses an address and, if given separately, the city.
    pub(crate) fn parse(address: Option<&str>, city: Option<&str>) -> Self {
        let parts: Vec<&str> = address.unwrap_or_default().split(',').collect();
        // "Suite 5, 435 Main St" is rare, "Central Park West, New York" is not: use the first part unless only a later
        // one begins with a number.
        let begins_with_digit = |part: &&str| part.trim_start().starts_with(|c: char| c.is_ascii_digit());
        let street = parts.iter().position(begins_with_digit).unwrap_or(0);
        let mut parsed = Self::default();
        parsed.read_street(parts[street]);
        let locality = parts[street + 1..].iter().copied().chain(city).flat_map(plain_words);
        // Neither a postal code nor the country's abbreviation is a city.
        parsed.locality = locality.filter(|word| word.chars().all(char::is_alphabetic)).collect();
        parsed.locality.sort_unstable();
        parsed.locality.dedup();
        parsed
    }

    fn read_street(&mut self, text: &str) {
        for word in plain_words(text) {
            let ordinal = ORDINALS.iter().find(|(ordinal, _)| *ordinal == word).map(|(_, digits)| (*digits).to_owned());
            let is_number = word.chars().all(|character| character.is_ascii_digit());
            if self.number.is_none() && self.street.is_empty() && is_number {
                self.number = Some(word);
            } else if NEARBY.contains(&word.as_str()) {
                return;
            } else if KINDS.contains(&word.as_str()) {
                // "Avenue A" begins with it.
                if !self.street.is_empty() {
                    return;
                }
            } else if let Some(digits) = ordinal.or_else(|| digits_of_ordinal(&word)) {
                self.street.push_str(&digits);
                self.street.push('#');
            } else if !DIRECTIONS.contains(&word.as_str()) {
                self.street.push_str(&word);
                if self.street_word.is_none() && word.chars().count() >= 3 {
                    self.street_word = Some(word);
                }
            }
        }
    }

    /// Compares the streets and numbers of two addresses.
    pub(crate) fn street_agreement(&self, other: &Self) -> Agreement {
        if self.street.is_empty() || other.street.is_empty() {
            return Agreement::Unknown;
        }
        let numbered = self.street.contains('#') || other.street.contains('#');
        let same = if numbered {
            // 52nd and 53rd street differ by one character, and yet are not the same.
            self.street == other.street
        } else {
            jaro_winkler(&self.street, &other.street) >= SAME_STREET
        };
        match (&self.number, &other.number) {
            (Some(own), Some(number)) if own == number && same => Agreement::Same,
            // The same number on a different street is no evidence: streets have several names.
            (Some(own), Some(number)) if own == number => Agreement::Unknown,
            _ if same => Agreement::Street,
            _ => Agreement::Different,
        }
    }

    /// Whether the localities agree; `None` if one of them has none.
    pub(crate) fn same_locality(&self, other: &Self) -> Option<bool> {
        let least = self.locality.len().min(other.locality.len());
        if least == 0 {
            return None;
        }
        let shared = self.locality.iter().filter(|word| other.locality.contains(word)).count();
        Some(2 * shared >= least)
    }

    /// The house number.
    pub(crate) fn number(&self) -> Option<&str> {
        self.number.as_deref()
    }

    /// The words of the locality.
    pub(crate) fn locality(&self) -> &[String] {
        &self.locality
    }

    /// House number and a part of the street's name, in every spelling that stored addresses of the same house may
    /// have. Empty if the address cannot be searched.
    pub(crate) fn houses(&self) -> Vec<(String, String)> {
        /// Length of the compared prefix of the street's name: the rest may be abbreviated.
        const PREFIX: usize = 5;
        let Some(number) = &self.number else { return Vec::new() };
        let mut streets: Vec<String> = Vec::new();
        if let Some((digits, _)) = self.street.split_once('#') {
            streets.extend(ORDINALS.iter().find(|(_, number)| *number == digits).map(|(word, _)| (*word).to_owned()));
            streets.push(format!("{digits}{}", ordinal_ending(digits)));
        } else {
            streets.extend(self.street_word.iter().map(|word| word.chars().take(PREFIX).collect()));
        }
        streets.into_iter().map(|street| (number.clone(), street)).collect()
    }
}

fn digits_of_ordinal(word: &str) -> Option<String> {
    let digits = ["st", "nd", "rd", "th"].iter().find_map(|ending| word.strip_suffix(ending))?;
    let is_number = !digits.is_empty() && digits.chars().all(|character| character.is_ascii_digit());
    is_number.then(|| digits.to_owned())
}

fn ordinal_ending(digits: &str) -> &'static str {
    match (digits.ends_with("11") || digits.ends_with("12") || digits.ends_with("13"), digits.chars().last()) {
        (false, Some('1')) => "st",
        (false, Some('2')) => "nd",
        (false, Some('3')) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Address {
        Address::parse(Some(address), None)
    }

    #[test]
    fn spellings_of_one_address_agree() {
        for (left, right) in [
            ("12 N. Harbour Blv.", "12 harbour boulevard"),
            ("310 7th Ave. between 4th and 5th Sts.", "310 Seventh Ave."),
            ("95 Ave. B at 8th St.", "95 Avenue B"),
            ("77 Northgate", "77 North Gate St., Springfield"),
            ("9 Julia La.", "9 julia ln"),
            ("340 Plumtree Rd.", "340 Plumtree Rd. NE"),
        ] {
            let agreement = parse(left).street_agreement(&parse(right));
            let expected = if left.starts_with("77") { Agreement::Unknown } else { Agreement::Same };
            assert_eq!(agreement, expected, "{left} and {right}");
        }
    }

    #[test]
    fn other_addresses_differ() {
        assert_eq!(parse("12 Oak St").street_agreement(&parse("14 Oak Street")), Agreement::Street);
        assert_eq!(parse("12 Oak St").street_agreement(&parse("14 Elm Street")), Agreement::Different);
        assert_eq!(parse("43 W. 52nd St").street_agreement(&parse("45 W. 53rd St")), Agreement::Different);
        assert_eq!(parse("").street_agreement(&parse("14 Elm Street")), Agreement::Unknown);
    }

    #[test]
    fn localities_are_read_from_the_address_or_given_beside_it() {
        let beside = Address::parse(Some("12 Oak St"), Some("Springfield"));
        assert_eq!(beside.same_locality(&parse("9 Elm St, Springfield, IL 62701")), Some(true));
        assert_eq!(beside.same_locality(&parse("9 Elm St, Shelbyville")), Some(false));
        assert_eq!(beside.same_locality(&parse("9 Elm St")), None);
    }

    #[test]
    fn houses_are_found_by_every_spelling_of_the_street() {
        let check = |address: &str, expected: &[(&str, &str)]| {
            let houses = parse(address).houses();
            let houses: Vec<(&str, &str)> = houses.iter().map(|(number, street)| (&**number, &**street)).collect();
            assert_eq!(houses, expected, "{address}");
        };
        check("1737 Santa Rosa Blvd", &[("1737", "santa")]);
        check("35 S. La Paloma Blv.", &[("35", "palom")]);
        check("854 Seventh Ave", &[("854", "seventh"), ("854", "7th")]);
        check("42 E. 23rd St", &[("42", "23rd")]);
        check("Central Park West", &[]);
    }
}
