//! Effects: what the engine does to PostgreSQL.
//!
//! Knows records, units and epochs; knows nothing of actors. A row's way: [`commit`] has groups of units attempted and
//! splits them, as [`retry`] says, [`attempt`] runs one transaction, [`transaction`] writes an epoch in it, [`ending`]
//! commits it, [`fence`] finds out whether a commit without an answer took place, [`circuit`] stops the line while the
//! database cannot be used, [`dead_letter`] keeps what was refused, [`fold`] makes one entity of two, [`statement`]
//! holds all other SQL, [`timeline`] remembers what a transaction's statements took, [`lock_wait`] finds out how long
//! it waited for locks, [`bulk`] fills empty tables in one transaction. The others are methods of the [`Store`], which
//! [`postgres`] makes.

mod array_text;
mod attempt;
mod backoff;
mod blackhole;
mod bulk;
mod check;
mod circuit;
mod commit;
mod dead_letter;
mod destination;
mod ending;
mod fence;
mod fold;
mod history_indexes;
mod lock_wait;
mod migrate;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod plans;
mod pool;
mod postgres;
mod prepared;
mod refresh;
mod refusals;
mod retry;
mod session;
mod shape;
mod silence;
mod statement;
mod table;
mod time;
mod timeline;
mod transaction;

pub(crate) use blackhole::Blackhole;
#[cfg(feature = "resolver")]
pub(crate) use bulk::{BuildStep, BuildWhat, BulkTransaction, CopyError, TransactionSettings, encoder};
pub(crate) use commit::EpochObserver;
pub(crate) use dead_letter::DeadLetter;
pub(crate) use destination::Destination;
pub use migrate::{MigrationReport, Migrations};
#[cfg(feature = "resolver")]
pub(crate) use pool::{Connector, SessionPool};
pub(crate) use postgres::Store;
pub(crate) use prepared::{Prepared, StatementNames};
pub use refresh::RefreshReport;
#[cfg(feature = "resolver")]
pub(crate) use statement::quote_identifier;
pub(crate) use table::{Connections, CopyPieces, Entities, Mentions, Table as StoredTable};
