//! Reasons for refusing a unit before it is accepted: one variant per rule.

use std::fmt;

use super::row::Row;
use crate::record::EntityType;

/// A column of a row, or the part of a unit that becomes one.
///
/// ```
/// assert_eq!(graphsink::Field::Restaurant.as_str(), "restaurant_id");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Field {
    Name,
    Alias,
    RestaurantAttributes,
    Latitude,
    Longitude,
    Address,
    GooglePlaceId,
    RestaurantMetadata,
    PlaceObservedAt,
    Restaurant,
    DishOrCategory,
    DishAttributes,
    Categories,
    SourceId,
    ThreadId,
    SourceUrl,
    Subreddit,
    ContentExcerpt,
    Author,
    CreatedAt,
    ObservedAt,
}

impl Field {
    /// The column's name in the database.
    ///
    /// ```
    /// assert_eq!(graphsink::Field::Alias.as_str(), "aliases");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Alias => "aliases",
            Self::RestaurantAttributes => "restaurant_attributes",
            Self::Latitude => "latitude",
            Self::Longitude => "longitude",
            Self::Address => "address",
            Self::GooglePlaceId => "google_place_id",
            Self::RestaurantMetadata => "restaurant_metadata",
            Self::PlaceObservedAt => "place_observed_at",
            Self::Restaurant => "restaurant_id",
            Self::DishOrCategory => "dish_or_category_id",
            Self::DishAttributes => "dish_attributes",
            Self::Categories => "categories",
            Self::SourceId => "source_id",
            Self::ThreadId => "thread_id",
            Self::SourceUrl => "source_url",
            Self::Subreddit => "subreddit",
            Self::ContentExcerpt => "content_excerpt",
            Self::Author => "author",
            Self::CreatedAt => "created_at",
            Self::ObservedAt => "observed_at",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rule that a unit breaks. Nothing of the unit was accepted.
///
/// ```
/// use graphsink::{InvalidUnit, UnitOfWork};
///
/// let mut unit = UnitOfWork::new();
/// unit.dish(" ").handle();
/// assert!(matches!(unit.validate(10), Err(InvalidUnit::BlankName { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUnit {
    /// The unit has no row.
    #[error("the unit has no row: add one, or do not submit it")]
    NoRows,
    /// The unit has more rows than the engine's limit.
    #[error("the unit has {rows} rows, the limit is {limit}: split it")]
    TooManyRows {
        /// Rows of all tables.
        rows: usize,
        /// `Config::max_unit_rows`.
        limit: usize,
    },
    /// The unit is too large to be sent.
    #[error("the unit has {bytes} bytes, the limit is {limit}: split it")]
    TooManyBytes {
        /// Approximate bytes in memory.
        bytes: usize,
        /// [`UNIT_BYTES_MAX`](super::limits::UNIT_BYTES_MAX).
        limit: usize,
    },
    /// A dish attribute was added to a connection that is named by its id: its key is fixed.
    #[error("{row}: the dish attributes of an existing connection cannot change: name it by its key instead")]
    DishAttributeOnExistingConnection {
        /// The connection.
        row: Row,
    },
    /// An entity's name is empty, or consists of white space, control and invisible characters only (such as U+200B).
    #[error("{row}: the name is blank: give it a visible character")]
    BlankName {
        /// The entity.
        row: Row,
    },
    /// An alias is empty, or consists of white space, control and invisible characters only.
    #[error("{row}: an alias is blank: leave it out")]
    BlankAlias {
        /// The entity.
        row: Row,
    },
    /// A required text is empty.
    #[error("{row}: {field} is empty: give it a text")]
    EmptyText {
        /// The row.
        row: Row,
        /// The column.
        field: Field,
    },
    /// A text is longer than its column.
    #[error("{row}: {field} has {chars} characters, the limit is {limit}: shorten it")]
    TextTooLong {
        /// The row.
        row: Row,
        /// The column.
        field: Field,
        /// Its length in characters.
        chars: usize,
        /// The column's length.
        limit: usize,
    },
    /// A text, or a text within JSON, contains a NUL, which PostgreSQL cannot store.
    #[error("{row}: {field} contains a NUL character, which PostgreSQL cannot store: remove it")]
    NulCharacter {
        /// The row.
        row: Row,
        /// The column.
        field: Field,
    },
    /// A connection has more dish attributes than the unique index can hold.
    #[error("{row}: {count} dish attributes, the limit is {limit}: leave some out")]
    TooManyDishAttributes {
        /// The connection.
        row: Row,
        /// Distinct attributes.
        count: usize,
        /// [`DISH_ATTRIBUTES_MAX`](super::limits::DISH_ATTRIBUTES_MAX).
        limit: usize,
    },
    /// A latitude or longitude is NaN or infinite.
    #[error("{row}: {field} is not a finite number: give degrees, or leave the location out")]
    CoordinateNotFinite {
        /// The entity.
        row: Row,
        /// Latitude or longitude.
        field: Field,
    },
    /// A latitude or longitude is out of range.
    #[error("{row}: {field} is beyond {limit} degrees: give degrees, latitude first")]
    CoordinateOutOfRange {
        /// The entity.
        row: Row,
        /// Latitude or longitude.
        field: Field,
        /// 90 or 180.
        limit: u16,
    },
    /// A latitude without a longitude, or the reverse.
    #[error("{row}: latitude and longitude belong together, one is missing: give both or none")]
    LocationIncomplete {
        /// The entity.
        row: Row,
    },
    /// A place on an entity that is not a restaurant.
    #[error("{row}: only a restaurant has a place, this is a {entity_type}: leave it out")]
    PlaceOnNonRestaurant {
        /// The entity.
        row: Row,
        /// Its type.
        entity_type: EntityType,
    },
    /// Restaurant attributes on an entity that is not a restaurant.
    #[error("{row}: only a restaurant has restaurant attributes, this is a {entity_type}: leave them out")]
    AttributesOnNonRestaurant {
        /// The entity.
        row: Row,
        /// Its type.
        entity_type: EntityType,
    },
    /// The metadata is JSON, but not an object.
    #[error("{row}: restaurant_metadata is not a JSON object: put it into one")]
    MetadataNotObject {
        /// The entity.
        row: Row,
    },
    /// The metadata is nested too deeply.
    #[error("{row}: restaurant_metadata is nested deeper than {limit}: make it flatter")]
    MetadataTooDeep {
        /// The entity.
        row: Row,
        /// [`METADATA_DEPTH_MAX`](super::limits::METADATA_DEPTH_MAX).
        limit: usize,
    },
    /// A row refers to an entity of the wrong type.
    #[error("{row}: {field} must be a {expected}, this is a {found}")]
    WrongEntityType {
        /// The row that refers.
        row: Row,
        /// The column in which it refers to the entity.
        field: Field,
        /// The required type.
        expected: EntityType,
        /// The entity's type.
        found: EntityType,
    },
    /// A row refers to an entity by a handle of another unit.
    #[error("{row}: {field} is a handle of another unit: use one of this unit, or the row's id")]
    ForeignHandle {
        /// The row that refers.
        row: Row,
        /// The column in which it refers to the entity.
        field: Field,
    },
    /// A mention belongs to no connection of this unit.
    #[error("{row}: belongs to no connection of this unit: use a handle of this unit, or the connection's id")]
    MentionWithoutConnection {
        /// The mention.
        row: Row,
    },
    /// A time that `timestamptz` cannot hold.
    #[error("{row}: {field} is outside the range of timestamptz, 4713 BC to 294276 AD: check its time unit")]
    TimeOutOfRange {
        /// The row.
        row: Row,
        /// The column.
        field: Field,
    },
    /// A mention was observed before it was written.
    #[error("{row}: observed_at is before created_at: a text is observed after it was written")]
    ObservedBeforeCreated {
        /// The mention.
        row: Row,
    },
}

impl InvalidUnit {
    /// The row that breaks the rule; `None` if it is the unit as a whole.
    ///
    /// ```
    /// use graphsink::{InvalidUnit, Row, Table, UnitOfWork};
    ///
    /// let mut unit = UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// unit.dish("").handle();
    /// let broken = unit.validate(10).unwrap_err();
    /// assert_eq!(broken.row(), Some(Row { table: Table::Entities, index: 1 }));
    /// assert_eq!(InvalidUnit::NoRows.row(), None);
    /// ```
    #[must_use]
    pub const fn row(&self) -> Option<Row> {
        match self {
            Self::NoRows | Self::TooManyRows { .. } | Self::TooManyBytes { .. } => None,
            Self::DishAttributeOnExistingConnection { row }
            | Self::BlankName { row }
            | Self::BlankAlias { row }
            | Self::EmptyText { row, .. }
            | Self::TextTooLong { row, .. }
            | Self::NulCharacter { row, .. }
            | Self::TooManyDishAttributes { row, .. }
            | Self::CoordinateNotFinite { row, .. }
            | Self::CoordinateOutOfRange { row, .. }
            | Self::LocationIncomplete { row }
            | Self::PlaceOnNonRestaurant { row, .. }
            | Self::AttributesOnNonRestaurant { row, .. }
            | Self::MetadataNotObject { row }
            | Self::MetadataTooDeep { row, .. }
            | Self::WrongEntityType { row, .. }
            | Self::ForeignHandle { row, .. }
            | Self::MentionWithoutConnection { row }
            | Self::TimeOutOfRange { row, .. }
            | Self::ObservedBeforeCreated { row } => Some(*row),
        }
    }

    /// A short stable name of the rule, for counting by rule.
    ///
    /// ```
    /// assert_eq!(graphsink::InvalidUnit::NoRows.rule(), "no_rows");
    /// ```
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NoRows => "no_rows",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::DishAttributeOnExistingConnection { .. } => "dish_attribute_on_existing_connection",
            Self::BlankName { .. } => "blank_name",
            Self::BlankAlias { .. } => "blank_alias",
            Self::EmptyText { .. } => "empty_text",
            Self::TextTooLong { .. } => "text_too_long",
            Self::NulCharacter { .. } => "nul_character",
            Self::TooManyDishAttributes { .. } => "too_many_dish_attributes",
            Self::CoordinateNotFinite { .. } => "coordinate_not_finite",
            Self::CoordinateOutOfRange { .. } => "coordinate_out_of_range",
            Self::LocationIncomplete { .. } => "location_incomplete",
            Self::PlaceOnNonRestaurant { .. } => "place_on_non_restaurant",
            Self::AttributesOnNonRestaurant { .. } => "attributes_on_non_restaurant",
            Self::MetadataNotObject { .. } => "metadata_not_object",
            Self::MetadataTooDeep { .. } => "metadata_too_deep",
            Self::WrongEntityType { .. } => "wrong_entity_type",
            Self::ForeignHandle { .. } => "foreign_handle",
            Self::MentionWithoutConnection { .. } => "mention_without_connection",
            Self::TimeOutOfRange { .. } => "time_out_of_range",
            Self::ObservedBeforeCreated { .. } => "observed_before_created",
        }
    }
}
