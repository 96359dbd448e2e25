//! Laws of the merge rules and of the metrics, without a database: random values against the definitions and against
//! the naive model of `tests/it/model.rs`.
//!
//! They are unit tests because the types concerned are not public.

mod merges;
mod metrics;

#[allow(dead_code)]
#[path = "../../../tests/it/generate.rs"]
mod generate;
#[allow(dead_code)]
#[path = "../../../tests/it/model.rs"]
mod model;

use proptest::prelude::ProptestConfig;

use self::model::Time;

fn as_of() -> Time {
    "2024-03-12T12:00:00Z".parse().unwrap()
}

/// Cases are cheap here, so there are many. `GRAPHSINK_TEST_CASES` sets their number.
fn config() -> ProptestConfig {
    let cases = std::env::var("GRAPHSINK_TEST_CASES").map_or(512, |cases| cases.parse().expect("a number"));
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}
