//! Limits of the settings.

use std::time::Duration;

/// Far more rows than any epoch should have.
pub(super) const ROWS_IN_FLIGHT_MAX: usize = 1 << 24;
/// Everything in flight may be sent in one message to the server, which holds 1 GiB at most.
pub(super) const BYTES_IN_FLIGHT_MAX: usize = 512 << 20;

/// Default maximum of a unit's rows, in the engine and in the loader.
pub(crate) const UNIT_ROWS_DEFAULT: usize = 10_000;

/// Several hundred megabytes.
pub(super) const KNOWN_NAMES_MAX: usize = 1 << 24;

/// Sets keepalives so that a server that vanished is detected in half a minute instead of two hours, unless the
/// connection string says otherwise.
pub(super) fn notice_dead_peers(postgres: &mut tokio_postgres::Config) {
    const TWO_HOURS: Duration = Duration::from_hours(2);
    if postgres.get_keepalives_idle() == TWO_HOURS {
        postgres.keepalives_idle(Duration::from_secs(15));
        postgres.keepalives_interval(Duration::from_secs(5));
        postgres.keepalives_retries(3);
    }
    if postgres.get_tcp_user_timeout().is_none() {
        postgres.tcp_user_timeout(Duration::from_secs(20));
    }
}

/// Rows in flight with the defaults, for which 100 MiB suffice.
const ROWS_IN_FLIGHT: usize = 84_000;

/// Default of `max_batch_rows`: the fewer transactions at once, the larger each may be in the same memory. Below the
/// minimum rows of one connection are written too often.
pub(super) fn batch_rows(in_flight_commits: usize) -> usize {
    const MIN: usize = 12_000;
    (ROWS_IN_FLIGHT / (in_flight_commits + 1)).max(MIN)
}

/// Default of `max_rows_in_flight`: one batch more than are committed at once.
pub(super) fn rows_in_flight(max_batch_rows: usize, in_flight_commits: usize) -> usize {
    max_batch_rows.saturating_mul(in_flight_commits + 1).min(ROWS_IN_FLIGHT_MAX)
}

/// Whether a duration can limit waits: a day fits PostgreSQL's milliseconds and exceeds any sensible value.
pub(super) fn is_time_limit(time: Duration) -> bool {
    (Duration::from_millis(1)..=Duration::from_hours(24)).contains(&time)
}
