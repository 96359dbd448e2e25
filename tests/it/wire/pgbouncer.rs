//! `PgBouncer` itself between the engine and the server, in both kinds of pooling that the engine can work with.
//!
//! They need the program `pgbouncer`, which is not installed everywhere: CI installs it and runs these with
//! `--ignored`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use graphsink::resolve::{Decision, Query, Resolver, ResolverSettings};
use graphsink::{AsOf, BulkLoad, BulkSettings, Config, Engine, EntityType};
use tempfile::TempDir;

use super::{Journal, Rig, records, until};
use crate::bulk;
use crate::support::{Database, as_of, seed, within};

/// Sessions of the server: so few that they take turns, and transactions of one client meet different ones.
const SESSIONS: u32 = 4;

struct PgBouncer {
    process: Child,
    folder: TempDir,
    url: String,
}

impl PgBouncer {
    async fn start(database: &Database, pool_mode: &str) -> Self {
        let server: tokio_postgres::Config = database.url.parse().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let password = String::from_utf8_lossy(server.get_password().unwrap_or_default()).into_owned();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {pool_mode}\ndefault_pool_size = {SESSIONS}\nserver_round_robin = 1\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.get_ports()[0],
            server.get_user().unwrap(),
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        // The file may have to belong to another user, see below.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let url = format!("postgresql://app@127.0.0.1:{port}/{}?sslmode=disable", database.name);
        let bouncer = Self { process: Self::spawn(&folder), folder, url };
        bouncer.ready().await;
        bouncer
    }

    fn spawn(folder: &TempDir) -> Child {
        let mut command = Command::new("pgbouncer");
        // PgBouncer refuses to run as root, and is run as another user then.
        if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.path()).unwrap()) == 0 {
            command.args(["-u", "nobody"]);
        }
        let command = command.arg("-q").arg(folder.path().join("pgbouncer.ini"));
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbouncer is installed")
    }

    async fn ready(&self) {
        until("the pooler lets clients in", async || {
            tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.is_ok()
        })
        .await;
    }

    /// Kills it, and starts it again.
    async fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Self::spawn(&self.folder);
        self.ready().await;
    }

    /// An engine behind it.
    async fn rig(&self, database: &Database, prepared_statements: bool) -> Rig {
        let mut rig = Rig::at(self.url.clone(), |config| config.prepared_statements(prepared_statements)).await;
        rig.url.clone_from(&database.url);
        rig
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// `PgBouncer` is killed again and again under load: every unit is committed, once.
async fn killed_under_load(pool_mode: &str) {
    let seed = seed(pool_mode);
    let database = Database::migrated().await;
    let mut bouncer = PgBouncer::start(&database, pool_mode).await;
    let rig = bouncer.rig(&database, true).await;
    let records = records(seed, 1_500);
    let mut journal = Journal::default();
    for part in records.chunks(250) {
        for own in part.chunks(5) {
            journal.submit(&rig.engine, own).await;
        }
        bouncer.kill().await;
    }
    journal.hear().await;
    assert!(journal.all_committed());
    let stats = rig.engine.stats();
    println!("{} failed attempts, {} openings", stats.failed_attempts, stats.circuit_openings);
    journal.settle(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn a_session_pooler_killed_under_load_loses_and_doubles_nothing() {
    killed_under_load("session").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn a_transaction_pooler_killed_under_load_loses_and_doubles_nothing() {
    killed_under_load("transaction").await;
}

/// Prepared statements do not outlive a transaction there (1.18, or without `max_prepared_statements`). That is noticed
/// once, and costs no attempt afterwards; with the setting it costs none at all.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn behind_a_transaction_pooler_lost_statements_are_noticed_once() {
    let seed = seed("lost statements");
    let database = Database::migrated().await;
    let bouncer = PgBouncer::start(&database, "transaction").await;
    let records = records(seed, 3_000);
    let (mut journal, mut records) = (Journal::default(), records.chunks(500));
    // Many rows in one transaction are copied where statements have names.
    let mut load = async |engine: &Engine, journal: &mut Journal| {
        let own = records.next().unwrap();
        journal.submit(engine, &own[..300]).await;
        for own in own[300..].chunks(5) {
            journal.submit(engine, own).await;
        }
        journal.hear().await;
        assert!(journal.all_committed());
        engine.stats().failed_attempts
    };
    let told = bouncer.rig(&database, false).await;
    assert_eq!(load(&told.engine, &mut journal).await, 0);
    assert_eq!(load(&told.engine, &mut journal).await, 0);
    within(told.engine.shutdown(Duration::from_secs(20))).await;
    let rig = bouncer.rig(&database, true).await;
    // The pooler may give the engine the same session for a while.
    let mut failed = 0;
    for _ in 0..4 {
        let before = std::mem::replace(&mut failed, load(&rig.engine, &mut journal).await);
        assert!(
            before == 0 || failed == before,
            "after it was noticed nothing fails any more: {before}, then {failed}"
        );
    }
    println!("{failed} attempts failed until it was noticed");
    journal.settle_database(&rig).await;
}

/// Names are looked up behind a transaction pooler too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn names_are_resolved_behind_a_transaction_pooler() {
    let database = Database::migrated().await;
    let bouncer = PgBouncer::start(&database, "transaction").await;
    let rig = bouncer.rig(&database, true).await;
    let mut unit = graphsink::UnitOfWork::new();
    unit.restaurant("franklin barbecue").alias("Franklin's").handle();
    crate::support::commit(&rig.engine, unit).await;
    let resolver = Resolver::connect(rig.engine.config(), ResolverSettings::default()).await.unwrap();
    for _ in 0..20 {
        for name in ["franklin barbecue", "Franklin's", "franklin barbeque"] {
            let query = Query::new(EntityType::Restaurant, name);
            let resolutions = within(resolver.resolve(&[query])).await.unwrap();
            assert!(matches!(resolutions[0].decision, Decision::Existing { .. }), "{name}: {resolutions:?}");
        }
    }
}

/// Each transaction runs in another process of the server.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn waits_for_locks_are_reported_behind_a_transaction_pooler() {
    const HELD: Duration = Duration::from_millis(300);
    let database = Database::migrated().await;
    let bouncer = PgBouncer::start(&database, "transaction").await;
    let rig = bouncer.rig(&database, true).await;
    let unit = |alias: String| {
        let mut unit = graphsink::UnitOfWork::new();
        unit.restaurant("held").alias(alias).handle();
        unit
    };
    let holder = database.client().await;
    // Until the engine has noticed that statements do not last, and the sampler has its session.
    for number in 0..10 {
        crate::support::commit(&rig.engine, unit(format!("first {number}"))).await;
    }
    for round in 0..6 {
        let before = rig.engine.stats().lock_wait;
        holder.batch_execute("begin; select from entities for update").await.unwrap();
        let receipt = within(rig.engine.submit(unit(format!("second {round}")))).await.unwrap();
        until("the unit waits", async || {
            holder.execute("select from pg_locks where not granted", &[]).await.unwrap() > 0
        })
        .await;
        tokio::time::sleep(HELD).await;
        holder.batch_execute("commit").await.unwrap();
        assert!(within(receipt).await.committed().is_some());
        let waits = rig.engine.stats().lock_wait.since(&before);
        assert!(round == 0 || waits.max() >= HELD.mul_f64(0.9), "{round}: {waits:?}");
    }
    within(rig.engine.shutdown(Duration::from_secs(20))).await;
}

/// A load is one transaction, so it has one session of the server throughout. The pooler chooses the session, which may
/// have leftovers of others. The load lasts as long as the pooler does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pgbouncer: .ci/run runs it"]
async fn a_bulk_load_works_behind_a_transaction_pooler() {
    let database = Database::migrated().await;
    let mut bouncer = PgBouncer::start(&database, "transaction").await;
    // Names that the driver may choose next, on every session of the pooler.
    let mut others = Vec::new();
    for _ in 0..SESSIONS {
        let (client, connection) = tokio_postgres::connect(&bouncer.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client
            .batch_execute(
                "begin; do $$ begin for n in 0..20000 loop execute format('prepare s%s as select 1', n); end loop; end $$",
            )
            .await
            .unwrap();
        others.push(client);
    }
    for client in &others {
        client.batch_execute("commit").await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = BulkSettings::default().memory(8 << 10).spill_directory(directory.path());
    let config = Config::builder(&bouncer.url).as_of(AsOf::Fixed(as_of())).build().unwrap();
    let begun = async || {
        let load = BulkLoad::begin(config.clone(), settings.clone()).await.unwrap();
        for number in 0..200 {
            load.submit(bulk::unit(number)).await.unwrap();
        }
        load
    };
    let load = begun().await;
    bouncer.kill().await;
    let error = within(load.finish()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let client = database.client().await;
    bulk::until_gone(&client).await;
    assert_eq!(bulk::rows(&client).await, [0; 3]);
    assert_eq!(within(begun().await.finish()).await.unwrap().committed, 200);
    assert_eq!(bulk::rows(&client).await, [47, 200, 200]);
}
