//! Any bytes as input of the loader: each line becomes a unit or an error with its number, a bad line does not change
//! the lines around it, and lines of one unit stay together.
//!
//! The validity of a line is judged here from the contract of the format, line by line. The units that the lines make
//! are derived from the whole list of lines at once.

use std::io::{Cursor, Read, Write as _};

use graphsink::UnitOfWork;
use graphsink::loader::{Input, Line, Units};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestCaseResult;
use serde_json::{Value, json};

use crate::generate::{runner, seed};

// ---- the validity of a line ---------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
enum Worth {
    Blank,
    /// A valid line, with the unit that it names.
    Good(Option<String>),
    /// An invalid line, with the unit that it names if that can be read.
    Bad(Option<String>),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Upvotes,
    Number,
    Object,
    Texts,
    Attributes,
    Time,
    SourceType,
    Anything,
}

/// Every field by its path, with whether it is required.
const FIELDS: [(&str, Kind, bool); 35] = [
    ("/temp_id", Kind::Text, false),
    ("/unit", Kind::Text, false),
    ("/restaurant", Kind::Object, true),
    ("/restaurant/normalized_name", Kind::Text, true),
    ("/restaurant/original_text", Kind::Text, false),
    ("/restaurant/temp_id", Kind::Text, false),
    ("/restaurant/place", Kind::Object, false),
    ("/restaurant/place/latitude", Kind::Number, false),
    ("/restaurant/place/longitude", Kind::Number, false),
    ("/restaurant/place/address", Kind::Text, false),
    ("/restaurant/place/google_place_id", Kind::Text, false),
    ("/restaurant/place/metadata", Kind::Anything, false),
    ("/restaurant/place/observed_at", Kind::Time, false),
    ("/restaurant_attributes", Kind::Texts, false),
    ("/dish_or_category", Kind::Object, false),
    ("/dish_or_category/normalized_name", Kind::Text, false),
    ("/dish_or_category/original_text", Kind::Text, false),
    ("/dish_or_category/temp_id", Kind::Text, false),
    ("/dish_attributes", Kind::Attributes, false),
    ("/categories", Kind::Texts, false),
    ("/is_menu_item", Kind::Flag, false),
    ("/general_praise", Kind::Flag, false),
    ("/source", Kind::Object, true),
    ("/source/type", Kind::SourceType, true),
    ("/source/id", Kind::Text, true),
    ("/source/thread_id", Kind::Text, false),
    ("/source/url", Kind::Text, true),
    ("/source/subreddit", Kind::Text, true),
    ("/source/author", Kind::Text, false),
    ("/source/excerpt", Kind::Text, false),
    ("/source/upvotes", Kind::Upvotes, false),
    ("/source/created_at", Kind::Time, true),
    ("/source/observed_at", Kind::Time, false),
    ("/mood", Kind::Anything, false),
    ("/source/karma", Kind::Anything, false),
];

const GOOD_TIMES: [&str; 8] = [
    "2024-01-10T14:20:00Z",
    "2024-01-10t14:20:00z",
    "2016-12-31T23:59:60Z",
    "1969-12-31T23:59:59.5-23:59",
    "0001-01-01T00:00:00Z",
    "0000-02-29T00:00:00+01:00",
    "9999-12-31T23:59:59.999999999+00:00",
    "2024-02-29T00:00:00.123456789123456789Z",
];

const BAD_TIMES: [&str; 14] = [
    "",
    "now",
    "2024-01-10",
    "2024-01-10T14:20:00",
    "2024-01-10T14:20Z",
    "2024-01-10T24:00:00Z",
    "2023-02-29T00:00:00Z",
    "2024-13-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "+10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "2024-01-10T14:20:00+25:00",
    "2024-01-10T14:20:00Z ",
    "1704896400",
];

fn fits(kind: Kind, value: &Value) -> bool {
    let text = |value: &Value| value.is_null() || value.is_string();
    match kind {
        // Null and absent are equivalent.
        _ if value.is_null() => true,
        Kind::Text => text(value),
        Kind::Flag => value.is_boolean(),
        Kind::Number => value.is_number(),
        Kind::Object => value.is_object(),
        Kind::Anything => true,
        Kind::Texts => value.as_array().is_some_and(|items| items.iter().all(text)),
        Kind::Attributes => value.as_array().is_some_and(|items| {
            items.iter().all(|item| {
                item.is_null() || item.is_object() && ["attribute", "type"].iter().all(|name| text(&item[*name]))
            })
        }),
        Kind::SourceType => value == "post" || value == "comment",
        // A value of one of the two lists; other texts do not occur here.
        Kind::Time => value.as_str().is_some_and(|time| GOOD_TIMES.contains(&time)),
        Kind::Upvotes => {
            // The parser does not distinguish -0, an integer, from -0.0.
            let negative_zero = value.as_f64().is_some_and(|votes| votes == 0.0 && votes.is_sign_negative());
            negative_zero || value.as_i64().is_some_and(|votes| i32::try_from(votes).is_ok())
        }
    }
}

/// The validity of a line that is an object without repeated fields, or is not JSON.
fn worth(line: &[u8]) -> Worth {
    let Ok(text) = std::str::from_utf8(line) else { return Worth::Bad(None) };
    if text.bytes().all(|byte| b" \t\r\x0c\n".contains(&byte)) {
        return Worth::Blank;
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Worth::Bad(None) };
    let unit = value.get("unit").and_then(Value::as_str).map(str::to_owned);
    let good = value.is_object()
        && FIELDS.iter().all(|(path, kind, required)| {
            let found = value.pointer(path).unwrap_or(&Value::Null);
            fits(*kind, found) && !(*required && found.is_null())
        });
    if good { Worth::Good(unit) } else { Worth::Bad(unit) }
}

// ---- lines -------------------------------------------------------------------------------------

/// A line, with its validity where `worth` cannot decide it.
#[derive(Debug, Clone)]
struct Written {
    bytes: Vec<u8>,
    known: Option<Worth>,
}

impl Written {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        // A line feed would split it into two lines.
        bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        Self { bytes, known: None }
    }
}

fn word() -> impl Strategy<Value = String> {
    let odd =
        vec!["a", "é", "e\u{301}", "\u{200b}", "\u{202e}", "😀", "\"\\/", "\u{1}\u{7f}", "\0", "", "\u{ffff}", " "];
    prop_oneof![3 => select(odd).prop_map(str::to_owned), 1 => ".{0,12}", 1 => Just("x".repeat(300))]
}

/// One of a few units, so that consecutive lines often belong to the same one.
fn unit_name() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![1 => Just(None), 2 => Just(Some("a")), 1 => Just(Some("b")), 1 => Just(Some(""))]
}

fn good_value() -> impl Strategy<Value = Value> {
    let names = (word(), option::of(word()), option::of(word()), vec(option::of(word()), 0..3));
    let source = (select(vec!["post", "comment"]), word(), word(), word(), select(GOOD_TIMES.to_vec()), any::<i32>());
    (unit_name(), names, source, any::<[bool; 3]>()).prop_map(
        |(
            unit,
            (restaurant, original, dish, list),
            (kind, id, url, subreddit, time, upvotes),
            [place, source, flag],
        )| {
            let mut line = json!({
                "restaurant": { "normalized_name": restaurant, "original_text": original, "temp_id": id },
                "restaurant_attributes": list,
                "dish_or_category": { "normalized_name": dish },
                "dish_attributes": [{ "attribute": original, "type": "descriptive" }, null, {}],
                "categories": list,
                "is_menu_item": flag,
                "source": { "type": kind, "id": id, "url": url, "subreddit": subreddit, "created_at": time },
            });
            if let Some(unit) = unit {
                line["unit"] = unit.into();
            }
            if place {
                line["restaurant"]["place"] = json!({
                    "latitude": 91.5, "longitude": null, "address": url, "metadata": [restaurant], "observed_at": time,
                });
            }
            if source {
                line["source"]["upvotes"] = upvotes.into();
                line["source"]["author"] = json!(original);
                line["source"]["excerpt"] = subreddit.into();
            }
            line
        },
    )
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => select(vec![
            Value::Null,
            json!(true),
            json!(0),
            json!(-1),
            json!(2_147_483_647_i64),
            json!(2_147_483_648_i64),
            json!(-2_147_483_648_i64),
            json!(-2_147_483_649_i64),
            json!(u64::MAX),
            json!(1.0),
            json!(1e308),
            json!(-0.0),
            json!(""),
            json!("a"),
            json!("post"),
            json!([]),
            json!([null]),
            json!(["a", null]),
            json!(["a", 1]),
            json!([[]]),
            json!({}),
            json!([{}]),
            json!([{ "attribute": "x" }, { "attribute": 1 }]),
            json!([{ "type": [] }]),
            json!({ "normalized_name": 1 }),
            json!({ "unit": "a" }),
        ]),
        1 => word().prop_map(Value::from),
        1 => select([&GOOD_TIMES[..], &BAD_TIMES[..]].concat()).prop_map(Value::from),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    Drop(usize),
    Set(usize, Value),
    /// Another field of this object.
    Unknown(usize, Value),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => (0..FIELDS.len()).prop_map(Change::Drop),
        4 => (0..FIELDS.len(), any_value()).prop_map(|(field, value)| Change::Set(field, value)),
        1 => (0..FIELDS.len(), any_value()).prop_map(|(field, value)| Change::Unknown(field, value)),
    ]
}

fn apply(line: &mut Value, change: Change) {
    let (field, name, value) = match change {
        Change::Drop(field) => (field, None, None),
        Change::Set(field, value) => (field, None, Some(value)),
        Change::Unknown(field, value) => (field, Some("unheard of"), Some(value)),
    };
    let (parent, own_name) = FIELDS[field].0.rsplit_once('/').unwrap();
    let (kind, name) = (FIELDS[field].1, name.unwrap_or(own_name));
    let Some(object) = line.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    match value {
        // Only texts of the two lists are times here.
        Some(Value::String(text)) if matches!(kind, Kind::Time) => {
            let time =
                if GOOD_TIMES.contains(&text.as_str()) { &text } else { BAD_TIMES[text.len() % BAD_TIMES.len()] };
            object.insert(name.to_owned(), time.into());
        }
        Some(value) => drop(object.insert(name.to_owned(), value)),
        None => drop(object.remove(name)),
    }
}

/// The text of an object that repeats a field with the same value.
fn with_repeated_field(line: &Value, field: Index) -> Option<Written> {
    let present: Vec<&str> = FIELDS.iter().map(|field| field.0).filter(|path| line.pointer(path).is_some()).collect();
    let known: Vec<&str> = present.into_iter().filter(|path| !["/mood", "/source/karma"].contains(path)).collect();
    let (parent, name) = field.get(&known).rsplit_once('/')?;
    let object = line.pointer(parent)?;
    let once = object.to_string();
    let member = format!("{}:{}", Value::from(name), object[name]);
    let twice = format!("{{{member},{}", &once[1..]);
    let text = if parent.is_empty() { twice } else { line.to_string().replacen(&once, &twice, 1) };
    let unit = line.get("unit").and_then(Value::as_str).map(str::to_owned);
    Some(Written { bytes: text.into_bytes(), known: Some(Worth::Bad(unit)) })
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn written() -> impl Strategy<Value = Written> {
    let good = good_value().prop_map(|line| Written::new(line.to_string()));
    let changed = (good_value(), vec(change(), 1..4)).prop_map(|(mut line, changes)| {
        for change in changes {
            apply(&mut line, change);
        }
        Written::new(line.to_string())
    });
    let repeated = (good_value(), any::<Index>())
        .prop_map(|(line, field)| with_repeated_field(&line, field).unwrap_or_else(|| Written::new(line.to_string())));
    let cut = (good_value(), any::<Index>()).prop_map(|(line, cut)| {
        let text = line.to_string().into_bytes();
        Written::new(&text[..cut.index(text.len())])
    });
    let flipped = (good_value(), any::<Index>(), any::<u8>()).prop_map(|(line, place, byte)| {
        let mut text = line.to_string().into_bytes();
        let place = place.index(text.len());
        // A non-ASCII byte makes the line invalid UTF-8, or changes a character of a text.
        text[place] = byte | 0x80;
        Written::new(text)
    });
    let noise = select(vec![
        &b"\xff\xfe{\0}\0"[..],
        b"\0",
        b"\xef\xbb\xbf{}",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"{}",
        b"[]",
        b"null",
        b"\"\"",
        b"{\"unit\":\"a\"}",
        b"{\"unit\":\"a\",\"source\":1e999}",
        b"{\"unit\":\"\\ud800\"}",
        b"{\"source\":{\"upvotes\":123456789012345678901234567890}}",
        b"{\"unit\":\"b\"} {\"unit\":\"b\"}",
        b"{\"unit\":\"a\",}",
        b"{'unit':'a'}",
        b"\x1b[2J",
        b"",
        b" ",
        b"\t\r",
    ]);
    let bytes = vec(any::<u8>(), 0..60).prop_map(Written::new);
    let deep = (good_value(), select(vec![200_usize, 20_000, 100_000]), any::<bool>()).prop_map(
        |(mut line, depth, known_field)| {
            let unit = line.get("unit").and_then(Value::as_str).map(str::to_owned);
            if known_field {
                line["restaurant"]["place"] = json!({ "metadata": "here" });
                let text = line.to_string().replacen("\"here\"", &nested(depth), 1);
                return Written { bytes: text.into_bytes(), known: Some(Worth::Bad(None)) };
            }
            // Ignored fields may have any JSON value.
            let text = format!(r#"{{"mood":{},{}"#, nested(depth), &line.to_string()[1..]);
            Written { bytes: text.into_bytes(), known: Some(Worth::Good(unit)) }
        },
    );
    prop_oneof![
        8 => good,
        6 => changed,
        2 => repeated,
        2 => cut,
        2 => flipped,
        3 => noise.prop_map(Written::new),
        2 => bytes,
        1 => deep,
    ]
}

// ---- whole inputs ------------------------------------------------------------------------------

/// A line without its terminator, with its validity where `worth` cannot decide it.
type KnownLine = (Vec<u8>, Option<Worth>);

#[derive(Debug, Clone)]
struct Whole {
    lines: Vec<(Written, bool)>,
    byte_order_mark: bool,
    ends_with_line_feed: bool,
    compression: u8,
    /// The maximum number of bytes of a read.
    piece: usize,
}

fn whole() -> impl Strategy<Value = Whole> {
    (vec((written(), any::<bool>()), 0..14), any::<bool>(), any::<bool>(), 0_u8..4, select(vec![1_usize, 7, 1 << 20]))
        .prop_map(|(lines, byte_order_mark, ends_with_line_feed, compression, piece)| Whole {
            lines,
            byte_order_mark,
            ends_with_line_feed,
            compression,
            piece,
        })
}

impl Whole {
    /// The bytes of the input, and each of its lines without its terminator.
    fn bytes(&self) -> (Vec<u8>, Vec<KnownLine>) {
        let (mut bytes, mut lines) = (Vec::new(), Vec::new());
        if self.byte_order_mark {
            bytes.extend_from_slice("\u{feff}".as_bytes());
        }
        for (number, (line, carriage_return)) in self.lines.iter().enumerate() {
            let mut own = line.bytes.clone();
            if number == 0 && !self.byte_order_mark && own.starts_with("\u{feff}".as_bytes()) {
                // These bytes are then the byte order mark.
                bytes.extend(own.drain(..3));
            }
            bytes.extend_from_slice(&own);
            let last = number + 1 == self.lines.len();
            if last && !self.ends_with_line_feed {
                if !own.is_empty() {
                    lines.push((own, line.known.clone()));
                }
                break;
            }
            if *carriage_return {
                bytes.push(b'\r');
            } else if own.last() == Some(&b'\r') {
                own.pop();
            }
            bytes.push(b'\n');
            lines.push((own, line.known.clone()));
        }
        (bytes, lines)
    }

    fn input(&self, bytes: Vec<u8>) -> Input {
        let stored = match self.compression {
            0 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).unwrap();
                encoder.finish().unwrap()
            }
            1 => zstd::encode_all(&bytes[..], 1).unwrap(),
            _ => bytes,
        };
        let reader = Trickle { stored: Cursor::new(stored), piece: self.piece };
        Input::Reader { name: "input".to_owned(), reader: Box::new(reader) }
    }
}

/// Returns a few bytes at a time, as a pipe may.
struct Trickle {
    stored: Cursor<Vec<u8>>,
    piece: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let piece = self.piece.min(buffer.len());
        self.stored.read(&mut buffer[..piece])
    }
}

/// An expected unit: its id and its lines, by their positions.
#[derive(Debug, PartialEq)]
struct Expected {
    id: Option<String>,
    lines: Vec<usize>,
}

/// How lines make units: first each bad line without a unit gets the unit around it, if there is one. Then consecutive
/// lines of the same unit are grouped.
fn units(worths: &[Worth]) -> Vec<Expected> {
    let told = |worth: &Worth| match worth {
        Worth::Good(unit) => Some(unit.clone()),
        Worth::Bad(Some(unit)) => Some(Some(unit.clone())),
        Worth::Bad(None) | Worth::Blank => None,
    };
    let mut units: Vec<Expected> = Vec::new();
    for (position, worth) in worths.iter().enumerate() {
        let unit = match worth {
            Worth::Blank => continue,
            Worth::Bad(None) => {
                let before = worths[..position].iter().rev().find_map(told).flatten();
                let after = worths[position..].iter().find_map(told).flatten();
                before.filter(|before| Some(before) == after.as_ref())
            }
            other => told(other).flatten(),
        };
        match units.last_mut() {
            Some(last) if unit.is_some() && last.id == unit => last.lines.push(position),
            _ => units.push(Expected { id: unit, lines: vec![position] }),
        }
    }
    units
}

/// The content of a unit, without the number that distinguishes its handles from those of other units.
fn content(unit: &UnitOfWork) -> String {
    let text = format!("{unit:?}");
    let (_, rest) = text.split_once("nonce: ").unwrap();
    rest.split_once(',').unwrap().1.to_owned()
}

fn check(whole: &Whole) -> TestCaseResult {
    let (bytes, lines) = whole.bytes();
    let magic = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd"].iter().any(|magic| bytes.starts_with(magic));
    prop_assume!(!magic);
    let worths: Vec<Worth> = lines.iter().map(|(line, known)| known.clone().unwrap_or_else(|| worth(line))).collect();
    let expected = units(&worths);

    let read = Units::new([whole.input(bytes)]);
    let progress = read.progress();
    let read: Vec<_> = read.collect();
    let mut found = Vec::new();
    for unit in read {
        let unit = unit.map_err(|error| TestCaseError::fail(format!("{error}: {}", error.source)))?;
        let positions: Vec<usize> = unit.origin.lines.iter().map(|line| line.number as usize - 1).collect();
        for line in &unit.origin.lines {
            prop_assert_eq!(&line.record, &lines[line.number as usize - 1].0, "line {}", line.number);
        }
        prop_assert!(!unit.origin.continues);
        let bad: Vec<u64> = positions
            .iter()
            .filter(|position| matches!(worths[**position], Worth::Bad(_)))
            .map(|position| *position as u64 + 1)
            .collect();
        match unit.content {
            Ok(content_found) => {
                prop_assert_eq!(bad, Vec::<u64>::new(), "accepted");
                let mut expected = UnitOfWork::new();
                for position in &positions {
                    Line::parse(&lines[*position].0).unwrap().unwrap().add_to(&mut expected);
                }
                prop_assert_eq!(content(&content_found), content(&expected), "a unit has the content of its lines");
                // The content may break any rule, but must not break the validation.
                drop(content_found.validate(1_000));
            }
            Err(errors) => {
                prop_assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), bad);
                for error in errors {
                    let text = error.to_string();
                    prop_assert!(text.starts_with(&format!("line {}: ", error.line)), "{}", text);
                    prop_assert!(text.len() < 500, "a message quotes no whole line: {}", text);
                }
            }
        }
        found.push(Expected { id: unit.origin.id.map(|id| id.to_string()), lines: positions });
    }
    prop_assert_eq!(found, expected);
    let read = worths.iter().filter(|worth| **worth != Worth::Blank).count();
    prop_assert_eq!(progress.lines(), read as u64);
    Ok(())
}

#[test]
fn any_line_becomes_a_unit_or_an_error_with_its_number() {
    let seed = seed("lines");
    let result = runner(seed, 600).run(&whole(), |whole| check(&whole));
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// The generator is useless if all lines are good, or all are bad, or units never have several lines.
#[test]
fn generated_lines_are_good_and_bad_and_some_units_have_several() {
    let mut runner = runner(7, 1);
    let strategy = whole();
    let (mut good, mut bad, mut several, mut mixed) = (0, 0, 0, 0);
    for _ in 0..300 {
        let (_, lines) = strategy.new_tree(&mut runner).unwrap().current().bytes();
        let worths: Vec<Worth> =
            lines.iter().map(|(line, known)| known.clone().unwrap_or_else(|| worth(line))).collect();
        good += worths.iter().filter(|worth| matches!(worth, Worth::Good(_))).count();
        bad += worths.iter().filter(|worth| matches!(worth, Worth::Bad(_))).count();
        for unit in units(&worths).iter().filter(|unit| unit.lines.len() > 1) {
            several += 1;
            mixed += usize::from(unit.lines.iter().any(|line| matches!(worths[*line], Worth::Bad(_))));
        }
    }
    assert!(good > 300 && bad > 300 && several > 50 && mixed > 20, "{:?}", (good, bad, several, mixed));
}

/// One line of many megabytes, of each kind.
#[test]
fn very_long_lines_are_read_or_refused_without_harm_to_the_next_line() {
    let good = |excerpt: usize| {
        json!({
            "restaurant": { "normalized_name": "r" },
            "dish_or_category": { "normalized_name": "d" },
            "source": { "type": "post", "id": "i", "url": "u", "subreddit": "s", "excerpt": "é".repeat(excerpt),
                        "created_at": "2024-01-10T14:20:00Z" },
        })
        .to_string()
    };
    let long = [
        (good(4 << 20).into_bytes(), true),
        (vec![b'x'; 8 << 20], false),
        (vec![b'['; 8 << 20], false),
        (vec![0; 8 << 20], false),
        (vec![b'9'; 8 << 20], false),
        (vec![b'"'; (16 << 20) + 1], false),
    ];
    for (line, is_good) in long {
        let text = [&line[..], b"\n", good(1).as_bytes()].concat();
        let input = Input::Reader { name: "input".to_owned(), reader: Box::new(Cursor::new(text)) };
        let read: Vec<_> = Units::new([input]).map(|unit| unit.unwrap().content.is_ok()).collect();
        assert_eq!(read, [is_good, true], "{} bytes of {:?}", line.len(), char::from(line[0]));
    }
}
