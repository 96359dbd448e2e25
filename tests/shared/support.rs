//! One server for all tests of this binary, and a new database for each test.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{AsOf, Committed, Config, ConfigBuilder, Engine, Migrations, Outcome, Timestamp, UnitOfWork};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

pub use crate::generate::seed;

/// The time limit for events that must happen.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The `as_of` of most tests: two days after a clock change in New York, which is the time zone of the tests'
/// databases, so that "30 days" counted as calendar days is an hour off.
pub fn as_of() -> Timestamp {
    "2024-03-12T12:00:00Z".parse().unwrap()
}

/// The server of `DATABASE_URL`, or an embedded one. Statics are not dropped; the guardian stops the embedded server
/// when this process ends.
enum Server {
    External(Box<tokio_postgres::Config>),
    Embedded(Box<EmbeddedServer>),
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
                return Server::External(Box::new(url.parse().expect("DATABASE_URL is a connection string")));
            }
            let server = EmbeddedServer::temporary().await;
            Server::Embedded(Box::new(server.expect("PostgreSQL 14 or newer is needed for these tests")))
        })
        .await
}

/// A database of its own for one test.
pub struct Database {
    pub url: String,
    pub name: String,
    schema: Option<String>,
    server: &'static Server,
}

impl Database {
    /// An empty database with unusual settings: the engine must not depend on locale, time zone or date style. On a
    /// server of `DATABASE_URL` it is left for inspection.
    pub async fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("graphsink_it_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let server = server().await;
        let admin = connect(&url(server, "postgres")).await;
        // A locale that sorts "a" < "B" < "é" < "z", unlike code points. Servers without ICU use their default locale.
        let collated =
            format!("create database {name} template template0 encoding 'UTF8' locale_provider icu icu_locale 'en-US'");
        if admin.batch_execute(&collated).await.is_err() {
            admin.batch_execute(&format!("create database {name} template template0 encoding 'UTF8'")).await.unwrap();
        }
        for (setting, value) in [
            ("timezone", "America/New_York"),
            ("datestyle", "SQL, DMY"),
            ("intervalstyle", "sql_standard"),
            ("extra_float_digits", "-3"),
        ] {
            admin.batch_execute(&format!("alter database {name} set {setting} = '{value}'")).await.unwrap();
        }
        Self { url: url(server, &name), name, schema: None, server }
    }

    /// A database with all tables and indexes.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        Migrations::all().run(&database.config().build().unwrap()).await.unwrap();
        database
    }

    /// The same database with another schema.
    #[must_use]
    pub fn with_schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// The URL of another database of the same server.
    pub fn url_of(&self, name: &str) -> String {
        url(self.server, name)
    }

    /// Settings of an engine on this database: fixed `as_of`, otherwise the defaults.
    pub fn config(&self) -> ConfigBuilder {
        let config = Config::builder(&self.url).as_of(AsOf::Fixed(as_of()));
        match &self.schema {
            Some(schema) => config.schema(schema),
            None => config,
        }
    }

    /// An engine with the settings of [`config`](Self::config).
    pub async fn engine(&self) -> Engine {
        Engine::start(self.config().build().unwrap()).await.unwrap()
    }

    /// An engine whose epochs hold a handful of rows, so that a small test has many of them.
    pub async fn small_engine(&self, max_batch_rows: usize, in_flight_commits: usize) -> Engine {
        let config = self.config().max_batch_rows(max_batch_rows).in_flight_commits(in_flight_commits);
        Engine::start(config.build().unwrap()).await.unwrap()
    }

    /// A session that uses the configured schema.
    pub async fn client(&self) -> Client {
        let client = connect(&self.url).await;
        if let Some(schema) = &self.schema {
            let quoted = schema.replace('"', "\"\"");
            client.batch_execute(&format!("set search_path to \"{quoted}\", public")).await.unwrap();
        }
        client
    }

    /// Panics if any transaction of this database was ever the victim of a deadlock.
    pub async fn assert_no_deadlocks(&self) {
        let client = self.client().await;
        let query = "select deadlocks from pg_stat_database where datname = current_database()";
        let deadlocks: i64 = client.query_one(query, &[]).await.unwrap().get(0);
        assert_eq!(deadlocks, 0, "pg_stat_database of {} counts deadlocks", self.name);
        if let Server::Embedded(server) = self.server {
            let log = server.read_log().unwrap();
            assert!(!log.contains("deadlock detected"), "the server's log contains a deadlock:\n{}", excerpt(&log));
        }
    }
}

fn excerpt(log: &str) -> String {
    // The details of a deadlock are many lines, all but the first indented: the waiting processes, and their
    // statements.
    let lines: Vec<_> = log.lines().collect();
    let found = (0..lines.len()).filter(|line| lines[*line].contains("deadlock detected")).take(3);
    found.flat_map(|line| &lines[line..lines.len().min(line + 12)]).fold(String::new(), |text, line| text + line + "\n")
}

fn url(server: &Server, database: &str) -> String {
    match server {
        Server::Embedded(server) => server.url(database),
        Server::External(config) => {
            let mut url = String::new();
            let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
            for host in config.get_hosts() {
                match host {
                    tokio_postgres::config::Host::Tcp(host) => write!(url, "host={} ", quoted(host)).unwrap(),
                    tokio_postgres::config::Host::Unix(path) => {
                        write!(url, "host={} ", quoted(&path.to_string_lossy())).unwrap();
                    }
                }
            }
            if let Some(port) = config.get_ports().first() {
                write!(url, "port={port} ").unwrap();
            }
            if let Some(user) = config.get_user() {
                write!(url, "user={} ", quoted(user)).unwrap();
            }
            if let Some(password) = config.get_password() {
                write!(url, "password={} ", quoted(&String::from_utf8_lossy(password))).unwrap();
            }
            write!(url, "dbname={}", quoted(database)).unwrap();
            url
        }
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // Ends with the client; an error of the connection also fails the statement under way.
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Submits a unit and expects that it becomes durable.
pub async fn commit(engine: &Engine, unit: UnitOfWork) -> Committed {
    match outcome(engine, unit).await {
        Outcome::Committed(committed) => committed,
        other => panic!("expected a commit, got {other:?}"),
    }
}

/// Submits a unit and waits for its outcome, with a time limit.
pub async fn outcome(engine: &Engine, unit: UnitOfWork) -> Outcome {
    let receipt = engine.submit(unit).await.expect("the engine accepts the unit");
    within(receipt).await
}

/// Waits with a time limit.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer within a minute")
}
