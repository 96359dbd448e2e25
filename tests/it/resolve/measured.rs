//! The resolver's metrics, as a recorder receives them.

use std::collections::BTreeMap;

use graphsink::resolve::ResolverSettings;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::{add, place, setup};

/// Counters by name and label.
fn counters(recorder: &DebuggingRecorder) -> BTreeMap<String, u64> {
    let metrics = recorder.snapshotter().snapshot().into_vec().into_iter();
    metrics
        .filter_map(|(key, _, _, value)| {
            let key = key.key();
            let labels: Vec<&str> = key.labels().map(metrics::Label::value).collect();
            match value {
                DebugValue::Counter(count) => Some((format!("{} {}", key.name(), labels.join(" ")), count)),
                DebugValue::Histogram(times) => Some((key.name().to_owned(), times.len() as u64)),
                DebugValue::Gauge(_) => None,
            }
        })
        .collect()
}

/// Not on a runtime with several threads: the recorder is local to this thread.
#[test]
fn names_are_counted_by_tier_decision_and_whether_they_were_remembered() {
    let recorder = DebuggingRecorder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counted = metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let setup = setup(ResolverSettings::default()).await;
            add(&setup.engine, "franklin barbecue", &["Franklin's"], None).await;
            let names = ["franklin barbecue", "Franklin's", "franklin barbeque", "blue door", "blue doer"].map(place);
            setup.resolver.resolve(&names).await.unwrap();
            let first = counters(&recorder);
            setup.resolver.resolve(&names[..2]).await.unwrap();
            setup.resolver.find(&names[3..]).await.unwrap();
            (first, counters(&recorder))
        })
    });
    let check = |counted: &BTreeMap<String, u64>, expected: &[(&str, u64)]| {
        for (metric, count) in expected {
            let name = format!("graphsink_resolver_{metric}");
            assert_eq!(counted.get(&name).copied().unwrap_or(0), *count, "{name} in {counted:?}");
        }
    };
    check(
        &counted.0,
        &[
            ("names_total exact", 1),
            ("names_total alias", 1),
            ("names_total fuzzy", 1),
            ("names_total none", 2),
            ("decisions_total existing", 3),
            ("decisions_total new", 2),
            ("decisions_total ambiguous", 0),
            ("cache_total hit", 0),
            ("cache_total miss", 5),
            ("lookup_seconds", 1),
        ],
    );
    // Counts since the first snapshot.
    check(
        &counted.1,
        &[
            ("names_total exact", 1),
            ("names_total alias", 1),
            ("names_total none", 2),
            ("decisions_total existing", 2),
            ("cache_total hit", 4),
            ("cache_total miss", 0),
            ("lookup_seconds", 0),
        ],
    );
}
