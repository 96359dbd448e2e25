//! Validated settings.

use std::fmt;
use std::time::Duration;

use super::as_of::AsOf;
use crate::tls::Tls;

/// Validated settings of an engine. Made by [`Config::builder`], or read with serde into a
/// [`ConfigBuilder`](crate::ConfigBuilder) (feature `config-file`: `ConfigBuilder::load`).
///
/// ```
/// let config = graphsink::Config::builder("postgresql://app:s3cret@localhost/evidence").build()?;
/// assert!(!format!("{config:?}").contains("s3cret"), "no password is shown");
/// # Ok::<(), graphsink::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) postgres: tokio_postgres::Config,
    pub(crate) tls: Tls,
    pub(crate) schema: String,
    pub(crate) max_batch_rows: usize,
    pub(crate) max_unit_rows: usize,
    pub(crate) max_rows_in_flight: usize,
    pub(crate) max_bytes_in_flight: usize,
    pub(crate) in_flight_commits: usize,
    pub(crate) outcome_deadline: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) slow_transaction: Duration,
    pub(crate) as_of: AsOf,
    pub(crate) dead_letters: bool,
    pub(crate) prepared_statements: bool,
    pub(crate) known_names_max: usize,
}

/// Not derived: a connection string carries a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("dbname", &self.postgres.get_dbname())
            .field("user", &self.postgres.get_user())
            .field("hosts", &self.postgres.get_hosts())
            .field("tls", &self.tls)
            .field("schema", &self.schema)
            .field("max_batch_rows", &self.max_batch_rows)
            .field("max_unit_rows", &self.max_unit_rows)
            .field("max_rows_in_flight", &self.max_rows_in_flight)
            .field("max_bytes_in_flight", &self.max_bytes_in_flight)
            .field("in_flight_commits", &self.in_flight_commits)
            .field("outcome_deadline", &self.outcome_deadline)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("slow_transaction", &self.slow_transaction)
            .field("as_of", &self.as_of)
            .field("dead_letters", &self.dead_letters)
            .field("prepared_statements", &self.prepared_statements)
            .field("known_names_max", &self.known_names_max)
            .finish()
    }
}

impl Config {
    /// The driver's connection parameters: the connection string, completed by the environment. They contain the
    /// password.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql://app@localhost/evidence").build()?;
    /// assert_eq!(config.postgres().get_dbname(), Some("evidence"));
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn postgres(&self) -> &tokio_postgres::Config {
        &self.postgres
    }

    /// The schema that holds the tables.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").schema("evidence").build()?;
    /// assert_eq!(config.schema(), "evidence");
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Maximum number of rows of a unit.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql:///evidence").max_unit_rows(500).build()?;
    /// assert_eq!(config.max_unit_rows(), 500);
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn max_unit_rows(&self) -> usize {
        self.max_unit_rows
    }

    /// Every setting except the connection string, with the names and units of the configuration file, for reports and
    /// logs; `as_of` is "the clock" if none is set.
    ///
    /// ```
    /// let config = graphsink::Config::builder("postgresql://app:secret@localhost/db").build()?;
    /// assert!(config.settings().contains(&("max_batch_rows", "24000".to_owned())));
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        vec![
            ("schema", self.schema.clone()),
            ("max_batch_rows", self.max_batch_rows.to_string()),
            ("max_unit_rows", self.max_unit_rows.to_string()),
            ("max_rows_in_flight", self.max_rows_in_flight.to_string()),
            ("max_bytes_in_flight", self.max_bytes_in_flight.to_string()),
            ("in_flight_commits", self.in_flight_commits.to_string()),
            ("outcome_deadline_seconds", seconds(self.outcome_deadline)),
            ("statement_timeout_seconds", seconds(self.statement_timeout)),
            ("lock_timeout_seconds", seconds(self.lock_timeout)),
            ("connect_timeout_seconds", seconds(self.connect_timeout)),
            ("slow_transaction_seconds", seconds(self.slow_transaction)),
            (
                "as_of",
                match self.as_of {
                    AsOf::Clock => "the clock".to_owned(),
                    AsOf::Fixed(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                },
            ),
            ("dead_letters", self.dead_letters.to_string()),
            ("prepared_statements", self.prepared_statements.to_string()),
            ("known_names_max", self.known_names_max.to_string()),
        ]
    }
}
