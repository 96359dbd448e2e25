//! Who sorts what: the engine's tree of actors, with sorters in place of batchers.
//!
//! ```text
//!   handle ─Arrived──▶ Supervisor ──Absorb──▶ TableSorter of entities ──────┐
//!                          │ ───────Absorb──▶ TableSorter of connections ───┤ Sorted
//!                          │ ───────Absorb──▶ TableSorter of mentions ──────┤
//!   handle ─Finish───▶     │ ───────Seal────▶ (each of them)                ▼
//!                          └──────Sealed──────────────────▶ TransactionCoordinator ──▶ writing task
//! ```
//!
//! 1. The supervisor takes units in the order of their numbers. Those that name rows by ids are refused at once, as
//!    there are none. Of the others it tells which may still be refused, for an id of Google's that was claimed before.
//!    They go to the sorter of each table; what they will be told is written down, if that was asked.
//! 2. Sorters turn rows into records, sort these, and spill what outgrows their memory. Each has a thread of its own:
//!    they write to the disk and wait for it.
//! 3. `Seal` follows the last unit through the same mailboxes. Each sorter answers it by sending all that it has,
//!    sorted, to the coordinator, which joins the three and hands them to the task that writes (`bulk/write.rs`).
//!
//! Properties:
//! - Messages go down the tree, and no actor waits for another.
//! - Mailboxes are unbounded (`do_send`); what is in them is bounded, as every unit holds room until it is sorted in.
//! - A sorter has the only copy of what it took. So an actor that dies is not started again: the load ends, and nothing
//!   is loaded.

mod coordinator;
mod message;
mod sorter;
mod supervisor;

pub(super) use coordinator::{SortedInput, TransactionCoordinator};
pub(super) use message::{Arrived, Finish, Logs};
pub(super) use sorter::TableSorter;
pub(super) use supervisor::{Sorters, Supervisor};
