//! What several benches share: one workload, one server with fresh tables for each measurement, and what is taken down
//! beside the clock.
//!
//! - `workload` makes the units that all write; `rows` and `metrics` are its rows and figures, computed by hand.
//! - `database` is the server and the tables, and checks what was left in them.
//! - `contestant` is what takes part in the bench `throughput`; `per_unit` is the one that `latency` is compared with.
//! - `cpu` and `machine`: the time of threads, and what was measured on.

#![allow(missing_docs, missing_debug_implementations, reason = "parts of programs, and no interface")]
#![allow(clippy::missing_panics_doc, reason = "a panic ends a bench")]

pub mod contestant;
pub mod cpu;
pub mod database;
pub mod latency;
pub mod machine;
pub mod metrics;
pub mod per_unit;
pub mod rows;
pub mod workload;
