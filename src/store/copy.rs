//! Mentions in PostgreSQL's binary `copy` format.
//!
//! The driver has a writer for this; it goes through a trait object for each value, and through its
//! queue with every four kilobytes. Rows are encoded here straight from the plan, and sent in few pieces.
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{ConnectionNode, MentionNode};
use crate::record::Timestamp;

/// The columns of `Statement::CopyMentions`.
const COLUMNS: i16 = 12;
/// Size of the pieces that rows are sent in, in bytes.
const PIECE: usize = 64 << 10;
/// Room that a row seldom exceeds, in bytes.
const ROW: usize = 2 << 10;
/// 2000-01-01 in microseconds since 1970-01-01: PostgreSQL's zero.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Mentions in pieces, ready to be sent.
pub(crate) fn encode(mentions: &[&MentionNode], connections: &[ConnectionNode]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = BytesMut::with_capacity(PIECE);
    piece.put_slice(b"PGCOPY\n\xff\r\n\0");
    // No flags, no extension of the header.
    piece.put_i64(0);
    for node in mentions {
        if piece.len() > PIECE - ROW {
            pieces.push(std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE)).freeze());
        }
        put_row(&mut piece, node, connections);
    }
    piece.put_i16(-1);
    pieces.push(piece.freeze());
    pieces
}

fn put_row(buffer: &mut BytesMut, node: &MentionNode, connections: &[ConnectionNode]) {
    let mention = &*node.mention;
    buffer.put_i16(COLUMNS);
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
