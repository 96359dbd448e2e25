//! The engine's handle.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix::Addr;
use futures::channel::oneshot;
use tokio::sync::TryAcquireError;

use super::admission::Admission;
use super::health::Health;
use super::receipt::Receipt;
use super::thread::{self, Stop, SupervisorAddress};
use crate::actor::{Arrived, Flush, Panic, Shared, Supervisor};
use crate::config::Config;
use crate::error::{StartError, StoreError, SubmitError};
use crate::flight::{Accepted, Room};
use crate::label::ActorKind;
use crate::stats::Stats;
use crate::store::Store;
use crate::telemetry;
use crate::unit::UnitOfWork;

/// Writes units of work into PostgreSQL. Cheap to clone, usable from any thread and any runtime.
///
/// ```no_run
/// use graphsink::{Config, Engine, Migrations, Outcome, UnitOfWork};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::builder("postgresql://localhost/evidence").build()?;
/// Migrations::all().run(&config).await?;
/// let engine = Engine::start(config).await?;
///
/// let mut unit = UnitOfWork::new();
/// let franklin = unit.restaurant("franklin bbq").handle();
/// match engine.submit(unit).await?.await {
///     Outcome::Committed(unit) => println!("{:?}", unit.entity(franklin)),
///     Outcome::Rejected(why) => println!("refused: {why}"),
///     Outcome::Unavailable(why) => println!("submit it again: {why}"),
/// }
/// engine.shutdown(std::time::Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
///
/// When the last clone is dropped without a [`shutdown`](Self::shutdown), the engine commits what
/// it accepted and ends in the background, as far as the process lives that long.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) admission: Admission,
    pub(super) shared: Arc<Shared>,
    pub(super) supervisor: SupervisorAddress,
    pub(super) stop: Mutex<Option<oneshot::Sender<Stop>>>,
    /// Resolves when the engine's thread has ended.
    pub(super) done: futures::future::Shared<futures::future::BoxFuture<'static, ()>>,
}

impl Engine {
    /// Connects, checks that the database is fit for use, opens a session for each concurrent commit, and starts the actors.
    ///
    /// # Errors
    /// Fails when the database cannot be reached within the connect timeout, its encoding is not UTF-8, or its tables
    /// are missing.
    ///
    /// ```no_run
    /// use graphsink::{Config, Engine};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::builder("postgresql://app@localhost/evidence").build()?;
    /// let engine = Engine::start(config).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_for(config, thread::Target::Database).await
    }

    /// Starts an engine that writes nowhere. Units are checked, coalesced, planned and encoded as for empty tables (if
    /// [`known_names_max`](crate::ConfigBuilder::known_names_max) is not 0, as for tables with the remembered names),
    /// and then reported as committed. Use it to measure or test the code that feeds an engine, without a server.
    ///
    /// No connection is opened for units. Operations that query the database for other reasons (health, merges, a
    /// refresh) work as always.
    ///
    /// # Errors
    /// Fails when the thread or the runtime cannot be started.
    ///
    /// ```
    /// use graphsink::{Config, Engine, UnitOfWork};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::start_blackhole(Config::builder("postgresql://localhost/nowhere").build()?).await?;
    /// let mut unit = UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// assert!(engine.submit(unit).await?.await.committed().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start_blackhole(config: Config) -> Result<Self, StartError> {
        Self::start_for(config, thread::Target::Blackhole).await
    }

    async fn start_for(config: Config, target: thread::Target) -> Result<Self, StartError> {
        telemetry::describe(telemetry::engine::METRICS);
        telemetry::engine::rows_in_flight_max().set(config.max_rows_in_flight as f64);
        telemetry::engine::bytes_in_flight_max().set(config.max_bytes_in_flight as f64);
        let (started, done) = thread::spawn(config.clone(), target)?;
        let thread::Started { shared, supervisor, stop } = started
            .await
            // The thread ends without an answer only if it panics while it starts.
            .unwrap_or_else(|_| Err(std::io::Error::other("the engine's thread died while it started").into()))?;
        let done = futures::FutureExt::shared(futures::FutureExt::boxed(async move {
            // An error means that the thread has ended, which is the awaited event.
            let _ = done.await;
        }));
        let admission = Admission::new(&config);
        let stop = Mutex::new(Some(stop));
        Ok(Self { inner: Arc::new(Inner { config, admission, shared, supervisor, stop, done }) })
    }

    /// Checks a unit and submits it; waits while the limit of rows or bytes in flight is reached.
    ///
    /// When this returns a receipt, the unit was accepted: it will get exactly one outcome, whether or not its receipt
    /// is awaited. Dropping the future earlier withdraws the whole unit.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if the unit breaks a rule; [`SubmitError::Closed`] (with the unit) after
    /// [`drain`](Self::drain) or [`shutdown`](Self::shutdown).
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut unit = graphsink::UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// let receipt = engine.submit(unit).await?;
    /// println!("{:?}", receipt.await.into_result()?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit(&self, unit: UnitOfWork) -> Result<Receipt, SubmitError> {
        self.validate(&unit)?;
        let start = Instant::now();
        let Some(room) = self.inner.admission.acquire(unit.rows(), unit.bytes()).await else {
            return Err(SubmitError::Closed(Box::new(unit)));
        };
        self.inner.shared.counters.admitted(start.elapsed());
        self.accept(unit, room)
    }

    /// Like [`submit`](Self::submit), but does not wait.
    ///
    /// # Errors
    /// Also [`SubmitError::Full`], with the unit, when the engine is full.
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut unit = graphsink::UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// match engine.try_submit(unit) {
    ///     Ok(receipt) => drop(receipt.await),
    ///     Err(error) => println!("not now, or never: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_submit(&self, unit: UnitOfWork) -> Result<Receipt, SubmitError> {
        self.validate(&unit)?;
        match self.inner.admission.try_acquire(unit.rows(), unit.bytes()) {
            Ok(room) => self.accept(unit, room),
            Err(TryAcquireError::NoPermits) => Err(SubmitError::Full(Box::new(unit))),
            Err(TryAcquireError::Closed) => Err(SubmitError::Closed(Box::new(unit))),
        }
    }

    fn validate(&self, unit: &UnitOfWork) -> Result<(), SubmitError> {
        unit.validate(self.inner.config.max_unit_rows).map_err(|invalid| {
            telemetry::engine::units_invalid(invalid.rule()).increment(1);
            SubmitError::Invalid(invalid)
        })
    }

    fn accept(&self, unit: UnitOfWork, room: Room) -> Result<Receipt, SubmitError> {
        let accepted = self.inner.shared.in_flight.accept(unit, room);
        let Accepted { submission, outcome, must_tell } =
            accepted.map_err(|unit| SubmitError::Closed(Box::new(unit)))?;
        let receipt = Receipt::new(submission.number, outcome);
        if must_tell {
            // If the supervisor just died, the message is lost, but not the units: its successor takes them.
            self.inner.supervisor().do_send(Arrived);
        }
        Ok(receipt)
    }

    /// Resolves when every unit accepted before this call has its outcome. Open epochs are sealed at once.
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// engine.flush().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) {
        let settled = self.inner.shared.in_flight.settled_so_far();
        self.inner.supervisor().do_send(Flush);
        // An error means that the engine has ended, and every unit with it.
        let _ = settled.await;
    }

    /// Runs a future on the runtime of the connections: the caller's runtime may be of any kind.
    pub(super) async fn with_store<T, F>(&self, work: impl FnOnce(Store) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        match self.inner.shared.runtime.spawn(work(self.inner.shared.store.clone())).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::ShutDown),
        }
    }

    /// Totals since the start, how latencies and sizes are spread, and what is under way now. Takes a few microseconds
    /// and never waits, so it may be called often.
    ///
    /// ```no_run
    /// # fn show(engine: &graphsink::Engine) {
    /// let stats = engine.stats();
    /// println!("{} rows in flight, half acknowledged within {:?}", stats.rows_in_flight, stats.acknowledgement.quantile(0.5));
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.shared.counters.snapshot();
        stats.pool = self.inner.shared.store.pool_stats();
        stats
    }

    /// Whether the engine is alive and ready for units, for an orchestrator's probes. Takes a few microseconds and
    /// never waits.
    ///
    /// ```no_run
    /// # fn answer(engine: &graphsink::Engine) -> u16 {
    /// let health = engine.health();
    /// if health.ready { 200 } else { 503 }
    /// # }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.inner.shared, &self.inner.config)
    }

    /// Registers a listener for commits.
    #[cfg(feature = "resolver")]
    pub(crate) fn listen(&self, listener: std::sync::Weak<dyn crate::commits::CommitListener>) {
        self.inner.shared.listeners.add(listener);
    }

    /// The runtime that drives the connections.
    #[cfg(feature = "resolver")]
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.shared.runtime
    }

    /// The settings.
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("writes to the schema {}", engine.config().schema());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Makes an actor panic, to test that nothing is lost.
    #[doc(hidden)]
    pub fn kill_actor(&self, actor: ActorKind) {
        self.inner.supervisor().do_send(Panic(actor));
    }
}

impl Inner {
    fn supervisor(&self) -> Addr<Supervisor> {
        self.supervisor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn close(&self) {
        self.shared.in_flight.close();
        self.admission.close();
    }

    pub(super) fn stop(&self, how: Stop) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            // An error means that the thread has already ended.
            let _ = stop.send(how);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        self.stop(Stop::WhenDrained);
    }
}
