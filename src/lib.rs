//! graphsink
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
pub mod record;
pub mod unit;
pub use record::*;
pub use unit::*;
