//! All rules that can be checked without the database.

use std::borrow::Cow;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::block::{ConnectionRecordName, EntityRecord, Link, Linked, OwnRow, links_of};
use super::is_blank;
use super::limits::{
    ADDRESS_CHARS_MAX, AUTHOR_CHARS_MAX, DISH_ATTRIBUTES_MAX, METADATA_DEPTH_MAX, NAME_CHARS_MAX, SOURCE_ID_CHARS_MAX,
    SUBREDDIT_CHARS_MAX, UNIT_BYTES_MAX, URL_CHARS_MAX,
};
use super::{Field, InvalidUnit, PlaceObservation, Row, UnitOfWork};
use crate::record::{Coordinate, CoordinateError, EntityType, Table, Timestamp};

/// 4714-11-24 BC 00:00:00 UTC, PostgreSQL's earliest `timestamptz`, in seconds of the Unix epoch.
/// Its latest (the year 294276) lies beyond what a [`Timestamp`] can hold.
const EARLIEST_SECONDS: i64 = -210_866_803_200;

impl UnitOfWork {
    /// Checks every rule that can be checked without the database, and returns the first that is broken.
    /// `Engine::submit` calls this with its own limit.
    ///
    /// ```
    /// # use graphsink::{InvalidUnit, UnitOfWork};
    /// let mut unit = UnitOfWork::new();
    /// unit.restaurant("  ");
    /// let broken = unit.validate(10_000).unwrap_err();
    /// assert_eq!((broken.rule(), broken.row().map(|row| row.index)), ("blank_name", Some(0)));
    /// ```
    pub fn validate(&self, max_unit_rows: usize) -> Result<(), InvalidUnit> {
        if self.is_empty() {
            return Err(InvalidUnit::NoRows);
        }
        if self.rows() > max_unit_rows {
            return Err(InvalidUnit::TooManyRows { rows: self.rows(), limit: max_unit_rows });
        }
        let bytes = self.bytes();
        if bytes > UNIT_BYTES_MAX {
            return Err(InvalidUnit::TooManyBytes { bytes, limit: UNIT_BYTES_MAX });
        }
        let links = in_order(&self.block.entity_links);
        let mut places: Vec<&(u32, PlaceObservation)> = self.places.iter().collect();
        places.sort_by_key(|(entity, _)| *entity);
        for index in 0..self.block.entities.len() {
            self.check_entity(&links, &places, Row { table: Table::Entities, index })?;
        }
        let links = in_order(&self.block.connection_links);
        for index in 0..self.block.connections.len() {
            self.check_connection(&links, Row { table: Table::Connections, index })?;
        }
        (0..self.block.mentions.len()).try_for_each(|index| self.check_mention(Row { table: Table::Mentions, index }))
    }

    fn check_entity(&self, links: &[Link], places: &[&(u32, PlaceObservation)], row: Row) -> Result<(), InvalidUnit> {
        // Only the database knows the type of an entity that is named by its id.
        let mut entity_type = EntityType::Restaurant;
        if let EntityRecord::Key(own_type, name) = self.block.entities[row.index] {
            entity_type = own_type;
            let name = self.block.text(name);
            if is_blank(name) {
                return Err(InvalidUnit::BlankName { row });
            }
            check_text(name, NAME_CHARS_MAX, row, Field::Name)?;
        }
        let attributes = || {
            links_of(links, row.index).filter_map(|link| match link {
                Linked::RestaurantAttribute(attribute) => Some(attribute),
                _ => None,
            })
        };
        for link in links_of(links, row.index) {
            if let Linked::Alias(alias) = link {
                let alias = self.block.text(alias);
                if is_blank(alias) {
                    return Err(InvalidUnit::BlankAlias { row });
                }
                check_text(alias, NAME_CHARS_MAX, row, Field::Alias)?;
            }
        }
        let first = places.partition_point(|(entity, _)| (*entity as usize) < row.index);
        let mut places =
            places[first..].iter().take_while(|(entity, _)| *entity as usize == row.index).map(|(_, place)| place);
        if entity_type != EntityType::Restaurant {
            if places.next().is_some() {
                return Err(InvalidUnit::PlaceOnNonRestaurant { row, entity_type });
            }
            if attributes().next().is_some() {
                return Err(InvalidUnit::AttributesOnNonRestaurant { row, entity_type });
            }
        }
        for attribute in attributes() {
            self.check_type(attribute, EntityType::RestaurantAttribute, row, Field::RestaurantAttributes)?;
        }
        places.try_for_each(|place| check_place(place, row))
    }

    fn check_connection(&self, links: &[Link], row: Row) -> Result<(), InvalidUnit> {
        if let ConnectionRecordName::Key { restaurant, dish } = self.block.connections[row.index].name {
            self.check_type(restaurant, EntityType::Restaurant, row, Field::Restaurant)?;
            self.check_type(dish, EntityType::DishOrCategory, row, Field::DishOrCategory)?;
            let mut distinct = BTreeSet::new();
            for link in links_of(links, row.index) {
                if let Linked::DishAttribute(attribute) = link {
                    self.check_type(attribute, EntityType::DishAttribute, row, Field::DishAttributes)?;
                    distinct.extend(attribute.place().map(|place| self.name(place)));
                }
            }
            if distinct.len() > DISH_ATTRIBUTES_MAX {
                let (count, limit) = (distinct.len(), DISH_ATTRIBUTES_MAX);
                return Err(InvalidUnit::TooManyDishAttributes { row, count, limit });
            }
        }
        if self.attributes_on_ids.contains(&(row.index as u32)) {
            return Err(InvalidUnit::DishAttributeOnExistingConnection { row });
        }
        for link in links_of(links, row.index) {
            if let Linked::Category(category) = link {
                self.check_type(category, EntityType::DishOrCategory, row, Field::Categories)?;
            }
        }
        Ok(())
    }

    /// The identity of an entity within the unit.
    fn name(&self, place: usize) -> (Option<(EntityType, &str)>, Option<Uuid>) {
        match self.block.entities[place] {
            EntityRecord::Key(entity_type, name) => (Some((entity_type, self.block.text(name))), None),
            EntityRecord::Id(id) => (None, Some(id)),
        }
    }

    fn check_type(&self, entity: OwnRow, expected: EntityType, row: Row, field: Field) -> Result<(), InvalidUnit> {
        let Some(place) = entity.place() else {
            return Err(InvalidUnit::ForeignHandle { row, field });
        };
        match self.block.entities[place] {
            EntityRecord::Key(found, _) if found != expected => {
                Err(InvalidUnit::WrongEntityType { row, field, expected, found })
            }
            EntityRecord::Key(..) | EntityRecord::Id(_) => Ok(()),
        }
    }

    fn check_mention(&self, row: Row) -> Result<(), InvalidUnit> {
        if self.block.mentions[row.index].connection.place().is_none() {
            return Err(InvalidUnit::MentionWithoutConnection { row });
        }
        let mention = self.block.view().mention(row.index);
        for (text, limit, field) in [
            (mention.source_id, SOURCE_ID_CHARS_MAX, Field::SourceId),
            (mention.thread_id, SOURCE_ID_CHARS_MAX, Field::ThreadId),
            (mention.source_url, URL_CHARS_MAX, Field::SourceUrl),
            (mention.subreddit, SUBREDDIT_CHARS_MAX, Field::Subreddit),
        ] {
            if text.is_empty() {
                return Err(InvalidUnit::EmptyText { row, field });
            }
            check_text(text, limit, row, field)?;
        }
        check_text(mention.content_excerpt, usize::MAX, row, Field::ContentExcerpt)?;
        if let Some(author) = mention.author {
            check_text(author, AUTHOR_CHARS_MAX, row, Field::Author)?;
        }
        check_time(mention.created_at, row, Field::CreatedAt)?;
        check_time(mention.observed_at, row, Field::ObservedAt)?;
        if mention.observed_at < mention.created_at {
            return Err(InvalidUnit::ObservedBeforeCreated { row });
        }
        Ok(())
    }
}

/// Links in the order of their rows, which is usually their order already.
fn in_order(links: &[Link]) -> Cow<'_, [Link]> {
    if links.is_sorted_by_key(|link| link.row) {
        return Cow::Borrowed(links);
    }
    let mut links = links.to_vec();
    links.sort_by_key(|link| link.row);
    Cow::Owned(links)
}

fn check_place(place: &PlaceObservation, row: Row) -> Result<(), InvalidUnit> {
    let check = |result: Result<Coordinate, CoordinateError>, field| match result {
        Ok(_) => Ok(()),
        Err(CoordinateError::NotFinite) => Err(InvalidUnit::CoordinateNotFinite { row, field }),
        Err(CoordinateError::OutOfRange { limit }) => Err(InvalidUnit::CoordinateOutOfRange { row, field, limit }),
    };
    if let Some(latitude) = place.latitude {
        check(Coordinate::latitude(latitude), Field::Latitude)?;
    }
    if let Some(longitude) = place.longitude {
        check(Coordinate::longitude(longitude), Field::Longitude)?;
    }
    if place.latitude.is_some() != place.longitude.is_some() {
        return Err(InvalidUnit::LocationIncomplete { row });
    }
    if let Some(address) = &place.address {
        check_text(address, ADDRESS_CHARS_MAX, row, Field::Address)?;
    }
    if let Some(id) = &place.google_place_id {
        check_text(id, SOURCE_ID_CHARS_MAX, row, Field::GooglePlaceId)?;
        if is_blank(id) {
            return Err(InvalidUnit::EmptyText { row, field: Field::GooglePlaceId });
        }
    }
    if let Some(metadata) = &place.metadata {
        check_metadata(metadata, row)?;
    }
    check_time(place.observed_at, row, Field::PlaceObservedAt)
}

fn check_metadata(metadata: &Value, row: Row) -> Result<(), InvalidUnit> {
    if !metadata.is_object() {
        return Err(InvalidUnit::MetadataNotObject { row });
    }
    // An explicit stack: the caller determines the depth, and the thread's stack is limited.
    let mut open = vec![(metadata, 1)];
    while let Some((value, depth)) = open.pop() {
        let nul = match value {
            Value::String(text) => text.contains('\0'),
            Value::Object(map) => {
                open.extend(map.values().map(|value| (value, depth + 1)));
                map.keys().any(|key| key.contains('\0'))
            }
            Value::Array(items) => {
                open.extend(items.iter().map(|value| (value, depth + 1)));
                false
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        };
        if nul {
            return Err(InvalidUnit::NulCharacter { row, field: Field::RestaurantMetadata });
        }
        if depth > METADATA_DEPTH_MAX && (value.is_object() || value.is_array()) {
            return Err(InvalidUnit::MetadataTooDeep { row, limit: METADATA_DEPTH_MAX });
        }
    }
    Ok(())
}

fn check_text(text: &str, limit: usize, row: Row, field: Field) -> Result<(), InvalidUnit> {
    // There are at least as many bytes as characters, so most texts need no counting.
    if text.len() > limit {
        let chars = text.chars().count();
        if chars > limit {
            return Err(InvalidUnit::TextTooLong { row, field, chars, limit });
        }
    }
    if text.as_bytes().contains(&0) {
        return Err(InvalidUnit::NulCharacter { row, field });
    }
    Ok(())
}

fn check_time(time: Timestamp, row: Row, field: Field) -> Result<(), InvalidUnit> {
    debug_assert!(DateTime::<Utc>::MAX_UTC.timestamp() < 9_224_318_016_000, "chrono ends before PostgreSQL does");
    if time.timestamp() < EARLIEST_SECONDS {
        return Err(InvalidUnit::TimeOutOfRange { row, field });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::record::{Mention, SourceType};

    /// Texts are shared, so the unit only counts as that large.
    #[test]
    fn a_unit_may_have_the_maximum_of_bytes_and_not_one_more() {
        let text: Arc<str> = "x".repeat(1 << 20).into();
        let mut unit = UnitOfWork::new();
        let (restaurant, dish) = (unit.restaurant("r").handle(), unit.dish("d").handle());
        let connection = unit.connection(restaurant, dish).handle();
        let mention = Mention::new(SourceType::Post, "i", "u", "s", "2024-01-01T00:00:00Z".parse().unwrap());
        for _ in 0..255 {
            unit.mention(connection, mention.clone().thread(Arc::clone(&text)));
        }
        unit.mention(connection, mention.clone());
        let left = UNIT_BYTES_MAX - unit.bytes();
        let mut whole = unit.clone();
        whole.block.lengthen_last_mention(&"x".repeat(left));
        assert_eq!(whole.bytes(), UNIT_BYTES_MAX);
        assert!(matches!(whole.validate(1_000), Err(InvalidUnit::TextTooLong { .. })), "the size is not the reason");
        for more in [1, 2] {
            let mut over = unit.clone();
            over.block.lengthen_last_mention(&"x".repeat(left + more));
            let bytes = UNIT_BYTES_MAX + more;
            assert_eq!(over.validate(1_000), Err(InvalidUnit::TooManyBytes { bytes, limit: UNIT_BYTES_MAX }));
        }
    }

    #[test]
    fn only_lists_and_objects_count_as_levels_of_metadata() {
        let validated = |metadata: Value| {
            let mut unit = UnitOfWork::new();
            let place = PlaceObservation::new("2024-01-01T00:00:00Z".parse().unwrap());
            unit.restaurant("r").place(place.metadata(metadata));
            unit.validate(10).map_err(|invalid| invalid.rule())
        };
        let object = |inner: Value| json!({ "a": inner, "b": 1 });
        let list = |inner: Value| json!(["a", inner, 1]);
        for innermost in [json!({}), json!([]), json!(["text"])] {
            let around = |levels: usize, wrap: &dyn Fn(Value) -> Value| {
                // The value inside is at one level, and the outermost must be an object.
                object((0..levels - 2).fold(innermost.clone(), |inner, _| wrap(inner)))
            };
            for wrap in [&object as &dyn Fn(Value) -> Value, &list] {
                assert_eq!(validated(around(METADATA_DEPTH_MAX, wrap)), Ok(()));
                assert_eq!(validated(around(METADATA_DEPTH_MAX + 1, wrap)), Err("metadata_too_deep"));
            }
        }
    }
}
