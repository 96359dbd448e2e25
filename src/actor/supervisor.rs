//! The root of the actors: routes units to lanes, seals epochs, keeps its children alive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::Semaphore;

use super::ActorKind;
use super::batcher::{Batcher, ConnectionBatcher, EntityBatcher, MentionBatcher};
use super::coordinator::TransactionCoordinator;
use super::message::{
    Absorb, ChildStopped, DeathWatch, Discard, EpochFinished, EpochSealed, Flush, Panic, Seal, Submit,
};
use crate::commits::CommitListeners;
use crate::failpoint::failpoint;
use crate::hash::HashMap;
use crate::in_flight::{EpochId, InFlight, Submission};
use crate::stats::Counters;
use crate::store::Store;
use crate::telemetry;

/// More deaths than this within [`DEATHS_WINDOW`] are no accidents: the engine stops, instead of
/// dying and rising for ever.
const DEATHS_MAX: usize = 20;
/// See [`DEATHS_MAX`].
const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// How often to look for units that were on their way to a supervisor that died.
const SWEEP: Duration = Duration::from_millis(500);

/// What outlives every actor, and all of them share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) in_flight: InFlight,
    pub(crate) counters: Arc<Counters>,
    pub(crate) store: Store,
    /// Who hears of commits.
    pub(crate) listeners: CommitListeners,
    /// Drives the connections.
    pub(crate) runtime: tokio::runtime::Handle,
    /// One permit each: the turn to commit in a lane.
    pub(crate) lanes: Vec<Arc<Semaphore>>,
    pub(crate) max_batch_rows: usize,
    pub(crate) outcome_deadline: Duration,
    /// See `bench_internals`.
    #[cfg(feature = "internals")]
    pub(crate) without_database: bool,
    /// Deaths of actors, of the supervisor too, in the last while.
    pub(crate) deaths: std::sync::Mutex<VecDeque<Instant>>,
    /// The next epoch's number; numbers are never used again, also not by the next supervisor.
    pub(crate) next_epoch: std::sync::atomic::AtomicU64,
}

impl Shared {
    /// Notes the death of an actor; false if there were too many.
    pub(crate) fn note_death(&self, actor: ActorKind) -> bool {
        tracing::error!(actor = actor.as_str(), "an actor died and is started again");
        self.counters.actor_restarted(actor.as_str());
        let mut deaths = self.deaths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        deaths.push_back(Instant::now());
        while deaths.front().is_some_and(|death| death.elapsed() > DEATHS_WINDOW) {
            deaths.pop_front();
        }
        deaths.len() <= DEATHS_MAX
    }

    fn new_epoch(&self) -> EpochId {
        self.next_epoch.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// Why an epoch is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealReason {
    /// Its lane has nothing else to commit.
    LaneFree,
    /// It has as many rows as a batch may have.
    Full,
    /// Somebody asked for it.
    Flush,
}

impl SealReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::LaneFree => "lane_free",
            Self::Full => "full",
            Self::Flush => "flush",
        }
    }
}

/// A commit slot: at most one open epoch, any number of sealed ones that wait their turn.
#[derive(Default)]
struct Lane {
    open: Option<OpenEpoch>,
    sealed: usize,
    /// Rows routed here and not finished, for choosing the emptiest lane.
    rows: usize,
}

struct OpenEpoch {
    epoch: EpochId,
    submissions: Vec<Arc<Submission>>,
    rows: usize,
}

/// A sealed epoch, as far as the supervisor must remember it.
struct Sealed {
    lane: usize,
    rows: usize,
    affinities: Vec<u64>,
}

struct Children {
    entities: Addr<EntityBatcher>,
    connections: Addr<ConnectionBatcher>,
    mentions: Addr<MentionBatcher>,
    coordinator: Addr<TransactionCoordinator>,
}

/// See the module's documentation, and `actor/mod.rs` for the protocol.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    sealed: BTreeMap<EpochId, Sealed>,
    /// Where units of a restaurant are on their way, and how many.
    affinity: HashMap<u64, (usize, usize)>,
    children: Option<Children>,
    /// Counts children, so that each has a number of its own.
    incarnations: u64,
    current: HashMap<ActorKind, u64>,
    /// Resolves, by being dropped, when this supervisor is gone.
    _alive: tokio::sync::oneshot::Sender<()>,
    /// Told when there were too many deaths.
    give_up: Arc<tokio::sync::Notify>,
}

impl Supervisor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        alive: tokio::sync::oneshot::Sender<()>,
        give_up: Arc<tokio::sync::Notify>,
    ) -> Self {
        let lanes = shared.lanes.iter().map(|_| Lane::default()).collect();
        Self {
            shared,
            lanes,
            sealed: BTreeMap::new(),
            affinity: HashMap::default(),
            children: None,
            incarnations: 0,
            current: HashMap::default(),
            _alive: alive,
            give_up,
        }
    }

    fn watch(&mut self, child: ActorKind, context: &Context<Self>) -> DeathWatch {
        self.incarnations += 1;
        self.current.insert(child, self.incarnations);
        DeathWatch { supervisor: context.address(), child, incarnation: self.incarnations }
    }

    fn start_coordinator(&mut self, context: &Context<Self>) -> Addr<TransactionCoordinator> {
        let next = self.shared.next_epoch.load(std::sync::atomic::Ordering::Relaxed);
        let watch = self.watch(ActorKind::TransactionCoordinator, context);
        TransactionCoordinator::new(Arc::clone(&self.shared), next, watch).start()
    }

    /// Routes a unit to a lane and its rows to the batchers.
    fn route(&mut self, submission: Arc<Submission>) {
        let Some(children) = &self.children else { return };
        let affinity = submission.unit.affinity;
        let rows = submission.unit.rows();
        let lanes = &self.lanes;
        let emptiest = || (0..lanes.len()).min_by_key(|lane| lanes[*lane].rows).unwrap_or(0);
        let (lane, units) = self.affinity.entry(affinity).or_insert_with(|| (emptiest(), 0));
        *units += 1;
        let lane = *lane;
        let open = self.lanes[lane].open.get_or_insert_with(|| OpenEpoch {
            epoch: self.shared.new_epoch(),
            submissions: Vec::new(),
            rows: 0,
        });
        let epoch = open.epoch;
        if !self.shared.in_flight.route(&submission, epoch) {
            forget(&mut self.affinity, affinity);
            return;
        }
        failpoint("supervisor::route");
        let absorb = Absorb { epoch, unit: Arc::clone(&submission.unit) };
        // A batcher that a unit has no rows for need not hear of it.
        if !absorb.unit.entities.is_empty() {
            children.entities.do_send(absorb.clone());
        }
        failpoint("supervisor::absorb");
        if !absorb.unit.connections.is_empty() {
            children.connections.do_send(absorb.clone());
        }
        if !absorb.unit.mentions.is_empty() {
            children.mentions.do_send(absorb);
        }
        open.rows += rows;
        open.submissions.push(submission);
        let full = open.rows >= self.shared.max_batch_rows;
        self.lanes[lane].rows += rows;
        if full {
            self.seal(lane, SealReason::Full);
        } else {
            self.seal_if_free(lane);
        }
    }

    /// Natural batching: while a lane commits, its next epoch grows; once it is free, that goes.
    fn seal_if_free(&mut self, lane: usize) {
        if self.lanes[lane].sealed == 0 {
            self.seal(lane, SealReason::LaneFree);
        }
    }

    fn seal(&mut self, lane: usize, reason: SealReason) {
        let Some(children) = &self.children else { return };
        let Some(OpenEpoch { epoch, submissions, rows }) = self.lanes[lane].open.take() else { return };
        let seal = Seal { epoch, to: children.coordinator.clone() };
        children.entities.do_send(seal.clone());
        failpoint("supervisor::seal");
        children.connections.do_send(seal.clone());
        children.mentions.do_send(seal);
        tracing::debug!(epoch, lane, rows, units = submissions.len(), reason = reason.as_str(), "epoch sealed");
        telemetry::sealed(reason.as_str());
        let affinities = submissions.iter().map(|submission| submission.unit.affinity).collect();
        self.sealed.insert(epoch, Sealed { lane, rows, affinities });
        self.lanes[lane].sealed += 1;
        failpoint("supervisor::sealed");
        children.coordinator.do_send(EpochSealed { epoch, lane, submissions });
    }

    /// After a death: everything that no transaction has claimed goes its way once more, under new
    /// numbers. What the batchers and the coordinator still hold of it is discarded.
    fn route_again(&mut self) {
        let Some(children) = &self.children else { return };
        let below = self.shared.new_epoch();
        children.entities.do_send(Discard { below });
        children.connections.do_send(Discard { below });
        children.mentions.do_send(Discard { below });
        children.coordinator.do_send(Discard { below });
        failpoint("supervisor::route_again");
        let unclaimed = self.shared.in_flight.unclaimed();
        let epochs: std::collections::HashSet<EpochId> =
            unclaimed.iter().map(|submission| submission.epoch()).collect();
        // Epochs whose units were claimed are being committed; their tasks will report them.
        let unfinished: Vec<EpochId> = self.sealed.keys().copied().filter(|epoch| epochs.contains(epoch)).collect();
        for epoch in unfinished {
            self.finish(epoch);
        }
        for lane in &mut self.lanes {
            if let Some(open) = lane.open.take() {
                lane.rows -= open.rows;
                for submission in &open.submissions {
                    forget(&mut self.affinity, submission.unit.affinity);
                }
            }
        }
        for submission in unclaimed {
            self.route(submission);
        }
    }

    /// Takes an epoch off its lane.
    fn finish(&mut self, epoch: EpochId) -> Option<usize> {
        failpoint("supervisor::finish");
        let Sealed { lane, rows, affinities } = self.sealed.remove(&epoch)?;
        for affinity in affinities {
            forget(&mut self.affinity, affinity);
        }
        self.lanes[lane].sealed -= 1;
        self.lanes[lane].rows -= rows;
        Some(lane)
    }
}

/// One unit less of this restaurant is on its way.
fn forget(affinity: &mut HashMap<u64, (usize, usize)>, key: u64) {
    if let Some((_, units)) = affinity.get_mut(&key) {
        *units -= 1;
        if *units == 0 {
            affinity.remove(&key);
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let entities = Batcher::new(self.watch(ActorKind::EntityBatcher, context)).start();
        let connections = Batcher::new(self.watch(ActorKind::ConnectionBatcher, context)).start();
        let mentions = Batcher::new(self.watch(ActorKind::MentionBatcher, context)).start();
        let coordinator = self.start_coordinator(context);
        self.children = Some(Children { entities, connections, mentions, coordinator });
        // What a supervisor before this one left behind, and what was on its way to it.
        self.route_again();
        context.run_interval(SWEEP, |supervisor, _| {
            for submission in supervisor.shared.in_flight.unrouted() {
                supervisor.route(submission);
            }
        });
    }
}

impl Handler<Submit> for Supervisor {
    type Result = ();

    fn handle(&mut self, Submit(submission): Submit, _: &mut Context<Self>) {
        // Routed already: by `route_again`, when the message waited for a new supervisor.
        if submission.epoch() == 0 {
            self.route(submission);
        }
    }
}

impl Handler<Flush> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Context<Self>) {
        for lane in 0..self.lanes.len() {
            self.seal(lane, SealReason::Flush);
        }
    }
}

impl Handler<EpochFinished> for Supervisor {
    type Result = ();

    fn handle(&mut self, EpochFinished { epoch }: EpochFinished, _: &mut Context<Self>) {
        if let Some(lane) = self.finish(epoch) {
            self.seal_if_free(lane);
        }
    }
}

impl Handler<ChildStopped> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildStopped { child, incarnation }: ChildStopped, context: &mut Context<Self>) {
        if self.current.get(&child) != Some(&incarnation) {
            return;
        }
        if !self.shared.note_death(child) {
            self.give_up.notify_one();
            return;
        }
        let watch = match child {
            ActorKind::TransactionCoordinator => None,
            _ => Some(self.watch(child, context)),
        };
        let coordinator = watch.is_none().then(|| self.start_coordinator(context));
        let Some(children) = &mut self.children else { return };
        match (child, watch) {
            (ActorKind::EntityBatcher, Some(watch)) => children.entities = Batcher::new(watch).start(),
            (ActorKind::ConnectionBatcher, Some(watch)) => children.connections = Batcher::new(watch).start(),
            (ActorKind::MentionBatcher, Some(watch)) => children.mentions = Batcher::new(watch).start(),
            (ActorKind::TransactionCoordinator | ActorKind::Supervisor, _) | (_, None) => {
                if let Some(coordinator) = coordinator {
                    children.coordinator = coordinator;
                }
            }
        }
        self.route_again();
    }
}

impl Handler<Panic> for Supervisor {
    type Result = ();

    fn handle(&mut self, Panic(kind): Panic, _: &mut Context<Self>) {
        let Some(children) = &self.children else { return };
        match kind {
            ActorKind::Supervisor => panic!("{kind:?} dies on request"),
            ActorKind::EntityBatcher => children.entities.do_send(Panic(kind)),
            ActorKind::ConnectionBatcher => children.connections.do_send(Panic(kind)),
            ActorKind::MentionBatcher => children.mentions.do_send(Panic(kind)),
            ActorKind::TransactionCoordinator => children.coordinator.do_send(Panic(kind)),
        }
    }
}
