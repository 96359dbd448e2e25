//! Pools of connections, the engine's and the resolver's: how a connection is opened, and how the cause of a failure
//! reaches the callers that wait for one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection, Pool, PooledConnection, RunError};
use bb8_postgres::PostgresConnectionManager;
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::prepared::StatementNames;
use crate::config::Config;
use crate::error::StoreError;
use crate::tls::MakeTls;

/// Opens bare connections, for the managers of pools.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// The ways to connect: see [`Tls::ways`](crate::tls::Tls::ways).
    ways: Vec<PostgresConnectionManager<MakeTls>>,
    /// Time limit for opening a connection.
    patience: Duration,
    statement_names: StatementNames,
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Self {
        let (postgres, tls) = (&config.postgres, &config.tls);
        // Each host in turn may be silent, and then there is the login.
        let hosts = postgres.get_hosts().len().max(postgres.get_hostaddrs().len()).max(1);
        let patience = config.connect_timeout * (hosts as u32 + 1);
        let ways = tls.ways(postgres).into_iter().map(|way| PostgresConnectionManager::new(way, tls.make())).collect();
        Self { ways, patience, statement_names: StatementNames::new(config.prepared_statements) }
    }

    /// The knowledge about prepared statements on these connections.
    pub(crate) const fn statement_names(&self) -> &StatementNames {
        &self.statement_names
    }

    pub(crate) async fn connect(&self) -> Result<Client, StoreError> {
        // The driver's timeout covers only the socket. A server that is silent afterwards would occupy the pool's slot
        // for ever, and the pool opens no other connection while one is being opened for each waiter.
        let (first, others) = self.ways.split_first().expect("there is a way to connect");
        let mut result = self.connect_by(first).await;
        for way in others {
            // Only a server that answered can have refused the way.
            if !matches!(&result, Err(StoreError::Connect(error)) if error.get().as_db_error().is_some()) {
                break;
            }
            result = self.connect_by(way).await;
        }
        result
    }

    async fn connect_by(&self, way: &PostgresConnectionManager<MakeTls>) -> Result<Client, StoreError> {
        let client = tokio::time::timeout(self.patience, way.connect()).await;
        let client = client.map_err(|_| StoreError::NoConnection(self.patience))?;
        client.map_err(StoreError::connect)
    }

    pub(crate) async fn is_valid(&self, client: &mut Client) -> Result<(), StoreError> {
        Ok(self.ways[0].is_valid(client).await?)
    }

    pub(crate) fn has_broken(&self, client: &mut Client) -> bool {
        self.ways[0].has_broken(client)
    }
}

impl Config {
    /// Connects as the engine does, for queries of the program's own: with the same hosts, user, password and encryption. The
    /// connection is driven by a task of the current tokio runtime, and ends with the client.
    ///
    /// # Errors
    /// Fails when the server cannot be reached or refuses the connection.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = graphsink::Config::builder("postgresql:///evidence").build()?;
    /// let mentions: i64 = config.connect().await?.query_one("select count(*) from mentions", &[]).await?.get(0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(&self) -> Result<tokio_postgres::Client, StoreError> {
        Connector::new(self).connect().await
    }
}

/// A pool that reports at once why there is no connection.
#[derive(Debug, Clone)]
pub(crate) struct SessionPool<M: ManageConnection<Error = StoreError>> {
    pool: Pool<M>,
    failures: ConnectFailures,
    connect_timeout: Duration,
}

impl<M: ManageConnection<Error = StoreError>> SessionPool<M> {
    /// Connects lazily; must be called on the runtime that will drive the connections.
    pub(crate) async fn new(manager: M, connections: u32, connect_timeout: Duration) -> Result<Self, StoreError> {
        let failures = ConnectFailures::default();
        let pool = Pool::builder()
            .max_size(connections)
            .connection_timeout(connect_timeout)
            // The first statement detects a dead connection, and nothing is lost: a check would cost each transaction
            // one round trip.
            .test_on_check_out(false)
            // The callers retry by themselves, and know which errors to retry.
            .retry_connection(false)
            .error_sink(Box::new(failures.clone()))
            .build(manager)
            .await?;
        Ok(Self { pool, failures, connect_timeout })
    }

    pub(crate) async fn get(&self) -> Result<PooledConnection<'_, M>, StoreError> {
        tokio::select! {
            connection = self.pool.get() => connection.map_err(|error| match error {
                RunError::User(error) => error,
                RunError::TimedOut => StoreError::NoConnection(self.connect_timeout),
            }),
            error = self.failures.next() => Err(error),
        }
    }

    pub(crate) fn state(&self) -> bb8::State {
        self.pool.state()
    }
}

/// Why connections cannot be opened. The pool itself would report "timed out" and hide the reason: those that wait for
/// a connection get it from here, at once.
#[derive(Debug, Clone, Default)]
struct ConnectFailures {
    last: Arc<Mutex<Option<Arc<StoreError>>>>,
    happened: Arc<Notify>,
}

impl ConnectFailures {
    /// The next failure from now on.
    async fn next(&self) -> StoreError {
        loop {
            self.happened.notified().await;
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match last.as_deref() {
                Some(StoreError::Connect(error)) => return StoreError::Connect(error.clone()),
                Some(StoreError::NoConnection(patience)) => return StoreError::NoConnection(*patience),
                // Other errors do not come from opening a connection.
                Some(_) | None => {}
            }
        }
    }
}

impl ErrorSink<StoreError> for ConnectFailures {
    fn sink(&self, error: StoreError) {
        tracing::warn!(error = %error, "a connection of the pool failed");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
        self.happened.notify_waiters();
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<StoreError>> {
        Box::new(self.clone())
    }
}
