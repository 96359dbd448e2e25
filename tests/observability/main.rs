//! Metrics, dashboard, alert rules and probes show what an engine does: checked against a real run with faults.
//!
//! A program of its own, because a recorder is global to a process. Tests with another engine therefore wait for the
//! end of the scraped run: `run::after_the_run`.

// Tests tell one story from beginning to end, however long.
#![allow(clippy::too_many_lines)]

mod names;
mod queries;
mod report;
mod run;
mod scrape;
mod top;

use graphsink_examples::ingest::{number, recording, report as load_report};
use graphsink_examples::observability::endpoint;
use graphsink_examples::top::{format, history, source, svg, view};
use graphsink_testing::{proxy, support};
