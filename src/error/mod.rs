//! Errors: of settings, of the handle, of the database, and what follows from the latter.
//!
//! The fate of an accepted unit is an [`Outcome`](crate::Outcome), not an error. Every layer may raise or tell these,
//! so they know nothing of any but plain units.

mod bulk_store;
mod class;
mod config;
mod driver;
mod engine;
mod own;
mod store;
mod unfit;

pub use bulk_store::{BulkObstacle, BulkStoreError};
pub(crate) use class::ErrorClass;
pub use config::ConfigError;
pub use driver::DriverError;
pub use engine::{StartError, SubmitError};
#[cfg(test)]
pub(crate) use own::OWN_COLUMNS;
pub(crate) use own::is_own_constraint;
pub use store::StoreError;
#[cfg(test)]
pub(crate) use store::tests::said;
pub use unfit::UnfitTable;
