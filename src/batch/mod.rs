//! The combination of pending rows: pure decisions, without IO, clock or actors.
//!
//! A row's way through this layer:
//!
//! 1. [`Batch`] coalesces the rows of one table by the *name* that units use for them. Each row of each unit gets a
//!    slot, which leads back to its outcome.
//! 2. [`Epoch`] joins the three batches of the units that one transaction commits.
//! 3. [`write_epoch`] writes it: names become ids with data of the [`GraphTables`], rows that turn out to be one are
//!    merged, and locks are taken in one global order.
//!
//! [`KnownNames`] remembers the ids of names from one epoch to the next, [`Repeats`] whether epochs repeat what is
//! stored, [`Novelty`] what they stated.
//!
//! [`Folds`] does the same for the folds of entities that a caller's merges request.
//!
//! Laws (checked in `simulation`, by [`write_epoch`] on tables in memory): coalescing and then merging with the stored
//! row has the same result as merging each row separately, in any order and any number of times.

mod balance;
mod coalesce;
mod connection_nodes;
mod connections;
mod entities;
mod epoch;
mod fold;
mod known_names;
mod new_ids;
mod novelty;
mod repeats;
mod rows;
#[cfg(test)]
pub(crate) mod simulation;
mod tables;
mod write;

pub(crate) use coalesce::{Batch, TableBatch};
pub(crate) use connection_nodes::is_long;
pub(crate) use connections::{MentionRows, NewConnections, UnlockedConnections};
pub(crate) use epoch::{ConnectionBatch, EntityBatch, Epoch, MentionBatch};
pub(crate) use fold::{FoldedConnection, Folds, KeyedConnection, Planned};
pub(crate) use known_names::{Generation, KnownNames, LearnedNames, Names};
pub(crate) use novelty::Novelty;
pub(crate) use repeats::{RepeatAnswers, RepeatQuestion, Repeats, SeenConnection};
pub(crate) use rows::{
    ConnectionWrite, EntityWrite, FoundByKey, MentionRow, PlaceIds, StoredConnection, StoredEntity, StoredMention,
    VanishedRow, top_mention,
};
pub(crate) use tables::{
    Found, GraphTables, HistoryAnswers, HistoryQuestions, KeyLookup, LockRound, Lookup, RereadAnswers, RereadQuestions,
};
pub(crate) use write::{Clock, Remembered, WriteError, Written, refresh_connections, write_epoch};
