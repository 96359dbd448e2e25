//! Figures of connections, passed from the merge of mentions to the merge of connections.

use std::borrow::Cow;

use uuid::Uuid;

use super::fields::{Fields, Malformed, PutFields};
use crate::bulk::spill::{SpillError, SpoolReader};
use crate::record::{ActivityLevel, ConnectionMetrics, StoredMetrics, TopMention};
use crate::unit::NameHash;

const LEVELS: [ActivityLevel; 3] = [ActivityLevel::Trending, ActivityLevel::Active, ActivityLevel::Normal];

/// Writes the figures of a connection. Best mentions lose their sources, which are only needed for ranking.
pub(super) fn put_figures(record: &mut Vec<u8>, connection: NameHash, metrics: &ConnectionMetrics<'_>) {
    record.put_name(connection);
    record.put_int(metrics.mention_count.into());
    record.put_int(metrics.total_upvotes);
    record.put_int(metrics.source_diversity.into());
    record.put_int(metrics.recent_mention_count.into());
    record.put_byte(u8::from(metrics.last_mentioned_at.is_some()));
    metrics.last_mentioned_at.into_iter().for_each(|time| record.put_time(time));
    record.put_byte(LEVELS.iter().position(|level| *level == metrics.activity_level).unwrap_or_default() as u8);
    record.put_byte(metrics.top_mentions.len() as u8);
    for top in &metrics.top_mentions {
        record.put_name(top.mention_id.as_u128());
        record.put(&top.score.to_be_bytes());
        record.put_int(top.upvotes.into());
        record.put_time(top.created_at);
        record.put_text(&top.content_excerpt);
        record.put_text(&top.source_url);
    }
}

fn read_figures(mut fields: Fields<'_>) -> Result<StoredMetrics, Malformed> {
    let small = |number: i64| i32::try_from(number).map_err(|_| Malformed);
    let mention_count = small(fields.int()?)?;
    let total_upvotes = fields.int()?;
    let source_diversity = small(fields.int()?)?;
    let recent_mention_count = small(fields.int()?)?;
    let last_mentioned_at = if fields.byte()? == 0 { None } else { Some(fields.time()?) };
    let activity_level = *LEVELS.get(fields.byte()? as usize).ok_or(Malformed)?;
    let mut top_mentions = Vec::with_capacity(crate::record::TOP_MENTIONS);
    for _ in 0..fields.byte()? {
        top_mentions.push(TopMention {
            mention_id: Uuid::from_u128(fields.name()?),
            score: f64::from_bits(fields.int()? as u64),
            upvotes: small(fields.int()?)?,
            created_at: fields.time()?,
            content_excerpt: Cow::Owned(fields.text()?.to_owned()),
            source_url: Cow::Owned(fields.text()?.to_owned()),
            source: None,
        });
    }
    Ok(ConnectionMetrics {
        mention_count,
        total_upvotes,
        source_diversity,
        recent_mention_count,
        last_mentioned_at,
        activity_level,
        top_mentions,
    })
}

/// Reads figures in the order of their connections.
pub(super) struct FiguresReader {
    spool: SpoolReader,
    /// The next figures; empty at the end.
    record: Vec<u8>,
}

impl FiguresReader {
    pub(super) fn new(spool: SpoolReader) -> Result<Self, SpillError> {
        let mut reader = Self { spool, record: Vec::new() };
        reader.advance()?;
        Ok(reader)
    }

    fn advance(&mut self) -> Result<(), SpillError> {
        if !self.spool.next(&mut self.record)? {
            self.record.clear();
        }
        Ok(())
    }

    /// The figures of a connection, if it has mentions. Connections must be requested in their order.
    pub(super) fn of(&mut self, connection: NameHash) -> Result<Option<StoredMetrics>, SpillError> {
        if self.record.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields(&self.record);
        if fields.name()? != connection {
            return Ok(None);
        }
        let figures = read_figures(fields)?;
        self.advance()?;
        Ok(Some(figures))
    }

    /// Checks, after all connections were requested, that no figures are left.
    pub(super) fn end(&self) -> Result<(), SpillError> {
        if self.record.is_empty() { Ok(()) } else { Err(Malformed.into()) }
    }
}
