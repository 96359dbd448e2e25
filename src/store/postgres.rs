//! A database as the engine's other layers see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::attempt::Runner;
use super::commit::{EpochObserver, EpochStore};
use super::dead_letter::{DeadLetter, DeadLetters};
use super::fence::Fence;
use super::fold;
use super::health::{Circuit, TableShape, check, check_generation, check_shape};
use super::refresh::{RefreshReport, Refresher};
use super::session::{Sessions, answer};
use crate::batch::Epoch;
use crate::config::{AsOf, Config};
use crate::error::{StartError, StoreError};
use crate::merge::{EntityMerge, MergeOutcome};
use crate::record::Timestamp;
use crate::stats::{Counters, PoolStats};

/// Everything that reads and writes the database for the engine. It has no logic of its own: it makes the parts, each
/// of which gets the others that it needs, and hands calls on to them.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    sessions: Arc<Sessions>,
    circuit: Arc<Circuit>,
    shape: Arc<TableShape>,
    fence: Fence,
    runner: Arc<Runner>,
    epochs: Arc<EpochStore>,
    dead_letters: DeadLetters,
    refresher: Arc<Refresher>,
    counters: Arc<Counters>,
    as_of: AsOf,
}

impl Store {
    /// Connects lazily; must be called on the runtime that will drive the connections.
    pub(crate) async fn new(config: &Config, counters: &Arc<Counters>) -> Result<Self, StoreError> {
        let sessions = Arc::new(Sessions::new(config, counters).await?);
        let circuit = Arc::new(Circuit::new(Arc::clone(counters)));
        let shape = Arc::new(TableShape::new(&config.schema, &sessions));
        let fence = Fence::new(&sessions, &circuit);
        let runner = Arc::new(Runner::new(&sessions, &circuit, &shape, config.slow_transaction));
        let dead_letters = DeadLetters::new(&sessions, &circuit);
        let epochs = Arc::new(EpochStore::new(config, &runner, &sessions, &shape, &dead_letters));
        let refresher = Arc::new(Refresher::new(&sessions, &shape));
        let (counters, as_of) = (Arc::clone(counters), config.as_of);
        Ok(Self { sessions, circuit, shape, fence, runner, epochs, dead_letters, refresher, counters, as_of })
    }

    /// Checks version, encoding and the shape of the tables; warns if the server may lose data that it acknowledged.
    pub(crate) async fn check(&self, config: &Config) -> Result<(), StartError> {
        let (session, patience) = (self.sessions.get().await?, self.sessions.patience());
        answer(patience.silence(), check(session.client(), config)).await??;
        let copying = answer(patience.silence(), check_shape(session.client(), &config.schema)).await??;
        if let Some(copying) = copying {
            self.shape.copies(copying);
        }
        if self.epochs.remembers_names() {
            check_generation(&session, patience).await?;
        }
        Ok(())
    }

    /// Opens sessions for so many transactions at once; see [`Sessions::open`].
    pub(crate) async fn open_sessions(&self, count: usize) {
        self.sessions.open(count).await;
    }

    /// Commits an epoch, without its bad units, and reports the outcome of each unit to `observer`.
    pub(super) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        self.epochs.commit(epoch, deadline, observer).await;
    }

    /// Carries out merges: see [`fold::merge`].
    pub(crate) async fn merge(
        &self,
        merges: &[EntityMerge],
        time: Duration,
        changed: &(dyn Fn() + Sync),
    ) -> Vec<MergeOutcome> {
        fold::merge(&self.runner, &self.counters, self.as_of, merges, time, changed).await
    }

    /// Updates what depends on time in all connections.
    pub(crate) async fn refresh(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        self.refresher.refresh(as_of).await
    }

    /// The next page of dead letters, oldest first, after a time and an id, up to a time.
    pub(crate) async fn dead_letters(
        &self,
        after: Option<(Timestamp, Uuid)>,
        until: Timestamp,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.dead_letters.page(after, until).await
    }

    /// The database's clock, by which dead letters are dated.
    pub(crate) async fn server_time(&self) -> Result<Timestamp, StoreError> {
        self.dead_letters.server_time().await
    }

    /// Deletes dead letters whose units were committed.
    pub(crate) async fn delete_dead_letters(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        self.dead_letters.delete(ids).await
    }

    /// Deletes attempts for which no process can still ask.
    pub(crate) async fn forget_old_attempts(&self) -> Result<(), StoreError> {
        self.fence.forget_old_attempts().await
    }

    /// Deletes them periodically, as long as the engine lives.
    pub(crate) async fn keep_forgetting_attempts(self) {
        self.fence.keep_forgetting_attempts().await;
    }

    /// Samples how long transactions wait for locks, as long as the engine lives.
    pub(crate) async fn keep_sampling_locks(self) {
        self.sessions.keep_sampling_locks().await;
    }

    /// The current state of the pool.
    pub(crate) fn pool_stats(&self) -> PoolStats {
        self.sessions.stats()
    }

    /// Since when and why the database cannot be used, if the circuit breaker is open.
    pub(crate) fn outage(&self) -> Option<(Instant, Arc<StoreError>)> {
        self.circuit.open_since()
    }
}
