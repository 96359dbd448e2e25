//! One line of the loader's format: parsed, with its defaults, or the reason why not.
//!
//! Not here: which lines belong together ([`Units`](super::Units)), and the rules that every unit
//! obeys ([`UnitOfWork::validate`]). A line that parses may still make an invalid unit.
//!
//! The typed parser is the fast way and the only one for good lines. Its errors do not name fields,
//! so a line that it refuses is looked at a second time, against the table [`FIELDS`].

use std::fmt;

use chrono::DateTime;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::record::{Mention, SourceType, Timestamp};
use crate::unit::{PlaceObservation, UnitOfWork};

/// Deepest nesting that is read. Metadata may be nested 64 deep, so no line that can be valid is
/// refused; deeper ones are no matter of a parser that recurses.
const DEPTH_MAX: usize = 127;
/// Characters of a wrong value that an error quotes.
const QUOTED_CHARS_MAX: usize = 40;

/// One line of the input, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct Line {
    unit: Option<String>,
    temp_id: Option<String>,
    restaurant: Named,
    place: Option<PlaceObservation>,
    restaurant_attributes: Vec<String>,
    dish: Option<Named>,
    dish_attributes: Vec<String>,
    categories: Vec<String>,
    is_menu_item: bool,
    mention: Mention,
}

/// A restaurant or a dish as a line names it.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    alias: Option<String>,
    temp_id: Option<String>,
}

/// Rows that a line added to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// Entities, the repeated ones too.
    pub entities: usize,
    /// 1, or 0 when the line has no dish.
    pub connections: usize,
    /// 1, or 0 when the line has no dish.
    pub mentions: usize,
}

impl Line {
    /// Parses one line, without its line feed. A blank line is nothing.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, LineReason> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| LineReason::NotUtf8 { column: error.valid_up_to() + 1 })?;
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        match serde_json::from_str::<Object<RawLine>>(text) {
            Ok(Object(raw)) => Self::checked(raw).map(Some),
            Err(error) => Err(diagnose(text, &error)),
        }
    }

    /// The unit that the line names.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Adds what the line says to a unit, entities first.
    pub fn add_to(self, unit: &mut UnitOfWork) -> Added {
        let mut entities = 1;
        let attributes: Vec<_> =
            self.restaurant_attributes.into_iter().map(|name| unit.restaurant_attribute(name).handle()).collect();
        entities += attributes.len();
        let mut restaurant = self.restaurant.add_to(unit, UnitOfWork::restaurant);
        for attribute in attributes {
            restaurant = restaurant.attribute(attribute);
        }
        if let Some(place) = self.place {
            restaurant = restaurant.place(place);
        }
        let restaurant = restaurant.handle();
        let dish = self.dish.map(|dish| dish.add_to(unit, UnitOfWork::dish).handle());
        let dish_attributes: Vec<_> =
            self.dish_attributes.into_iter().map(|name| unit.dish_attribute(name).handle()).collect();
        let categories: Vec<_> = self.categories.into_iter().map(|name| unit.dish(name).handle()).collect();
        entities += dish_attributes.len() + categories.len();
        let Some(dish) = dish else {
            return Added { entities, connections: 0, mentions: 0 };
        };
        let mut connection = unit.connection(restaurant, dish).menu_item(self.is_menu_item);
        for attribute in dish_attributes {
            connection = connection.dish_attribute(attribute);
        }
        for category in categories {
            connection = connection.category(category);
        }
        let connection = connection.handle();
        match self.temp_id {
            Some(temp_id) => unit.mention_with_temp_id(connection, self.mention, temp_id),
            None => unit.mention(connection, self.mention),
        };
        Added { entities: entities + 1, connections: 1, mentions: 1 }
    }

    fn checked(raw: RawLine) -> Result<Self, LineReason> {
        let RawRestaurant { normalized_name, original_text, temp_id, place } =
            raw.restaurant.map(|Object(restaurant)| restaurant).unwrap_or_default();
        let restaurant =
            Named { name: required(normalized_name, "restaurant.normalized_name")?, alias: original_text, temp_id };
        let mention = raw.source.map(|Object(source)| source).unwrap_or_default().checked()?;
        let place = match place {
            Some(Object(place)) => Some(place.checked(mention.observed_at)?),
            None => None,
        };
        let dish = raw.dish_or_category.and_then(|Object(dish)| {
            Some(Named { name: dish.normalized_name?, alias: dish.original_text, temp_id: dish.temp_id })
        });
        let dish_attributes = raw.dish_attributes.unwrap_or_default().into_iter().flatten();
        Ok(Self {
            unit: raw.unit,
            temp_id: raw.temp_id,
            restaurant,
            place,
            restaurant_attributes: raw.restaurant_attributes.unwrap_or_default().into_iter().flatten().collect(),
            dish,
            dish_attributes: dish_attributes.filter_map(|Object(attribute)| attribute.attribute).collect(),
            categories: raw.categories.unwrap_or_default().into_iter().flatten().collect(),
            is_menu_item: raw.is_menu_item.unwrap_or(true),
            mention,
        })
    }
}

impl Named {
    fn add_to<'a>(
        self,
        unit: &'a mut UnitOfWork,
        add: impl FnOnce(&'a mut UnitOfWork, String) -> crate::unit::EntityBuilder<'a>,
    ) -> crate::unit::EntityBuilder<'a> {
        let mut entity = add(unit, self.name);
        if let Some(alias) = self.alias {
            entity = entity.alias(alias);
        }
        if let Some(temp_id) = self.temp_id {
            entity = entity.temp_id(temp_id);
        }
        entity
    }
}

/// A line that is not of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// The line's number in its input, from 1.
    pub line: u64,
    /// Why.
    pub reason: LineReason,
}

/// Why a line cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineReason {
    /// The bytes are no UTF-8.
    #[error("is no valid UTF-8 from byte {column} on")]
    NotUtf8 {
        /// The first bad byte, from 1.
        column: usize,
    },
    /// The text is no JSON.
    #[error("is no JSON: {message} at column {column}")]
    NotJson {
        /// Where the parser gave up, from 1.
        column: usize,
        /// What it said.
        message: String,
    },
    /// The JSON is nested deeper than anything in the format.
    #[error("is nested deeper than {limit}")]
    TooDeep {
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// The JSON is something else than an object.
    #[error("is {found}, not an object")]
    NotObject {
        /// What it is.
        found: &'static str,
    },
    /// A required field is absent or null.
    #[error("{field} is missing")]
    Missing {
        /// The field, dotted.
        field: &'static str,
    },
    /// A field holds something else than the format says.
    #[error("{field} must be {expected}, this is {found}")]
    WrongType {
        /// The field, dotted.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An object of the format is not well-formed in some other way: a field occurs twice.
    #[error("cannot be read: {message} at column {column}")]
    Malformed {
        /// Where the parser gave up, from 1.
        column: usize,
        /// What it said.
        message: String,
    },
    /// The line is longer than any that is read. It was not held in memory.
    #[error("is longer than {limit} bytes")]
    LineTooLong {
        /// The longest that is read.
        limit: usize,
    },
    /// The unit that the line belongs to has too many rows or bytes to be written as one.
    #[error("belongs to a unit of more than {rows} rows or {bytes} bytes of input: split it")]
    UnitTooLarge {
        /// The largest number of rows.
        rows: usize,
        /// The largest number of bytes of its lines.
        bytes: usize,
    },
    /// The input could not be read on after this line, so that its unit may lack lines.
    #[error("belongs to a unit within which the input broke off")]
    UnitCutOff,
}

impl LineReason {
    /// A short stable name of the reason, for counting; as [`InvalidUnit::rule`](crate::InvalidUnit::rule).
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::TooDeep { .. } => "too_deep",
            Self::NotObject { .. } => "not_an_object",
            Self::Missing { .. } => "missing_field",
            Self::WrongType { .. } => "wrong_field_type",
            Self::Malformed { .. } => "malformed",
            Self::LineTooLong { .. } => "line_too_long",
            Self::UnitTooLarge { .. } => "unit_too_large",
            Self::UnitCutOff => "unit_cut_off",
        }
    }
}

/// The unit that a bad line names, where it is good enough to tell.
pub(super) fn unit_of_bad_line(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value.get("unit")?.as_str().map(str::to_owned)
}

#[derive(Deserialize)]
struct RawLine {
    temp_id: Option<String>,
    unit: Option<String>,
    restaurant: Option<Object<RawRestaurant>>,
    restaurant_attributes: Option<Vec<Option<String>>>,
    dish_or_category: Option<Object<RawDish>>,
    dish_attributes: Option<Vec<Option<Object<RawAttribute>>>>,
    categories: Option<Vec<Option<String>>>,
    is_menu_item: Option<bool>,
    // Read for its type alone.
    #[serde(rename = "general_praise")]
    _general_praise: Option<bool>,
    source: Option<Object<RawSource>>,
}

#[derive(Deserialize, Default)]
struct RawRestaurant {
    normalized_name: Option<String>,
    original_text: Option<String>,
    temp_id: Option<String>,
    place: Option<Object<RawPlace>>,
}

#[derive(Deserialize)]
struct RawDish {
    normalized_name: Option<String>,
    original_text: Option<String>,
    temp_id: Option<String>,
}

#[derive(Deserialize)]
struct RawAttribute {
    attribute: Option<String>,
    // Read for its type alone.
    #[serde(rename = "type")]
    _kind: Option<String>,
}

#[derive(Deserialize)]
struct RawPlace {
    latitude: Option<f64>,
    longitude: Option<f64>,
    address: Option<String>,
    google_place_id: Option<String>,
    metadata: Option<Value>,
    observed_at: Option<String>,
}

#[derive(Deserialize, Default)]
struct RawSource {
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
    fn checked(self, observed_at_default: Timestamp) -> Result<PlaceObservation, LineReason> {
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
    fn checked(self) -> Result<Mention, LineReason> {
        let kind = required(self.kind, "source.type")?;
        let source_type = SourceType::from_label(&kind).ok_or_else(|| LineReason::WrongType {
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

fn required(value: Option<String>, field: &'static str) -> Result<String, LineReason> {
    value.ok_or(LineReason::Missing { field })
}

fn time(text: &str, field: &'static str) -> Result<Timestamp, LineReason> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        // By way of microseconds, so that second 60 becomes the next second. chrono would keep it as
        // a time that compares differently from what PostgreSQL stores.
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

/// A value that must be written as a JSON object. A derived `Deserialize` alone would take an array
/// for the fields in their order.
#[derive(Debug)]
struct Object<T>(T);

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
struct Upvotes(i32);

impl<'de> Deserialize<'de> for Upvotes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        int32(&number).map(Self).ok_or_else(|| D::Error::custom("expected a 32-bit integer"))
    }
}

fn int32(number: &serde_json::Number) -> Option<i32> {
    match number.as_i64() {
        Some(integer) => i32::try_from(integer).ok(),
        // serde_json reads the integer `-0` as a float.
        None => number.as_f64().filter(|float| *float == 0.0 && float.is_sign_negative()).map(|_| 0),
    }
}

/// What a field of the format holds, `null` apart.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    Flag,
    Int32,
    Number,
    Object,
    Texts,
    Objects,
}

/// Every field of the format, parents before children, for telling which one is wrong.
const FIELDS: [(&str, Shape); 34] = [
    ("temp_id", Shape::Text),
    ("unit", Shape::Text),
    ("restaurant", Shape::Object),
    ("restaurant.normalized_name", Shape::Text),
    ("restaurant.original_text", Shape::Text),
    ("restaurant.temp_id", Shape::Text),
    ("restaurant.place", Shape::Object),
    ("restaurant.place.latitude", Shape::Number),
    ("restaurant.place.longitude", Shape::Number),
    ("restaurant.place.address", Shape::Text),
    ("restaurant.place.google_place_id", Shape::Text),
    ("restaurant.place.observed_at", Shape::Text),
    ("restaurant_attributes", Shape::Texts),
    ("dish_or_category", Shape::Object),
    ("dish_or_category.normalized_name", Shape::Text),
    ("dish_or_category.original_text", Shape::Text),
    ("dish_or_category.temp_id", Shape::Text),
    ("dish_attributes", Shape::Objects),
    ("dish_attributes.attribute", Shape::Text),
    ("dish_attributes.type", Shape::Text),
    ("categories", Shape::Texts),
    ("is_menu_item", Shape::Flag),
    ("general_praise", Shape::Flag),
    ("source", Shape::Object),
    ("source.type", Shape::Text),
    ("source.id", Shape::Text),
    ("source.thread_id", Shape::Text),
    ("source.url", Shape::Text),
    ("source.subreddit", Shape::Text),
    ("source.author", Shape::Text),
    ("source.excerpt", Shape::Text),
    ("source.upvotes", Shape::Int32),
    ("source.created_at", Shape::Text),
    ("source.observed_at", Shape::Text),
];

impl Shape {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::Int32 => "a 32-bit integer",
            Self::Number => "a number",
            Self::Object => "an object",
            Self::Texts => "a list of strings",
            Self::Objects => "a list of objects",
        }
    }

    /// The part of `value` that does not fit.
    fn misfit(self, value: &Value) -> Option<&Value> {
        let fits = match (self, value) {
            (_, Value::Null)
            | (Self::Text, Value::String(_))
            | (Self::Flag, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::Object, Value::Object(_)) => true,
            (Self::Int32, Value::Number(number)) => int32(number).is_some(),
            (Self::Texts, Value::Array(items)) => return items.iter().find_map(|item| Self::Text.misfit(item)),
            (Self::Objects, Value::Array(items)) => return items.iter().find_map(|item| Self::Object.misfit(item)),
            _ => false,
        };
        (!fits).then_some(value)
    }
}

/// Says why the typed parser refused a line.
fn diagnose(text: &str, error: &serde_json::Error) -> LineReason {
    if depth(text) > DEPTH_MAX {
        return LineReason::TooDeep { limit: DEPTH_MAX };
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return LineReason::NotJson { column: error.column(), message: message(&error) },
    };
    if !value.is_object() {
        return LineReason::NotObject { found: noun(&value) };
    }
    for (field, shape) in FIELDS {
        let mut values = vec![&value];
        for name in field.split('.') {
            // A list of objects is looked through member by member.
            values = values
                .into_iter()
                .flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice))
                .filter_map(|value| value.get(name))
                .collect();
        }
        if let Some(found) = values.into_iter().find_map(|value| shape.misfit(value)) {
            let found = found.as_number().map_or_else(|| noun(found).to_owned(), ToString::to_string);
            return LineReason::WrongType { field, expected: shape.as_str(), found };
        }
    }
    LineReason::Malformed { column: error.column(), message: message(error) }
}

/// The parser's message without its position: every line is its line 1.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

const fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// How deeply brackets outside of strings are nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::InvalidUnit;
    use proptest::prelude::*;
    use serde_json::json;

    /// The example of the module's documentation.
    fn full() -> Value {
        json!({
            "temp_id": "m1", "unit": "t3_xyz",
            "restaurant": {
                "normalized_name": "franklin bbq", "original_text": "Franklin's", "temp_id": "r1",
                "place": { "latitude": 30.27, "longitude": -97.73, "address": "900 E 11th St", "google_place_id": "ChIJ",
                           "metadata": { "price": 2 }, "observed_at": "2024-01-12T00:00:00+02:00" }
            },
            "restaurant_attributes": ["patio"],
            "dish_or_category": { "normalized_name": "brisket", "original_text": "the brisket", "temp_id": "d1" },
            "dish_attributes": [{ "attribute": "smoky", "type": "descriptive" }],
            "categories": ["bbq"],
            "is_menu_item": false, "general_praise": true,
            "source": { "type": "comment", "id": "t1_abc", "thread_id": "t3_xyz", "url": "https://example.org/t1_abc",
                        "subreddit": "austinfood", "author": "someone", "excerpt": "so good", "upvotes": 67,
                        "created_at": "2024-01-10T14:20:00Z", "observed_at": "2024-01-11T00:00:00.1234567Z" }
        })
    }

    fn minimal() -> Value {
        json!({
            "restaurant": { "normalized_name": "franklin bbq" },
            "source": { "type": "post", "id": "t3_a", "url": "https://example.org", "subreddit": "food",
                        "created_at": "2024-01-10T14:20:00Z" }
        })
    }

    /// `full` with one field set, or taken away where the value is nothing.
    fn with(pointer: &str, value: Option<Value>) -> Value {
        let mut line = full();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = line.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => parent.insert(name.to_owned(), value),
            None => parent.remove(name),
        };
        line
    }

    fn parsed(line: &Value) -> Line {
        Line::parse(line.to_string().as_bytes()).unwrap().unwrap()
    }

    fn reason(line: &[u8]) -> LineReason {
        Line::parse(line).unwrap_err()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_field_is_read() {
        let line = parsed(&full());
        assert_eq!(line.unit(), Some("t3_xyz"));
        assert_eq!(line.temp_id.as_deref(), Some("m1"));
        assert_eq!(line.restaurant.name, "franklin bbq");
        assert_eq!(line.restaurant.alias.as_deref(), Some("Franklin's"));
        assert_eq!(line.restaurant.temp_id.as_deref(), Some("r1"));
        assert_eq!(line.restaurant_attributes, ["patio"]);
        let place = line.place.unwrap();
        assert_eq!((place.latitude, place.longitude), (Some(30.27), Some(-97.73)));
        assert_eq!(place.address.as_deref(), Some("900 E 11th St"));
        assert_eq!(place.google_place_id.as_deref(), Some("ChIJ"));
        assert_eq!(place.metadata, Some(json!({ "price": 2 })));
        assert_eq!(place.observed_at, at("2024-01-11T22:00:00Z"));
        let dish = line.dish.unwrap();
        assert_eq!((dish.name.as_str(), dish.alias.as_deref()), ("brisket", Some("the brisket")));
        assert_eq!(dish.temp_id.as_deref(), Some("d1"));
        assert_eq!(line.dish_attributes, ["smoky"]);
        assert_eq!(line.categories, ["bbq"]);
        assert!(!line.is_menu_item);
        let expected = Mention::new(
            SourceType::Comment,
            "t1_abc",
            "https://example.org/t1_abc",
            "austinfood",
            at("2024-01-10T14:20:00Z"),
        );
        let expected = expected.thread("t3_xyz").author("someone").excerpt("so good").upvotes(67);
        assert_eq!(line.mention, expected.observed_at(at("2024-01-11T00:00:00.123456Z")));
    }

    #[test]
    fn absent_and_null_fields_take_their_defaults() {
        let mut nulls = minimal();
        for field in ["temp_id", "unit", "restaurant_attributes", "dish_or_category", "dish_attributes", "categories"] {
            nulls[field] = Value::Null;
        }
        for field in ["is_menu_item", "general_praise"] {
            nulls[field] = Value::Null;
        }
        for field in ["original_text", "temp_id", "place"] {
            nulls["restaurant"][field] = Value::Null;
        }
        for field in ["thread_id", "author", "excerpt", "upvotes", "observed_at"] {
            nulls["source"][field] = Value::Null;
        }
        for value in [minimal(), nulls] {
            let line = parsed(&value);
            assert_eq!((line.unit(), &line.temp_id, &line.restaurant.alias, &line.place), (None, &None, &None, &None));
            assert!(line.dish.is_none() && line.is_menu_item);
            assert!(
                line.restaurant_attributes.is_empty() && line.dish_attributes.is_empty() && line.categories.is_empty()
            );
            let expected =
                Mention::new(SourceType::Post, "t3_a", "https://example.org", "food", at("2024-01-10T14:20:00Z"));
            assert_eq!(line.mention, expected, "its own thread, no words, no votes, observed when written");
        }
    }

    #[test]
    fn a_place_is_observed_with_its_source_unless_it_says_otherwise() {
        let place = |line: &Value| parsed(line).place.unwrap();
        let source = at("2024-01-11T00:00:00.123456Z");
        assert_eq!(place(&with("/restaurant/place/observed_at", None)).observed_at, source);
        let empty = place(&with("/restaurant/place", Some(json!({}))));
        assert_eq!(empty, PlaceObservation::new(source));
        let mut line = with("/restaurant/place/observed_at", None);
        line["source"]["observed_at"] = Value::Null;
        assert_eq!(place(&line).observed_at, at("2024-01-10T14:20:00Z"));
    }

    #[test]
    fn what_is_not_required_may_lack_its_name() {
        assert!(parsed(&with("/dish_or_category/normalized_name", None)).dish.is_none());
        let attributes = json!([null, {}, { "type": "descriptive" }, { "attribute": "smoky" }]);
        assert_eq!(parsed(&with("/dish_attributes", Some(attributes))).dish_attributes, ["smoky"]);
        assert_eq!(parsed(&with("/categories", Some(json!([null, "bbq"])))).categories, ["bbq"]);
    }

    #[test]
    fn times_are_cut_to_microseconds_and_second_60_is_the_next() {
        let created = |text: &str| {
            let mut line = minimal();
            line["source"]["created_at"] = text.into();
            parsed(&line).mention.created_at
        };
        assert_eq!(created("2024-01-10T14:20:00.9999999-05:30"), at("2024-01-10T19:50:00.999999Z"));
        assert_eq!(created("2016-12-31T23:59:60Z"), at("2017-01-01T00:00:00Z"));
        assert_eq!(created("1969-12-31T23:59:59.5z"), at("1969-12-31T23:59:59.5Z"));
    }

    #[test]
    fn blank_lines_and_unknown_fields_are_ignored() {
        for blank in ["", " ", "\t\r"] {
            assert!(Line::parse(blank.as_bytes()).unwrap().is_none());
        }
        let mut line = full();
        line["mood"] = json!({ "deep": [[[[1]]]] });
        line["source"]["karma"] = json!("x");
        line["restaurant"]["place"]["rating"] = json!(4.5);
        assert!(Line::parse(line.to_string().as_bytes()).unwrap().is_some());
        let deep = format!(r#"{{"mood":{}1{},{}"#, "[".repeat(500), "]".repeat(500), &minimal().to_string()[1..]);
        assert!(Line::parse(deep.as_bytes()).unwrap().is_some(), "also what is nested deeply");
    }

    #[test]
    fn missing_fields_are_named() {
        for field in ["restaurant", "restaurant.normalized_name", "source", "source.type", "source.id", "source.url"]
            .into_iter()
            .chain(["source.subreddit", "source.created_at"])
        {
            let pointer = format!("/{}", field.replace('.', "/"));
            for value in [None, Some(Value::Null)] {
                let LineReason::Missing { field: named } = reason(with(&pointer, value).to_string().as_bytes()) else {
                    panic!("{field}")
                };
                assert!(named.starts_with(field), "{field}: {named}");
            }
        }
    }

    #[test]
    fn fields_of_the_wrong_type_are_named() {
        let check = |pointer: &str, value: Value, expected: &str| {
            let reason = reason(with(pointer, Some(value)).to_string().as_bytes());
            assert_eq!(reason.rule(), "wrong_field_type");
            assert_eq!(reason.to_string(), expected);
        };
        check("/unit", json!(7), "unit must be a string, this is 7");
        check("/temp_id", json!([]), "temp_id must be a string, this is a list");
        check("/restaurant", json!(["franklin"]), "restaurant must be an object, this is a list");
        check("/restaurant/place", json!("Austin"), "restaurant.place must be an object, this is a string");
        check(
            "/restaurant/place/latitude",
            json!("30"),
            "restaurant.place.latitude must be a number, this is a string",
        );
        check(
            "/restaurant_attributes",
            json!("patio"),
            "restaurant_attributes must be a list of strings, this is a string",
        );
        check("/restaurant_attributes", json!(["a", 1]), "restaurant_attributes must be a list of strings, this is 1");
        check("/dish_attributes", json!(["smoky"]), "dish_attributes must be a list of objects, this is a string");
        check(
            "/dish_attributes",
            json!([{ "attribute": "a" }, { "attribute": {} }]),
            "dish_attributes.attribute must be a string, this is an object",
        );
        check("/is_menu_item", json!("yes"), "is_menu_item must be true or false, this is a string");
        check("/general_praise", json!(1), "general_praise must be true or false, this is 1");
        check("/source/type", json!("tweet"), "source.type must be \"post\" or \"comment\", this is \"tweet\"");
        check("/source/type", json!({ "post": null }), "source.type must be a string, this is an object");
        for (upvotes, found) in [
            (json!(1.0), "1.0"),
            (json!(1e2), "100.0"),
            (json!("67"), "a string"),
            (json!(2_147_483_648_i64), "2147483648"),
            (json!(-2_147_483_649_i64), "-2147483649"),
        ] {
            check("/source/upvotes", upvotes, &format!("source.upvotes must be a 32-bit integer, this is {found}"));
        }
        for time in ["2024-01-10T14:20:00", "2024-01-10", "yesterday", "2024-02-30T00:00:00Z", ""] {
            let expected = format!("source.created_at must be an RFC 3339 time with an offset, this is {time:?}");
            check("/source/created_at", json!(time), &expected);
        }
        check("/source/observed_at", json!(1), "source.observed_at must be a string, this is 1");
    }

    #[test]
    fn upvotes_are_any_32_bit_integer() {
        for (text, upvotes) in [("2147483647", i32::MAX), ("-2147483648", i32::MIN), ("-0", 0), ("0", 0)] {
            let line = full().to_string().replace(":67", &format!(":{text}"));
            assert_eq!(Line::parse(line.as_bytes()).unwrap().unwrap().mention.upvotes, upvotes);
        }
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let check =
            |line: &[u8], rule: &str| assert_eq!(reason(line).rule(), rule, "{}", String::from_utf8_lossy(line));
        check(b"{\"restaurant\":\"\xff\"}", "not_utf8");
        check(b"{\"a\": ", "not_json");
        check(b"brisket at franklin", "not_json");
        check(b"{} {}", "not_json");
        check(b"\xef\xbb\xbf{}", "not_json");
        check(br#"{"restaurant": {"normalized_name": "\ud800"}}"#, "not_json");
        check(b"[1]", "not_an_object");
        check(br#"["m1", null]"#, "not_an_object");
        check(b"null", "not_an_object");
        check(br#"{"unit": "a", "unit": "b"}"#, "malformed");
        let deep = format!(r#"{{"restaurant":{{"place":{{"metadata":{}{}}}}}}}"#, "[".repeat(200), "]".repeat(200));
        check(deep.as_bytes(), "too_deep");
        assert_eq!(reason(b"{\"a\": \xff").to_string(), "is no valid UTF-8 from byte 7 on");
        assert_eq!(reason(b"{} x").to_string(), "is no JSON: trailing characters at column 4");
    }

    #[test]
    fn a_line_becomes_its_rows() {
        let mut unit = UnitOfWork::new();
        let added = parsed(&full()).add_to(&mut unit);
        assert_eq!(added, Added { entities: 5, connections: 1, mentions: 1 });
        assert_eq!(unit.rows(), 7);
        unit.validate(7).unwrap();
    }

    #[test]
    fn a_line_without_a_dish_becomes_all_entities_it_names() {
        let mut unit = UnitOfWork::new();
        let added = parsed(&with("/dish_or_category", None)).add_to(&mut unit);
        assert_eq!(added, Added { entities: 4, connections: 0, mentions: 0 });
        unit.validate(4).unwrap();
    }

    #[test]
    fn the_rules_of_a_unit_are_left_to_the_unit() {
        let check = |pointer: &str, value: Value, rule: &str| {
            let mut unit = UnitOfWork::new();
            parsed(&with(pointer, Some(value))).add_to(&mut unit);
            assert_eq!(unit.validate(100).map_err(|invalid: InvalidUnit| invalid.rule()), Err(rule), "{pointer}");
        };
        check("/restaurant/normalized_name", json!(" "), "blank_name");
        check("/restaurant/original_text", json!(""), "blank_alias");
        check("/restaurant/place/latitude", json!(91), "coordinate_out_of_range");
        check("/restaurant/place/latitude", Value::Null, "location_incomplete");
        check("/restaurant/place/metadata", json!([1]), "metadata_not_object");
        check("/categories", json!(["a\0"]), "nul_character");
        check("/source/subreddit", json!("x".repeat(101)), "text_too_long");
        check("/source/thread_id", json!(""), "empty_text");
        check("/source/observed_at", json!("2024-01-10T14:19:59Z"), "observed_before_created");
    }

    #[test]
    fn the_unit_of_a_bad_line_is_told_where_it_can_be() {
        assert_eq!(unit_of_bad_line(br#"{"unit": "a", "source": 1}"#).as_deref(), Some("a"));
        assert_eq!(unit_of_bad_line(br#"{"unit": 1}"#), None);
        assert_eq!(unit_of_bad_line(br#"{"unit": "a""#), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            Just(json!("2024-01-10T14:20:00Z")),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Line::parse(&bytes));
            unit_of_bad_line(&bytes);
        }

        #[test]
        fn no_value_of_any_field_makes_it_panic(field in 0..FIELDS.len(), value in any_json()) {
            let (field, shape) = FIELDS[field];
            let pointer = format!("/{}", field.replace('.', "/"));
            if full().pointer(&pointer).is_some() {
                let fits = shape.misfit(&value).is_none();
                match Line::parse(with(&pointer, Some(value)).to_string().as_bytes()) {
                    Ok(Some(line)) => {
                        prop_assert!(fits, "{field}");
                        let mut unit = UnitOfWork::new();
                        line.add_to(&mut unit);
                        drop(unit.validate(100));
                    }
                    Ok(None) => prop_assert!(false, "a line that is not blank"),
                    // A string that is no time is a misfit of a kind that the table does not know.
                    Err(LineReason::WrongType { field: named, .. } | LineReason::Missing { field: named }) => {
                        prop_assert!(named.starts_with(field), "{named} for {field}");
                    }
                    Err(reason) => prop_assert!(false, "{field}: {reason}"),
                }
            }
        }

        #[test]
        fn a_cut_line_is_an_error_and_no_panic(cut in 1_usize..600) {
            let text = full().to_string();
            prop_assert!(Line::parse(&text.as_bytes()[..cut.min(text.len() - 1)]).is_err());
        }
    }
}
