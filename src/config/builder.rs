//! The builder of the settings, and the checks of the complete settings.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::as_of::{AsOf, is_possible_as_of};
use super::limits::{
    BYTES_IN_FLIGHT_MAX, KNOWN_NAMES_MAX, ROWS_IN_FLIGHT_MAX, UNIT_ROWS_DEFAULT, at_least, notice_dead_peers, seconds,
};
use super::settings::Config;
use crate::error::ConfigError;
use crate::record::{Timestamp, truncate};
use crate::tls;

impl Config {
    /// Starts from the defaults. `database_url` is a libpq connection string or URL. Its `sslmode` determines whether
    /// connections are encrypted. With the feature `tls` the values are:
    ///
    /// | `sslmode` | encrypted | the server's certificate |
    /// |---|---|---|
    /// | `disable` | no | |
    /// | `allow` | if the server refuses a plain connection | not checked |
    /// | `prefer` (default) | if the server offers it | not checked |
    /// | `require` | yes | chain checked if there is a root certificate |
    /// | `verify-ca` | yes | chain checked |
    /// | `verify-full` | yes | chain and host name checked |
    ///
    /// `sslrootcert` is the file with the authority's certificate (default: `~/.postgresql/root.crt`), or `system` for
    /// the authorities that the machine trusts, which needs `verify-full`. `sslcert` and `sslkey` are files with the
    /// client's own certificate and key. All are in PEM form and read when the settings are built. `channel_binding`
    /// and `sslnegotiation` have the same meaning as in libpq.
    ///
    /// Values missing from the connection string are taken from the environment, as by psql: `PGHOST`, `PGHOSTADDR`,
    /// `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGAPPNAME`, `PGOPTIONS`, `PGSSLMODE`, `PGSSLROOTCERT`,
    /// `PGSSLCERT` and `PGSSLKEY`. A password that is in neither is looked up in the password file: `passfile`,
    /// `PGPASSFILE`, or `~/.pgpass`. Other users must not be able to read that file. The default host is libpq's: the
    /// Unix socket, or the local host if there is no socket. Service files are not read. libpq parameters without
    /// effect here (`gssencmode=disable`, `krbsrvname`, ..) are ignored; an unknown parameter is an error that names
    /// it.
    ///
    /// Unlike libpq, `prefer` does not fall back to plain text when a handshake fails, a certificate must list the host
    /// among its alternative names, and a certificate authority's certificate is not accepted as a server's. Unix
    /// sockets are never encrypted. Without the feature, `prefer` connects in plain text, and a mode that requires
    /// encryption is an error.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), graphsink::ConfigError> {
    /// let url = "postgresql://app@db.example.org/evidence?sslmode=verify-full&sslrootcert=/etc/ssl/our-ca.crt";
    /// let config = graphsink::Config::builder(url).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(database_url: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder { database_url: Some(database_url.into()), ..ConfigBuilder::default() }
    }
}

/// Builder of a [`Config`]. With serde every field is optional, an unknown field is an error, durations are seconds,
/// and `as_of` is an RFC 3339 time (absent: the clock).
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
pub struct ConfigBuilder {
    database_url: Option<String>,
    schema: Option<String>,
    max_batch_rows: Option<usize>,
    max_unit_rows: Option<usize>,
    max_rows_in_flight: Option<usize>,
    max_bytes_in_flight: Option<usize>,
    in_flight_commits: Option<usize>,
    outcome_deadline_seconds: Option<f64>,
    statement_timeout_seconds: Option<f64>,
    lock_timeout_seconds: Option<f64>,
    connect_timeout_seconds: Option<f64>,
    slow_transaction_seconds: Option<f64>,
    as_of: Option<Timestamp>,
    dead_letters: Option<bool>,
    prepared_statements: Option<bool>,
    known_names_max: Option<usize>,
}

/// Not derived: a connection string carries a password.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl ConfigBuilder {
    /// A libpq connection string or URL, see [`Config::builder`]. No default.
    ///
    /// ```
    /// use graphsink::ConfigBuilder;
    ///
    /// let builder = ConfigBuilder::default().database_url("postgresql:///evidence");
    /// assert!(builder.build().is_ok());
    /// ```
    pub fn database_url(mut self, database_url: impl Into<String>) -> Self {
        self.database_url = Some(database_url.into());
        self
    }

    /// The schema that holds the tables. Default: `public`.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").schema("evidence").build()?;
    /// assert_eq!(config.schema(), "evidence");
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Number of rows (as received, of all tables) at which an epoch is sealed even though no commit lane is free.
    /// Default: 24,000, with which a program that loads history takes less than 100 MiB. Smaller: more transactions,
    /// less memory. Larger: faster loading of history, but more memory, and each retry repeats more work. An epoch
    /// exceeds this number by at most one unit.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_batch_rows(10_000).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_batch_rows(mut self, rows: usize) -> Self {
        self.max_batch_rows = Some(rows);
        self
    }

    /// Maximum number of rows of a unit. Default: 10,000.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_unit_rows(500).build()?;
    /// assert_eq!(config.max_unit_rows(), 500);
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_unit_rows(mut self, rows: usize) -> Self {
        self.max_unit_rows = Some(rows);
        self
    }

    /// Number of rows, accepted and not yet answered, at which `submit` waits. Default: one batch more than are
    /// committed at once, so that the next one is ready when a commit ends (72,000 with the other defaults), and at
    /// least `max_unit_rows`. Memory is proportional to this setting: one to two kilobytes for a row of usual size.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_rows_in_flight(100_000).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_rows_in_flight(mut self, rows: usize) -> Self {
        self.max_rows_in_flight = Some(rows);
        self
    }

    /// Number of bytes, accepted and not yet answered, at which `submit` waits. Default: 64 MiB. A unit that is larger
    /// than this is admitted when nothing else is in flight.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_bytes_in_flight(512 << 20).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.max_bytes_in_flight = Some(bytes);
        self
    }

    /// Maximum number of concurrent transactions, each on its own connection. Default: 2. More help on a server with
    /// many cores and hurt if epochs share hot rows.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").in_flight_commits(4).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn in_flight_commits(mut self, commits: usize) -> Self {
        self.in_flight_commits = Some(commits);
        self
    }

    /// How long the engine tries to establish a unit's outcome, retries included, before it is `Unavailable`. Default:
    /// 60 s.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .outcome_deadline(std::time::Duration::from_secs(120))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn outcome_deadline(mut self, deadline: Duration) -> Self {
        self.outcome_deadline_seconds = Some(deadline.as_secs_f64());
        self
    }

    /// `statement_timeout` of the engine's transactions. Default: 30 s.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .statement_timeout(std::time::Duration::from_secs(20))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout_seconds = Some(timeout.as_secs_f64());
        self
    }

    /// `lock_timeout` of the engine's transactions. Default: 10 s, which is above PostgreSQL's `deadlock_timeout` (1
    /// s), so that deadlocks and long waits can be distinguished.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .lock_timeout(std::time::Duration::from_secs(5))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout_seconds = Some(timeout.as_secs_f64());
        self
    }

    /// Time limit for opening a connection. Default: 5 s.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .connect_timeout(std::time::Duration::from_secs(3))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout_seconds = Some(timeout.as_secs_f64());
        self
    }

    /// Transactions of units or of merges that take longer than this are logged at level warn when they end, whatever
    /// their result. The time runs from the wait for a connection to the answer to the commit. The line has the number
    /// of units and rows and the time of each statement, and no values. Default: 2 s. A day, the maximum, logs none.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .slow_transaction(std::time::Duration::from_millis(500))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn slow_transaction(mut self, longer_than: Duration) -> Self {
        self.slow_transaction_seconds = Some(longer_than.as_secs_f64());
        self
    }

    /// The time that recent counts, scores and levels refer to. Default: the clock.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence")
    ///     .as_of(graphsink::AsOf::Fixed("2026-01-05T12:00:00Z".parse().expect("a time")))
    ///     .build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = match as_of {
            AsOf::Clock => None,
            AsOf::Fixed(time) => Some(time),
        };
        self
    }

    /// Whether a unit that the database rejects is kept, with the reason, in the table `graphsink_dead_letters` before
    /// its outcome is delivered. [`Engine::resubmit_dead_letters`](crate::Engine::resubmit_dead_letters) submits these
    /// units again. Costs one more transaction for each rejection. Default: false.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").dead_letters(true).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn dead_letters(mut self, keep: bool) -> Self {
        self.dead_letters = Some(keep);
        self
    }

    /// Whether sessions of the server keep prepared statements from one transaction to the next. Set it to false behind
    /// a pooler that gives each transaction another session and does not itself keep prepared statements (`PgBouncer`
    /// in transaction mode, before 1.21 or with `max_prepared_statements = 0`): statements are then sent as text. The
    /// engine switches to this mode by itself after the first error that shows such a pooler, but until then the pooler
    /// may have run another program's statement of the same name. Default: true.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").prepared_statements(false).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn prepared_statements(mut self, kept: bool) -> Self {
        self.prepared_statements = Some(kept);
        self
    }

    /// Maximum number of names of entities, and of their aliases and attributes, that are remembered from one
    /// transaction to the next. An entity about which a unit states nothing else is then not looked up again.
    /// Remembered names are discarded when any program deletes or renames an entity or removes a fact. Default:
    /// 100,000, which is about 4 MiB; maximum: 2^24. If it is smaller than the set of recurring names, these are looked
    /// up, at 7 µs of the server's time each. 0 remembers nothing.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").known_names_max(0).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn known_names_max(mut self, names: usize) -> Self {
        self.known_names_max = Some(names);
        self
    }

    /// Checks every value and their relations.
    ///
    /// ```
    /// // Told before anything is connected to.
    /// let error = graphsink::Config::builder("postgresql:///evidence").max_batch_rows(0).build().unwrap_err();
    /// assert!(error.to_string().contains("max_batch_rows"));
    /// ```
    pub fn build(self) -> Result<Config, ConfigError> {
        let error = |setting, reason: &str| ConfigError { setting, reason: reason.to_owned() };
        let url = self.database_url.ok_or_else(|| {
            error("database_url", "is missing: give a connection string such as `postgresql://user@host/database`")
        })?;
        let (mut postgres, tls) = tls::parse(&url)?;
        let schema = self.schema.unwrap_or_else(|| "public".to_owned());
        if schema.is_empty() || schema.len() > 63 || schema.contains('\0') {
            return Err(error("schema", "must be a name of 1 to 63 bytes"));
        }
        let max_batch_rows = at_least("max_batch_rows", self.max_batch_rows.unwrap_or(24_000), 1)?;
        let max_unit_rows = at_least("max_unit_rows", self.max_unit_rows.unwrap_or(UNIT_ROWS_DEFAULT), 1)?;
        let in_flight_commits = at_least("in_flight_commits", self.in_flight_commits.unwrap_or(2), 1)?;
        if in_flight_commits > 64 {
            return Err(error("in_flight_commits", "must be at most 64"));
        }
        let default_rows = max_batch_rows.saturating_mul(in_flight_commits + 1).min(ROWS_IN_FLIGHT_MAX);
        let max_rows_in_flight = self.max_rows_in_flight.unwrap_or(default_rows.max(max_unit_rows));
        check_rows_in_flight(max_rows_in_flight, max_unit_rows)?;
        let max_bytes_in_flight = at_least("max_bytes_in_flight", self.max_bytes_in_flight.unwrap_or(64 << 20), 1)?;
        if max_bytes_in_flight > BYTES_IN_FLIGHT_MAX {
            return Err(error("max_bytes_in_flight", "must be at most 512 MiB"));
        }
        let known_names_max = self.known_names_max.unwrap_or(100_000);
        if known_names_max > KNOWN_NAMES_MAX {
            return Err(error("known_names_max", "must be at most 2^24"));
        }
        if self.as_of.is_some_and(|as_of| !is_possible_as_of(as_of)) {
            return Err(error("as_of", "lies before what PostgreSQL's timestamptz can hold: fix a time after 4713 BC"));
        }
        let connect_timeout = seconds("connect_timeout_seconds", self.connect_timeout_seconds, 5.0)?;
        postgres.connect_timeout(connect_timeout);
        notice_dead_peers(&mut postgres);
        if postgres.get_application_name().is_none() {
            postgres.application_name("graphsink");
        }
        Ok(Config {
            postgres,
            tls,
            schema,
            max_batch_rows,
            max_unit_rows,
            max_rows_in_flight,
            max_bytes_in_flight,
            in_flight_commits,
            outcome_deadline: seconds("outcome_deadline_seconds", self.outcome_deadline_seconds, 60.0)?,
            statement_timeout: seconds("statement_timeout_seconds", self.statement_timeout_seconds, 30.0)?,
            lock_timeout: seconds("lock_timeout_seconds", self.lock_timeout_seconds, 10.0)?,
            connect_timeout,
            slow_transaction: seconds("slow_transaction_seconds", self.slow_transaction_seconds, 2.0)?,
            as_of: self.as_of.map_or(AsOf::Clock, |time| AsOf::Fixed(truncate(time))),
            dead_letters: self.dead_letters.unwrap_or(false),
            prepared_statements: self.prepared_statements.unwrap_or(true),
            known_names_max,
        })
    }
}

fn check_rows_in_flight(max_rows_in_flight: usize, max_unit_rows: usize) -> Result<(), ConfigError> {
    let error = |reason: &str| ConfigError { setting: "max_rows_in_flight", reason: reason.to_owned() };
    if max_rows_in_flight < max_unit_rows {
        return Err(error("must be at least max_unit_rows, or the largest unit never gets in"));
    }
    if max_rows_in_flight > ROWS_IN_FLIGHT_MAX {
        return Err(error("must be at most 2^24"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_at_start() {
        let build = || Config::builder("postgresql://user:secret@localhost/db");
        let setting = |builder: ConfigBuilder| builder.build().unwrap_err().setting;
        assert_eq!(setting(build().max_batch_rows(0)), "max_batch_rows");
        assert_eq!(setting(build().max_unit_rows(10).max_rows_in_flight(9)), "max_rows_in_flight");
        assert_eq!(setting(build().schema("")), "schema");
        assert_eq!(setting(build().outcome_deadline(Duration::ZERO)), "outcome_deadline_seconds");
        assert_eq!(setting(build().in_flight_commits(65)), "in_flight_commits");
        assert_eq!(setting(build().known_names_max(KNOWN_NAMES_MAX + 1)), "known_names_max");
        assert!(build().known_names_max(0).build().is_ok());
        assert!(build().build().is_ok());
        let rows = |builder: ConfigBuilder| builder.build().unwrap().max_rows_in_flight;
        assert_eq!(rows(build()), 72_000);
        assert_eq!(rows(build().in_flight_commits(4).max_batch_rows(3_000)), 15_000);
        assert_eq!(rows(build().max_batch_rows(10)), 10_000, "the largest unit gets in");
        assert_eq!(rows(build().max_batch_rows(usize::MAX)), ROWS_IN_FLIGHT_MAX);
    }

    #[test]
    fn no_password_is_shown() {
        let config = Config::builder("postgresql://user:s3cret@localhost/db");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!format!("{:?}", config.build().unwrap()).contains("s3cret"));
        let broken = Config::builder("postgresql://user:s3cret@local host:x/db").build().unwrap_err();
        assert!(!broken.to_string().contains("s3cret"));
    }
}
