//! Settings of an engine: the only place with default numbers.

mod as_of;
mod builder;
#[cfg(feature = "config-file")]
mod file;
mod limits;
mod settings;

pub use as_of::AsOf;
pub(crate) use as_of::is_possible_as_of;
pub use builder::ConfigBuilder;
pub use settings::Config;
