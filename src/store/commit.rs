//! From an epoch to an outcome for each of its units: retries, isolation of bad units, lost commits.
//!
//! One loop over groups of units. A group is tried as one transaction; then
//!
//! - it committed: its units are committed;
//! - some of its units are refused by name: they are rejected, the others are tried again;
//! - it failed for a passing reason: it is tried again after a pause, until the deadline;
//! - one of its rows is refused: its halves are tried, each by itself; a unit that fails alone is
//!   rejected. `k` bad units among `n` cost about `k * log2(n)` more transactions;
//! - its commit got no answer: the fence tells whether it took place.
//!
//! Every unit gets exactly one outcome, and a unit is rejected only for an error that it caused
//! alone.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::circuit::Permit;
use super::ending::CommitAnswer;
use super::fence::Fate;
use super::retry::{Next, Tries, after_failure};
use super::session::Session;
use super::transaction::Transaction;
use super::{Store, StoreError, answer};
use crate::batch::{Clock, Epoch, WriteError, Written, write_epoch};
use crate::config::AsOf;
use crate::failpoint::failpoint;
use crate::label::Reaction;
use crate::outcome::{Committed, Disposition, Outcome, RejectReason, Rejection, Unavailable, UnavailableCause};
use crate::record::Table;
use crate::unit::{Row, Unit};

/// The time for one try, however close the deadline is.
pub(super) const LAST_TRY: Duration = Duration::from_secs(5);
/// A stored score counts as up to date while the clock moved it by less than this part: re-observed
/// rows that say nothing new then write nothing. It is the decay of about an hour and a half.
const SCORE_TOLERANCE: f64 = 1e-3;

/// Hears what becomes of the units of an epoch, by their index.
pub(crate) trait EpochObserver: Send {
    /// The epoch's number, for who reads the log.
    fn number(&self) -> u64;
    /// The transaction `attempt` is about to try these units.
    fn attempted(&mut self, attempt: Uuid, units: &[usize]);
    /// A commit of these units is about to be sent. False if one of them was given up: then it is
    /// not sent.
    fn begin_commit(&mut self, units: &[usize]) -> bool;
    /// The commit of these units did not happen.
    fn commit_failed(&mut self, units: &[usize]);
    /// These units were or are being given up, so they are tried no more; some have their outcome already.
    fn given_up(&mut self, units: &[usize]);
    /// A try failed, and this follows.
    fn failed(&mut self, error: &StoreError, reaction: Reaction);
    /// A transaction committed what `epoch` says.
    fn committed(&mut self, epoch: &Epoch, written: &Written, took: Duration);
    /// So many of the rejected units were written down.
    fn kept_dead_letters(&mut self, units: usize);
    /// A unit has its outcome.
    fn settled(&mut self, unit: usize, outcome: Outcome);
}

/// Units that are tried together.
struct Group {
    units: Vec<usize>,
    /// Coalesced already, for the whole epoch at first.
    epoch: Option<Epoch>,
    tries: Tries,
    /// Whether it is one unit that would have been rejected, had not so many been before it for the same reason.
    held_back: bool,
}

impl Group {
    fn new(units: Vec<usize>, epoch: Option<Epoch>) -> Self {
        Self { units, epoch, tries: Tries::default(), held_back: false }
    }
}

/// How one transaction ended.
enum Attempted {
    Committed(Written),
    Rejected(Vec<(usize, Rejection)>),
    Failed(StoreError),
    /// Its commit was sent and not answered.
    Lost(Written, StoreError),
    /// The engine gave up units of the group while the transaction was at work.
    GivenUp,
}

impl Attempted {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Committed(_) => "committed",
            Self::Rejected(_) => "rejected",
            Self::Failed(_) => "failed",
            Self::Lost(..) => "commit not answered",
            Self::GivenUp => "given up",
        }
    }
}

/// How one try ended, when the truth about its commit was found out.
enum Tried {
    Committed(Vec<Committed>),
    Rejected(Vec<(usize, Rejection)>),
    Failed(Arc<StoreError>),
    /// The deadline came before the fate of a commit was known.
    Unknown(Arc<StoreError>),
    GivenUp,
}

impl Store {
    /// Commits an epoch, or what is good of it, and tells `observer` the outcome of each unit.
    pub(crate) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        let units: Vec<Arc<Unit>> = epoch.units().to_vec();
        let whole = Group::new((0..units.len()).collect(), Some(epoch));
        let mut groups = VecDeque::from([whole]);
        let mut rejected = Vec::new();
        while let Some(mut group) = groups.pop_front() {
            let permit = match self.circuit.enter(deadline).instrument(tracing::trace_span!("circuit_wait")).await {
                Ok(permit) => permit,
                Err(cause) => {
                    give_up(&group, &cause, false, observer);
                    continue;
                }
            };
            let epoch = group.epoch.take().unwrap_or_else(|| {
                Epoch::from_units(group.units.iter().map(|unit| Arc::clone(&units[*unit])).collect())
            });
            group.tries.attempts += 1;
            // New for every attempt, so that the fence of one never meets another.
            let attempt = Uuid::now_v7();
            observer.attempted(attempt, &group.units);
            match self.try_once(attempt, &epoch, &group, permit, deadline, observer).await {
                Tried::Committed(committed) => {
                    for (unit, committed) in group.units.iter().zip(committed) {
                        observer.settled(*unit, Outcome::Committed(committed));
                    }
                }
                Tried::Rejected(rejections) => {
                    let mut refused = vec![false; group.units.len()];
                    for (index, rejection) in rejections {
                        refused[index] = true;
                        self.reject(group.units[index], rejection, &mut rejected, observer);
                    }
                    let mut refused = refused.into_iter();
                    group.units.retain(|_| !refused.next().unwrap_or(false));
                    if !group.units.is_empty() {
                        groups.push_front(group);
                    }
                }
                Tried::Failed(error) => {
                    let next = after_failure(&mut group.tries, &error, group.units.len());
                    observer.failed(&error, next.reaction());
                    match next {
                        // First the others are tried: what gets through proves that it is this unit's own fault.
                        Next::Reject if self.refusals.repeat(&error) => {
                            group.held_back = true;
                            group.epoch = Some(epoch);
                            groups.push_back(group);
                        }
                        Next::Reject => {
                            self.refusals.refused(&error);
                            let unit = group.units[0];
                            self.reject(
                                unit,
                                rejection(&error, blamed_row(&error, &units[unit])),
                                &mut rejected,
                                observer,
                            );
                        }
                        Next::Split => {
                            let right = group.units.split_off(group.units.len() / 2);
                            groups.push_front(Group::new(right, None));
                            groups.push_front(Group::new(group.units, None));
                        }
                        Next::RetryAfter(pause) => {
                            let left = deadline.saturating_duration_since(Instant::now());
                            if left.is_zero() {
                                give_up(&group, &error, false, observer);
                                continue;
                            }
                            // Of the others the circuit has told.
                            if !error.is_systemic() {
                                tracing::warn!(
                                    error = %error, attempt = group.tries.attempts, units = group.units.len(),
                                    pause_ms = pause.as_millis() as u64, "transaction failed, will try again"
                                );
                            }
                            tokio::time::sleep(pause.min(left)).await;
                            group.epoch = Some(epoch);
                            if group.held_back { groups.push_back(group) } else { groups.push_front(group) }
                        }
                    }
                }
                Tried::Unknown(error) => give_up(&group, &error, true, observer),
                // Only an engine that ends gives units up, all of them, one after the other.
                Tried::GivenUp => observer.given_up(&group.units),
            }
        }
        if !rejected.is_empty() {
            self.keep_dead_letters_then_settle(rejected, &units, deadline, observer).await;
        }
    }

    /// Tells a unit that it is rejected. If rejected units are kept it waits, until its neighbours have
    /// their outcomes: they need not wait for that.
    fn reject(
        &self,
        unit: usize,
        rejection: Rejection,
        waiting: &mut Vec<(usize, Rejection)>,
        observer: &mut dyn EpochObserver,
    ) {
        if self.dead_letters {
            waiting.push((unit, rejection));
        } else {
            observer.settled(unit, Outcome::Rejected(rejection));
        }
    }

    /// Keeps rejected units, and then tells them.
    async fn keep_dead_letters_then_settle(
        &self,
        mut rejected: Vec<(usize, Rejection)>,
        units: &[Arc<Unit>],
        deadline: Instant,
        observer: &mut dyn EpochObserver,
    ) {
        let letters: Vec<_> = rejected.iter().map(|(unit, rejection)| (&*units[*unit], rejection)).collect();
        let kept = self.keep_dead_letters(&letters, deadline).await;
        observer.kept_dead_letters(kept.iter().flatten().count());
        for ((_, rejection), dead_letter) in rejected.iter_mut().zip(kept) {
            rejection.dead_letter = dead_letter;
        }
        for (unit, rejection) in rejected {
            observer.settled(unit, Outcome::Rejected(rejection));
        }
    }

    /// One transaction, and the truth about it.
    async fn try_once(
        &self,
        attempt: Uuid,
        epoch: &Epoch,
        group: &Group,
        permit: Permit<'_>,
        deadline: Instant,
        observer: &mut dyn EpochObserver,
    ) -> Tried {
        let span = tracing::debug_span!(
            "transaction", %attempt, attempts = group.tries.attempts, units = group.units.len(),
            entities = epoch.entities.rows().len(), connections = epoch.connections.rows().len(),
            mentions = epoch.mentions.rows().len(),
        );
        let tried = async {
            let start = Instant::now();
            match self.attempt(attempt, epoch, group, deadline, observer).await {
                Attempted::Committed(written) => {
                    permit.report(None);
                    self.committed(epoch, written, start, observer)
                }
                Attempted::Rejected(rejected) => {
                    permit.report(None);
                    Tried::Rejected(rejected)
                }
                Attempted::GivenUp => {
                    permit.report(None);
                    Tried::GivenUp
                }
                Attempted::Failed(error) => {
                    let error = Arc::new(error);
                    permit.report(Some(&error));
                    Tried::Failed(error)
                }
                Attempted::Lost(written, error) => {
                    let error = Arc::new(error);
                    // Before the fence is asked, which has to pass the circuit itself.
                    permit.report(Some(&error));
                    tracing::warn!(error = %error, "a commit got no answer, asking the fence");
                    match self.fate_of(attempt, deadline).await {
                        Fate::Committed => self.committed(epoch, written, start, observer),
                        Fate::Aborted => {
                            observer.commit_failed(&group.units);
                            Tried::Failed(error)
                        }
                        Fate::Unknown => Tried::Unknown(error),
                    }
                }
            }
        };
        tried.instrument(span).await
    }

    fn committed(&self, epoch: &Epoch, written: Written, start: Instant, observer: &mut dyn EpochObserver) -> Tried {
        let inserted = written.dispositions.iter().filter(|(_, row)| *row == Disposition::Inserted).count();
        self.rows_written.fetch_add(inserted as u64, Ordering::Relaxed);
        self.refusals.got_through(start);
        observer.committed(epoch, &written, start.elapsed());
        Tried::Committed(written.units)
    }

    /// One transaction, from its session to the answer to its commit.
    async fn attempt(
        &self,
        attempt: Uuid,
        epoch: &Epoch,
        group: &Group,
        deadline: Instant,
        observer: &mut dyn EpochObserver,
    ) -> Attempted {
        let start = Instant::now();
        let mut session = match self.session().await {
            Ok(session) => session,
            Err(error) => return Attempted::Failed(error),
        };
        let pool_wait = start.elapsed();
        let attempted = self.attempt_on(&mut session, attempt, epoch, group, deadline, observer).await;
        let took = start.elapsed();
        if took > self.slow_transaction {
            // Names and numbers only, no values.
            tracing::warn!(
                epoch = observer.number(), %attempt, units = group.units.len(),
                entities = epoch.entities.rows().len(), connections = epoch.connections.rows().len(),
                mentions = epoch.mentions.rows().len(), end = attempted.as_str(), took_ms = took.as_millis() as u64,
                pool_wait_ms = pool_wait.as_millis() as u64, statements = %session.timeline, "slow transaction"
            );
        }
        attempted
    }

    async fn attempt_on(
        &self,
        session: &mut Session,
        attempt: Uuid,
        epoch: &Epoch,
        group: &Group,
        deadline: Instant,
        observer: &mut dyn EpochObserver,
    ) -> Attempted {
        let written = AssertUnwindSafe(self.write(session, attempt, epoch, deadline)).catch_unwind();
        // A panic is a bug of ours, perhaps with one unit only: treated like an error that nobody knows.
        let written = match written.await.unwrap_or_else(|_| Err(StoreError::Panicked.into())) {
            Ok(written) => written,
            Err(WriteError::Rejected(rejected)) => {
                self.roll_back(session).await;
                return Attempted::Rejected(rejected);
            }
            Err(WriteError::Tables(error)) => {
                let error = self.clean_up(session, error).await;
                let error = self.explain(error).await;
                return Attempted::Failed(if group.held_back { self.refusals.judge(error) } else { error });
            }
        };
        // Every statement was awaited and was good, so the server cannot answer ROLLBACK here.
        if !observer.begin_commit(&group.units) {
            // Dropped with its transaction in it, which the server then rolls back.
            return Attempted::GivenUp;
        }
        match self.commit_attempt(session, attempt).await {
            CommitAnswer::Committed => Attempted::Committed(written),
            CommitAnswer::Aborted(error) => {
                observer.commit_failed(&group.units);
                Attempted::Failed(error)
            }
            CommitAnswer::None(error) => Attempted::Lost(written, error),
        }
    }

    /// Everything up to the commit.
    async fn write(
        &self,
        session: &mut Session,
        attempt: Uuid,
        epoch: &Epoch,
        deadline: Instant,
    ) -> Result<Written, WriteError<StoreError>> {
        failpoint("store::write");
        // Close to the deadline there is time for one more honest try.
        let limit = deadline.saturating_duration_since(Instant::now()).max(LAST_TRY);
        // A session that keeps silent from now on is not used again.
        session.enter_transaction();
        answer(self.silence().min(limit), session.prepare()).await?.map_err(StoreError::Begin)?;
        let (begin, as_of) = (self.begin(session), self.as_of.now());
        let score_tolerance = if self.as_of == AsOf::Clock { SCORE_TOLERANCE } else { 0.0 };
        let copies = self.copies.load(Ordering::Relaxed);
        let transaction = Transaction { session, begin: &begin, attempt, copies };
        let written = Box::pin(async {
            let written = write_epoch(&transaction, epoch, Clock { as_of, score_tolerance }).await;
            failpoint("store::written");
            written
        });
        session.while_answering(self.silence(), limit, written).await
    }
}

fn give_up(group: &Group, error: &Arc<StoreError>, commit_under_way: bool, observer: &mut dyn EpochObserver) {
    tracing::error!(error = %error, units = group.units.len(), "the deadline passed without an outcome");
    let cause = UnavailableCause::Database(Arc::clone(error));
    for unit in &group.units {
        let cause = cause.clone();
        let unavailable = Unavailable { commit_under_way, attempts: group.tries.attempts, cause };
        observer.settled(*unit, Outcome::Unavailable(unavailable));
    }
}

/// The rejection of what failed alone.
pub(super) fn rejection(error: &StoreError, row: Option<Row>) -> Rejection {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let db = error.db();
    let constraint = db.and_then(|error| error.constraint());
    // What a trigger left out has no error of PostgreSQL's: the code is that of a change by a trigger.
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

/// The column behind a constraint; PostgreSQL names it for some errors only.
fn column_of(constraint: Option<&str>) -> Option<String> {
    match constraint? {
        "entities_google_place_id_key" => Some("google_place_id".to_owned()),
        "connections_restaurant_id_fkey" => Some("restaurant_id".to_owned()),
        "connections_dish_or_category_id_fkey" => Some("dish_or_category_id".to_owned()),
        _ => None,
    }
}

/// Which row of the unit an error speaks of: the only one of its table, or the one whose Google id
/// the server's detail quotes.
fn blamed_row(error: &StoreError, unit: &Unit) -> Option<Row> {
    let error = error.db()?;
    let only = |table, rows: usize| (rows == 1).then_some(Row { table, index: 0 });
    match error.table()? {
        "entities" if error.constraint() == Some("entities_google_place_id_key") => {
            let detail = error.detail().unwrap_or_default();
            let holds = |place: &crate::record::Place| {
                place.google_place_id.as_ref().is_some_and(|id| detail.contains(&format!("=({id})")))
            };
            let mut entities = unit.entities.iter();
            let index = entities.position(|(_, facts)| facts.place.as_deref().is_some_and(holds))?;
            Some(Row { table: Table::Entities, index })
        }
        "entities" => only(Table::Entities, unit.entities.len()),
        "connections" => only(Table::Connections, unit.connections.len()),
        "mentions" => only(Table::Mentions, unit.mentions.len()),
        _ => None,
    }
}
