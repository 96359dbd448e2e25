//! A second inspection of a line that the typed parser refused: which field is wrong, and how.

use serde_json::Value;

use super::raw::int32;
use super::reason::LineReason;

/// Maximum nesting that is parsed. Metadata may be nested 64 deep, so no line that can be valid is refused; deeper ones
/// must not be given to a recursive parser.
const DEPTH_MAX: usize = 127;

/// The unit named by a bad line, if it can be determined.
pub(super) fn unit_of_bad_line(bytes: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    value.get("unit")?.as_str().map(str::to_owned)
}

/// The kind of value of a field, apart from `null`.
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

/// Every field of the format, parents before children, for finding the wrong one.
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

    /// The part of `value` that does not conform.
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

/// Determines why the typed parser refused a line.
pub(super) fn diagnose(text: &str, error: &serde_json::Error) -> LineReason {
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
            // A list of objects is examined member by member.
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

/// The depth of brackets outside of strings.
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::loader::line::Line;
    use crate::loader::line::tests::{full, reason, with};
    use crate::unit::UnitOfWork;

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
    fn lines_that_are_no_json_and_lines_that_are_no_object_have_rules_of_their_own() {
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
        assert_eq!(reason(b"{\"a\": \xff").to_string(), "is not valid UTF-8 from byte 7 on");
        assert_eq!(reason(b"{} x").to_string(), "is not valid JSON: trailing characters at column 4");
    }

    #[test]
    fn the_unit_of_a_bad_line_is_found_where_it_can_be() {
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
        fn no_bytes_make_the_diagnosis_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Line::parse(&bytes));
            unit_of_bad_line(&bytes);
        }

        #[test]
        fn no_value_of_any_field_makes_the_diagnosis_panic(field in 0..FIELDS.len(), value in any_json()) {
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
                    // A string that is not a time is an error of a kind that the table does not have.
                    Err(LineReason::WrongType { field: named, .. } | LineReason::Missing { field: named }) => {
                        prop_assert!(named.starts_with(field), "{named} for {field}");
                    }
                    Err(reason) => prop_assert!(false, "{field}: {reason}"),
                }
            }
        }

        #[test]
        fn a_truncated_line_is_an_error_and_no_panic(cut in 1_usize..600) {
            let text = full().to_string();
            prop_assert!(Line::parse(&text.as_bytes()[..cut.min(text.len() - 1)]).is_err());
        }
    }
}
