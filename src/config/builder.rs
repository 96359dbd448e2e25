//! The builder of the settings: its beginning and its end.

use std::fmt;

use super::limits::notice_dead_peers;
use super::table::{Config, ConfigBuilder};
use crate::error::ConfigError;
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

    /// Checks every value and their relations.
    ///
    /// ```
    /// // Told before anything is connected to.
    /// let error = graphsink::Config::builder("postgresql:///evidence").max_batch_rows(0).build().unwrap_err();
    /// assert!(error.to_string().contains("max_batch_rows"));
    /// ```
    pub fn build(self) -> Result<Config, ConfigError> {
        let url = self.database_url.as_deref().ok_or_else(|| {
            let missing = "is missing: give a connection string such as `postgresql://user@host/database`";
            ConfigError::new("database_url", missing)
        })?;
        let (postgres, tls) = tls::parse(url)?;
        let mut config = self.checked(postgres, tls)?;
        config.postgres.connect_timeout(config.connect_timeout);
        notice_dead_peers(&mut config.postgres);
        if config.postgres.get_application_name().is_none() {
            config.postgres.application_name("graphsink");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::limits::{KNOWN_NAMES_MAX, ROWS_IN_FLIGHT_MAX};

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
        let commits = |commits| build().in_flight_commits(commits).build().unwrap().max_batch_rows;
        assert_eq!([1, 2, 6, 7, 64].map(commits), [42_000, 28_000, 12_000, 12_000, 12_000]);
        assert_eq!([rows(build()), rows(build().in_flight_commits(1))], [84_000; 2]);
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
