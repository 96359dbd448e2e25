//! Attempts: one runner for everything that is written in transactions and must have an outcome, epochs and folds.
//!
//! [`Runner`] attempts groups of units or merges and decides, by [`retry`], what follows a failure; [`one`] is a single
//! attempt, from its session to the fate of its commit; [`work`] is what epochs ([`commit`](super::commit)) and folds
//! ([`fold`](super::fold)) bring along; [`mod@backoff`] is the pause between attempts.

mod backoff;
mod one;
mod retry;
mod runner;
mod work;

pub(super) use backoff::backoff;
pub(super) use one::LAST_ATTEMPT;
pub(super) use runner::Runner;
pub(super) use work::{Group, Members, Slow, Work};
