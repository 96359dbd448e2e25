//! What users of sqlx, sea-orm and diesel write, each the way its documentation does bulk. Built
//! with the feature `orms` only.
//!
//! All of them write what [`crate::batch`] made of a batch, over one connection with the bench's
//! settings, one transaction a batch; they differ in how rows become statements.

mod with_diesel;
mod with_sea_orm;
mod with_sqlx;

pub(crate) use with_diesel::DieselAsync;
pub(crate) use with_sea_orm::SeaOrm;
pub(crate) use with_sqlx::SqlxUnnest;
