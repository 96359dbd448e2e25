//! Limits of the settings.

use std::time::Duration;

use crate::error::ConfigError;

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

pub(super) fn at_least(setting: &'static str, value: usize, least: usize) -> Result<usize, ConfigError> {
    if value < least {
        return Err(ConfigError { setting, reason: format!("must be at least {least}") });
    }
    Ok(value)
}

pub(super) fn seconds(setting: &'static str, value: Option<f64>, default: f64) -> Result<Duration, ConfigError> {
    let value = value.unwrap_or(default);
    // A day fits PostgreSQL's milliseconds and exceeds any sensible value.
    if !(0.001..=86_400.0).contains(&value) {
        return Err(ConfigError { setting, reason: "must be from 1 ms to one day".to_owned() });
    }
    Ok(Duration::from_secs_f64(value))
}
