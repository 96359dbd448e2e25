//! The engine against a real PostgreSQL. `DATABASE_URL` names a server to use (its user must be
//! allowed to create databases); without it the tests start one of their own.
//!
//! - `model` is the reference: a naive computation of the whole graph, written from the contract.
//! - `database` reads the whole logical database and compares it with the model; it also has the statement that
//!   compares every metric with a `GROUP BY`.
//! - `generate` draws records with many collisions.
//! - `spec` and `rules`, shared with `tests/hostile`, are units that callers should not send, and the rules on them.
//! - `bulk`: loads are compared with the engine, and ended in every way.
//! - `loader` reads the loader's format for the model, on its own.
//! - `histories` grow long, and old databases get the indexes for them.
//! - `lock_waits` are measured without disturbing anything.
//! - `known_names`: remembered ids, under changes of the tables in between.
//! - `novelty`: what an engine takes to be new, and is not.
//! - `health`: the report for probes and monitors.
//! - `server_faults` kills, starves and alters the server, and kills the process.
//! - `proxy` stands between engine and server and fails at a chosen message; `wire` tests the engine behind it.
//! - `support` has the server, a new database for each test, and waits with time limits.
//!
//! `GRAPHSINK_TEST_SEED` repeats a failed random test, `GRAPHSINK_TEST_CASES` sets the number of random cases.

// Tests tell one story from beginning to end, however long.
#![allow(clippy::too_many_lines)]

mod bulk;
mod counters;
mod dead_letters;
mod environment;
mod health;
mod histories;
mod hostile;
mod known_names;
mod late_connections;
mod late_entities;
mod late_key_checks;
mod lifecycle;
mod loader;
mod lock_waits;
mod merge;
mod merges;
mod novelty;
mod outcomes;
mod refresh;
mod repeats;
mod resolve;
mod restarts;
mod rights;
mod room_for_updates;
mod server_faults;
mod silent_connections;
mod sorted_sets;
mod sql_values;
mod stress;
mod tls;
mod wire;

use graphsink_testing::{database, generate, model, proxy, rules, spec, support};
