//! One of a connection's best mentions.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::score::{MICROS_PER_DAY, SCORE_DECAY_DAYS, score};
use crate::record::{MentionRef, SourceType, Timestamp};

/// One of a connection's best mentions, as kept in `top_mentions`. Its members are in the order in which `jsonb` keeps
/// them, by length and then by bytes: so the server need not sort them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopMention<'a> {
    /// Its score at the `as_of` of the last write.
    pub(crate) score: f64,
    /// Its votes.
    pub(crate) upvotes: i32,
    /// When it was written.
    #[serde(with = "micros")]
    pub(crate) created_at: Timestamp,
    /// The mention's id.
    pub(crate) mention_id: Uuid,
    /// Where to read it.
    pub(crate) source_url: Cow<'a, str>,
    /// Its words.
    pub(crate) content_excerpt: Cow<'a, str>,
    /// The key that breaks ties. Not stored, so unknown for a mention read from `top_mentions`.
    #[serde(skip)]
    pub(crate) source: Option<(Cow<'a, str>, SourceType)>,
}

/// Times in JSON: RFC 3339 in UTC with as many decimals as are needed.
mod micros {
    use std::fmt;

    use chrono::{Datelike, NaiveDate, Timelike};
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use super::{SecondsFormat, Timestamp};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        write_time(time, |text| serializer.serialize_str(text))
    }

    /// Gives the text of a time to `take`.
    pub(crate) fn write_time<T>(time: &Timestamp, take: impl FnOnce(&str) -> T) -> T {
        match write(time, &mut [0; LENGTH]) {
            Some(text) => take(text),
            None => take(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }

    /// The longest text: `2024-01-10T14:20:00.123456Z`.
    const LENGTH: usize = 27;

    /// Writes the same text as chrono, for years of four digits and whole microseconds, several times as fast: each
    /// best mention has a time.
    pub(super) fn write<'b>(time: &Timestamp, buffer: &'b mut [u8; LENGTH]) -> Option<&'b str> {
        let micros = time.timestamp_subsec_nanos() / 1000;
        let is_plain =
            (0..=9999).contains(&time.year()) && micros < 1_000_000 && micros * 1000 == time.timestamp_subsec_nanos();
        if !is_plain {
            return None;
        }
        buffer.copy_from_slice(b"0000-00-00T00:00:00.000000Z");
        let mut put = |start: usize, digits: usize, mut number: u32| {
            for place in (start..start + digits).rev() {
                buffer[place] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, time.year().unsigned_abs());
        put(5, 2, time.month());
        put(8, 2, time.day());
        put(11, 2, time.hour());
        put(14, 2, time.minute());
        put(17, 2, time.second());
        put(20, 6, micros);
        // No fraction, or one of three or six digits.
        let end = match micros {
            0 => 19,
            micros if micros % 1000 == 0 => 23,
            _ => 26,
        };
        buffer[end] = b'Z';
        std::str::from_utf8(&buffer[..=end]).ok()
    }

    /// Reads texts in the form of [`write`], several times as fast as chrono; `None` for all others.
    pub(super) fn read(text: &str) -> Option<Timestamp> {
        let (seconds, fraction) = text.as_bytes().strip_suffix(b"Z")?.split_at_checked(19)?;
        let separators = [4, 7, 10, 13, 16].map(|place| seconds[place]);
        let micros = match *fraction {
            [] => 0,
            [b'.', ref digits @ ..] if digits.len() == 3 => number(digits)? * 1000,
            [b'.', ref digits @ ..] if digits.len() == 6 => number(digits)?,
            _ => return None,
        };
        let part = |start: usize, digits: usize| number(&seconds[start..start + digits]);
        let date = NaiveDate::from_ymd_opt(part(0, 4)?.cast_signed(), part(5, 2)?, part(8, 2)?)?;
        let time = date.and_hms_micro_opt(part(11, 2)?, part(14, 2)?, part(17, 2)?, micros)?;
        (separators == *b"--T::").then(|| time.and_utc())
    }

    /// Reads the text of any time.
    pub(crate) fn read_time(text: &str) -> Result<Timestamp, chrono::ParseError> {
        // `FromStr` and not the strict RFC 3339 parser: years beyond 9999 carry a sign.
        read(text).map_or_else(|| text.parse(), Ok)
    }

    fn number(digits: &[u8]) -> Option<u32> {
        digits.iter().try_fold(0, |sum, digit| Some(sum * 10 + char::from(*digit).to_digit(10)?))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        deserializer.deserialize_str(Time)
    }

    struct Time;

    impl Visitor<'_> for Time {
        type Value = Timestamp;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time as in RFC 3339")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
            read_time(text).map_err(E::custom)
        }
    }
}

pub(super) use micros::read_time;
pub(crate) use micros::write_time;

impl<'a> TopMention<'a> {
    pub(super) fn new(mention_id: Uuid, mention: MentionRef<'a>, as_of: Timestamp) -> Self {
        Self {
            mention_id,
            score: score(mention.upvotes, mention.created_at, as_of),
            upvotes: mention.upvotes,
            content_excerpt: Cow::Borrowed(mention.content_excerpt),
            source_url: Cow::Borrowed(mention.source_url),
            created_at: mention.created_at,
            source: Some((Cow::Borrowed(mention.source_id), mention.source_type)),
        }
    }

    pub(super) fn into_owned(self) -> TopMention<'static> {
        let own = |text: Cow<'a, str>| -> Cow<'static, str> { Cow::Owned(text.into_owned()) };
        TopMention {
            mention_id: self.mention_id,
            score: self.score,
            upvotes: self.upvotes,
            content_excerpt: own(self.content_excerpt),
            source_url: own(self.source_url),
            created_at: self.created_at,
            source: self.source.map(|(id, source_type)| (own(id), source_type)),
        }
    }

    /// The same without a copy of its texts.
    pub(super) fn borrowed(&self) -> TopMention<'_> {
        TopMention {
            mention_id: self.mention_id,
            score: self.score,
            upvotes: self.upvotes,
            content_excerpt: Cow::Borrowed(&self.content_excerpt),
            source_url: Cow::Borrowed(&self.source_url),
            created_at: self.created_at,
            source: self.source.as_ref().map(|(id, source_type)| (Cow::Borrowed(&**id), *source_type)),
        }
    }

    /// The order by score, which does not depend on `as_of`: all scores decay at one rate, so
    /// `ln |upvotes| + created_at / 60 days` orders mentions of one sign. Ties: the later
    /// `created_at`, then the smaller source id (then post before comment), if both are known.
    /// `Less` is better.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        let sign = self.upvotes.signum();
        let by_score = other.upvotes.signum().cmp(&sign).then_with(|| {
            let virtual_age = |mention: &Self| {
                let days = mention.created_at.timestamp_micros() as f64 / MICROS_PER_DAY;
                f64::from(mention.upvotes.unsigned_abs()).ln() + days / SCORE_DECAY_DAYS
            };
            match sign {
                0 => Ordering::Equal,
                1 => virtual_age(other).total_cmp(&virtual_age(self)),
                _ => virtual_age(self).total_cmp(&virtual_age(other)),
            }
        });
        by_score.then_with(|| other.created_at.cmp(&self.created_at)).then_with(|| {
            match (&self.source, &other.source) {
                (Some(own), Some(others)) => own.cmp(others),
                _ => Ordering::Equal,
            }
        })
    }

    /// Whether the stored figures cannot tell which of two mentions comes first: a stored one ties
    /// with one of this epoch. Two stored ones stand in the order that their source ids gave them.
    pub(super) fn is_undecided(&self, other: &Self) -> bool {
        self.source.is_some() != other.source.is_some() && self.rank(other) == Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_json_are_formatted_as_by_chrono() {
        let nanos = [0, 1_000, 10_000, 999_000, 1_000_000, 123_000_000, 123_456_000, 999_999_000, 123_456_789];
        let seconds =
            [0, 1, -1, 59, 86_399, 1_704_896_400, 951_782_400, -62_167_219_200, 253_402_300_799, 253_402_300_800];
        for (second, nanos) in seconds.into_iter().flat_map(|second| nanos.map(|nanos| (second, nanos))) {
            let time = Timestamp::from_timestamp(second, nanos).unwrap();
            let written = micros::write(&time, &mut [0; 27]).map(str::to_owned);
            let expected = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let is_plain = nanos % 1000 == 0 && second < 253_402_300_800;
            assert_eq!(written, is_plain.then_some(expected), "{time}");
            assert_eq!(written.and_then(|text| micros::read(&text)), is_plain.then_some(time));
        }
    }

    /// Other texts are left to chrono: other forms, and times that do not exist.
    #[test]
    fn only_times_in_the_written_form_are_read_without_chrono() {
        let plain = "2024-02-29T23:59:58.123456Z";
        assert_eq!(micros::read(plain), Some(plain.parse().unwrap()));
        for other in [
            "",
            "Z",
            "2024-02-29T23:59:58",
            "2024-02-29 23:59:58Z",
            "2024-02-29T23:59:58+00:00",
            "2024-02-29T23:59:58.1Z",
            "2024-02-29T23:59:58.1234567Z",
            "2024-02-29T23:59:5\u{e9}Z",
            "2024-02-29T23:59:+8Z",
            "2023-02-29T23:59:58Z",
            "2024-02-29T24:00:00Z",
            "+12024-02-29T23:59:58Z",
        ] {
            assert_eq!(micros::read(other), None, "{other}");
        }
    }
}
