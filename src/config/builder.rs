//! Settings on their way, and what is checked when they are complete.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::as_of::{AsOf, is_possible_as_of};
use super::limits::{BYTES_IN_FLIGHT_MAX, KNOWN_NAMES_MAX, ROWS_IN_FLIGHT_MAX, at_least, notice_dead_peers, seconds};
use super::settings::Config;
use crate::error::ConfigError;
use crate::record::{Timestamp, truncate};
use crate::tls;

impl Config {
    /// Starts from the defaults. `database_url` is a libpq connection string or URL, whose `sslmode` says whether
    /// connections are encrypted. With the feature `tls` these are its values:
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
    /// `sslrootcert` is the file with the authority's certificate (default: `~/.postgresql/root.crt`), or `system` for the
    /// authorities that the machine trusts, which needs `verify-full`. `sslcert` and `sslkey` are files with the client's
    /// own certificate and key. All are in PEM form and read when the settings are built. `channel_binding` and
    /// `sslnegotiation` mean what they mean to libpq.
    ///
    /// What the connection string leaves out is what the environment says, as for psql: `PGHOST`, `PGHOSTADDR`, `PGPORT`, `PGUSER`,
    /// `PGDATABASE`, `PGPASSWORD`, `PGAPPNAME`, `PGOPTIONS`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT` and `PGSSLKEY`. A password that is
    /// in neither is looked for in the password file: `passfile`, `PGPASSFILE`, or `~/.pgpass`, which others may not be able to
    /// read. The host's default is libpq's: the Unix socket, or this machine where there is none. Service files are not
    /// read. Parameters of libpq that ask for nothing here (`gssencmode=disable`, `krbsrvname`, ..) are ignored; one that is
    /// not known is an error that names it.
    ///
    /// Unlike libpq, `prefer` does not go on in plain text when a handshake fails, a certificate has to
    /// have the host among its alternative names, and one that is an authority's is not accepted as a server's. Unix
    /// sockets are never encrypted. Without the feature, `prefer` connects in plain text, and what asks for more is an error.
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

/// Settings on their way to a [`Config`]. With serde every field is optional, an unknown one is an
/// error, durations are seconds, and `as_of` is an RFC 3339 time (absent: the clock).
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

    /// Rows (as received, of all tables) at which an epoch is sealed even though no lane of commits is
    /// free. Default: 24,000, with which a program that loads history takes less than 100 MiB. Smaller: more transactions,
    /// less memory. Larger: faster when history is loaded, at the price of memory, and each retry repeats
    /// more. An epoch exceeds it by at most one unit.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_batch_rows(10_000).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_batch_rows(mut self, rows: usize) -> Self {
        self.max_batch_rows = Some(rows);
        self
    }

    /// Rows of the largest unit that is accepted. Default: 10,000.
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

    /// Rows accepted and not yet answered at which `submit` waits. Default: one batch more than are committed at
    /// once, which is 72,000 with the other defaults, so that the next one is ready when a commit ends; and at least
    /// `max_unit_rows`. Memory follows this setting, with one to two kilobytes for a row of usual size.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_rows_in_flight(100_000).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_rows_in_flight(mut self, rows: usize) -> Self {
        self.max_rows_in_flight = Some(rows);
        self
    }

    /// Bytes accepted and not yet answered at which `submit` waits. Default: 64 MiB. A unit that is
    /// larger by itself is let in when nothing else is in flight.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_bytes_in_flight(512 << 20).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn max_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.max_bytes_in_flight = Some(bytes);
        self
    }

    /// Transactions at the same time, each on a connection of its own. Default: 2. More help a
    /// server with many cores and hurt where epochs share hot rows.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").in_flight_commits(4).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn in_flight_commits(mut self, commits: usize) -> Self {
        self.in_flight_commits = Some(commits);
        self
    }

    /// How long a unit's outcome is sought, retries included, before it is `Unavailable`.
    /// Default: 60 s.
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

    /// `lock_timeout` of the engine's transactions. Default: 10 s; above PostgreSQL's
    /// `deadlock_timeout` (1 s), so that a deadlock is told from a long wait.
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

    /// How long a connection may take to come about. Default: 5 s.
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

    /// A transaction of units, or of merges, that takes longer, from its wait for a connection to the answer to its
    /// commit, is logged at level warn when it ends, however it does: with its number of units and rows and what each of
    /// its statements took, and without any value. Default: 2 s. A day, the longest, logs none.
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

    /// Whether a unit that the database rejects is kept, with the reason, in the table
    /// `graphsink_dead_letters`, before its outcome is told:
    /// [`Engine::resubmit_dead_letters`](crate::Engine::resubmit_dead_letters) submits what is there
    /// again. Costs one more transaction for each rejection. Default: false.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").dead_letters(true).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn dead_letters(mut self, keep: bool) -> Self {
        self.dead_letters = Some(keep);
        self
    }

    /// Whether sessions of the server keep prepared statements from one transaction to the next. Set it to false behind a
    /// pooler that gives each transaction another session and does not keep them itself (`PgBouncer` in transaction mode,
    /// before 1.21 or with `max_prepared_statements = 0`): statements are then sent with their texts. The engine does so by
    /// itself after the first error that says so, but the pooler may before have given it another program's statement of
    /// the same name. Default: true.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").prepared_statements(false).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn prepared_statements(mut self, kept: bool) -> Self {
        self.prepared_statements = Some(kept);
        self
    }

    /// Names of entities, and aliases and attributes of them, that are remembered from one transaction to the next:
    /// entities of which a unit says nothing else are not looked up again. They are forgotten when an entity is
    /// deleted or renamed or loses a fact, by whichever program. Default: 100,000, which is about 4 MiB; 2^24 at
    /// most. Smaller than what comes again and again: that is looked up, at 7 µs of the server's time each. 0
    /// remembers nothing.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").known_names_max(0).build()?;
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    pub fn known_names_max(mut self, names: usize) -> Self {
        self.known_names_max = Some(names);
        self
    }

    /// Checks every value and how they fit together.
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
        let max_unit_rows = at_least("max_unit_rows", self.max_unit_rows.unwrap_or(10_000), 1)?;
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
        let connect_timeout = seconds("connect_timeout", self.connect_timeout_seconds, 5.0)?;
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
            outcome_deadline: seconds("outcome_deadline", self.outcome_deadline_seconds, 60.0)?,
            statement_timeout: seconds("statement_timeout", self.statement_timeout_seconds, 30.0)?,
            lock_timeout: seconds("lock_timeout", self.lock_timeout_seconds, 10.0)?,
            connect_timeout,
            slow_transaction: seconds("slow_transaction", self.slow_transaction_seconds, 2.0)?,
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
        assert_eq!(setting(build().outcome_deadline(Duration::ZERO)), "outcome_deadline");
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
