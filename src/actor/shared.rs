//! What outlives every actor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::arrivals::Arrivals;
use super::pulse::Pulse;
use crate::commits::CommitListeners;
use crate::flight::InFlight;
use crate::label::ActorKind;
use crate::recent_writes::RecentWrites;
use crate::stats::Counters;
use crate::store::{Destination, Store};

/// More deaths than this within [`DEATHS_WINDOW`] are no accidents: the engine stops, instead of
/// dying and rising for ever.
const DEATHS_MAX: usize = 20;
/// See [`DEATHS_MAX`].
const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// What outlives every actor, and all of them share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) store: Store,
    /// Where epochs are written.
    pub(crate) destination: Destination,
    /// Who hears of commits.
    pub(crate) listeners: CommitListeners,
    /// Accepted units on their way to the supervisor.
    pub(crate) arrivals: Arrivals,
    /// What committed units said of entities lately: no transaction is likely to write that.
    pub(crate) recent_writes: Arc<RecentWrites>,
    /// Merges of entities take turns; true when there are to be no more.
    pub(crate) merging: Arc<tokio::sync::Mutex<bool>>,
    /// Drives the connections.
    pub(crate) runtime: tokio::runtime::Handle,
    /// One permit each: the turn to commit in a lane.
    pub(crate) lanes: Vec<Arc<Semaphore>>,
    pub(crate) max_batch_rows: usize,
    pub(crate) outcome_deadline: Duration,
    /// When each actor was last seen.
    pub(crate) pulse: Arc<Pulse>,
    /// Deaths of actors, of the supervisor too, in the last while.
    pub(crate) deaths: std::sync::Mutex<VecDeque<Instant>>,
}

impl Shared {
    /// Notes the death of an actor; false if there were too many.
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
