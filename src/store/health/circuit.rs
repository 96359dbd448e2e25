//! The circuit breaker: blocks transactions while the database as a whole cannot be used.
//!
//! An ordinary error concerns only its attempt. An error which means that *no* attempt can succeed (the server is down,
//! a privilege is missing, the disk is full: see [`StoreError::is_systemic`]) opens the circuit breaker: from then on
//! there is one attempt at a time, with growing pauses, and all others wait for its result, without a connection. The
//! first success closes the circuit breaker, and all continue.
//!
//! Properties:
//! - While it is open, the whole engine contacts the server about twice a second.
//! - It rejects no unit, and abandons none early: units that wait here wait until their own deadline. Meanwhile
//!   admission makes callers wait, so that memory stays bounded.
//! - A probe that is dropped before its end allows the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::{ErrorClass, StoreError};
use crate::stats::Counters;
use crate::store::attempt::backoff;

/// If a probe takes longer than this, because it waits for a lock or for a silent server, the next one starts beside
/// it.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// If it opens again this soon, the cause was not removed: pauses continue to grow, and it is not logged again.
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::store) struct Circuit {
    state: Mutex<State>,
    changed: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// When it last closed, and the number of attempts that had failed until then.
    closed: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    cause: Arc<StoreError>,
    failures: u32,
    next_probe: Instant,
    /// Since when a probe is under way.
    probing: Option<Instant>,
}

impl Open {
    fn fail(&mut self) {
        self.failures += 1;
        self.next_probe = Instant::now() + backoff(self.failures);
    }
}

/// The permission for an attempt. Its result must be reported with [`report`](Self::report).
#[derive(Debug)]
#[must_use]
pub(in crate::store) struct Permit<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
}

impl Circuit {
    pub(in crate::store) fn new(counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), counters }
    }

    /// Every change below leaves the state consistent at every step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it is open, and why, if it is.
    pub(in crate::store) fn open_since(&self) -> Option<(Instant, Arc<StoreError>)> {
        self.state().open.as_ref().map(|open| (open.since, Arc::clone(&open.cause)))
    }

    /// Waits for the permission for an attempt. At the deadline it returns the cause of the outage.
    pub(in crate::store) async fn enter(&self, deadline: Instant) -> Result<Permit<'_>, Arc<StoreError>> {
        loop {
            // Registered before the state is read, so that no change is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let until = {
                let mut state = self.state();
                let Some(open) = &mut state.open else { return Ok(Permit { circuit: self, is_probe: false }) };
                let now = Instant::now();
                let due = open.probing.map_or(open.next_probe, |since| since + PROBE_MAX);
                if now >= due {
                    open.probing = Some(now);
                    return Ok(Permit { circuit: self, is_probe: true });
                }
                if now >= deadline {
                    return Err(Arc::clone(&open.cause));
                }
                deadline.min(due)
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    fn close(&self) {
        let closed = {
            let mut state = self.state();
            let closed = state.open.take();
            if let Some(open) = &closed {
                state.closed = Some((Instant::now(), open.failures));
            }
            closed
        };
        self.changed.notify_waiters();
        if let Some(open) = closed {
            let seconds = open.since.elapsed().as_secs_f64();
            tracing::info!(seconds, failures = open.failures, "the database can be used again");
            self.counters.circuit_closed();
        }
    }

    fn keep_open(&self, cause: &Arc<StoreError>, probed: bool) {
        let now = Instant::now();
        let (opened, anew) = {
            let mut state = self.state();
            let before = state.closed.filter(|(closed, _)| now - *closed < SETTLED);
            let opened = state.open.is_none();
            let failures = before.map_or(0, |(_, failures)| failures);
            let open = state.open.get_or_insert_with(|| Open {
                since: now,
                cause: Arc::clone(cause),
                failures,
                next_probe: now,
                probing: None,
            });
            let anew = before.is_none() && (opened || open.cause.sqlstate() != cause.sqlstate());
            open.cause = Arc::clone(cause);
            // Attempts that were running when it opened fail one after the other; this is no new information.
            if probed || opened {
                open.fail();
            }
            if probed {
                open.probing = None;
            }
            (opened, anew)
        };
        self.changed.notify_waiters();
        if anew {
            tracing::error!(error = %cause, "the database cannot be used: one transaction at a time will try");
        }
        if opened {
            self.counters.circuit_opened(cause.sqlstate());
        }
    }
}

impl Permit<'_> {
    /// Reports the result of the attempt: success, or an error.
    pub(in crate::store) fn report(mut self, error: Option<&Arc<StoreError>>) {
        let is_probe = std::mem::take(&mut self.is_probe);
        match error {
            Some(error) if error.is_systemic() => self.circuit.keep_open(error, is_probe),
            // A lost connection or a stalled server proves neither that the database works nor that it does not.
            Some(error) if error.class() == ErrorClass::Reconnect => {
                self.is_probe = is_probe;
            }
            // This includes an error of the unit itself: the database could be used.
            Some(_) if is_probe => self.circuit.close(),
            Some(_) => {}
            None => self.circuit.close(),
        }
    }
}

/// An attempt without a result proves nothing; the next one is due after a pause.
impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            if let Some(open) = &mut self.circuit.state().open {
                open.probing = None;
                open.fail();
            }
            self.circuit.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> Arc<StoreError> {
        Arc::new(StoreError::NoConnection(Duration::ZERO))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn one_attempt_probes_while_all_others_wait_for_its_result() {
        let circuit = Arc::new(Circuit::new(Arc::default()));
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        let probe = circuit.enter(soon()).await.unwrap();
        assert!(probe.is_probe);
        let waiting = {
            let circuit = Arc::clone(&circuit);
            tokio::spawn(async move { circuit.enter(soon()).await.map(|permit| permit.is_probe) })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished(), "a second one must not try beside the probe");
        probe.report(None);
        assert!(!waiting.await.unwrap().unwrap(), "the circuit is closed: no probe any more");
    }

    #[tokio::test]
    async fn a_failed_or_dropped_probe_lets_the_next_attempt_probe() {
        let circuit = Circuit::new(Arc::default());
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        drop(circuit.enter(soon()).await.unwrap());
        let lost = Arc::new(StoreError::NoAnswer(Duration::ZERO));
        circuit.enter(soon()).await.unwrap().report(Some(&lost));
        assert!(circuit.enter(soon()).await.unwrap().is_probe, "none of these got through");
    }

    #[tokio::test]
    async fn a_waiting_caller_gets_the_cause_at_its_deadline() {
        let circuit = Circuit::new(Arc::default());
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        let _probe = circuit.enter(soon()).await.unwrap();
        let cause = circuit.enter(Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(*cause, StoreError::NoConnection(_)));
    }

    #[tokio::test]
    async fn errors_of_one_transaction_open_no_circuit_and_prove_that_the_database_works() {
        let circuit = Circuit::new(Arc::default());
        let own = Arc::new(StoreError::VanishedRow);
        circuit.enter(soon()).await.unwrap().report(Some(&own));
        assert!(!circuit.enter(soon()).await.unwrap().is_probe);
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        circuit.enter(soon()).await.unwrap().report(Some(&own));
        assert!(!circuit.enter(soon()).await.unwrap().is_probe);
    }

    #[tokio::test]
    async fn errors_of_attempts_begun_before_the_opening_leave_the_circuit_unchanged() {
        let circuit = Circuit::new(Arc::default());
        let mut at_work = Vec::new();
        for _ in 0..5 {
            at_work.push(circuit.enter(soon()).await.unwrap());
        }
        let own = Arc::new(StoreError::VanishedRow);
        let lost = Arc::new(StoreError::NoAnswer(Duration::ZERO));
        let before = Instant::now();
        at_work.pop().unwrap().report(Some(&down()));
        let opened = |circuit: &Circuit| circuit.state().open.as_ref().map(|open| (open.failures, open.next_probe));
        let first = opened(&circuit);
        assert!(first.is_some_and(|(failures, next_probe)| failures == 1 && next_probe >= before));
        at_work.pop().unwrap().report(Some(&down()));
        at_work.pop().unwrap().report(Some(&own));
        at_work.pop().unwrap().report(Some(&lost));
        drop(at_work.pop());
        assert_eq!(opened(&circuit), first, "none of them tried since");
    }

    #[tokio::test]
    async fn each_failed_probe_makes_the_pause_longer() {
        let circuit = Circuit::new(Arc::default());
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        let lost = Arc::new(StoreError::NoAnswer(Duration::ZERO));
        for failures in 2..5 {
            let probe = circuit.enter(soon()).await.unwrap();
            assert!(probe.is_probe);
            let before = Instant::now();
            match failures {
                2 => probe.report(Some(&down())),
                3 => probe.report(Some(&lost)),
                _ => drop(probe),
            }
            let state = circuit.state();
            let open = state.open.as_ref().unwrap();
            assert_eq!((open.failures, open.probing.is_some()), (failures, false));
            assert!(open.next_probe >= before, "not before the pause is over");
        }
    }

    #[tokio::test]
    async fn the_database_is_not_probed_before_the_pause_is_over() {
        let circuit = Circuit::new(Arc::default());
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        circuit.state().open.as_mut().unwrap().next_probe = soon() + Duration::from_mins(1);
        circuit.enter(Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        circuit.state().open.as_mut().unwrap().next_probe = Instant::now() + Duration::from_millis(20);
        assert!(circuit.enter(soon()).await.unwrap().is_probe);
    }

    #[tokio::test]
    async fn a_success_of_an_attempt_begun_before_the_opening_closes_the_circuit() {
        let counters = Arc::new(Counters::default());
        let circuit = Circuit::new(Arc::clone(&counters));
        let (one, other) = (circuit.enter(soon()).await.unwrap(), circuit.enter(soon()).await.unwrap());
        one.report(Some(&down()));
        assert!(counters.snapshot().circuit_open);
        other.report(None);
        assert!(!counters.snapshot().circuit_open);
        assert!(!circuit.enter(soon()).await.unwrap().is_probe);
    }

    #[tokio::test]
    async fn a_circuit_that_opens_again_soon_keeps_its_number_of_failures() {
        let circuit = Circuit::new(Arc::default());
        let failures = || circuit.state().open.as_ref().map_or(0, |open| open.failures);
        for _ in 0..3 {
            circuit.enter(soon()).await.unwrap().report(Some(&down()));
        }
        assert_eq!(failures(), 3);
        circuit.close();
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        assert_eq!(failures(), 4, "closed by an attempt that the outage did not affect");
        circuit.close();
        circuit.state().closed = Some((Instant::now().checked_sub(SETTLED).unwrap(), 4));
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        assert_eq!(failures(), 1, "that trouble was over");
    }

    #[tokio::test]
    async fn a_slow_probe_lets_the_next_attempt_probe() {
        let circuit = Circuit::new(Arc::default());
        circuit.enter(soon()).await.unwrap().report(Some(&down()));
        let stuck = circuit.enter(soon()).await.unwrap();
        let second = circuit.enter(soon()).await.unwrap();
        assert!(stuck.is_probe && second.is_probe);
        second.report(None);
        assert!(!circuit.enter(soon()).await.unwrap().is_probe, "the server is well");
        drop(stuck);
        assert!(circuit.state().open.is_none(), "and stays so");
    }
}
