//! Units on their way to the supervisor: one message tells of all that came since the last.

use std::sync::{Arc, Mutex, PoisonError};

use crate::flight::Submission;

/// Accepted units that no supervisor took yet.
///
/// Nothing is lost with it: a supervisor that dies leaves its units in the registry, and the next one routes what no epoch
/// has.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Vec<Arc<Submission>>>);

impl Arrivals {
    /// Adds a unit; true if the supervisor must be told, which it was if others are waiting.
    pub(crate) fn push(&self, submission: Arc<Submission>) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(submission);
        waiting.len() == 1
    }

    /// Takes all, in the order of their arrival.
    pub(super) fn take(&self) -> Vec<Arc<Submission>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
