//! The engine's own account of where its time goes: `graphsink_statement_seconds` by statement.

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::contestant::Result;

pub(crate) fn install() -> Result<Snapshotter> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install()?;
    Ok(snapshotter)
}

/// Sums of the histograms of seconds since the last call, one line each.
pub(crate) fn since_last(snapshotter: &Snapshotter) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let DebugValue::Histogram(values) = value else { continue };
        let label = key.labels().next().map_or("", |label| label.value());
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        if values.is_empty() {
            continue;
        }
        let sum: f64 = values.iter().sum();
        let largest = values.iter().copied().fold(0.0, f64::max);
        lines.push(format!("{} {label}: {} times, sum {sum:.3}, largest {largest:.3}", key.name(), values.len()));
    }
    lines.sort();
    lines
}
