//! The server's side of a bulk load: checks and locks, rows and indexes, and the one commit that shows them.
//!
//! [`BulkTransaction::begin`] checks and locks the tables. From here on the tables stay empty, and other sessions may
//! read them. Then there are two ways:
//! - **Shadow tables** ([`shadow`]), if everything on the tables can be carried over to new ones: several sessions write,
//!   index and check these at once, and the transaction puts them in the place of the empty tables. This takes half to
//!   two thirds of the time.
//! - **In place**, for tables with views, publications, rules and the like: the transaction's own session does all.
//!
//! In place:
//!
//! 1. [`prepare_tables`](BulkTransaction::prepare_tables) gets exclusive access. Foreign keys, keys and indexes are
//!    recorded and dropped, and the tables truncated, so that rows can be copied frozen.
//! 2. [`copy`](BulkTransaction::copy), for each table, writes complete rows, each once.
//! 3. [`build`](BulkTransaction::build) recreates indexes and keys, gathers statistics, and creates foreign keys, each
//!    checked as a whole.
//! 4. [`commit`](BulkTransaction::commit) commits.
//!
//! Properties:
//! - Until the commit nothing is visible in the tables, and the end of the session or the dropping of the value, for any
//!   reason, leaves them as they were.
//! - Recreated objects are compared with the recorded ones before the commit: names, definitions, comments,
//!   tablespaces, statistics targets, clustering, replica identity.
//! - The fate of a commit without an answer is determined at the fence, like an engine's ([`fence`](super::fence)).
//! - Between `begin` and `prepare_tables`, which may be hours apart, the session holds no transaction id and no
//!   snapshot: vacuum continues in the rest of the database, and so does replay on standbys. So the lock is `exclusive`
//!   at first, which lets others read, and becomes `access exclusive` before rows are written. Without the first lock
//!   an engine could write meanwhile, and the work done so far would be lost.
//!
//! Objects on the tables other than those of the migrations, in place ([`shadow`] carries over what it knows to recreate
//! in the same way, and leaves all other tables to this way):
//!
//! | | |
//! |---|---|
//! | indexes, unique and exclusion constraints | kept: recreated with all their properties, or refused by name at the beginning |
//! | foreign keys from or to other tables | kept, if the role has the rights to recreate them; checked as a whole |
//! | check constraints, generated columns, defaults | kept: they stay in force; a row that breaks one ends the load |
//! | views, functions | kept, unless one depends on a key, which is refused by name |
//! | triggers on update and delete | kept: nothing is updated or deleted |
//! | triggers on insert and truncate, rules on insert | refused: they would run without indexes, or not at all |
//! | row-level security in force for the role, partitions, inheritance | refused |
//! | event triggers | kept: if some are in force, the load is rehearsed at the beginning and rolled back |
//! | publications | kept. If one publishes `truncate`, the tables are not truncated, so rows are not frozen: subscribers may have other rows there |
//! | comments, grants, owners, storage options, column settings, policies, extended statistics | not touched |
//!
//! A row that breaks another constraint ends the whole bulk load with the constraint's name, while an engine would
//! reject only that unit.

mod build;
mod copy;
mod definition;
mod exclusive;
mod fate;
mod inspection;
mod lock;
mod memory;
mod plan;
mod session;
mod shadow;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod tests;
mod transaction;

pub(crate) use copy::{CopyError, encoder};
pub(crate) use plan::{BuildStep, BuildWhat};
pub(crate) use shadow::ShadowTables;
pub(crate) use transaction::{BulkTransaction, TransactionSettings};
