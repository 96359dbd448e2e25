//! The engine against a real PostgreSQL. `DATABASE_URL` names a server to use (its user must be
//! allowed to create databases); without it the tests start one of their own.
//!
//! The model, the comparison with it, the proxy and what else other programs of the tests need as well is in
//! `tests/shared`.
//!
//! - `bulk` loads are compared with the engine, and ended in every way.
//! - `loader` reads the loader's format for the model, on its own.
//! - `histories` grow long, and old databases get the indexes for those.
//! - `lock_waits` are found out, and nothing is disturbed by it.
//! - `known_names`: ids that are remembered, and what may be done to the tables in between.
//! - `health` is what probes and monitors are told.
//! - `server_faults` kills, starves and alters the server, and kills the process.
//! - `wire` tests what comes of messages that fail between engine and server.
//!
//! `GRAPHSINK_TEST_SEED` runs the random tests again as they failed, `GRAPHSINK_TEST_CASES` sets
//! the number of random cases.

mod bulk;
mod counters;
mod dead_letters;
mod environment;
mod health;
mod histories;
mod hostile;
mod known_names;
mod late_connections;
mod lifecycle;
mod loader;
mod lock_waits;
mod merge;
mod merges;
mod outcomes;
mod refresh;
mod resolve;
mod restarts;
mod rights;
mod room_for_updates;
mod server_faults;
mod silent_connections;
mod sql_values;
mod stress;
mod tls;
mod wire;

use graphsink_testing::{database, generate, model, proxy, rules, spec, support};
