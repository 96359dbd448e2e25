//! Errors of an embedded server, with their remedies.

use std::io;
use std::path::{Path, PathBuf};

/// Why an embedded server could not be found, prepared, started or stopped.
///
/// ```
/// use graphsink::server::{EmbeddedServer, ServerError};
///
/// # async fn example() -> Result<(), ServerError> {
/// match EmbeddedServer::temporary().await {
///     Err(ServerError::NotFound { wanted }) => println!("install PostgreSQL {wanted}"),
///     server => println!("{}", server?.version()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The machine has no usable PostgreSQL.
    #[error(
        "no PostgreSQL {wanted} found: run `make postgres` in a clone of graphsink, or install it with \
         `apt install postgresql`, `dnf install postgresql-server postgresql-contrib`, \
         `apk add postgresql postgresql-contrib` or `brew install postgresql@17`; \
         binaries elsewhere are named by GRAPHSINK_PG_BIN (the folder with `postgres` and `initdb`)"
    )]
    NotFound {
        /// The suitable versions, such as "14 or newer".
        wanted: String,
    },

    /// `GRAPHSINK_PG_BIN` names a folder without a usable PostgreSQL.
    #[error(
        "GRAPHSINK_PG_BIN is {path:?}, which holds no `postgres` and `initdb` of PostgreSQL {wanted} that can be run"
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The suitable versions.
        wanted: String,
    },

    /// The owner is root, and no other user exists to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root and no other user exists: add one, for example with `useradd --system postgres`"
    )]
    NoAccount,

    /// The owner is root, and the user that runs PostgreSQL cannot enter the directory.
    #[error(
        "user {account:?}, as which PostgreSQL runs because it refuses to be root, may not enter {path:?}: choose another directory, or run as a user other than root"
    )]
    Unreachable {
        /// The directory without access.
        path: PathBuf,
        /// The user.
        account: String,
    },

    /// The directory contains something other than a cluster of this module.
    #[error("{directory:?} is neither empty nor a cluster made by graphsink: choose an empty directory")]
    NotACluster {
        /// The directory.
        directory: PathBuf,
    },

    /// Another server runs on the directory.
    #[error(
        "a PostgreSQL server with process id {pid} runs on {directory:?} already: stop it first, or choose another directory"
    )]
    AlreadyRunning {
        /// The directory.
        directory: PathBuf,
        /// Its postmaster.
        pid: u32,
    },

    /// A setting that cannot be set.
    #[error("setting {name:?} cannot be set: {reason}")]
    Setting {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },

    /// `initdb` failed.
    #[error("initdb failed, it said:\n{output}")]
    InitDb {
        /// The end of its output.
        output: String,
    },

    /// The server did not start.
    #[error("PostgreSQL did not start ({reason}), the end of its log:\n{log}")]
    Start {
        /// The observed symptom.
        reason: String,
        /// The end of its log.
        log: String,
    },

    /// Another program listens on the port.
    #[error("port {port} on 127.0.0.1 is taken by another program: stop that one, or start a new server")]
    PortTaken {
        /// The port.
        port: u16,
    },

    /// The server did not end.
    #[error("process {pid} of PostgreSQL did not end within {seconds} s after {signal}: end it by hand")]
    Stop {
        /// The process.
        pid: u32,
        /// The signal that was sent.
        signal: &'static str,
        /// The time limit.
        seconds: u64,
    },

    /// The server refused a statement or the connection.
    #[error("the embedded server refused the statement")]
    Sql {
        /// Its SQLSTATE; nothing if the connection failed.
        sqlstate: Option<String>,
        /// Its answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The operating system refused something.
    #[error("could not {action} {path:?}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl ServerError {
    /// The SQLSTATE, where PostgreSQL itself refused.
    ///
    /// ```no_run
    /// # async fn example(server: graphsink::server::EmbeddedServer) -> Result<(), graphsink::server::ServerError> {
    /// match server.create_database("evidence").await {
    ///     Err(error) if error.sqlstate() == Some("42P04") => println!("it is there already"),
    ///     created => created?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Sql { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    pub(super) fn sql(error: tokio_postgres::Error) -> Self {
        Self::Sql { sqlstate: error.code().map(|state| state.code().to_owned()), source: error.into() }
    }

    /// For `map_err`: an [`Io`](Self::Io) error that says what was tried on what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
