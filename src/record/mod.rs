//! Records: the words of the evidence graph and the merge rule of each table.
//!
//! Everything here is plain data. A merge rule says what two versions of one row become; each is
//! commutative, associative and idempotent (a join-semilattice), which is what makes order,
//! batching and retries invisible in the database. The laws are checked in `laws`.
//!
//! Not here: what a caller may say (`unit`), how pending rows combine (`batch`), SQL (`store`).

mod connection;
mod entity;
#[cfg(test)]
mod laws;
mod mention;
mod metrics;
mod place;
mod sorted_set;

pub(crate) use connection::{ConnectionFacts, ConnectionKey};
pub(crate) use entity::EntityFacts;
pub use entity::{EntityKey, EntityName, EntityType};
pub(crate) use mention::MentionRef;
pub use mention::{Mention, SourceType};
pub(crate) use metrics::{
    ActivityLevel, ConnectionMetrics, MentionChange, RECENT_DAYS, RereadNeeded, StandingFigures, StandingScore,
    StoredMetrics, TOP_MENTIONS, TopMention, days_before, write_time,
};
pub(crate) use place::{Coordinate, CoordinateError, Place, canonical};
pub(crate) use sorted_set::SortedSet;

use chrono::{DateTime, Utc};

/// A UTC time. PostgreSQL keeps microseconds, so every time is cut to microseconds before it is
/// compared with anything ([`truncate`]).
///
/// ```
/// use chrono::TimeZone;
///
/// let noon: graphsink::Timestamp = chrono::Utc.with_ymd_and_hms(2026, 1, 5, 12, 0, 0).unwrap();
/// assert_eq!(noon.to_rfc3339(), "2026-01-05T12:00:00+00:00");
/// ```
pub type Timestamp = DateTime<Utc>;

/// Cuts a time to the microseconds that `timestamptz` keeps. A leap second becomes the second after
/// it, which is what is stored.
///
/// ```
/// use chrono::{TimeZone, Utc};
///
/// let precise = Utc.timestamp_nanos(1_000_001_999);
/// assert_eq!(graphsink::truncate(precise), Utc.timestamp_nanos(1_000_001_000));
/// ```
#[must_use]
pub fn truncate(time: Timestamp) -> Timestamp {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// The three tables, parents before children: the order in which every transaction locks them.
///
/// ```
/// assert_eq!(graphsink::Table::Connections.to_string(), "connections");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// `entities`
    Entities,
    /// `connections`
    Connections,
    /// `mentions`
    Mentions,
}

impl Table {
    /// All tables, parents before children.
    ///
    /// ```
    /// use graphsink::Table;
    ///
    /// assert_eq!(Table::ALL.map(Table::as_str), ["entities", "connections", "mentions"]);
    /// ```
    pub const ALL: [Self; 3] = [Self::Entities, Self::Connections, Self::Mentions];

    /// The table's name in the database, also its label in metrics.
    ///
    /// ```
    /// assert_eq!(graphsink::Table::Mentions.as_str(), "mentions");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entities => "entities",
            Self::Connections => "connections",
            Self::Mentions => "mentions",
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is no label of an enum of the database.
///
/// ```
/// let error = "reply".parse::<graphsink::SourceType>().unwrap_err();
/// assert_eq!(error.to_string(), "not a label of mention_source");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a label of {of}")]
pub struct UnknownLabel {
    /// The enum's name in the database.
    pub(crate) of: &'static str,
}

/// A merge rule: what two versions of the same row become.
pub(crate) trait Merge {
    /// Joins `other` into `self`.
    fn merge(&mut self, other: Self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_their_names_in_the_database() {
        assert_eq!(Table::ALL.map(|table| table.to_string()), ["entities", "connections", "mentions"]);
        assert_eq!(Table::ALL.map(Table::as_str), ["entities", "connections", "mentions"]);
        assert!(Table::ALL.is_sorted(), "tables are ordered with parents before children");
    }

    #[test]
    fn times_are_cut_down_to_microseconds() {
        let cut = |text: &str| truncate(text.parse().unwrap()).to_rfc3339();
        assert_eq!(cut("2024-01-10T14:20:00.123456999Z"), "2024-01-10T14:20:00.123456+00:00");
        assert_eq!(cut("1969-12-31T23:59:59.999999999Z"), "1969-12-31T23:59:59.999999+00:00");
        assert_eq!(cut("2016-12-31T23:59:60.5Z"), "2017-01-01T00:00:00.500+00:00", "a leap second");
    }
}
