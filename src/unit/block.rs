//! The rows of a unit as one block: all texts in one buffer, rows as records of fixed size that point into it.
//!
//! A unit is built as one block, and joins those of others in a larger one once it is in an epoch. Building and freeing
//! it takes a handful of allocations, however many texts it has.

use uuid::Uuid;

use crate::record::{EntityType, MentionRef, SourceType, Table, Timestamp, truncate};

/// A text of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }
}

/// The texts of a unit, at a position of a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    buffer: &'a str,
    start: usize,
}

impl<'a> Texts<'a> {
    /// Bytes of the buffer.
    #[cfg(test)]
    pub(crate) fn buffer_bytes(self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn get(self, span: Span) -> &'a str {
        &self.buffer[self.start + span.start as usize..self.start + span.end as usize]
    }

    /// The mention of a record whose texts these are.
    pub(crate) fn mention(self, record: &MentionRecord) -> MentionRef<'a> {
        MentionRef {
            source_type: record.source_type,
            source_id: self.get(record.source_id),
            thread_id: self.get(record.thread_id),
            source_url: self.get(record.source_url),
            subreddit: self.get(record.subreddit),
            content_excerpt: self.get(record.content_excerpt),
            author: record.author.map(|author| self.get(author)),
            upvotes: record.upvotes,
            created_at: record.created_at,
            observed_at: record.observed_at,
        }
    }
}

/// An entity of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntityRecord {
    Key(EntityType, Span),
    Id(Uuid),
}

/// A connection of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionRecord {
    pub(crate) name: ConnectionRecordName,
    pub(crate) is_menu_item: bool,
}

/// How a connection is named; its dish attributes are [`Link`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionRecordName {
    Key { restaurant: OwnRow, dish: OwnRow },
    Id(Uuid),
}

/// A mention of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MentionRecord {
    pub(crate) connection: OwnRow,
    pub(crate) source_type: SourceType,
    pub(crate) source_id: Span,
    pub(crate) thread_id: Span,
    pub(crate) source_url: Span,
    pub(crate) subreddit: Span,
    pub(crate) content_excerpt: Span,
    pub(crate) author: Option<Span>,
    pub(crate) upvotes: i32,
    pub(crate) created_at: Timestamp,
    pub(crate) observed_at: Timestamp,
}

/// The position of a row among the block's rows of its table; `None` for a handle of another unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnRow(u32);

impl OwnRow {
    const FOREIGN: u32 = u32::MAX;

    pub(super) fn new(place: Option<u32>) -> Self {
        Self(place.unwrap_or(Self::FOREIGN))
    }

    /// The row's position, if the handle belongs to this unit.
    pub(crate) fn place(self) -> Option<usize> {
        (self.0 != Self::FOREIGN).then_some(self.0 as usize)
    }

    /// The row's place.
    ///
    /// # Panics
    /// Panics if the handle belongs to another unit, which validation excludes.
    pub(crate) fn own(self) -> usize {
        self.place().expect("validated: no handle of another unit")
    }
}

/// A value of a row's list, such as an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) row: u32,
    pub(crate) what: Linked,
}

/// The kinds of list values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    /// An entity's alias.
    Alias(Span),
    /// A restaurant's attribute.
    RestaurantAttribute(OwnRow),
    /// A dish attribute of a connection that is named by its key.
    DishAttribute(OwnRow),
    /// A connection's category.
    Category(OwnRow),
}

impl Linked {
    /// The table of the row to which it belongs.
    pub(super) const fn table(self) -> Table {
        match self {
            Self::Alias(_) | Self::RestaurantAttribute(_) => Table::Entities,
            Self::DishAttribute(_) | Self::Category(_) => Table::Connections,
        }
    }
}

/// See the module's documentation. Several units can be stored one after the other: [`BlockEnd`]s separate them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    text: String,
    pub(crate) entities: Vec<EntityRecord>,
    pub(crate) connections: Vec<ConnectionRecord>,
    pub(crate) mentions: Vec<MentionRecord>,
    /// Links of entities. Usually in the order of the rows; always once the unit is prepared.
    pub(super) entity_links: Vec<Link>,
    /// Links of connections.
    pub(super) connection_links: Vec<Link>,
    /// Bytes of texts that did not fit: more than any valid unit has.
    lost_bytes: usize,
}

impl Block {
    /// Appends a text to the buffer.
    pub(super) fn push_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        if u32::try_from(start + text.len()).is_err() {
            self.lost_bytes += text.len();
            return Span { start: 0, end: 0 };
        }
        if start == 0 {
            // Most units need less.
            self.text.reserve_exact(text.len().max(384));
        }
        self.text.push_str(text);
        Span { start: start as u32, end: self.text.len() as u32 }
    }

    pub(super) fn push_mention(&mut self, connection: OwnRow, mention: MentionRef<'_>) {
        let source_id = self.push_text(mention.source_id);
        // A post is its own thread.
        let thread_id =
            if mention.thread_id == mention.source_id { source_id } else { self.push_text(mention.thread_id) };
        let record = MentionRecord {
            connection,
            source_type: mention.source_type,
            source_id,
            thread_id,
            source_url: self.push_text(mention.source_url),
            subreddit: self.push_text(mention.subreddit),
            content_excerpt: self.push_text(mention.content_excerpt),
            author: mention.author.map(|author| self.push_text(author)),
            upvotes: mention.upvotes,
            created_at: truncate(mention.created_at),
            observed_at: truncate(mention.observed_at),
        };
        // Most units have one.
        if self.mentions.is_empty() {
            self.mentions.reserve_exact(1);
        }
        self.mentions.push(record);
    }

    /// Adds a mention that is on no connection of this block.
    pub(crate) fn push_loose_mention(&mut self, mention: MentionRef<'_>) {
        self.push_mention(OwnRow::new(None), mention);
    }

    /// Removes the last mention, with its texts.
    pub(crate) fn pop_mention(&mut self) {
        if let Some(last) = self.mentions.pop() {
            self.text.truncate(last.source_id.start as usize);
        }
    }

    /// Removes all rows, and keeps their memory.
    pub(crate) fn clear(&mut self) {
        let Self { text, entities, connections, mentions, entity_links, connection_links, lost_bytes } = self;
        text.clear();
        entities.clear();
        connections.clear();
        mentions.clear();
        entity_links.clear();
        connection_links.clear();
        *lost_bytes = 0;
    }

    #[cfg(test)]
    pub(super) fn lengthen_last_mention(&mut self, excerpt: &str) {
        let excerpt = self.push_text(excerpt);
        self.mentions.last_mut().expect("there is one").content_excerpt = excerpt;
    }

    pub(super) fn text(&self, span: Span) -> &str {
        span.of(&self.text)
    }

    /// Whether some text did not fit, so that the block is incomplete.
    pub(crate) const fn has_lost_text(&self) -> bool {
        self.lost_bytes > 0
    }

    /// Total bytes of all texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len() + self.lost_bytes
    }

    /// Number of rows of all tables.
    pub(crate) fn rows(&self) -> usize {
        self.entities.len() + self.connections.len() + self.mentions.len()
    }

    pub(super) const fn links_mut(&mut self, table: Table) -> &mut Vec<Link> {
        match table {
            Table::Entities => &mut self.entity_links,
            Table::Connections | Table::Mentions => &mut self.connection_links,
        }
    }

    /// Groups the links of each row, aliases in their order. Duplicates are removed, and so is an alias that equals the
    /// entity's name.
    pub(super) fn sort_links(&mut self) {
        let (text, entities) = (&self.text, &self.entities);
        self.entity_links.retain(|link| match (link.what, entities[link.row as usize]) {
            (Linked::Alias(alias), EntityRecord::Key(_, name)) => alias.of(text) != name.of(text),
            _ => true,
        });
        let order = |link: &Link| {
            let (kind, place, alias) = match link.what {
                Linked::Alias(span) => (0, 0, span.of(text)),
                Linked::RestaurantAttribute(OwnRow(place)) => (1, place, ""),
                Linked::DishAttribute(OwnRow(place)) => (2, place, ""),
                Linked::Category(OwnRow(place)) => (3, place, ""),
            };
            (link.row, kind, place, alias)
        };
        for links in [&mut self.entity_links, &mut self.connection_links] {
            links.sort_unstable_by(|left, right| order(left).cmp(&order(right)));
            links.dedup_by(|left, right| order(left) == order(right));
        }
    }

    /// Returns memory that was reserved for more text, unless it is little. A small unit is soon moved to memory of the
    /// right size; a large one may be alone in its group, and then stays where it is.
    pub(super) fn shrink_text(&mut self) {
        const LITTLE: usize = 4096;
        if self.text.capacity() - self.text.len() > LITTLE {
            self.text.shrink_to_fit();
        }
    }

    /// The end of all rows.
    pub(super) const fn end(&self) -> BlockEnd {
        BlockEnd {
            text: self.text.len() as u32,
            entities: self.entities.len() as u32,
            connections: self.connections.len() as u32,
            mentions: self.mentions.len() as u32,
            entity_links: self.entity_links.len() as u32,
            connection_links: self.connection_links.len() as u32,
        }
    }

    /// The rows of a unit between the end of the one before it and its own.
    pub(super) fn part(&self, start: BlockEnd, end: BlockEnd) -> UnitRows<'_> {
        UnitRows {
            texts: Texts { buffer: &self.text, start: start.text as usize },
            entities: part(&self.entities, start.entities, end.entities),
            connections: part(&self.connections, start.connections, end.connections),
            mentions: part(&self.mentions, start.mentions, end.mentions),
            entity_links: part(&self.entity_links, start.entity_links, end.entity_links),
            connection_links: part(&self.connection_links, start.connection_links, end.connection_links),
        }
    }

    /// The texts of a block that has one unit.
    pub(crate) fn texts(&self) -> Texts<'_> {
        Texts { buffer: &self.text, start: 0 }
    }

    /// The rows of a block that has one unit.
    pub(crate) fn view(&self) -> UnitRows<'_> {
        self.part(BlockEnd::default(), self.end())
    }

    /// A block with exactly as much memory as rows up to this end take.
    pub(super) fn with_room(end: BlockEnd) -> Self {
        Self {
            text: String::with_capacity(end.text as usize),
            entities: Vec::with_capacity(end.entities as usize),
            connections: Vec::with_capacity(end.connections as usize),
            mentions: Vec::with_capacity(end.mentions as usize),
            entity_links: Vec::with_capacity(end.entity_links as usize),
            connection_links: Vec::with_capacity(end.connection_links as usize),
            lost_bytes: 0,
        }
    }

    /// Appends a unit of another block, whose rows lie between these ends.
    pub(super) fn append(&mut self, other: &Self, start: BlockEnd, end: BlockEnd) {
        let rows = other.part(start, end);
        self.text.push_str(&other.text[start.text as usize..end.text as usize]);
        self.entities.extend_from_slice(rows.entities);
        self.connections.extend_from_slice(rows.connections);
        self.mentions.extend_from_slice(rows.mentions);
        self.entity_links.extend_from_slice(rows.entity_links);
        self.connection_links.extend_from_slice(rows.connection_links);
    }
}

/// How far a unit's rows reach in each list of a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BlockEnd {
    text: u32,
    entities: u32,
    connections: u32,
    mentions: u32,
    entity_links: u32,
    connection_links: u32,
}

impl BlockEnd {
    /// The end of rows up to `self`, followed by those from `start` to `end`.
    pub(super) const fn then(self, start: Self, end: Self) -> Self {
        Self {
            text: self.text + (end.text - start.text),
            entities: self.entities + (end.entities - start.entities),
            connections: self.connections + (end.connections - start.connections),
            mentions: self.mentions + (end.mentions - start.mentions),
            entity_links: self.entity_links + (end.entity_links - start.entity_links),
            connection_links: self.connection_links + (end.connection_links - start.connection_links),
        }
    }

    /// Number of rows of all tables.
    pub(super) const fn rows(self) -> usize {
        self.entities as usize + self.connections as usize + self.mentions as usize
    }
}

/// Never panics, so that the compiler can omit parts that a caller does not use.
pub(super) fn part<T>(list: &[T], start: u32, end: u32) -> &[T] {
    list.get(start as usize..end as usize).unwrap_or_default()
}

/// The rows of one unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnitRows<'a> {
    pub(crate) texts: Texts<'a>,
    pub(crate) entities: &'a [EntityRecord],
    pub(crate) connections: &'a [ConnectionRecord],
    pub(crate) mentions: &'a [MentionRecord],
    pub(super) entity_links: &'a [Link],
    connection_links: &'a [Link],
}

impl<'a> UnitRows<'a> {
    pub(crate) fn text(self, span: Span) -> &'a str {
        self.texts.get(span)
    }

    pub(crate) fn mention(self, place: usize) -> MentionRef<'a> {
        self.texts.mention(&self.mentions[place])
    }

    /// Number of rows of a table.
    pub(crate) const fn rows_of(self, table: Table) -> usize {
        match table {
            Table::Entities => self.entities.len(),
            Table::Connections => self.connections.len(),
            Table::Mentions => self.mentions.len(),
        }
    }

    /// The links of a row, once links are sorted.
    pub(crate) fn links_of(self, table: Table, row: usize) -> impl Iterator<Item = Linked> + 'a {
        let links = match table {
            Table::Entities => self.entity_links,
            Table::Connections | Table::Mentions => self.connection_links,
        };
        links_of(links, row)
    }

    /// Aliases of an entity, ascending.
    pub(crate) fn aliases_of(self, entity: usize) -> impl Iterator<Item = &'a str> {
        self.links_of(Table::Entities, entity).filter_map(move |link| match link {
            Linked::Alias(span) => Some(self.text(span)),
            _ => None,
        })
    }

    /// Places of the attributes of an entity.
    pub(crate) fn attributes_of(self, entity: usize) -> impl Iterator<Item = usize> + 'a {
        self.links_of(Table::Entities, entity).filter_map(|link| match link {
            Linked::RestaurantAttribute(place) => Some(place.own()),
            _ => None,
        })
    }

    /// Places of the dish attributes of a connection.
    pub(crate) fn dish_attributes_of(self, connection: usize) -> impl Iterator<Item = usize> + 'a {
        self.links_of(Table::Connections, connection).filter_map(|link| match link {
            Linked::DishAttribute(place) => Some(place.own()),
            _ => None,
        })
    }

    /// Places of the categories of a connection.
    pub(crate) fn categories_of(self, connection: usize) -> impl Iterator<Item = usize> + 'a {
        self.links_of(Table::Connections, connection).filter_map(|link| match link {
            Linked::Category(place) => Some(place.own()),
            _ => None,
        })
    }
}

/// The links of a row, among links in the order of their rows.
pub(super) fn links_of(links: &[Link], row: usize) -> impl Iterator<Item = Linked> {
    let start = links.partition_point(|link| (link.row as usize) < row);
    links[start..].iter().take_while(move |link| link.row as usize == row).map(|link| link.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_text_has_little_memory_to_spare_once_it_is_complete() {
        let mut block = Block::default();
        let long = "x".repeat(40_000);
        // The buffer has doubled with the second.
        let spans = [block.push_text(&long), block.push_text("short")];
        assert!(block.text.capacity() > 70_000);
        block.shrink_text();
        assert!(block.text.capacity() < 45_000);
        assert_eq!(spans.map(|span| block.text(span)), [&long, "short"]);
    }
}
