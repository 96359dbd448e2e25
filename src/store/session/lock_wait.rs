//! Measures how long transactions wait for locks that other sessions hold.
//!
//! A late answer does not show whether the server worked or waited. `pg_locks` does: it has the waiting sessions, and
//! since when they wait. One sampler for the engine queries it, on its own session:
//!
//! 1. A transaction is watched ([`LockWatch::watch`]). Its session notes statements and answers.
//! 2. A statement without an answer for [`THRESHOLD`] makes the sampler query, repeatedly until there is an answer.
//! 3. A wait counts from the server's `waitstart` to the next answer on the session, or to the first sample that no longer
//!    shows it.
//!
//! Properties:
//! - If every statement is answered in time, the sampler does not query and opens no session. The overhead of a
//!   transaction is an entry in a list, that of a statement two short uncontended locks.
//! - The lock table, which is locked itself while it is read, is read only while a session waits for a lock.
//! - No transaction waits for the sampler, or lacks a session because of it. If it cannot query, waits are not counted.
//! - A measured wait is never longer than the session's silence. Short waits may be missed. If a statement works after
//!   its wait, the measured wait is too long by at most the time between two samples.
//! - The server process of a transaction is known from the answer to its first statement, `record_attempt`. Until then
//!   the process of the previous transaction, or that of preparing the statements, is assumed: behind a pooler in
//!   transaction mode that may be wrong, and a wait of the first statement (for merges) may be missed or be that of
//!   another transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::pool::Connector;
use super::prepared::Prepared;
use super::silence::answer;
use crate::error::StoreError;
use crate::hash::HashMap;

/// A statement that takes longer than this may be waiting. Most take a few milliseconds.
const THRESHOLD: Duration = Duration::from_millis(20);
/// The time between two samples while a session waits, and the server has capacity.
const WAITING_INTERVAL: Duration = Duration::from_millis(20);
/// The time between two samples while late statements are found to be working. A sample takes the server 0.1 ms.
const WORKING_INTERVAL: Duration = Duration::from_millis(50);
/// How long the sampler keeps an unused session.
const KEEP_SESSION: Duration = Duration::from_mins(1);
/// The pause after a second failure in a row.
const PAUSE: Duration = Duration::from_secs(30);

/// The waiting processes among these, with the start and, by the server's clock, the duration of the wait; both are
/// unknown in the first moment of a wait. The first condition is about all processes, so that it is evaluated once, and
/// the lock table is read only if it holds. A process whose state this role may not see counts as possibly waiting.
const SAMPLE: &str = "select l.pid, l.waitstart,
        extract(epoch from pg_catalog.clock_timestamp() - l.waitstart)::pg_catalog.float8
 from pg_catalog.pg_locks l
 where exists (select from pg_catalog.unnest($1) as p(pid) cross join lateral pg_catalog.pg_stat_get_activity(p.pid) a
               where a.state is null or a.wait_event_type = 'Lock')
   and not l.granted and l.pid = any($1)";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of one session: its server process, its silence, and the waits of its transaction.
#[derive(Debug)]
pub(in crate::store) struct SessionWaits(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None` before it is known.
    backend: Option<i32>,
    /// Number of statements sent and not answered.
    unanswered: u32,
    /// Since when there is no answer: since the last answer, or since the sending if nothing was unanswered.
    silent_since: Instant,
    /// The wait under way.
    wait: Option<Wait>,
    /// The sum of the earlier waits.
    waited: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    begin: Instant,
    /// The server's identity of this wait.
    waitstart: Option<SystemTime>,
}

impl State {
    /// Ends the wait under way, if any, at this time.
    fn end_wait(&mut self, at: Instant) {
        if let Some(wait) = self.wait.take() {
            self.waited += at.saturating_duration_since(wait.begin);
        }
    }
}

impl Default for SessionWaits {
    fn default() -> Self {
        let (backend, wait) = (None, None);
        Self(Mutex::new(State { backend, unanswered: 0, silent_since: Instant::now(), wait, waited: Duration::ZERO }))
    }
}

impl SessionWaits {
    /// Notes the session's server process.
    pub(in crate::store) fn is_on(&self, backend: i32) {
        lock(&self.0).backend = Some(backend);
    }

    /// Notes a statement that is being sent. Dropping the result means that it was answered, or that the wait for its
    /// answer was abandoned.
    pub(in crate::store) fn sent(&self) -> Unanswered<'_> {
        let mut state = lock(&self.0);
        if state.unanswered == 0 {
            state.silent_since = Instant::now();
        }
        state.unanswered += 1;
        Unanswered(self)
    }

    /// Resets the state.
    fn clear(&self) {
        let mut state = lock(&self.0);
        state.wait = None;
        state.waited = Duration::ZERO;
    }

    /// All waits of the transaction, until now.
    fn waited(&self) -> Duration {
        let mut state = lock(&self.0);
        state.end_wait(Instant::now());
        state.waited
    }

    /// When to query whether the session waits.
    fn due(&self, now: Instant) -> Due {
        let state = lock(&self.0);
        let due = state.silent_since + THRESHOLD;
        match state.backend {
            Some(backend) if state.unanswered > 0 && due <= now => Due::Now(backend, state.silent_since),
            Some(_) if state.unanswered > 0 => Due::At(due),
            // The earliest time for statements sent from now on.
            _ => Due::At(now + THRESHOLD),
        }
    }

    /// Processes a sample that was taken because of a silence.
    fn sampled(&self, silent_since: Instant, found: Option<Sampled>, now: Instant) {
        let mut state = lock(&self.0);
        if state.unanswered == 0 || state.silent_since != silent_since {
            // The statement was answered meanwhile, which ended the wait.
            return;
        }
        let Some(Sampled { waitstart, age }) = found else { return state.end_wait(now) };
        if let Some(wait) = &mut state.wait
            && (wait.waitstart.is_none() || wait.waitstart == waitstart)
        {
            wait.waitstart = waitstart;
            return;
        }
        let begin = now.checked_sub(age).map_or(silent_since, |begin| begin.max(silent_since));
        // The previous wait ended when this one began.
        state.end_wait(begin);
        state.wait = Some(Wait { begin, waitstart });
    }
}

/// A statement under way.
#[derive(Debug)]
#[must_use]
pub(in crate::store) struct Unanswered<'a>(&'a SessionWaits);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        let now = Instant::now();
        state.end_wait(now);
        state.unanswered -= 1;
        state.silent_since = now;
    }
}

/// When to query about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Now: its process, and since when it is silent.
    Now(i32, Instant),
    At(Instant),
}

/// A process that waits.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    waitstart: Option<SystemTime>,
    age: Duration,
}

impl Sampled {
    fn read(row: &Row) -> Result<(i32, Self), tokio_postgres::Error> {
        let age = row.try_get::<_, Option<f64>>(2)?.unwrap_or_default();
        let age = Duration::try_from_secs_f64(age).unwrap_or_default();
        Ok((row.try_get(0)?, Self { waitstart: row.try_get(1)?, age }))
    }
}

/// The sessions of an engine that have a transaction.
#[derive(Debug, Default)]
pub(in crate::store) struct LockWatch {
    watched: Mutex<Vec<Arc<SessionWaits>>>,
    /// Notified when the first of them is registered.
    begun: Notify,
}

impl LockWatch {
    /// Watches a transaction that begins on a session, until the result is dropped.
    pub(in crate::store) fn watch(&self, session: &Arc<SessionWaits>) -> Watched<'_> {
        session.clear();
        let mut watched = lock(&self.watched);
        watched.push(Arc::clone(session));
        if watched.len() == 1 {
            self.begun.notify_one();
        }
        Watched { watch: self, session: Arc::clone(session) }
    }

    /// The sessions that are due, and when the first of the others may be; `None` if there is none.
    fn due(&self, now: Instant) -> (Vec<Suspect>, Option<Instant>) {
        let (mut suspects, mut next) = (Vec::new(), None);
        for session in &*lock(&self.watched) {
            match session.due(now) {
                Due::Now(backend, silent_since) => {
                    suspects.push(Suspect { session: Arc::clone(session), backend, silent_since });
                }
                Due::At(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
            }
        }
        (suspects, next)
    }
}

/// A transaction that is watched.
#[derive(Debug)]
#[must_use]
pub(in crate::store) struct Watched<'a> {
    watch: &'a LockWatch,
    session: Arc<SessionWaits>,
}

impl Watched<'_> {
    /// How long the transaction waited for locks until now.
    pub(in crate::store) fn waited(&self) -> Duration {
        self.session.waited()
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        lock(&self.watch.watched).retain(|session| !Arc::ptr_eq(session, &self.session));
    }
}

/// A session that is silent.
#[derive(Debug)]
struct Suspect {
    session: Arc<SessionWaits>,
    backend: i32,
    silent_since: Instant,
}

/// Queries the server about silent sessions.
#[derive(Debug)]
pub(in crate::store) struct LockSampler {
    watch: Arc<LockWatch>,
    connector: Arc<Connector>,
    /// Time limit for an answer.
    patience: Duration,
    session: Option<Session>,
    /// Number of consecutive failures.
    failures: u32,
}

/// The sampler's own session.
#[derive(Debug)]
struct Session {
    client: Client,
    sample: Prepared,
    /// When it was last used.
    needed: Instant,
}

impl LockSampler {
    pub(in crate::store) fn new(watch: Arc<LockWatch>, connector: Arc<Connector>, patience: Duration) -> Self {
        Self { watch, connector, patience, session: None, failures: 0 }
    }

    /// Samples as long as the engine lives.
    pub(in crate::store) async fn run(mut self) {
        loop {
            if self.session.as_ref().is_some_and(|session| session.needed.elapsed() > KEEP_SESSION) {
                self.session = None;
            }
            let (suspects, next) = self.watch.due(Instant::now());
            if !suspects.is_empty() {
                self.look_at(suspects).await;
            } else if let Some(next) = next {
                tokio::time::sleep_until(next.into()).await;
            } else if self.session.is_some() {
                // Either there is a transaction, or the session is no longer needed.
                let _ = tokio::time::timeout(KEEP_SESSION, self.watch.begun.notified()).await;
            } else {
                self.watch.begun.notified().await;
            }
        }
    }

    async fn look_at(&mut self, suspects: Vec<Suspect>) {
        match self.sample(&suspects).await {
            Ok(found) => {
                self.failures = 0;
                let now = Instant::now();
                for Suspect { session, backend, silent_since } in &suspects {
                    session.sampled(*silent_since, found.get(backend).copied(), now);
                }
                let interval = if found.is_empty() { WORKING_INTERVAL } else { WAITING_INTERVAL };
                tokio::time::sleep(interval).await;
            }
            Err(error) => {
                self.session = None;
                self.connector.statement_names().notice(&error);
                self.failures = self.failures.saturating_add(1);
                // A session may have been ended while it was idle: retry with another.
                if self.failures > 1 {
                    tracing::warn!(error = %error, "the server could not be asked for waits for locks; it is asked again later");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The suspects that wait, by their processes.
    async fn sample(&mut self, suspects: &[Suspect]) -> Result<HashMap<i32, Sampled>, StoreError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.connector, self.patience).await?),
        };
        session.needed = Instant::now();
        let backends: Vec<i32> = suspects.iter().map(|suspect| suspect.backend).collect();
        let rows = answer(self.patience, session.sample.query(&session.client, &[&backends])).await??;
        let mut found = HashMap::default();
        for row in &rows {
            let (backend, sampled) = Sampled::read(row)?;
            found.insert(backend, sampled);
        }
        Ok(found)
    }
}

impl Session {
    async fn open(connector: &Connector, patience: Duration) -> Result<Self, StoreError> {
        let client = connector.connect().await?;
        let named = connector.statement_names().are_kept();
        let sample = Prepared::new(&client, SAMPLE.to_owned(), vec![Type::INT4_ARRAY], named);
        let sample = answer(patience, sample).await??;
        Ok(Self { client, sample, needed: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A session whose statement was sent at `begin`, which is now.
    fn silent(waits: &SessionWaits) -> (Unanswered<'_>, Instant) {
        waits.is_on(7);
        let unanswered = waits.sent();
        (unanswered, lock(&waits.0).silent_since)
    }

    fn wait(number: u64, age: Duration) -> Sampled {
        Sampled { waitstart: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(number)), age }
    }

    #[test]
    fn a_wait_lasts_from_its_begin_to_the_first_sample_without_it() {
        let waits = SessionWaits::default();
        let (_unanswered, begin) = silent(&waits);
        waits.sampled(begin, Some(wait(1, 25 * MS)), begin + 30 * MS);
        waits.sampled(begin, Some(wait(1, 45 * MS)), begin + 50 * MS);
        waits.sampled(begin, None, begin + 70 * MS);
        waits.sampled(begin, None, begin + 120 * MS);
        assert_eq!(waits.waited(), 65 * MS);
        waits.sampled(begin, Some(wait(2, 10 * MS)), begin + 150 * MS);
        waits.sampled(begin, Some(wait(3, 5 * MS)), begin + 170 * MS);
        waits.sampled(begin, None, begin + 190 * MS);
        assert_eq!(waits.waited(), 65 * MS + 50 * MS, "the second until the third began");
    }

    #[test]
    fn the_first_moment_of_a_wait_and_the_next_are_one_wait() {
        let waits = SessionWaits::default();
        let (_unanswered, begin) = silent(&waits);
        waits.sampled(begin, Some(Sampled { waitstart: None, age: Duration::ZERO }), begin + 20 * MS);
        waits.sampled(begin, Some(wait(1, 20 * MS)), begin + 40 * MS);
        waits.sampled(begin, Some(wait(1, 40 * MS)), begin + 60 * MS);
        waits.sampled(begin, None, begin + 80 * MS);
        assert_eq!(waits.waited(), 60 * MS);
    }

    #[test]
    fn no_wait_is_longer_than_the_silence() {
        let waits = SessionWaits::default();
        let (unanswered, begin) = silent(&waits);
        // Of another process of that number.
        waits.sampled(begin, Some(wait(1, Duration::from_hours(1))), begin + 20 * MS);
        waits.sampled(begin, None, begin + 40 * MS);
        assert_eq!(waits.waited(), 40 * MS);
        drop(unanswered);
        waits.sampled(begin, Some(wait(2, 20 * MS)), begin + 60 * MS);
        assert_eq!(waits.waited(), 40 * MS, "it was answered before the sample came");
        waits.clear();
        assert_eq!(waits.waited(), Duration::ZERO);
    }

    #[test]
    fn an_answer_is_the_end_of_a_wait() {
        let waits = SessionWaits::default();
        let (first, begin) = silent(&waits);
        let _second = waits.sent();
        assert_eq!(waits.due(begin + THRESHOLD), Due::Now(7, begin));
        waits.sampled(begin, Some(wait(1, Duration::ZERO)), begin);
        drop(first);
        let waited = waits.waited();
        assert!(waited <= begin.elapsed(), "{waited:?}");
        std::thread::sleep(2 * MS);
        assert_eq!(waits.waited(), waited);
        let after = lock(&waits.0).silent_since;
        assert_eq!(waits.due(begin + THRESHOLD), Due::At(after + THRESHOLD), "the second begins after the first");
    }

    #[test]
    fn sessions_are_due_while_a_statement_is_late_and_their_transaction_is_watched() {
        let watch = LockWatch::default();
        let waits = Arc::new(SessionWaits::default());
        let later = Instant::now() + Duration::from_hours(1);
        let due = || (watch.due(later).0.len(), watch.due(later).1);
        assert_eq!(due(), (0, None));
        let watched = watch.watch(&waits);
        assert_eq!(due(), (0, Some(later + THRESHOLD)), "nothing was sent");
        let unanswered = waits.sent();
        assert_eq!(due(), (0, Some(later + THRESHOLD)), "its process is not known");
        waits.is_on(7);
        assert_eq!(due(), (1, None));
        drop(unanswered);
        assert_eq!(due(), (0, Some(later + THRESHOLD)));
        drop(watched);
        assert_eq!(due(), (0, None));
    }
}
