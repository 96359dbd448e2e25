//! What several programs of the tests have in common, and the soak. It uses the public interface of graphsink and nothing
//! else of it.
//!
//! - `model` is the reference: a naive computation of the whole graph, written from the contract; `canonical` is the
//!   model of merges.
//! - `database` reads the whole logical database and compares it with the model; it also holds the statement that
//!   compares every metric with a `GROUP BY`. `catalog` reads all that the server knows of a schema's tables.
//! - `generate` draws records that collide as often as they can.
//! - `spec` draws units that should not be sent, `rules` states the rules on them a second time.
//! - `proxy` stands between engine and server and fails at a chosen message.
//! - `support` is the server, a fresh database for each test, and waiting with patience.

#![allow(missing_docs, missing_debug_implementations, reason = "parts of programs, and no interface")]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

pub mod canonical;
pub mod catalog;
pub mod database;
pub mod generate;
pub mod model;
pub mod proxy;
pub mod rules;
pub mod spec;
pub mod support;
