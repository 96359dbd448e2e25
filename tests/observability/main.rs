//! Metrics, dashboard, alert rules and probes show what an engine does: checked against a real run with faults.
//!
//! A program of its own, because a recorder is global to a process. Tests with another engine therefore wait for the
//! end of the scraped run: `run::after_the_run`.

// Tests tell one story from beginning to end, however long.
#![allow(clippy::too_many_lines)]

#[path = "../../examples/observability/endpoint.rs"]
mod endpoint;
#[path = "../../examples/top/format.rs"]
mod format;
#[allow(dead_code)]
#[path = "../it/generate.rs"]
mod generate;
#[path = "../../examples/top/history.rs"]
mod history;
#[path = "../../examples/ingest/report.rs"]
mod load_report;
#[allow(dead_code)]
#[path = "../it/model.rs"]
mod model;
mod names;
#[path = "../../examples/ingest/number.rs"]
mod number;
#[allow(dead_code)]
#[path = "../it/proxy/mod.rs"]
mod proxy;
mod queries;
#[path = "../../examples/ingest/recording.rs"]
mod recording;
mod report;
mod run;
mod scrape;
#[path = "../../examples/top/source.rs"]
mod source;
#[allow(dead_code, unused_imports)]
#[path = "../it/support.rs"]
mod support;
#[path = "../../examples/top/svg.rs"]
mod svg;
mod top;
#[path = "../../examples/top/view.rs"]
mod view;
