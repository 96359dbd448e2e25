//! The interface between the runner of attempts and the work that it carries out.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;
use uuid::Uuid;

use super::retry::Attempts;
use crate::error::StoreError;
use crate::label::Reaction;
use crate::store::session::{Session, Timeline};

/// Units or merges that are attempted together.
pub(in crate::store) trait Members: Sized {
    fn count(&self) -> usize;
    /// Two halves, of more than one.
    fn halves(self) -> [Self; 2];
}

impl Members for Range<usize> {
    fn count(&self) -> usize {
        self.len()
    }

    fn halves(self) -> [Self; 2] {
        let middle = self.start + self.len() / 2;
        [self.start..middle, middle..self.end]
    }
}

/// Members and the history of their attempts.
#[derive(Debug)]
pub(in crate::store) struct Group<M> {
    pub(in crate::store) members: M,
    pub(in crate::store) attempts: Attempts,
    /// Whether its rejection was postponed until all other groups were attempted.
    pub(in crate::store) held_back: bool,
}

impl<M> Group<M> {
    pub(in crate::store) fn new(members: M) -> Self {
        Self { members, attempts: Attempts::default(), held_back: false }
    }
}

/// Work that is attempted in groups, each in a transaction.
pub(in crate::store) trait Work {
    type Members: Members;
    /// The result of an attempt, valid once it is committed.
    type Written;
    /// Why an attempt ends without a commit although nothing failed.
    type Stopped;

    /// The time after which it is given up. An attempt may move it.
    fn deadline(&self) -> Instant;

    /// Begins an attempt; returns its span.
    fn begin(&mut self, group: &Group<Self::Members>, attempt: Uuid) -> Span;

    /// Writes everything up to the commit, from `begin` and the attempt's row on.
    async fn write(
        &mut self,
        group: &Group<Self::Members>,
        session: &Session,
        begin: &str,
        attempt: Uuid,
    ) -> Result<Result<Self::Written, Self::Stopped>, StoreError>;

    /// Classifies an error of [`write`](Self::write) with further knowledge.
    fn judge(&self, _: &Group<Self::Members>, error: StoreError) -> StoreError {
        error
    }

    /// Whether there is anything to commit.
    fn needs_commit(_: &Self::Written) -> bool {
        true
    }

    /// Called before the commit is sent; an error prevents it.
    fn begin_commit(&mut self, _: &Group<Self::Members>) -> Result<(), Self::Stopped> {
        Ok(())
    }

    /// Called when the commit that was sent did not take place.
    fn commit_failed(&mut self, _: &Group<Self::Members>) {}

    /// Called when it is committed, in an attempt that began at `start`.
    fn committed(&mut self, group: &Group<Self::Members>, written: &Self::Written, start: Instant);

    /// The name of the reason, for the log.
    fn name_of(stopped: &Self::Stopped) -> &'static str;

    /// Logs a slow attempt: names and numbers only, no values.
    fn log_slow(&self, group: &Group<Self::Members>, slow: &Slow<'_>);

    /// Delivers the outcomes of a committed group.
    fn settle(&mut self, group: Group<Self::Members>, written: Self::Written);

    /// Delivers the outcomes of a group that stopped; returns the rest of it, which is attempted again at once.
    fn stopped(&mut self, group: Group<Self::Members>, stopped: Self::Stopped) -> Option<Group<Self::Members>>;

    /// Notes a failed attempt and the reaction to it.
    fn failed(&mut self, error: &StoreError, reaction: Reaction);

    /// Rejects a group that failed alone; or returns it, to be attempted once more after all others.
    fn reject(&mut self, group: Group<Self::Members>, error: &StoreError) -> Option<Group<Self::Members>>;

    /// Logs that a group failed and will be attempted again.
    fn log_retry(&self, group: &Group<Self::Members>, error: &StoreError, pause: Duration);

    /// Reports a group without an outcome, at the deadline.
    fn give_up(&mut self, group: Group<Self::Members>, error: &Arc<StoreError>, commit_under_way: bool);
}

/// A slow attempt.
#[derive(Debug)]
pub(in crate::store) struct Slow<'a> {
    pub(in crate::store) attempt: Uuid,
    pub(in crate::store) end: &'static str,
    pub(in crate::store) took: Duration,
    pub(in crate::store) pool_wait: Duration,
    pub(in crate::store) lock_wait: Duration,
    pub(in crate::store) statements: &'a Timeline,
}
