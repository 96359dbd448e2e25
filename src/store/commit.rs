//! Commits an epoch and gives each of its units an outcome.
//!
//! The [`Runner`] attempts the epoch, and isolates its bad units where PostgreSQL refuses something. Units that the
//! algorithm of the epoch itself identifies as bad are rejected, and the others are attempted again. Every unit gets
//! exactly one outcome, and a unit is rejected only for an error that it caused alone.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::{Span, field};
use uuid::Uuid;

use super::attempt::{Group, Members, Runner, Slow, Work};
use super::dead_letter::DeadLetters;
use super::health::{Refusals, TableShape};
use super::rejection::{blamed_row, rejection};
use super::session::{Session, Sessions};
use super::transaction::Transaction;
use crate::batch::{Clock, Epoch, KnownNames, Names, Novelty, Remembered, Repeats, WriteError, Written, write_epoch};
use crate::config::{AsOf, Config};
use crate::error::StoreError;
use crate::label::Reaction;
use crate::outcome::{CommittedUnit, Disposition, Outcome, Rejection, Unavailable, UnavailableCause};
use crate::record::Table;
use crate::unit::SharedUnit;

/// Relative tolerance of a stored score: as long as the clock changed it by less than this, re-observed rows without
/// new facts write nothing. It is the decay of about an hour and a half.
const SCORE_TOLERANCE: f64 = 1e-3;

/// Observes the fate of an epoch's units, by their index.
pub(crate) trait EpochObserver: Send {
    /// The epoch's number, for the log.
    fn number(&self) -> u64;
    /// An attempt with this id is about to write these units.
    fn attempted(&mut self, attempt: Uuid, units: &[usize]);
    /// A commit of these units is about to be sent. Returns false if one of them was abandoned: then it is not sent.
    fn begin_commit(&mut self, units: &[usize]) -> bool;
    /// The commit of these units did not take place.
    fn commit_failed(&mut self, units: &[usize]);
    /// These units were or are being abandoned, so there are no more attempts; some already have their outcome.
    fn given_up(&mut self, units: &[usize]);
    /// An attempt failed, with this reaction.
    fn failed(&mut self, error: &StoreError, reaction: Reaction);
    /// A transaction committed `epoch`.
    fn committed(&mut self, epoch: &Epoch, written: &Written, took: Duration);
    /// This number of rejected units was stored as dead letters.
    fn kept_dead_letters(&mut self, units: usize);
    /// These units have their outcome: what was committed of each.
    fn settled_committed(&mut self, units: &[usize], committed: &mut dyn Iterator<Item = CommittedUnit>);
    /// A unit has its outcome.
    fn settled(&mut self, unit: usize, outcome: Outcome);
}

/// Commits epochs.
#[derive(Debug)]
pub(super) struct EpochStore {
    runner: Arc<Runner>,
    sessions: Arc<Sessions>,
    shape: Arc<TableShape>,
    refusals: Refusals,
    known_names: KnownNames,
    novelty: Novelty,
    repeats: Repeats,
    as_of: AsOf,
    /// If rejected units are kept in the database.
    dead_letters: Option<DeadLetters>,
}

impl EpochStore {
    pub(super) fn new(
        config: &Config,
        runner: &Arc<Runner>,
        sessions: &Arc<Sessions>,
        shape: &Arc<TableShape>,
        dead_letters: &DeadLetters,
    ) -> Self {
        Self {
            runner: Arc::clone(runner),
            sessions: Arc::clone(sessions),
            shape: Arc::clone(shape),
            refusals: Refusals::default(),
            known_names: KnownNames::new(config.known_names_max),
            novelty: Novelty::new(),
            repeats: Repeats::default(),
            as_of: config.as_of,
            dead_letters: config.dead_letters.then(|| dead_letters.clone()),
        }
    }

    /// Whether ids of names are remembered from one transaction to the next.
    pub(super) fn remembers_names(&self) -> bool {
        self.known_names.is_on()
    }

    /// Commits an epoch, without its bad units, and reports the outcome of each unit to `observer`.
    pub(super) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        let units: Vec<SharedUnit> = epoch.shared_units().to_vec();
        let whole = GroupOfUnits { indexes: (0..units.len()).collect(), epoch: epoch.into() };
        let mut commit = EpochCommit { store: self, units, rejected: Vec::new(), deadline, observer };
        self.runner.run(&mut commit, VecDeque::from([Group::new(whole)])).await;
        commit.settle_rejected().await;
    }
}

/// Units that are attempted together, by their index.
struct GroupOfUnits {
    indexes: Vec<usize>,
    /// Their coalesced rows: at first those of the whole epoch, later made when the group is attempted.
    epoch: OnceLock<Epoch>,
}

impl From<Vec<usize>> for GroupOfUnits {
    fn from(indexes: Vec<usize>) -> Self {
        Self { indexes, epoch: OnceLock::new() }
    }
}

impl Members for GroupOfUnits {
    fn count(&self) -> usize {
        self.indexes.len()
    }

    fn halves(mut self) -> [Self; 2] {
        let right = self.indexes.split_off(self.indexes.len() / 2);
        [self.indexes.into(), right.into()]
    }
}

/// An epoch until each of its units has an outcome.
struct EpochCommit<'a> {
    store: &'a EpochStore,
    units: Vec<SharedUnit>,
    /// Rejected units that are stored before their outcome is delivered.
    rejected: Vec<(usize, Rejection)>,
    deadline: Instant,
    observer: &'a mut dyn EpochObserver,
}

/// Why a group is not committed although nothing failed.
enum Stopped {
    /// Bad units of the group, by their position in it.
    Rejected(Vec<(usize, Rejection)>),
    /// The engine abandoned units of the group during the transaction.
    GivenUp,
}

impl EpochCommit<'_> {
    fn epoch<'a>(&self, group: &'a Group<GroupOfUnits>) -> &'a Epoch {
        let GroupOfUnits { indexes, epoch } = &group.members;
        epoch.get_or_init(|| Epoch::from_units(indexes.iter().map(|unit| self.units[*unit].clone()).collect()))
    }

    /// Rejects a unit. If rejected units are kept, its outcome waits until its neighbours have theirs, so that they
    /// need not wait for the dead letter.
    fn reject_unit(&mut self, unit: usize, rejection: Rejection) {
        if self.store.dead_letters.is_some() {
            self.rejected.push((unit, rejection));
        } else {
            self.observer.settled(unit, Outcome::Rejected(rejection));
        }
    }

    /// Stores rejected units as dead letters, and then delivers their outcomes.
    async fn settle_rejected(self) {
        let Some(dead_letters) = self.store.dead_letters.as_ref().filter(|_| !self.rejected.is_empty()) else { return };
        let letters: Vec<_> =
            self.rejected.iter().map(|(unit, rejection)| (self.units[*unit].get(), rejection)).collect();
        let kept = dead_letters.keep(&letters, self.deadline).await;
        self.observer.kept_dead_letters(kept.iter().flatten().count());
        for ((unit, mut rejection), dead_letter) in self.rejected.into_iter().zip(kept) {
            rejection.dead_letter = dead_letter;
            self.observer.settled(unit, Outcome::Rejected(rejection));
        }
    }
}

impl Work for EpochCommit<'_> {
    type Members = GroupOfUnits;
    type Written = Written;
    type Stopped = Stopped;

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn begin(&mut self, group: &Group<GroupOfUnits>, attempt: Uuid) -> Span {
        let (epoch, units) = (self.epoch(group), &group.members.indexes);
        self.observer.attempted(attempt, units);
        tracing::debug_span!(
            "transaction", %attempt, attempts = group.attempts.made, units = units.len(),
            entities = epoch.coalesced(Table::Entities), connections = epoch.coalesced(Table::Connections),
            mentions = epoch.coalesced(Table::Mentions), lock_wait_ms = field::Empty,
        )
    }

    async fn write(
        &mut self,
        group: &Group<GroupOfUnits>,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Written, Stopped>, StoreError> {
        let EpochStore { shape, known_names, novelty, repeats, as_of, .. } = self.store;
        let score_tolerance = if *as_of == AsOf::Clock { SCORE_TOLERANCE } else { 0.0 };
        let clock = Clock { as_of: as_of.now(), score_tolerance };
        let (epoch, copying) = (self.epoch(group), shape.copying());
        let transaction = Transaction::new(session, begin, attempt, &copying, epoch.coalesced(Table::Mentions));
        let known = (!group.attempts.looks_up).then_some(known_names).filter(|known| known.is_on());
        let names = Names { known, session: session.number() };
        // Later attempts take the usual way, so that no unit is rejected for what a guess leads to.
        let is_first = group.attempts.made == 1 && group.members.count() == self.units.len();
        let remembered = Remembered {
            names,
            novelty: known_names.is_on().then_some(novelty),
            may_guess: is_first,
            expects_repeats: is_first && repeats.are_expected(),
        };
        match write_epoch(&transaction, epoch, remembered, clock).await {
            Ok(written) => Ok(Ok(written)),
            Err(WriteError::Rejected(units)) => Ok(Err(Stopped::Rejected(units))),
            Err(WriteError::Tables(error)) => Err(error),
        }
    }

    fn judge(&self, group: &Group<GroupOfUnits>, error: StoreError) -> StoreError {
        if group.held_back { self.store.refusals.judge(error) } else { error }
    }

    fn begin_commit(&mut self, group: &Group<GroupOfUnits>) -> Result<(), Stopped> {
        if self.observer.begin_commit(&group.members.indexes) { Ok(()) } else { Err(Stopped::GivenUp) }
    }

    fn commit_failed(&mut self, group: &Group<GroupOfUnits>) {
        self.observer.commit_failed(&group.members.indexes);
    }

    fn committed(&mut self, group: &Group<GroupOfUnits>, written: &Written, start: Instant) {
        let inserted = written.dispositions.iter().filter(|(_, row)| *row == Disposition::Inserted).count();
        self.store.sessions.inserted(inserted);
        self.store.refusals.got_through(start);
        self.store.known_names.remember(&written.learned);
        self.store.repeats.observe(written.repeated);
        self.observer.committed(self.epoch(group), written, start.elapsed());
    }

    fn name_of(stopped: &Stopped) -> &'static str {
        match stopped {
            Stopped::Rejected(_) => "rejected",
            Stopped::GivenUp => "given up",
        }
    }

    fn log_slow(&self, group: &Group<GroupOfUnits>, slow: &Slow<'_>) {
        let epoch = self.epoch(group);
        tracing::warn!(
            epoch = self.observer.number(), attempt = %slow.attempt, units = group.members.count(),
            entities = epoch.coalesced(Table::Entities), connections = epoch.coalesced(Table::Connections),
            mentions = epoch.coalesced(Table::Mentions), end = slow.end, took_ms = slow.took.as_millis() as u64,
            pool_wait_ms = slow.pool_wait.as_millis() as u64, lock_wait_ms = slow.lock_wait.as_millis() as u64,
            statements = %slow.statements, "slow transaction"
        );
    }

    fn settle(&mut self, group: Group<GroupOfUnits>, written: Written) {
        let committed = &mut self.epoch(&group).committed(&written.rows);
        self.observer.settled_committed(&group.members.indexes, committed);
    }

    /// Rejects bad units; the others are attempted again.
    fn stopped(&mut self, group: Group<GroupOfUnits>, stopped: Stopped) -> Option<Group<GroupOfUnits>> {
        let Group { members, attempts, held_back } = group;
        let rejections = match stopped {
            Stopped::Rejected(rejections) => rejections,
            // Only an ending engine abandons units: all of them, one after the other.
            Stopped::GivenUp => {
                self.observer.given_up(&members.indexes);
                return None;
            }
        };
        let mut rejected = vec![false; members.count()];
        for (index, rejection) in rejections {
            rejected[index] = true;
            self.reject_unit(members.indexes[index], rejection);
        }
        let rest = members.indexes.into_iter().zip(rejected).filter(|(_, rejected)| !rejected);
        let rest: Vec<usize> = rest.map(|(unit, _)| unit).collect();
        (!rest.is_empty()).then(|| Group { members: rest.into(), attempts, held_back })
    }

    fn failed(&mut self, error: &StoreError, reaction: Reaction) {
        if error.sqlstate() == Some("23503") {
            self.store.known_names.forget();
        }
        self.observer.failed(error, reaction);
    }

    /// A unit that is one of many that were refused for the same reason is attempted once more.
    fn reject(&mut self, group: Group<GroupOfUnits>, error: &StoreError) -> Option<Group<GroupOfUnits>> {
        if self.store.refusals.repeat(error) {
            return Some(group);
        }
        self.store.refusals.refused(error);
        let unit = group.members.indexes[0];
        self.reject_unit(unit, rejection(error, blamed_row(error, self.units[unit].get())));
        None
    }

    fn log_retry(&self, group: &Group<GroupOfUnits>, error: &StoreError, pause: Duration) {
        tracing::warn!(
            error = %error, attempt = group.attempts.made, units = group.members.count(),
            pause_ms = pause.as_millis() as u64, "transaction failed, will try again"
        );
    }

    fn give_up(&mut self, group: Group<GroupOfUnits>, error: &Arc<StoreError>, commit_under_way: bool) {
        tracing::error!(error = %error, units = group.members.count(), "the deadline passed without an outcome");
        let cause = UnavailableCause::Database(Arc::clone(error));
        for unit in group.members.indexes {
            let cause = cause.clone();
            let unavailable = Unavailable { commit_under_way, attempts: group.attempts.made, cause };
            self.observer.settled(unit, Outcome::Unavailable(unavailable));
        }
    }
}
