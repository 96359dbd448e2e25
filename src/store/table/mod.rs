//! The columns of the three tables, each in one place: its name, its type, and the source of its value.
//!
//! Everything that writes or reads whole rows is generated from these lists: the texts of statements, their arrays,
//! rows in the format of `copy`, the lists of selected columns. A new column is a line of its table's list, and a line
//! of the function next to the list that reads a row.

mod array_text;
mod connections;
mod encode;
mod entities;
mod json;
mod mentions;
mod sql;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod tests;
mod time;

use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use crate::record::{SortedSet, Timestamp};

pub(super) use array_text::uuid_array;
pub(crate) use connections::Connections;
pub(super) use connections::{
    KEY as CONNECTION_KEY, read_connection, read_key as read_connection_key, read_seen_connection,
};
pub(crate) use encode::CopyPieces;
pub(super) use encode::{Arrays, COPY_END, COPY_HEAD, NextRow, copy_pieces};
pub(crate) use entities::Entities;
pub(super) use entities::{ID_AND_KEY as NOT_FACTS, read_facts, read_key as read_entity_key};
pub(crate) use mentions::Mentions;
pub(super) use mentions::{OF_CONNECTION as MENTION_OF_CONNECTION, read_mention, read_mention_ref};
pub(super) use sql::{copy, insert, load, names, select, stored_types, types, update};
pub(super) use time::StoredTime;

/// A table and its columns.
pub(crate) trait Table: Sized + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The data that the engine writes as one row.
    type Row<'a>;
    /// The columns that the engine writes, in the order in which statements name them. The first one is the id.
    const COLUMNS: &'static [Column<Self>];
}

/// A column that the engine writes.
pub(crate) struct Column<T: Table> {
    name: &'static str,
    role: Role,
    value: Value<T>,
    /// Whether an update with null keeps the stored value.
    is_kept_where_null: bool,
}

/// When a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Only when the row is inserted.
    Fixed,
    /// On insert and with each update.
    Changing,
    /// Only with updates.
    Late,
}

/// The statement for which a row is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Insert,
    Update,
    /// A `copy` without a later update: all columns.
    Whole,
}

/// The type of a column, and its value in a row.
enum Value<T: Table> {
    Id(for<'a> fn(&'a T::Row<'a>) -> Uuid),
    /// A label of the enum type of this name.
    Label(&'static str, for<'a> fn(&'a T::Row<'a>) -> &'static str),
    Text(for<'a> fn(&'a T::Row<'a>) -> Option<&'a str>),
    Bool(for<'a> fn(&'a T::Row<'a>) -> bool),
    Int4(for<'a> fn(&'a T::Row<'a>) -> i32),
    Int8(for<'a> fn(&'a T::Row<'a>) -> i64),
    Time(for<'a> fn(&'a T::Row<'a>) -> Option<Timestamp>),
    /// Degrees, in units of the column's last decimal.
    Degrees(for<'a> fn(&'a T::Row<'a>) -> Option<i64>),
    Ids(for<'a> fn(&'a T::Row<'a>) -> &'a SortedSet<Uuid>),
    Texts(for<'a> fn(&'a T::Row<'a>) -> &'a SortedSet<Arc<str>>),
    /// Writes JSON into the buffer; false if the value is null.
    Json(for<'a> fn(&'a T::Row<'a>, &mut BytesMut) -> bool),
}

impl<T: Table> Column<T> {
    const fn new(name: &'static str, role: Role, value: Value<T>) -> Self {
        Self { name, role, value, is_kept_where_null: false }
    }

    const fn kept_where_null(self) -> Self {
        Self { is_kept_where_null: true, ..self }
    }

    fn of(purpose: Purpose) -> impl Iterator<Item = (usize, &'static Self)> {
        T::COLUMNS.iter().enumerate().filter(move |(place, column)| match purpose {
            Purpose::Insert => column.role != Role::Late,
            // The id identifies the row.
            Purpose::Update => *place == 0 || column.role != Role::Fixed,
            Purpose::Whole => true,
        })
    }
}

impl<T: Table> Value<T> {
    /// The type of the array with the values of many rows. Sets are sent as text: `unnest` would flatten arrays of
    /// arrays.
    const fn array_type(&self) -> Type {
        match self {
            Self::Id(_) => Type::UUID_ARRAY,
            Self::Label(..) | Self::Text(_) | Self::Ids(_) | Self::Texts(_) => Type::TEXT_ARRAY,
            Self::Bool(_) => Type::BOOL_ARRAY,
            Self::Int4(_) => Type::INT4_ARRAY,
            Self::Int8(_) | Self::Degrees(_) => Type::INT8_ARRAY,
            Self::Time(_) => Type::TIMESTAMPTZ_ARRAY,
            Self::Json(_) => Type::JSONB_ARRAY,
        }
    }
}

/// The cells of a row, starting at a column, one after the other.
pub(super) struct Cells<'a> {
    row: &'a Row,
    next: usize,
}

impl<'a> Cells<'a> {
    pub(super) const fn new(row: &'a Row, first: usize) -> Self {
        Self { row, next: first }
    }

    pub(super) fn next<V: FromSql<'a>>(&mut self) -> Result<V, Error> {
        self.next += 1;
        self.row.try_get(self.next - 1)
    }

    /// Members of a set.
    fn set<V: FromSql<'a>, M: Ord + From<V>>(&mut self) -> Result<SortedSet<M>, Error> {
        Ok(self.next::<Vec<V>>()?.into_iter().map(M::from).collect())
    }
}

/// The text of a `jsonb`.
struct JsonText<'a>(&'a [u8]);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // After the version of the format.
        Ok(Self(raw.get(1..).unwrap_or_default()))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }
}
