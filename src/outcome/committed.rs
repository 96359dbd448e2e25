//! Units that are durable.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::label::Disposition;
use crate::record::Table;
use crate::unit::{ConnectionHandle, EntityHandle, Labels, MentionHandle, Row, Unit};

/// A row of a committed unit.
///
/// ```
/// use graphsink::{CommittedRow, Disposition};
///
/// let row = CommittedRow { id: uuid::Uuid::from_u128(7), disposition: Disposition::Inserted };
/// assert_eq!(row.disposition.as_str(), "inserted");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedRow {
    /// Its id in the database.
    pub id: Uuid,
    /// The effect of the transaction on the row.
    pub disposition: Disposition,
}

/// A unit that is durable, with the id of each of its rows.
///
/// ```no_run
/// use graphsink::{Disposition, UnitOfWork};
///
/// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
/// let mut unit = UnitOfWork::new();
/// let franklin = unit.restaurant("franklin bbq").temp_id("r1").handle();
/// let committed = engine.submit(unit).await?.await.into_result()?;
/// if let Some(row) = committed.entity(franklin) {
///     println!("{} is {}", row.id, if row.disposition == Disposition::Inserted { "new" } else { "known" });
///     assert_eq!(committed.temp_ids()["r1"], row.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Committed {
    /// Entities in the order in which the unit named them.
    pub entities: Vec<CommittedRow>,
    /// Connections in the order in which the unit named them.
    pub connections: Vec<CommittedRow>,
    /// Mentions in the order in which the unit named them.
    pub mentions: Vec<CommittedRow>,
    pub(crate) temp_ids: Option<Arc<Labels>>,
    pub(crate) nonce: u64,
}

/// What was committed of some units, with their rows one after the other: a [`Committed`] takes memory of its own, and
/// is made when its receipt is awaited.
#[derive(Debug)]
pub(crate) struct CommittedUnits {
    /// By table.
    rows: [Vec<CommittedRow>; 3],
    units: Vec<UnitEnd>,
}

/// What follows the rows of a unit.
#[derive(Debug)]
struct UnitEnd {
    /// The end of its rows, by table.
    rows: [u32; 3],
    temp_ids: Option<Arc<Labels>>,
    nonce: u64,
}

/// One of [`CommittedUnits`].
#[derive(Debug, Clone)]
pub(crate) struct CommittedUnit {
    units: Arc<CommittedUnits>,
    place: u32,
}

impl CommittedUnits {
    /// Room for so many units, and for their rows by table.
    pub(crate) fn with_room(units: usize, rows: [usize; 3]) -> Self {
        Self { rows: rows.map(Vec::with_capacity), units: Vec::with_capacity(units) }
    }

    /// Adds the rows of a unit.
    pub(crate) fn add(&mut self, unit: Unit<'_>, mut rows_of: impl FnMut(Table, &mut Vec<CommittedRow>)) {
        let rows = Table::ALL.map(|table| {
            let rows = &mut self.rows[table as usize];
            rows_of(table, rows);
            rows.len() as u32
        });
        self.units.push(UnitEnd { rows, temp_ids: unit.temp_ids().cloned(), nonce: unit.nonce() });
    }

    /// Each of the units, in their order.
    pub(crate) fn share(self) -> impl Iterator<Item = CommittedUnit> {
        let all = Arc::new(self);
        (0..all.units.len() as u32).map(move |place| CommittedUnit { units: Arc::clone(&all), place })
    }
}

impl From<CommittedUnit> for Committed {
    fn from(CommittedUnit { units, place }: CommittedUnit) -> Self {
        let place = place as usize;
        let UnitEnd { rows: end, temp_ids, nonce } = &units.units[place];
        let start = place.checked_sub(1).map_or([0; 3], |before| units.units[before].rows);
        let rows = |table: Table| {
            let table = table as usize;
            units.rows[table][start[table] as usize..end[table] as usize].to_vec()
        };
        Self {
            entities: rows(Table::Entities),
            connections: rows(Table::Connections),
            mentions: rows(Table::Mentions),
            temp_ids: temp_ids.clone(),
            nonce: *nonce,
        }
    }
}

impl Committed {
    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.entity(franklin).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn entity(&self, handle: EntityHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.entities.get(index)).copied()
    }

    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.connection(connection).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn connection(&self, handle: ConnectionHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.connections.get(index)).copied()
    }

    /// The row behind a handle; nothing when the handle came from another unit.
    ///
    /// ```no_run
    /// # use graphsink::{Committed, Mention, SourceType, UnitOfWork};
    /// # fn run(committed: &Committed, mention: Mention) {
    /// let mut unit = UnitOfWork::new();
    /// let (franklin, brisket) = (unit.restaurant("franklin bbq").handle(), unit.dish("brisket").handle());
    /// let connection = unit.connection(franklin, brisket).handle();
    /// let mention = unit.mention(connection, mention);
    /// // .. submitted, and committed
    /// let id = committed.mention(mention).map(|row| row.id);
    /// # }
    /// ```
    #[must_use]
    pub fn mention(&self, handle: MentionHandle) -> Option<CommittedRow> {
        handle.index_in(self.nonce).and_then(|index| self.mentions.get(index)).copied()
    }

    /// The id of every row that the caller labelled. If two rows have one label, the later one counts.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut unit = graphsink::UnitOfWork::new();
    /// unit.dish("brisket").temp_id("d1").handle();
    /// let committed = engine.submit(unit).await?.await.into_result()?;
    /// println!("d1 is {}", committed.temp_ids()["d1"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn temp_ids(&self) -> HashMap<&str, Uuid> {
        let labels = self.temp_ids.iter().flat_map(|labels| labels.iter());
        labels.filter_map(|(label, row)| Some((label, self.row(row)?.id))).collect()
    }

    /// The row at a position.
    ///
    /// ```
    /// use graphsink::{Committed, Row, Table};
    ///
    /// fn first_mention(committed: &Committed) -> Option<uuid::Uuid> {
    ///     committed.row(Row { table: Table::Mentions, index: 0 }).map(|row| row.id)
    /// }
    /// ```
    #[must_use]
    pub fn row(&self, row: Row) -> Option<CommittedRow> {
        let rows = match row.table {
            Table::Entities => &self.entities,
            Table::Connections => &self.connections,
            Table::Mentions => &self.mentions,
        };
        rows.get(row.index).copied()
    }
}
