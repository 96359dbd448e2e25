//! The load's handle.

use std::fmt;
use std::sync::Arc;

use actix::Addr;
use tokio::sync::{Mutex, oneshot, watch};

use super::actor::{Arrived, Finish, Supervisor};
use super::error::BulkError;
use super::progress::BulkProgress;
use super::report::{BulkEnd, BulkReport};
use super::settings::BulkSettings;
use super::shared::{FailOnDrop, Shared};
use super::thread::{self, Begun, Ended, Waits};
use crate::config::Config;
use crate::unit::UnitOfWork;

/// Loads a history into empty tables, in one transaction, faster than rows can be copied into tables with keys: see
/// [`guide::bulk_loading`](crate::guide::bulk_loading). The resulting database is that of an [`Engine`](crate::Engine)
/// if one producer had submitted the same units in this order. Cheap to clone, usable from any thread and any runtime.
///
/// ```no_run
/// use graphsink::{BulkLoad, BulkSettings, Config, Migrations, UnitOfWork};
///
/// # async fn run(history: Vec<UnitOfWork>) -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::builder("postgresql://localhost/evidence").build()?;
/// Migrations::all().run(&config).await?;
/// let load = BulkLoad::begin(config, BulkSettings::default().spill_directory("/var/tmp")).await?;
/// for unit in history {
///     load.submit(unit).await?;
/// }
/// let report = load.finish().await?;
/// println!("{} mentions; {} units were rejected", report.mentions.written, report.rejected);
/// # Ok(())
/// # }
/// ```
///
/// Nothing is visible before [`finish`](Self::finish) has committed. The load ends and leaves the tables as they were
/// if its last clone is dropped before that; so do [`abort`](Self::abort), and dropping the future of `begin` or
/// `finish`, until the commit is sent. From then on another clone can still ask for the result. Dropping the future of
/// [`submit`](Self::submit) withdraws only that unit.
#[derive(Clone)]
#[must_use = "a load that is dropped is aborted"]
pub struct BulkLoad {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    shared: Arc<Shared>,
    supervisor: Addr<Supervisor>,
    /// The result of the load, until it is returned. Locked by the clone that is being finished: if its future is
    /// dropped, the next clone that asks gets the result.
    ended: Mutex<Option<oneshot::Receiver<Ended>>>,
    /// Closed when the load has released everything.
    over: watch::Receiver<()>,
    /// Ends the load with the last clone.
    _held: FailOnDrop,
}

impl fmt::Debug for BulkLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkLoad").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl BulkLoad {
    /// Checks that the tables are empty and belong to the role, and locks them: from now on others may read them, but
    /// writers wait until the load has ended (units of engines no longer than their `outcome_deadline`). Of the
    /// engine's settings only those for the connection, `schema`, `max_unit_rows`, `lock_timeout`, `statement_timeout`,
    /// `outcome_deadline` and `as_of` apply; rejected units are reported, not kept as dead letters.
    ///
    /// # Errors
    /// [`BulkError::Store`] if the tables cannot be loaded, with the obstacles; [`BulkError::Spill`] if the spill
    /// directory cannot be used.
    ///
    /// ```no_run
    /// use graphsink::{BulkError, BulkLoad, BulkSettings, BulkStoreError, Config};
    ///
    /// # async fn run(config: Config) -> Result<(), BulkError> {
    /// match BulkLoad::begin(config, BulkSettings::default()).await {
    ///     Err(BulkError::Store(BulkStoreError::NotEmpty { tables })) => println!("use an engine: {tables:?}"),
    ///     begun => drop(begun?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn begin(config: Config, settings: BulkSettings) -> Result<Self, BulkError> {
        let Waits { begun, ended, over } = thread::spawn(config.clone(), settings)?;
        // The thread ends without an answer only if it panics while it begins.
        let Begun { shared, supervisor, held } = begun.await.unwrap_or(Err(BulkError::Panicked))?;
        let ended = Mutex::new(Some(ended));
        Ok(Self { inner: Arc::new(Inner { config, shared, supervisor, ended, over, _held: held }) })
    }

    /// Checks and accepts a unit. Returns its number, from 0 in the order of acceptance. Waits while the limit of bytes
    /// on their way to the sorters is reached. Dropping the future before it is ready withdraws the unit.
    ///
    /// # Errors
    /// [`BulkError::Invalid`] if the unit breaks a rule: the load continues. [`BulkError::Ended`] if the load was
    /// finished or has ended; [`finish`](Self::finish) returns the reason.
    ///
    /// ```no_run
    /// # async fn run(load: graphsink::BulkLoad) -> Result<(), graphsink::BulkError> {
    /// let mut unit = graphsink::UnitOfWork::new();
    /// unit.dish("brisket").handle();
    /// let number = load.submit(unit).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit(&self, unit: UnitOfWork) -> Result<u64, BulkError> {
        let Inner { shared, supervisor, .. } = &*self.inner;
        unit.validate(shared.unit_rows_max)?;
        let room = shared.acquire(unit.bytes()).await.ok_or(BulkError::Ended)?;
        let (number, must_tell) = shared.accept(unit.prepare().share(), room).ok_or(BulkError::Ended)?;
        if must_tell {
            supervisor.do_send(Arrived);
        }
        Ok(number)
    }

    /// The progress of the load. Takes a few microseconds and never waits.
    ///
    /// ```no_run
    /// # fn show(load: &graphsink::BulkLoad) {
    /// let progress = load.progress();
    /// println!("{}: {} units, {} bytes spilled", progress.phase.as_str(), progress.units, progress.spilled_bytes);
    /// # }
    /// ```
    #[must_use]
    pub fn progress(&self) -> BulkProgress {
        self.inner.shared.counters.progress()
    }

    /// Accepts no more units (neither do clones), writes all accepted units, builds keys and indexes, and commits. When
    /// this returns a report, everything is durable and visible; after an error other than
    /// [`BulkStoreError::CommitUnknown`], nothing is. Dropping the future aborts the load until its commit is sent;
    /// afterwards the next clone that is finished or aborted gets the result.
    ///
    /// # Errors
    /// The error that ended the load; [`BulkError::Aborted`] if it was aborted. [`BulkError::Ended`] if a clone is
    /// being finished, or the result was returned before.
    ///
    /// [`BulkStoreError::CommitUnknown`]: crate::BulkStoreError::CommitUnknown
    ///
    /// ```no_run
    /// # async fn run(load: graphsink::BulkLoad) -> Result<(), graphsink::BulkError> {
    /// let report = load.finish().await?;
    /// for rejected in report.rejections()? {
    ///     let (number, why) = rejected?;
    ///     println!("unit {number} was rejected: {why}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn finish(self) -> Result<BulkReport, BulkError> {
        let shared = Arc::clone(&self.inner.shared);
        let mut untold = self.inner.ended.try_lock().map_err(|_| BulkError::Ended)?;
        let ended = untold.as_mut().ok_or(BulkError::Ended)?;
        let _aborts = FailOnDrop::aborted(Arc::clone(&shared));
        if shared.close() {
            shared.counters.enter(super::progress::BulkPhase::Sorting);
            self.inner.supervisor.do_send(Finish);
        }
        // The thread ends without an answer only if it panics.
        let end = ended.await.unwrap_or(Err(BulkError::Panicked));
        *untold = None;
        end
    }

    /// Ends the load, waits until its files are removed and its session has ended, and returns its result. A commit
    /// that was already sent is not stopped: then everything was loaded, and there is a report.
    ///
    /// ```no_run
    /// # async fn run(load: graphsink::BulkLoad) {
    /// match load.abort().await {
    ///     graphsink::BulkEnd::Committed(report) => println!("too late: {} units were loaded", report.committed),
    ///     end => println!("{end:?}"),
    /// }
    /// # }
    /// ```
    pub async fn abort(self) -> BulkEnd {
        self.inner.shared.fail(BulkError::Aborted);
        let mut over = self.inner.over.clone();
        // Nothing is ever sent: the channel closes with the thread.
        while over.changed().await.is_ok() {}
        // This does not wait: a future of `finish` may be held without being polled.
        let Ok(mut untold) = self.inner.ended.try_lock() else { return BulkEnd::Told };
        let Some(mut ended) = untold.take() else { return BulkEnd::Told };
        match ended.try_recv() {
            Ok(Ok(report)) => BulkEnd::Committed(Box::new(report)),
            Ok(Err(BulkError::Aborted)) => {
                // Clones that ask later get the same result.
                let (again, untold_again) = oneshot::channel();
                let _ = again.send(Err(BulkError::Aborted));
                *untold = Some(untold_again);
                BulkEnd::Aborted
            }
            Ok(Err(error)) => BulkEnd::Failed(error),
            Err(_) => BulkEnd::Failed(BulkError::Panicked),
        }
    }

    /// The settings.
    ///
    /// ```no_run
    /// # fn run(load: &graphsink::BulkLoad) {
    /// println!("loads the schema {}", load.config().schema());
    /// # }
    /// ```
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }
}
