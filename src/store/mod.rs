//! Effects: all access of the engine to PostgreSQL.
//!
//! Depends on records, units and epochs, not on actors. Three hops lead from an epoch to its statements: [`commit`] has
//! it attempted; [`attempt`] runs transactions, again or in halves; [`transaction`] is the tables in one of them, and
//! [`statement`] their SQL.
//!
//! Rooms: [`attempt`] is the runner of everything that must have an outcome; [`session`] lends sessions and guards their
//! transactions; [`health`] knows whether the database can be used; [`table`] has the columns; [`fold`] makes one entity
//! of two; [`bulk`] fills empty tables in one transaction. Beside them: [`fence`] determines the fate of a commit without
//! an answer; [`rejection`] says what an error means for a unit; [`dead_letter`] stores rejected units; [`refresh`]
//! updates what depends on time; [`migrate`] makes the tables. [`postgres`] puts the parts together.

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
mod rejection;
mod session;
mod statement;
mod table;
mod transaction;

pub(crate) use blackhole::Blackhole;
pub(crate) use bulk::{BuildStep, BuildWhat, BulkTransaction, CopyError, ShadowTables, TransactionSettings, encoder};
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
