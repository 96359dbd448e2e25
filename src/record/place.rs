//! Where a restaurant is: one value that the newest observation replaces as a whole.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use super::{Merge, Timestamp};

/// Latitude or longitude in units of 1e-8 degrees, exactly what `numeric(·,8)` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Coordinate(i64);

/// Why a number is no coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoordinateError {
    /// NaN or infinite.
    #[error("is not a finite number")]
    NotFinite,
    /// Beyond the limit in degrees.
    #[error("is beyond {limit} degrees")]
    OutOfRange {
        /// 90 for a latitude, 180 for a longitude.
        limit: u16,
    },
}

impl Coordinate {
    const PER_DEGREE: i64 = 100_000_000;

    /// A latitude in degrees, -90 to 90, rounded to eight decimals (half away from zero).
    pub(crate) fn latitude(degrees: f64) -> Result<Self, CoordinateError> {
        Self::checked(degrees, 90)
    }

    /// A longitude in degrees, -180 to 180, rounded to eight decimals (half away from zero).
    pub(crate) fn longitude(degrees: f64) -> Result<Self, CoordinateError> {
        Self::checked(degrees, 180)
    }

    fn checked(degrees: f64, limit: u16) -> Result<Self, CoordinateError> {
        if !degrees.is_finite() {
            return Err(CoordinateError::NotFinite);
        }
        if degrees.abs() > f64::from(limit) {
            return Err(CoordinateError::OutOfRange { limit });
        }
        Ok(Self(round_decimal(degrees)))
    }

    /// From units of 1e-8 degrees, as read from the database.
    #[must_use]
    pub(crate) const fn from_units(units: i64) -> Self {
        Self(units)
    }

    /// In units of 1e-8 degrees.
    #[must_use]
    pub(crate) const fn units(self) -> i64 {
        self.0
    }
}

/// Rounds the *decimal* that a person wrote (the shortest one that reads back as this number), as
/// PostgreSQL rounds a numeric literal. Binary rounding would differ on halves.
fn round_decimal(degrees: f64) -> i64 {
    // Rust prints a float as its shortest decimal and never with an exponent.
    let shortest = degrees.abs().to_string();
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let digit = |place: usize| i64::from(fraction.as_bytes().get(place).map_or(0, |byte| byte - b'0'));
    let mut units = whole.parse::<i64>().unwrap_or(0) * Coordinate::PER_DEGREE;
    let mut weight = Coordinate::PER_DEGREE / 10;
    for place in 0..8 {
        units += digit(place) * weight;
        weight /= 10;
    }
    if digit(8) >= 5 {
        units += 1;
    }
    if degrees.is_sign_negative() { -units } else { units }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:08}", units / 100_000_000, units % 100_000_000)
    }
}

/// One observation of where a restaurant is. The newest observation wins **as a whole**: a newer
/// one without an address leaves the restaurant without an address.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Latitude and longitude, both or neither.
    pub(crate) location: Option<(Coordinate, Coordinate)>,
    /// Postal address, at most 500 characters.
    pub(crate) address: Option<String>,
    /// Google's identifier of the place, unique among restaurants.
    pub(crate) google_place_id: Option<String>,
    /// Any further facts: a JSON object, keys sorted, numbers as `jsonb` keeps them.
    pub(crate) metadata: Option<Value>,
    /// When this was observed.
    pub(crate) observed_at: Timestamp,
}

impl Place {
    /// The order of "wins": the newer observation; at equal times the greater serialized value
    /// (address, Google's id, latitude, longitude, metadata as one canonical JSON text).
    #[must_use]
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        self.observed_at.cmp(&other.observed_at).then_with(|| self.serialized().cmp(&other.serialized()))
    }

    /// The value as one canonical JSON text, for the tie at equal times.
    pub(crate) fn serialized(&self) -> String {
        let mut value = serde_json::json!({
            "address": self.address,
            "google_place_id": self.google_place_id,
            "latitude": self.location.map(|(latitude, _)| latitude.to_string()),
            "longitude": self.location.map(|(_, longitude)| longitude.to_string()),
            "metadata": self.metadata,
        });
        canonical(&mut value);
        value.to_string()
    }
}

/// The newest observation wins as a whole.
impl Merge for Place {
    fn merge(&mut self, other: Self) {
        if other.precedence(self) == Ordering::Greater {
            *self = other;
        }
    }
}

/// Puts a JSON value into the form in which two equal values are the same text: keys sorted (also
/// where another crate turns on `preserve_order` of `serde_json`) and numbers as `jsonb` gives them back.
pub(crate) fn canonical(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(canonical),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            for (key, mut item) in entries {
                canonical(&mut item);
                map.insert(key, item);
            }
        }
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64()) {
                *value = canonical_float(float);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A float as it comes back from `jsonb`, which keeps decimals: without negative zero, and whole
/// numbers that JSON writes with an exponent (from 1e16 on) as integers, as far as they fit.
fn canonical_float(float: f64) -> Value {
    const WRITTEN_WITH_EXPONENT: f64 = 1e16;
    if float == 0.0 {
        Value::from(0.0)
    } else if float.fract() != 0.0 || float.abs() < WRITTEN_WITH_EXPONENT {
        Value::from(float)
    } else if (0.0..u64::MAX as f64).contains(&float) {
        Value::from(float as u64)
    } else if (i64::MIN as f64..0.0).contains(&float) {
        Value::from(float as i64)
    } else {
        Value::from(float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use chrono::Utc;

    fn check(degrees: f64, expected: &str) {
        assert_eq!(Coordinate::longitude(degrees).unwrap().to_string(), expected);
    }

    #[test]
    fn coordinates_round_as_numeric_literals_do_in_sql() {
        check(30.123_456_785, "30.12345679");
        check(-30.123_456_785, "-30.12345679");
        check(1.005, "1.00500000");
        check(-0.000_000_004, "0.00000000");
        check(179.999_999_999, "180.00000000");
        check(1e-9, "0.00000000");
        check(7.0, "7.00000000");
    }

    #[test]
    fn coordinates_out_of_range_are_refused() {
        assert_eq!(Coordinate::latitude(90.000_000_001), Err(CoordinateError::OutOfRange { limit: 90 }));
        assert_eq!(Coordinate::longitude(-181.0), Err(CoordinateError::OutOfRange { limit: 180 }));
        assert_eq!(Coordinate::latitude(f64::NAN), Err(CoordinateError::NotFinite));
        assert!(Coordinate::latitude(-90.0).is_ok());
    }

    #[test]
    fn canonical_json_sorts_keys_and_drops_negative_zero() {
        let mut value: Value = serde_json::from_str(r#"{"b":-0.0,"a":[{"d":1,"c":2}]}"#).unwrap();
        canonical(&mut value);
        assert_eq!(value.to_string(), r#"{"a":[{"c":2,"d":1}],"b":0.0}"#);
    }

    #[test]
    fn numbers_are_canonicalized_as_jsonb_returns_them() {
        let check = |given: Value, expected: &str| {
            let mut value = given;
            canonical(&mut value);
            assert_eq!(value, serde_json::from_str::<Value>(expected).unwrap(), "the kind of number is equal, too");
        };
        check(1.0.into(), "1.0");
        check((-7.0).into(), "-7.0");
        check(9_999_999_999_999_998.0.into(), "9999999999999998.0");
        check(1e16.into(), "10000000000000000");
        check((-1e16).into(), "-10000000000000000");
        check(1e19.into(), "10000000000000000000");
        check((i64::MIN as f64).into(), "-9223372036854775808");
        check(1.844_674_407_370_955_2e19.into(), "1.8446744073709552e19");
        check((-1e19).into(), "-1e19");
        check(1e300.into(), "1e300");
        check((-1e300).into(), "-1e300");
        check(1e-300.into(), "1e-300");
        check(u64::MAX.into(), "18446744073709551615");
    }

    #[test]
    fn the_newest_place_wins_as_a_whole() {
        let at = |seconds| Utc.timestamp_opt(seconds, 0).unwrap();
        let full = Place {
            location: None,
            address: Some("a".into()),
            google_place_id: Some("g".into()),
            metadata: None,
            observed_at: at(1),
        };
        let newer = Place { address: None, google_place_id: None, observed_at: at(2), ..full.clone() };
        let mut merged = full.clone();
        merged.merge(newer.clone());
        assert_eq!(merged, newer);
        merged.merge(full);
        assert_eq!(merged, newer);
    }
}
