//! New rows in PostgreSQL's binary `copy` format.
//!
//! The driver has a writer for this; it goes through a trait object for each value, and through its
//! queue with every four kilobytes. Rows are encoded here straight from the plan, and sent in few pieces.
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.

use bytes::{BufMut, Bytes, BytesMut};

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::columns::jsonb;
use crate::batch::{ConnectionNode, ConnectionWrite, MentionNode};
use crate::record::{SortedSet, Timestamp};

/// The columns of `Statement::CopyMentions`.
const MENTION_COLUMNS: i16 = 12;
/// The columns of `Statement::CopyConnections`.
const CONNECTION_COLUMNS: i16 = 13;
/// Size of the pieces that rows are sent in, in bytes.
const PIECE: usize = 64 << 10;
/// Room that a row seldom exceeds, in bytes.
const ROW: usize = 2 << 10;
/// 2000-01-01 in microseconds since 1970-01-01: PostgreSQL's zero.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Rows in pieces, ready to be sent.
fn encode<T>(rows: impl IntoIterator<Item = T>, put_row: impl Fn(&mut BytesMut, T)) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = BytesMut::with_capacity(PIECE);
    piece.put_slice(b"PGCOPY\n\xff\r\n\0");
    // No flags, no extension of the header.
    piece.put_i64(0);
    for row in rows {
        if piece.len() > PIECE - ROW {
            pieces.push(std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE)).freeze());
        }
        put_row(&mut piece, row);
    }
    piece.put_i16(-1);
    pieces.push(piece.freeze());
    pieces
}

/// Mentions for `Statement::CopyMentions`.
pub(crate) fn mentions(mentions: &[&MentionNode], connections: &[ConnectionNode]) -> Vec<Bytes> {
    encode(mentions, |buffer, node| put_mention(buffer, node, connections))
}

/// Connections for `Statement::CopyConnections`.
pub(crate) fn connections(writes: &[ConnectionWrite<'_>], connections: &[ConnectionNode]) -> Vec<Bytes> {
    encode(writes, |buffer, write| put_connection(buffer, write, connections))
}

fn put_connection(buffer: &mut BytesMut, write: &ConnectionWrite<'_>, connections: &[ConnectionNode]) {
    let key = &connections[write.node as usize].key;
    let metrics = &write.metrics;
    buffer.put_i16(CONNECTION_COLUMNS);
    put(buffer, write.id.as_bytes());
    put(buffer, key.restaurant.as_bytes());
    put(buffer, key.dish.as_bytes());
    put_ids(buffer, &key.dish_attributes);
    put_ids(buffer, &write.facts.categories);
    put(buffer, &[u8::from(write.facts.is_menu_item)]);
    put(buffer, &metrics.mention_count.to_be_bytes());
    put(buffer, &metrics.total_upvotes.to_be_bytes());
    put(buffer, &metrics.source_diversity.to_be_bytes());
    put(buffer, &metrics.recent_mention_count.to_be_bytes());
    match metrics.last_mentioned_at {
        Some(time) => put_time(buffer, time),
        None => buffer.put_i32(-1),
    }
    put(buffer, metrics.activity_level.as_str().as_bytes());
    put(buffer, &jsonb(&metrics.top_mentions));
}

/// A one-dimensional `uuid[]`, or the empty array, which has no dimension.
fn put_ids(buffer: &mut BytesMut, ids: &SortedSet<Uuid>) {
    let count = ids.len() as i32;
    buffer.put_i32(if count == 0 { 12 } else { 20 + 20 * count });
    buffer.put_i32(i32::from(count > 0));
    // No nulls among them.
    buffer.put_i32(0);
    buffer.put_u32(Type::UUID.oid());
    if count > 0 {
        buffer.put_i32(count);
        // Counted from 1.
        buffer.put_i32(1);
        for id in ids {
            put(buffer, id.as_bytes());
        }
    }
}

fn put_mention(buffer: &mut BytesMut, node: &MentionNode, connections: &[ConnectionNode]) {
    let mention = &*node.mention;
    buffer.put_i16(MENTION_COLUMNS);
    put(buffer, node.id.as_bytes());
    put(buffer, connections[node.connection as usize].id.as_bytes());
    // An enum travels as its label.
    put(buffer, mention.source_type.as_str().as_bytes());
    put(buffer, mention.source_id.as_bytes());
    put(buffer, mention.thread_id.as_bytes());
    put(buffer, mention.source_url.as_bytes());
    put(buffer, mention.subreddit.as_bytes());
    put(buffer, mention.content_excerpt.as_bytes());
    match &mention.author {
        Some(author) => put(buffer, author.as_bytes()),
        None => buffer.put_i32(-1),
    }
    put(buffer, &mention.upvotes.to_be_bytes());
    put_time(buffer, mention.created_at);
    put_time(buffer, mention.observed_at);
}

fn put(buffer: &mut BytesMut, value: &[u8]) {
    // A unit's bytes are limited to far less.
    buffer.put_i32(value.len() as i32);
    buffer.put_slice(value);
}

/// Every time that chrono can hold fits (`validate::check_time` has why).
fn put_time(buffer: &mut BytesMut, time: Timestamp) {
    put(buffer, &(time.timestamp_micros() - POSTGRES_EPOCH).to_be_bytes());
}
