//! What people see of an engine is what it does: metrics, dashboard, alert rules and probes, against a real run with
//! faults.
//!
//! A program of its own, because a recorder is the same for the whole process. So tests that start an engine beside the
//! run that is scraped wait for its end: `run::after_the_run`.

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
