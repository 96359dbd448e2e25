//! The builder that a caller fills.

use std::borrow::Borrow;
use std::collections::HashMap;
#[cfg(feature = "resolver")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use uuid::Uuid;

use super::Row;
use super::block::{Block, ConnectionRecord, ConnectionRecordName, EntityRecord, Link, Linked, OwnRow};
#[cfg(feature = "resolver")]
use crate::record::EntityKey;
use crate::record::{EntityType, Mention, Table, Timestamp};

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
    /// Tells this unit's handles from those of any other. A clone keeps it: the same rows.
    pub(super) nonce: u64,
    pub(super) block: Block,
    /// Of entities, by their places. More than one of an entity when it is named more than once; the newest wins.
    pub(super) places: Vec<(u32, PlaceObservation)>,
    pub(super) temp_ids: Vec<(String, Row)>,
    /// Connections that are named by their id and were given a dish attribute, which is an error.
    pub(super) attributes_on_ids: Vec<u32>,
    entities_by_id: HashMap<Uuid, u32>,
    connections_by_id: HashMap<Uuid, u32>,
}

/// Refers to an entity of the unit that gave it out.
///
/// ```
/// use graphsink::{InvalidUnit, UnitOfWork};
///
/// let (mut one, mut other) = (UnitOfWork::new(), UnitOfWork::new());
/// let franklin = one.restaurant("franklin bbq").handle();
/// let brisket = other.dish("brisket").handle();
/// other.connection(franklin, brisket); // a handle of `one`
/// assert!(matches!(other.validate(10_000), Err(InvalidUnit::ForeignHandle { .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntityHandle {
    nonce: u64,
    index: u32,
}

/// Refers to a connection of the unit that gave it out: see [`UnitOfWork::connection`].
///
/// ```
/// use graphsink::{ConnectionHandle, UnitOfWork};
///
/// fn brisket_at(unit: &mut UnitOfWork, restaurant: &str) -> ConnectionHandle {
///     let (restaurant, dish) = (unit.restaurant(restaurant).handle(), unit.dish("brisket").handle());
///     unit.connection(restaurant, dish).handle()
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionHandle {
    nonce: u64,
    index: u32,
}

/// Refers to a mention of the unit that gave it out: see [`Committed::mention`](crate::Committed::mention).
///
/// ```
/// use graphsink::{Committed, MentionHandle};
///
/// fn id(committed: &Committed, mention: MentionHandle) -> Option<uuid::Uuid> {
///     committed.mention(mention).map(|row| row.id)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MentionHandle {
    nonce: u64,
    index: u32,
}

macro_rules! handle {
    ($handle:ident) => {
        impl $handle {
            /// The row's position in the unit that carries `nonce`.
            pub(crate) fn index_in(self, nonce: u64) -> Option<usize> {
                (self.nonce == nonce).then_some(self.index as usize)
            }
        }
    };
}
handle!(EntityHandle);
handle!(ConnectionHandle);
handle!(MentionHandle);

/// Names an entity: a handle of this unit, or the id of a row that exists. Whatever takes one takes both.
///
/// ```
/// # use graphsink::UnitOfWork;
/// # let franklin_id = uuid::Uuid::from_u128(7);
/// let mut unit = UnitOfWork::new();
/// let brisket = unit.dish("brisket").handle();
/// unit.connection(franklin_id, brisket);
/// assert_eq!(unit.rows(), 3, "the row that is named by its id counts");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityRef {
    /// A row of this unit.
    Handle(EntityHandle),
    /// A row of the database.
    Id(Uuid),
}

impl From<EntityHandle> for EntityRef {
    fn from(handle: EntityHandle) -> Self {
        Self::Handle(handle)
    }
}

impl From<Uuid> for EntityRef {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

/// Names a connection: a handle of this unit, or the id of a row that exists.
///
/// ```
/// use graphsink::{Mention, SourceType, UnitOfWork};
///
/// # let connection_id = uuid::Uuid::from_u128(7);
/// # let written: graphsink::Timestamp = "2024-01-10T14:20:00Z".parse()?;
/// let mut unit = UnitOfWork::new();
/// unit.mention(connection_id, Mention::new(SourceType::Post, "t3_xyz", "https://example.org", "food", written));
/// # Ok::<(), chrono::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRef {
    /// A row of this unit.
    Handle(ConnectionHandle),
    /// A row of the database.
    Id(Uuid),
}

impl From<ConnectionHandle> for ConnectionRef {
    fn from(handle: ConnectionHandle) -> Self {
        Self::Handle(handle)
    }
}

impl From<Uuid> for ConnectionRef {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

/// One observation of where a restaurant is. The newest observation wins as a whole.
///
/// ```
/// use graphsink::{PlaceObservation, UnitOfWork};
///
/// let place = PlaceObservation::new("2024-01-11T00:00:00Z".parse()?)
///     .location(30.270_12, -97.731_27)
///     .address("900 E 11th St, Austin")
///     .google_place_id("ChIJ")
///     .metadata(serde_json::json!({"price_level": 2}));
/// UnitOfWork::new().restaurant("franklin bbq").place(place);
/// # Ok::<(), chrono::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceObservation {
    /// Degrees, -90 to 90; only together with a longitude. Stored with eight decimals.
    pub latitude: Option<f64>,
    /// Degrees, -180 to 180; only together with a latitude. Stored with eight decimals.
    pub longitude: Option<f64>,
    /// Postal address, at most 500 characters.
    pub address: Option<String>,
    /// Google's identifier, at most 255 characters, unique among restaurants.
    pub google_place_id: Option<String>,
    /// Any further facts: a JSON object, nested at most 64 deep.
    pub metadata: Option<Value>,
    /// When this was observed.
    pub observed_at: Timestamp,
}

impl PlaceObservation {
    /// An observation that says nothing yet.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now());
    /// assert!(place.address.is_none() && place.google_place_id.is_none());
    /// ```
    #[must_use]
    pub const fn new(observed_at: Timestamp) -> Self {
        Self { latitude: None, longitude: None, address: None, google_place_id: None, metadata: None, observed_at }
    }

    /// Sets latitude and longitude in degrees.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).location(30.2701, -97.7313);
    /// assert_eq!((place.latitude, place.longitude), (Some(30.2701), Some(-97.7313)));
    /// ```
    #[must_use]
    pub const fn location(mut self, latitude: f64, longitude: f64) -> Self {
        self.latitude = Some(latitude);
        self.longitude = Some(longitude);
        self
    }

    /// Sets the postal address.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).address("900 E 11th St");
    /// assert_eq!(place.address.as_deref(), Some("900 E 11th St"));
    /// ```
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets Google's identifier.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).google_place_id("ChIJ1");
    /// assert_eq!(place.google_place_id.as_deref(), Some("ChIJ1"));
    /// ```
    #[must_use]
    pub fn google_place_id(mut self, id: impl Into<String>) -> Self {
        self.google_place_id = Some(id.into());
        self
    }

    /// Sets the metadata, a JSON object.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now())
    ///     .metadata(serde_json::json!({ "price_level": 2 }));
    /// assert_eq!(place.metadata.unwrap()["price_level"], 2);
    /// ```
    #[must_use]
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = Some(metadata);
        self
    }
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
            temp_ids: Vec::new(),
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

    /// Adds an entity by its key. It is created unless it exists.
    ///
    /// ```
    /// # use graphsink::{EntityType, UnitOfWork};
    /// let mut unit = UnitOfWork::new();
    /// // The same word is two entities, because the type is part of the key.
    /// unit.entity(EntityType::DishAttribute, "italian");
    /// unit.entity(EntityType::RestaurantAttribute, "italian");
    /// assert_eq!(unit.rows(), 2);
    /// ```
    pub fn entity(&mut self, entity_type: EntityType, name: impl AsRef<str>) -> EntityBuilder<'_> {
        let name = self.block.push_text(name.as_ref());
        let index = self.push_entity(EntityRecord::Key(entity_type, name));
        EntityBuilder { unit: self, index }
    }

    /// Adds a restaurant.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let franklin = unit.restaurant("franklin barbecue").alias("Franklin BBQ").handle();
    /// ```
    pub fn restaurant(&mut self, name: impl AsRef<str>) -> EntityBuilder<'_> {
        self.entity(EntityType::Restaurant, name)
    }

    /// Adds a dish or a category of dishes.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let brisket = unit.dish("brisket").handle();
    /// ```
    pub fn dish(&mut self, name: impl AsRef<str>) -> EntityBuilder<'_> {
        self.entity(EntityType::DishOrCategory, name)
    }

    /// Adds a property of a dish.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let smoky = unit.dish_attribute("smoky").handle();
    /// ```
    pub fn dish_attribute(&mut self, name: impl AsRef<str>) -> EntityBuilder<'_> {
        self.entity(EntityType::DishAttribute, name)
    }

    /// Adds a property of a restaurant.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let patio = unit.restaurant_attribute("patio").handle();
    /// unit.restaurant("franklin barbecue").attribute(patio).handle();
    /// ```
    pub fn restaurant_attribute(&mut self, name: impl AsRef<str>) -> EntityBuilder<'_> {
        self.entity(EntityType::RestaurantAttribute, name)
    }

    /// Names an entity that exists, to refer to it or to add aliases, attributes or a place. The
    /// unit is rejected when no such row exists.
    ///
    /// ```
    /// # use graphsink::UnitOfWork;
    /// # let id = uuid::Uuid::from_u128(7);
    /// let mut unit = UnitOfWork::new();
    /// unit.existing_entity(id).alias("Franklin Barbecue");
    /// unit.existing_entity(id).alias("Franklin's");
    /// assert_eq!(unit.rows(), 1, "an id is one row, however often it is named");
    /// ```
    pub fn existing_entity(&mut self, id: Uuid) -> EntityBuilder<'_> {
        let index = self.existing_entity_index(id);
        EntityBuilder { unit: self, index }
    }

    /// Adds a connection by its key. It is created unless it exists.
    ///
    /// ```
    /// # use graphsink::UnitOfWork;
    /// let mut unit = UnitOfWork::new();
    /// let franklin = unit.restaurant("franklin bbq").handle();
    /// let brisket = unit.dish("brisket").handle();
    /// let bbq = unit.dish("bbq").handle();
    /// let smoky = unit.dish_attribute("smoky").handle();
    /// // Attributes are part of the key, categories are not.
    /// unit.connection(franklin, brisket).dish_attribute(smoky).category(bbq).menu_item(false).temp_id("c1");
    /// # assert!(unit.validate(10_000).is_ok());
    /// ```
    pub fn connection(
        &mut self,
        restaurant: impl Into<EntityRef>,
        dish: impl Into<EntityRef>,
    ) -> ConnectionBuilder<'_> {
        let restaurant = self.own_entity(restaurant.into());
        let dish = self.own_entity(dish.into());
        let name = ConnectionRecordName::Key { restaurant, dish };
        // As in the loader's format, a dish is on the menu unless somebody says that it is not.
        let index = self.push_connection(name, true);
        ConnectionBuilder { unit: self, index }
    }

    /// Names a connection that exists, to add mentions or categories. The unit is rejected when no
    /// such row exists.
    ///
    /// ```
    /// # use graphsink::{Mention, SourceType, UnitOfWork};
    /// # let id = uuid::Uuid::from_u128(7);
    /// let mut unit = UnitOfWork::new();
    /// let bbq = unit.dish("bbq").handle();
    /// let connection = unit.existing_connection(id).category(bbq).handle();
    /// let at = "2024-01-10T14:20:00Z".parse()?;
    /// unit.mention(connection, Mention::new(SourceType::Post, "t3_xyz", "https://example.org/t3_xyz", "austinfood", at));
    /// # assert!(unit.validate(10_000).is_ok());
    /// # Ok::<(), chrono::ParseError>(())
    /// ```
    pub fn existing_connection(&mut self, id: Uuid) -> ConnectionBuilder<'_> {
        let index = self.existing_connection_index(id);
        ConnectionBuilder { unit: self, index }
    }

    /// Adds a mention, or a copy of one, on a connection.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType, UnitOfWork};
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention =
    ///     Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", chrono::Utc::now());
    /// unit.mention(connection, mention);
    /// assert_eq!(unit.rows(), 4);
    /// ```
    pub fn mention(&mut self, connection: impl Into<ConnectionRef>, mention: impl Borrow<Mention>) -> MentionHandle {
        let connection = match connection.into() {
            ConnectionRef::Handle(handle) => handle.index_in(self.nonce).map(|index| index as u32),
            ConnectionRef::Id(id) => Some(self.existing_connection_index(id)),
        };
        self.block.push_mention(OwnRow::new(connection), mention.borrow());
        MentionHandle { nonce: self.nonce, index: self.block.mentions.len() as u32 - 1 }
    }

    /// Adds a mention that the outcome will also know by a label of the caller's.
    ///
    /// ```
    /// use graphsink::{Mention, SourceType, UnitOfWork};
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention =
    ///     Mention::new(SourceType::Comment, "t1_1", "https://example.org/1", "austinfood", chrono::Utc::now());
    /// // `Committed::temp_ids` says what became of "m1".
    /// unit.mention_with_temp_id(connection, mention, "m1");
    /// ```
    pub fn mention_with_temp_id(
        &mut self,
        connection: impl Into<ConnectionRef>,
        mention: impl Borrow<Mention>,
        temp_id: impl Into<String>,
    ) -> MentionHandle {
        let handle = self.mention(connection, mention);
        let row = Row { table: Table::Mentions, index: handle.index as usize };
        self.temp_ids.push((temp_id.into(), row));
        handle
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

    /// Gives entities other names, where there are any; the old ones become aliases.
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

    /// Says more of an entity of this unit.
    pub(crate) fn again(&mut self, entity: EntityHandle) -> EntityBuilder<'_> {
        EntityBuilder { unit: self, index: entity.index }
    }

    /// Says more of a connection of this unit.
    #[cfg(test)]
    pub(crate) fn say_more(&mut self, connection: ConnectionHandle) -> ConnectionBuilder<'_> {
        ConnectionBuilder { unit: self, index: connection.index }
    }

    fn push_entity(&mut self, entity: EntityRecord) -> u32 {
        self.block.entities.push(entity);
        self.block.entities.len() as u32 - 1
    }

    fn push_connection(&mut self, name: ConnectionRecordName, is_menu_item: bool) -> u32 {
        if self.block.connections.is_empty() {
            self.block.connections.reserve_exact(1);
        }
        self.block.connections.push(ConnectionRecord { name, is_menu_item });
        self.block.connections.len() as u32 - 1
    }

    fn link(&mut self, row: u32, what: Linked) {
        self.block.links_mut(what.table()).push(Link { row, what });
    }

    fn existing_entity_index(&mut self, id: Uuid) -> u32 {
        if let Some(index) = self.entities_by_id.get(&id) {
            return *index;
        }
        let index = self.push_entity(EntityRecord::Id(id));
        self.entities_by_id.insert(id, index);
        index
    }

    fn existing_connection_index(&mut self, id: Uuid) -> u32 {
        if let Some(index) = self.connections_by_id.get(&id) {
            return *index;
        }
        let index = self.push_connection(ConnectionRecordName::Id(id), false);
        self.connections_by_id.insert(id, index);
        index
    }

    fn own_entity(&mut self, entity: EntityRef) -> OwnRow {
        OwnRow::new(match entity {
            EntityRef::Handle(handle) => handle.index_in(self.nonce).map(|index| index as u32),
            EntityRef::Id(id) => Some(self.existing_entity_index(id)),
        })
    }
}

/// Says more of an entity that was just added. The row is in the unit already; [`handle`] ends.
///
/// [`handle`]: EntityBuilder::handle
#[derive(Debug)]
pub struct EntityBuilder<'a> {
    unit: &'a mut UnitOfWork,
    index: u32,
}

impl EntityBuilder<'_> {
    /// Adds another spelling. One that equals the name is dropped.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// unit.restaurant("franklin barbecue").alias("Franklin BBQ").alias("Franklin's").handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn alias(self, alias: impl AsRef<str>) -> Self {
        let alias = self.unit.block.push_text(alias.as_ref());
        self.unit.link(self.index, Linked::Alias(alias));
        self
    }

    /// Adds an attribute of the restaurant.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let patio = unit.restaurant_attribute("patio").handle();
    /// unit.restaurant("franklin barbecue").attribute(patio).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn attribute(self, attribute: impl Into<EntityRef>) -> Self {
        let attribute = self.unit.own_entity(attribute.into());
        self.unit.link(self.index, Linked::RestaurantAttribute(attribute));
        self
    }

    /// Says where the restaurant is. Of several observations the newest wins.
    ///
    /// ```
    /// use graphsink::{PlaceObservation, UnitOfWork};
    ///
    /// let mut unit = UnitOfWork::new();
    /// let place = PlaceObservation::new(chrono::Utc::now()).address("900 E 11th St");
    /// unit.restaurant("franklin barbecue").place(place).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn place(self, place: PlaceObservation) -> Self {
        self.unit.places.push((self.index, place));
        self
    }

    /// Labels the row, for the outcome's map of temporary ids.
    #[allow(clippy::return_self_not_must_use)]
    pub fn temp_id(self, temp_id: impl Into<String>) -> Self {
        let row = Row { table: Table::Entities, index: self.index as usize };
        self.unit.temp_ids.push((temp_id.into(), row));
        self
    }

    /// The handle by which later rows refer to this one.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let brisket = unit.dish("brisket").handle();
    /// let franklin = unit.restaurant("franklin barbecue").handle();
    /// unit.connection(franklin, brisket).handle();
    /// ```
    #[allow(clippy::must_use_candidate)]
    pub fn handle(self) -> EntityHandle {
        EntityHandle { nonce: self.unit.nonce, index: self.index }
    }
}

/// Says more of a connection that was just added. The row is in the unit already; [`handle`] ends.
///
/// [`handle`]: ConnectionBuilder::handle
#[derive(Debug)]
pub struct ConnectionBuilder<'a> {
    unit: &'a mut UnitOfWork,
    index: u32,
}

impl ConnectionBuilder<'_> {
    fn record(&mut self) -> &mut ConnectionRecord {
        &mut self.unit.block.connections[self.index as usize]
    }

    /// Adds a dish attribute, part of the connection's key. A connection that is named by its id
    /// has its key for good: the unit is then invalid.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let smoky = unit.dish_attribute("smoky").handle();
    /// // Part of the connection's key: smoky brisket there is another connection than brisket there.
    /// unit.connection(franklin, brisket).dish_attribute(smoky).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn dish_attribute(mut self, attribute: impl Into<EntityRef>) -> Self {
        let attribute = self.unit.own_entity(attribute.into());
        match self.record().name {
            ConnectionRecordName::Key { .. } => self.unit.link(self.index, Linked::DishAttribute(attribute)),
            ConnectionRecordName::Id(_) => self.unit.attributes_on_ids.push(self.index),
        }
        self
    }

    /// Adds a category of the dish.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let barbecue = unit.dish("barbecue").handle();
    /// unit.connection(franklin, brisket).category(barbecue).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn category(self, category: impl Into<EntityRef>) -> Self {
        let category = self.unit.own_entity(category.into());
        self.unit.link(self.index, Linked::Category(category));
        self
    }

    /// Whether the dish is on the menu. Default: true for a connection named by its key. Once true
    /// in the database it stays true.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// unit.connection(franklin, brisket).menu_item(false).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn menu_item(mut self, is_menu_item: bool) -> Self {
        let record = self.record();
        // An id may be named several times; all of it is one row, in which true wins.
        let said_before = matches!(record.name, ConnectionRecordName::Id(_)) && record.is_menu_item;
        record.is_menu_item = is_menu_item || said_before;
        self
    }

    /// Labels the row, for the outcome's map of temporary ids.
    #[allow(clippy::return_self_not_must_use)]
    pub fn temp_id(self, temp_id: impl Into<String>) -> Self {
        let row = Row { table: Table::Connections, index: self.index as usize };
        self.unit.temp_ids.push((temp_id.into(), row));
        self
    }

    /// The handle by which mentions refer to this connection.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// ```
    #[allow(clippy::must_use_candidate)]
    pub fn handle(self) -> ConnectionHandle {
        ConnectionHandle { nonce: self.unit.nonce, index: self.index }
    }
}
