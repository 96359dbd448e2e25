//! Joins the three batches of a sealed epoch and starts the task that commits it.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;

use super::commit_task::CommitTask;
use super::message::{AnyBatch, BatchReady, Beat, DeathWatch, Discard, EpochReport, EpochSealed, Panic};
use super::shared::Shared;
use crate::batch::{ConnectionBatch, EntityBatch, Epoch, MentionBatch};
use crate::failpoint::failpoint;
use crate::flight::{EpochId, Submission};

/// The parts of an epoch that have arrived. It is complete when none is missing.
#[derive(Default)]
struct Arriving {
    sealed: Option<(usize, Vec<Arc<Submission>>)>,
    entities: Option<EntityBatch>,
    connections: Option<ConnectionBatch>,
    mentions: Option<MentionBatch>,
}

/// The last actor of the tree. It owns no transaction: transactions run in tasks that outlive it.
pub(crate) struct TransactionCoordinator {
    arriving: BTreeMap<EpochId, Arriving>,
    /// Epochs below this were discarded; their late parts are dropped.
    discarded_below: EpochId,
    shared: Arc<Shared>,
    supervisor: Recipient<EpochReport>,
    watch: DeathWatch,
}

impl TransactionCoordinator {
    pub(crate) fn new(
        shared: Arc<Shared>,
        discarded_below: EpochId,
        supervisor: Recipient<EpochReport>,
        watch: DeathWatch,
    ) -> Self {
        Self { arriving: BTreeMap::new(), discarded_below, shared, supervisor, watch }
    }

    fn arrive(&mut self, epoch: EpochId, take_in: impl FnOnce(&mut Arriving)) {
        if epoch < self.discarded_below {
            return;
        }
        let arriving = self.arriving.entry(epoch).or_default();
        take_in(arriving);
        failpoint("coordinator::arrive");
        if arriving.sealed.is_some()
            && arriving.entities.is_some()
            && arriving.connections.is_some()
            && arriving.mentions.is_some()
        {
            self.start(epoch);
        }
    }

    fn start(&mut self, epoch: EpochId) {
        let Some(Arriving {
            sealed: Some((lane, submissions)),
            entities: Some(entities),
            connections: Some(connections),
            mentions: Some(mentions),
        }) = self.arriving.remove(&epoch)
        else {
            return;
        };
        let units = submissions.iter().map(|submission| submission.unit()).collect();
        // A batcher cannot be restarted in the middle of an epoch: its death discards every open epoch. This check
        // detects violations of that rule.
        let joined = Epoch::join(units, entities, connections, mentions);
        assert!(joined.is_some(), "epoch {epoch}: a batch lacks rows of a unit that was routed to it");
        let Some(joined) = joined else { return };
        failpoint("coordinator::start");
        CommitTask::new(epoch, lane, submissions, &self.shared, self.supervisor.clone()).spawn(joined);
    }
}

impl Actor for TransactionCoordinator {
    type Context = Context<Self>;
}

impl Handler<EpochSealed> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, EpochSealed { epoch, lane, submissions }: EpochSealed, _: &mut Context<Self>) {
        self.arrive(epoch, |arriving| arriving.sealed = Some((lane, submissions)));
    }
}

impl Handler<BatchReady> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, BatchReady { epoch, batch }: BatchReady, _: &mut Context<Self>) {
        self.arrive(epoch, |arriving| match batch {
            AnyBatch::Entities(batch) => arriving.entities = Some(batch),
            AnyBatch::Connections(batch) => arriving.connections = Some(batch),
            AnyBatch::Mentions(batch) => arriving.mentions = Some(batch),
        });
    }
}

impl Handler<Discard> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, Discard { below }: Discard, _: &mut Context<Self>) {
        self.discarded_below = below;
        self.arriving = self.arriving.split_off(&below);
    }
}

impl Handler<Beat> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, Beat(pulse): Beat, _: &mut Context<Self>) {
        pulse.beat(self.watch.child);
    }
}

impl Handler<Panic> for TransactionCoordinator {
    type Result = ();

    fn handle(&mut self, Panic(kind): Panic, _: &mut Context<Self>) {
        panic!("{kind:?} dies on request");
    }
}
