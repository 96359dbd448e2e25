//! The builder of a unit.

use std::collections::HashMap;
#[cfg(feature = "resolver")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::handles::EntityRef;
use super::place::PlaceObservation;
#[cfg(feature = "resolver")]
use crate::record::EntityKey;
use crate::unit::block::{Block, ConnectionRecord, ConnectionRecordName, EntityRecord, Link, Linked, OwnRow};
use crate::unit::labels::Labels;

/// A set of rows that becomes durable as a whole or not at all.
///
/// ```
/// use graphsink::{Mention, SourceType, UnitOfWork};
///
/// let mut unit = UnitOfWork::new();
/// let patio = unit.restaurant_attribute("patio").handle();
/// let franklin = unit.restaurant("franklin bbq").alias("Franklin's").attribute(patio).temp_id("r1").handle();
/// let brisket = unit.dish("brisket").handle();
/// let smoky = unit.dish_attribute("smoky").handle();
/// let connection = unit.connection(franklin, brisket).dish_attribute(smoky).menu_item(true).handle();
/// let created_at = "2024-01-10T14:20:00Z".parse()?;
/// unit.mention(
///     connection,
///     Mention::new(SourceType::Comment, "t1_abc", "https://example.org/t1_abc", "austinfood", created_at)
///         .thread("t3_xyz")
///         .upvotes(67),
/// );
/// assert_eq!(unit.rows(), 6);
/// # Ok::<(), chrono::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct UnitOfWork {
    /// Distinguishes this unit's handles from those of any other. A clone keeps it, because it has the same rows.
    pub(in crate::unit) nonce: u64,
    pub(in crate::unit) block: Block,
    /// Observed places, with the position of their entity. An entity that is named more than once may have several; the
    /// newest wins.
    pub(in crate::unit) places: Vec<(u32, PlaceObservation)>,
    pub(in crate::unit) temp_ids: Labels,
    /// Connections that are named by their id and got a dish attribute, which is an error.
    pub(in crate::unit) attributes_on_ids: Vec<u32>,
    entities_by_id: HashMap<Uuid, u32>,
    connections_by_id: HashMap<Uuid, u32>,
}

impl Default for UnitOfWork {
    fn default() -> Self {
        Self::new()
    }
}

impl UnitOfWork {
    /// An empty unit.
    ///
    /// ```
    /// assert!(graphsink::UnitOfWork::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        static NONCE: AtomicU64 = AtomicU64::new(1);
        Self {
            nonce: NONCE.fetch_add(1, Ordering::Relaxed),
            block: Block::default(),
            places: Vec::new(),
            temp_ids: Labels::default(),
            attributes_on_ids: Vec::new(),
            entities_by_id: HashMap::new(),
            connections_by_id: HashMap::new(),
        }
    }

    /// Number of rows of all tables. An existing row that is named by its id counts as one.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// assert_eq!(unit.rows(), 1);
    /// ```
    #[must_use]
    pub fn rows(&self) -> usize {
        self.block.rows()
    }

    /// Whether the unit has no row.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// assert!(unit.is_empty());
    /// unit.dish("brisket").handle();
    /// assert!(!unit.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// The entities that are named by their keys, each with its aliases and its places.
    #[cfg(feature = "resolver")]
    pub(crate) fn named_by_key(&self) -> impl Iterator<Item = (EntityKey, Vec<Arc<str>>, Vec<&PlaceObservation>)> {
        let mut aliases: HashMap<u32, Vec<Arc<str>>> = HashMap::new();
        for link in &self.block.entity_links {
            if let Linked::Alias(alias) = link.what {
                aliases.entry(link.row).or_default().push(self.block.text(alias).into());
            }
        }
        let mut places: HashMap<u32, Vec<&PlaceObservation>> = HashMap::new();
        for (entity, place) in &self.places {
            places.entry(*entity).or_default().push(place);
        }
        (0_u32..).zip(&self.block.entities).filter_map(move |(index, entity)| match entity {
            EntityRecord::Key(entity_type, name) => {
                let key = EntityKey::new(*entity_type, self.block.text(*name));
                Some((key, aliases.remove(&index).unwrap_or_default(), places.remove(&index).unwrap_or_default()))
            }
            EntityRecord::Id(_) => None,
        })
    }

    /// Renames entities for which there is another name; the old names become aliases.
    #[cfg(feature = "resolver")]
    pub(crate) fn rename<'a>(&mut self, new_name: impl Fn(&EntityKey) -> Option<&'a Arc<str>>) {
        for index in 0..self.block.entities.len() {
            let EntityRecord::Key(entity_type, old) = self.block.entities[index] else { continue };
            if let Some(name) = new_name(&EntityKey::new(entity_type, self.block.text(old))) {
                let name = self.block.push_text(name);
                self.block.entities[index] = EntityRecord::Key(entity_type, name);
                self.link(index as u32, Linked::Alias(old));
            }
        }
    }

    pub(super) fn push_entity(&mut self, entity: EntityRecord) -> u32 {
        self.block.entities.push(entity);
        self.block.entities.len() as u32 - 1
    }

    pub(super) fn push_connection(&mut self, name: ConnectionRecordName, is_menu_item: bool) -> u32 {
        if self.block.connections.is_empty() {
            self.block.connections.reserve_exact(1);
        }
        self.block.connections.push(ConnectionRecord { name, is_menu_item });
        self.block.connections.len() as u32 - 1
    }

    pub(super) fn link(&mut self, row: u32, what: Linked) {
        self.block.links_mut(what.table()).push(Link { row, what });
    }

    pub(super) fn existing_entity_index(&mut self, id: Uuid) -> u32 {
        if let Some(index) = self.entities_by_id.get(&id) {
            return *index;
        }
        let index = self.push_entity(EntityRecord::Id(id));
        self.entities_by_id.insert(id, index);
        index
    }

    pub(super) fn existing_connection_index(&mut self, id: Uuid) -> u32 {
        if let Some(index) = self.connections_by_id.get(&id) {
            return *index;
        }
        let index = self.push_connection(ConnectionRecordName::Id(id), false);
        self.connections_by_id.insert(id, index);
        index
    }

    pub(super) fn own_entity(&mut self, entity: EntityRef) -> OwnRow {
        OwnRow::new(match entity {
            EntityRef::Handle(handle) => handle.index_in(self.nonce).map(|index| index as u32),
            EntityRef::Id(id) => Some(self.existing_entity_index(id)),
        })
    }
}
