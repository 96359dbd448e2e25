//! Joins the sorters' results, and hands them to the task that writes.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::message::{Logs, Sealed, SortedTable};
use crate::bulk::runs::{SortedConnections, SortedEntities, SortedMentions};
use crate::bulk::shared::{FailOnDrop, Shared};
use crate::failpoint::failpoint;

/// All submitted data, sorted.
#[derive(Debug)]
pub(in crate::bulk) struct SortedInput {
    pub(in crate::bulk) entities: SortedEntities,
    pub(in crate::bulk) connections: SortedConnections,
    pub(in crate::bulk) mentions: SortedMentions,
    pub(in crate::bulk) logs: Logs,
}

/// The parts that have arrived. It is complete when none is missing.
#[derive(Debug, Default)]
struct Arriving {
    entities: Option<SortedEntities>,
    connections: Option<SortedConnections>,
    mentions: Option<SortedMentions>,
    logs: Option<Logs>,
}

impl Arriving {
    const fn is_whole(&self) -> bool {
        self.entities.is_some() && self.connections.is_some() && self.mentions.is_some() && self.logs.is_some()
    }

    fn join(self) -> Option<SortedInput> {
        Some(SortedInput {
            entities: self.entities?,
            connections: self.connections?,
            mentions: self.mentions?,
            logs: self.logs?,
        })
    }
}

/// The last actor of the tree. The writing task owns the transaction.
#[derive(Debug)]
pub(in crate::bulk) struct TransactionCoordinator {
    arriving: Arriving,
    to: Option<oneshot::Sender<SortedInput>>,
    _watch: FailOnDrop,
}

impl TransactionCoordinator {
    pub(in crate::bulk) fn new(shared: &Arc<Shared>, to: oneshot::Sender<SortedInput>) -> Self {
        let watch = FailOnDrop::died(Arc::clone(shared));
        Self { arriving: Arriving::default(), to: Some(to), _watch: watch }
    }

    fn join(&mut self) {
        failpoint("bulk::join");
        if !self.arriving.is_whole() {
            return;
        }
        if let Some((input, to)) = std::mem::take(&mut self.arriving).join().zip(self.to.take()) {
            // The task is gone only if the load has failed.
            let _ = to.send(input);
        }
    }
}

impl Actor for TransactionCoordinator {
    type Context = Context<Self>;
}

impl Handler<SortedTable> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, sorted: SortedTable, _: &mut Context<Self>) {
        match sorted {
            SortedTable::Entities(entities) => self.arriving.entities = Some(entities),
            SortedTable::Connections(connections) => self.arriving.connections = Some(connections),
            SortedTable::Mentions(mentions) => self.arriving.mentions = Some(mentions),
        }
        self.join();
    }
}

impl Handler<Sealed> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, Sealed(logs): Sealed, _: &mut Context<Self>) {
        self.arriving.logs = Some(logs);
        self.join();
    }
}
