//! Settings of an engine. All default values are defined here.
//!
//! `table` has every setting, and makes the builder and the settings of it; `value` their types, `limits` what their
//! checks and defaults need.

mod as_of;
mod builder;
#[cfg(feature = "config-file")]
mod file;
mod limits;
mod settings;
mod table;
mod value;

pub use as_of::AsOf;
pub(crate) use as_of::is_possible_as_of;
#[cfg(feature = "loader")]
pub(crate) use limits::UNIT_ROWS_DEFAULT;
pub(crate) use table::tuning_table;
pub use table::{Config, ConfigBuilder};
