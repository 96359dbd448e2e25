//! Rows as stored in the tables, and rows to be written.

use std::borrow::Cow;

use uuid::Uuid;

use crate::record::{
    ConnectionFacts, ConnectionKey, ConnectionMetrics, EntityFacts, EntityKey, Mention, Place, RereadNeeded,
    StoredMetrics, TopMention,
};
use crate::unit::{MentionRecord, Texts};

/// A stored entity.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntity {
    pub(crate) id: Uuid,
    pub(crate) key: EntityKey,
    /// Not read for an entity that is merely referenced.
    pub(crate) facts: Option<EntityFacts<Uuid>>,
}

/// An entity found under a key of the epoch.
#[derive(Debug, Clone)]
pub(crate) struct FoundByKey {
    pub(crate) id: Uuid,
    /// Its own key, if a merge removed the entity of the requested key.
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

/// A stored connection.
#[derive(Debug, Clone)]
pub(crate) struct StoredConnection {
    pub(crate) id: Uuid,
    pub(crate) facts: ConnectionFacts<Uuid>,
    pub(crate) metrics: StoredMetrics,
    /// Whether its history is looked up in the indexes for long histories. If so, these contain all of its mentions.
    pub(crate) history_indexed: bool,
}

/// A stored mention.
#[derive(Debug, Clone)]
pub(crate) struct StoredMention {
    pub(crate) id: Uuid,
    pub(crate) mention: Mention,
}

/// A row that was found by a lookup no longer exists: another program deleted it. The lookup must be repeated.
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
}

impl EntityWrite {
    /// An entity outside of an epoch.
    pub(crate) fn of_stored(id: Uuid, key: EntityKey, facts: EntityFacts<Uuid>) -> Self {
        Self { node: 0, id, key, facts }
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

/// The effect of an epoch on Google ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PlaceIds {
    /// Nothing.
    #[default]
    Untouched,
    /// Restaurants without an id get one: in the order of the ids, so that such epochs do not deadlock.
    Taken,
    /// Restaurants lose an id, perhaps for another one. That is a lock too, out of order, so such an epoch must be
    /// alone.
    GivenUp,
}

/// The final row of a connection.
#[derive(Debug)]
pub(crate) struct ConnectionWrite<'a> {
    pub(super) node: u32,
    pub(crate) id: Uuid,
    pub(crate) key: &'a ConnectionKey<Uuid>,
    pub(crate) facts: Cow<'a, ConnectionFacts<Uuid>>,
    pub(crate) metrics: ConnectionMetrics<'a>,
    pub(crate) history_indexed: bool,
    /// Whether an update keeps the stored best mentions, which are equal.
    pub(crate) keeps_top_mentions: bool,
    pub(super) reread: RereadNeeded,
}

impl<'a> ConnectionWrite<'a> {
    /// A row outside of an epoch, with all data known.
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

    /// The row's position among the connections of its epoch.
    pub(super) fn place(&self) -> u32 {
        self.node
    }
}

/// A mention's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MentionRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) connection: Uuid,
    /// The texts of the record.
    pub(crate) texts: Texts<'a>,
    pub(crate) record: &'a MentionRecord,
    /// The flag of its connection.
    pub(crate) history_indexed: bool,
}

/// A best mention as reread from the rows, with its source id.
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
