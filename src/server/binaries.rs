//! Finds PostgreSQL on the machine.
//!
//! The order: `GRAPHSINK_PG_BIN` (and nothing else, if it is set), the folders of `PATH`, `pg_config --bindir`, then
//! the usual folders of distributions, newest version first. The first folder whose `postgres` and `initdb` can be run
//! by the server's user and have a suitable version is used. `.ci/install-postgres` looks in the same places.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::ServerError;

/// The oldest supported major version.
const MAJOR_MIN: u32 = 14;

/// Folders in which packages install the server's programs; `*` is the version.
const FOLDERS: [&str; 11] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/lib/postgresql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/opt/local/lib/postgresql*/bin",
    "/usr/local/pgsql/bin",
    "/usr/bin",
];

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    folder: PathBuf,
    pub(super) version: Version,
}

/// A version as printed by `postgres --version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) major: u32,
    /// The version text, such as `15.13` or `18beta1`.
    pub(super) text: String,
}

/// The suitable versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Every version that graphsink supports.
    Any,
    /// The version that created the cluster.
    Major(u32),
}

impl Wanted {
    fn accepts(self, version: &Version) -> bool {
        match self {
            Self::Any => version.major >= MAJOR_MIN,
            Self::Major(major) => version.major == major,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "{MAJOR_MIN} or newer"),
            Self::Major(major) => write!(f, "{major} (the version that made the cluster)"),
        }
    }
}

impl Binaries {
    /// Finds the programs that `account` can run.
    pub(super) fn find(account: &Account, wanted: Wanted) -> Result<Self, ServerError> {
        if let Some(folder) = env::var_os("GRAPHSINK_PG_BIN").filter(|value| !value.is_empty()) {
            let folder = PathBuf::from(folder);
            return Self::probe(&folder, account, wanted)
                .ok_or(ServerError::Unusable { path: folder, wanted: wanted.to_string() });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        candidates(&path, pg_config_bindir, installed_folders)
            .find_map(|folder| Self::probe(&folder, account, wanted))
            .ok_or_else(|| ServerError::NotFound { wanted: wanted.to_string() })
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    /// The command to call `psql`: by name if that works.
    pub(super) fn psql(&self) -> PathBuf {
        let own = self.folder.join("psql");
        let in_path =
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join("psql").is_file());
        if in_path || !own.is_file() { PathBuf::from("psql") } else { own }
    }

    /// The programs in `folder`, if `account` can run them and their version is suitable.
    fn probe(folder: &Path, account: &Account, wanted: Wanted) -> Option<Self> {
        let folder = real_folder(folder)?;
        let run = |program: &str| -> Option<Version> {
            let mut command = Command::new(folder.join(program));
            account.apply(&mut command);
            // The owner's current directory may be closed to the account.
            let output = command.arg("--version").current_dir("/").stdin(Stdio::null()).output().ok()?;
            Version::parse(&String::from_utf8_lossy(&output.stdout)).filter(|_| output.status.success())
        };
        let version = run("postgres").filter(|version| wanted.accepts(version))?;
        let initdb = run("initdb").filter(|initdb| initdb.major == version.major)?;
        tracing::debug!(folder = %folder.display(), version = %initdb.text, "found PostgreSQL");
        Some(Self { folder, version })
    }
}

impl Version {
    /// Parses output such as `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`.
    fn parse(output: &str) -> Option<Self> {
        let (_, rest) = output.split_once("(PostgreSQL) ")?;
        let text = rest.split_whitespace().next()?;
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        Some(Self { major: text[..digits].parse().ok()?, text: text.to_owned() })
    }
}

/// The folders to search, in order. Steps that need a process or a directory listing are evaluated lazily.
fn candidates(
    path: &OsStr,
    pg_config: impl FnOnce() -> Option<PathBuf>,
    installed: impl FnOnce() -> Vec<PathBuf>,
) -> impl Iterator<Item = PathBuf> {
    let in_path: Vec<PathBuf> = env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    let pg_config = std::iter::once_with(pg_config).flatten();
    let installed = std::iter::once_with(installed).flatten();
    in_path.into_iter().chain(pg_config).chain(installed)
}

/// The folder whose programs are called: the real folder of `postgres` if it also has `initdb`, else `folder`.
///
/// PATH often contains links to single programs, without the rest of PostgreSQL next to them.
fn real_folder(folder: &Path) -> Option<PathBuf> {
    let complete = |folder: &Path| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let target = folder.join("postgres").canonicalize().ok()?;
    let real = target.parent().filter(|real| complete(real)).map(Path::to_path_buf);
    real.or_else(|| complete(folder).then(|| folder.to_path_buf()))
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(folder.trim()))
}

fn installed_folders() -> Vec<PathBuf> {
    FOLDERS.iter().flat_map(|pattern| expand(pattern)).collect()
}

/// The existing folders that match `pattern`, highest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(listing) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = listing
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, PathBuf::from(format!("{parent}/{name}{after}"))))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn version(output: &str) -> Option<(u32, String)> {
        Version::parse(output).map(|version| (version.major, version.text))
    }

    #[test]
    fn versions_of_all_builds_are_read() {
        assert_eq!(version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some((15, "15.13".into())));
        assert_eq!(version("initdb (PostgreSQL) 18beta1\n"), Some((18, "18beta1".into())));
        assert_eq!(version("postgres (PostgreSQL) 9.6.24\n"), Some((9, "9.6.24".into())));
        assert_eq!(version("postgres (PostgreSQL) \n"), None);
        assert_eq!(version("command not found"), None);
    }

    #[test]
    fn version_14_or_newer_will_do_and_a_cluster_needs_its_own_version() {
        let of = |major| Version { major, text: major.to_string() };
        assert!(!Wanted::Any.accepts(&of(13)));
        assert!(Wanted::Any.accepts(&of(14)) && Wanted::Any.accepts(&of(21)));
        assert!(Wanted::Major(15).accepts(&of(15)) && !Wanted::Major(15).accepts(&of(16)));
    }

    #[test]
    fn path_is_searched_before_pg_config_and_package_folders_last() {
        let found: Vec<PathBuf> =
            candidates(OsStr::new("/a:relative:/b"), || Some("/c".into()), || vec!["/d".into(), "/e".into()]).collect();
        assert_eq!(found, ["/a", "/b", "/c", "/d", "/e"].map(PathBuf::from));
    }

    #[test]
    fn folders_are_ordered_by_number_newest_first() {
        let top = tempfile::tempdir().unwrap();
        for name in ["pgsql-9", "pgsql-16", "pgsql-100", "pgsql-x", "other-17"] {
            fs::create_dir_all(top.path().join(name).join("bin")).unwrap();
        }
        let pattern = top.path().join("pgsql-*").join("bin");
        let expected = ["pgsql-100", "pgsql-16", "pgsql-9"].map(|name| top.path().join(name).join("bin"));
        assert_eq!(expand(pattern.to_str().unwrap()), expected);
    }

    /// A folder with scripts that report PostgreSQL's `version`.
    fn pretend(folder: &Path, version: &str, programs: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        for program in programs {
            let path = folder.join(program);
            // `cp` and `sh` write the file in a process of their own. If this process held it open for writing, the
            // fork of another test could inherit the descriptor, and the file could not be run ("text file busy").
            let script = format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n");
            let write =
                Command::new("/bin/sh").args(["-c", r#"printf %s "$1" > "$2""#, "sh", &script]).arg(&path).status();
            assert!(write.unwrap().success());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn a_folder_is_used_only_with_both_programs_in_one_supported_version() {
        let top = tempfile::tempdir().unwrap();
        let probe = |name: &str| Binaries::probe(&top.path().join(name), &Account::Owner, Wanted::Any);
        pretend(&top.path().join("good"), "17.2", &["postgres", "initdb"]);
        pretend(&top.path().join("old"), "13.9", &["postgres", "initdb"]);
        pretend(&top.path().join("half"), "17.2", &["postgres"]);
        assert_eq!(probe("good").unwrap().version, Version { major: 17, text: "17.2".into() });
        assert!(probe("old").is_none() && probe("half").is_none() && probe("absent").is_none());
    }

    #[test]
    fn a_link_to_postgres_is_followed_to_the_folder_with_the_other_programs() {
        let top = tempfile::tempdir().unwrap();
        let (real, links) = (top.path().join("real"), top.path().join("links"));
        pretend(&real, "16.1", &["postgres", "initdb"]);
        fs::create_dir(&links).unwrap();
        symlink(real.join("postgres"), links.join("postgres")).unwrap();
        let found = Binaries::probe(&links, &Account::Owner, Wanted::Any).unwrap();
        assert_eq!(found.initdb(), real.canonicalize().unwrap().join("initdb"));
    }

    #[test]
    fn the_install_script_looks_in_the_same_folders() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/install-postgres");
        // The published crate does not contain the script.
        let Ok(script) = fs::read_to_string(script) else { return };
        for folder in FOLDERS {
            assert!(script.contains(folder), "{folder} is missing in .ci/install-postgres");
        }
    }
}
