//! The bulk writes of sqlx, sea-orm and diesel as their documentation recommends them. Built with the feature
//! `bench-orms` only.
//!
//! All of them write the batches of [`crate::batch`], over one connection with the bench's settings, one transaction
//! for each batch; they differ in the statements that they make of rows.

mod with_diesel;
mod with_sea_orm;
mod with_sqlx;

pub(crate) use with_diesel::DieselAsync;
pub(crate) use with_sea_orm::SeaOrm;
pub(crate) use with_sqlx::SqlxUnnest;
