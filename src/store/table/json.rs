//! The best mentions of a connection as JSON, encoded several times as fast as by `serde`: every connection that is
//! written has some.

use bytes::{BufMut, BytesMut};

use super::encode::write_json;
use crate::record::{TopMention, write_time};

/// Writes the same bytes as `serde_json`.
pub(super) fn write_top_mentions(buffer: &mut BytesMut, mentions: &[TopMention<'_>]) {
    buffer.put_u8(b'[');
    for (place, top) in mentions.iter().enumerate() {
        let texts = top.content_excerpt.len() + top.source_url.len();
        buffer.reserve(texts + MEMBERS);
        buffer.put_slice(if place == 0 { b"{\"score\":" } else { b",{\"score\":" });
        write_json(buffer, &top.score);
        buffer.put_slice(b",\"upvotes\":");
        write_json(buffer, &top.upvotes);
        buffer.put_slice(b",\"created_at\":\"");
        write_time(&top.created_at, |text| buffer.put_slice(text.as_bytes()));
        buffer.put_slice(b"\",\"mention_id\":\"");
        buffer.put_slice(top.mention_id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
        buffer.put_slice(b"\",\"source_url\":");
        write_text(buffer, &top.source_url);
        buffer.put_slice(b",\"content_excerpt\":");
        write_text(buffer, &top.content_excerpt);
        buffer.put_u8(b'}');
    }
    buffer.put_u8(b']');
}

/// Slightly more than the bytes of a best mention without its texts.
const MEMBERS: usize = 256;

fn write_text(buffer: &mut BytesMut, text: &str) {
    // Counts over all bytes, so that one instruction processes many.
    let escaped = text.bytes().filter(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).count();
    if escaped == 0 {
        buffer.put_u8(b'"');
        buffer.put_slice(text.as_bytes());
        buffer.put_u8(b'"');
    } else {
        write_json(buffer, &text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::record::Timestamp;

    proptest! {
        #[test]
        fn best_mentions_are_written_as_serde_writes_them(
            rows in prop::collection::vec(
                (any::<u128>(), any::<f64>(), any::<i32>(), ".{0,12}|[\u{0}-\u{7f}]{0,12}", ".{0,12}", any::<i32>(), 0..1_000_000_u32), 0..6,
            ),
        ) {
            let mentions: Vec<_> = rows
                .iter()
                .map(|(id, score, upvotes, excerpt, url, seconds, micros)| TopMention {
                    mention_id: Uuid::from_u128(*id),
                    score: *score,
                    upvotes: *upvotes,
                    content_excerpt: excerpt.into(),
                    source_url: url.into(),
                    created_at: Timestamp::from_timestamp(i64::from(*seconds) * 100, micros * 1000).unwrap(),
                    source: None,
                })
                .collect();
            let mut buffer = BytesMut::new();
            write_top_mentions(&mut buffer, &mentions);
            prop_assert_eq!(std::str::from_utf8(&buffer).unwrap(), serde_json::to_string(&mentions).unwrap());
        }
    }
}
