//! The driver's error behind a type of the crate's own.

use std::fmt;
use std::sync::Arc;

/// The driver's own error. It is opaque, so that another version of the driver breaks no program. Questions about it
/// are methods of [`StoreError`](crate::StoreError).
///
/// ```
/// use graphsink::{DriverError, StoreError};
///
/// fn said(error: &StoreError) -> Option<&DriverError> {
///     match error {
///         StoreError::Postgres(said) | StoreError::Connect(said) | StoreError::Begin(said) => Some(said),
///         _ => None,
///     }
/// }
/// assert!(said(&StoreError::ShutDown).is_none());
/// ```
#[derive(Clone)]
pub struct DriverError(Arc<tokio_postgres::Error>);

impl DriverError {
    pub(crate) fn new(error: tokio_postgres::Error) -> Self {
        Self(Arc::new(error))
    }

    pub(crate) fn get(&self) -> &tokio_postgres::Error {
        &self.0
    }
}

/// Without what the server said, which may quote a row.
impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverError").field(&self.0.code().map(tokio_postgres::error::SqlState::code)).finish()
    }
}
