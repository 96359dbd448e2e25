//! The rules on input, stated a second time from the words of the contract, with only the plain types of the crate.

use std::collections::BTreeSet;

use chrono::DateTime;
use graphsink::{EntityType, Table, Timestamp};
use serde_json::Value;

use crate::spec::{ConnectionName, EntityId, EntitySpec, MentionSpec, Name, On, PlaceSpec, Ref, UnitSpec, earliest};

/// A rule by the name that the crate gives it, and the table of the row that breaks it.
pub type Broken = (&'static str, Option<Table>);

/// Every rule that the unit breaks.
pub fn broken(unit: &UnitSpec, rows_max: usize) -> BTreeSet<Broken> {
    let mut broken = BTreeSet::new();
    let rows = rows(unit);
    if rows == 0 {
        broken.insert(("no_rows", None));
    }
    if rows > rows_max {
        broken.insert(("too_many_rows", None));
    }
    for entity in &unit.entities {
        broken.extend(of_entity(unit, entity).into_iter().map(|rule| (rule, Some(Table::Entities))));
    }
    for connection in &unit.connections {
        let mut rules = Vec::new();
        match connection.name {
            ConnectionName::Key { restaurant, dish } => {
                rules.extend(of_reference(unit, restaurant, EntityType::Restaurant));
                rules.extend(of_reference(unit, dish, EntityType::DishOrCategory));
                for attribute in &connection.dish_attributes {
                    rules.extend(of_reference(unit, *attribute, EntityType::DishAttribute));
                }
                if distinct(unit, &connection.dish_attributes) > 100 {
                    rules.push("too_many_dish_attributes");
                }
            }
            // Not in the contract: the key of an existing row cannot change.
            ConnectionName::Id(_) if !connection.dish_attributes.is_empty() => {
                rules.push("dish_attribute_on_existing_connection");
            }
            ConnectionName::Id(_) => {}
        }
        for category in &connection.categories {
            rules.extend(of_reference(unit, *category, EntityType::DishOrCategory));
        }
        broken.extend(rules.into_iter().map(|rule| (rule, Some(Table::Connections))));
    }
    for mention in &unit.mentions {
        broken.extend(of_mention(mention).into_iter().map(|rule| (rule, Some(Table::Mentions))));
    }
    broken
}

/// One row for each name by key, and one for each id, however often it is named.
pub fn rows(unit: &UnitSpec) -> usize {
    let keys = unit.entities.iter().filter(|entity| matches!(entity.name, Name::Key(..))).count();
    let connections =
        unit.connections.iter().filter(|connection| matches!(connection.name, ConnectionName::Key { .. })).count();
    // A connection that is named by its id has no dish attributes, so those given for one are no rows.
    let uses = unit.uses();
    let entity_ids: BTreeSet<EntityId> = uses.iter().filter_map(|(used, _)| unit.id_of(*used)).collect();
    let connection_ids: BTreeSet<_> = unit.connection_ids().collect();
    keys + entity_ids.len() + connections + connection_ids.len() + unit.mentions.len()
}

fn of_entity(unit: &UnitSpec, entity: &EntitySpec) -> Vec<&'static str> {
    let mut rules = Vec::new();
    let mut restaurant = true;
    if let Name::Key(entity_type, name) = &entity.name {
        restaurant = *entity_type == EntityType::Restaurant;
        if is_blank(name) {
            rules.push("blank_name");
        }
        rules.extend(of_text(name, 255));
    }
    for alias in &entity.aliases {
        if is_blank(alias) {
            rules.push("blank_alias");
        }
        rules.extend(of_text(alias, 255));
    }
    if !restaurant && !entity.places.is_empty() {
        rules.push("place_on_non_restaurant");
    }
    // Not in the contract, but in its table: only restaurants have such attributes.
    if !restaurant && !entity.attributes.is_empty() {
        rules.push("attributes_on_non_restaurant");
    }
    for attribute in &entity.attributes {
        rules.extend(of_reference(unit, *attribute, EntityType::RestaurantAttribute));
    }
    rules.extend(entity.places.iter().flat_map(of_place));
    rules
}

fn of_reference(unit: &UnitSpec, reference: Ref, expected: EntityType) -> Option<&'static str> {
    if matches!(reference, Ref::Foreign) {
        return Some("foreign_handle");
    }
    unit.type_of(reference).filter(|found| *found != expected).map(|_| "wrong_entity_type")
}

fn distinct(unit: &UnitSpec, references: &[Ref]) -> usize {
    let name = |reference: &Ref| match *reference {
        Ref::Row(row) => match &unit.entities[row].name {
            Name::Key(entity_type, name) => Some((None, Some((*entity_type, name.clone())))),
            Name::Id(id) => Some((Some(*id), None)),
        },
        Ref::Id(id) => Some((Some(id), None)),
        Ref::Foreign => None,
    };
    references.iter().filter_map(name).collect::<BTreeSet<_>>().len()
}

fn of_place(place: &PlaceSpec) -> Vec<&'static str> {
    let mut rules = Vec::new();
    for (degrees, limit) in [(place.latitude, 90.0), (place.longitude, 180.0)] {
        let Some(degrees) = degrees.map(|degrees| degrees.given) else { continue };
        if degrees.is_nan() || degrees.is_infinite() {
            rules.push("coordinate_not_finite");
        } else if !(-limit..=limit).contains(&degrees) {
            rules.push("coordinate_out_of_range");
        }
    }
    if place.latitude.is_some() != place.longitude.is_some() {
        rules.push("location_incomplete");
    }
    rules.extend(place.address.iter().flat_map(|text| of_text(text, 500)));
    if let Some(id) = &place.google_place_id {
        rules.extend(of_text(id, 255));
        // Not in the contract: two restaurants with a blank id would both claim it.
        if is_blank(id) {
            rules.push("empty_text");
        }
    }
    if let Some(metadata) = &place.metadata {
        if !metadata.is_object() {
            rules.push("metadata_not_object");
        }
        if levels(metadata) > 64 {
            rules.push("metadata_too_deep");
        }
        if holds_nul(metadata) {
            rules.push("nul_character");
        }
    }
    rules.extend(of_time(place.observed_at));
    rules
}

fn of_mention(spec: &MentionSpec) -> Vec<&'static str> {
    let mut rules = Vec::new();
    if matches!(spec.on, On::Foreign) {
        rules.push("mention_without_connection");
    }
    let mention = &spec.mention;
    for (text, limit) in [
        (&*mention.source_id, 255),
        (&*mention.thread_id, 255),
        (&*mention.source_url, 500),
        (&*mention.subreddit, 100),
    ] {
        if text.is_empty() {
            rules.push("empty_text");
        }
        rules.extend(of_text(text, limit));
    }
    rules.extend(of_text(&mention.content_excerpt, usize::MAX));
    rules.extend(mention.author.iter().flat_map(|author| of_text(author, 255)));
    rules.extend(of_time(mention.created_at));
    rules.extend(of_time(mention.observed_at));
    if as_stored(mention.observed_at) < as_stored(mention.created_at) {
        rules.push("observed_before_created");
    }
    rules
}

/// Whether a text has no visible character. Characters are default-ignorable as in Unicode's DerivedCoreProperties.txt.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|char| {
        char.is_whitespace()
            || char.is_control()
            || matches!(
                u32::from(char),
                0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
                    | 0x202a..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
                    | 0xfff0..=0xfffb | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff
            )
    })
}

fn of_text(text: &str, limit: usize) -> Vec<&'static str> {
    let mut rules = Vec::new();
    if text.chars().count() > limit {
        rules.push("text_too_long");
    }
    if text.chars().any(|char| char == '\0') {
        rules.push("nul_character");
    }
    rules
}

/// PostgreSQL's range ends after that of the type, so no time is too late.
fn of_time(time: Timestamp) -> Option<&'static str> {
    (as_stored(time) < earliest()).then_some("time_out_of_range")
}

/// `timestamptz` keeps microseconds.
pub fn as_stored(time: Timestamp) -> Timestamp {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap()
}

/// The depth of nested objects and lists.
fn levels(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}
