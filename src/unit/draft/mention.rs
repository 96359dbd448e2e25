//! Mentions of a unit.

use std::borrow::Borrow;

use super::handles::{ConnectionRef, MentionHandle};
use super::unit_of_work::UnitOfWork;
use crate::record::{Mention, Table};
use crate::unit::block::OwnRow;
use crate::unit::row::Row;

impl UnitOfWork {
    /// Adds a mention, or a copy of one, to a connection.
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
        self.block.push_mention(OwnRow::new(connection), mention.borrow().into());
        MentionHandle { nonce: self.nonce, index: self.block.mentions.len() as u32 - 1 }
    }

    /// Adds a mention with the caller's label, by which the outcome also knows it.
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
        self.temp_ids.push(&temp_id.into(), row);
        handle
    }
}
