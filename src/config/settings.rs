//! Validated settings: how they are read.

use std::fmt;

use super::table::Config;

/// Not derived: a connection string carries a password.
#[expect(clippy::missing_fields_in_debug, reason = "`shown` has the settings")]
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Config");
        shown
            .field("dbname", &self.postgres.get_dbname())
            .field("user", &self.postgres.get_user())
            .field("hosts", &self.postgres.get_hosts())
            .field("tls", &self.tls);
        for (name, _, value, _) in self.shown() {
            shown.field(name, value);
        }
        shown.finish()
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
    /// assert!(config.settings().contains(&("max_batch_rows", "28000".to_owned())));
    /// # Ok::<(), graphsink::ConfigError>(())
    /// ```
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        self.shown().into_iter().map(|(_, key, _, value)| (key, value)).collect()
    }
}
