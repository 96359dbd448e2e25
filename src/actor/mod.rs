//! The actors: thin shells around the pure core, and their protocol.
//!
//! ```text
//!   handle ─Arrived──▶ Supervisor ──Absorb──▶ EntityBatcher ─────┐
//!                          │ ───────Absorb──▶ ConnectionBatcher ─┤ BatchReady
//!                          │ ───────Absorb──▶ MentionBatcher ────┤
//!                          │ ───────Seal────▶ (each of them)     ▼
//!                          └──EpochSealed───────────▶ TransactionCoordinator ──▶ commit task
//!                          ▲                                                        │
//!                          └─────────────────────EpochReport────────────────────────┘
//! ```
//!
//! 1. The supervisor learns of units as they arrive while a lane is free, otherwise of some hundreds together
//!    (`flight/arrivals.rs`). It routes a unit to the open epoch of a *lane* (`dispatch.rs`). Lanes are commit slots: each
//!    has at most one open epoch and one commit in flight. Units of one restaurant or with the same new entity go to one
//!    lane as long as any of them is unanswered, so that epochs in flight seldom meet on a row (`routing.rs`).
//! 2. It moves units of an epoch, some hundreds of them at a time, into memory of their own, and sends them to the
//!    batcher of each table, which absorbs their rows into the epoch's batch.
//! 3. It seals an epoch when its lane is free, when it is full, or on flush: `Seal` follows the rows
//!    through the same mailboxes, so no row of the epoch can come after it.
//! 4. Each batcher answers a seal by sending its batch to the coordinator. The coordinator joins the three batches and
//!    starts a task that claims the units and commits them, one epoch after the other in each lane.
//! 5. The task gives every unit its outcome and tells the supervisor that the lane is free. It also reports a failed
//!    attempt: units that may go to any lane then avoid that lane, so that a row held by another program delays only
//!    the units that touch it and those that were already queued behind them.
//!
//! Properties:
//! - Messages go down the tree; the only message up, `EpochReport`, never waits. No actor awaits another, so there is
//!   no cycle of waiting.
//! - Mailboxes are unbounded (`do_send`), their content is bounded by admission: every message belongs to a unit that
//!   holds capacity, or to an epoch of such units.
//! - Actors own no promise: the units are in `InFlight`, and commits run in separate tasks. The death of an actor loses
//!   only work. The supervisor routes the unclaimed units again, under new epoch numbers; the data of the old epochs is
//!   discarded.

mod batcher;
mod commit_task;
mod coordinator;
mod dispatch;
mod message;
mod pulse;
mod recent_writes;
mod routing;
mod shared;
mod supervisor;

pub(crate) use message::{Arrived, Flush, Panic};
pub(crate) use pulse::Pulse;
pub(crate) use shared::Shared;
pub(crate) use supervisor::Supervisor;
