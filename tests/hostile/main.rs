//! Input that callers should not send: units and lines of hostile content against the rules of the contract, without a
//! database. `tests/it/hostile.rs` sends the units to a server.
//!
//! - `spec` draws units, `rules` states the rules on them a second time.
//! - `units`: accepted units obey every rule, refused ones break the rule that is named.
//! - `lines`: any bytes as input of the loader, and valid lines with a fault in them.
//! - `compressed`: input that breaks off or is damaged ends with an error.
//!
//! `GRAPHSINK_TEST_SEED` and `GRAPHSINK_TEST_CASES` work as in `tests/it`.

// Tests tell one story from beginning to end, however long.
#![allow(clippy::too_many_lines)]

mod compressed;
mod lines;
mod units;

use graphsink_testing::{generate, rules, spec};
