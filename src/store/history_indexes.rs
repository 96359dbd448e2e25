//! The indexes for long histories, which replace those for all histories.
//!
//! They are not migrations of `refinery`, each of which is a transaction: on tables in use they are built
//! `concurrently`, which blocks no writer and cannot be part of a transaction. If a step is interrupted, the next run
//! continues.
//! A process that waits for the migrations' lock polls: a waiting statement has a snapshot, for whose end the build
//! would wait.
//!
//! A row says whether it is part of a long history (`history_indexed`), and both indexes are partial. Invariant: where
//! a connection says so, all of its mentions do.
//!
//! - An epoch knows the flag from the locked row and hands it to the lookups, which have two branches. The other branch
//!   is not executed.
//! - When a history grows beyond 32 mentions, the same transaction flags the mentions that are there
//!   (`index_histories`), inserts the new ones flagged, and writes the flag with the connection's own version.
//! - A connection whose history is short loses the flag with its next version, which changes no mention. So tables of
//!   earlier versions, where everything is flagged by default, come to cost as little as new ones.
//! - Folds flag what they move. A trigger does it for engines that know no flags; it fires for no update that leaves
//!   `connection_id` alone.
//! - The conditions of the two indexes say the same in two ways. A partial index can be read whole by a query that
//!   implies no more than its condition, and on statistics without long histories that looks as cheap as a lookup.

use tokio_postgres::{Client, Error};

/// An index, and its predecessor, which had entries of all mentions.
struct HistoryIndex {
    name: &'static str,
    on: &'static str,
    before: &'static str,
}

/// They are not read indexes: the write path needs them so that an epoch never reads a long history as a whole. The
/// first answers "how many in the last 30 days" and "which is the newest", the second "does the connection have this
/// thread".
///
/// Both are on expressions, to separate the plans: no other index can serve the conditions that statement.rs uses for
/// each of them, so that the planner has no choice, and cannot choose wrongly on tables without statistics. The first
/// is on a one-to-one image of the id, the second on a hash of both columns, which is also half the size. For the same
/// reason their predicates express in two ways which rows they contain: if a query's conditions imply the predicate,
/// the planner may also read the whole index.
const INDEXES: [HistoryIndex; 2] = [
    HistoryIndex {
        name: "mentions_of_long_history_by_time_idx",
        on: "(uuid_send(connection_id), created_at) where history_indexed::int4 = 1",
        before: "mentions_of_connection_by_time_idx",
    },
    HistoryIndex {
        name: "mentions_of_long_history_by_thread_idx",
        on: "(hashtextextended(thread_id, uuid_hash_extended(connection_id, 0))) where history_indexed",
        before: "mentions_of_connection_by_thread_idx",
    },
];

/// Creates the indexes in the current schema unless they exist, then drops their predecessors. Returns the executed
/// statements. The caller holds the migrations' lock, outside a transaction.
pub(super) async fn apply(client: &Client) -> Result<Vec<String>, Error> {
    let in_use: bool = client.query_one("select exists (select from mentions)", &[]).await?.get(0);
    let how = if in_use { "concurrently " } else { "" };
    let mut steps = Vec::new();
    for HistoryIndex { name, on, .. } in &INDEXES {
        match is_valid(client, name).await? {
            Some(true) => continue,
            // A build that was interrupted.
            Some(false) => steps.push(format!("drop index {how}{name}")),
            None => {}
        }
        steps.push(format!("create index {how}{name} on mentions {on}"));
    }
    for HistoryIndex { before, .. } in &INDEXES {
        if is_valid(client, before).await?.is_some() {
            steps.push(format!("drop index {how}{before}"));
        }
    }
    if in_use {
        for step in &steps {
            client.batch_execute(step).await?;
        }
    } else if !steps.is_empty() {
        // The lock comes first: otherwise writers of the first mentions would wait for this session while holding a
        // lock that it needs.
        let steps = steps.join("; ");
        client.batch_execute(&format!("begin; lock table mentions; {steps}; commit")).await?;
    }
    Ok(steps)
}

/// Whether an index of the current schema is valid; `None` if it does not exist.
async fn is_valid(client: &Client, index: &str) -> Result<Option<bool>, Error> {
    let find = "select i.indisvalid from pg_catalog.pg_index i
                join pg_catalog.pg_class c on c.oid = i.indexrelid
                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where c.relname = $1 and n.nspname = current_schema()";
    Ok(client.query_opt(find, &[&index]).await?.map(|row| row.get(0)))
}
