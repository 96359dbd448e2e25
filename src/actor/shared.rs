//! State that outlives every actor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::pulse::Pulse;
use crate::commits::CommitListeners;
use crate::flight::InFlight;
use crate::label::ActorKind;
use crate::stats::Counters;
use crate::store::{Destination, Store};

/// More deaths than this within [`DEATHS_WINDOW`] are not accidents: the engine stops instead of restarting actors for
/// ever.
const DEATHS_MAX: usize = 20;
/// See [`DEATHS_MAX`].
const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// State that outlives every actor and is shared by all.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) store: Store,
    /// Where epochs are written.
    pub(crate) destination: Destination,
    /// Listeners for commits.
    pub(crate) listeners: CommitListeners,
    /// Held by a merge of entities, so that merges take turns; true when no more are accepted.
    pub(crate) merging: Arc<tokio::sync::Mutex<bool>>,
    /// Drives the connections.
    pub(crate) runtime: tokio::runtime::Handle,
    /// One permit each: the turn to commit in a lane.
    pub(crate) lanes: Vec<Arc<Semaphore>>,
    pub(crate) max_batch_rows: usize,
    pub(crate) outcome_deadline: Duration,
    /// Signs of life of each actor.
    pub(crate) pulse: Arc<Pulse>,
    /// Recent deaths of actors, including the supervisor.
    pub(crate) deaths: std::sync::Mutex<VecDeque<Instant>>,
}

impl Shared {
    /// Notes the death of an actor; returns false if there were too many.
    pub(crate) fn note_death(&self, actor: ActorKind) -> bool {
        tracing::error!(actor = actor.as_str(), "an actor died and is started again");
        self.counters.actor_restarted(actor);
        let mut deaths = self.deaths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        deaths.push_back(Instant::now());
        while deaths.front().is_some_and(|death| death.elapsed() > DEATHS_WINDOW) {
            deaths.pop_front();
        }
        deaths.len() <= DEATHS_MAX
    }
}
