//! Pools of connections, the engine's and the resolver's: how a connection is made, and what those hear who wait for one.

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

/// Makes bare connections, for the managers of pools.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// The ways to connect: see [`Tls::ways`](crate::tls::Tls::ways).
    ways: Vec<PostgresConnectionManager<MakeTls>>,
    /// How long a connection may take in all.
    patience: Duration,
    statement_names: StatementNames,
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Self {
        let (postgres, tls) = (&config.postgres, &config.tls);
        // One host after the other may keep silent, and then there is the login.
        let hosts = postgres.get_hosts().len().max(postgres.get_hostaddrs().len()).max(1);
        let patience = config.connect_timeout * (hosts as u32 + 1);
        let ways = tls.ways(postgres).into_iter().map(|way| PostgresConnectionManager::new(way, tls.make())).collect();
        Self { ways, patience, statement_names: StatementNames::new(config.prepared_statements) }
    }

    /// What is known of prepared statements on these connections.
    pub(crate) const fn statement_names(&self) -> &StatementNames {
        &self.statement_names
    }

    pub(crate) async fn connect(&self) -> Result<Client, StoreError> {
        // The driver's timeout is for the socket. A server that then keeps silent would take up the pool's room for ever,
        // and the pool makes no other connection as long as one is on its way for each that waits.
        let (first, others) = self.ways.split_first().expect("there is a way to connect");
        let mut result = self.connect_by(first).await;
        for way in others {
            // Only a server that answered can have refused the way.
            if !matches!(&result, Err(StoreError::Connect(error)) if error.as_db_error().is_some()) {
                break;
            }
            result = self.connect_by(way).await;
        }
        result
    }

    async fn connect_by(&self, way: &PostgresConnectionManager<MakeTls>) -> Result<Client, StoreError> {
        let client = tokio::time::timeout(self.patience, way.connect()).await;
        let client = client.map_err(|_| StoreError::NoConnection(self.patience))?;
        client.map_err(|error| StoreError::Connect(Arc::new(error)))
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
    /// When the server cannot be reached or refuses the connection.
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

/// A pool that says at once why there is no connection.
#[derive(Debug, Clone)]
pub(crate) struct SessionPool<M: ManageConnection<Error = StoreError>> {
    pool: Pool<M>,
    failures: ConnectFailures,
    connect_timeout: Duration,
}

impl<M: ManageConnection<Error = StoreError>> SessionPool<M> {
    /// Connects lazily; call it on the runtime that is to drive the connections.
    pub(crate) async fn new(manager: M, connections: u32, connect_timeout: Duration) -> Result<Self, StoreError> {
        let failures = ConnectFailures::default();
        let pool = Pool::builder()
            .max_size(connections)
            .connection_timeout(connect_timeout)
            // A connection that died is found out by its first statement, and nothing is lost: the
            // check would cost each transaction one round trip.
            .test_on_check_out(false)
            // The callers retry themselves, and know which errors deserve it.
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

/// Why connections do not come about. The pool itself would say "timed out" and keep the reason:
/// those that wait for a connection hear it from here, at once.
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
                Some(StoreError::Connect(error)) => return StoreError::Connect(Arc::clone(error)),
                Some(StoreError::NoConnection(patience)) => return StoreError::NoConnection(*patience),
                // Others do not come from making a connection.
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
