//! Names of rows in a unit: handles, or ids of existing rows.

use uuid::Uuid;

/// Refers to an entity of the unit that returned it.
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
    pub(super) nonce: u64,
    pub(super) index: u32,
}

/// Refers to a connection of the unit that returned it: see [`UnitOfWork::connection`](crate::UnitOfWork::connection).
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
    pub(super) nonce: u64,
    pub(super) index: u32,
}

/// Refers to a mention of the unit that returned it: see [`Committed::mention`](crate::Committed::mention).
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
    pub(super) nonce: u64,
    pub(super) index: u32,
}

macro_rules! handle {
    ($handle:ident) => {
        impl $handle {
            /// The row's position in the unit with this `nonce`; `None` for a handle of another unit.
            pub(crate) fn index_in(self, nonce: u64) -> Option<usize> {
                (self.nonce == nonce).then_some(self.index as usize)
            }
        }
    };
}
handle!(EntityHandle);
handle!(ConnectionHandle);
handle!(MentionHandle);

/// Names an entity: a handle of this unit, or the id of an existing row. Every method that takes one accepts both.
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

/// Names a connection: a handle of this unit, or the id of an existing row.
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
