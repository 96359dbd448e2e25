//! Rows as the tables have them, and as they are to be written.

use std::borrow::Cow;

use uuid::Uuid;

use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, EntityFacts, EntityKey, Mention, Place, RereadNeeded,
    StoredMetrics, TopMention,
};
use crate::unit::{Block, MentionRecord};

/// An entity as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntity {
    pub(crate) id: Uuid,
    pub(crate) key: EntityKey,
    /// Not read for an entity that is merely referenced.
    pub(crate) facts: Option<EntityFacts<Uuid>>,
}

/// An entity as it was found under a key of the epoch.
#[derive(Debug, Clone)]
pub(crate) struct FoundByKey {
    pub(crate) id: Uuid,
    /// Its own key, if a merge took the entity of the key that was asked for.
    pub(crate) merged_into: Option<EntityKey>,
    /// Not read for an entity that is merely referenced.
    pub(crate) facts: Option<EntityFacts<Uuid>>,
}

impl FoundByKey {
    /// An entity that is merely referenced, by its own key.
    pub(super) const fn known(id: Uuid) -> Self {
        Self { id, merged_into: None, facts: None }
    }
}

/// A connection as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredConnection {
    pub(crate) id: Uuid,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) metrics: StoredMetrics,
    /// Whether its history is looked up in the indexes for long ones. If so, all of its mentions are there.
    pub(crate) history_indexed: bool,
}

/// A mention as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredMention {
    pub(crate) id: Uuid,
    pub(crate) mention: Mention,
}

/// A row that was there when it was looked up is gone: another program deleted it. Look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VanishedRow;

/// An entity's row to write.
#[derive(Debug, Clone)]
pub(crate) struct EntityWrite {
    /// The plan's node.
    pub(super) node: u32,
    pub(crate) id: Uuid,
    pub(crate) key: EntityKey,
    pub(crate) facts: EntityFacts<Uuid>,
    /// Whether the row was there when it was looked up.
    pub(crate) exists: bool,
}

impl EntityWrite {
    /// An entity that belongs to no epoch.
    pub(crate) fn of_stored(id: Uuid, key: EntityKey, facts: EntityFacts<Uuid>) -> Self {
        Self { node: 0, id, key, facts, exists: true }
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.facts.place.as_deref()
    }

    pub(crate) fn google_place_id(&self) -> Option<&str> {
        google_place_id(&self.facts)
    }
}

pub(super) fn google_place_id<R>(facts: &EntityFacts<R>) -> Option<&str> {
    facts.place.as_ref()?.google_place_id.as_deref()
}

/// What an epoch does to Google ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PlaceIds {
    /// Nothing.
    #[default]
    Untouched,
    /// Restaurants without one get one: in the order of the ids, so such epochs get along.
    Taken,
    /// Restaurants lose one, perhaps for another. That is a lock too, out of order; such an epoch
    /// must be alone.
    GivenUp,
}

/// A connection's row as it must become.
#[derive(Debug)]
pub(crate) struct ConnectionWrite<'a> {
    pub(super) node: u32,
    pub(crate) id: Uuid,
    pub(crate) key: &'a ConnectionKey<Uuid>,
    pub(crate) facts: Cow<'a, ConnectionFacts<Uuid>>,
    pub(crate) metrics: ConnectionMetrics<'a>,
    pub(crate) history_indexed: bool,
    /// Whether an update leaves the stored best mentions as they are, which say the same.
    pub(crate) keeps_top_mentions: bool,
    pub(super) reread: RereadNeeded,
}

impl<'a> ConnectionWrite<'a> {
    /// A row of no epoch, all of which is known.
    pub(crate) fn of_merged(
        id: Uuid,
        key: &'a ConnectionKey<Uuid>,
        facts: &'a ConnectionFacts<Uuid>,
        metrics: ConnectionMetrics<'a>,
        history_indexed: bool,
    ) -> Self {
        Self {
            node: 0,
            id,
            key,
            facts: Cow::Borrowed(facts),
            metrics,
            history_indexed,
            keeps_top_mentions: false,
            reread: RereadNeeded::default(),
        }
    }

    /// The row's place among the connections of its epoch.
    pub(super) fn place(&self) -> u32 {
        self.node
    }
}

/// A mention's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) connection: Uuid,
    /// Has the texts of the record.
    pub(crate) block: &'a Block,
    pub(crate) record: &'a MentionRecord,
    /// True where its connection's is.
    pub(crate) history_indexed: bool,
}

/// Best mentions as read again from the rows, with their source ids.
pub(crate) fn top_mention(id: Uuid, mention: Mention) -> TopMention<'static> {
    TopMention {
        mention_id: id,
        score: 0.0,
        upvotes: mention.upvotes,
        content_excerpt: mention.content_excerpt.into(),
        source_url: mention.source_url.into(),
        created_at: mention.created_at,
        source: Some((Cow::Owned(mention.source_id.to_string()), mention.source_type)),
    }
}
