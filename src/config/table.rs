//! The table of settings. One entry is all that is said of a setting: the builder's setter with its documentation, its
//! name in files and the environment, the check, the validated field, how it is shown, and its line in the guide.
//!
//! An entry is the setting's type with the name of the setter's argument, and then: `key`, the name in files, in
//! [`Config::settings`], in errors and (in capitals, after `GRAPHSINK_`) in the environment; `default`, the value and
//! its words; `smaller` and `larger`, the effect of such values; `example`, an argument for the documentation; and
//! checks, each with the reason of a refusal. Defaults and checks may name the settings above theirs.
//!
//! The connection string is no entry: it has no default, becomes parameters of the driver, and must not be shown.

use std::time::Duration;

use serde::Deserialize;

use super::as_of::AsOf;
use super::limits::{
    BYTES_IN_FLIGHT_MAX, KNOWN_NAMES_MAX, ROWS_IN_FLIGHT_MAX, UNIT_ROWS_DEFAULT, batch_rows, is_time_limit,
    rows_in_flight,
};
use super::value::Value;
use crate::error::ConfigError;
use crate::tls::Tls;

/// Makes of the entries the fields of [`Config`] and [`ConfigBuilder`], the setters, `ConfigBuilder::checked`,
/// `Config::shown`, [`KEYS`], and the lines of the guide's table, as the macro `tuning_table`.
macro_rules! settings {
    (
        $(#[$of_config:meta])* struct Config;
        $(#[$of_builder:meta])* struct ConfigBuilder;
        $(
            $(#[$doc:meta])*
            $name:ident: $type:ident ($argument:ident) {
                key $key:literal,
                default $default:expr, $default_told:literal,
                $(smaller $smaller:literal,)?
                $(larger $larger:literal,)?
                example $example:expr,
                $(check $holds:expr, $reason:literal,)*
            }
        )*
    ) => {
        $(#[$of_config])*
        pub struct Config {
            pub(crate) postgres: tokio_postgres::Config,
            pub(crate) tls: Tls,
            $(pub(crate) $name: $type,)*
        }

        $(#[$of_builder])*
        pub struct ConfigBuilder {
            pub(super) database_url: Option<String>,
            $(#[serde(rename = $key)] pub(super) $name: Option<<$type as Value>::Written>,)*
        }

        impl ConfigBuilder {
            $(
                $(#[$doc])*
                ///
                #[doc = concat!(
                    " Default: ", $default_told, ".",
                    $(" Smaller: ", $smaller, ".",)? $(" Larger: ", $larger, ".",)?
                )]
                ///
                /// ```
                /// let config = graphsink::Config::builder("postgresql:///evidence")
                #[doc = concat!("     .", stringify!($name), "(", stringify!($example), ")")]
                ///     .build()?;
                /// # Ok::<(), graphsink::ConfigError>(())
                /// ```
                pub fn $name(mut self, $argument: argument!($type)) -> Self {
                    self.$name = <$type as Value>::write($argument.into());
                    self
                }
            )*

            /// The complete settings, if every value and their relations are possible.
            pub(super) fn checked(self, postgres: tokio_postgres::Config, tls: Tls) -> Result<Config, ConfigError> {
                $(
                    let $name: $type = self.$name.map_or_else(|| $default, Value::read);
                    $(if !$holds {
                        return Err(ConfigError::new($key, $reason));
                    })*
                )*
                Ok(Config { postgres, tls, $($name),* })
            }
        }

        impl Config {
            /// Each setting: its names here and in files, its value for `Debug` and in the units of files.
            pub(super) fn shown(&self) -> Vec<(&'static str, &'static str, &dyn std::fmt::Debug, String)> {
                vec![$((stringify!($name), $key, &self.$name, self.$name.shown())),*]
            }
        }

        /// The names in files and, after `GRAPHSINK_`, in the environment.
        #[cfg(any(feature = "config-file", test))]
        pub(super) const KEYS: &[&str] = &["database_url", $($key),*];

        /// Names with the words of the defaults.
        #[cfg(test)]
        pub(super) const DEFAULTS_TOLD: &[(&str, &str)] = &[$(($key, $default_told)),*];

        macro_rules! tuning_table {
            () => {
                concat!("\n| setting | default | smaller | larger |\n|---|---|---|---|\n", $(
                    "| [`", stringify!($name), "`](crate::ConfigBuilder::", stringify!($name), ") | ",
                    $default_told, " | ", $($smaller,)? " | ", $($larger,)? " |\n",
                )*)
            };
        }
        pub(crate) use tuning_table;
    };
}

/// The type of a setter's argument.
macro_rules! argument {
    (String) => { impl Into<String> };
    ($type:ident) => { $type };
}

settings! {
    /// Validated settings of an engine. Made by [`Config::builder`], or read with serde into a
    /// [`ConfigBuilder`](crate::ConfigBuilder) (feature `config-file`: `ConfigBuilder::load`).
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql://app:s3cret@localhost/evidence").build()?;
    /// assert!(!format!("{config:?}").contains("s3cret"), "no password is shown");
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[derive(Clone)]
    struct Config;

    /// Builder of a [`Config`]. With serde every field is optional, an unknown field is an error, durations are
    /// seconds, and `as_of` is an RFC 3339 time (absent: the clock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use graphsink::{AsOf, Config};
    ///
    /// let config = Config::builder("postgresql://app@localhost/evidence")
    ///     .schema("evidence")
    ///     .max_batch_rows(12_000)
    ///     .max_unit_rows(20_000)
    ///     .max_rows_in_flight(60_000)
    ///     .max_bytes_in_flight(128 << 20)
    ///     .in_flight_commits(4)
    ///     .outcome_deadline(Duration::from_secs(120))
    ///     .statement_timeout(Duration::from_secs(20))
    ///     .lock_timeout(Duration::from_secs(5))
    ///     .connect_timeout(Duration::from_secs(3))
    ///     .slow_transaction(Duration::from_millis(500))
    ///     .as_of(AsOf::Fixed("2025-06-01T00:00:00Z".parse()?))
    ///     .dead_letters(true)
    ///     .prepared_statements(false)
    ///     .known_names_max(20_000)
    ///     .build()?;
    /// assert_eq!((config.schema(), config.max_unit_rows()), ("evidence", 20_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Clone, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[must_use]
    struct ConfigBuilder;

    /// The schema that holds the tables.
    schema: String (schema) {
        key "schema",
        default "public".to_owned(), "`public`",
        example "evidence",
        check (1..=63).contains(&schema.len()) && !schema.contains('\0'), "must be a name of 1 to 63 bytes",
    }

    /// Maximum number of concurrent transactions, each on its own connection.
    in_flight_commits: usize (commits) {
        key "in_flight_commits",
        default 2, "2, at most 64",
        smaller "fewer connections",
        larger "helps on a server with many cores, hurts if epochs share hot rows",
        example 4,
        check in_flight_commits >= 1, "must be at least 1",
        check in_flight_commits <= 64, "must be at most 64",
    }

    /// Number of rows (as received, of all tables) at which an epoch is sealed even though no commit lane is free. An
    /// epoch exceeds this number by at most one unit.
    max_batch_rows: usize (rows) {
        key "max_batch_rows",
        default batch_rows(in_flight_commits),
            "84,000 rows, divided by one more than `in_flight_commits` (28,000 with the other defaults), at least 12,000",
        smaller "more transactions, less memory",
        larger "faster loading of history, but more memory, and each retry repeats more work",
        example 10_000,
        check max_batch_rows >= 1, "must be at least 1",
    }

    /// Maximum number of rows of a unit.
    max_unit_rows: usize (rows) {
        key "max_unit_rows",
        default UNIT_ROWS_DEFAULT, "10,000 rows",
        smaller "large units are refused early",
        larger "needs as much capacity in flight",
        example 500,
        check max_unit_rows >= 1, "must be at least 1",
    }

    /// Number of rows, accepted and not yet answered, at which `submit` waits. Memory is proportional to this setting:
    /// half a kilobyte to one for a row of usual size.
    max_rows_in_flight: usize (rows) {
        key "max_rows_in_flight",
        default rows_in_flight(max_batch_rows, in_flight_commits).max(max_unit_rows),
            "one batch more than are committed at once, so that the next one is ready when a commit ends (84,000 rows \
             with the other defaults, with which a program that loads history takes less than 100 MiB), and at least \
             `max_unit_rows`",
        smaller "`submit` waits earlier",
        larger "more memory",
        example 100_000,
        check max_rows_in_flight >= max_unit_rows,
            "must be at least max_unit_rows, or the largest unit never gets in",
        check max_rows_in_flight <= ROWS_IN_FLIGHT_MAX, "must be at most 2^24",
    }

    /// Number of bytes, accepted and not yet answered, at which `submit` waits. A unit that is larger than this is
    /// admitted when nothing else is in flight.
    max_bytes_in_flight: usize (bytes) {
        key "max_bytes_in_flight",
        default 64 << 20, "64 MiB, at most 512 MiB",
        smaller "`submit` waits earlier",
        larger "needed for units with long texts",
        example 512 << 20,
        check max_bytes_in_flight >= 1, "must be at least 1",
        check max_bytes_in_flight <= BYTES_IN_FLIGHT_MAX, "must be at most 512 MiB",
    }

    /// How long the engine tries to establish a unit's outcome, retries included, before it is `Unavailable`.
    outcome_deadline: Duration (deadline) {
        key "outcome_deadline_seconds",
        default Duration::from_mins(1), "60 s",
        smaller "callers learn of an outage sooner",
        larger "longer outages are survived",
        example std::time::Duration::from_secs(120),
        check is_time_limit(outcome_deadline), "must be from 1 ms to one day",
    }

    /// `statement_timeout` of the engine's transactions.
    statement_timeout: Duration (timeout) {
        key "statement_timeout_seconds",
        default Duration::from_secs(30), "30 s",
        smaller "a silent server is detected sooner",
        larger "needed for slow disks",
        example std::time::Duration::from_secs(20),
        check is_time_limit(statement_timeout), "must be from 1 ms to one day",
    }

    /// `lock_timeout` of the engine's transactions. Keep it above PostgreSQL's `deadlock_timeout` (1 s), so that
    /// deadlocks and long waits can be distinguished.
    lock_timeout: Duration (timeout) {
        key "lock_timeout_seconds",
        default Duration::from_secs(10), "10 s",
        smaller "shorter waits for the locks of other programs",
        larger "fewer retries if other programs hold rows for long",
        example std::time::Duration::from_secs(5),
        check is_time_limit(lock_timeout), "must be from 1 ms to one day",
    }

    /// Time limit for opening a connection.
    connect_timeout: Duration (timeout) {
        key "connect_timeout_seconds",
        default Duration::from_secs(5), "5 s",
        larger "needed for distant servers",
        example std::time::Duration::from_secs(3),
        check is_time_limit(connect_timeout), "must be from 1 ms to one day",
    }

    /// Transactions of units or of merges that take longer than this are logged at level warn when they end, whatever
    /// their result. The time runs from the wait for a connection to the answer to the commit. The line has the number
    /// of units and rows and the time of each statement, and no values. A day, the maximum, logs none.
    slow_transaction: Duration (longer_than) {
        key "slow_transaction_seconds",
        default Duration::from_secs(2), "2 s",
        smaller "more transactions are logged",
        larger "fewer are logged",
        example std::time::Duration::from_millis(500),
        check is_time_limit(slow_transaction), "must be from 1 ms to one day",
    }

    /// The time that recent counts, scores and levels refer to.
    as_of: AsOf (as_of) {
        key "as_of",
        default AsOf::Clock, "the clock",
        example graphsink::AsOf::Fixed("2026-01-05T12:00:00Z".parse().expect("a time")),
        check as_of.is_possible(), "lies before what PostgreSQL's timestamptz can hold: fix a time after 4713 BC",
    }

    /// Whether a unit that the database rejects is kept, with the reason, in the table `graphsink_dead_letters` before
    /// its outcome is delivered. [`Engine::resubmit_dead_letters`](crate::Engine::resubmit_dead_letters) submits these
    /// units again. Costs one more transaction for each rejection.
    dead_letters: bool (keep) {
        key "dead_letters",
        default false, "false",
        example true,
    }

    /// Whether sessions of the server keep prepared statements from one transaction to the next. Set it to false behind
    /// a pooler that gives each transaction another session and does not itself keep prepared statements (`PgBouncer`
    /// in transaction mode, before 1.21 or with `max_prepared_statements = 0`): statements are then sent as text. The
    /// engine switches to this mode by itself after the first error that shows such a pooler, but until then the pooler
    /// may have run another program's statement of the same name.
    prepared_statements: bool (kept) {
        key "prepared_statements",
        default true, "true",
        example false,
    }

    /// Maximum number of names of entities, and of their aliases and attributes, that are remembered from one
    /// transaction to the next. An entity about which a unit states nothing else is then not looked up again.
    /// Remembered names are discarded when any program deletes or renames an entity or removes a fact. 0 remembers
    /// nothing; then names and connections that the engine has not met are not taken to be new, either, for which it has
    /// another 1.5 MiB.
    known_names_max: usize (names) {
        key "known_names_max",
        default 100_000, "100,000 names and facts, about 4 MiB; at most 2^24",
        smaller "recurring names that do not fit are looked up, at 7 µs of the server's time each",
        larger "for more entities in daily use",
        example 0,
        check known_names_max <= KNOWN_NAMES_MAX, "must be at most 2^24",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number as the documentation writes it.
    fn in_words(number: u64) -> String {
        if number >= 1 << 20 && number.is_multiple_of(1 << 20) {
            return format!("{} MiB", number >> 20);
        }
        let thousands = number / 1_000;
        if thousands == 0 { number.to_string() } else { format!("{thousands},{:03}", number % 1_000) }
    }

    #[test]
    fn the_documented_defaults_are_those_of_the_builder() {
        let defaults = Config::builder("postgresql:///evidence").build().unwrap().settings();
        for ((key, value), (_, told)) in defaults.into_iter().zip(DEFAULTS_TOLD) {
            let value = match value.parse::<f64>() {
                Ok(seconds) if key.ends_with("_seconds") => format!("{:?}", Duration::from_secs_f64(seconds)),
                Ok(number) => in_words(number as u64),
                Err(_) => value,
            };
            let told = told.replace(" s", "s").replace(" ms", "ms");
            assert!(told.contains(&value), "{key} is {value}, and its words say {told}");
        }
    }
}
