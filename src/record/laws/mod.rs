//! Laws of the merge rules and of the metrics, without a database: random values against the definitions and against
//! the naive model of `tests/it/model.rs`.
//!
//! They are unit tests because the types concerned are not public.

mod merges;
mod metrics;

use graphsink_testing::model::{MentionSpec, Time};
use proptest::prelude::ProptestConfig;

use super::{Mention, SourceType};

fn as_of() -> Time {
    "2024-03-12T12:00:00Z".parse().unwrap()
}

/// The kind of source that the model means.
fn source_type(of: graphsink::SourceType) -> SourceType {
    of.as_str().parse().unwrap()
}

/// The mention that a specification of the model describes. Without `..`: a new field is not forgotten here.
fn mention(spec: &MentionSpec) -> Mention {
    let graphsink::Mention {
        source_type: of,
        source_id,
        thread_id,
        source_url,
        subreddit,
        content_excerpt,
        author,
        upvotes,
        created_at,
        observed_at,
    } = spec.mention();
    Mention {
        source_type: source_type(of),
        source_id,
        thread_id,
        source_url,
        subreddit,
        content_excerpt,
        author,
        upvotes,
        created_at,
        observed_at,
    }
}

/// Cases are cheap here, so there are many. `GRAPHSINK_TEST_CASES` sets their number.
fn config() -> ProptestConfig {
    let cases = std::env::var("GRAPHSINK_TEST_CASES").map_or(512, |cases| cases.parse().expect("a number"));
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}
