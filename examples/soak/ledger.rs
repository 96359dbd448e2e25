//! The ledger beside the engines: the submitted units, their outcomes, and the facts that must therefore hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use graphsink::SourceType;
use serde::Serialize;
use uuid::Uuid;

use crate::model::{ConnectionKey, MentionSpec, Record, Time};

/// The number of violations that are reported in full; all are counted.
const DETAILS_MAX: usize = 50;

/// The expected rows of a unit in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// Not known yet.
    Open,
    /// All of its rows.
    Whole,
    /// None of its rows.
    Nothing,
    /// All of its rows or none: a commit was under way, and the unit was not submitted again.
    Either,
}

/// A unit of the current period.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Its records, by their position in the pool.
    pub(crate) records: Vec<usize>,
    pub(crate) truth: Truth,
    /// The id of its mark, from the outcome.
    pub(crate) mark: Option<Uuid>,
}

/// Totals of the producers' submissions and outcomes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Totals {
    /// Units drawn.
    pub(crate) units: u64,
    /// Submissions that an engine accepted.
    pub(crate) submitted: u64,
    /// Submissions of a unit after its first.
    pub(crate) resubmitted: u64,
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    pub(crate) unavailable: u64,
    /// Submissions whose outcome was not awaited.
    pub(crate) receipts_dropped: u64,
    /// Calls of `submit` that were dropped while they waited.
    pub(crate) submits_cancelled: u64,
    /// Calls of `submit` that found the engine shut down.
    pub(crate) closed: u64,
    /// Entities that were merged into others.
    pub(crate) merged: u64,
    /// Calls of `merge` without a certain outcome; each was followed by another.
    pub(crate) merges_unavailable: u64,
}

#[derive(Debug, Default)]
struct State {
    units: BTreeMap<u64, Unit>,
    next: u64,
    totals: Totals,
    checks: u64,
    violations: u64,
    details: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a unit; returns its number.
    pub(crate) fn open(&self, records: Vec<usize>) -> u64 {
        let mut state = self.state();
        state.next += 1;
        state.totals.units += 1;
        let number = state.next;
        state.units.insert(number, Unit { records, truth: Truth::Open, mark: None });
        number
    }

    /// Records the expected rows of a unit from now on.
    pub(crate) fn close(&self, number: u64, truth: Truth, mark: Option<Uuid>) {
        if let Some(unit) = self.state().units.get_mut(&number) {
            (unit.truth, unit.mark) = (truth, mark);
        }
    }

    /// Returns the units of the period that ends.
    pub(crate) fn take_units(&self) -> BTreeMap<u64, Unit> {
        std::mem::take(&mut self.state().units)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.state().totals);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Counts a check; notes a violation if it failed.
    pub(crate) fn check(&self, holds: bool, violation: impl FnOnce() -> String) {
        self.state().checks += 1;
        if !holds {
            self.violation(violation());
        }
    }

    /// Counts a check that found these differences.
    pub(crate) fn check_none(&self, title: &str, differences: &[String]) {
        self.check(differences.is_empty(), || crate::database::report(title, differences));
    }

    pub(crate) fn violation(&self, detail: String) {
        eprintln!("VIOLATION: {detail}");
        let mut state = self.state();
        state.violations += 1;
        if state.details.len() < DETAILS_MAX {
            state.details.push(detail);
        }
    }

    pub(crate) fn checks(&self) -> u64 {
        self.state().checks
    }

    pub(crate) fn violations(&self) -> u64 {
        self.state().violations
    }

    pub(crate) fn violation_details(&self) -> Vec<String> {
        self.state().details.clone()
    }
}

/// The names of rows that belong to one unit alone.
pub(crate) const MARK: &str = "mark ";

/// The mention that shows whether a unit is in the database: a restaurant, a dish, a connection and a mention, all of
/// them its own.
pub(crate) fn mark(number: u64, as_of: Time) -> Record {
    let name = format!("{MARK}{number}");
    Record::Mention(MentionSpec {
        connection: ConnectionKey {
            restaurant: name.clone(),
            dish: name.clone(),
            dish_attributes: std::collections::BTreeSet::new(),
        },
        connection_by_id: false,
        source_type: SourceType::Comment,
        source_id: name,
        thread_id: "thread of marks".to_owned(),
        source_url: "https://example.org/mark".to_owned(),
        subreddit: "marks".to_owned(),
        content_excerpt: String::new(),
        author: None,
        upvotes: 1,
        created_at: as_of - TimeDelta::days(1),
        observed_at: as_of,
    })
}
