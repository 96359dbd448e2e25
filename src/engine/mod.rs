//! The handle: what a caller holds.
//!
//! An engine runs on a thread of its own: an actix `System` for the actors, and a small runtime
//! for the connections. So it works the same from every kind of runtime, and shows no actix type.

mod admission;
mod health;
mod merge;
mod receipt;
mod thread;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix::Addr;
use futures::channel::oneshot;
use tokio::sync::TryAcquireError;
use uuid::Uuid;

use crate::actor::{Arrived, Flush, Panic, Shared, Supervisor};
use crate::config::Config;
use crate::error::{StartError, SubmitError};
use crate::flight::Room;
use crate::label::ActorKind;
use crate::outcome::{Outcome, UnavailableCause};
use crate::record::{Timestamp, truncate};
use crate::stats::Stats;
use crate::store::{DeadLetter, RefreshReport, Store, StoreError};
use crate::telemetry;
use crate::unit::UnitOfWork;

use admission::Admission;
pub use health::{ActorHealth, Backlog, DatabaseHealth, EngineStatus, Health};
pub use receipt::Receipt;
use thread::Stop;

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
    inner: Arc<Inner>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    admission: Admission,
    shared: Arc<Shared>,
    supervisor: SupervisorAddress,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
    /// Resolves when the engine's thread is done.
    done: futures::future::Shared<futures::future::BoxFuture<'static, ()>>,
}

/// The address of the current supervisor; another one after a death.
type SupervisorAddress = Arc<RwLock<Addr<Supervisor>>>;

/// How an engine ended.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) {
/// let report = engine.shutdown(std::time::Duration::from_secs(20)).await;
/// println!("{} committed, submit {:?} again", report.stats.units_committed, report.abandoned);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The numbers ([`Receipt::number`]) of accepted units that had no outcome at the deadline,
    /// ascending. Each of them was told [`Outcome::Unavailable`](crate::Outcome::Unavailable).
    pub abandoned: Vec<u64>,
    /// The engine's totals.
    pub stats: Stats,
}

/// What became of the dead letters that were submitted again.
///
/// ```no_run
/// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
/// let report = engine.resubmit_dead_letters().await?;
/// println!("{} committed, {} rejected again", report.committed, report.rejected);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ResubmitReport {
    /// Committed, and dead letters no more.
    pub committed: u64,
    /// Rejected once more; the table has the new reason.
    pub rejected: u64,
    /// Left alone: what the table holds breaks a rule, or is no unit.
    pub invalid: u64,
    /// Left for another time: no outcome until the deadline, or the engine closed.
    pub unavailable: u64,
}

impl Engine {
    /// Connects, checks that the database is fit for use, and starts the actors.
    ///
    /// # Errors
    /// When the database cannot be reached within the connect timeout, its encoding is not UTF-8,
    /// or its tables are missing.
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

    /// Starts an engine that writes nowhere: units are checked, coalesced, planned and encoded as for empty tables
    /// (where [`known_names_max`](crate::ConfigBuilder::known_names_max) is not 0, tables that have the names that
    /// are remembered), and then told that they are committed. To measure or to test what feeds an engine, without a
    /// server.
    ///
    /// Nothing is connected for units. What asks the database besides (health, merges, a refresh) does so as always.
    ///
    /// # Errors
    /// When the thread or the runtime cannot be started.
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
        telemetry::describe();
        telemetry::limits(config.max_rows_in_flight, config.max_bytes_in_flight);
        let (started, done) = thread::spawn(config.clone(), target)?;
        let thread::Started { shared, supervisor, stop } = started
            .await
            // The thread ends without an answer only by a panic while it starts.
            .unwrap_or_else(|_| Err(std::io::Error::other("the engine's thread died while it started").into()))?;
        let done = futures::FutureExt::shared(futures::FutureExt::boxed(async move {
            // An error says that the thread is gone, which is what is waited for.
            let _ = done.await;
        }));
        let admission = Admission::new(&config);
        let stop = Mutex::new(Some(stop));
        Ok(Self { inner: Arc::new(Inner { config, admission, shared, supervisor, stop, done }) })
    }

    /// Checks a unit and hands it over; waits while as many rows or bytes are in flight as may be.
    ///
    /// When this returns a receipt, the unit was accepted: it will get exactly one outcome, whether
    /// or not somebody waits for it. Dropping the future before that takes the unit back whole.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] for a unit that breaks a rule, [`SubmitError::Closed`] (with the
    /// unit) after [`drain`](Self::drain) or [`shutdown`](Self::shutdown).
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
    /// Also [`SubmitError::Full`], with the unit, when there is no room.
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
            telemetry::invalid(invalid.rule());
            SubmitError::Invalid(invalid)
        })
    }

    fn accept(&self, unit: UnitOfWork, room: Room) -> Result<Receipt, SubmitError> {
        let accepted = self.inner.shared.in_flight.accept(unit, room);
        let (submission, outcome) = accepted.map_err(|unit| SubmitError::Closed(Box::new(unit)))?;
        let receipt = Receipt::new(submission.number, outcome);
        if self.inner.shared.arrivals.push(submission) {
            // To a supervisor that just died the message is lost, not the units: its successor looks
            // for those that no epoch has.
            self.inner.supervisor().do_send(Arrived);
        }
        Ok(receipt)
    }

    /// Resolves when every unit that was accepted before has its outcome. Open epochs are sealed
    /// at once.
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
        // An error says that the engine is gone, and with it every unit it had.
        let _ = settled.await;
    }

    /// Accepts no more units, also of those who wait in [`submit`](Self::submit), and resolves when
    /// every accepted unit has its outcome. The engine stays up for [`stats`](Self::stats) and
    /// [`refresh_activity`](Self::refresh_activity).
    ///
    /// ```
    /// # async fn example(engine: graphsink::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// engine.drain().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(&self) {
        self.inner.close();
        self.flush().await;
    }

    /// Drains until the deadline, waits as long for merges that were asked for, and ends the engine. Units without an
    /// outcome by then are told
    /// `Unavailable` and named in the report. Calling it again waits for the same end and gives
    /// the same report.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) {
    /// let report = engine.shutdown(std::time::Duration::from_secs(25)).await;
    /// println!("{} units committed, {} abandoned", report.stats.units_committed, report.abandoned.len());
    /// # }
    /// ```
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.inner.close();
        let in_flight = &self.inner.shared.in_flight;
        let drained = async {
            self.flush().await;
            *self.inner.shared.merging.lock().await = true;
        };
        // Whichever comes first. The clock is made and runs on the engine's runtime: the caller's may
        // have none.
        let clock = self.inner.shared.runtime.spawn(async move { tokio::time::sleep(deadline).await });
        let _ = futures::future::select(std::pin::pin!(drained), clock).await;
        in_flight.abandon(&UnavailableCause::ShutDown);
        self.inner.stop(Stop::Now);
        self.inner.done.clone().await;
        // Of all shutdowns together: each reports the same.
        ShutdownReport { abandoned: in_flight.abandoned(), stats: self.stats() }
    }

    /// Brings recent counts, scores and activity levels of all connections to `as_of`, in steps of
    /// 1,000 connections, each a transaction of its own. Epochs keep the connections that they
    /// touch up to date by themselves.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
    /// let report = engine.refresh_activity(chrono::Utc::now()).await?;
    /// println!("{} of {} connections changed", report.updated, report.connections);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be used; what was brought up to date until then stays so.
    pub async fn refresh_activity(&self, as_of: Timestamp) -> Result<RefreshReport, StoreError> {
        self.with_store(move |store| async move { store.refresh(truncate(as_of)).await }).await
    }

    /// Submits the units in `graphsink_dead_letters` again, those that are there now, oldest first,
    /// and deletes each that is committed. Call it when the cause of the rejections was mended. It
    /// may be called at any time and by several processes at once: submitting a unit twice does what
    /// submitting it once does.
    ///
    /// The engine needs not be one that keeps dead letters itself; if it is, a unit that is rejected
    /// again has its new reason in the table.
    ///
    /// ```no_run
    /// # async fn run(engine: graphsink::Engine) -> Result<(), graphsink::StoreError> {
    /// let report = engine.resubmit_dead_letters().await?;
    /// println!("{} committed, {} rejected again", report.committed, report.rejected);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the table cannot be read or written; what was committed until then stays so.
    pub async fn resubmit_dead_letters(&self) -> Result<ResubmitReport, StoreError> {
        let mut report = ResubmitReport::default();
        let until = self.with_store(|store| async move { store.server_time().await }).await?;
        let mut after = None;
        loop {
            let page = self.with_store(move |store| async move { store.dead_letters(after, until).await }).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = Some((last.first_rejected_at, last.id));
            let done = self.resubmit(page, &mut report).await;
            self.with_store(move |store| async move { store.delete_dead_letters(&done).await }).await?;
        }
    }

    /// Submits one page of dead letters; gives those that are dead letters no more.
    async fn resubmit(&self, page: Vec<DeadLetter>, report: &mut ResubmitReport) -> Vec<Uuid> {
        let mut waiting = Vec::new();
        for DeadLetter { id, unit, .. } in page {
            let Some(unit) = unit else {
                report.invalid += 1;
                continue;
            };
            match self.submit(unit).await {
                Ok(receipt) => waiting.push((id, receipt)),
                Err(SubmitError::Invalid(_)) => report.invalid += 1,
                Err(SubmitError::Full(_) | SubmitError::Closed(_)) => report.unavailable += 1,
            }
        }
        let mut done = Vec::new();
        for (id, receipt) in waiting {
            match receipt.await {
                Outcome::Committed(_) => {
                    report.committed += 1;
                    done.push(id);
                }
                Outcome::Rejected(rejection) => {
                    report.rejected += 1;
                    // Somebody changed the document: its new content is a dead letter of its own.
                    if rejection.dead_letter.is_some_and(|kept| kept != id) {
                        done.push(id);
                    }
                }
                Outcome::Unavailable(_) => report.unavailable += 1,
            }
        }
        done
    }

    /// Runs something on the runtime of the connections: the caller's may be of any kind.
    async fn with_store<T, F>(&self, work: impl FnOnce(Store) -> F) -> Result<T, StoreError>
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

    /// Totals since the start, how latencies and sizes are spread, and what is under way now. Takes some microseconds and
    /// waits for nobody, so it may be asked often.
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

    /// Whether the engine is alive and ready for units, for the endpoints that an orchestrator asks. Takes some
    /// microseconds and waits for nobody.
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

    /// Tells somebody of commits from now on.
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

    /// Makes an actor panic, to test that nothing is lost by it.
    #[doc(hidden)]
    pub fn kill_actor(&self, actor: ActorKind) {
        self.inner.supervisor().do_send(Panic(actor));
    }
}

impl Inner {
    fn supervisor(&self) -> Addr<Supervisor> {
        self.supervisor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        self.shared.in_flight.close();
        self.admission.close();
    }

    fn stop(&self, how: Stop) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            // An error says that the thread ended already.
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
