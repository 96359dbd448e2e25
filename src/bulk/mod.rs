//! Loads a history into empty tables: units are sorted outside of the database, and every row is written once.
//!
//! 1. [`BulkLoad::begin`](load) creates a directory for files, and locks the tables for the load (`store/bulk/`).
//! 2. [`BulkLoad::submit`](load) checks and hashes a unit in the caller's task, and numbers it. [`actor`]s turn its
//!    rows into records ([`rows`]), with one sorter per table ([`runs`]); data that exceeds memory goes to sorted files
//!    ([`spill`]).
//! 3. [`BulkLoad::finish`](load): the task that [`write`]s finds the units to be rejected for their claims of Google
//!    ids ([`claims`]), then merges the records of each table and copies the rows. Figures of connections are computed from
//!    their mentions. Then it builds keys and indexes, and commits.
//!
//! Properties:
//! - **No joins.** An id is a function of the name's hash ([`ids`]), and records are sorted by these hashes: each row
//!   computes the ids of others by itself. Entities and connections are in the order of their ids, mentions in the order
//!   of their connections.
//! - **Merge rules are those of [`record`](crate::record)**, figures those of `ConnectionMetrics`; `model.rs` compares
//!   with the engine's algorithm, unit by unit.
//! - **Memory is bounded** by parts of one budget ([`settings`]), whatever the length of the input.
//! - **All or nothing.** One commit shows all rows. Every end of the load before its commit is sent rolls back and
//!   removes the files. After the process was killed, the server rolls back, and the next load removes the files.

mod actor;
mod claims;
mod error;
mod ids;
mod load;
#[cfg(test)]
mod model;
mod outcomes;
mod pieces;
mod progress;
mod refusals;
mod report;
mod rows;
mod runs;
mod settings;
mod shared;
mod spill;
mod thread;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod unknown;
mod write;

pub use error::BulkError;
pub use load::BulkLoad;
pub use outcomes::{BulkOutcomes, BulkRejections};
pub use progress::{BulkPhase, BulkProgress};
pub use report::{BulkEnd, BulkReport, BulkRows};
pub use settings::BulkSettings;
pub use spill::SpillError;
