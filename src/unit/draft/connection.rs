//! Connections of a unit, and the facts about them.

use uuid::Uuid;

use super::handles::{ConnectionHandle, EntityRef};
use super::unit_of_work::UnitOfWork;
use crate::record::Table;
use crate::unit::block::{ConnectionRecord, ConnectionRecordName, Linked};
use crate::unit::row::Row;

impl UnitOfWork {
    /// Adds a connection by its key. It is created if it does not exist.
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
        // As in the loader's format, a dish is on the menu unless the unit states otherwise.
        let index = self.push_connection(name, true);
        ConnectionBuilder { unit: self, index }
    }

    /// Names an existing connection, to add mentions or categories. The unit is rejected if no such row exists.
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

    /// Adds facts to a connection of this unit.
    #[cfg(test)]
    pub(crate) fn say_more(&mut self, connection: ConnectionHandle) -> ConnectionBuilder<'_> {
        ConnectionBuilder { unit: self, index: connection.index }
    }
}

/// Adds facts to a connection that was just added. The row is in the unit already; [`handle`] ends the chain.
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

    /// Adds a dish attribute, part of the connection's key. The key of a connection that is named by its id cannot
    /// change: the unit is then invalid.
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

    /// Adds dish attributes: [`dish_attribute`](Self::dish_attribute) for each.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let attributes = ["smoky", "lean"].map(|name| unit.dish_attribute(name).handle());
    /// unit.connection(franklin, brisket).dish_attributes(attributes).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn dish_attributes(self, attributes: impl IntoIterator<Item = impl Into<EntityRef>>) -> Self {
        attributes.into_iter().fold(self, Self::dish_attribute)
    }

    /// Adds categories of the dish: [`category`](Self::category) for each.
    ///
    /// ```
    /// use graphsink::UnitOfWork;
    ///
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin barbecue").handle(), unit.dish("brisket").handle());
    /// let categories = ["barbecue", "beef"].map(|name| unit.dish(name).handle());
    /// unit.connection(franklin, brisket).categories(categories).handle();
    /// ```
    #[allow(clippy::return_self_not_must_use)]
    pub fn categories(self, categories: impl IntoIterator<Item = impl Into<EntityRef>>) -> Self {
        categories.into_iter().fold(self, Self::category)
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
        // An id may be named several times; all of them are one row, in which true wins.
        let said_before = matches!(record.name, ConnectionRecordName::Id(_)) && record.is_menu_item;
        record.is_menu_item = is_menu_item || said_before;
        self
    }

    /// Labels the row, for the outcome's map of temporary ids.
    #[allow(clippy::return_self_not_must_use)]
    pub fn temp_id(self, temp_id: impl Into<String>) -> Self {
        let row = Row { table: Table::Connections, index: self.index as usize };
        self.unit.temp_ids.push(&temp_id.into(), row);
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
