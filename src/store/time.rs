//! Times as PostgreSQL has them: what chrono can hold, and `infinity` on both sides, which other programs may have stored.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::record::Timestamp;

/// A time to read or to write. The greatest and the least time that chrono has stand for PostgreSQL's `infinity` and
/// `-infinity`. No unit has one of them: the greatest has no whole microseconds, and the least lies before what `timestamptz`
/// can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredTime(pub(super) Timestamp);

const INFINITY: i64 = i64::MAX;
const MINUS_INFINITY: i64 = i64::MIN;

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

impl ToSql for StoredTime {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        if self.0 == Timestamp::MAX_UTC {
            out.put_i64(INFINITY);
        } else if self.0 == Timestamp::MIN_UTC {
            out.put_i64(MINUS_INFINITY);
        } else {
            return self.0.to_sql(kind, out);
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_read_and_written_as_what_it_is() {
        let written = |time| {
            let mut out = BytesMut::new();
            StoredTime(time).to_sql(&Type::TIMESTAMPTZ, &mut out).unwrap();
            out.to_vec()
        };
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
