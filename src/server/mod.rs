//! A private PostgreSQL server for examples, tests and users' own tests.
//!
//! [`EmbeddedServer::temporary`] starts a new server that is removed with its owner; [`EmbeddedServer::builder`] with a
//! [`data_dir`](ServerBuilder::data_dir) starts a server that keeps its data.
//!
//! **Why not a crate.** `postgresql_embedded` downloads a built PostgreSQL from GitHub (or packs it into the program)
//! and starts it with `-F`, which switches fsync off. `pgtemp` runs the machine's binaries, also with fsync off,
//! through `sudo` if its owner is root, and panics on failures. Both stop the server only in `Drop`, so a killed owner
//! leaves it running. This module uses the machine's binaries: they are those that a deployment runs, they have the
//! contrib extensions, and nothing is downloaded without a request. It does not change PostgreSQL's durability, because
//! a benchmark or a crash test without fsync proves nothing.
//!
//! Parts:
//! 1. `binaries` finds PostgreSQL 14 or newer, `account` the user to run it as (PostgreSQL refuses to be root).
//! 2. `home` names and creates the directory, `cluster` fills it: `initdb`, password, locks.
//! 3. `postmaster` owns the process: start, readiness, fast stop, crash.
//! 4. `guardian` is a small shell process that stops the server and removes a temporary directory if its owner dies
//!    without doing so, SIGKILL included.
//!
//! Properties:
//! - The server and the guardian have their own process groups: Ctrl-C in a terminal reaches only the owner, which can
//!   still drain into the server.
//! - The owner's death never leaves a process or a temporary directory behind: the guardian knows a process before it
//!   runs.
//! - The server listens on 127.0.0.1 and on a socket in its directory, with a random password (scram-sha-256).

mod account;
mod binaries;
mod builder;
mod cluster;
mod error;
mod guardian;
mod home;
mod postmaster;
mod process;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use builder::ServerBuilder;
pub use error::ServerError;

use binaries::Binaries;
use cluster::{Cluster, SUPERUSER};
use guardian::Guardian;
use postmaster::Postmaster;

/// How often a restart retries its port; with the pauses between, five seconds in all.
const PORT_TRIED_MAX: u32 = 20;
const PORT_PAUSE: Duration = Duration::from_millis(250);

/// A running PostgreSQL server that belongs to this value.
///
/// Dropping it stops the server (fast shutdown: sessions end, everything committed is on disk) and removes its
/// directory if that was temporary. The same happens when the owning process dies in any other way. Dropping blocks
/// during the shutdown, usually for some ten milliseconds.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use graphsink::server::EmbeddedServer;
///
/// let server = EmbeddedServer::temporary().await?;
/// server.create_database("app").await?;
/// let (client, connection) = tokio_postgres::connect(&server.url("app"), tokio_postgres::NoTls).await?;
/// tokio::spawn(connection);
/// client.batch_execute("create table dishes(name text)").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the server stops when this value is dropped"]
pub struct EmbeddedServer {
    binaries: Binaries,
    settings: Vec<(String, String)>,
    log: PathBuf,
    port: u16,
    // Dropped in this order: the process, the directory, and last the guardian, which supervises both.
    postmaster: Option<Postmaster>,
    cluster: Cluster,
    guardian: Guardian,
}

impl EmbeddedServer {
    /// Starts a new server in a temporary directory.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("{}", server.version());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn temporary() -> Result<Self, ServerError> {
        Self::builder().start().await
    }

    /// A builder for a server, which is temporary unless configured otherwise.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::builder().setting("max_wal_size", "4GB").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// The connection URL of database `dbname`, for tokio-postgres, psql and every other client that accepts libpq's
    /// URLs.
    ///
    /// It contains the superuser's password: do not log it.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// let config = graphsink::Config::builder(server.url("postgres")).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn url(&self, dbname: &str) -> String {
        format!(
            "postgresql://{SUPERUSER}:{}@127.0.0.1:{}/{}",
            self.cluster.password(),
            self.port,
            percent_encoded(dbname)
        )
    }

    /// The TCP port on 127.0.0.1. It stays the same through [`restart`](Self::restart).
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("listens on 127.0.0.1:{}", server.port());
    /// # Ok(())
    /// # }
    /// ```
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name of the superuser; [`url`](Self::url) contains its password.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("{}", server.superuser());
    /// # Ok(())
    /// # }
    /// ```
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The version of the server's program, such as `15.13`.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("PostgreSQL {}", server.version());
    /// # Ok(())
    /// # }
    /// ```
    pub fn version(&self) -> &str {
        &self.binaries.version.text
    }

    /// The directory with the data, the socket and (unless moved) the log.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("{}", server.directory().display());
    /// # Ok(())
    /// # }
    /// ```
    pub fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// The server's log file.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("{}", server.log_path().display());
    /// # Ok(())
    /// # }
    /// ```
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The server's log so far, over all restarts.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// assert!(!server.read_log()?.contains("deadlock detected"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_log(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// A shell command that opens `psql` on database `dbname`; it contains the password.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// println!("To look at it: {}", server.psql_command("postgres"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn psql_command(&self, dbname: &str) -> String {
        let psql = self.binaries.psql();
        format!("{} '{}'", psql.display(), self.url(dbname))
    }

    /// Creates an empty database.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = EmbeddedServer::temporary().await?;
    /// server.create_database("evidence").await?;
    /// let url = server.url("evidence");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_database(&self, name: &str) -> Result<(), ServerError> {
        let (client, connection) =
            tokio_postgres::connect(&self.url("postgres"), tokio_postgres::NoTls).await.map_err(ServerError::sql)?;
        // An error of the connection also ends the statement below, which reports it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let quoted = name.replace('"', "\"\"");
        let created = client.batch_execute(&format!("create database \"{quoted}\"")).await;
        drop(client);
        // After waiting, no session of this process is left when the caller continues. This can only fail by a panic.
        drop(connection.await);
        created.map_err(ServerError::sql)
    }

    /// Stops the server with a fast shutdown; data and port stay for [`restart`](Self::restart).
    ///
    /// Does nothing if it is already stopped.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut server = EmbeddedServer::temporary().await?;
    /// server.stop().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.stop().await?;
        }
        self.forget_postmaster();
        Ok(())
    }

    /// Kills the postmaster and its children with SIGKILL and waits until they have ended: for fault tests.
    ///
    /// Committed data survives, as after a power failure; [`restart`](Self::restart) recovers it.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut server = EmbeddedServer::temporary().await?;
    /// // As if the machine had lost power: what was committed is there afterwards.
    /// server.crash()?;
    /// server.restart().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn crash(&mut self) -> Result<(), ServerError> {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.crash()?;
        }
        self.forget_postmaster();
        Ok(())
    }

    /// Starts the server again on the same port and data; a running server is stopped first.
    ///
    /// ```
    /// use graphsink::server::EmbeddedServer;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut server = EmbeddedServer::temporary().await?;
    /// server.restart().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.stop().await?;
        self.cluster.clear_stale_lock().await?;
        let mut tried = 1;
        self.postmaster = loop {
            let (binaries, cluster, settings) = (&self.binaries, &self.cluster, &self.settings);
            match Postmaster::start(binaries, cluster, &mut self.guardian, settings, self.port, &self.log).await {
                Ok(postmaster) => break Some(postmaster),
                // An outgoing connection of another program may hold the port for a moment.
                Err(ServerError::PortTaken { .. }) if tried < PORT_TRIED_MAX => tried += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PORT_PAUSE).await;
        };
        Ok(())
    }

    fn forget_postmaster(&mut self) {
        self.postmaster = None;
        self.guardian.watch(None);
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.forget_postmaster();
    }
}

impl fmt::Debug for EmbeddedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedServer")
            .field("version", &self.version())
            .field("directory", &self.directory())
            .field("port", &self.port)
            .field("running", &self.postmaster.is_some())
            .finish_non_exhaustive()
    }
}

/// `text` as one segment of a URL's path.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_are_encoded_for_the_url() {
        assert_eq!(percent_encoded("plain_db-1.x~"), "plain_db-1.x~");
        assert_eq!(percent_encoded("a b/c'ü"), "a%20b%2Fc%27%C3%BC");
    }
}
