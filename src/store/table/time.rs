//! PostgreSQL's times: those that chrono can hold, and `infinity` on both sides, which other programs may have stored.

use tokio_postgres::types::{FromSql, Type};

use crate::record::Timestamp;

/// A time to read or to write. The greatest and the least time of chrono represent PostgreSQL's `infinity` and
/// `-infinity`. Units contain neither: the greatest has no whole microseconds, and the least is outside the range of
/// `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct StoredTime(pub(in crate::store) Timestamp);

const INFINITY: i64 = i64::MAX;
const MINUS_INFINITY: i64 = i64::MIN;

impl StoredTime {
    /// PostgreSQL's representation: microseconds since 2000-01-01, or the value for `infinity`. Every time that chrono
    /// can hold fits (`validate::check_time` has the reason).
    pub(in crate::store) fn micros(self) -> i64 {
        /// 2000-01-01 in microseconds since 1970-01-01.
        const ZERO: i64 = 946_684_800_000_000;
        match self.0 {
            time if time == Timestamp::MAX_UTC => INFINITY,
            time if time == Timestamp::MIN_UTC => MINUS_INFINITY,
            time => time.timestamp_micros() - ZERO,
        }
    }
}

impl<'a> FromSql<'a> for StoredTime {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        match <[u8; 8]>::try_from(raw).map(i64::from_be_bytes) {
            Ok(INFINITY) => Ok(Self(Timestamp::MAX_UTC)),
            Ok(MINUS_INFINITY) => Ok(Self(Timestamp::MIN_UTC)),
            _ => Timestamp::from_sql(kind, raw).map(Self),
        }
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_times_are_read_and_written_unchanged() {
        let written = |time| StoredTime(time).micros().to_be_bytes();
        let ordinary: Timestamp = "2024-01-10T14:20:00.000001Z".parse().unwrap();
        for (time, micros) in [
            (Timestamp::MAX_UTC, Some(i64::MAX)),
            (Timestamp::MIN_UTC, Some(i64::MIN)),
            (ordinary, None),
            (crate::record::truncate(Timestamp::MAX_UTC), None),
        ] {
            let bytes = written(time);
            let is_infinite = [i64::MAX, i64::MIN].iter().any(|micros| bytes == micros.to_be_bytes());
            assert_eq!(is_infinite, micros.is_some(), "{time}");
            assert!(micros.is_none_or(|micros| bytes == micros.to_be_bytes()));
            assert_eq!(StoredTime::from_sql(&Type::TIMESTAMPTZ, &bytes).unwrap(), StoredTime(time));
        }
    }
}
