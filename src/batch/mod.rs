//! How pending rows combine: pure decisions, without IO, clock or actors.
//!
//! A row's way through this layer:
//!
//! 1. [`Batch`] coalesces the rows of one table by the *name* under which units know them. Each
//!    row of each unit gets a slot, by which its outcome is found again.
//! 2. [`Epoch`] joins the three batches of the units that one transaction commits.
//! 3. [`EntityPlan`] and [`ConnectionPlan`] resolve names to ids with what the database said, merge
//!    rows that turn out to be one, and put them in the global lock order.
//!
//! [`Folds`] does the like for entities that a caller merges.
//!
//! Laws (checked in `simulation`, on a database in memory): coalescing and then merging with the stored row gives
//! the same as merging each row by itself, in any order and however often.

mod coalesce;
mod connections;
mod entities;
mod epoch;
mod merge;
#[cfg(test)]
mod simulation;

pub(crate) use coalesce::Batch;
pub(crate) use connections::{
    ConnectionNode, ConnectionPlan, ConnectionWrite, MentionNode, StoredConnection, StoredMention, top_mention,
};
pub(crate) use entities::{EntityPlan, EntityUpdates, EntityWrite, PlaceIds, StoredEntity, VanishedRow};
pub(crate) use epoch::{ConnectionBatch, EntityBatch, Epoch, MentionBatch, TableBatch};
pub(crate) use merge::{Folds, KeyedConnection, MergedConnection, Planned};
