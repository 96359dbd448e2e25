//! The directory of a load's files, and the removal of dead loads' files.
//!
//! Each load has its own directory, and beside it a file that it keeps locked as long as it lives. The lock is released
//! when the process ends for any reason. So an unlocked lock file belongs to a dead load: its directory is removed, and
//! then the file. Nothing else in the parent directory is touched.
//!
//! A lock file is created before its directory, and locked before that. Between creation and locking another load may
//! take it for a dead load's file and remove it; the load then finds it locked or missing, and chooses another name.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uuid::Uuid;

use super::error::SpillError;

/// Prefix of the names of directories and lock files.
const PREFIX: &str = "graphsink-bulk-";
/// Suffix of the names of lock files.
const LOCK: &str = ".lock";

/// The directory of one load. It is removed with its content when its last holder is dropped.
#[derive(Debug)]
pub(in crate::bulk) struct SpillDirectory {
    path: PathBuf,
    lock_path: PathBuf,
    /// Holds the lock.
    _lock: File,
    files: AtomicU64,
    state: Arc<SpillState>,
    block_bytes: usize,
}

/// Information about a load's files that is also used elsewhere.
#[derive(Debug, Default)]
pub(in crate::bulk) struct SpillState {
    bytes_written: AtomicU64,
    is_closed: AtomicBool,
}

impl SpillState {
    /// Bytes written so far, including files that were removed.
    pub(in crate::bulk) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Whether it was closed. A caller that sees true also sees everything that happened before the closing.
    pub(in crate::bulk) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Ends all readers and writers, at their next block.
    pub(in crate::bulk) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}

impl SpillDirectory {
    /// Removes dead loads' files in `parent`, and creates a directory there. `block_bytes`: the size of a block, which
    /// is written, read and checked at once.
    pub(in crate::bulk) fn create(parent: &Path, block_bytes: usize) -> Result<Arc<Self>, SpillError> {
        // The process may change its current directory later.
        let parent = &std::path::absolute(parent).map_err(SpillError::directory(parent))?;
        remove_dead(parent)?;
        loop {
            let name = format!("{PREFIX}{}-{}", std::process::id(), Uuid::now_v7().simple());
            let lock_path = parent.join(format!("{name}{LOCK}"));
            let Some(lock) = own_lock(parent, &lock_path)? else { continue };
            let path = parent.join(name);
            create_private_directory(&path).map_err(|source| {
                // Without its directory it is useless and harmless: the next load removes it.
                let _ = fs::remove_file(&lock_path);
                SpillError::Directory { path: parent.clone(), source }
            })?;
            let (files, state) = (AtomicU64::new(0), Arc::default());
            return Ok(Arc::new(Self { path, lock_path, _lock: lock, files, state, block_bytes }));
        }
    }

    /// Fails if the disk is known to have less free space than this.
    pub(in crate::bulk) fn expect_room(&self, needed: u64) -> Result<(), SpillError> {
        match free_bytes(&self.path) {
            Some(free) if free < needed => {
                let path = self.path.parent().unwrap_or(&self.path).to_owned();
                Err(SpillError::NoRoom { path, free, needed })
            }
            _ => Ok(()),
        }
    }

    /// A name for a new file.
    pub(super) fn next_path(&self) -> PathBuf {
        self.path.join(self.files.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(super) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.state.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Fails once the load has ended.
    pub(super) fn expect_open(&self) -> Result<(), SpillError> {
        if self.state.is_closed() { Err(SpillError::Ended) } else { Ok(()) }
    }

    pub(in crate::bulk) fn state(&self) -> Arc<SpillState> {
        Arc::clone(&self.state)
    }
}

impl Drop for SpillDirectory {
    fn drop(&mut self) {
        // The lock file is removed last: as long as it exists, the next load finds the remaining files.
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "spilled files remain until the next load");
        } else if let Err(error) = fs::remove_file(&self.lock_path) {
            tracing::warn!(%error, path = %self.lock_path.display(), "a lock file remains until the next load");
        }
    }
}

/// Free space on the disk for users without privileges, if the system reports it.
#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(path).ok()?;
    // Some file systems do not report it.
    (told.f_blocks > 0).then(|| told.f_bavail.saturating_mul(told.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Creates a directory without access for other users: spilled data is the content of units.
fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a file that only its owner can read.
pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Creates a lock file and locks it; `None` if another load took it for a dead load's file.
fn own_lock(parent: &Path, path: &Path) -> Result<Option<File>, SpillError> {
    let lock = create_private_file(path).map_err(SpillError::directory(parent))?;
    match lock.try_lock() {
        // It may have been removed before it was locked.
        Ok(()) => Ok(path.exists().then_some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            // An unlocked file would be taken for a dead load's, which is correct.
            let _ = fs::remove_file(path);
            Err(SpillError::directory(parent)(error))
        }
    }
}

/// Removes the files of loads whose process has ended.
fn remove_dead(parent: &Path) -> Result<(), SpillError> {
    for entry in fs::read_dir(parent).map_err(SpillError::directory(parent))? {
        let Ok(entry) = entry else { continue };
        let lock_path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Some(directory) = name.strip_suffix(LOCK) else { continue };
        // Opening a pipe would wait for a reader, and a link leads to files that belong to no load.
        if !fs::symlink_metadata(&lock_path).is_ok_and(|found| found.is_file()) {
            continue;
        }
        // A file that cannot be opened is another user's, or was removed meanwhile.
        let Ok(lock) = File::options().write(true).open(&lock_path) else { continue };
        if lock.try_lock().is_ok() {
            remove_load(&parent.join(directory), &lock_path);
        }
    }
    Ok(())
}

/// Removes the files of a load whose lock this process now holds.
fn remove_load(directory: &Path, lock_path: &Path) {
    let removed = match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    match removed.and_then(|()| fs::remove_file(lock_path)) {
        Ok(()) => tracing::info!(path = %directory.display(), "removed the files of a dead bulk load"),
        Err(error) => {
            tracing::warn!(%error, path = %directory.display(), "the files of a dead bulk load cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_load_removes_its_directory_and_its_lock() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        fs::write(directory.next_path(), "spilled").unwrap();
        assert_eq!(names(parent.path()).len(), 2, "a directory and its lock");
        drop(directory);
        assert_eq!(names(parent.path()), Vec::<String>::new());
    }

    #[test]
    fn only_the_files_of_dead_loads_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = SpillDirectory::create(parent.path(), 1024).unwrap();
        fs::write(living.next_path(), "data of a running load").unwrap();
        // A killed process leaves files whose locks are free. One of these had not yet created its directory.
        let dead = parent.path().join("graphsink-bulk-7-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0"), "data of a dead load").unwrap();
        fs::write(parent.path().join("graphsink-bulk-7-dead.lock"), "").unwrap();
        fs::write(parent.path().join("graphsink-bulk-8-early.lock"), "").unwrap();
        // Files of other programs.
        fs::create_dir(parent.path().join("graphsink-bulk-mine")).unwrap();
        fs::write(parent.path().join("other.lock"), "").unwrap();
        let next = SpillDirectory::create(parent.path(), 1024).unwrap();
        assert!(living.path.join("0").exists() && living.lock_path.exists());
        drop((living, next));
        assert_eq!(names(parent.path()), ["graphsink-bulk-mine", "other.lock"]);
    }

    #[test]
    fn loads_that_begin_at_once_do_not_count_as_dead() {
        let parent = tempfile::tempdir().unwrap();
        let begun: Vec<_> = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..8).map(|_| SpillDirectory::create(parent.path(), 1024).unwrap()).collect()))
                .collect();
            loads.into_iter().flat_map(|load| -> Vec<_> { load.join().unwrap() }).collect()
        });
        assert!(begun.iter().all(|load| load.path.exists() && load.lock_path.exists()));
        assert_eq!(begun.len(), 64);
        drop(begun);
        assert_eq!(names(parent.path()), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn spilled_files_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 4).unwrap();
        let mut spool = super::super::spool::SpoolWriter::create(&directory).unwrap();
        spool.push(b"the text of a user").unwrap();
        let _spool = spool.finish().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory.path), mode(&directory.lock_path)), (0o700, 0o600));
        assert_eq!(mode(&directory.path.join("0")), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_disk_with_too_little_space_is_an_error_before_the_first_write() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::create(parent.path(), 1024).unwrap();
        directory.expect_room(1).unwrap();
        let error = directory.expect_room(1 << 60).unwrap_err();
        let SpillError::NoRoom { path, free, needed } = &error else { panic!("{error}") };
        assert_eq!((&**path, *needed), (parent.path(), 1 << 60));
        // The figure of `df`, within what other processes write meanwhile.
        let df = std::process::Command::new("df").args(["-Pk".as_ref(), parent.path()]).output().unwrap().stdout;
        let df = String::from_utf8(df).unwrap();
        let told: u64 = df.lines().last().unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(free.abs_diff(told << 10) < 1 << 30, "{free} {df}");
        let expected = format!(
            "{} has {} MiB free, and the load is expected to need 1099511627776 MiB",
            path.display(),
            free >> 20
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_links_named_like_lock_files_are_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let fifo = parent.path().join("graphsink-bulk-7-pipe.lock");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let aim = parent.path().join("aim");
        fs::write(&aim, "").unwrap();
        std::os::unix::fs::symlink(&aim, parent.path().join("graphsink-bulk-8-link.lock")).unwrap();
        let (created, on_created) = std::sync::mpsc::channel();
        let place = parent.path().to_owned();
        // Opening a pipe would wait for a reader.
        std::thread::spawn(move || created.send(SpillDirectory::create(&place, 1024).map(drop)));
        on_created.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits").unwrap();
        assert_eq!(names(parent.path()), ["aim", "graphsink-bulk-7-pipe.lock", "graphsink-bulk-8-link.lock"]);
    }

    #[test]
    fn a_relative_directory_stays_the_same_when_the_process_changes_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let here = std::env::current_dir().unwrap();
        let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = up.join(parent.path().strip_prefix("/").unwrap());
        let directory = SpillDirectory::create(&relative, 1024).unwrap();
        assert!(relative.is_relative() && directory.path.exists());
        assert!(directory.path.is_absolute() && directory.lock_path.is_absolute());
    }

    #[test]
    fn an_unusable_directory_is_named_in_the_error() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing");
        let error = SpillDirectory::create(&missing, 1024).unwrap_err();
        assert!(matches!(&error, SpillError::Directory { path, .. } if *path == missing));
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
