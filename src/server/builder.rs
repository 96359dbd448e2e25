//! The builder of an embedded server.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::EmbeddedServer;
use super::account::Account;
use super::binaries::Binaries;
use super::cluster::Cluster;
use super::error::ServerError;
use super::guardian::Guardian;
use super::home::Home;
use super::postmaster::Postmaster;

/// How often a start is repeated with another port, because a free port can be taken before the server binds it.
const PORTS_TRIED_MAX: u32 = 10;

/// Settings that this module controls, with the reason.
const RESERVED: [(&str, &str); 11] = [
    ("port", "the port is chosen automatically, see `EmbeddedServer::port`"),
    ("listen_addresses", "the server is for this machine only"),
    ("unix_socket_directories", "the socket is in the server's directory"),
    ("data_directory", "use `data_dir`"),
    ("config_file", "it belongs to the data directory"),
    ("hba_file", "it belongs to the data directory"),
    ("ident_file", "it belongs to the data directory"),
    ("external_pid_file", "it belongs to the data directory"),
    ("logging_collector", "use `log_to`"),
    ("log_destination", "use `log_to`"),
    ("lc_messages", "the server's messages are read in English"),
];

/// Describes an [`EmbeddedServer`]; [`start`](Self::start) starts it.
///
/// ```no_run
/// # async fn run() -> Result<(), graphsink::server::ServerError> {
/// use graphsink::server::EmbeddedServer;
///
/// let server = EmbeddedServer::builder()
///     .data_dir("/var/tmp/evidence")
///     .setting("max_connections", "20")
///     .log_to("/var/tmp/evidence.log")
///     .start()
///     .await?;
/// println!("{}", server.psql_command("postgres"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before `start`"]
pub struct ServerBuilder {
    data_dir: Option<PathBuf>,
    settings: BTreeMap<String, String>,
    log: Option<PathBuf>,
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Keeps the data in `path` between runs. Default: a temporary directory.
    ///
    /// The directory is created if it does not exist, and a cluster if it is empty. It contains the cluster in `data`,
    /// its password and its log. One process at a time can use it. If the last owner was killed, the next start waits
    /// until its server has stopped.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), graphsink::server::ServerError> {
    /// let server = EmbeddedServer::builder().data_dir("evidence-data").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Sets a parameter of `postgresql.conf`. The last value for a name counts.
    ///
    /// Without this the server runs with PostgreSQL's defaults, in particular for durability, with these exceptions:
    /// time zone UTC, `shared_buffers` an eighth of the memory (64 to 512 MB), `max_wal_size` 4 GB and
    /// `checkpoint_timeout` 15 min, so that checkpoints do not slow a bulk load, and `wal_compression` on.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), graphsink::server::ServerError> {
    /// let server = EmbeddedServer::builder().setting("shared_buffers", "1GB").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into().to_ascii_lowercase(), value.into());
        self
    }

    /// Appends the server's log to `path`. Default: `server.log` in the server's directory, which is removed if that is
    /// temporary.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), graphsink::server::ServerError> {
    /// let server = EmbeddedServer::builder().log_to("postgresql.log").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn log_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Prepares the directory, starts the server and returns when it accepts connections.
    ///
    /// If the future is dropped before that, nothing is left behind.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), graphsink::server::ServerError> {
    /// let server = EmbeddedServer::builder().setting("max_connections", "20").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(self) -> Result<EmbeddedServer, ServerError> {
        for (name, value) in &self.settings {
            check_setting(name, value)?;
        }
        let mut account = Account::choose()?;
        let home = match &self.data_dir {
            None => Home::temporary(&account)?,
            Some(path) => Home::durable(path, &mut account)?,
        };
        let binaries = Binaries::find(&account, home.wanted()?)?;
        let mut guardian = Guardian::start(home.to_remove()).map_err(ServerError::io("start", Path::new("/bin/sh")))?;
        home.create(&account)?;
        let cluster = Cluster::open(home, account, &binaries, &mut guardian).await?;

        let log = match self.log {
            Some(path) => std::path::absolute(&path).map_err(ServerError::io("resolve", &path))?,
            None => cluster.directory().join("server.log"),
        };
        let mut settings = cluster.default_settings(&binaries);
        settings.extend(self.settings);
        let settings: Vec<(String, String)> = settings.into_iter().collect();

        let mut tried = 1;
        let (port, postmaster) = loop {
            let port = free_port()?;
            match Postmaster::start(&binaries, &cluster, &mut guardian, &settings, port, &log).await {
                Ok(postmaster) => break (port, postmaster),
                Err(ServerError::PortTaken { .. }) if tried < PORTS_TRIED_MAX => tried += 1,
                Err(error) => return Err(error),
            }
        };
        tracing::info!(version = %binaries.version.text, directory = %cluster.directory().display(), port, "embedded PostgreSQL is ready");
        Ok(EmbeddedServer { binaries, settings, log, port, postmaster: Some(postmaster), cluster, guardian })
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, ServerError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ServerError::io("find a free port on", Path::new("127.0.0.1")))
}

fn check_setting(name: &str, value: &str) -> Result<(), ServerError> {
    let refuse = |reason| Err(ServerError::Setting { name: name.to_owned(), reason });
    if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return refuse(reason);
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(word) {
        return refuse("this is not the name of a setting");
    }
    if value.contains('\0') {
        return refuse("its value contains NUL");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_the_module_needs_itself_are_refused_with_the_reason() {
        let refused = |name, value| match check_setting(name, value) {
            Err(ServerError::Setting { reason, .. }) => reason,
            other => panic!("{name}: {other:?}"),
        };
        assert!(refused("port", "1").contains("EmbeddedServer::port"));
        assert!(refused("a b", "1").contains("not the name"));
        assert!(refused("work_mem", "1\0").contains("NUL"));
        assert!(check_setting("pg_stat_statements.max", "100").is_ok());
    }

    #[test]
    fn the_last_value_of_a_setting_counts_whatever_its_case() {
        let builder = ServerBuilder::new().setting("work_mem", "1MB").setting("WORK_MEM", "2MB");
        assert_eq!(builder.settings.into_iter().collect::<Vec<_>>(), [("work_mem".to_owned(), "2MB".to_owned())]);
    }
}
