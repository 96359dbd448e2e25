//! Units on their way to the supervisor: one message announces all that came since the last.

use std::sync::{Arc, Mutex, PoisonError};

use crate::flight::Submission;

/// Accepted units that no supervisor has taken yet.
///
/// A supervisor's death loses none of them: they are in the registry, and the next supervisor routes units without an
/// epoch.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Vec<Arc<Submission>>>);

impl Arrivals {
    /// Adds a unit; returns true if the supervisor must be notified, which already happened if other units are waiting.
    pub(crate) fn push(&self, submission: Arc<Submission>) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(submission);
        waiting.len() == 1
    }

    /// Takes all units, in the order of their arrival.
    pub(super) fn take(&self) -> Vec<Arc<Submission>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
