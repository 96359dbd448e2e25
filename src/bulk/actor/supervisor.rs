//! Accepts units in the order of their numbers, and routes their rows to the sorters.

use std::sync::Arc;

use actix::prelude::*;

use super::coordinator::TransactionCoordinator;
use super::message::{Absorb, Arrived, Finish, Logs, Seal, Sealed};
use super::sorter::TableSorter;
use crate::bulk::claims::Claimants;
use crate::bulk::refusals::Refusal;
use crate::bulk::runs::{ConnectionRuns, EntityRuns, MentionRuns};
use crate::bulk::shared::{Accepted, FailOnDrop, Shared};
use crate::bulk::spill::SpillError;
use crate::failpoint::failpoint;
use crate::record::Table;

/// Number of units in a message: their capacity is released together.
const UNITS_AT_ONCE: usize = 64;

/// The three sorters.
#[derive(Debug)]
pub(in crate::bulk) struct Sorters {
    pub(in crate::bulk) entities: Addr<TableSorter<EntityRuns>>,
    pub(in crate::bulk) connections: Addr<TableSorter<ConnectionRuns>>,
    pub(in crate::bulk) mentions: Addr<TableSorter<MentionRuns>>,
}

impl Sorters {
    fn absorb(&self, units: Vec<Accepted>) {
        let message = Absorb(Arc::new(units));
        self.entities.do_send(message.clone());
        self.connections.do_send(message.clone());
        self.mentions.do_send(message);
    }

    fn seal(&self) {
        self.entities.do_send(Seal);
        self.connections.do_send(Seal);
        self.mentions.do_send(Seal);
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::bulk) struct Supervisor {
    shared: Arc<Shared>,
    sorters: Sorters,
    coordinator: Addr<TransactionCoordinator>,
    /// `None` once the load is sealed, or has failed.
    books: Option<(Logs, Claimants)>,
    _watch: FailOnDrop,
}

impl Supervisor {
    pub(in crate::bulk) fn new(
        shared: &Arc<Shared>,
        sorters: Sorters,
        coordinator: Addr<TransactionCoordinator>,
        logs: Logs,
        claimants: Claimants,
    ) -> Self {
        let watch = FailOnDrop::died(Arc::clone(shared));
        let books = Some((logs, claimants));
        Self { shared: Arc::clone(shared), sorters, coordinator, books, _watch: watch }
    }

    fn route(&mut self) {
        let Some((logs, claimants)) = &mut self.books else { return };
        let arrived = self.shared.take_arrivals();
        failpoint("bulk::route");
        if let Err(error) = route(logs, claimants, arrived, &self.shared, &self.sorters) {
            self.books = None;
            self.shared.fail(error.into());
        }
    }
}

fn route(
    logs: &mut Logs,
    claimants: &mut Claimants,
    arrived: Vec<Accepted>,
    shared: &Shared,
    sorters: &Sorters,
) -> Result<(), SpillError> {
    let mut units = Vec::with_capacity(arrived.len().min(UNITS_AT_ONCE));
    for mut accepted in arrived {
        if let Some(refusal) = Refusal::of_missing(accepted.unit.get()) {
            logs.refusals.push(accepted.number, &refusal)?;
            Shared::count(&shared.counters.rejected, 1);
            continue;
        }
        for table in Table::ALL {
            Shared::count(&shared.counters.received[table as usize], accepted.unit.get().names(table).len());
        }
        if let Some(outcomes) = &mut logs.outcomes {
            outcomes.push(accepted.number, accepted.unit.get())?;
        }
        accepted.is_contingent = claimants.may_refuse(accepted.unit.get());
        units.push(accepted);
        if units.len() == UNITS_AT_ONCE {
            sorters.absorb(std::mem::take(&mut units));
        }
    }
    if !units.is_empty() {
        sorters.absorb(units);
    }
    Ok(())
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<Arrived> for Supervisor {
    type Result = ();

    fn handle(&mut self, Arrived: Arrived, _: &mut Context<Self>) {
        self.route();
    }
}

impl Handler<Finish> for Supervisor {
    type Result = ();

    /// No units are accepted any more, so the waiting ones are the last.
    fn handle(&mut self, Finish: Finish, _: &mut Context<Self>) {
        self.route();
        // From now on the claimants' memory is used for merges.
        if let Some((logs, _)) = self.books.take() {
            self.sorters.seal();
            self.coordinator.do_send(Sealed(logs));
        }
    }
}
