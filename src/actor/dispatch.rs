//! The supervisor's state without any actor: the lane and epoch of each unit, and the next step.
//!
//! A unit that was accepted and is not claimed by a transaction is in one of these places: on its way to the
//! supervisor, held, in an open epoch, or in a sealed epoch. In the first two it has no epoch
//! ([`Submission::is_unrouted`]). This is how the sweep finds units that were lost with a supervisor.
//!
//! A step that seals epochs routes the units that arrived before it does, so that they are in these epochs. At its end it
//! says whether a lane is free, so that each unit that arrives is announced.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::recent_writes::RecentWrites;
use super::routing::{LaneChoice, Routing};
use crate::failpoint::failpoint;
use crate::flight::{EpochId, InFlight, Submission};
use crate::telemetry;
use crate::unit::{FactHash, Unit};

/// A unit that was accepted this long ago is held no more. The conflicting epochs usually end sooner. If a unit is
/// routed to one lane while another lane still has its keys, its lane waits for the other's commit.
const HELD_MAX: Duration = Duration::from_secs(5);

/// Number of rows of an open epoch that are sent together: enough that they are worth a message to each batcher and
/// memory of their own, few enough that the last of them are soon absorbed when the epoch is sealed. Few in unit tests,
/// whose epochs are small.
const ROWS_SENT_TOGETHER: usize = if cfg!(test) { 4 } else { 1_024 };

/// The receivers of dispatched work: batchers and coordinator. Messages to one of them arrive in order, or not at all.
pub(super) trait Workers {
    /// Sends the next units of an epoch, at least one.
    fn absorb(&self, epoch: EpochId, submissions: &[Arc<Submission>]);
    /// Seals an epoch, which is complete and may be committed.
    fn seal(&self, epoch: EpochId, lane: usize, submissions: Vec<Arc<Submission>>);
    /// Discards the epochs below this one.
    fn discard(&self, below: EpochId);
    /// Sends the supervisor a message that units have arrived.
    fn announce_arrivals(&self);
}

/// Why an epoch is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealReason {
    /// Its lane has no other epoch to commit.
    LaneFree,
    /// It has the maximum number of rows.
    Full,
    /// A flush requested it.
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

/// A commit slot: at most one open epoch, and any number of sealed epochs that wait for their turn.
#[derive(Debug, Default)]
struct Lane {
    open: Option<OpenEpoch>,
    sealed: usize,
    /// Rows routed here and not finished, for choosing the lane with the fewest rows.
    rows: usize,
    /// The epoch whose transaction failed and is retried, possibly until the deadline of its units.
    failing: Option<EpochId>,
}

#[derive(Debug)]
struct OpenEpoch {
    epoch: EpochId,
    submissions: Vec<Arc<Submission>>,
    /// Number of submissions that were sent, and of rows of the others.
    sent: usize,
    unsent_rows: usize,
    /// Keys of its units that are under way.
    keys: Vec<u64>,
    /// Facts of its units that were not expected in the database.
    facts: Vec<u64>,
    rows: usize,
}

impl OpenEpoch {
    /// Sends its units that were not sent yet.
    fn send(&mut self, workers: &impl Workers) {
        if self.sent < self.submissions.len() {
            workers.absorb(self.epoch, &self.submissions[self.sent..]);
            self.sent = self.submissions.len();
            self.unsent_rows = 0;
        }
    }
}

/// The remembered part of a sealed epoch.
#[derive(Debug)]
struct Sealed {
    lane: usize,
    rows: usize,
    keys: Vec<u64>,
    facts: Vec<u64>,
}

/// A unit's possible conflicts with others; there are none if there is one lane.
#[derive(Debug, Clone, Default)]
struct Conflicts {
    /// The affinity, and the entities of the facts; see `routing.rs`.
    keys: Vec<u64>,
    /// Facts of the unit that are not expected in the database.
    facts: Vec<FactHash>,
}

impl Conflicts {
    fn collect(&mut self, unit: Unit<'_>, recent_writes: &mut RecentWrites) {
        self.facts.clear();
        self.facts.extend(unit.fact_hashes().filter(|fact| !recent_writes.expects(fact.fact)));
        self.set_keys(unit.affinity());
    }

    /// Facts may have been written meanwhile.
    fn update(&mut self, recent_writes: &mut RecentWrites) {
        if let Some(affinity) = self.keys.first().copied() {
            self.facts.retain(|fact| !recent_writes.expects(fact.fact));
            self.set_keys(affinity);
        }
    }

    fn set_keys(&mut self, affinity: u64) {
        self.keys.clear();
        self.keys.push(affinity);
        self.keys.extend(self.facts.iter().map(|fact| fact.entity));
        self.keys.dedup();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.facts.clear();
    }
}

/// A unit that may have to wait, because its keys are under way in several lanes.
#[derive(Debug)]
struct Held {
    submission: Arc<Submission>,
    rows: usize,
    conflicts: Conflicts,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Dispatch {
    in_flight: Arc<InFlight>,
    recent_writes: RecentWrites,
    max_batch_rows: usize,
    lanes: Vec<Lane>,
    sealed: BTreeMap<EpochId, Sealed>,
    routing: Routing,
    /// Oldest first; some may have been routed since.
    held: VecDeque<Held>,
    /// A buffer, reused from unit to unit.
    conflicts: Conflicts,
}

impl Dispatch {
    pub(super) fn new(in_flight: Arc<InFlight>, lanes: usize, max_batch_rows: usize) -> Self {
        Self {
            in_flight,
            recent_writes: RecentWrites::default(),
            max_batch_rows,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            sealed: BTreeMap::new(),
            routing: Routing::new(lanes),
            held: VecDeque::new(),
            conflicts: Conflicts::default(),
        }
    }

    /// Routes or holds the units that arrived.
    pub(super) fn arrived(&mut self, workers: &impl Workers) {
        self.route_arrivals(workers);
        self.end_step(workers);
    }

    fn route_arrivals(&mut self, workers: &impl Workers) {
        let held_before = self.held.len();
        for submission in self.in_flight.take_arrivals() {
            // Otherwise it was abandoned meanwhile.
            if submission.is_unrouted() {
                self.route_or_hold(submission, true, workers);
            }
        }
        self.gather_held(held_before);
    }

    fn end_step(&mut self, workers: &impl Workers) {
        self.seal_where_free(workers);
        if self.in_flight.await_arrivals(self.lanes.iter().any(|lane| lane.sealed == 0)) {
            // By a message: batchers and coordinator have their turn before.
            workers.announce_arrivals();
        }
    }

    /// Stores the units that are held since then side by side: their neighbours need the memory of their store no more
    /// once they are sent.
    fn gather_held(&self, since: usize) {
        if self.held.len() > since {
            self.in_flight.gather(self.held.iter().skip(since).map(|held| &*held.submission));
        }
    }

    /// Routes every held unit and seals every open epoch, whether or not a lane is free.
    pub(super) fn flush(&mut self, workers: &impl Workers) {
        self.route_arrivals(workers);
        self.route_held(false, workers);
        for lane in 0..self.lanes.len() {
            self.seal(lane, SealReason::Flush, workers);
        }
        self.end_step(workers);
    }

    /// Notes that an attempt of an epoch failed: until it ends, its lane is the last choice.
    pub(super) fn failing(&mut self, epoch: EpochId) {
        if let Some(Sealed { lane, .. }) = self.sealed.get(&epoch) {
            self.lanes[*lane].failing = Some(epoch);
        }
    }

    /// Notes that all units of an epoch have their outcome, or were routed elsewhere. `wrote`: at least one of them was
    /// committed, so the epoch's facts are expected from now on.
    pub(super) fn finished(&mut self, epoch: EpochId, wrote: bool, workers: &impl Workers) {
        let written = self.take_off(epoch).filter(|_| wrote);
        for fact in written.into_iter().flatten() {
            self.recent_writes.remember(fact);
        }
        self.route_held(true, workers);
        self.route_arrivals(workers);
        self.end_step(workers);
    }

    /// Routes every unit without an epoch: lost with a dead supervisor, or held. A unit that has waited too long is held
    /// no more.
    pub(super) fn sweep(&mut self, workers: &impl Workers) {
        self.in_flight.take_arrivals();
        // Units that arrived and held units are among those without an epoch.
        self.held.clear();
        for submission in self.in_flight.unrouted() {
            let may_wait = submission.accepted_at.elapsed() < HELD_MAX;
            self.route_or_hold(submission, may_wait, workers);
        }
        self.gather_held(0);
        self.end_step(workers);
    }

    /// After a death: routes every unit that no transaction has claimed again, under new epoch numbers. The old epochs'
    /// data in the batchers and the coordinator is discarded.
    pub(super) fn start_over(&mut self, workers: &impl Workers) {
        workers.discard(self.in_flight.new_epoch());
        failpoint("supervisor::route_again");
        self.in_flight.take_arrivals();
        let taken_back = self.in_flight.take_back();
        let epochs: HashSet<EpochId> = taken_back.iter().filter_map(|(epoch, _)| *epoch).collect();
        // Epochs with claimed units are being committed; their tasks will report them.
        let unfinished: Vec<EpochId> = self.sealed.keys().copied().filter(|epoch| epochs.contains(epoch)).collect();
        for epoch in unfinished {
            self.take_off(epoch);
        }
        for lane in &mut self.lanes {
            if let Some(open) = lane.open.take() {
                lane.rows -= open.rows;
                self.routing.leave(&open.keys);
            }
        }
        // Units that arrived and held units are among those taken back.
        self.held.clear();
        for (_, submission) in taken_back {
            self.route_or_hold(submission, true, workers);
        }
        self.gather_held(0);
        self.end_step(workers);
    }

    /// Routes a unit; or holds it, if it `may_wait` and has keys under way in several lanes.
    fn route_or_hold(&mut self, submission: Arc<Submission>, may_wait: bool, workers: &impl Workers) {
        let mut conflicts = std::mem::take(&mut self.conflicts);
        let unit = submission.unit();
        let rows = unit.get().rows();
        if self.routing.is_choice() {
            conflicts.collect(unit.get(), &mut self.recent_writes);
        } else {
            conflicts.clear();
        }
        drop(unit);
        if let Some(lane) = self.lane(&conflicts, may_wait) {
            self.route(submission, rows, lane, &conflicts, workers);
        } else {
            tracing::debug!(parent: &submission.span, "unit held: its rows are under way in several lanes");
            self.held.push_back(Held { submission, rows, conflicts: conflicts.clone() });
        }
        self.conflicts = conflicts;
    }

    /// Routes the held units that need not wait any more; all of them, unless they `may_wait`.
    fn route_held(&mut self, may_wait: bool, workers: &impl Workers) {
        for mut held in std::mem::take(&mut self.held) {
            // Otherwise the sweep already routed it. Routing it again would put its rows into one epoch twice, or into
            // two epochs.
            if !held.submission.is_unrouted() {
                continue;
            }
            held.conflicts.update(&mut self.recent_writes);
            if let Some(lane) = self.lane(&held.conflicts, may_wait) {
                self.route(held.submission, held.rows, lane, &held.conflicts, workers);
            } else {
                self.held.push_back(held);
            }
        }
    }

    /// The lane for a unit; `None` if it `may_wait` and has keys under way in several lanes.
    fn lane(&self, conflicts: &Conflicts, may_wait: bool) -> Option<usize> {
        match self.routing.lane_choice(&conflicts.keys) {
            LaneChoice::Any => Some(self.emptiest_lane()),
            LaneChoice::Several(_) if may_wait => None,
            LaneChoice::Lane(lane) | LaneChoice::Several(lane) => Some(lane),
        }
    }

    /// The lane with the fewest rows, preferably among lanes without a failing epoch: a lane with one may have few
    /// rows, and be blocked until the deadline of their units.
    fn emptiest_lane(&self) -> usize {
        let preference = |lane: &Lane| (lane.failing.is_some(), lane.rows);
        (0..self.lanes.len()).min_by_key(|lane| preference(&self.lanes[*lane])).unwrap_or(0)
    }

    /// Routes a unit to a lane and its rows to the batchers.
    fn route(
        &mut self,
        submission: Arc<Submission>,
        rows: usize,
        lane: usize,
        conflicts: &Conflicts,
        workers: &impl Workers,
    ) {
        let open = self.lanes[lane].open.as_ref();
        let epoch = open.map_or_else(|| self.in_flight.new_epoch(), |open| open.epoch);
        if !submission.route(epoch) {
            return;
        }
        let open = self.lanes[lane].open.get_or_insert_with(|| OpenEpoch {
            epoch,
            submissions: Vec::new(),
            sent: 0,
            unsent_rows: 0,
            keys: Vec::new(),
            facts: Vec::new(),
            rows: 0,
        });
        self.routing.enter(lane, &conflicts.keys);
        open.keys.extend_from_slice(&conflicts.keys);
        open.facts.extend(conflicts.facts.iter().map(|fact| fact.fact));
        failpoint("supervisor::route");
        open.rows += rows;
        open.unsent_rows += rows;
        open.submissions.push(submission);
        if open.unsent_rows >= ROWS_SENT_TOGETHER {
            open.send(workers);
        }
        let full = open.rows >= self.max_batch_rows;
        self.lanes[lane].rows += rows;
        if full {
            self.seal(lane, SealReason::Full, workers);
        }
    }

    /// Natural batching: while a lane commits, its next epoch grows; once the lane is free, that epoch is sealed.
    fn seal_where_free(&mut self, workers: &impl Workers) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].sealed == 0 {
                self.seal(lane, SealReason::LaneFree, workers);
            }
        }
    }

    fn seal(&mut self, lane: usize, reason: SealReason, workers: &impl Workers) {
        let Some(mut open) = self.lanes[lane].open.take() else { return };
        open.send(workers);
        let OpenEpoch { epoch, submissions, keys, facts, rows, .. } = open;
        tracing::debug!(epoch, lane, rows, units = submissions.len(), reason = reason.as_str(), "epoch sealed");
        telemetry::engine::epochs_sealed(reason.as_str()).increment(1);
        self.sealed.insert(epoch, Sealed { lane, rows, keys, facts });
        self.lanes[lane].sealed += 1;
        workers.seal(epoch, lane, submissions);
    }

    /// Removes an epoch from its lane, and returns its facts.
    fn take_off(&mut self, epoch: EpochId) -> Option<Vec<u64>> {
        failpoint("supervisor::finish");
        let Sealed { lane, rows, keys, facts } = self.sealed.remove(&epoch)?;
        self.routing.leave(&keys);
        let lane = &mut self.lanes[lane];
        lane.sealed -= 1;
        lane.rows -= rows;
        lane.failing.take_if(|failing| *failing == epoch);
        Some(facts)
    }
}

#[cfg(test)]
mod model;
