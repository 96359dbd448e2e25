//! The directory of an embedded server: layout, `initdb`, password, and the locks that show which process uses it.
//!
//! ```text
//! directory/            0700, of PostgreSQL's user
//!     data/             the cluster (PGDATA); made as data.new and renamed, so it is complete or absent
//!     socket/           where the unix socket lies
//!     password          of the superuser, 0600
//!     lock              locked by the owner for as long as it lives
//!     initdb.log        what `initdb` said
//!     server.log        unless the log goes elsewhere
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::account::Account;
use super::binaries::Binaries;
use super::error::ServerError;
use super::guardian::{Guardian, Program};
use super::home::{Home, random_word};
use super::process;

/// The role that owns the cluster.
pub(super) const SUPERUSER: &str = "postgres";

/// How long a server may still accept connections after its owner died, until the owner's guardian stops it; this takes
/// some milliseconds.
const UNTOLD_MAX: Duration = Duration::from_secs(5);

/// Time limit for its stop: its guardian gives up after 80 s.
const STOPPING_MAX: Duration = Duration::from_secs(90);

/// How often the file system is polled.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// Maximum length of a socket's folder: `sun_path` has 104 bytes on macOS, and PostgreSQL adds `/.s.PGSQL.65535`.
const SOCKET_FOLDER_BYTES_MAX: usize = 104 - 1 - "/.s.PGSQL.65535".len();

/// A cluster that this process owns.
pub(super) struct Cluster {
    home: Home,
    pub(super) account: Account,
    password: String,
    /// Held, not used: the lock is released when the file is closed, also when the process dies.
    _lock: File,
}

impl Cluster {
    /// Locks the directory and creates a cluster in it if there is none.
    pub(super) async fn open(
        home: Home,
        account: Account,
        binaries: &Binaries,
        guardian: &mut Guardian,
    ) -> Result<Self, ServerError> {
        let lock = lock(home.path())?;
        let new = !home.path().join("data").exists();
        let password = password(&home.path().join("password"), &account, new)?;
        let cluster = Self { home, account, password, _lock: lock };
        cluster.clear_stale_lock().await?;
        if new {
            cluster.initialize(binaries, guardian).await?;
        }
        cluster.make_folder(&cluster.socket_folder())?;
        Ok(cluster)
    }

    pub(super) fn directory(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The folder of the socket, unless its path is too long.
    pub(super) fn usable_socket_folder(&self) -> Option<PathBuf> {
        Some(self.socket_folder()).filter(|folder| folder.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX)
    }

    fn socket_folder(&self) -> PathBuf {
        self.directory().join("socket")
    }

    /// Settings that differ from PostgreSQL's defaults; none of them affects durability.
    pub(super) fn default_settings(&self, binaries: &Binaries) -> BTreeMap<String, String> {
        let mut settings: BTreeMap<String, String> = [
            ("cluster_name", "graphsink"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%a "),
            // After a checkpoint, the first change of each page writes the whole page to the WAL.
            ("max_wal_size", "4GB"),
            ("checkpoint_timeout", "15min"),
            ("wal_compression", if self.accepts(binaries, "wal_compression", "lz4") { "lz4" } else { "on" }),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(bytes) = memory_bytes() {
            settings.insert("shared_buffers".to_owned(), format!("{}MB", shared_buffers_mb(bytes)));
        }
        settings
    }

    /// Ensures that no server runs on the data, and removes the lock file of a dead server.
    ///
    /// PostgreSQL removes a lock file by itself if no process has the id in it. In containers, where ids start again
    /// from 1, an unrelated process often has it.
    pub(super) async fn clear_stale_lock(&self) -> Result<(), ServerError> {
        let started = Instant::now();
        let file = self.data().join("postmaster.pid");
        while let Some(found) = LockFile::read(&file) {
            if !process::is_postgres(found.pid) {
                tracing::debug!(pid = found.pid, "removing the lock file of a dead server");
                return remove_if_there(&file);
            }
            // This process holds the directory's lock, so the owner of that server is dead and its guardian is about to
            // stop it. Only a server that was started by other means keeps running.
            let patience = if found.status == Status::Ready { UNTOLD_MAX } else { STOPPING_MAX };
            if started.elapsed() > patience {
                return Err(ServerError::AlreadyRunning { directory: self.directory().to_path_buf(), pid: found.pid });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn initialize(&self, binaries: &Binaries, guardian: &mut Guardian) -> Result<(), ServerError> {
        let unfinished = self.directory().join("data.new");
        for locale in ["C.UTF-8", "C"] {
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).map_err(ServerError::io("remove", &unfinished))?;
            }
            self.make_folder(&unfinished)?;
            match self.initdb(binaries, guardian, &unfinished, locale).await? {
                Ok(()) => {
                    let data = self.data();
                    return fs::rename(&unfinished, &data).map_err(ServerError::io("create", &data));
                }
                // Systems without C.UTF-8 have C, which differs only in upper and lower case beyond ASCII.
                Err(output) if locale != "C" && output.contains("locale") => {}
                Err(output) => return Err(ServerError::InitDb { output: tail(&output) }),
            }
        }
        unreachable!("the last locale either works or returns its error")
    }

    /// Runs `initdb`; the inner error is its output.
    async fn initdb(
        &self,
        binaries: &Binaries,
        guardian: &mut Guardian,
        folder: &Path,
        locale: &str,
    ) -> Result<Result<(), String>, ServerError> {
        let initdb = binaries.initdb();
        let mut arguments = vec!["--pgdata".into(), folder.into(), "--pwfile".into()];
        arguments.push(self.directory().join("password").into());
        arguments.push(format!("--username={SUPERUSER}").into());
        arguments.push(format!("--locale={locale}").into());
        // C.UTF-8 and C both order texts by their bytes, but only for C does the server compare bytes itself.
        arguments.extend(["--lc-collate=C", "--auth=scram-sha-256", "--encoding=UTF8"].map(Into::into));
        if self.home.to_remove().is_some() {
            // A half-made cluster is not reused after a power failure. The server itself syncs all its writes.
            arguments.push("--no-sync".into());
        }
        let log = self.directory().join("initdb.log");
        let run = || {
            let output = File::create(&log)?;
            guardian.spawn(Program {
                path: &initdb,
                arguments,
                account: &self.account,
                directory: self.directory(),
                stdout: output.try_clone()?.into(),
                stderr: output.into(),
            })
        };
        let mut child = run().map_err(ServerError::io("run", &initdb))?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(ServerError::io("wait for", &initdb))? {
                break status;
            }
            tokio::time::sleep(POLL).await;
        };
        guardian.watch(None);
        if status.success() {
            return Ok(Ok(()));
        }
        let said = fs::read(&log).map_err(ServerError::io("read", &log))?;
        Ok(Err(String::from_utf8_lossy(&said).into_owned()))
    }

    /// Whether the server accepts `value` for the setting `name`; `-C` checks it and starts nothing.
    fn accepts(&self, binaries: &Binaries, name: &str, value: &str) -> bool {
        let mut command = Command::new(binaries.postgres());
        self.account.apply(&mut command);
        process::without_pg_variables(&mut command);
        command.args(["-C", name, "-c", &format!("{name}={value}"), "-D"]).arg(self.data());
        command.current_dir(self.directory()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Creates an empty folder owned by PostgreSQL's user; files of a dead server are removed.
    fn make_folder(&self, folder: &Path) -> Result<(), ServerError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(ServerError::io("remove", folder))?;
        }
        fs::DirBuilder::new().mode(0o700).create(folder).map_err(ServerError::io("create", folder))?;
        self.account.own(folder)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("home", &self.home).field("account", &self.account).finish_non_exhaustive()
    }
}

/// The content of `postmaster.pid`, written by the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LockFile {
    pub(super) pid: u32,
    pub(super) status: Status,
}

/// The state of that server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It accepts connections.
    Ready,
    /// It is starting, recovering or stopping.
    Other,
}

impl LockFile {
    /// Reads the file; `None` if it does not exist or is being written.
    pub(super) fn read(file: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(file).ok()?)
    }

    /// The process id is the first line, the status the eighth; `initdb` and single-user servers write a negative id.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid: i64 = lines.next()?.trim().parse().ok()?;
        let status = match lines.nth(6).map(str::trim) {
            Some("ready") => Status::Ready,
            _ => Status::Other,
        };
        Some(Self { pid: u32::try_from(pid.unsigned_abs()).ok()?, status })
    }
}

/// The last lines of a text, enough to see the cause of a failure.
pub(super) fn tail(text: &str) -> String {
    const LINES_MAX: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

/// Locks the directory for this process.
fn lock(directory: &Path) -> Result<File, ServerError> {
    let path = directory.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(ServerError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Its content is used only in this message; for an owner that has not written it yet the process id is 0.
            let pid = fs::read_to_string(&path).ok().and_then(|pid| pid.trim().parse().ok()).unwrap_or(0);
            return Err(ServerError::AlreadyRunning { directory: directory.to_path_buf(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(ServerError::io("lock", &path)(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(ServerError::io("write", &path))?;
    Ok(file)
}

/// The superuser's password: that of the last run, or a new random one for a `new` cluster.
fn password(path: &Path, account: &Account, new: bool) -> Result<String, ServerError> {
    match fs::read_to_string(path) {
        Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
        Err(error) if !new => return Err(ServerError::io("read", path)(error)),
        Ok(_) | Err(_) => {}
    }
    let password = random_word()?;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            writeln!(file, "{password}")?;
            file.sync_all()
        })
        .map_err(ServerError::io("write", path))?;
    account.own(path)?;
    Ok(password)
}

fn remove_if_there(file: &Path) -> Result<(), ServerError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServerError::io("remove", file)(error)),
        _ => Ok(()),
    }
}

/// An eighth of the memory, within bounds suitable for a developer's machine.
fn shared_buffers_mb(memory_bytes: u64) -> u64 {
    (memory_bytes / 8 / 1024 / 1024).clamp(64, 512)
}

/// The memory of the machine or of the container, if the system reports it in a file.
fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text))?;
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    Some(limit.map_or(machine, |limit: u64| limit.min(machine)))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_lock_file_of_a_server_is_read() {
        let ready = "4711\n/tmp/x/data\n1700000000\n5432\n/tmp/x/socket\n127.0.0.1\n  5432001    32768\nready   \n";
        assert_eq!(LockFile::parse(ready), Some(LockFile { pid: 4711, status: Status::Ready }));
        let stopping = ready.replace("ready   ", "stopping");
        assert_eq!(LockFile::parse(&stopping), Some(LockFile { pid: 4711, status: Status::Other }));
        assert_eq!(LockFile::parse("-12\n/tmp/x\n"), Some(LockFile { pid: 12, status: Status::Other }));
        assert_eq!(LockFile::parse(""), None);
    }

    #[test]
    fn shared_buffers_follow_the_memory_within_bounds() {
        let gib = 1024 * 1024 * 1024;
        assert_eq!(parse_meminfo("MemTotal:        2097152 kB\nMemFree: 1 kB\n"), Some(2 * gib));
        assert_eq!([gib / 4, 2 * gib, 64 * gib].map(shared_buffers_mb), [64, 256, 512]);
    }

    #[test]
    fn the_tail_of_a_log_keeps_its_last_lines() {
        let text = (0..50).map(|line| line.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(tail(&text).lines().next(), Some("30"));
        assert_eq!(tail("one"), "one");
    }

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let top = tempfile::tempdir().unwrap();
        let held = lock(top.path()).unwrap();
        let Err(ServerError::AlreadyRunning { pid, .. }) = lock(top.path()) else { panic!("locked twice") };
        assert_eq!(pid, std::process::id());
        drop(held);
        lock(top.path()).unwrap();
    }

    #[test]
    fn the_password_is_random_private_and_kept() {
        let top = tempfile::tempdir().unwrap();
        let (one, two) = (top.path().join("one"), top.path().join("two"));
        let first = password(&one, &Account::Owner, true).unwrap();
        assert_eq!(first.len(), 40);
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o777, 0o600);
        assert_eq!(password(&one, &Account::Owner, false).unwrap(), first);
        assert!(password(&two, &Account::Owner, false).is_err(), "an existing cluster must not get a new password");
        assert_ne!(password(&two, &Account::Owner, true).unwrap(), first);
    }
}
