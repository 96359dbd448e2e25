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
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::Instrument;
use uuid::Uuid;

use super::connection::Connection;
use super::error::ErrorClass;
use super::fence::Fate;
use super::transaction::{AttemptError, Transaction, Written};
use super::{Store, StoreError};
use crate::batch::Epoch;
use crate::config::AsOf;
use crate::outcome::{Disposition, Outcome, RejectReason, Rejection, Unavailable, UnavailableCause};
use crate::record::Table;
use crate::telemetry;
use crate::unit::{Row, Unit};

/// The first pause between two tries; it doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest pause. With the default deadline of 60 s a server that is down is asked about 65 times.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often a foreign key violation is tried again before it counts as the unit's own fault: the
/// check does not wait for a parent row that another transaction is about to commit.
const FOREIGN_KEY_RETRIES: u32 = 2;
/// How often an error that nobody knows is tried again before it counts as some unit's fault.
const UNKNOWN_RETRIES: u32 = 2;
/// The time for one try, however close the deadline is.
const LAST_TRY: Duration = Duration::from_secs(5);
/// A stored score counts as up to date while the clock moved it by less than this part: re-observed
/// rows that say nothing new then write nothing. It is the decay of about an hour and a half.
const SCORE_TOLERANCE: f64 = 1e-3;

/// Hears what becomes of the units of an epoch, by their index.
pub(crate) trait EpochObserver: Send {
    /// A transaction is about to try these units.
    fn attempted(&mut self, units: &[usize]);
    /// A commit of these units is about to be sent. False if one of them was given up: then it is
    /// not sent.
    fn begin_commit(&mut self, units: &[usize]) -> bool;
    /// The commit of these units did not happen.
    fn commit_failed(&mut self, units: &[usize]);
    /// A try failed, was rejected, or must be split.
    fn failed(&mut self);
    /// A transaction committed what `epoch` says.
    fn committed(&mut self, epoch: &Epoch, written: &Written, took: Duration);
    /// A unit has its outcome.
    fn settled(&mut self, unit: usize, outcome: Outcome);
}

/// Units that are tried together.
struct Group {
    units: Vec<usize>,
    /// Coalesced already, for the whole epoch at first.
    epoch: Option<Epoch>,
    tries: Tries,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    attempts: u32,
    foreign_key: u32,
    too_long: u32,
    unknown: u32,
}

/// How one try ended.
enum Tried {
    Committed(Vec<crate::outcome::Committed>),
    Rejected(Vec<(usize, Rejection)>),
    Failed(StoreError),
    /// The deadline came before the fate of a commit was known.
    Unknown(StoreError),
    /// The engine gave up units of the group while the transaction was at work.
    GivenUp,
}

impl Store {
    /// Commits an epoch, or what is good of it, and tells `observer` the outcome of each unit.
    pub(crate) async fn commit(&self, epoch: Epoch, deadline: Instant, observer: &mut dyn EpochObserver) {
        let units: Vec<Arc<Unit>> = epoch.units().to_vec();
        let whole = Group { units: (0..units.len()).collect(), epoch: Some(epoch), tries: Tries::default() };
        let mut groups = VecDeque::from([whole]);
        while let Some(mut group) = groups.pop_front() {
            let epoch = group.epoch.take().unwrap_or_else(|| {
                Epoch::from_units(group.units.iter().map(|unit| Arc::clone(&units[*unit])).collect())
            });
            group.tries.attempts += 1;
            observer.attempted(&group.units);
            match self.try_once(&epoch, &group, deadline, observer).await {
                Tried::Committed(committed) => {
                    for (unit, committed) in group.units.iter().zip(committed) {
                        observer.settled(*unit, Outcome::Committed(committed));
                    }
                }
                Tried::Rejected(rejected) => {
                    let mut refused = vec![false; group.units.len()];
                    for (index, rejection) in rejected {
                        refused[index] = true;
                        observer.settled(group.units[index], Outcome::Rejected(rejection));
                    }
                    let mut refused = refused.into_iter();
                    group.units.retain(|_| !refused.next().unwrap_or(false));
                    if !group.units.is_empty() {
                        groups.push_front(group);
                    }
                }
                Tried::Failed(error) => {
                    let next = after_failure(&mut group.tries, &error, group.units.len());
                    observer.failed();
                    telemetry::retried(error.sqlstate(), next.as_str());
                    match next {
                        Next::Reject => {
                            let unit = group.units[0];
                            observer.settled(unit, Outcome::Rejected(rejection(&error, &units[unit])));
                        }
                        Next::Split => {
                            let right = group.units.split_off(group.units.len() / 2);
                            let half = |units| Group { units, epoch: None, tries: Tries::default() };
                            groups.push_front(half(right));
                            groups.push_front(half(group.units));
                        }
                        Next::RetryAfter(pause) => {
                            let left = deadline.saturating_duration_since(Instant::now());
                            if left.is_zero() {
                                give_up(&group, error, false, observer);
                                continue;
                            }
                            tracing::warn!(
                                error = %error, attempt = group.tries.attempts, pause_ms = pause.as_millis() as u64,
                                units = group.units.len(), "transaction failed, will try again"
                            );
                            tokio::time::sleep(pause.min(left)).await;
                            group.epoch = Some(epoch);
                            groups.push_front(group);
                        }
                    }
                }
                Tried::Unknown(error) => give_up(&group, error, true, observer),
                // Only an engine that ends gives units up, all of them; this tells those, if any,
                // that its report missed.
                Tried::GivenUp => give_up(&group, StoreError::ShutDown, false, observer),
            }
        }
    }

    /// One transaction.
    async fn try_once(
        &self,
        epoch: &Epoch,
        group: &Group,
        deadline: Instant,
        observer: &mut dyn EpochObserver,
    ) -> Tried {
        // New for every attempt, so that the fence of one never meets another.
        let attempt = Uuid::now_v7();
        let span = tracing::debug_span!(
            "transaction", %attempt, attempts = group.tries.attempts, units = group.units.len(),
            entities = epoch.entities.rows().len(), connections = epoch.connections.rows().len(),
            mentions = epoch.mentions.rows().len(),
        );
        let start = Instant::now();
        let tried = async {
            let mut connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => return Tried::Failed(error),
            };
            let (begin, as_of) = (self.begin(&mut connection), self.as_of.now());
            let score_tolerance = if self.as_of == AsOf::Clock { SCORE_TOLERANCE } else { 0.0 };
            // Several statements, none of which may take longer than the server allows it; close to
            // the deadline there is time for one more honest try.
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = (self.statement_timeout * 3).min(left.max(LAST_TRY));
            let written = tokio::time::timeout(patience, async {
                connection.prepare().await?;
                connection.enter_transaction();
                let transaction = Transaction { connection: &connection, begin: &begin, as_of, score_tolerance };
                transaction.write_epoch(attempt, epoch).await
            })
            .await
            .unwrap_or(Err(AttemptError::Store(StoreError::NoAnswer(patience))));
            let written = match written {
                Ok(written) => written,
                Err(error) => {
                    return match error {
                        AttemptError::Rejected(rejected) => {
                            self.roll_back(&mut connection).await;
                            Tried::Rejected(rejected)
                        }
                        AttemptError::Store(error) => Tried::Failed(self.clean_up(&mut connection, error).await),
                    };
                }
            };
            // Every statement was awaited and was good, so the server cannot answer ROLLBACK here.
            if !observer.begin_commit(&group.units) {
                // Dropped with its transaction in it, which the server then rolls back.
                return Tried::GivenUp;
            }
            let answer = tokio::time::timeout(self.statement_timeout, connection.batch("commit")).await;
            let answer = answer.map_or(Err(StoreError::NoAnswer(self.statement_timeout)), |answer| Ok(answer?));
            match answer {
                Ok(()) => {
                    connection.leave_transaction();
                    connection.settled_attempts = vec![attempt];
                }
                // An error that leaves the connection alive is the server's word that it aborted.
                Err(error) if is_definite(&error) => {
                    connection.leave_transaction();
                    observer.commit_failed(&group.units);
                    return Tried::Failed(error);
                }
                Err(error) => {
                    drop(connection);
                    tracing::warn!(error = %error, "a commit got no answer, asking the fence");
                    match self.fate_of(attempt, deadline).await {
                        Fate::Committed => {}
                        Fate::Aborted => {
                            observer.commit_failed(&group.units);
                            return Tried::Failed(error);
                        }
                        Fate::Unknown => return Tried::Unknown(error),
                    }
                }
            }
            let inserted = written.dispositions.iter().filter(|(_, row)| *row == Disposition::Inserted).count();
            self.rows_written.fetch_add(inserted as u64, Ordering::Relaxed);
            observer.committed(epoch, &written, start.elapsed());
            Tried::Committed(written.units)
        };
        tried.instrument(span).await
    }
}

impl Store {
    /// Ends a transaction that failed; says whether the server confirmed. If it did not, the
    /// connection stays "in transaction", and the pool drops it.
    async fn roll_back(&self, connection: &mut Connection) -> bool {
        let rollback = tokio::time::timeout(self.connect_timeout, connection.batch("rollback")).await;
        let confirmed = matches!(rollback, Ok(Ok(())));
        if confirmed {
            connection.leave_transaction();
        }
        confirmed
    }

    /// Ends a transaction that failed with `error`, and sees whether the connection may be used
    /// again. The answer is the error, as what it turned out to be.
    async fn clean_up(&self, connection: &mut Connection, error: StoreError) -> StoreError {
        match error.class() {
            ErrorClass::Reconnect if matches!(error, StoreError::NoAnswer(_)) => {
                // The statement may still be at work and hold locks that the next try waits for.
                connection.cancel();
                error
            }
            // A driver's error without SQLSTATE: if the connection still answers, a value could not
            // be sent or read, which is some row's fault.
            ErrorClass::Reconnect if error.sqlstate().is_none() => match error {
                StoreError::Postgres(error) if self.roll_back(connection).await => StoreError::Value(error),
                error => error,
            },
            // Prepared statements may be what is wrong: not on this connection again.
            ErrorClass::Reconnect | ErrorClass::Unknown | ErrorClass::Bug => error,
            _ => {
                self.roll_back(connection).await;
                error
            }
        }
    }
}

/// Whether an error of `commit` proves that nothing was committed.
fn is_definite(error: &StoreError) -> bool {
    use tokio_postgres::error::Severity;
    error.db().is_some_and(|error| {
        // FATAL and PANIC end the connection, and may come after the commit took place. The two
        // codes say themselves that nothing is known.
        matches!(error.parsed_severity(), Some(Severity::Error)) && !matches!(error.code().code(), "40003" | "08007")
    })
}

/// What follows from a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    RetryAfter(Duration),
    Split,
    Reject,
}

impl Next {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RetryAfter(_) => "retry",
            Self::Split => "split",
            Self::Reject => "reject",
        }
    }
}

fn after_failure(tries: &mut Tries, error: &StoreError, units: usize) -> Next {
    let again = Next::RetryAfter(backoff(tries.attempts));
    let alone_or_split = if units == 1 { Next::Reject } else { Next::Split };
    match error.class() {
        ErrorClass::Transient | ErrorClass::Reconnect => again,
        ErrorClass::Resource | ErrorClass::Configuration | ErrorClass::Bug => Next::RetryAfter(BACKOFF_MAX),
        ErrorClass::TooLong => {
            tries.too_long += 1;
            if tries.too_long > 1 && units > 1 { Next::Split } else { again }
        }
        ErrorClass::Unknown => {
            tries.unknown += 1;
            if tries.unknown > UNKNOWN_RETRIES { alone_or_split } else { again }
        }
        ErrorClass::Poison if error.sqlstate() == Some("23503") => {
            tries.foreign_key += 1;
            if tries.foreign_key > FOREIGN_KEY_RETRIES { alone_or_split } else { again }
        }
        ErrorClass::Poison => alone_or_split,
    }
}

/// An exponential pause with full jitter: writers that failed together do not come back together.
fn backoff(attempts: u32) -> Duration {
    let ceiling = BACKOFF_FIRST.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
    // The last four bytes of a version 7 id are random.
    let random = Uuid::now_v7().as_u128() as u32;
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn give_up(group: &Group, error: StoreError, commit_under_way: bool, observer: &mut dyn EpochObserver) {
    tracing::error!(error = %error, units = group.units.len(), "the deadline passed without an outcome");
    let cause = UnavailableCause::Database(Arc::new(error));
    for unit in &group.units {
        let cause = cause.clone();
        let unavailable = Unavailable { commit_under_way, attempts: group.tries.attempts, cause };
        observer.settled(*unit, Outcome::Unavailable(unavailable));
    }
}

/// The rejection of a unit that failed alone.
fn rejection(error: &StoreError, unit: &Unit) -> Rejection {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let db = error.db();
    let constraint = db.and_then(|error| error.constraint());
    Rejection {
        reason: RejectReason::Database,
        sqlstate: error.sqlstate().unwrap_or("XX000").to_owned(),
        table: text(db.and_then(|error| error.table())),
        column: text(db.and_then(|error| error.column())).or_else(|| column_of(constraint)),
        constraint: text(constraint),
        row: blamed_row(error, unit),
        message: db.map_or_else(|| error.to_string(), |error| error.message().to_owned()),
        detail: text(db.and_then(|error| error.detail())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        let pauses: Vec<Duration> = (0..200).map(|_| backoff(30)).collect();
        assert!(pauses.iter().all(|pause| *pause <= BACKOFF_MAX));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        assert!((0..200).all(|_| backoff(1) <= BACKOFF_FIRST * 2));
    }
}
