//! graphsink
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
mod actor;
mod batch;
mod config;
mod engine;
mod error;
mod outcome;
mod record;
#[cfg(all(feature = "embedded-server", unix))]
pub mod server;
mod store;
mod telemetry;
mod unit;
pub use config::*;
pub use engine::{ActorKind, Engine, Receipt, ShutdownReport, Stats, TableStats};
pub use error::*;
pub use outcome::*;
pub use record::*;
pub use store::{MigrationReport, Migrations, RefreshReport, StoreError};
pub use unit::*;
