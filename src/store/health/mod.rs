//! Whether the database can be used, and whose fault an error is when its code alone does not tell.
//!
//! [`circuit`] blocks transactions while the database as a whole cannot be used; [`refusals`] notices that one unit
//! after another is refused for one reason; [`shape`] compares the tables with what the engine relies on, at the start
//! and after an error that an altered table may explain; [`mod@check`] examines a database before the first
//! transaction.

mod check;
mod circuit;
mod refusals;
mod shape;

pub(super) use check::{check, check_generation, check_shape};
pub(super) use circuit::{Circuit, Permit};
pub(super) use refusals::Refusals;
pub(super) use shape::{Copying, LateKeyChecks, TableShape};
