//! Entities of a unit, and the facts about them.

use uuid::Uuid;

use super::handles::{EntityHandle, EntityRef};
use super::place::PlaceObservation;
use super::unit_of_work::UnitOfWork;
use crate::record::{EntityType, Table};
use crate::unit::block::{EntityRecord, Linked};
use crate::unit::row::Row;

impl UnitOfWork {
    /// Adds an entity by its key. It is created if it does not exist.
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

    /// Names an existing entity, to refer to it or to add aliases, attributes or a place. The unit is rejected if no
    /// such row exists.
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

    /// Adds facts to an entity of this unit.
    pub(crate) fn again(&mut self, entity: EntityHandle) -> EntityBuilder<'_> {
        EntityBuilder { unit: self, index: entity.index }
    }
}

/// Adds facts to an entity that was just added. The row is in the unit already; [`handle`] ends the chain.
///
/// [`handle`]: EntityBuilder::handle
#[derive(Debug)]
pub struct EntityBuilder<'a> {
    unit: &'a mut UnitOfWork,
    index: u32,
}

impl EntityBuilder<'_> {
    /// Adds another spelling. An alias that equals the name is dropped.
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

    /// Adds other spellings: [`alias`](Self::alias) for each.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let spellings = ["Franklin BBQ", "Franklin's"];
    /// let mut unit = UnitOfWork::new();
    /// unit.restaurant("franklin barbecue").aliases(spellings).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn aliases(self, aliases: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        aliases.into_iter().fold(self, Self::alias)
    }

    /// Adds attributes of the restaurant: [`attribute`](Self::attribute) for each.
    ///
    /// ```
    /// use graphsink::{EntityHandle, UnitOfWork};
    ///
    /// let mut unit = UnitOfWork::new();
    /// let attributes: Vec<EntityHandle> =
    ///     ["patio", "dog friendly"].map(|name| unit.restaurant_attribute(name).handle()).into();
    /// unit.restaurant("franklin barbecue").attributes(attributes).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn attributes(self, attributes: impl IntoIterator<Item = impl Into<EntityRef>>) -> Self {
        attributes.into_iter().fold(self, Self::attribute)
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
        self.unit.temp_ids.push(&temp_id.into(), row);
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
