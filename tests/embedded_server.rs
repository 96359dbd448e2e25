//! The embedded server with real processes: it starts, keeps committed rows, and leaves nothing behind however its
//! owner ends.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use graphsink::server::{EmbeddedServer, ServerError};
use tokio_postgres::{Client, NoTls};

/// Makes a run of this test binary the owner of a server in the named directory, in place of a test.
const OWNER: &str = "GRAPHSINK_TEST_OWNER";

/// Far longer than a stop takes, for machines under load.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether there is a PostgreSQL to start. Its absence fails the tests, unless they were given a server
/// (`DATABASE_URL`), for which none is installed.
fn runnable() -> bool {
    static RUNNABLE: LazyLock<bool> = LazyLock::new(|| {
        let given = env::var_os("DATABASE_URL").is_some_and(|url| !url.is_empty());
        // In a thread, because a test's own runtime cannot block on another one.
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(EmbeddedServer::temporary())
        };
        !given || !matches!(thread::spawn(start).join().unwrap(), Err(ServerError::NotFound { .. }))
    });
    if !*RUNNABLE {
        eprintln!("skipped: DATABASE_URL is set and this machine has no PostgreSQL of its own to start");
    }
    *RUNNABLE
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server accepts connections");
    // Servers are stopped under their sessions here; errors of the sessions are expected.
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn setting(client: &Client, name: &str) -> String {
    let row = client.query_one("select current_setting($1)", &[&name]).await.unwrap();
    row.get(0)
}

async fn count(client: &Client) -> i64 {
    client.query_one("select count(*) from kept", &[]).await.unwrap().get(0)
}

async fn keep_one(client: &Client) {
    client.batch_execute("create table if not exists kept(x int); insert into kept values (1)").await.unwrap();
}

/// The postmaster of the cluster in `directory`, if it runs.
fn postmaster(directory: &Path) -> u32 {
    let file = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

/// Whether a process runs. A zombie that was not collected does not count.
fn runs(pid: u32) -> bool {
    let output = Command::new("/bin/sh")
        .args(["-c", r#"kill -0 "$1" 2>/dev/null && ! grep -q ') Z ' "/proc/$1/stat" 2>/dev/null"#, "sh"])
        .arg(pid.to_string())
        .status();
    output.unwrap().success()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_temporary_server_is_durable_utc_and_utf8_and_ends_with_its_owner() {
    if !runnable() {
        return;
    }
    let server = EmbeddedServer::builder().setting("max_connections", "33").start().await.unwrap();
    server.create_database("a \"strange\" näme/1").await.unwrap();
    let client = connect(&server.url("a \"strange\" näme/1")).await;
    for (name, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
        ("max_connections", "33"),
        ("listen_addresses", "127.0.0.1"),
        ("password_encryption", "scram-sha-256"),
        ("max_wal_size", "4GB"),
    ] {
        assert_eq!(setting(&client, name).await, value, "{name}");
    }
    assert_eq!(setting(&client, "port").await, server.port().to_string());
    assert!(setting(&client, "server_version").await.starts_with(server.version()));
    let twice = server.create_database("postgres").await;
    assert!(matches!(&twice, Err(error @ ServerError::Sql { .. }) if error.sqlstate() == Some("42P04")), "{twice:?}");
    assert!(server.read_log().unwrap().contains("already exists"));

    let (directory, pid) = (server.directory().to_path_buf(), postmaster(server.directory()));
    drop(server);
    assert!(!runs(pid));
    assert!(!directory.exists());
}

#[tokio::test]
async fn only_the_password_grants_access_and_debug_does_not_show_it() {
    if !runnable() {
        return;
    }
    let server = EmbeddedServer::temporary().await.unwrap();
    let url = server.url("postgres");
    let password = url.split([':', '@']).nth(2).unwrap();
    assert_eq!(password.len(), 40);
    assert!(!format!("{server:?}").contains(password));
    assert!(server.psql_command("postgres").contains(&url));

    let without = format!("host=127.0.0.1 port={} user={} password=x", server.port(), server.superuser());
    assert!(tokio_postgres::connect(&without, NoTls).await.is_err());

    let socket = server.directory().join("socket");
    let through = format!("host={} port={} user=postgres password={password}", socket.display(), server.port());
    assert_eq!(setting(&connect(&through).await, "port").await, server.port().to_string());
}

#[tokio::test]
async fn a_restart_keeps_data_and_port_after_a_stop_and_after_a_crash() {
    if !runnable() {
        return;
    }
    let mut server = EmbeddedServer::temporary().await.unwrap();
    let url = server.url("postgres");
    keep_one(&connect(&url).await).await;

    server.stop().await.unwrap();
    server.stop().await.unwrap();
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.url("postgres"), url);
    let client = connect(&url).await;
    assert_eq!(count(&client).await, 1);

    keep_one(&client).await;
    let sleeper = connect(&url).await;
    tokio::spawn(async move { drop(sleeper.batch_execute("select pg_sleep(600)").await) });
    let pid = postmaster(server.directory());
    server.crash().unwrap();
    assert!(!runs(pid));
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(count(&connect(&url).await).await, 2);
    assert!(server.read_log().unwrap().contains("automatic recovery in progress"));

    // `restart` stops a running server first.
    server.restart().await.unwrap();
    assert_eq!(count(&connect(&url).await).await, 2);
}

#[tokio::test]
async fn a_durable_server_keeps_its_data_between_owners_and_has_one_at_a_time() {
    if !runnable() {
        return;
    }
    let top = tempfile::tempdir_in("/tmp").unwrap();
    open(top.path());
    let (directory, log) = (top.path().join("durable"), top.path().join("elsewhere.log"));
    let start = || EmbeddedServer::builder().data_dir(&directory).log_to(&log).start();

    let server = start().await.unwrap();
    keep_one(&connect(&server.url("postgres")).await).await;
    let second = start().await;
    assert!(matches!(second, Err(ServerError::AlreadyRunning { .. })), "{second:?}");
    drop(server);

    // The lock file of a dead server, whose process id now belongs to another process: this test.
    fs::write(directory.join("data/postmaster.pid"), format!("{}\n{}\n1\n", std::process::id(), directory.display()))
        .unwrap();
    let server = start().await.unwrap();
    assert_eq!(count(&connect(&server.url("postgres")).await).await, 1);
    assert_eq!(server.log_path(), log);
    assert_eq!(server.read_log().unwrap().matches("ready to accept connections").count(), 2);
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing_running() {
    if !runnable() {
        return;
    }
    let top = tempfile::tempdir_in("/tmp").unwrap();
    open(top.path());
    let directory = top.path().join("durable");
    let failed = EmbeddedServer::builder().data_dir(&directory).setting("work_mem", "many").start().await;
    let Err(ServerError::Start { log, .. }) = &failed else { panic!("{failed:?}") };
    assert!(log.contains("work_mem"), "{log}");
    assert!(!directory.join("data/postmaster.pid").exists());
    let server = EmbeddedServer::builder().data_dir(&directory).start().await.unwrap();
    connect(&server.url("postgres")).await;
}

#[tokio::test]
async fn a_cancelled_start_leaves_nothing_behind() {
    if !runnable() {
        return;
    }
    let top = tempfile::tempdir_in("/tmp").unwrap();
    open(top.path());
    for milliseconds in [1, 60, 250, 600, 900] {
        let start = EmbeddedServer::builder().data_dir(top.path().join("durable")).start();
        drop(tokio::time::timeout(Duration::from_millis(milliseconds), start).await);
        let lock = top.path().join("durable/data/postmaster.pid");
        assert!(!lock.exists(), "given up after {milliseconds} ms");
    }
    let server = EmbeddedServer::builder().data_dir(top.path().join("durable")).start().await.unwrap();
    connect(&server.url("postgres")).await;
}

#[test]
fn a_killed_owner_leaves_no_process_and_no_directory() {
    if !runnable() {
        return;
    }
    let owner = Owner::start(None);
    let pid = postmaster(&owner.directory);
    assert!(runs(pid));
    let directory = owner.directory.clone();
    owner.kill();
    wait_until("the server is gone", || !runs(pid));
    wait_until("the directory is gone", || !directory.exists());
}

#[test]
fn an_owner_killed_while_it_starts_leaves_no_directory() {
    if !runnable() {
        return;
    }
    for milliseconds in [5, 20, 40, 150, 400, 800] {
        let top = tempfile::tempdir_in("/tmp").unwrap();
        open(top.path());
        let mut owner = owner_command(None).env("TMPDIR", top.path()).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        owner.kill().unwrap();
        owner.wait().unwrap();
        wait_until("nothing is left", || fs::read_dir(top.path()).unwrap().count() == 0);
    }
}

#[tokio::test]
async fn the_next_owner_of_a_durable_server_can_start_right_after_the_last_was_killed() {
    if !runnable() {
        return;
    }
    let top = tempfile::tempdir_in("/tmp").unwrap();
    open(top.path());
    let directory = top.path().join("durable");
    let owner = Owner::start(Some(&directory));
    keep_one(&connect(&owner.url).await).await;
    owner.kill();
    let server = EmbeddedServer::builder().data_dir(&directory).start().await.unwrap();
    assert_eq!(count(&connect(&server.url("postgres")).await).await, 1);
}

#[test]
fn an_interrupt_of_the_owners_process_group_does_not_reach_the_server() {
    if !runnable() {
        return;
    }
    let mut owner = Owner::start(None);
    let pid = postmaster(&owner.directory);
    // Ctrl-C in a terminal does the same: SIGINT to every process of the foreground group. The owner goes on, as a
    // draining program does.
    let interrupt = r#"kill -s INT -- "-$1""#;
    let group = owner.child.id().to_string();
    assert!(Command::new("/bin/sh").args(["-c", interrupt, "sh", &group]).status().unwrap().success());
    // There is no event to wait for; a server that got the signal has ended by then.
    thread::sleep(Duration::from_millis(500));
    assert!(owner.child.try_wait().unwrap().is_none(), "the owner still runs");
    assert!(runs(pid), "the server still runs");
    let directory = owner.directory.clone();
    owner.kill();
    wait_until("the directory is gone", || !directory.exists());
}

/// Gives PostgreSQL's user access to a directory of the test; needed where the test runs as root.
fn open(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Another process that owns a server.
struct Owner {
    child: Child,
    directory: PathBuf,
    url: String,
}

impl Owner {
    fn start(data_dir: Option<&Path>) -> Self {
        use std::os::unix::process::CommandExt;
        let mut child = owner_command(data_dir).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut value = |name: &str| {
            let found = lines.find_map(|line| line.split_once(name).map(|(_, value)| value.to_owned()));
            found.expect("the owner started its server")
        };
        let (directory, url) = (value("directory=").into(), value("url="));
        Self { child, directory, url }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn owner_command(data_dir: Option<&Path>) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "be_the_owner", "--nocapture", "--ignored"]);
    command.env(OWNER, data_dir.unwrap_or(Path::new("")));
    command
}

/// Not a test: the program of an owner that is killed, see [`owner_command`].
#[tokio::test]
#[ignore = "run by other tests in a process of its own"]
async fn be_the_owner() {
    let Some(data_dir) = env::var_os(OWNER) else { return };
    // Survives an interrupt, as a draining program does.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let builder = EmbeddedServer::builder();
    let builder = if data_dir.is_empty() { builder } else { builder.data_dir(data_dir) };
    let server = builder.start().await.unwrap();
    println!("directory={}\nurl={}", server.directory().display(), server.url("postgres"));
    tokio::time::sleep(PATIENCE * 5).await;
    drop(server);
}
