//! The columns of `connections`.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::Value::{Bool, Id, Ids, Int4, Int8, Json, Label, Time};
use super::json::write_top_mentions;
use super::time::StoredTime;
use super::{Cells, Column, CopyPieces, JsonText, NextRow, Role, Table};
use crate::batch::{ConnectionWrite, NewConnections, SeenConnection, StoredConnection};
use crate::error::StoreError;
use crate::record::{ConnectionFacts, ConnectionKey, ConnectionMetrics, StandingFigures, StandingScore};

/// See [`Table`].
#[derive(Debug)]
pub(crate) enum Connections {}

impl Table for Connections {
    const NAME: &'static str = "connections";
    type Row<'a> = ConnectionWrite<'a>;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("connection_id", Role::Fixed, Id(|row| row.id)),
        Column::new("restaurant_id", Role::Fixed, Id(|row| row.key.restaurant)),
        Column::new("dish_or_category_id", Role::Fixed, Id(|row| row.key.dish)),
        Column::new("dish_attributes", Role::Fixed, Ids(|row| &row.key.dish_attributes)),
        Column::new("categories", Role::Changing, Ids(|row| &row.facts.categories)),
        Column::new("is_menu_item", Role::Changing, Bool(|row| row.facts.is_menu_item)),
        Column::new("mention_count", Role::Changing, Int4(|row| row.metrics.mention_count)),
        Column::new("total_upvotes", Role::Changing, Int8(|row| row.metrics.total_upvotes)),
        Column::new("source_diversity", Role::Changing, Int4(|row| row.metrics.source_diversity)),
        Column::new("recent_mention_count", Role::Changing, Int4(|row| row.metrics.recent_mention_count)),
        Column::new("last_mentioned_at", Role::Changing, Time(|row| row.metrics.last_mentioned_at)),
        Column::new(
            "activity_level",
            Role::Changing,
            Label("activity_level", |row| row.metrics.activity_level.as_str()),
        ),
        Column::<Self>::new("top_mentions", Role::Changing, Json(|row, buffer| put_top_mentions(row, buffer)))
            // The server takes longer to parse a connection's best mentions than for the rest of its row.
            .kept_where_null(),
        Column::new("history_indexed", Role::Changing, Bool(|row| row.history_indexed)),
    ];
}

impl NextRow<Connections> for NewConnections<'_> {
    fn encode_next(&mut self, encoder: &mut CopyPieces<Connections>) -> ControlFlow<(), Option<Bytes>> {
        self.next().map_or(ControlFlow::Break(()), |row| ControlFlow::Continue(encoder.push(&row)))
    }
}

/// Null if the stored ones stay.
fn put_top_mentions(row: &ConnectionWrite<'_>, buffer: &mut BytesMut) -> bool {
    if !row.keeps_top_mentions {
        write_top_mentions(buffer, &row.metrics.top_mentions);
    }
    !row.keeps_top_mentions
}

/// The columns of a connection's key.
pub(in crate::store) const KEY: &[&str] = &["restaurant_id", "dish_or_category_id", "dish_attributes"];

/// Reads a connection's columns, without its [`KEY`].
pub(in crate::store) fn read_connection(cells: &mut Cells<'_>) -> Result<StoredConnection, StoreError> {
    Ok(StoredConnection {
        id: cells.next()?,
        facts: ConnectionFacts { categories: cells.set::<Uuid, _>()?, is_menu_item: cells.next()? },
        metrics: ConnectionMetrics {
            mention_count: cells.next()?,
            total_upvotes: cells.next()?,
            source_diversity: cells.next()?,
            recent_mention_count: cells.next()?,
            last_mentioned_at: cells.next::<Option<StoredTime>>()?.map(|time| time.0),
            activity_level: cells.next::<&str>()?.parse()?,
            // A value of another program that the engine cannot read counts as empty: the
            // best mentions are then read again from the rows.
            top_mentions: serde_json::from_slice(cells.next::<JsonText<'_>>()?.0).unwrap_or_default(),
        },
        history_indexed: cells.next()?,
    })
}

/// Reads a connection found by `statement::FIND_REPEATS`; `place` is its position in the plan.
pub(in crate::store) fn read_seen_connection(place: u32, cells: &mut Cells<'_>) -> Result<SeenConnection, StoreError> {
    Ok(SeenConnection {
        place,
        id: cells.next()?,
        facts: ConnectionFacts { categories: cells.set::<Uuid, _>()?, is_menu_item: cells.next()? },
        figures: StandingFigures {
            mention_count: cells.next()?,
            total_upvotes: cells.next()?,
            recent_mention_count: cells.next()?,
            last_mentioned_at: cells.next::<Option<StoredTime>>()?.map(|time| time.0),
            activity_level: cells.next::<&str>()?.parse()?,
            best: StandingScore::of_texts(cells.next()?, cells.next()?, cells.next()?),
        },
        history_indexed: cells.next()?,
    })
}

/// Reads the columns of a connection's [`KEY`].
pub(in crate::store) fn read_key(cells: &mut Cells<'_>) -> Result<ConnectionKey<Uuid>, tokio_postgres::Error> {
    Ok(ConnectionKey { restaurant: cells.next()?, dish: cells.next()?, dish_attributes: cells.set::<Uuid, _>()? })
}
