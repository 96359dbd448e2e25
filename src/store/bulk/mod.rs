//! The server's side of a bulk load: one session, one transaction, from the first check to the last index.
//!
//! 1. [`BulkTransaction::begin`]: checks, and takes the tables. From here on the tables stay empty, and others may read
//!    them.
//! 2. [`prepare_tables`](BulkTransaction::prepare_tables): nothing else may look at them any more. Foreign keys, keys
//!    and indexes are remembered and dropped, the tables truncated, so that rows can be copied in as frozen ones.
//! 3. [`copy`](BulkTransaction::copy), for each table: rows that are complete, each written once.
//! 4. [`build`](BulkTransaction::build): indexes and keys as they were, statistics, foreign keys, each checked as a
//!    whole.
//! 5. [`commit`](BulkTransaction::commit).
//!
//! Properties:
//! - Until the commit nothing is visible, and whatever ends the session, or drops the value, leaves the tables as they
//!   were.
//! - What was made again is compared with what was there before, and only then committed: names, definitions, comments,
//!   tablespaces, statistics targets, clustering, replica identity.
//! - A commit that got no answer is asked for at the fence, like an engine's ([`fence`](super::fence)).
//! - Between `begin` and `prepare_tables`, which may be hours, the session holds no transaction id and no snapshot:
//!   vacuum goes on in the rest of the database, and so does replay on standbys. So the lock is `exclusive` at first,
//!   which lets others read, and becomes `access exclusive` when the rows come. Had none been taken before, an engine
//!   could have written meanwhile, and the work before would be lost.
//!
//! What may be on the tables besides what the migrations made:
//!
//! | | |
//! |---|---|
//! | indexes, unique and exclusion constraints | kept: made again with all that they have, or refused by name at the beginning |
//! | foreign keys from or to other tables | kept, if the role has the rights to make them again; checked as a whole |
//! | check constraints, generated columns, defaults | kept: they stay in force; a row that breaks one ends the load |
//! | views, functions | kept, unless one depends on a key, which is refused by name |
//! | triggers on update and delete | kept: nothing is updated or deleted |
//! | triggers on insert and truncate, rules on insert | refused: they would run without indexes, or not at all |
//! | row-level security in force for the role, partitions, inheritance | refused |
//! | event triggers | kept: where some are in force, the load is rehearsed at the beginning and rolled back |
//! | publications | kept. Where one publishes `truncate`, the tables are not truncated, so rows are not frozen: subscribers may have rows of others there |
//! | comments, grants, owners, storage options, column settings, policies, extended statistics | not touched |
//!
//! A constraint of others that an engine would reject single units for ends a bulk load as a whole, with its name.

mod build;
mod copy;
mod definition;
mod fate;
mod inspection;
mod lock;
mod memory;
mod plan;
#[cfg(all(test, unix, feature = "embedded-server"))]
mod tests;
mod transaction;

pub(crate) use copy::{CopyError, encoder};
pub(crate) use plan::{BuildStep, BuildWhat};
pub(crate) use transaction::{BulkTransaction, TransactionSettings};
