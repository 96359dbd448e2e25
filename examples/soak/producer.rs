//! Producers: they draw units, submit them until their outcome is known, and record it in the ledger.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use graphsink::{Committed, Disposition, Outcome, PlaceObservation, Rejection, SubmitError, UnitOfWork};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::canonical::Canonical;
use crate::engines::Engines;
use crate::ledger::{Ledger, Truth, mark};
use crate::model::{self, Ids, Record, Time};
use crate::pool;

/// The time limit for events that must happen. Faults last a few seconds, and so do the engines' deadlines.
const PATIENCE: Duration = Duration::from_mins(1);
/// The Google id that a restaurant holds from the start.
pub(crate) const HELD_PLACE: &str = "held by the holder";

/// The number of active faults that make producers misbehave, by kind.
#[derive(Debug, Default)]
pub(crate) struct Mischief {
    pub(crate) drop_receipts: AtomicUsize,
    pub(crate) cancel_submits: AtomicUsize,
}

/// What all producers share.
#[derive(Debug)]
pub(crate) struct Load {
    /// All records of the run.
    pub(crate) pool: Vec<Record>,
    /// Ids of rows that exist, as of the last check.
    pub(crate) ids: RwLock<Arc<Ids>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) mischief: Arc<Mischief>,
    /// The merges so far.
    pub(crate) merged: Mutex<Canonical>,
    pub(crate) as_of: Time,
}

/// The expected outcome of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destiny {
    Committed,
    /// Rejected with this SQLSTATE.
    Rejected(&'static str),
}

#[derive(Debug)]
struct Drawn {
    number: u64,
    unit: UnitOfWork,
    destiny: Destiny,
}

impl Load {
    /// Submits units until `end`; returns when each of them has a known outcome. Most records are from the `fresh` part
    /// of the pool, the others were probably submitted before.
    pub(crate) async fn produce(self: Arc<Self>, seed: u64, fresh: Range<usize>, end: Instant) {
        let mut random = StdRng::seed_from_u64(seed);
        while Instant::now() < end {
            // So many that some have to wait, since the fault hits waiting calls.
            let cancels = self.mischief.cancel_submits.load(Ordering::Relaxed) > 0;
            let count = if cancels {
                random.random_range(10..20)
            } else if random.random_bool(0.2) {
                random.random_range(2..8)
            } else {
                1
            };
            let lives = (0..count).map(|_| {
                let drawn = self.draw(&mut random, &fresh);
                self.live(drawn, StdRng::seed_from_u64(random.random()))
            });
            let lives: Vec<_> = lives.collect();
            join_all(lives).await;
            sleep(Duration::from_millis(random.random_range(5..60))).await;
        }
    }

    fn draw(&self, random: &mut StdRng, fresh: &Range<usize>) -> Drawn {
        let records = pool::unit(random, fresh);
        let ids = Arc::clone(&self.ids.read().unwrap_or_else(PoisonError::into_inner));
        let number = self.ledger.open(records.clone());
        // The mark comes first, so that it is the unit's first mention.
        let mark = mark(number, self.as_of);
        let said = std::iter::once(&mark).chain(records.iter().map(|record| &self.pool[*record]));
        let mut unit = model::unit(said, &ids);
        let destiny =
            if random.random_bool(0.04) { poison(&mut unit, number, self.as_of, random) } else { Destiny::Committed };
        Drawn { number, unit, destiny }
    }

    /// One unit, from its first submission to its known outcome.
    #[allow(clippy::too_many_lines)]
    async fn live(&self, drawn: Drawn, mut random: StdRng) {
        let Drawn { number, unit, destiny } = drawn;
        // Whether a submission may have been written, or may still be.
        let mut maybe_written = false;
        let mut submissions = 0;
        loop {
            let engine = self.engines.pick(random.random_range(0..64));
            let cancels = self.mischief.cancel_submits.load(Ordering::Relaxed) > 0 && random.random_bool(0.5);
            let patience = if cancels { Duration::from_millis(random.random_range(0..30)) } else { PATIENCE };
            let receipt = match timeout(patience, engine.submit(unit.clone())).await {
                Ok(Ok(receipt)) => receipt,
                Ok(Err(SubmitError::Closed(_))) => {
                    self.ledger.count(|totals| totals.closed += 1);
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Ok(Err(error)) => return self.ledger.violation(format!("unit {number} was refused: {error}")),
                Err(_) if cancels => {
                    self.ledger.count(|totals| totals.submits_cancelled += 1);
                    if !maybe_written && random.random_bool(0.5) {
                        return self.ledger.close(number, Truth::Nothing, None);
                    }
                    continue;
                }
                Err(_) => return self.ledger.violation(format!("unit {number} was not accepted in {PATIENCE:?}")),
            };
            submissions += 1;
            self.ledger.count(|totals| {
                totals.submitted += 1;
                totals.resubmitted += u64::from(submissions > 1);
            });
            if self.mischief.drop_receipts.load(Ordering::Relaxed) > 0 && random.random_bool(0.3) {
                drop(receipt);
                self.ledger.count(|totals| totals.receipts_dropped += 1);
                maybe_written |= destiny == Destiny::Committed;
                if random.random_bool(0.5) {
                    let truth = if maybe_written { Truth::Either } else { Truth::Nothing };
                    return self.ledger.close(number, truth, None);
                }
                continue;
            }
            let Ok(outcome) = timeout(PATIENCE, receipt).await else {
                return self.ledger.violation(format!("unit {number} has no outcome after {PATIENCE:?}"));
            };
            match outcome {
                Outcome::Committed(committed) => {
                    self.ledger.count(|totals| totals.committed += 1);
                    let mark = self.committed(number, &unit, destiny, &committed, maybe_written);
                    return self.ledger.close(number, Truth::Whole, mark);
                }
                Outcome::Rejected(rejection) => {
                    self.ledger.count(|totals| totals.rejected += 1);
                    self.rejected(number, destiny, &rejection);
                    return self.ledger.close(number, Truth::Nothing, None);
                }
                Outcome::Unavailable(unavailable) => {
                    self.ledger.count(|totals| totals.unavailable += 1);
                    maybe_written |= unavailable.commit_under_way;
                    if random.random_bool(0.1) {
                        let truth = if maybe_written { Truth::Either } else { Truth::Nothing };
                        return self.ledger.close(number, truth, None);
                    }
                    sleep(Duration::from_millis(random.random_range(1..200))).await;
                }
            }
        }
    }

    /// Records the outcome of a committed unit; returns the id of its mark.
    fn committed(
        &self,
        number: u64,
        unit: &UnitOfWork,
        destiny: Destiny,
        committed: &Committed,
        maybe_written: bool,
    ) -> Option<Uuid> {
        self.ledger.check(destiny == Destiny::Committed, || format!("unit {number} is {destiny:?}, but was committed"));
        let rows = committed.entities.len() + committed.connections.len() + committed.mentions.len();
        self.ledger
            .check(rows == unit.rows(), || format!("unit {number} has {} rows, {rows} were committed", unit.rows()));
        let mark = committed.mentions.first()?;
        // No earlier submission was written, whatever happened to commits and their answers, so this one wrote the
        // mark.
        self.ledger.check(maybe_written || mark.disposition == Disposition::Inserted, || {
            format!("the mark of unit {number}, which was not written before, is {:?}", mark.disposition)
        });
        Some(mark.id)
    }

    fn rejected(&self, number: u64, destiny: Destiny, rejection: &Rejection) {
        let expected = matches!(destiny, Destiny::Rejected(sqlstate) if sqlstate == rejection.sqlstate);
        self.ledger.check(expected, || format!("unit {number} is {destiny:?}, but was rejected: {rejection}"));
    }
}

/// Adds a row that only the database can refuse, under names of its own.
fn poison(unit: &mut UnitOfWork, number: u64, as_of: Time, random: &mut StdRng) -> Destiny {
    match random.random_range(0..3) {
        0 => {
            let place = PlaceObservation::new(as_of).google_place_id(HELD_PLACE);
            unit.restaurant(format!("poison {number}")).place(place);
            Destiny::Rejected("23505")
        }
        1 => {
            let dish = unit.dish(format!("poison {number}")).handle();
            unit.connection(Uuid::now_v7(), dish);
            Destiny::Rejected("23503")
        }
        _ => {
            unit.dish(format!("refused {number}"));
            Destiny::Rejected("23514")
        }
    }
}
