//! A line as parsed by the typed parser: every field optional, none checked beyond its type.

use std::fmt;

use chrono::DateTime;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::reason::LineReason;
use crate::record::{Mention, Timestamp};
use crate::unit::PlaceObservation;

/// Characters of a wrong value that an error quotes.
const QUOTED_CHARS_MAX: usize = 40;

#[derive(Deserialize)]
pub(super) struct RawLine {
    pub(super) temp_id: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) restaurant: Option<Object<RawRestaurant>>,
    pub(super) restaurant_attributes: Option<Vec<Option<String>>>,
    pub(super) dish_or_category: Option<Object<RawDish>>,
    pub(super) dish_attributes: Option<Vec<Option<Object<RawAttribute>>>>,
    pub(super) categories: Option<Vec<Option<String>>>,
    pub(super) is_menu_item: Option<bool>,
    // Read for its type alone.
    #[serde(rename = "general_praise")]
    _general_praise: Option<bool>,
    pub(super) source: Option<Object<RawSource>>,
}

#[derive(Deserialize, Default)]
pub(super) struct RawRestaurant {
    pub(super) normalized_name: Option<String>,
    pub(super) original_text: Option<String>,
    pub(super) temp_id: Option<String>,
    pub(super) place: Option<Object<RawPlace>>,
}

#[derive(Deserialize)]
pub(super) struct RawDish {
    pub(super) normalized_name: Option<String>,
    pub(super) original_text: Option<String>,
    pub(super) temp_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawAttribute {
    pub(super) attribute: Option<String>,
    // Read for its type alone.
    #[serde(rename = "type")]
    _kind: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawPlace {
    latitude: Option<f64>,
    longitude: Option<f64>,
    address: Option<String>,
    google_place_id: Option<String>,
    metadata: Option<Value>,
    observed_at: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct RawSource {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    thread_id: Option<String>,
    url: Option<String>,
    subreddit: Option<String>,
    author: Option<String>,
    excerpt: Option<String>,
    upvotes: Option<Upvotes>,
    created_at: Option<String>,
    observed_at: Option<String>,
}

impl RawPlace {
    pub(super) fn checked(self, observed_at_default: Timestamp) -> Result<PlaceObservation, LineReason> {
        let observed_at = match self.observed_at {
            Some(text) => time(&text, "restaurant.place.observed_at")?,
            None => observed_at_default,
        };
        Ok(PlaceObservation {
            latitude: self.latitude,
            longitude: self.longitude,
            address: self.address,
            google_place_id: self.google_place_id,
            metadata: self.metadata,
            observed_at,
        })
    }
}

impl RawSource {
    pub(super) fn checked(self) -> Result<Mention, LineReason> {
        let kind = required(self.kind, "source.type")?;
        let source_type = kind.parse().map_err(|_| LineReason::WrongType {
            field: "source.type",
            expected: "\"post\" or \"comment\"",
            found: quoted(&kind),
        })?;
        let id = required(self.id, "source.id")?;
        let url = required(self.url, "source.url")?;
        let subreddit = required(self.subreddit, "source.subreddit")?;
        let created_at = time(&required(self.created_at, "source.created_at")?, "source.created_at")?;
        let mut mention = Mention::new(source_type, id, url, subreddit, created_at);
        if let Some(thread_id) = self.thread_id {
            mention.thread_id = thread_id.into();
        }
        if let Some(text) = self.observed_at {
            mention.observed_at = time(&text, "source.observed_at")?;
        }
        mention.content_excerpt = self.excerpt.unwrap_or_default();
        mention.author = self.author;
        mention.upvotes = self.upvotes.map_or(0, |Upvotes(upvotes)| upvotes);
        Ok(mention)
    }
}

pub(super) fn required(value: Option<String>, field: &'static str) -> Result<String, LineReason> {
    value.ok_or(LineReason::Missing { field })
}

fn time(text: &str, field: &'static str) -> Result<Timestamp, LineReason> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        // Converted to microseconds, so that second 60 becomes the next second. chrono would keep it as a time that
        // compares differently from the stored one.
        .and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros()))
        .ok_or_else(|| LineReason::WrongType {
            field,
            expected: "an RFC 3339 time with an offset",
            found: quoted(text),
        })
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

/// A value that must be a JSON object. A derived `Deserialize` alone would accept an array as the fields in their
/// order.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OnlyMap(std::marker::PhantomData)).map(Self)
    }
}

/// A 32-bit integer written as one.
#[derive(Debug)]
pub(super) struct Upvotes(i32);

impl<'de> Deserialize<'de> for Upvotes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        int32(&number).map(Self).ok_or_else(|| D::Error::custom("expected a 32-bit integer"))
    }
}

pub(super) fn int32(number: &serde_json::Number) -> Option<i32> {
    match number.as_i64() {
        Some(integer) => i32::try_from(integer).ok(),
        // serde_json reads the integer `-0` as a float.
        None => number.as_f64().filter(|float| *float == 0.0 && float.is_sign_negative()).map(|_| 0),
    }
}
