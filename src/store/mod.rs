//! Effects: all access of the engine to PostgreSQL.
//!
//! Depends on records, units and epochs, not on actors. A row's way: [`commit`] attempts groups of units and splits
//! them, as [`retry`] decides; [`attempt`] runs one transaction; [`transaction`] writes an epoch in it; [`ending`]
//! commits it; [`fence`] determines the fate of a commit without an answer; [`circuit`] blocks transactions while the
//! database cannot be used; [`dead_letter`] stores rejected units; [`fold`] makes one entity of two; [`statement`] has
//! all other SQL; [`timeline`] keeps the times of a transaction's statements; [`lock_wait`] measures how long it waited
//! for locks; [`bulk`] fills empty tables in one transaction. The others are methods of the [`Store`], which
//! [`postgres`] creates.

mod attempt;
mod blackhole;
mod bulk;
mod commit;
mod dead_letter;
mod destination;
mod fence;
mod fold;
mod health;
mod history_indexes;
mod migrate;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod plans;
mod postgres;
mod refresh;
mod session;
mod statement;
mod table;
mod transaction;

pub(crate) use blackhole::Blackhole;
pub(crate) use bulk::{BuildStep, BuildWhat, BulkTransaction, CopyError, TransactionSettings, encoder};
pub(crate) use commit::EpochObserver;
pub(crate) use dead_letter::DeadLetter;
pub(crate) use destination::Destination;
pub use migrate::{MigrationReport, Migrations};
pub(crate) use postgres::Store;
pub use refresh::RefreshReport;
#[cfg(feature = "resolver")]
pub(crate) use session::{Connector, Prepared, SessionPool, StatementNames};
#[cfg(feature = "resolver")]
pub(crate) use statement::quote_identifier;
pub(crate) use table::{Connections, CopyPieces, Entities, Mentions, Table as StoredTable};
