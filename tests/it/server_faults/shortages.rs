//! The server runs out of a resource: connections, disk space, space for its log.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use graphsink::server::EmbeddedServer;
use tokio_postgres::{Client, NoTls};

use super::sqlstates::{install, raise};
use super::{Storm, assert_at_rest, engine, migrated, server, until_so};
use crate::support::{connect, seed};

/// The limit of the server that runs out of connections.
const MAX_CONNECTIONS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_wait_for_connections_that_other_programs_use_up() {
    let seed = seed("out of connections");
    let server = server(&[("max_connections", &MAX_CONNECTIONS.to_string())]).await;
    let url = migrated(&server, "connections").await;
    let engines = [engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for _ in 0..2 {
        storm.progress(60).await;
        let mut hogs = vec![connect(&server.url("postgres")).await];
        while hogs.len() < MAX_CONNECTIONS {
            let terminate =
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'graphsink'";
            hogs[0].batch_execute(terminate).await.unwrap();
            while let Ok((client, connection)) = tokio_postgres::connect(&server.url("postgres"), NoTls).await {
                tokio::spawn(async move { drop(connection.await) });
                hogs.push(client);
            }
        }
        let before = engines[0].stats();
        until_so("the line stops", || engines[0].stats().circuit_open).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(engines[0].stats().units_committed, before.units_committed, "no connection is free");
        drop(hogs);
    }
    storm.progress(60).await;
    assert!(server.read_log().unwrap().contains("too many clients already"), "53300");
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
}

/// A small disk in memory. Unmounted when dropped, also by a panic.
pub(crate) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Needs the right to mount; an error means that this machine does not grant it.
    fn mount(path: &Path, megabytes: u32) -> io::Result<Self> {
        let options = format!("size={megabytes}m");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "graphsink-test"]).arg(path);
        run(&mut command)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Takes all the free space.
    fn fill(&self) {
        let mut filler = File::create(self.path.join("filler")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // The mount point disappears at once for new users; for the server, which may still use it, when it ends.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.path)) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Gives `path` to the owner of the server's data.
fn give_to_server(path: &Path, data: &Path) {
    let owner = std::fs::metadata(data).unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A disk that can be full: a real one, or, where none can be mounted, the error that the server would raise.
pub(crate) enum Disk {
    Real(Tmpfs),
    Raised(Client),
}

impl Disk {
    /// A disk of 40 MB, and the URL of a new database on it with all tables.
    pub(crate) async fn of_database(server: &EmbeddedServer, name: &str) -> (String, Self) {
        let folder = server.directory().join("small");
        std::fs::create_dir(&folder).unwrap();
        let admin = connect(&server.url("postgres")).await;
        match Tmpfs::mount(&folder, 40) {
            Ok(tmpfs) => {
                println!("a real full disk");
                give_to_server(&folder, &server.directory().join("data"));
                let location = folder.display().to_string().replace('\'', "''");
                admin.batch_execute(&format!("create tablespace small location '{location}'")).await.unwrap();
                admin.batch_execute("create database template_small tablespace small").await.unwrap();
                admin.batch_execute("alter database template1 rename to template_old").await.unwrap();
                admin.batch_execute("alter database template_small rename to template1").await.unwrap();
                (migrated(server, name).await, Self::Real(tmpfs))
            }
            Err(error) => {
                println!("no disk can be mounted here ({error}): a check constraint raises 53100");
                let url = migrated(server, name).await;
                let client = connect(&url).await;
                install(&client).await;
                // A bulk load refuses triggers on insertions, so this is a check constraint.
                client
                    .batch_execute(
                        "drop trigger fault on mentions;
                         create function room() returns bool language plpgsql immutable as $$ begin
                             if exists (select from public.fault where code = '53100') then
                                 raise exception 'raised by a test' using errcode = '53100';
                             end if;
                             return true;
                         end $$;
                         alter table entities add constraint room check (room())",
                    )
                    .await
                    .unwrap();
                (url, Self::Raised(client))
            }
        }
    }

    pub(crate) async fn fill(&self) {
        match self {
            Self::Real(tmpfs) => tmpfs.fill(),
            Self::Raised(client) => raise(client, "53100", 1_000_000).await,
        }
    }

    pub(crate) async fn free(&self) {
        match self {
            Self::Real(tmpfs) => tmpfs.free(),
            Self::Raised(client) => raise(client, "00000", 0).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_opens_the_circuit_and_rejects_no_unit() {
    let seed = seed("disk full");
    let mut server = server(&[]).await;
    let (url, disk) = Disk::of_database(&server, "full").await;
    let engines = [engine(&url).await];
    let storm = Storm::start(seed, &engines);
    for _ in 0..2 {
        storm.progress(60).await;
        disk.fill().await;
        until_so("the line stops", || engines[0].stats().circuit_open).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(engines[0].stats().units_rejected, 0);
        disk.free().await;
    }
    storm.progress(60).await;
    let log = server.read_log().unwrap();
    assert!(matches!(disk, Disk::Raised(_)) || log.contains("No space left on device"), "53100");
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
    // The server stops regularly, the disk is unmounted, the folder is removed.
    drop(client);
    server.stop().await.unwrap();
    drop(disk);
}

/// The server panics, recovers or stays down until there is space again, and loses no acknowledged unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_for_the_log_kills_the_server_and_no_outcome_lies() {
    let seed = seed("log full");
    let mut server = server(&[("wal_recycle", "off")]).await;
    let url = migrated(&server, "log_full").await;
    let engines = [engine(&url).await];
    server.stop().await.unwrap();
    let log_folder = server.directory().join("data/pg_wal");
    let saved = server.directory().join("pg_wal.saved");
    run(Command::new("cp").arg("-a").arg(&log_folder).arg(&saved)).unwrap();
    let tmpfs = match Tmpfs::mount(&log_folder, 80) {
        Ok(tmpfs) => Some(tmpfs),
        Err(error) => {
            println!("no disk can be mounted here ({error}): the server is killed instead");
            None
        }
    };
    if tmpfs.is_some() {
        println!("a real full disk");
        run(Command::new("cp").arg("-a").arg(saved.join(".")).arg(&log_folder)).unwrap();
        give_to_server(&log_folder, &server.directory().join("data"));
    }
    server.restart().await.unwrap();
    let storm = Storm::start(seed, &engines);
    storm.progress(60).await;
    if let Some(tmpfs) = &tmpfs {
        tmpfs.fill();
        let client = connect(&url).await;
        // Each call needs a new file of 16 MB.
        while client
            .batch_execute("select pg_switch_wal(); select pg_logical_emit_message(true, '', 'x')")
            .await
            .is_ok()
        {}
        until_so("the server panics", || server.read_log().unwrap().contains("PANIC")).await;
        until_so("the line stops", || engines[0].stats().circuit_open).await;
        tmpfs.free();
    }
    // In any state of the server: a fast shutdown in the middle of a failing recovery may hang for ever.
    server.crash().unwrap();
    server.restart().await.unwrap();
    storm.progress(60).await;
    let ledger = storm.stop().await;
    ledger.assert_all_committed();
    let client = connect(&url).await;
    ledger.check(&client).await;
    assert_at_rest(&engines, &client).await;
    // The server stops regularly, the disk is unmounted, the folder is removed.
    drop(client);
    server.stop().await.unwrap();
    drop(tmpfs);
}
