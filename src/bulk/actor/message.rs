//! What actors tell each other.

use std::sync::Arc;

use actix::prelude::*;

use crate::bulk::outcomes::OutcomeLog;
use crate::bulk::refusals::RefusalLog;
use crate::bulk::runs::{SortedConnections, SortedEntities, SortedMentions};
use crate::bulk::shared::Accepted;

/// Handle -> Supervisor: units have arrived.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::bulk) struct Arrived;

/// Handle -> Supervisor: there will be no more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::bulk) struct Finish;

/// Supervisor -> `TableSorter`: units to sort in, in the order of their numbers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct Absorb(pub(super) Arc<Vec<Accepted>>);

/// Supervisor -> `TableSorter`: that was all.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Seal;

/// Supervisor -> `TransactionCoordinator`: what was written down of units.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Sealed(pub(super) Logs);

/// `TableSorter` -> `TransactionCoordinator`: a table is sorted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) enum SortedTable {
    Entities(SortedEntities),
    Connections(SortedConnections),
    Mentions(SortedMentions),
}

impl From<SortedEntities> for SortedTable {
    fn from(sorted: SortedEntities) -> Self {
        Self::Entities(sorted)
    }
}

impl From<SortedConnections> for SortedTable {
    fn from(sorted: SortedConnections) -> Self {
        Self::Connections(sorted)
    }
}

impl From<SortedMentions> for SortedTable {
    fn from(sorted: SortedMentions) -> Self {
        Self::Mentions(sorted)
    }
}

/// What the supervisor writes down.
#[derive(Debug)]
pub(in crate::bulk) struct Logs {
    pub(in crate::bulk) refusals: RefusalLog,
    /// If it was asked for.
    pub(in crate::bulk) outcomes: Option<OutcomeLog>,
}
