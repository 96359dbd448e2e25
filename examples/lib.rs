//! What several examples share, and what is tested of one: `tests/observability` and `tests/traces.rs` compare what these
//! parts show with what an engine did. Each file lies with the example that it was written for.

#![allow(missing_docs, missing_debug_implementations, reason = "parts of programs, and no interface")]
#![allow(clippy::missing_panics_doc, reason = "parts of programs, and no interface")]

/// What `ingest` shows of a load.
pub mod ingest {
    pub mod number;
    pub mod recording;
    pub mod report;
}

/// What a program offers to Prometheus and to probes.
pub mod observability {
    pub mod endpoint;
}

/// What `top` shows of an engine.
pub mod top {
    pub mod format;
    pub mod history;
    pub mod source;
    pub mod svg;
    pub mod view;
}

/// From spans to the statement that was waited for.
pub mod traces {
    pub mod recorder;
    pub mod slowest;
}
