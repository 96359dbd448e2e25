//! The engine's idea of "now".

use crate::record::{Timestamp, truncate};

/// The engine's idea of "now" for all figures that depend on time (recent counts, scores, levels).
///
/// ```
/// use graphsink::{AsOf, Config};
///
/// let as_of = AsOf::Fixed("2025-06-01T00:00:00Z".parse()?);
/// let config = Config::builder("postgresql:///evidence").as_of(as_of).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AsOf {
    /// The clock, read at the start of each transaction.
    #[default]
    Clock,
    /// A time fixed by the caller, for reproducible replays.
    Fixed(Timestamp),
}

impl AsOf {
    /// The time that this setting gives at this moment.
    ///
    /// ```
    /// use graphsink::AsOf;
    ///
    /// let time = "2026-01-05T12:00:00Z".parse()?;
    /// assert_eq!(AsOf::Fixed(time).now(), time);
    /// # Ok::<(), chrono::ParseError>(())
    /// ```
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            Self::Clock => truncate(chrono::Utc::now()),
            Self::Fixed(time) => time,
        }
    }

    pub(super) fn is_possible(self) -> bool {
        match self {
            Self::Clock => true,
            Self::Fixed(time) => is_possible_as_of(time),
        }
    }
}

/// Whether a time can be the engine's "now": the time and the 30 days before it must be storable.
pub(crate) fn is_possible_as_of(as_of: Timestamp) -> bool {
    /// 4713-01-01 BC, comfortably after PostgreSQL's earliest time.
    const EARLIEST_SECONDS: i64 = -210_831_897_600;
    as_of.timestamp() >= EARLIEST_SECONDS
}
