//! Encrypted connections: the effect of `sslmode` and the certificates of a connection string on a real server.
//!
//! The server has a certificate for `localhost` and 127.0.0.1, signed by an authority that is created here. Its role
//! `app` may log in over TLS only, its role `holder` with a client certificate only; the superuser may log in without
//! encryption, to inspect.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use graphsink::server::EmbeddedServer;
use graphsink::{AsOf, Config, Engine, Mention, Migrations, SourceType, StartError, UnitOfWork};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::database::{self, assert_group_by, assert_same};
use crate::generate::{self, Space};
use crate::model::{self, Ids};
use crate::support::{as_of, commit, connect, seed, within};

struct Server {
    server: EmbeddedServer,
    /// The directory of the client's files.
    files: PathBuf,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// Not dropped: the guardian of the server removes all files when this process ends.
async fn server() -> &'static Server {
    SERVER.get_or_init(Server::start).await
}

impl Server {
    async fn start() -> Self {
        let server = EmbeddedServer::temporary().await.expect("PostgreSQL 14 or newer is needed for these tests");
        let files = server.directory().join("tls");
        fs::create_dir(&files).unwrap();
        let authority = authority("an authority");
        let certificate = |names: &[&str], common_name: &str| {
            let mut parameters =
                CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            parameters.distinguished_name.push(DnType::CommonName, common_name);
            let key = KeyPair::generate().unwrap();
            (parameters.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
        };
        let (certificate_of_server, key_of_server) = certificate(&["localhost", "127.0.0.1"], "a server");
        let (certificate_of_holder, key_of_holder) = certificate(&[], "holder");
        for (name, content) in [
            ("root.crt", authority.certificate.as_str()),
            ("stranger.crt", &self::authority("a stranger").certificate),
            ("holder.crt", &certificate_of_holder),
            ("holder.key", &key_of_holder),
        ] {
            fs::write(files.join(name), content).unwrap();
        }
        let data = server.directory().join("data");
        for (name, content) in [
            ("server.crt", certificate_of_server.as_str()),
            ("server.key", &key_of_server),
            ("root.crt", &authority.certificate),
            (
                "pg_hba.conf",
                "host all postgres 127.0.0.1/32 scram-sha-256\n\
                 hostssl all app 127.0.0.1/32 scram-sha-256\n\
                 hostssl all holder 127.0.0.1/32 cert\n",
            ),
        ] {
            give_to_server(&data, name, content);
        }
        let admin = connect(&server.url("postgres")).await;
        admin.batch_execute("create role app login password 'app'; create role holder login superuser").await.unwrap();
        for (setting, value) in [("ssl", "on"), ("ssl_ca_file", "root.crt")] {
            admin.batch_execute(&format!("alter system set {setting} = '{value}'")).await.unwrap();
        }
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
        // The postmaster reads its files with a delay.
        for _ in 0..200 {
            let fresh = connect(&server.url("postgres")).await;
            let ssl: String = fresh.query_one("show ssl", &[]).await.unwrap().get(0);
            if ssl == "on" {
                return Self { server, files };
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server does not switch TLS on:\n{}", server.read_log().unwrap());
    }

    /// A new database that belongs to `app`.
    async fn database(&self, name: &str) -> Client {
        self.server.create_database(name).await.unwrap();
        let admin = connect(&self.server.url(name)).await;
        admin.batch_execute(&format!("alter database {name} owner to app")).await.unwrap();
        admin
    }

    fn file(&self, name: &str) -> String {
        self.files.join(name).to_str().unwrap().to_owned()
    }
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    Authority { certificate, issuer: Issuer::new(parameters, key) }
}

/// The server may run as another user than the tests, and requires its key to be private.
fn give_to_server(data: &Path, name: &str, content: &str) {
    let file = data.join(name);
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(data).unwrap();
    std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

fn unit(source_id: &str) -> UnitOfWork {
    let mut unit = UnitOfWork::new();
    let restaurant = unit.restaurant("franklin bbq").handle();
    let dish = unit.dish("brisket").handle();
    let connection = unit.connection(restaurant, dish).handle();
    let created_at = as_of() - TimeDelta::days(1);
    unit.mention(connection, Mention::new(SourceType::Comment, source_id, "https://example.org", "food", created_at));
    unit
}

/// Starts an engine and commits a unit. Returns whether the engine's sessions are encrypted, or why it did not start.
/// `name` is unique to the call.
async fn encrypted(admin: &Client, name: &str, connection_string: &str) -> Result<bool, String> {
    let config =
        Config::builder(connection_string).as_of(AsOf::Fixed(as_of())).build().map_err(|error| error.to_string())?;
    let engine = match within(Engine::start(config)).await {
        Ok(engine) => engine,
        Err(StartError::Store(error)) => return Err(error.to_string()),
        Err(error) => panic!("{connection_string}: {error:?}"),
    };
    commit(&engine, unit(name)).await;
    let query = "select s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name = $1";
    let sessions: Vec<bool> = admin.query(query, &[&name]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let mentions = "select count(*) from mentions where source_id = $1";
    assert_eq!(admin.query_one(mentions, &[&name]).await.unwrap().get::<_, i64>(0), 1, "{connection_string}");
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    assert!(!sessions.is_empty(), "{connection_string}");
    assert!(sessions.iter().all(|ssl| *ssl == sessions[0]), "{connection_string}: {sessions:?}");
    Ok(sessions[0])
}

/// The expected result of a connection string: encryption or not, or an error with these words.
type Expected = Result<bool, &'static str>;

fn check(connection_string: &str, found: &Result<bool, String>, expected: Expected) {
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{connection_string}"),
        (Err(found), Err(words)) => assert!(found.contains(words), "{connection_string}: {found}"),
        _ => panic!("{connection_string}: expected {expected:?}, got {found:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_behaves_as_in_libpq() {
    let server = server().await;
    let admin = server.database("modes").await;
    let port = server.server.port();
    let app = format!("port={port} dbname=modes user=app password=app");
    let url = format!(
        "postgresql://app:app@localhost:{port}/modes?sslmode=verify-full&sslrootcert={}",
        server.file("root.crt")
    );
    Migrations::all().run(&Config::builder(url).build().unwrap()).await.unwrap();
    let wrong_host = "host=db.example.org hostaddr=127.0.0.1";
    let holder = format!("sslcert='{}' sslkey='{}'", server.file("holder.crt"), server.file("holder.key"));
    let cases: &[(&str, &str, Expected)] = &[
        ("host=localhost", "sslmode=verify-full sslrootcert=ROOT", Ok(true)),
        ("host=127.0.0.1", "sslmode=verify-full sslrootcert=ROOT", Ok(true)),
        ("hostaddr=127.0.0.1", "sslmode=verify-full sslrootcert=ROOT", Ok(true)),
        ("host=localhost", "sslmode=verify-full sslrootcert=STRANGER", Err("UnknownIssuer")),
        // No authority of the machine signed it, or the machine has none.
        ("host=localhost", "sslrootcert=system", Err("")),
        (wrong_host, "sslmode=verify-full sslrootcert=ROOT", Err("not valid for name \"db.example.org\"")),
        (wrong_host, "sslmode=verify-ca sslrootcert=ROOT", Ok(true)),
        ("host=localhost", "sslmode=verify-ca sslrootcert=STRANGER", Err("UnknownIssuer")),
        (wrong_host, "sslmode=require", Ok(true)),
        (wrong_host, "sslmode=require sslrootcert=ROOT", Ok(true)),
        ("host=localhost", "sslmode=require sslrootcert=STRANGER", Err("UnknownIssuer")),
        (wrong_host, "sslmode=prefer", Ok(true)),
        (wrong_host, "sslmode=prefer sslrootcert=STRANGER", Ok(true)),
        ("host=localhost", "", Ok(true)),
        ("host=localhost", "sslmode=disable", Err("no encryption")),
        // The server refuses unencrypted connections; encryption is used only after that.
        ("host=localhost", "sslmode=allow", Ok(true)),
        // The password exchange is bound to the server's certificate, or does not take place.
        ("host=localhost", "sslmode=verify-full sslrootcert=ROOT channel_binding=require", Ok(true)),
        ("host=localhost", "sslmode=require channel_binding=require", Ok(true)),
        ("host=localhost", "user=holder sslmode=verify-full sslrootcert=ROOT HOLDER", Ok(true)),
        ("host=localhost", "user=holder sslmode=verify-full sslrootcert=ROOT", Err("valid client certificate")),
    ];
    for (number, (host, parameters, expected)) in cases.iter().enumerate() {
        let name = format!("modes {number}");
        let parameters = parameters
            .replace("ROOT", &format!("'{}'", server.file("root.crt")))
            .replace("STRANGER", &format!("'{}'", server.file("stranger.crt")))
            .replace("HOLDER", &holder);
        let connection_string = format!("{app} application_name='{name}' {host} {parameters}");
        check(&connection_string, &encrypted(&admin, &name, &connection_string).await, *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_serves_only_clients_that_do_not_require_it() {
    let server = EmbeddedServer::temporary().await.unwrap();
    server.create_database("plain").await.unwrap();
    let admin = connect(&server.url("plain")).await;
    Migrations::tables_only().run(&Config::builder(server.url("plain")).build().unwrap()).await.unwrap();
    let cases: &[(&str, Expected)] = &[
        ("", Ok(false)),
        ("&sslmode=prefer", Ok(false)),
        ("&sslmode=disable", Ok(false)),
        ("&sslmode=require", Err("server does not support TLS")),
        ("&sslmode=prefer&channel_binding=require", Err("channel binding")),
    ];
    for (number, (parameters, expected)) in cases.iter().enumerate() {
        let name = format!("plain{number}");
        let connection_string = format!("{}?application_name={name}{parameters}", server.url("plain"));
        check(parameters, &encrypted(&admin, &name, &connection_string).await, *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_and_a_load_over_tls_leave_the_graph_of_the_model() {
    let server = server().await;
    let client = server.database("load").await;
    let config = Config::builder(format!(
        "postgresql://app:app@localhost:{}/load?sslmode=verify-full&sslrootcert={}",
        server.server.port(),
        server.file("root.crt")
    ));
    let config = config.as_of(AsOf::Fixed(as_of())).max_batch_rows(100).build().unwrap();
    // `app` may log in over TLS only.
    assert!(!Migrations::all().run(&config).await.unwrap().applied.is_empty());
    let engine = Engine::start(config).await.unwrap();
    let records = generate::sample(seed("a load over TLS"), Space::tiny(as_of()), 400);
    let mut receipts = Vec::new();
    for records in records.chunks(4) {
        receipts.push(engine.submit(model::unit(records, &Ids::default())).await.unwrap());
    }
    for receipt in receipts {
        let outcome = within(receipt).await;
        assert!(outcome.committed().is_some(), "{outcome:?}");
    }
    let stats = engine.stats();
    assert_eq!((stats.units_committed, stats.rows_in_flight, stats.failed_attempts), (100, 0, 0), "{stats:?}");
    let _ = within(engine.shutdown(Duration::from_secs(20))).await;
    assert_same(&model::graph(&records, as_of()), &database::read(&client).await);
    assert_group_by(&client, as_of()).await;
}
