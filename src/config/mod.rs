//! Settings of an engine. All default values are defined here.

mod as_of;
mod builder;
#[cfg(feature = "config-file")]
mod file;
mod limits;
mod settings;

pub use as_of::AsOf;
pub(crate) use as_of::is_possible_as_of;
pub use builder::ConfigBuilder;
#[cfg(feature = "loader")]
pub(crate) use limits::UNIT_ROWS_DEFAULT;
pub use settings::Config;
