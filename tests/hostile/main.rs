//! What should not be sent: units and lines of hostile content against the rules of the contract,
//! without a database. `tests/it/hostile.rs` sends the units to a server.
//!
//! - `spec` and `rules` of `tests/shared` draw units, and state the rules on them a second time.
//! - `units`: what is accepted obeys every rule, what is refused breaks the one that is named.
//! - `lines`: any bytes as input of the loader, and valid lines with something wrong in them.
//! - `compressed`: input that breaks off or is damaged ends with an error.
//!
//! `GRAPHSINK_TEST_SEED` and `GRAPHSINK_TEST_CASES` work as in `tests/it`.

mod compressed;
mod lines;
mod units;

use graphsink_testing::{generate, rules, spec};
