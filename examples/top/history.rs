//! From totals to recent activity: rates, and the values added to distributions in the last seconds.
//!
//! It is pure: the time is an argument, and nothing here queries an engine. Invariant: only answers of the same engine
//! are compared. If totals fall, the engine is another one, and the history starts again.

use std::collections::VecDeque;
use std::time::Duration;

use graphsink::{Distribution, Latency, Stats};

use crate::observability::endpoint::Report;

/// The length of the window of recent activity, or a little more.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Number of rates kept: more than the columns of the widest terminal.
const RATES_MAX: usize = 512;

/// The answers of an engine so far.
#[derive(Debug, Default)]
pub struct History {
    /// Oldest first; the window begins with the first one.
    looks: VecDeque<Look>,
    /// Newest first. `None` if there was no answer.
    rates: VecDeque<Option<Rate>>,
    peak: Rate,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Look {
    at: Duration,
    report: Report,
}

/// Committed rows per second, as received.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    pub mentions: f64,
    /// Rows of all tables.
    pub rows: f64,
}

/// The engine does not answer.
#[derive(Debug)]
pub struct Lost {
    pub since: Duration,
    /// The error of the last attempt.
    pub error: String,
}

impl History {
    /// Adds an answer, or the error in its place.
    pub fn absorb(&mut self, at: Duration, answer: Result<Report, String>) {
        match answer {
            Ok(report) => {
                self.lost = None;
                self.answered(Look { at, report });
            }
            Err(error) => {
                let since = self.lost.take().map_or(at, |lost| lost.since);
                self.lost = Some(Lost { since, error });
                self.push(None);
            }
        }
    }

    fn answered(&mut self, look: Look) {
        if let Some(before) = self.looks.back() {
            if is_another(&before.report.stats, &look.report.stats) {
                *self = Self::default();
            } else if let Some(rate) = Rate::between(before, &look) {
                self.peak = self.peak.max(rate);
                self.push(Some(rate));
            }
        }
        let begin = look.at.saturating_sub(WINDOW);
        self.looks.push_back(look);
        // At least two, however seldom the engine is queried.
        while self.looks.len() > 2 && self.looks[1].at <= begin {
            self.looks.pop_front();
        }
    }

    fn push(&mut self, rate: Option<Rate>) {
        self.rates.push_front(rate);
        self.rates.truncate(RATES_MAX);
    }

    /// The last answer.
    pub fn latest(&self) -> Option<&Report> {
        self.looks.back().map(|look| &look.report)
    }

    /// The recent activity; `None` before the first answer.
    pub fn lately(&self) -> Option<Lately<'_>> {
        let (first, last) = self.looks.front().zip(self.looks.back())?;
        let window = last.at.saturating_sub(first.at);
        Some(Lately { window, before: &first.report.stats, now: &last.report.stats })
    }

    /// Rates between answers, newest first; `None` if there was no answer.
    pub fn rates(&self) -> impl Iterator<Item = Option<Rate>> {
        self.rates.iter().copied()
    }

    /// The rate between the last two answers.
    pub fn rate(&self) -> Rate {
        self.rates().flatten().next().unwrap_or_default()
    }

    /// The highest rates since the first answer or the last reset.
    pub const fn peak(&self) -> Rate {
        self.peak
    }

    /// Resets the highest rates.
    pub fn reset_peak(&mut self) {
        self.peak = self.rate();
    }

    /// The failure, if the engine does not answer.
    pub const fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }
}

impl Rate {
    /// `None` if no time passed.
    fn between(before: &Look, after: &Look) -> Option<Self> {
        let seconds = after.at.checked_sub(before.at)?.as_secs_f64();
        let (before, after) = (&before.report.stats, &after.report.stats);
        let rate = |total: fn(&Stats) -> u64| per_second(total(before), total(after), seconds);
        (seconds > 0.0).then(|| Self { mentions: rate(|stats| stats.mentions.received), rows: rate(rows) })
    }

    /// The higher one of each.
    fn max(self, other: Self) -> Self {
        Self { mentions: self.mentions.max(other.mentions), rows: self.rows.max(other.rows) }
    }
}

/// Two answers of one engine, some seconds apart.
#[derive(Debug, Clone, Copy)]
pub struct Lately<'a> {
    window: Duration,
    before: &'a Stats,
    now: &'a Stats,
}

impl Lately<'_> {
    /// The time between them.
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// The growth of a total per second.
    pub fn per_second(&self, total: impl Fn(&Stats) -> u64) -> f64 {
        per_second(total(self.before), total(self.now), self.window.as_secs_f64())
    }

    /// The values added to a latency; all of them if there is only one answer.
    pub fn latency(&self, of: impl Fn(&Stats) -> &Latency) -> Latency {
        if self.is_first() { of(self.now).clone() } else { of(self.now).since(of(self.before)) }
    }

    /// The same for sizes.
    pub fn sizes(&self, of: impl Fn(&Stats) -> &Distribution) -> Distribution {
        if self.is_first() { of(self.now).clone() } else { of(self.now).since(of(self.before)) }
    }

    fn is_first(&self) -> bool {
        std::ptr::eq(self.before, self.now)
    }
}

/// Committed rows of all tables, as received.
fn rows(stats: &Stats) -> u64 {
    stats.entities.received + stats.connections.received + stats.mentions.received
}

/// Some totals are computed from others, and may fall slightly if those were counted meanwhile.
fn per_second(before: u64, after: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
}

/// Whether the second answer is of another engine than the first: a monotonic total fell.
fn is_another(before: &Stats, after: &Stats) -> bool {
    let (before, after) = (totals(before), totals(after));
    before.iter().zip(&after).any(|(before, after)| after < before)
}

/// The totals that only grow in the life of an engine.
fn totals(stats: &Stats) -> Vec<u64> {
    let mut totals = vec![
        stats.units_submitted,
        stats.units_committed,
        stats.units_rejected,
        stats.units_unavailable,
        stats.epochs,
        stats.failed_attempts,
        stats.actor_restarts,
        stats.circuit_openings,
        stats.dead_letters,
        stats.admission_wait.count(),
    ];
    for table in [&stats.entities, &stats.connections, &stats.mentions] {
        totals.extend([table.received, table.inserted, table.updated, table.unchanged]);
    }
    totals
}
