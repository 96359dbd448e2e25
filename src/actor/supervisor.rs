//! The root of the actors: forwards dispatched work to its children, and restarts them.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::batcher::{Batcher, ConnectionBatcher, EntityBatcher, MentionBatcher};
use super::coordinator::TransactionCoordinator;
use super::dispatch::{Dispatch, Workers};
use super::message::{
    Absorb, Arrived, Beat, ChildStopped, DeathWatch, Discard, EpochReport, EpochSealed, Flush, Panic, Seal,
};
use super::pulse::Pulse;
use super::shared::Shared;
use crate::batch::TableBatch;
use crate::failpoint::failpoint;
use crate::flight::{EpochId, InFlight, Submission};
use crate::hash::HashMap;
use crate::label::ActorKind;

/// How often it looks for units that were on their way to a dead supervisor, and for signs of life.
const SWEEP: Duration = Duration::from_millis(500);

struct Children {
    in_flight: Arc<InFlight>,
    supervisor: Addr<Supervisor>,
    entities: Addr<EntityBatcher>,
    connections: Addr<ConnectionBatcher>,
    mentions: Addr<MentionBatcher>,
    coordinator: Addr<TransactionCoordinator>,
}

impl Children {
    /// Gives a sign of life, and asks the children for theirs.
    fn beat(&self, pulse: &Arc<Pulse>) {
        pulse.beat(ActorKind::Supervisor);
        self.entities.do_send(Beat(Arc::clone(pulse)));
        self.connections.do_send(Beat(Arc::clone(pulse)));
        self.mentions.do_send(Beat(Arc::clone(pulse)));
        self.coordinator.do_send(Beat(Arc::clone(pulse)));
    }
}

impl Workers for Children {
    /// From now on these units are stored side by side.
    fn absorb(&self, epoch: EpochId, submissions: &[Arc<Submission>]) {
        let units = self.in_flight.gather(submissions.iter().map(|submission| &**submission));
        let absorb = Absorb { epoch, units: units.into() };
        self.entities.do_send(absorb.clone());
        failpoint("supervisor::absorb");
        self.connections.do_send(absorb.clone());
        self.mentions.do_send(absorb);
    }

    fn seal(&self, epoch: EpochId, lane: usize, submissions: Vec<Arc<Submission>>) {
        let seal = Seal { epoch, to: self.coordinator.clone().recipient() };
        self.entities.do_send(seal.clone());
        failpoint("supervisor::seal");
        self.connections.do_send(seal.clone());
        self.mentions.do_send(seal);
        failpoint("supervisor::sealed");
        self.coordinator.do_send(EpochSealed { epoch, lane, submissions });
    }

    fn discard(&self, below: EpochId) {
        self.entities.do_send(Discard { below });
        self.connections.do_send(Discard { below });
        self.mentions.do_send(Discard { below });
        self.coordinator.do_send(Discard { below });
    }

    fn announce_arrivals(&self) {
        self.supervisor.do_send(Arrived);
    }
}

/// See the module's documentation, and `actor/mod.rs` for the protocol.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    dispatch: Dispatch,
    children: Option<Children>,
    /// Counts children, so that each has its own number.
    incarnations: u64,
    current: HashMap<ActorKind, u64>,
    /// Dropped with this supervisor, which resolves the receiver.
    _alive: tokio::sync::oneshot::Sender<()>,
    /// Notified when there were too many deaths.
    give_up: Arc<tokio::sync::Notify>,
}

impl Supervisor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        alive: tokio::sync::oneshot::Sender<()>,
        give_up: Arc<tokio::sync::Notify>,
    ) -> Self {
        let dispatch = Dispatch::new(Arc::clone(&shared.in_flight), shared.lanes.len(), shared.max_batch_rows);
        Self { shared, dispatch, children: None, incarnations: 0, current: HashMap::default(), _alive: alive, give_up }
    }

    fn watch(&mut self, child: ActorKind, context: &Context<Self>) -> DeathWatch {
        self.incarnations += 1;
        self.current.insert(child, self.incarnations);
        DeathWatch { supervisor: context.address().recipient(), child, incarnation: self.incarnations }
    }

    fn start_batcher<B: TableBatch>(&mut self, child: ActorKind, context: &Context<Self>) -> Addr<Batcher<B>> {
        Batcher::new(self.watch(child, context)).start()
    }

    fn start_coordinator(&mut self, context: &Context<Self>) -> Addr<TransactionCoordinator> {
        let next = self.shared.in_flight.next_epoch();
        let watch = self.watch(ActorKind::TransactionCoordinator, context);
        TransactionCoordinator::new(Arc::clone(&self.shared), next, context.address().recipient(), watch).start()
    }

    /// Restarts a child that died.
    fn restart(&mut self, child: ActorKind, context: &Context<Self>) {
        let Some(mut children) = self.children.take() else { return };
        match child {
            ActorKind::EntityBatcher => children.entities = self.start_batcher(child, context),
            ActorKind::ConnectionBatcher => children.connections = self.start_batcher(child, context),
            ActorKind::MentionBatcher => children.mentions = self.start_batcher(child, context),
            ActorKind::TransactionCoordinator => children.coordinator = self.start_coordinator(context),
            // The engine's thread starts it again.
            ActorKind::Supervisor => {}
        }
        self.children = Some(children);
    }

    /// Runs a dispatch step with the children as workers. They exist from the start on.
    fn dispatch(&mut self, what: impl FnOnce(&mut Dispatch, &Children)) {
        if let Some(children) = &self.children {
            what(&mut self.dispatch, children);
        }
    }

    fn beat(&self) {
        if let Some(children) = &self.children {
            children.beat(&self.shared.pulse);
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.children = Some(Children {
            in_flight: Arc::clone(&self.shared.in_flight),
            supervisor: context.address(),
            entities: self.start_batcher(ActorKind::EntityBatcher, context),
            connections: self.start_batcher(ActorKind::ConnectionBatcher, context),
            mentions: self.start_batcher(ActorKind::MentionBatcher, context),
            coordinator: self.start_coordinator(context),
        });
        // Routes the units that an earlier supervisor left, and those that were on their way to it.
        self.dispatch(Dispatch::start_over);
        self.beat();
        context.run_interval(SWEEP, |supervisor, _| {
            supervisor.beat();
            supervisor.dispatch(Dispatch::sweep);
        });
    }
}

impl Handler<Arrived> for Supervisor {
    type Result = ();

    fn handle(&mut self, Arrived: Arrived, _: &mut Context<Self>) {
        self.dispatch(Dispatch::arrived);
    }
}

impl Handler<Flush> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Context<Self>) {
        self.dispatch(Dispatch::flush);
    }
}

impl Handler<EpochReport> for Supervisor {
    type Result = ();

    fn handle(&mut self, report: EpochReport, _: &mut Context<Self>) {
        self.dispatch(|dispatch, children| match report {
            EpochReport::Failing(epoch) => dispatch.failing(epoch),
            EpochReport::Finished { epoch, wrote } => dispatch.finished(epoch, wrote, children),
        });
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
        self.restart(child, context);
        self.dispatch(Dispatch::start_over);
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
