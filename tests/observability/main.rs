//! What people see of an engine is what it does: metrics, dashboard, alert rules and probes, against a real run with
//! faults.
//!
//! A program of its own, because a recorder is the same for the whole process.

#[path = "../../examples/observability/endpoint.rs"]
mod endpoint;
#[allow(dead_code)]
#[path = "../it/generate.rs"]
mod generate;
#[allow(dead_code)]
#[path = "../it/model.rs"]
mod model;
mod names;
#[allow(dead_code)]
#[path = "../it/proxy/mod.rs"]
mod proxy;
mod queries;
mod run;
mod scrape;
#[allow(dead_code, unused_imports)]
#[path = "../it/support.rs"]
mod support;
