//! Records of mentions, and the figures computed from them.

use std::sync::Arc;

use super::fields::{Fields, Malformed, PutFields};
use super::figures::put_figures;
use super::{Merging, Numbered, RowSink};
use crate::batch::{MentionRow, is_long};
use crate::bulk::ids::connection_name;
use crate::bulk::spill::{Merged, Sorter, SpillDirectory, SpillError, SpoolWriter};
use crate::hash::HashSet;
use crate::record::{ConnectionMetrics, MentionRef, SourceType, StoredMetrics, Table};
use crate::store::Mentions;
use crate::unit::{Block, NameHash, name_of_text};

const SOURCES: [SourceType; 2] = [SourceType::Post, SourceType::Comment];

/// Writes the record of one of a unit's mentions.
pub(in crate::bulk) fn put_mention(record: &mut Vec<u8>, numbered: Numbered<'_>, place: usize) {
    let unit = numbered.unit;
    let connection = unit.block().mentions[place].connection.own();
    let mention = unit.block().mention(place);
    record.put_name(connection_name(unit, connection));
    record.put_name(unit.names(Table::Mentions)[place]);
    record.put_number(numbered.if_needed(numbered.is_contingent));
    put_facts(record, mention);
}

/// Writes a mention without its names.
fn put_facts(record: &mut Vec<u8>, mention: MentionRef<'_>) {
    record.put_byte(u8::from(mention.source_type == SourceType::Comment));
    record.put(&mention.upvotes.to_be_bytes());
    record.put_time(mention.created_at);
    record.put_time(mention.observed_at);
    record.put_text(mention.source_id);
    // A post is its own thread.
    record.put_maybe_text(Some(mention.thread_id).filter(|thread| *thread != mention.source_id));
    record.put_text(mention.source_url);
    record.put_text(mention.subreddit);
    record.put_text(mention.content_excerpt);
    record.put_maybe_text(mention.author);
}

fn read_mention<'a>(fields: &mut Fields<'a>) -> Result<MentionRef<'a>, Malformed> {
    let source_type = *SOURCES.get(fields.byte()? as usize).ok_or(Malformed)?;
    let upvotes = fields.upvotes()?;
    let (created_at, observed_at) = (fields.time()?, fields.time()?);
    let source_id = fields.text()?;
    Ok(MentionRef {
        source_type,
        source_id,
        thread_id: fields.maybe_text()?.unwrap_or(source_id),
        source_url: fields.text()?,
        subreddit: fields.text()?,
        content_excerpt: fields.text()?,
        author: fields.maybe_text()?,
        upvotes,
        created_at,
        observed_at,
    })
}

/// Makes final rows of sorted records, and the figures of each connection.
///
/// The mentions of a connection are held in memory unless they are many or large: then they are processed in parts, and
/// the figures of the parts are joined. The format of the rows depends on whether the mentions are many; parts that
/// come before this is known are kept in a file. If a mention is observed more than once, the newest observation
/// replaces the earlier ones.
pub(in crate::bulk) struct MentionMerge<'a> {
    merging: Merging<'a>,
    figures: SpoolWriter,
    /// The connection whose mentions are being read.
    connection: Option<NameHash>,
    /// Its mentions not yet written.
    part: Block,
    /// Their names.
    names: Vec<NameHash>,
    /// The state of parts that are no longer in memory.
    parts: Option<Parts>,
    directory: Arc<SpillDirectory>,
    limits: PartLimits,
    record: Vec<u8>,
}

/// Parts of a history; each was in memory once.
#[derive(Debug)]
struct Parts {
    metrics: StoredMetrics,
    threads: Threads,
    /// Mentions as records, until it is known whether they are many.
    held: Option<SpoolWriter>,
}

/// The limits at which the mentions of a connection are cut into a part although there are more.
#[derive(Debug, Clone, Copy)]
pub(in crate::bulk) struct PartLimits {
    /// Bytes of texts, which the last mention of a part may exceed.
    pub(in crate::bulk) text_bytes: usize,
    pub(in crate::bulk) mentions: usize,
    /// Number of a connection's threads that are distinguished in memory.
    pub(in crate::bulk) threads: usize,
}

impl PartLimits {
    /// The limits for a merge with this much memory.
    pub(in crate::bulk) fn of_memory(memory: usize) -> Self {
        Self { text_bytes: (memory / 8).min(1 << 20), mentions: 4096, threads: memory / 4 / 32 }
    }
}

impl<'a> MentionMerge<'a> {
    /// Figures are written in the order of their connections.
    pub(in crate::bulk) fn new(
        merging: Merging<'a>,
        figures: SpoolWriter,
        directory: &Arc<SpillDirectory>,
        limits: PartLimits,
    ) -> Self {
        Self {
            merging,
            figures,
            connection: None,
            part: Block::default(),
            names: Vec::new(),
            parts: None,
            directory: Arc::clone(directory),
            limits,
            record: Vec::new(),
        }
    }

    /// Merges all records.
    pub(in crate::bulk) fn run<S: RowSink<Mentions>>(
        mut self,
        mut records: Merged,
        rows: &mut S,
    ) -> Result<(), S::Error> {
        while let Some(record) = records.next()? {
            let mut fields = Fields(record);
            let (connection, name, number, mention) = read_head(&mut fields)
                .and_then(|head| Ok((head.0, head.1, head.2, read_mention(&mut fields)?)))
                .map_err(SpillError::from)?;
            if !self.merging.counts(number) {
                continue;
            }
            if self.connection != Some(connection) {
                self.finish_connection(rows)?;
                self.connection = Some(connection);
            }
            self.take_in(name, mention, rows)?;
        }
        self.finish_connection(rows)?;
        self.figures.finish()?;
        Ok(())
    }

    fn take_in<S: RowSink<Mentions>>(
        &mut self,
        name: NameHash,
        mention: MentionRef<'_>,
        rows: &mut S,
    ) -> Result<(), S::Error> {
        if self.names.last() == Some(&name) {
            let last = self.part.view().mention(self.names.len() - 1);
            if mention.precedence(&last).is_gt() {
                self.part.pop_mention();
                put_into(&mut self.part, mention)?;
            }
            return Ok(());
        }
        let has_some = !self.names.is_empty();
        let is_large = self.names.len() >= self.limits.mentions || self.part.text_bytes() >= self.limits.text_bytes;
        if has_some && is_large {
            self.end_part(rows)?;
        }
        self.names.push(name);
        put_into(&mut self.part, mention)?;
        Ok(())
    }

    /// Makes a part of the mentions in memory: writes it, or puts it aside as long as its history is short.
    fn end_part<S: RowSink<Mentions>>(&mut self, rows: &mut S) -> Result<(), S::Error> {
        let Some(connection) = self.connection else { return Ok(()) };
        let before = self.parts.as_ref().map_or(0, |parts| parts.metrics.mention_count);
        let many = is_long(before.unsigned_abs() as usize + self.names.len());
        if many {
            self.release(true, rows)?;
            self.write_rows(true, rows)?;
        } else {
            self.hold()?;
        }
        let Self { part, names, parts, merging, .. } = self;
        let metrics = metrics(part, connection, names, *merging).into_stored();
        let joined = parts.get_or_insert_with(Parts::none);
        joined.metrics.absorb(metrics, merging.as_of);
        for place in 0..names.len() {
            joined.threads.add(part.view().mention(place).thread_id, self.limits.threads, &self.directory)?;
        }
        self.clear();
        Ok(())
    }

    /// Puts the part aside.
    fn hold(&mut self) -> Result<(), SpillError> {
        let held = match &mut self.parts.get_or_insert_with(Parts::none).held {
            Some(held) => held,
            none => none.insert(SpoolWriter::create(&self.directory)?),
        };
        for (place, name) in self.names.iter().enumerate() {
            self.record.clear();
            self.record.put_name(*name);
            put_facts(&mut self.record, self.part.view().mention(place));
            held.push(&self.record)?;
        }
        Ok(())
    }

    /// Writes the mentions that were put aside, one by one.
    fn release<S: RowSink<Mentions>>(&mut self, history_indexed: bool, rows: &mut S) -> Result<(), S::Error> {
        let held = self.parts.as_mut().and_then(|parts| parts.held.take());
        let (Some(held), Some(connection)) = (held, self.connection) else { return Ok(()) };
        let connection_id = self.merging.ids.id(connection);
        let mut held = held.finish()?.into_reader();
        let mut block = Block::default();
        while held.next(&mut self.record)? {
            let mut fields = Fields(&self.record);
            let name = fields.name().map_err(SpillError::from)?;
            put_into(&mut block, read_mention(&mut fields).map_err(SpillError::from)?)?;
            let (id, record) = (self.merging.ids.mention(connection, name), &block.mentions[0]);
            rows.push(&MentionRow { id, connection: connection_id, texts: block.texts(), record, history_indexed })?;
            block.clear();
        }
        Ok(())
    }

    fn finish_connection<S: RowSink<Mentions>>(&mut self, rows: &mut S) -> Result<(), S::Error> {
        let Some(connection) = self.connection else { return Ok(()) };
        if self.parts.is_some() {
            self.end_part(rows)?;
            // There may be few after all.
            self.release(false, rows)?;
        }
        self.record.clear();
        if let Some(Parts { mut metrics, threads, .. }) = self.parts.take() {
            metrics.source_diversity = threads.count(self.limits)?;
            put_figures(&mut self.record, connection, &metrics);
        } else {
            self.write_rows(is_long(self.names.len()), rows)?;
            let metrics = metrics(&self.part, connection, &self.names, self.merging);
            put_figures(&mut self.record, connection, &metrics);
            self.clear();
        }
        Ok(self.figures.push(&self.record)?)
    }

    fn write_rows<S: RowSink<Mentions>>(&self, history_indexed: bool, rows: &mut S) -> Result<(), S::Error> {
        let Some(connection) = self.connection else { return Ok(()) };
        let connection_id = self.merging.ids.id(connection);
        for (name, record) in self.names.iter().zip(&self.part.mentions) {
            let id = self.merging.ids.mention(connection, *name);
            rows.push(&MentionRow {
                id,
                connection: connection_id,
                texts: self.part.texts(),
                record,
                history_indexed,
            })?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.names.clear();
        if self.part.text_bytes() > self.limits.text_bytes {
            // Frees the memory of a large mention.
            self.part = Block::default();
        } else {
            self.part.clear();
        }
    }
}

impl Parts {
    fn none() -> Self {
        Self { metrics: ConnectionMetrics::empty(), threads: Threads::default(), held: None }
    }
}

/// Adds a mention; fails if the block has no room for it, which is a bug in graphsink.
fn put_into(block: &mut Block, mention: MentionRef<'_>) -> Result<(), SpillError> {
    block.push_loose_mention(mention);
    if block.has_lost_text() { Err(Malformed.into()) } else { Ok(()) }
}

fn metrics<'p>(
    part: &'p Block,
    connection: NameHash,
    names: &[NameHash],
    merging: Merging<'_>,
) -> ConnectionMetrics<'p> {
    let mentions = names.iter().enumerate();
    let mentions = mentions.map(|(place, name)| (merging.ids.mention(connection, *name), part.view().mention(place)));
    ConnectionMetrics::from_mentions(mentions, merging.as_of)
}

fn read_head(fields: &mut Fields<'_>) -> Result<(NameHash, NameHash, u64), Malformed> {
    Ok((fields.name()?, fields.name()?, fields.number()?))
}

/// The threads of a connection that does not fit into memory: as hashes, and sorted outside of memory if there are too
/// many.
#[derive(Debug, Default)]
struct Threads {
    few: HashSet<NameHash>,
    many: Option<Sorter>,
}

impl Threads {
    fn add(&mut self, thread: &str, few_max: usize, directory: &Arc<SpillDirectory>) -> Result<(), SpillError> {
        let thread = name_of_text(thread);
        if let Some(many) = &mut self.many {
            return many.push(&thread.to_be_bytes());
        }
        self.few.insert(thread);
        if self.few.len() > few_max {
            let mut many = Sorter::new(directory, few_max * 32, size_of::<NameHash>());
            std::mem::take(&mut self.few).into_iter().try_for_each(|thread| many.push(&thread.to_be_bytes()))?;
            self.many = Some(many);
        }
        Ok(())
    }

    fn count(self, limits: PartLimits) -> Result<i32, SpillError> {
        let Some(many) = self.many else { return Ok(self.few.len() as i32) };
        let mut sorted = many.finish()?.into_merged(limits.threads * 32)?;
        let mut count = 0;
        while sorted.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}
