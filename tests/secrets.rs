//! Passwords are never shown, and values of rows are not logged at `info` and above.
//!
//! One test in a program of its own, because it collects the log of the whole process, also at `trace`, and also the
//! driver's output through the `log` crate. Everything printable is printed into the same text, which is searched.

// Tests tell one story from beginning to end, however long.
#![allow(clippy::too_many_lines)]

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use graphsink::{Config, Engine, Mention, Migrations, Outcome, PlaceObservation, RejectReason, SourceType, UnitOfWork};
use tokio_postgres::{Client, NoTls};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

const PASSWORD: &str = "pa55w0rd-mark";
const VALUE: &str = "value-mark";
const PATIENCE: Duration = Duration::from_mins(1);

/// A buffer for all writers.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<String>>);

impl Text {
    fn read(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Every printable form of a value.
    fn debug(&self, thing: &impl Debug) {
        writeln!(self.0.lock().unwrap(), "{thing:?}\n{thing:#?}").unwrap();
    }

    /// An error with all of its causes.
    fn error(&self, error: &(dyn Error + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            writeln!(self.0.lock().unwrap(), "{error}\n{error:?}").unwrap();
            cause = error.source();
        }
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Text {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(text: &Text) -> impl Layer<S> {
    tracing_subscriber::fmt::layer().with_ansi(false).with_span_events(FmtSpan::FULL).with_writer(text.clone())
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer within a minute")
}

/// A unit with the mark in every text.
fn unit(number: u32, google_place_id: &str) -> UnitOfWork {
    let marked = |what: &str| format!("{VALUE} {what} {number}");
    let observed_at = "2024-01-10T14:20:00Z".parse().unwrap();
    let mut unit = UnitOfWork::new();
    let place = PlaceObservation::new(observed_at)
        .address(marked("address"))
        .google_place_id(google_place_id)
        .metadata(serde_json::json!({ "note": marked("metadata") }));
    let restaurant =
        unit.restaurant(marked("restaurant")).alias(marked("alias")).temp_id(marked("id")).place(place).handle();
    let dish = unit.dish(marked("dish")).handle();
    let connection = unit.connection(restaurant, dish).handle();
    let mention = Mention::new(SourceType::Comment, marked("source"), marked("url"), marked("subreddit"), observed_at)
        .thread(marked("thread"))
        .author(marked("author"))
        .excerpt(marked("excerpt"));
    unit.mention(connection, mention);
    unit
}

/// Unusable connection strings, with the password at every place where a mistake may put it.
fn broken_connection_strings() -> Vec<String> {
    [
        "postgresql://user:MARK@local host:x/db",
        "postgresql://user:MARK",
        "postgresql://user:x@MARK@localhost/db",
        "postgresql://user:MARK@localhost/db?sslmode=MARK",
        "postgresql://user@localhost/db?MARK",
        "postgresql://user@localhost/db?MARK=1",
        "postgresql://user@localhost/db?sslmode=require&sslrootcert=/x@MARK",
        "postgresql://user@localhost/db?sslmode=verify-ca&sslrootcert=/nowhere/MARK",
        "postgresql://user@localhost/db?sslmode=require&sslcert=/nowhere/MARK&sslkey=MARK",
        "postgresql://user@localhost/db?sslmode=require&sslcert=MARK",
        "postgresql://user@localhost:MARK/db",
        "host=localhost password=x MARK",
        "host=localhost password='MARK",
        "host=localhost password='x'MARK",
        "host=localhost port=MARK",
        "host=localhost connect_timeout=MARK",
        "host=localhost sslmode=MARK",
        "host=localhost MARK=x",
        "MARK",
    ]
    .map(|text| text.replace("MARK", PASSWORD))
    .into()
}

/// The owner of the database, with the marked password.
async fn create_role(admin: &Client) {
    // In two parts, because the driver logs the text of this test's own statements.
    let (head, tail) = PASSWORD.split_at(4);
    let role = format!(
        "do $$ begin execute format('create role app login password %L', '{head}' || '{tail}'); end $$;
         alter database secrets owner to app"
    );
    admin.batch_execute(&role).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_ever_shown_and_no_value_is_logged() {
    let (all, loud) = (Text::default(), Text::default());
    tracing_subscriber::registry()
        .with(layer(&all).with_filter(LevelFilter::TRACE))
        .with(layer(&loud).with_filter(LevelFilter::INFO))
        .init();

    let server = EmbeddedServer::temporary().await.expect("PostgreSQL 14 or newer is needed for this test");
    server.create_database("secrets").await.unwrap();
    let admin = connect(&server.url("secrets")).await;
    create_role(&admin).await;
    let port = server.port();
    let url = format!("postgresql://app:{PASSWORD}@127.0.0.1:{port}/secrets");
    all.debug(&server);

    // Invalid settings: each is built, and started if it can be built.
    for text in broken_connection_strings() {
        let builder = Config::builder(&text).connect_timeout(Duration::from_millis(500));
        all.debug(&builder);
        match builder.build() {
            Err(error) => all.error(&error),
            Ok(config) => panic!("accepted: {text}: {config:?}"),
        }
    }

    // Starts that fail: a wrong password, no server, a server without TLS, no such database, no tables.
    for text in [
        format!("postgresql://app:{PASSWORD}-wrong@127.0.0.1:{port}/secrets"),
        format!("postgresql://app:{PASSWORD}@127.0.0.1:1/secrets"),
        format!("{url}?sslmode=require"),
        format!("{url}?channel_binding=require"),
        format!("host=127.0.0.1 port={port} user=app password='{PASSWORD}' dbname=nothing"),
        url.clone(),
    ] {
        let config = Config::builder(&text).connect_timeout(Duration::from_secs(2)).build().unwrap();
        all.debug(&config);
        let Err(error) = within(Engine::start(config.clone())).await else { panic!("the start succeeded: {text}") };
        all.error(&error);
        loud.error(&error);
        if text != url {
            let error = within(Migrations::all().run(&config)).await.unwrap_err();
            all.error(&error);
            loud.error(&error);
        }
    }

    // Work that fails in each way whose error mentions rows.
    let config = Config::builder(&url).dead_letters(true).outcome_deadline(Duration::from_secs(3)).build().unwrap();
    Migrations::all().run(&config).await.unwrap();
    let engine = Engine::start(config).await.unwrap();
    all.debug(&engine);
    all.debug(engine.config());
    let mut outcomes = vec![within(engine.submit(unit(1, VALUE)).await.unwrap()).await];
    outcomes.push(within(engine.submit(unit(2, VALUE)).await.unwrap()).await);
    for (number, code) in (3..).zip(["P0001", "XX000", "40001", "42501"]) {
        let trigger = format!(
            "create or replace function refuse() returns trigger language plpgsql as $$
             begin raise exception 'no % here', new.source_id using errcode = '{code}', detail = new.content_excerpt; end $$;
             create or replace trigger refuse before insert on mentions for each row execute function refuse()"
        );
        admin.batch_execute(&trigger).await.unwrap();
        outcomes.push(within(engine.submit(unit(number, &format!("{VALUE} {number}"))).await.unwrap()).await);
    }
    admin.batch_execute("drop trigger refuse on mentions").await.unwrap();
    // A session that ends while the engine uses it.
    admin.batch_execute("begin; lock table entities in exclusive mode").await.unwrap();
    let receipt = engine.submit(unit(1000, "1000")).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where usename = 'app' and wait_event_type = 'Lock'";
    within(async {
        while admin.execute(end, &[]).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    admin.batch_execute("commit").await.unwrap();
    outcomes.push(within(receipt).await);
    let refused = engine.submit(UnitOfWork::new()).await;
    all.debug(&refused);
    let kept: i64 = admin.query_one("select count(*) from graphsink_dead_letters", &[]).await.unwrap().get(0);
    assert!(kept >= 3, "{kept} dead letters");
    within(engine.shutdown(Duration::from_secs(20))).await;
    let closed = engine.submit(unit(1001, "1001")).await.unwrap_err();
    all.error(&closed);
    loud.error(&closed);

    let kinds: Vec<_> = outcomes.iter().map(Outcome::as_str).collect();
    assert_eq!(kinds[..4], ["committed", "rejected", "rejected", "rejected"], "{outcomes:?}");
    assert_eq!(kinds[6], "committed", "{outcomes:?}");
    for outcome in &outcomes {
        all.debug(outcome);
        if let Outcome::Rejected(rejection) = outcome {
            assert!(matches!(rejection.reason, RejectReason::Database), "{rejection:?}");
        }
    }

    // The searches can find something: each source was logged, and the marks are in the expected places.
    let (all, loud) = (all.read(), loud.read());
    for speaker in [" TRACE ", " DEBUG ", " WARN ", "tokio_postgres", "graphsink::store"] {
        assert!(all.contains(speaker), "no log of {speaker}");
    }
    assert!(loud.contains("transaction failed, will try again") && loud.contains("SQLSTATE 40001"));
    assert!(all.contains(VALUE), "the driver logs parameters at debug");
    let rows: i64 = admin.query_one("select count(*) from mentions", &[]).await.unwrap().get(0);
    assert_eq!(rows, 2);

    let server_password = server.url("x").split([':', '@']).nth(2).unwrap().to_owned();
    for password in [PASSWORD, &server_password] {
        let found: Vec<&str> = all.lines().filter(|line| line.contains(password)).collect();
        assert!(found.is_empty(), "a password is shown:\n{}", found.join("\n"));
    }
    let found: Vec<&str> = loud.lines().filter(|line| line.contains(VALUE)).collect();
    assert!(found.is_empty(), "a value is logged at info or above:\n{}", found.join("\n"));
}
