//! The times of one transaction's statements, to explain why it was slow.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Error;

/// The statements that a session ran since it was taken from the pool, in the order of their answers.
#[derive(Debug, Default)]
pub(in crate::store) struct Timeline(Mutex<Vec<Step>>);

#[derive(Debug, Clone, Copy)]
struct Step {
    statement: &'static str,
    end: Instant,
    /// A statement that was sent together with others waits for those before it, so its own time begins with the answer
    /// to the last of them.
    took: Duration,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Error,
    /// The wait for it was abandoned.
    None,
}

impl Timeline {
    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all entries.
    pub(in crate::store) fn clear(&self) {
        self.steps().clear();
    }

    /// Notes a statement that is being sent. Dropping the result before the answer means that the wait was abandoned.
    pub(in crate::store) fn sent(&self, statement: &'static str) -> Sent<'_> {
        Sent { timeline: self, statement, start: Instant::now(), answer: Answer::None }
    }
}

/// `begin 0.2 ms, record_attempt 0.1 ms, commit 30000.0 ms (no answer)`
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let answer = match step.answer {
                Answer::Good => "",
                Answer::Error => " (error)",
                Answer::None => " (no answer)",
            };
            write!(f, "{separator}{} {:.1} ms{answer}", step.statement, step.took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

/// A statement under way.
#[derive(Debug)]
pub(in crate::store) struct Sent<'a> {
    timeline: &'a Timeline,
    statement: &'static str,
    start: Instant,
    answer: Answer,
}

impl Sent<'_> {
    /// Notes the answer; returns the time since the sending.
    pub(in crate::store) fn answered<T>(mut self, answer: &Result<T, Error>) -> Duration {
        self.answer = if answer.is_ok() { Answer::Good } else { Answer::Error };
        self.start.elapsed()
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let mut steps = self.timeline.steps();
        let end = Instant::now();
        let begin = steps.last().map_or(self.start, |before| before.end.max(self.start));
        let took = end.saturating_duration_since(begin);
        steps.push(Step { statement: self.statement, end, took, answer: self.answer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statement and answer of each step.
    fn told(timeline: &Timeline) -> Vec<(&'static str, Answer)> {
        timeline.steps().iter().map(|step| (step.statement, step.answer)).collect()
    }

    #[test]
    fn an_abandoned_statement_is_reported_as_unanswered() {
        let timeline = Timeline::default();
        timeline.sent("begin").answered(&Ok(()));
        drop(timeline.sent("copy_mentions"));
        assert_eq!(told(&timeline), [("begin", Answer::Good), ("copy_mentions", Answer::None)]);
        timeline.clear();
        assert_eq!(timeline.to_string(), "");
    }

    #[test]
    fn steps_are_told_with_their_times_and_answers() {
        let step = |statement, microseconds, answer| Step {
            statement,
            end: Instant::now(),
            took: Duration::from_micros(microseconds),
            answer,
        };
        let timeline = Timeline(Mutex::new(vec![
            step("begin", 160, Answer::Good),
            step("lock_connections", 500_000, Answer::Error),
            step("commit", 30_000_000, Answer::None),
        ]));
        let told = "begin 0.2 ms, lock_connections 500.0 ms (error), commit 30000.0 ms (no answer)";
        assert_eq!(timeline.to_string(), told);
    }

    #[test]
    fn the_times_of_statements_sent_together_add_up_to_the_time_of_all() {
        let timeline = Timeline::default();
        let start = Instant::now();
        let (first, second) = (timeline.sent("begin"), timeline.sent("record_attempt"));
        std::thread::sleep(Duration::from_millis(5));
        first.answered(&Ok(()));
        let whole = second.answered(&Ok(()));
        let both: Duration = timeline.steps().iter().map(|step| step.took).sum();
        assert!(whole >= Duration::from_millis(5) && both >= Duration::from_millis(5));
        assert!(both <= start.elapsed(), "{both:?}");
    }
}
