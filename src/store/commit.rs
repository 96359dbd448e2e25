//! Commits an epoch and gives each of its units an outcome: retries, isolation of bad units.
//!
//! One loop over groups of units. A group is attempted as one transaction; then
//!
//! - it committed: its units are committed;
//! - some of its units are identified as bad: they are rejected, the others are attempted again;
//! - it failed for a transient reason: it is attempted again after a pause, until the deadline;
//! - one of its rows is refused: each of its halves is attempted separately; a unit that fails alone is rejected. `k`
//!   bad units among `n` cost about `k * log2(n)` more transactions.
//!
//! Every unit gets exactly one outcome, and a unit is rejected only for an error that it caused
//! alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{Instrument, Span, field};
use uuid::Uuid;

use super::attempt::{Attempts, Ended, Next, Slow, Work, after_failure};
use super::health::Permit;
use super::postgres::Store;
use super::session::Session;
use super::transaction::Transaction;
use crate::batch::{Clock, Epoch, Names, WriteError, Written, write_epoch};
use crate::config::AsOf;
use crate::error::StoreError;
use crate::label::Reaction;
use crate::outcome::{Committed, Disposition, Outcome, RejectReason, Rejection, Unavailable, UnavailableCause};
use crate::record::Table;
use crate::unit::{Row, Unit};

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
    fn settled_committed(&mut self, units: &[usize], committed: Vec<Committed>);
    /// A unit has its outcome.
    fn settled(&mut self, unit: usize, outcome: Outcome);
}

/// Units that are attempted together.
struct Group {
    units: Vec<usize>,
    /// Already coalesced; at first for the whole epoch.
    epoch: Option<Epoch>,
    attempts: Attempts,
    /// Whether it is a single unit whose rejection was postponed, because many units before it were refused for the
    /// same reason.
    held_back: bool,
}

impl Group {
    fn new(units: Vec<usize>, epoch: Option<Epoch>) -> Self {
        Self { units, epoch, attempts: Attempts::default(), held_back: false }
    }
}

impl Store {
    /// Commits an epoch, without its bad units, and reports the outcome of each unit to `observer`.
    pub(crate) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        let units: Vec<Arc<Unit>> = epoch.units().to_vec();
        let whole = Group::new((0..units.len()).collect(), Some(epoch));
        let groups = VecDeque::from([whole]);
        EpochCommit { store: self, units, groups, rejected: Vec::new(), deadline, observer }.run().await;
    }
}

/// An epoch until each of its units has an outcome.
struct EpochCommit<'a> {
    store: &'a Store,
    units: Vec<Arc<Unit>>,
    /// Groups still to be attempted, in this order.
    groups: VecDeque<Group>,
    /// Rejected units that are stored before their outcome is delivered.
    rejected: Vec<(usize, Rejection)>,
    deadline: Instant,
    observer: &'a mut dyn EpochObserver,
}

impl EpochCommit<'_> {
    async fn run(mut self) {
        while let Some(group) = self.groups.pop_front() {
            match self.store.circuit.enter(self.deadline).instrument(tracing::trace_span!("circuit_wait")).await {
                Ok(permit) => self.attempt(group, permit).await,
                Err(cause) => self.give_up(&group, &cause, false),
            }
        }
        if !self.rejected.is_empty() {
            self.keep_dead_letters_then_settle().await;
        }
    }

    async fn attempt(&mut self, mut group: Group, permit: Permit<'_>) {
        let epoch = group.epoch.take().unwrap_or_else(|| {
            Epoch::from_units(group.units.iter().map(|unit| Arc::clone(&self.units[*unit])).collect())
        });
        group.attempts.made += 1;
        let work = EpochWork { store: self.store, epoch: &epoch, group: &group, observer: &mut *self.observer };
        match self.store.attempt(work, permit, self.deadline).await {
            Ended::Committed(written) => {
                self.observer.settled_committed(&group.units, written.units);
            }
            Ended::Stopped(Stopped::Rejected(rejections)) => self.without(group, rejections),
            // Only an ending engine abandons units: all of them, one after the other.
            Ended::Stopped(Stopped::GivenUp) => self.observer.given_up(&group.units),
            Ended::Failed(error) => {
                group.epoch = Some(epoch);
                self.failed(group, &error).await;
            }
            Ended::Unknown(error) => self.give_up(&group, &error, true),
        }
    }

    /// Rejects some units of the group; the others are attempted again.
    fn without(&mut self, mut group: Group, rejections: Vec<(usize, Rejection)>) {
        let mut rejected = vec![false; group.units.len()];
        for (index, rejection) in rejections {
            rejected[index] = true;
            self.reject(group.units[index], rejection);
        }
        let mut rejected = rejected.into_iter();
        group.units.retain(|_| !rejected.next().unwrap_or(false));
        if !group.units.is_empty() {
            self.groups.push_front(group);
        }
    }

    async fn failed(&mut self, mut group: Group, error: &Arc<StoreError>) {
        let next = after_failure(&mut group.attempts, error, group.units.len());
        if error.sqlstate() == Some("23503") {
            self.store.known_names.forget();
        }
        self.observer.failed(error, next.reaction());
        match next {
            // The others are attempted first: a success proves that the error is this unit's own fault.
            Next::Reject if self.store.refusals.repeat(error) => {
                group.held_back = true;
                self.groups.push_back(group);
            }
            Next::Reject => {
                self.store.refusals.refused(error);
                let unit = group.units[0];
                self.reject(unit, rejection(error, blamed_row(error, &self.units[unit])));
            }
            Next::Split => {
                let right = group.units.split_off(group.units.len() / 2);
                self.groups.push_front(Group::new(right, None));
                self.groups.push_front(Group::new(group.units, None));
            }
            Next::RetryAfter(pause) => self.retry(group, error, pause).await,
        }
    }

    async fn retry(&mut self, group: Group, error: &Arc<StoreError>, pause: Duration) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.give_up(&group, error, false);
            return;
        }
        // The circuit breaker has logged systemic errors.
        if !error.is_systemic() {
            tracing::warn!(
                error = %error, attempt = group.attempts.made, units = group.units.len(),
                pause_ms = pause.as_millis() as u64, "transaction failed, will try again"
            );
        }
        tokio::time::sleep(pause.min(left)).await;
        if group.held_back { self.groups.push_back(group) } else { self.groups.push_front(group) }
    }

    fn give_up(&mut self, group: &Group, error: &Arc<StoreError>, commit_under_way: bool) {
        tracing::error!(error = %error, units = group.units.len(), "the deadline passed without an outcome");
        let cause = UnavailableCause::Database(Arc::clone(error));
        for unit in &group.units {
            let cause = cause.clone();
            let unavailable = Unavailable { commit_under_way, attempts: group.attempts.made, cause };
            self.observer.settled(*unit, Outcome::Unavailable(unavailable));
        }
    }

    /// Rejects a unit. If rejected units are kept, its outcome waits until its neighbours have theirs, so that they
    /// need not wait for the dead letter.
    fn reject(&mut self, unit: usize, rejection: Rejection) {
        if self.store.dead_letters {
            self.rejected.push((unit, rejection));
        } else {
            self.observer.settled(unit, Outcome::Rejected(rejection));
        }
    }

    /// Stores rejected units as dead letters, and then delivers their outcomes.
    async fn keep_dead_letters_then_settle(self) {
        let letters: Vec<_> = self.rejected.iter().map(|(unit, rejection)| (&*self.units[*unit], rejection)).collect();
        let kept = self.store.keep_dead_letters(&letters, self.deadline).await;
        self.observer.kept_dead_letters(kept.iter().flatten().count());
        for ((unit, mut rejection), dead_letter) in self.rejected.into_iter().zip(kept) {
            rejection.dead_letter = dead_letter;
            self.observer.settled(unit, Outcome::Rejected(rejection));
        }
    }
}

/// A group of units as the work of an attempt.
struct EpochWork<'a> {
    store: &'a Store,
    epoch: &'a Epoch,
    group: &'a Group,
    observer: &'a mut dyn EpochObserver,
}

/// Why a group is not committed although nothing failed.
enum Stopped {
    /// Bad units of the epoch, by their index.
    Rejected(Vec<(usize, Rejection)>),
    /// The engine abandoned units of the group during the transaction.
    GivenUp,
}

impl Work for EpochWork<'_> {
    type Written = Written;
    type Stopped = Stopped;

    fn begin(&mut self, attempt: Uuid) -> Span {
        self.observer.attempted(attempt, &self.group.units);
        tracing::debug_span!(
            "transaction", %attempt, attempts = self.group.attempts.made, units = self.group.units.len(),
            entities = self.epoch.coalesced(Table::Entities), connections = self.epoch.coalesced(Table::Connections),
            mentions = self.epoch.coalesced(Table::Mentions), lock_wait_ms = field::Empty,
        )
    }

    async fn write(
        &mut self,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Written, Stopped>, StoreError> {
        let as_of = self.store.as_of.now();
        let score_tolerance = if self.store.as_of == AsOf::Clock { SCORE_TOLERANCE } else { 0.0 };
        let copies = self.store.copies.load(Ordering::Relaxed);
        let transaction = Transaction { session, begin, attempt, copies };
        let known = (!self.group.attempts.looks_up).then_some(&*self.store.known_names).filter(|known| known.is_on());
        let names = Names { known, session: session.number() };
        match write_epoch(&transaction, self.epoch, names, Clock { as_of, score_tolerance }).await {
            Ok(written) => Ok(Ok(written)),
            Err(WriteError::Rejected(units)) => Ok(Err(Stopped::Rejected(units))),
            Err(WriteError::Tables(error)) => Err(error),
        }
    }

    fn judge(&self, error: StoreError) -> StoreError {
        if self.group.held_back { self.store.refusals.judge(error) } else { error }
    }

    fn begin_commit(&mut self) -> Result<(), Stopped> {
        if self.observer.begin_commit(&self.group.units) { Ok(()) } else { Err(Stopped::GivenUp) }
    }

    fn commit_failed(&mut self) {
        self.observer.commit_failed(&self.group.units);
    }

    fn committed(&mut self, written: &Written, start: Instant) {
        let inserted = written.dispositions.iter().filter(|(_, row)| *row == Disposition::Inserted).count();
        self.store.rows_written.fetch_add(inserted as u64, Ordering::Relaxed);
        self.store.refusals.got_through(start);
        self.store.known_names.remember(&written.learned);
        self.observer.committed(self.epoch, written, start.elapsed());
    }

    fn name_of(stopped: &Stopped) -> &'static str {
        match stopped {
            Stopped::Rejected(_) => "rejected",
            Stopped::GivenUp => "given up",
        }
    }

    fn log_slow(&self, slow: &Slow<'_>) {
        tracing::warn!(
            epoch = self.observer.number(), attempt = %slow.attempt, units = self.group.units.len(),
            entities = self.epoch.coalesced(Table::Entities), connections = self.epoch.coalesced(Table::Connections),
            mentions = self.epoch.coalesced(Table::Mentions), end = slow.end, took_ms = slow.took.as_millis() as u64,
            pool_wait_ms = slow.pool_wait.as_millis() as u64, lock_wait_ms = slow.lock_wait.as_millis() as u64,
            statements = %slow.statements, "slow transaction"
        );
    }
}

/// The rejection of a unit that failed alone.
pub(super) fn rejection(error: &StoreError, row: Option<Row>) -> Rejection {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let db = error.db();
    let constraint = db.and_then(|error| error.constraint());
    // A row that a trigger left out has no PostgreSQL error: the code is that of a change by a trigger.
    let (own_code, own_table) = match error {
        StoreError::LeftOut { table, .. } => ("27000", table.as_deref()),
        _ => ("XX000", None),
    };
    Rejection {
        reason: RejectReason::Database,
        sqlstate: error.sqlstate().unwrap_or(own_code).to_owned(),
        table: text(db.and_then(|error| error.table()).or(own_table)),
        column: text(db.and_then(|error| error.column())).or_else(|| column_of(constraint)),
        constraint: text(constraint),
        row,
        message: db.map_or_else(|| error.to_string(), |error| error.message().to_owned()),
        detail: text(db.and_then(|error| error.detail())),
        dead_letter: None,
    }
}

/// The column of a constraint; PostgreSQL names it only for some errors.
fn column_of(constraint: Option<&str>) -> Option<String> {
    match constraint? {
        "entities_google_place_id_key" => Some("google_place_id".to_owned()),
        "connections_restaurant_id_fkey" => Some("restaurant_id".to_owned()),
        "connections_dish_or_category_id_fkey" => Some("dish_or_category_id".to_owned()),
        _ => None,
    }
}

/// The row of the unit that an error is about: the only one of its table, or the one whose Google id the server's
/// detail quotes.
fn blamed_row(error: &StoreError, unit: &Unit) -> Option<Row> {
    let error = error.db()?;
    let only = |table, rows: usize| (rows == 1).then_some(Row { table, index: 0 });
    match error.table()? {
        "entities" if error.constraint() == Some("entities_google_place_id_key") => {
            let detail = error.detail().unwrap_or_default();
            let holds = |place: &crate::record::Place| {
                place.google_place_id.as_ref().is_some_and(|id| detail.contains(&format!("=({id})")))
            };
            let mut entities = 0..unit.block.entities.len();
            let index = entities.find(|entity| unit.place_of(*entity).is_some_and(|place| holds(place)))?;
            Some(Row { table: Table::Entities, index })
        }
        "entities" => only(Table::Entities, unit.block.entities.len()),
        "connections" => only(Table::Connections, unit.block.connections.len()),
        "mentions" => only(Table::Mentions, unit.block.mentions.len()),
        _ => None,
    }
}
