//! The score of a mention at a time.

use chrono::TimeDelta;

use crate::record::Timestamp;

/// The age in days at which a score has fallen to 1/e.
pub(crate) const SCORE_DECAY_DAYS: f64 = 60.0;
pub(super) const MICROS_PER_DAY: f64 = 86_400_000_000.0;

/// `upvotes * exp(-(as_of - created_at in days) / 60)`.
///
/// A mention of the far future would score beyond what a double (and JSON) can hold; it scores
/// `f64::MAX` with the sign of its upvotes.
#[must_use]
pub(crate) fn score(upvotes: i32, created_at: Timestamp, as_of: Timestamp) -> f64 {
    if upvotes == 0 {
        return 0.0;
    }
    let age = as_of.signed_duration_since(created_at);
    // Too long for microseconds is too long for them to matter.
    let days = age.num_microseconds().map_or(age.num_days() as f64, |micros| micros as f64 / MICROS_PER_DAY);
    let score = f64::from(upvotes) * (-days / SCORE_DECAY_DAYS).exp();
    // `+ 0.0` turns the negative zero of an underflow into zero.
    score.clamp(f64::MIN, f64::MAX) + 0.0
}

/// A time some days before another, or the earliest there is.
pub(crate) fn days_before(as_of: Timestamp, days: i64) -> Timestamp {
    as_of.checked_sub_signed(TimeDelta::days(days)).unwrap_or(Timestamp::MIN_UTC)
}
