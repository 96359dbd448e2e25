//! One sorter per table.

use std::sync::Arc;

use actix::prelude::*;

use super::coordinator::TransactionCoordinator;
use super::message::{Absorb, Seal, SortedTable};
use crate::bulk::rows::Numbered;
use crate::bulk::runs::TableRuns;
use crate::bulk::shared::{Accepted, FailOnDrop, Shared};
use crate::bulk::spill::SpillError;
use crate::failpoint::failpoint;

/// The shell around the sorted runs of one table.
#[derive(Debug)]
pub(in crate::bulk) struct TableSorter<R> {
    /// `None` once it was sealed, or has failed.
    runs: Option<R>,
    coordinator: Addr<TransactionCoordinator>,
    shared: Arc<Shared>,
    _watch: FailOnDrop,
}

impl<R: TableRuns> TableSorter<R> {
    pub(in crate::bulk) fn new(runs: R, coordinator: Addr<TransactionCoordinator>, shared: &Arc<Shared>) -> Self {
        let watch = FailOnDrop::died(Arc::clone(shared));
        Self { runs: Some(runs), coordinator, shared: Arc::clone(shared), _watch: watch }
    }

    fn fail(&mut self, error: SpillError) {
        self.runs = None;
        self.shared.fail(error.into());
    }
}

impl<R: TableRuns> Actor for TableSorter<R> {
    type Context = Context<Self>;
}

impl<R: TableRuns> Handler<Absorb> for TableSorter<R> {
    type Result = ();

    fn handle(&mut self, Absorb(units): Absorb, _: &mut Context<Self>) {
        let Some(runs) = &mut self.runs else { return };
        let absorbed = units.iter().try_for_each(|Accepted { number, unit, is_contingent, .. }| {
            failpoint("bulk::absorb");
            runs.absorb(Numbered { number: *number, unit: unit.get(), is_contingent: *is_contingent })
        });
        if let Err(error) = absorbed {
            self.fail(error);
        }
    }
}

impl<R: TableRuns> Handler<Seal> for TableSorter<R>
where
    SortedTable: From<R::Sorted>,
{
    type Result = ();

    fn handle(&mut self, Seal: Seal, _: &mut Context<Self>) {
        let Some(runs) = self.runs.take() else { return };
        failpoint("bulk::seal");
        match runs.finish() {
            Ok(sorted) => {
                tracing::debug!(table = R::TABLE.as_str(), "sorted");
                self.coordinator.do_send(SortedTable::from(sorted));
            }
            Err(error) => self.fail(error),
        }
    }
}
