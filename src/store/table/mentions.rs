//! The columns of `mentions`.

use std::ops::ControlFlow;

use bytes::Bytes;
use uuid::Uuid;

use super::Value::{Bool, Id, Int4, Label, Text, Time};
use super::time::StoredTime;
use super::{Cells, Column, CopyPieces, NextRow, Role, Table};
use crate::batch::{MentionRow, MentionRows, StoredMention};
use crate::error::StoreError;
use crate::record::{Mention, MentionRef};

/// See [`Table`].
#[derive(Debug)]
pub(crate) enum Mentions {}

impl Table for Mentions {
    const NAME: &'static str = "mentions";
    type Row<'a> = MentionRow<'a>;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("mention_id", Role::Fixed, Id(|row| row.id)),
        Column::new("connection_id", Role::Fixed, Id(|row| row.connection)),
        Column::new("source_type", Role::Fixed, Label("mention_source", |row| row.record.source_type.as_str())),
        Column::new("source_id", Role::Fixed, Text(|row| Some(row.texts.get(row.record.source_id)))),
        Column::new("thread_id", Role::Changing, Text(|row| Some(row.texts.get(row.record.thread_id)))),
        Column::new("source_url", Role::Changing, Text(|row| Some(row.texts.get(row.record.source_url)))),
        Column::new("subreddit", Role::Changing, Text(|row| Some(row.texts.get(row.record.subreddit)))),
        Column::new("content_excerpt", Role::Changing, Text(|row| Some(row.texts.get(row.record.content_excerpt)))),
        Column::new("author", Role::Changing, Text(|row| row.record.author.map(|author| row.texts.get(author)))),
        Column::new("upvotes", Role::Changing, Int4(|row| row.record.upvotes)),
        Column::new("created_at", Role::Changing, Time(|row| Some(row.record.created_at))),
        Column::new("observed_at", Role::Changing, Time(|row| Some(row.record.observed_at))),
        Column::new("history_indexed", Role::Fixed, Bool(|row| row.history_indexed)),
    ];
}

impl NextRow<Mentions> for MentionRows<'_> {
    fn encode_next(&mut self, encoder: &mut CopyPieces<Mentions>) -> ControlFlow<(), Option<Bytes>> {
        self.next().map_or(ControlFlow::Break(()), |row| ControlFlow::Continue(encoder.push(&row)))
    }
}

/// The columns that are not read: their values are known, or follow from the connection.
pub(in crate::store) const OF_CONNECTION: &[&str] = &["connection_id", "history_indexed"];

/// Reads a mention's columns, without those [`OF_CONNECTION`].
pub(in crate::store) fn read_mention(cells: &mut Cells<'_>) -> Result<StoredMention, StoreError> {
    let (id, mention) = read_mention_ref(cells)?;
    Ok(StoredMention { id, mention: Mention::from(mention) })
}

/// The same without a copy of its texts.
pub(in crate::store) fn read_mention_ref<'a>(cells: &mut Cells<'a>) -> Result<(Uuid, MentionRef<'a>), StoreError> {
    let id = cells.next()?;
    let mention = MentionRef {
        source_type: cells.next::<&str>()?.parse()?,
        source_id: cells.next()?,
        thread_id: cells.next()?,
        source_url: cells.next()?,
        subreddit: cells.next()?,
        content_excerpt: cells.next()?,
        author: cells.next()?,
        upvotes: cells.next()?,
        created_at: cells.next::<StoredTime>()?.0,
        observed_at: cells.next::<StoredTime>()?.0,
    };
    Ok((id, mention))
}
