//! The root of the actors: routes units to lanes, seals epochs, keeps its children alive.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::ActorKind;
use super::batcher::{Batcher, ConnectionBatcher, EntityBatcher, MentionBatcher};
use super::coordinator::TransactionCoordinator;
use super::message::{
    Absorb, Beat, ChildStopped, DeathWatch, Discard, EpochFinished, EpochSealed, Flush, Panic, Seal, Submit,
};
use super::routing::{Routing, Way};
use super::shared::Shared;
use crate::failpoint::failpoint;
use crate::hash::HashMap;
use crate::in_flight::{EpochId, Submission};
use crate::telemetry;
use crate::unit::Unit;

/// How often to look for units that were on their way to a supervisor that died, and for signs of life.
const SWEEP: Duration = Duration::from_millis(500);

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
    /// Under way with its units.
    keys: Vec<u64>,
    rows: usize,
}

/// A sealed epoch, as far as the supervisor must remember it.
struct Sealed {
    lane: usize,
    rows: usize,
    keys: Vec<u64>,
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
    routing: Routing,
    /// Units whose keys are under way in several lanes, oldest first; they have no epoch.
    held: VecDeque<Arc<Submission>>,
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
        let routing = Routing::new(shared.lanes.len());
        Self {
            shared,
            lanes,
            sealed: BTreeMap::new(),
            routing,
            held: VecDeque::new(),
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

    /// Sends a unit on its way; or holds it, if it `may_wait`, where it would meet others in several lanes.
    fn route_or_hold(&mut self, submission: Arc<Submission>, may_wait: bool) {
        let keys = self.keys(&submission.unit);
        let lane = match self.routing.way(&keys) {
            Way::Any => self.emptiest_lane(),
            Way::Several(_) if may_wait => {
                tracing::debug!(parent: &submission.span, "unit held: its rows are under way in several lanes");
                self.held.push_back(submission);
                return;
            }
            Way::Lane(lane) | Way::Several(lane) => lane,
        };
        self.route(submission, lane, keys);
    }

    /// Sends those on who need not be held any more; everybody, unless they `may_wait`.
    fn route_held(&mut self, may_wait: bool) {
        for submission in std::mem::take(&mut self.held) {
            // Routed already: by the sweep. Once more, and its rows would be in an epoch twice, or in two.
            if submission.epoch() == 0 {
                self.route_or_hold(submission, may_wait);
            }
        }
    }

    /// What a unit may meet others on.
    fn keys(&self, unit: &Unit) -> Vec<u64> {
        if !self.routing.is_choice() {
            return Vec::new();
        }
        let known = self.shared.said_of_entities.expects(unit.said.iter().map(|said| said.what));
        let news = unit.said.iter().zip(known).filter(|(_, known)| !known).map(|(said, _)| said.entity);
        let mut keys: Vec<u64> = std::iter::once(unit.affinity).chain(news).collect();
        keys.dedup();
        keys
    }

    fn emptiest_lane(&self) -> usize {
        (0..self.lanes.len()).min_by_key(|lane| self.lanes[*lane].rows).unwrap_or(0)
    }

    /// Routes a unit to a lane and its rows to the batchers.
    fn route(&mut self, submission: Arc<Submission>, lane: usize, keys: Vec<u64>) {
        let Some(children) = &self.children else { return };
        let rows = submission.unit.rows();
        let open = self.lanes[lane].open.get_or_insert_with(|| OpenEpoch {
            epoch: self.shared.new_epoch(),
            submissions: Vec::new(),
            keys: Vec::new(),
            rows: 0,
        });
        let epoch = open.epoch;
        if !self.shared.in_flight.route(&submission, epoch) {
            return;
        }
        self.routing.enter(lane, &keys);
        open.keys.extend(keys);
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
        }
    }

    /// Natural batching: while a lane commits, its next epoch grows; once it is free, that goes.
    fn seal_where_free(&mut self) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].sealed == 0 {
                self.seal(lane, SealReason::LaneFree);
            }
        }
    }

    fn seal(&mut self, lane: usize, reason: SealReason) {
        let Some(children) = &self.children else { return };
        let Some(OpenEpoch { epoch, submissions, keys, rows }) = self.lanes[lane].open.take() else { return };
        let seal = Seal { epoch, to: children.coordinator.clone() };
        children.entities.do_send(seal.clone());
        failpoint("supervisor::seal");
        children.connections.do_send(seal.clone());
        children.mentions.do_send(seal);
        tracing::debug!(epoch, lane, rows, units = submissions.len(), reason = reason.as_str(), "epoch sealed");
        telemetry::sealed(reason.as_str());
        self.sealed.insert(epoch, Sealed { lane, rows, keys });
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
        let unclaimed = self.shared.in_flight.take_back();
        let epochs: std::collections::HashSet<EpochId> = unclaimed.iter().map(|(epoch, _)| *epoch).collect();
        // Epochs whose units were claimed are being committed; their tasks will report them.
        let unfinished: Vec<EpochId> = self.sealed.keys().copied().filter(|epoch| epochs.contains(epoch)).collect();
        for epoch in unfinished {
            self.finish(epoch);
        }
        for lane in &mut self.lanes {
            if let Some(open) = lane.open.take() {
                lane.rows -= open.rows;
                self.routing.leave(&open.keys);
            }
        }
        // They are among the unclaimed.
        self.held.clear();
        for (_, submission) in unclaimed {
            self.route_or_hold(submission, true);
        }
        self.seal_where_free();
    }

    /// Gives a sign of life, and asks the children for theirs.
    fn beat(&self) {
        let Some(children) = &self.children else { return };
        let pulse = &self.shared.pulse;
        pulse.beat(ActorKind::Supervisor);
        children.entities.do_send(Beat(Arc::clone(pulse)));
        children.connections.do_send(Beat(Arc::clone(pulse)));
        children.mentions.do_send(Beat(Arc::clone(pulse)));
        children.coordinator.do_send(Beat(Arc::clone(pulse)));
    }

    /// Takes an epoch off its lane.
    fn finish(&mut self, epoch: EpochId) {
        failpoint("supervisor::finish");
        let Some(Sealed { lane, rows, keys }) = self.sealed.remove(&epoch) else { return };
        self.routing.leave(&keys);
        self.lanes[lane].sealed -= 1;
        self.lanes[lane].rows -= rows;
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
        self.beat();
        context.run_interval(SWEEP, |supervisor, _| {
            supervisor.beat();
            // Also those that are held: that was long enough.
            for submission in supervisor.shared.in_flight.unrouted() {
                supervisor.route_or_hold(submission, false);
            }
            supervisor.seal_where_free();
        });
    }
}

impl Handler<Submit> for Supervisor {
    type Result = ();

    fn handle(&mut self, Submit(submission): Submit, _: &mut Context<Self>) {
        // Routed already: by `route_again`, when the message waited for a new supervisor.
        if submission.epoch() == 0 {
            self.route_or_hold(submission, true);
            self.seal_where_free();
        }
    }
}

impl Handler<Flush> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Context<Self>) {
        self.route_held(false);
        for lane in 0..self.lanes.len() {
            self.seal(lane, SealReason::Flush);
        }
    }
}

impl Handler<EpochFinished> for Supervisor {
    type Result = ();

    fn handle(&mut self, EpochFinished { epoch }: EpochFinished, _: &mut Context<Self>) {
        self.finish(epoch);
        self.route_held(true);
        self.seal_where_free();
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
