//! The actors of a bulk load: the engine's tree, with sorters in place of batchers.
//!
//! ```text
//!   handle ─Arrived──▶ Supervisor ──Absorb──▶ TableSorter of entities ──────┐
//!                          │ ───────Absorb──▶ TableSorter of connections ───┤ Sorted
//!                          │ ───────Absorb──▶ TableSorter of mentions ──────┤
//!   handle ─Finish───▶     │ ───────Seal────▶ (each of them)                ▼
//!                          └──────Sealed──────────────────▶ TransactionCoordinator ──▶ writing task
//! ```
//!
//! 1. The supervisor accepts units in the order of their numbers. Units that name rows by ids are rejected at once,
//!    because the tables are empty. Of the others it determines which may still be rejected, for a Google id that was
//!    claimed before. It sends units to the sorter of each table, and logs their outcomes if requested.
//! 2. Sorters turn rows into records, sort these, and spill data that exceeds their memory. Each has its own thread,
//!    because it writes to the disk and waits for it.
//! 3. `Seal` follows the last unit through the same mailboxes. Each sorter answers it by sending all its data, sorted,
//!    to the coordinator, which joins the three and hands them to the task that writes (`bulk/write.rs`).
//!
//! Properties:
//! - Messages go down the tree, and no actor waits for another.
//! - Mailboxes are unbounded (`do_send`); their content is bounded, because every unit holds capacity until it is
//!   sorted.
//! - A sorter has the only copy of its data. So a dead actor is not restarted: the load ends, and nothing is loaded.

mod coordinator;
mod message;
mod sorter;
mod supervisor;

pub(super) use coordinator::{SortedInput, TransactionCoordinator};
pub(super) use message::{Arrived, Finish, Logs};
pub(super) use sorter::TableSorter;
pub(super) use supervisor::{Sorters, Supervisor};
