//! The engine's own thread, which runs the actors and supervises their root.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix::{Actor, Addr};
use futures::channel::oneshot;
use tokio::sync::{Notify, Semaphore};

use crate::actor::{Arrived, Flush, Pulse, Shared, Supervisor};
use crate::commits::CommitListeners;
use crate::config::Config;
use crate::error::StartError;
use crate::flight::InFlight;
use crate::label::ActorKind;
use crate::outcome::UnavailableCause;
use crate::stats::Counters;
use crate::store::{Blackhole, Destination, Store};

/// How an engine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Every unit was told its outcome.
    Now,
    /// The last handle is gone, but the engine holds units.
    WhenDrained,
}

/// Where an engine writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Database,
    /// Nowhere.
    Blackhole,
}

/// The address of the current supervisor, which changes after a death.
pub(super) type SupervisorAddress = Arc<RwLock<Addr<Supervisor>>>;

/// The parts of a started engine.
pub(super) struct Started {
    pub(super) shared: Arc<Shared>,
    pub(super) supervisor: SupervisorAddress,
    pub(super) stop: oneshot::Sender<Stop>,
}

type StartResult = Result<Started, StartError>;

/// Starts the thread. The first receiver gets the result of the start, the second resolves when the thread has ended.
pub(super) fn spawn(
    config: Config,
    target: Target,
) -> std::io::Result<(oneshot::Receiver<StartResult>, oneshot::Receiver<()>)> {
    let (started, on_start) = oneshot::channel();
    let (done, on_done) = oneshot::channel();
    std::thread::Builder::new().name("graphsink".to_owned()).spawn(move || {
        run(&config, target, started);
        // The receiver may be gone.
        let _ = done.send(());
    })?;
    Ok((on_start, on_done))
}

fn run(config: &Config, target: Target, started: oneshot::Sender<StartResult>) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One more than concurrent commits: computing one statement must not delay sending the next.
        .worker_threads((config.in_flight_commits + 1).min(cores))
        .thread_name("graphsink-sql")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            // The caller may have stopped waiting for the start.
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    let shared = match runtime.block_on(connect(config, target, runtime.handle().clone())) {
        Ok(shared) => Arc::new(shared),
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    if target == Target::Database {
        // Both end with the runtime.
        runtime.spawn(shared.store.clone().keep_forgetting_attempts());
        runtime.spawn(shared.store.clone().keep_sampling_locks());
    }
    let _settle_on_drop = SettleOnDrop(Arc::clone(&shared));
    actix::System::new().block_on(supervise(&shared, started));
    // Commits that are still under way were abandoned; their connections close with the runtime.
    runtime.shutdown_timeout(Duration::from_millis(500));
}

/// Settles every unit when dropped: however the thread ends, no receipt waits for ever.
struct SettleOnDrop(Arc<Shared>);

impl Drop for SettleOnDrop {
    fn drop(&mut self) {
        self.0.in_flight.close();
        self.0.in_flight.abandon(&UnavailableCause::EngineFailed);
    }
}

async fn connect(config: &Config, target: Target, runtime: tokio::runtime::Handle) -> Result<Shared, StartError> {
    let counters = Arc::new(Counters::default());
    let store = Store::new(config, &counters).await?;
    let destination = match target {
        Target::Database => {
            store.check(config).await?;
            store.forget_old_attempts().await?;
            store.open_sessions(config.in_flight_commits).await;
            Destination::Database(store.clone())
        }
        Target::Blackhole => Destination::Blackhole(Blackhole::new(config)),
    };
    Ok(Shared {
        in_flight: Arc::new(InFlight::new(Arc::clone(&counters))),
        counters,
        store,
        destination,
        listeners: CommitListeners::default(),
        merging: Arc::default(),
        runtime,
        lanes: (0..config.in_flight_commits).map(|_| Arc::new(Semaphore::new(1))).collect(),
        max_batch_rows: config.max_batch_rows,
        outcome_deadline: config.outcome_deadline,
        pulse: Arc::new(Pulse::new()),
        deaths: Mutex::new(VecDeque::new()),
    })
}

/// Keeps a supervisor alive until the engine is to end.
async fn supervise(shared: &Arc<Shared>, started: oneshot::Sender<StartResult>) {
    let give_up = Arc::new(Notify::new());
    let start = || {
        let (alive, dead) = tokio::sync::oneshot::channel();
        (Supervisor::new(Arc::clone(shared), alive, Arc::clone(&give_up)).start(), dead)
    };
    let (address, mut dead) = start();
    has_started(&address).await;
    let address: SupervisorAddress = Arc::new(RwLock::new(address));
    let (stop, mut stopped) = oneshot::channel();
    let handles = Started { shared: Arc::clone(shared), supervisor: Arc::clone(&address), stop };
    // If the caller stopped waiting, the handles are dropped here, and with them `stop`.
    let _ = started.send(Ok(handles));
    let mut draining = false;
    let mut drained = futures::future::Fuse::terminated();
    loop {
        tokio::select! {
            _ = &mut dead => {
                if !shared.note_death(ActorKind::Supervisor) {
                    break fail(shared);
                }
                let (successor, death) = start();
                has_started(&successor).await;
                *address.write().unwrap_or_else(PoisonError::into_inner) = successor.clone();
                // Until now notifications went to the former address.
                successor.do_send(Arrived);
                dead = death;
            }
            () = give_up.notified() => break fail(shared),
            how = &mut stopped, if !draining => match how {
                Ok(Stop::Now) => break,
                // Without a sender no unit can be submitted either.
                Ok(Stop::WhenDrained) | Err(_) => {
                    draining = true;
                    drained = futures::FutureExt::fuse(shared.in_flight.settled_so_far());
                }
            },
            _ = &mut drained => break,
        }
    }
}

/// Waits until a supervisor has started, or died while starting. A supervisor that is dropped earlier would still
/// start, in its destructor (actix polls it once more there), and panic because there is no runtime.
async fn has_started(supervisor: &Addr<Supervisor>) {
    // Either an answer or an error suffices.
    let _ = supervisor.send(Flush).await;
}

/// Endless restarts do not help: every unit gets its outcome, and no more units are accepted.
fn fail(shared: &Shared) {
    tracing::error!("actors died too often, the engine stops");
    shared.in_flight.close();
    shared.in_flight.abandon(&UnavailableCause::EngineFailed);
}
