//! The account that runs PostgreSQL: the owner, or another account if the owner is root.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::ServerError;

/// The preferred users when the owner is root: the one made for PostgreSQL, the one on macOS, and `nobody`.
const PREFERRED: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The user that runs PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// The owner itself.
    Owner,
    /// Another account, because the owner is root.
    Other {
        /// The user's name.
        name: String,
        uid: u32,
        gid: u32,
    },
}

impl Account {
    /// Chooses the account.
    pub(super) fn choose() -> Result<Self, ServerError> {
        if effective_uid()? != 0 {
            return Ok(Self::Owner);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        unprivileged(&users).ok_or(ServerError::NoAccount)
    }

    /// For root: switches to the user that owns an existing cluster.
    pub(super) fn become_owner_of(&mut self, cluster: &Metadata) {
        if matches!(self, Self::Other { .. }) && cluster.uid() != 0 {
            *self = Self::Other { name: format!("with id {}", cluster.uid()), uid: cluster.uid(), gid: cluster.gid() };
        }
    }

    /// Makes `command` run as this user.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            // std drops the supplementary groups of root as well.
            command.uid(*uid).gid(*gid);
        }
    }

    /// Makes this user the owner of `path`.
    pub(super) fn own(&self, path: &Path) -> Result<(), ServerError> {
        match self {
            Self::Owner => Ok(()),
            Self::Other { uid, gid, .. } => std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                .map_err(ServerError::io("change the owner of", path)),
        }
    }

    /// Fails if this user could not reach files in `directory`, whatever its permissions further down.
    pub(super) fn check_reaches(&self, directory: &Path) -> Result<(), ServerError> {
        match (self, self.barrier(directory)) {
            (Self::Other { name, .. }, Some(path)) => Err(ServerError::Unreachable { path, account: name.clone() }),
            _ => Ok(()),
        }
    }

    /// The outermost directory on the path to `directory` (itself included) that this user may not enter.
    fn barrier(&self, directory: &Path) -> Option<PathBuf> {
        let Self::Other { uid, gid, .. } = self else { return None };
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
        let mut ways: Vec<&Path> = directory.ancestors().collect();
        ways.reverse();
        let closed = |path: &&&Path| fs::metadata(path).is_ok_and(|found| !may_enter(&found, *uid, *gid));
        ways.iter().find(closed).map(|path| path.to_path_buf())
    }
}

/// The effective user of this process, from POSIX's `id`: std has no `geteuid`.
fn effective_uid() -> Result<u32, ServerError> {
    let id = Path::new("id");
    let output = Command::new(id).arg("-u").stdin(Stdio::null()).output().map_err(ServerError::io("run", id))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().map_err(|error| ServerError::io("read the output of", id)(io::Error::other(error)))
}

/// Whether the permission bits let the user search the directory.
fn may_enter(directory: &Metadata, uid: u32, gid: u32) -> bool {
    let shift = if directory.uid() == uid {
        6
    } else if directory.gid() == gid {
        3
    } else {
        0
    };
    directory.mode() >> shift & 1 == 1
}

/// The best user other than root of a passwd file.
fn unprivileged(passwd: &str) -> Option<Account> {
    let users: Vec<(&str, u32, u32)> = passwd.lines().filter_map(parse_user).filter(|user| user.1 != 0).collect();
    let preferred = PREFERRED.iter().find_map(|name| users.iter().find(|user| user.0 == *name));
    let (name, uid, gid) = *preferred.or(users.first())?;
    Some(Account::Other { name: name.to_owned(), uid, gid })
}

/// `name:password:uid:gid:..`; macOS writes the ids of `nobody` as -2.
fn parse_user(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let mut id = |skipped| fields.nth(skipped)?.parse::<i64>().ok().map(|id| id as u32);
    Some((name, id(1)?, id(0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn other(name: &str, uid: u32, gid: u32) -> Account {
        Account::Other { name: name.to_owned(), uid, gid }
    }

    #[test]
    fn the_server_runs_as_postgres_then_nobody_then_any_user_but_root() {
        let root = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n";
        let daemon = "daemon:x:1:1::/:/bin/false\n";
        let nobody = "nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false\n";
        let postgres = "postgres:x:101:104::/var/lib/postgresql:/bin/sh\n";
        assert_eq!(unprivileged(&[root, daemon, nobody, postgres].concat()), Some(other("postgres", 101, 104)));
        assert_eq!(unprivileged(&[root, daemon, nobody].concat()), Some(other("nobody", 4_294_967_294, 4_294_967_294)));
        assert_eq!(unprivileged(&[root, "# comment:x:5:5\n\n", daemon].concat()), Some(other("daemon", 1, 1)));
        assert_eq!(unprivileged(root), None);
    }

    #[test]
    fn an_inaccessible_parent_directory_is_named() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        for (path, mode) in [("", 0o755), ("closed", 0o755), ("closed/inner", 0o711)] {
            fs::set_permissions(top.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        // No real user has this id, so only the permissions of others apply.
        let stranger = other("stranger", 3_999_999_999, 3_999_999_999);
        assert_eq!(stranger.barrier(&inner), None);
        assert!(Account::Owner.check_reaches(&inner).is_ok());

        fs::set_permissions(top.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let Err(ServerError::Unreachable { path, account }) = stranger.check_reaches(&inner) else {
            panic!("a closed directory was taken for an open one");
        };
        assert!(path.ends_with("closed"), "{path:?}");
        assert_eq!(account, "stranger");
    }
}
