//! A load's own thread, which runs its actors and owns everything that ends with the load.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use actix_rt::{Arbiter, ArbiterHandle};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use super::actor::{Logs, SortedInput, Sorters, Supervisor, TableSorter, TransactionCoordinator};
use super::claims::Claimants;
use super::error::BulkError;
use super::ids::Ids;
use super::outcomes::OutcomeLog;
use super::progress::BulkPhase;
use super::refusals::RefusalLog;
use super::report::BulkReport;
use super::runs::{ConnectionRuns, EntityRuns, MentionRuns, TableRuns};
use super::settings::{BulkSettings, Division};
use super::shared::{FailOnDrop, Shared};
use super::spill::SpillDirectory;
use super::write::Writing;
use crate::config::{AsOf, Config};
use crate::store::BulkTransaction;

/// How long the thread waits for an abandoned beginning: the server is asked to stop its work for it.
const LINGER: Duration = Duration::from_millis(500);

/// The parts of a load that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) shared: Arc<Shared>,
    pub(super) supervisor: Addr<Supervisor>,
    /// The load continues as long as its callers hold this, even if it is still in a channel.
    pub(super) held: FailOnDrop,
}

/// The events that a load's callers wait for.
#[derive(Debug)]
pub(super) struct Waits {
    /// The result of the beginning.
    pub(super) begun: oneshot::Receiver<Result<Begun, BulkError>>,
    /// The result of the load.
    pub(super) ended: oneshot::Receiver<Ended>,
    /// Closed when the load has released everything.
    pub(super) over: watch::Receiver<()>,
}

/// The result of a load.
pub(super) type Ended = Result<BulkReport, BulkError>;

/// Starts the thread.
pub(super) fn spawn(config: Config, settings: BulkSettings) -> Result<Waits, BulkError> {
    let (begun, on_begin) = oneshot::channel();
    let (ended, on_end) = oneshot::channel();
    let (lives, over) = watch::channel(());
    let thread = std::thread::Builder::new().name("graphsink-bulk".to_owned());
    let spawned = thread.spawn(move || {
        // Held until the load has ended for any reason.
        let _lives = lives;
        if let Some(end) = run(&config, &settings, begun) {
            // The receiver may have been dropped.
            let _ = ended.send(end);
        }
    });
    spawned.map_err(BulkError::Thread)?;
    Ok(Waits { begun: on_begin, ended: on_end, over })
}

/// Runs a load from beginning to end; `None` if it did not begin.
fn run(config: &Config, settings: &BulkSettings, begun: oneshot::Sender<Result<Begun, BulkError>>) -> Option<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One drives the connection, the other processes its results.
        .worker_threads(2)
        .thread_name("graphsink-bulk-sql")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            // The caller may have stopped waiting.
            let _ = begun.send(Err(BulkError::Thread(error)));
            return None;
        }
    };
    let (begun, load) = begin(config, settings, &runtime, begun)?;
    let ended = live(load, &runtime, begun);
    // Merges still running have lost their receiver.
    runtime.shutdown_timeout(LINGER);
    Some(ended)
}

/// A load that may accept units.
struct Load {
    shared: Arc<Shared>,
    directory: Arc<SpillDirectory>,
    transaction: BulkTransaction,
    division: Division,
    ids: Ids,
    as_of: AsOf,
    keep_outcomes: bool,
}

type Told = oneshot::Sender<Result<Begun, BulkError>>;

/// Creates the directory for files, and locks the tables. `None` if this failed, which was reported, or was abandoned.
fn begin(config: &Config, settings: &BulkSettings, runtime: &Runtime, mut told: Told) -> Option<(Told, Load)> {
    let division = settings.division();
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            () = told.closed() => None,
            load = begin_on(config, settings, division) => Some(load),
        }
    });
    match result {
        Some(Ok(load)) => Some((told, load)),
        Some(Err(error)) => {
            let _ = told.send(Err(error));
            None
        }
        None => {
            runtime.block_on(async { tokio::time::sleep(LINGER).await });
            None
        }
    }
}

async fn begin_on(config: &Config, settings: &BulkSettings, division: Division) -> Result<Load, BulkError> {
    // First, because it fails more often and takes no time.
    let directory = SpillDirectory::create(&settings.spill_directory, division.block)?;
    directory.expect_room(settings.room_needed())?;
    let transaction = Box::pin(BulkTransaction::begin(config, settings.of_transaction())).await?;
    Ok(Load {
        shared: Arc::new(Shared::new(config.max_unit_rows, division.in_flight, &directory)),
        directory,
        transaction,
        division,
        ids: Ids::of_load(chrono::Utc::now()),
        as_of: config.as_of,
        keep_outcomes: settings.keep_outcomes,
    })
}

/// From the first unit to the end.
fn live(load: Load, runtime: &Runtime, begun: Told) -> Ended {
    let _enters_end = EndOnDrop(Arc::clone(&load.shared));
    let (_threads, ended) = actix::System::new().block_on(async {
        let mut threads = SorterThreads::default();
        let ended = match start(load, runtime, &mut threads) {
            Ok((started, writing)) => {
                // If the caller has stopped waiting, this is dropped, and the load with it.
                let _ = begun.send(Ok(started));
                writing.await.unwrap_or_else(|_| Err(BulkError::Panicked))
            }
            Err(error) => {
                let _ = begun.send(Err(error));
                Err(BulkError::Ended)
            }
        };
        (threads, ended)
    });
    ended
}

/// Sets the progress to "ended" when dropped, whatever the result of the load.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.counters.enter(BulkPhase::Ended);
    }
}

/// Threads of sorters. Dropping it ends them and waits for that: the actors' files are removed with the actors.
#[derive(Default)]
struct SorterThreads(Vec<Arbiter>);

impl SorterThreads {
    /// Starts another thread.
    fn start(&mut self, make: impl FnOnce() -> io::Result<Arbiter>) -> Result<ArbiterHandle, BulkError> {
        let arbiter = make().map_err(BulkError::Thread)?;
        let handle = arbiter.handle();
        self.0.push(arbiter);
        Ok(handle)
    }
}

impl Drop for SorterThreads {
    fn drop(&mut self) {
        for arbiter in self.0.drain(..) {
            arbiter.stop();
            // A thread that panicked has ended too.
            let _ = arbiter.join();
        }
    }
}

type WritingTask = tokio::task::JoinHandle<Ended>;

/// Starts the actors and the task that writes.
fn start(load: Load, runtime: &Runtime, threads: &mut SorterThreads) -> Result<(Begun, WritingTask), BulkError> {
    let Load { shared, directory, transaction, division, ids, as_of, keep_outcomes } = load;
    let logs = Logs {
        refusals: RefusalLog::new(&directory, division.log),
        outcomes: keep_outcomes.then(|| OutcomeLog::create(&directory, ids)).transpose()?,
    };
    let (sender, input) = oneshot::channel::<SortedInput>();
    let coordinator = TransactionCoordinator::new(&shared, sender).start();
    let sorters = Sorters {
        entities: sort::<EntityRuns>(&directory, division.entities, &coordinator, &shared, threads)?,
        connections: sort::<ConnectionRuns>(&directory, division.connections, &coordinator, &shared, threads)?,
        mentions: sort::<MentionRuns>(&directory, division.mentions, &coordinator, &shared, threads)?,
    };
    let supervisor = Supervisor::new(&shared, sorters, coordinator, logs, Claimants::new(division.claimants)).start();
    let writing = Writing { shared: Arc::clone(&shared), directory, ids, as_of, memory: division.merging };
    let writing = runtime.spawn(writing.run(transaction, input));
    let held = FailOnDrop::aborted(Arc::clone(&shared));
    Ok((Begun { shared, supervisor, held }, writing))
}

/// Starts a sorter on its own thread.
fn sort<R: TableRuns>(
    directory: &Arc<SpillDirectory>,
    memory: usize,
    coordinator: &Addr<TransactionCoordinator>,
    shared: &Arc<Shared>,
    threads: &mut SorterThreads,
) -> Result<Addr<TableSorter<R>>, BulkError> {
    let thread = threads.start(Arbiter::try_new)?;
    let sorter = TableSorter::new(R::new(directory, memory), coordinator.clone(), shared);
    Ok(TableSorter::start_in_arbiter(&thread, move |_| sorter))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A load needs more threads than the process may have: none of them is left.
    #[test]
    fn started_threads_end_when_another_cannot_be_created() {
        let lives = Arc::new(());
        let error = actix::System::new().block_on(async {
            let mut threads = SorterThreads::default();
            for _ in 0..2 {
                let lives = Arc::clone(&lives);
                let thread = threads.start(Arbiter::try_new).unwrap();
                thread.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(lives);
                });
            }
            threads.start(|| Err(io::ErrorKind::WouldBlock.into())).unwrap_err()
        });
        assert!(matches!(&error, BulkError::Thread(source) if source.kind() == io::ErrorKind::WouldBlock), "{error}");
        assert_eq!(Arc::strong_count(&lives), 1, "the threads have ended and dropped what they held");
    }
}
