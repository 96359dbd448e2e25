//! Messages between actors.

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

/// Handle -> Supervisor: no more units will come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::bulk) struct Finish;

/// Supervisor -> `TableSorter`: units to sort, in the order of their numbers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct Absorb(pub(super) Arc<Vec<Accepted>>);

/// Supervisor -> `TableSorter`: no more units will come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Seal;

/// Supervisor -> `TransactionCoordinator`: the logs about units.
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

/// The supervisor's logs.
#[derive(Debug)]
pub(in crate::bulk) struct Logs {
    pub(in crate::bulk) refusals: RefusalLog,
    /// Present if outcomes were requested.
    pub(in crate::bulk) outcomes: Option<OutcomeLog>,
}
