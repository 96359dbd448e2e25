//! The handle: what a caller holds.
//!
//! An engine runs on a thread of its own: an actix `System` for the actors, and a small runtime
//! for the connections. So it works the same from every kind of runtime, and shows no actix type.

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
