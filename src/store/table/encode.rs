//! The encoding of rows for the server: as arrays, one for each column, or in the format of `copy`.
//!
//! A value has the same bytes in both formats, after its length; only sets and degrees are encoded differently in
//! arrays. The formats: `array_recv` in PostgreSQL's source, and
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::array_text::{text_array, uuid_array};
use super::time::StoredTime;
use super::{Column, Purpose, Table, Value};
use crate::record::{SortedSet, Timestamp};

/// Size of a piece of copied rows, in bytes.
const PIECE: usize = 64 << 10;
/// A size that a row seldom exceeds, in bytes.
const ROW: usize = 2 << 10;
/// The header before all rows: the signature, no flags, and no extension.
pub(in crate::store) const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The trailer after all rows.
pub(in crate::store) const COPY_END: &[u8] = &(-1_i16).to_be_bytes();
/// The length that represents null.
const NULL: i32 = -1;

/// The form of sets and degrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As elements of arrays, which the statement converts.
    Element,
    /// As they are stored.
    Stored,
}

/// The rows of a statement, one array for each of its parameters. All have the same length by construction: `unnest`
/// would silently pad shorter ones with nulls.
#[derive(Debug)]
pub(in crate::store) struct Arrays(Vec<Array>);

/// An array of one dimension in PostgreSQL's binary format.
#[derive(Debug)]
struct Array {
    kind: Type,
    length: i32,
    has_null: bool,
    elements: BytesMut,
    /// Bytes of this array and all later ones of the statement, so that the driver's buffer grows once for all of them.
    room: usize,
}

impl Arrays {
    pub(in crate::store) fn new<'a, T: Table>(
        purpose: Purpose,
        rows: impl IntoIterator<Item = &'a T::Row<'a>>,
    ) -> Self {
        let rows = rows.into_iter();
        let columns: Vec<&Column<T>> = Column::of(purpose).map(|(_, column)| column).collect();
        let array =
            |column: &&Column<T>| Array::new(column.value.array_type(), rows.size_hint().0 * column.value.usual());
        let mut arrays: Vec<Array> = columns.iter().map(array).collect();
        for row in rows {
            for (column, array) in columns.iter().zip(&mut arrays) {
                array.push(|buffer| column.value.put(row, Form::Element, buffer));
            }
        }
        let mut room = 0;
        for array in arrays.iter_mut().rev() {
            room += array.elements.len() + Array::HEAD;
            array.room = room;
        }
        Self(arrays)
    }

    pub(in crate::store) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
    }
}

impl Array {
    /// Bytes before the elements, and the length before those.
    const HEAD: usize = 24;

    fn new(kind: Type, capacity: usize) -> Self {
        Self { kind, length: 0, has_null: false, elements: BytesMut::with_capacity(capacity), room: 0 }
    }

    fn push(&mut self, put: impl FnOnce(&mut BytesMut) -> IsNull) {
        self.length += 1;
        self.has_null |= matches!(put(&mut self.elements), IsNull::Yes);
    }
}

impl ToSql for Array {
    fn to_sql(&self, kind: &Type, buffer: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let element = match kind.kind() {
            Kind::Array(element) if *kind == self.kind => element,
            _ => return Err(format!("the statement takes {kind}, the column is {}", self.kind).into()),
        };
        buffer.reserve(self.room);
        // One dimension, counted from 1.
        buffer.put_i32(1);
        buffer.put_i32(i32::from(self.has_null));
        buffer.put_u32(element.oid());
        buffer.put_i32(self.length);
        buffer.put_i32(1);
        buffer.put_slice(&self.elements);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(kind.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

/// Rows that are encoded one by one. It is no iterator of rows, because [`CopyPieces::push`] borrows a row for as long as
/// the row's own lifetime, which differs from row to row.
pub(in crate::store) trait NextRow<T: Table> {
    /// Encodes the next row by [`CopyPieces::push`], and returns its result. Breaks if there are no more rows.
    fn encode_next(&mut self, encoder: &mut CopyPieces<T>) -> ControlFlow<(), Option<Bytes>>;
}

/// Rows in the format of `copy`, in pieces that are ready to send. Each is encoded when it is asked for. `count` is the
/// number of rows.
///
/// The driver's own writer uses a trait object for each value, and its queue for every four kilobytes.
pub(in crate::store) fn copy_pieces<T: Table, R: NextRow<T>>(count: usize, rows: R) -> Pieces<T, R> {
    Pieces { encoder: Some(CopyPieces::with_room(Purpose::Insert, (count + 1) * ROW / 4)), rows }
}

/// See [`copy_pieces`].
pub(in crate::store) struct Pieces<T: Table, R> {
    /// `None` after the last piece.
    encoder: Option<CopyPieces<T>>,
    rows: R,
}

impl<T: Table, R: NextRow<T>> Iterator for Pieces<T, R> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.rows.encode_next(self.encoder.as_mut()?) {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(full) => return full,
                ControlFlow::Break(()) => return self.encoder.take().map(CopyPieces::finish),
            }
        }
    }
}

/// Encodes rows in the format of `copy` as they come, and returns each full piece.
pub(crate) struct CopyPieces<T: Table> {
    columns: Vec<&'static Column<T>>,
    piece: BytesMut,
}

impl<T: Table> CopyPieces<T> {
    /// For rows with all of their columns, which are not updated afterwards: for `copy` into a table without keys.
    pub(crate) fn of_whole_rows() -> Self {
        Self::with_room(Purpose::Whole, PIECE)
    }

    /// `room`: approximate bytes of all rows.
    fn with_room(purpose: Purpose, room: usize) -> Self {
        let mut piece = BytesMut::with_capacity(PIECE.min(room));
        piece.put_slice(COPY_HEAD);
        Self { columns: Column::of(purpose).map(|(_, column)| column).collect(), piece }
    }

    /// Adds a row. Returns the piece before it if that was full.
    pub(crate) fn push<'a>(&mut self, row: &'a T::Row<'a>) -> Option<Bytes> {
        let full = (self.piece.len() > PIECE - ROW)
            .then(|| std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE)).freeze());
        self.piece.put_i16(self.columns.len() as i16);
        for column in &self.columns {
            column.value.put(row, Form::Stored, &mut self.piece);
        }
        full
    }

    /// The last piece, with the trailer.
    pub(crate) fn finish(mut self) -> Bytes {
        self.piece.put_slice(COPY_END);
        self.piece.freeze()
    }
}

impl<T: Table> Value<T> {
    /// Bytes of a usual value, with its length.
    const fn usual(&self) -> usize {
        match self {
            Self::Id(_) => 20,
            Self::Label(..) | Self::Text(_) => 24,
            Self::Bool(_) => 5,
            Self::Int4(_) => 8,
            Self::Int8(_) => 12,
            Self::Time(_) | Self::Degrees(_) | Self::Ids(_) | Self::Texts(_) | Self::Json(_) => 4,
        }
    }

    /// Writes a row's value after its length.
    fn put<'a>(&self, row: &'a T::Row<'a>, form: Form, buffer: &mut BytesMut) -> IsNull {
        match (self, form) {
            (Self::Id(get), _) => put(buffer, get(row).as_bytes()),
            // An enum is sent as its label.
            (Self::Label(_, get), _) => put(buffer, get(row).as_bytes()),
            (Self::Text(get), _) => put_maybe(buffer, get(row), |buffer, text| put(buffer, text.as_bytes())),
            (Self::Bool(get), _) => put(buffer, &[u8::from(get(row))]),
            (Self::Int4(get), _) => put(buffer, &get(row).to_be_bytes()),
            (Self::Int8(get), _) => put(buffer, &get(row).to_be_bytes()),
            (Self::Time(get), _) => put_maybe(buffer, get(row), put_time),
            (Self::Degrees(get), Form::Element) => {
                put_maybe(buffer, get(row), |buffer, units| put(buffer, &units.to_be_bytes()))
            }
            (Self::Degrees(get), Form::Stored) => put_maybe(buffer, get(row), put_degrees),
            (Self::Ids(get), Form::Element) => {
                put_maybe(buffer, Some(get(row)).filter(|ids| !ids.is_empty()), put_ids_as_text)
            }
            (Self::Ids(get), Form::Stored) => put_ids(buffer, get(row)),
            (Self::Texts(get), Form::Element) => {
                put_maybe(buffer, Some(get(row)).filter(|texts| !texts.is_empty()), put_texts_as_text)
            }
            (Self::Texts(get), Form::Stored) => {
                put_set(buffer, &Type::TEXT, get(row).iter().map(|text| text.as_bytes()))
            }
            (Self::Json(write), _) => put_json(buffer, |buffer| write(row, buffer)),
        }
    }
}

fn put(buffer: &mut BytesMut, value: &[u8]) -> IsNull {
    // A unit's bytes are limited to far less.
    buffer.put_i32(value.len() as i32);
    buffer.put_slice(value);
    IsNull::No
}

fn put_maybe<V>(buffer: &mut BytesMut, value: Option<V>, put: impl FnOnce(&mut BytesMut, V) -> IsNull) -> IsNull {
    if let Some(value) = value {
        put(buffer, value)
    } else {
        buffer.put_i32(NULL);
        IsNull::Yes
    }
}

/// Writes a value after its length, which is filled in afterwards.
fn put_behind_length(buffer: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> IsNull {
    let start = buffer.len();
    buffer.put_i32(0);
    write(buffer);
    let length = (buffer.len() - start - size_of::<i32>()) as i32;
    buffer[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    IsNull::No
}

fn put_time(buffer: &mut BytesMut, time: Timestamp) -> IsNull {
    put(buffer, &StoredTime(time).micros().to_be_bytes())
}

/// A `numeric` with eight decimals: digits to the base of 10,000, one of them before the point.
fn put_degrees(buffer: &mut BytesMut, units: i64) -> IsNull {
    const POSITIVE: u16 = 0;
    const NEGATIVE: u16 = 0x4000;
    let magnitude = units.unsigned_abs();
    let digits = [magnitude / 100_000_000, magnitude / 10_000 % 10_000, magnitude % 10_000];
    put_behind_length(buffer, |buffer| {
        buffer.put_i16(digits.len() as i16);
        // The first digit's power of 10,000.
        buffer.put_i16(0);
        buffer.put_u16(if units < 0 { NEGATIVE } else { POSITIVE });
        // Number of decimals.
        buffer.put_u16(8);
        for digit in digits {
            buffer.put_u16(digit as u16);
        }
    })
}

fn put_ids(buffer: &mut BytesMut, ids: &SortedSet<Uuid>) -> IsNull {
    put_set(buffer, &Type::UUID, ids.iter().map(|id| id.as_bytes().as_slice()))
}

/// An array of one dimension, or the empty array, which has none.
fn put_set<'a>(buffer: &mut BytesMut, element: &Type, members: impl ExactSizeIterator<Item = &'a [u8]>) -> IsNull {
    put_behind_length(buffer, |buffer| {
        let length = members.len() as i32;
        buffer.put_i32(i32::from(length > 0));
        // Without nulls.
        buffer.put_i32(0);
        buffer.put_u32(element.oid());
        if length > 0 {
            buffer.put_i32(length);
            // Counted from 1.
            buffer.put_i32(1);
        }
        for member in members {
            put(buffer, member);
        }
    })
}

fn put_ids_as_text(buffer: &mut BytesMut, ids: &SortedSet<Uuid>) -> IsNull {
    put(buffer, uuid_array(ids).as_bytes())
}

fn put_texts_as_text(buffer: &mut BytesMut, texts: &SortedSet<std::sync::Arc<str>>) -> IsNull {
    put(buffer, text_array(texts.iter().map(|text| &**text)).as_bytes())
}

/// A `jsonb` in binary: the version of the format, and the text.
fn put_json(buffer: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> bool) -> IsNull {
    let start = buffer.len();
    let mut is_there = false;
    put_behind_length(buffer, |buffer| {
        buffer.put_u8(1);
        is_there = write(buffer);
    });
    if is_there {
        return IsNull::No;
    }
    buffer.truncate(start);
    buffer.put_i32(NULL);
    IsNull::Yes
}

/// Writes a value as JSON text.
pub(super) fn write_json(buffer: &mut BytesMut, value: &impl serde::Serialize) {
    serde_json::to_writer(buffer.writer(), value).expect("texts, numbers and times are always JSON");
}

#[cfg(test)]
mod tests {
    use super::super::Mentions;
    use super::*;
    use crate::batch::MentionRow;
    use crate::record::{Mention, SourceType};
    use crate::unit::UnitOfWork;

    /// The same row again and again.
    struct Repeated<'a> {
        row: MentionRow<'a>,
        left: usize,
    }

    impl NextRow<Mentions> for &mut Repeated<'_> {
        fn encode_next(&mut self, encoder: &mut CopyPieces<Mentions>) -> ControlFlow<(), Option<Bytes>> {
            if self.left == 0 {
                return ControlFlow::Break(());
            }
            self.left -= 1;
            ControlFlow::Continue(encoder.push(&self.row))
        }
    }

    #[test]
    fn rows_are_encoded_piece_by_piece_and_each_once() {
        let mut unit = UnitOfWork::new();
        let connection = unit.existing_connection(Uuid::nil()).handle();
        let mention = Mention::new(SourceType::Post, "id", "url", "food", "2026-01-02T03:04:05Z".parse().unwrap());
        unit.mention(connection, mention);
        let unit = unit.prepare().share();
        let block = unit.get().block();
        let (id, record) = (Uuid::nil(), &block.mentions[0]);
        let row = MentionRow { id, connection: id, texts: block.texts, record, history_indexed: false };
        let mut encoder = CopyPieces::<Mentions>::with_room(Purpose::Insert, PIECE);
        assert!(encoder.push(&row).is_none());
        let one = encoder.finish().slice(COPY_HEAD.len()..);
        let one = &one[..one.len() - COPY_END.len()];
        for count in [0, 1, 5_000] {
            let mut rows = Repeated { row, left: count };
            let mut pieces = copy_pieces::<Mentions, _>(count, &mut rows);
            let mut all = pieces.next().unwrap().to_vec();
            let is_first_of_many = pieces.rows.left > 0;
            assert_eq!(is_first_of_many, count > 1, "rows are encoded when they are asked for");
            for piece in &mut pieces {
                assert!(piece.len() <= PIECE);
                all.extend_from_slice(&piece);
            }
            assert!(pieces.next().is_none(), "the end is final");
            let expected = [COPY_HEAD, &one.repeat(count), COPY_END].concat();
            assert!(all == expected, "{count} rows");
        }
    }
}
