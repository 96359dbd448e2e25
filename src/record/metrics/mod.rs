//! A connection's figures about its mentions: counts, best mentions, activity.
//!
//! Two ways lead to the same figures. [`ConnectionMetrics::from_mentions`] counts a whole set of
//! mentions; [`ConnectionMetrics::advance`] takes stored figures and the changes of one epoch, so
//! that the cost does not grow with a connection's history. Where the changes do not tell enough
//! (a stored best mention fell behind mentions that were not read), `advance` says what must be
//! read again. `record/laws/metrics.rs` checks one against the other.

mod activity;
mod change;
mod figures;
mod score;
mod standing;
mod top_mention;

pub(crate) use activity::ActivityLevel;
pub(crate) use change::{MentionChange, RereadNeeded};
pub(crate) use figures::{ConnectionMetrics, RECENT_DAYS, StoredMetrics, TOP_MENTIONS};
pub(crate) use score::days_before;
pub(crate) use standing::{StandingFigures, StandingScore};
pub(crate) use top_mention::{TopMention, write_time};
