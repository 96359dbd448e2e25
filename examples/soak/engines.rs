//! The engines, each in a slot that outlives it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use graphsink::{Config, Engine, Stats};

use crate::AnyError;
use crate::ledger::Ledger;

/// The time limit for an engine's start once faults are over.
const START_PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Engines {
    config: Config,
    ledger: Arc<Ledger>,
    slots: Vec<Slot>,
    /// Totals of engines that ended.
    ended: Mutex<Sums>,
}

#[derive(Debug)]
struct Slot {
    engine: RwLock<Engine>,
    /// One restart at a time.
    restarting: tokio::sync::Mutex<()>,
}

/// Sums over all engines so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) submitted: u64,
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    pub(crate) unavailable: u64,
    pub(crate) epochs: u64,
    pub(crate) failed_attempts: u64,
    pub(crate) actor_restarts: u64,
    pub(crate) engines: u64,
}

impl Sums {
    fn add(&mut self, stats: &Stats) {
        self.submitted += stats.units_submitted;
        self.committed += stats.units_committed;
        self.rejected += stats.units_rejected;
        self.unavailable += stats.units_unavailable;
        self.epochs += stats.epochs;
        self.failed_attempts += stats.failed_attempts;
        self.actor_restarts += stats.actor_restarts;
        self.engines += 1;
    }
}

impl Engines {
    pub(crate) async fn start(config: Config, count: usize, ledger: Arc<Ledger>) -> Result<Self, AnyError> {
        let mut slots = Vec::new();
        for _ in 0..count {
            let engine = start(&config).await.ok_or("no engine starts")?;
            slots.push(Slot { engine: RwLock::new(engine), restarting: tokio::sync::Mutex::new(()) });
        }
        Ok(Self { config, ledger, slots, ended: Mutex::default() })
    }

    /// The present engine of a slot.
    pub(crate) fn pick(&self, slot: usize) -> Engine {
        let slot = &self.slots[slot % self.slots.len()];
        slot.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn all(&self) -> Vec<Engine> {
        (0..self.slots.len()).map(|slot| self.pick(slot)).collect()
    }

    /// Ends an engine as a process does that is told to end soon, and starts another in its place.
    pub(crate) async fn restart(&self, slot: usize, deadline: Duration) {
        let slot = &self.slots[slot % self.slots.len()];
        let _turn = slot.restarting.lock().await;
        let ending = slot.engine.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.end(&ending, deadline).await;
        match start(&self.config).await {
            Some(engine) => *slot.engine.write().unwrap_or_else(PoisonError::into_inner) = engine,
            None => self.ledger.violation(format!("an engine did not start within {START_PATIENCE:?}")),
        }
    }

    /// Ends all engines, with long deadlines.
    pub(crate) async fn end_all(&self) {
        for engine in self.all() {
            self.end(&engine, Duration::from_secs(20)).await;
        }
    }

    async fn end(&self, engine: &Engine, deadline: Duration) {
        let Ok(report) = tokio::time::timeout(deadline + Duration::from_secs(30), engine.shutdown(deadline)).await
        else {
            self.ledger.violation(format!("an engine did not end within its {deadline:?} and half a minute more"));
            return;
        };
        let stats = report.stats;
        self.ledger.check(is_settled(&stats), || format!("after its end an engine has units in flight: {stats:?}"));
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).add(&stats);
    }

    /// Sums over all engines, including those that still run.
    pub(crate) fn sums(&self, live: bool) -> Sums {
        let mut sums = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if live {
            self.all().iter().for_each(|engine| sums.add(&engine.stats()));
        }
        sums
    }
}

/// A new engine, as soon as the database allows a start.
async fn start(config: &Config) -> Option<Engine> {
    let start = async {
        loop {
            match Engine::start(config.clone()).await {
                Ok(engine) => return engine,
                Err(error) => tracing::info!(?error, "an engine cannot start yet"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(START_PATIENCE, start).await.ok()
}

/// Whether every unit has one outcome and no room is taken.
pub(crate) fn is_settled(stats: &Stats) -> bool {
    let outcomes = stats.units_committed + stats.units_rejected + stats.units_unavailable;
    (stats.rows_in_flight, stats.bytes_in_flight) == (0, 0) && outcomes == stats.units_submitted
}
