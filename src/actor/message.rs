//! Every message of the engine, with its sender and its receiver. It names no actor: a message that needs an answer
//! carries the recipient.

use std::sync::Arc;

use actix::prelude::*;

use super::pulse::Pulse;
use crate::batch::{ConnectionBatch, EntityBatch, MentionBatch};
use crate::flight::{EpochId, Submission};
use crate::label::ActorKind;
use crate::unit::SharedUnit;

/// Handle, Supervisor -> Supervisor: units were accepted, and wait to be [taken](crate::flight::InFlight::take_arrivals).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Arrived;

/// Handle -> Supervisor: seal the open epochs, whether or not a lane is free.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush;

/// Handle -> Supervisor, Supervisor -> any: die, to test that nothing is lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic(pub(crate) ActorKind);

/// Supervisor -> batchers, coordinator: give a sign of life.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct Beat(pub(crate) Arc<Pulse>);

/// Supervisor -> batchers: the next units of an epoch.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct Absorb {
    pub(crate) epoch: EpochId,
    pub(crate) units: Arc<[SharedUnit]>,
}

/// Supervisor -> batchers: no more units of this epoch will come; send its batch.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct Seal {
    pub(crate) epoch: EpochId,
    pub(crate) to: Recipient<BatchReady>,
}

/// Supervisor -> batchers, coordinator: forget epochs below this one; their units were routed again.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Discard {
    pub(crate) below: EpochId,
}

/// Supervisor -> coordinator: the units of a sealed epoch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EpochSealed {
    pub(crate) epoch: EpochId,
    pub(crate) lane: usize,
    pub(crate) submissions: Vec<Arc<Submission>>,
}

/// Batcher -> coordinator: the batch of one table of a sealed epoch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BatchReady {
    pub(crate) epoch: EpochId,
    pub(crate) batch: AnyBatch,
}

/// The batch of one table.
pub(crate) enum AnyBatch {
    Entities(EntityBatch),
    Connections(ConnectionBatch),
    Mentions(MentionBatch),
}

impl From<EntityBatch> for AnyBatch {
    fn from(batch: EntityBatch) -> Self {
        Self::Entities(batch)
    }
}

impl From<ConnectionBatch> for AnyBatch {
    fn from(batch: ConnectionBatch) -> Self {
        Self::Connections(batch)
    }
}

impl From<MentionBatch> for AnyBatch {
    fn from(batch: MentionBatch) -> Self {
        Self::Mentions(batch)
    }
}

/// Commit task -> Supervisor: the result of an attempt to commit an epoch, or of the epoch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum EpochReport {
    /// An attempt failed; further attempts follow in the same lane.
    Failing(EpochId),
    /// Every unit has its outcome, the lane is free. `wrote`: at least some of the units were committed.
    Finished { epoch: EpochId, wrote: bool },
}

/// A dropped child -> Supervisor: it has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChildStopped {
    pub(crate) child: ActorKind,
    /// The incarnation, so that the report of an old death does not affect its successor.
    pub(crate) incarnation: u64,
}

/// Tells the supervisor when an actor has ended, for whatever reason: it is dropped with the actor, also when a panic
/// unwinds it. (actix restarts an actor that stops, but not one that panics.)
pub(crate) struct DeathWatch {
    pub(crate) supervisor: Recipient<ChildStopped>,
    pub(crate) child: ActorKind,
    pub(crate) incarnation: u64,
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        self.supervisor.do_send(ChildStopped { child: self.child, incarnation: self.incarnation });
    }
}
