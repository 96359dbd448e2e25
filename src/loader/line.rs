//! One line of the loader's format: parsed, with its defaults, or the reason for its refusal.
//!
//! Not handled here: grouping of lines ([`Units`](super::Units)), and the rules of all units
//! ([`UnitOfWork::validate`]). A line that parses may still make an invalid unit.
//!
//! The typed parser (`raw`) is fast, and the only one for good lines. Its errors do not name fields, so a line that it
//! refuses is inspected again (`diagnosis`).

use super::diagnosis::diagnose;
use super::raw::{Object, RawLine, RawRestaurant, required};
use super::reason::LineReason;
use crate::record::Mention;
use crate::unit::{PlaceObservation, UnitOfWork};

/// One line of the input, with its defaults filled in.
///
/// ```
/// use graphsink::{UnitOfWork, loader::Line};
///
/// let text = br#"{"restaurant": {"normalized_name": "franklin bbq"}, "dish_or_category": {"normalized_name": "brisket"},
///     "source": {"type": "comment", "id": "t1_abc", "url": "https://example.org/t1_abc", "subreddit": "austinfood",
///                "created_at": "2024-01-10T14:20:00Z"}}"#;
/// let mut unit = UnitOfWork::new();
/// let added = Line::parse(text)?.expect("not blank").add_to(&mut unit);
/// assert_eq!((added.entities, added.connections, added.mentions), (2, 1, 1));
/// assert_eq!(Line::parse(b"{}").unwrap_err().to_string(), "restaurant.normalized_name is missing");
/// # Ok::<(), graphsink::loader::LineReason>(())
/// ```
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

/// A restaurant or a dish as named by a line.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    alias: Option<String>,
    temp_id: Option<String>,
}

/// Rows that a line added to a unit.
///
/// ```
/// use graphsink::UnitOfWork;
/// use graphsink::loader::{Line, Sample};
///
/// let line = Sample::new(7, 1).next().unwrap();
/// let mut unit = UnitOfWork::new();
/// let added = Line::parse(line.as_bytes())?.unwrap().add_to(&mut unit);
/// assert_eq!(added.entities + added.connections + added.mentions, unit.rows());
/// # Ok::<(), graphsink::loader::LineReason>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Added {
    /// Number of entities, including repeated ones.
    pub entities: usize,
    /// 1, or 0 when the line has no dish.
    pub connections: usize,
    /// 1, or 0 when the line has no dish.
    pub mentions: usize,
}

impl Line {
    /// Parses one line, without its line feed. `None` for a blank line.
    ///
    /// ```
    /// use graphsink::loader::{Line, LineReason};
    ///
    /// assert!(matches!(Line::parse(b""), Ok(None)), "a blank line");
    /// assert!(matches!(Line::parse(b"{}"), Err(LineReason::Missing { field: "restaurant.normalized_name" })));
    /// ```
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

    /// The unit named by the line.
    ///
    /// ```
    /// use graphsink::loader::{Line, Sample};
    ///
    /// let line = Line::parse(Sample::new(7, 1).next().unwrap().as_bytes())?.unwrap();
    /// println!("{:?}", line.unit());
    /// # Ok::<(), graphsink::loader::LineReason>(())
    /// ```
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Adds the line's rows to a unit, entities first.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    /// use graphsink::loader::{Line, Sample};
    ///
    /// let mut unit = UnitOfWork::new();
    /// for line in Sample::new(7, 3) {
    ///     if let Some(line) = Line::parse(line.as_bytes())? {
    ///         line.add_to(&mut unit);
    ///     }
    /// }
    /// assert!(unit.rows() >= 3);
    /// # Ok::<(), graphsink::loader::LineReason>(())
    /// ```
    pub fn add_to(self, unit: &mut UnitOfWork) -> Added {
        let mut entities = 1;
        let attributes: Vec<_> =
            self.restaurant_attributes.into_iter().map(|name| unit.restaurant_attribute(name).handle()).collect();
        entities += attributes.len();
        let mut restaurant = self.restaurant.add_to(unit, UnitOfWork::restaurant).attributes(attributes);
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
        let connection = unit.connection(restaurant, dish).menu_item(self.is_menu_item);
        let connection = connection.dish_attributes(dish_attributes).categories(categories).handle();
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{SourceType, Timestamp};
    use crate::unit::InvalidUnit;
    use serde_json::{Value, json};

    /// The example of the module's documentation.
    pub(in crate::loader) fn full() -> Value {
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

    pub(in crate::loader) fn minimal() -> Value {
        json!({
            "restaurant": { "normalized_name": "franklin bbq" },
            "source": { "type": "post", "id": "t3_a", "url": "https://example.org", "subreddit": "food",
                        "created_at": "2024-01-10T14:20:00Z" }
        })
    }

    /// `full` with one field set, or without it where the value is `None`.
    pub(in crate::loader) fn with(pointer: &str, value: Option<Value>) -> Value {
        let mut line = full();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = line.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => parent.insert(name.to_owned(), value),
            None => parent.remove(name),
        };
        line
    }

    pub(in crate::loader) fn parsed(line: &Value) -> Line {
        Line::parse(line.to_string().as_bytes()).unwrap().unwrap()
    }

    pub(in crate::loader) fn reason(line: &[u8]) -> LineReason {
        Line::parse(line).unwrap_err()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_field_of_a_line_is_read() {
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
            assert_eq!(
                line.mention, expected,
                "the defaults: its own thread, no excerpt, no votes, observed when written"
            );
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
    fn optional_entities_may_lack_their_name() {
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
        assert!(Line::parse(deep.as_bytes()).unwrap().is_some(), "unknown fields may be nested deeply");
    }

    #[test]
    fn any_32_bit_integer_is_accepted_as_upvotes() {
        for (text, upvotes) in [("2147483647", i32::MAX), ("-2147483648", i32::MIN), ("-0", 0), ("0", 0)] {
            let line = full().to_string().replace(":67", &format!(":{text}"));
            assert_eq!(Line::parse(line.as_bytes()).unwrap().unwrap().mention.upvotes, upvotes);
        }
    }

    #[test]
    fn a_line_becomes_the_rows_that_it_states() {
        let mut unit = UnitOfWork::new();
        let added = parsed(&full()).add_to(&mut unit);
        assert_eq!(added, Added { entities: 5, connections: 1, mentions: 1 });
        assert_eq!(unit.rows(), 7);
        unit.validate(7).unwrap();
    }

    #[test]
    fn a_line_without_a_dish_still_states_all_entities_it_names() {
        let mut unit = UnitOfWork::new();
        let added = parsed(&with("/dish_or_category", None)).add_to(&mut unit);
        assert_eq!(added, Added { entities: 4, connections: 0, mentions: 0 });
        unit.validate(4).unwrap();
    }

    #[test]
    fn values_that_break_a_rule_of_units_are_refused_by_the_unit() {
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
}
