//! The engine's handle and its thread.
//!
//! An engine runs on a thread of its own: an actix `System` for the actors, and a small runtime for the connections. So
//! it works with every kind of runtime, and its interface has no actix type.

mod admission;
mod handle;
mod health;
mod maintenance;
mod merge;
mod receipt;
mod shutdown;
mod thread;

pub use handle::Engine;
pub use health::{ActorHealth, Backlog, DatabaseHealth, EngineStatus, Health};
pub use maintenance::ResubmitReport;
pub use receipt::Receipt;
pub use shutdown::ShutdownReport;
