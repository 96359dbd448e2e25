//! One batcher per table: absorbs rows into the batch of their epoch until the epoch is sealed.

use std::collections::BTreeMap;

use actix::prelude::*;

use super::message::{Absorb, AnyBatch, BatchReady, Beat, DeathWatch, Discard, Panic, Seal};
use crate::batch::{ConnectionBatch, EntityBatch, MentionBatch, TableBatch};
use crate::failpoint::failpoint;
use crate::flight::EpochId;
use crate::unit::SharedUnit;

/// Coalesces entities.
pub(crate) type EntityBatcher = Batcher<EntityBatch>;
/// Coalesces connections.
pub(crate) type ConnectionBatcher = Batcher<ConnectionBatch>;
/// Coalesces mentions.
pub(crate) type MentionBatcher = Batcher<MentionBatch>;

/// The shell around the batches of one table. It only knows to which epoch a row belongs.
pub(crate) struct Batcher<B> {
    batches: BTreeMap<EpochId, B>,
    /// Number of names in the last batch, which is the capacity of the next one.
    last: usize,
    watch: DeathWatch,
}

impl<B> Batcher<B> {
    pub(crate) const fn new(watch: DeathWatch) -> Self {
        Self { batches: BTreeMap::new(), last: 0, watch }
    }
}

impl<B: TableBatch> Actor for Batcher<B> {
    type Context = Context<Self>;
}

impl<B: TableBatch> Handler<Absorb> for Batcher<B> {
    type Result = ();

    fn handle(&mut self, Absorb { epoch, units }: Absorb, _: &mut Context<Self>) {
        let batch = self.batches.entry(epoch).or_insert_with(|| B::with_room(self.last));
        for unit in units.iter().map(SharedUnit::get) {
            failpoint("batcher::absorb");
            batch.absorb_unit(unit);
            failpoint("batcher::absorbed");
        }
    }
}

impl<B: TableBatch> Handler<Seal> for Batcher<B>
where
    AnyBatch: From<B>,
{
    type Result = ();

    fn handle(&mut self, Seal { epoch, to }: Seal, _: &mut Context<Self>) {
        let _span = tracing::debug_span!("batch", epoch, table = B::TABLE.as_str()).entered();
        let batch = self.batches.remove(&epoch).unwrap_or_default();
        failpoint("batcher::seal");
        self.last = batch.len();
        tracing::trace!(rows = batch.len(), "batch sealed");
        to.do_send(BatchReady { epoch, batch: batch.into() });
    }
}

impl<B: TableBatch> Handler<Discard> for Batcher<B> {
    type Result = ();

    fn handle(&mut self, Discard { below }: Discard, _: &mut Context<Self>) {
        failpoint("batcher::discard");
        self.batches = self.batches.split_off(&below);
    }
}

impl<B: TableBatch> Handler<Beat> for Batcher<B> {
    type Result = ();

    fn handle(&mut self, Beat(pulse): Beat, _: &mut Context<Self>) {
        pulse.beat(self.watch.child);
    }
}

impl<B: TableBatch> Handler<Panic> for Batcher<B> {
    type Result = ();

    fn handle(&mut self, Panic(kind): Panic, _: &mut Context<Self>) {
        panic!("{kind:?} dies on request");
    }
}
