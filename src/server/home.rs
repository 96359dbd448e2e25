//! The directory of a cluster: temporary and named before it exists, or the user's own.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::binaries::Wanted;
use super::error::ServerError;

/// The directory before it has content.
#[derive(Debug)]
pub(super) enum Home {
    /// Removed with its owner.
    Temporary(Scratch),
    /// Kept.
    Durable(PathBuf),
}

impl Home {
    /// Names a directory that `account` will be able to reach; the account may have no access to the parents of
    /// `$TMPDIR`.
    pub(super) fn temporary(account: &Account) -> Result<Self, ServerError> {
        let bases = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
        let reachable = |base: &&PathBuf| base.is_dir() && account.check_reaches(base).is_ok();
        let base = bases.iter().find(reachable).unwrap_or(&bases[0]);
        let base = std::path::absolute(base).map_err(ServerError::io("resolve", base))?;
        account.check_reaches(&base)?;
        Ok(Self::Temporary(Scratch(base.join(format!("graphsink-{}", random_word()?)))))
    }

    /// Creates the temporary directory. The guardian knows its name by now, so it will be removed.
    pub(super) fn create(&self, account: &Account) -> Result<(), ServerError> {
        match self {
            Self::Durable(_) => Ok(()),
            Self::Temporary(Scratch(path)) => {
                fs::DirBuilder::new().mode(0o700).create(path).map_err(ServerError::io("create", path))?;
                account.own(path)
            }
        }
    }

    /// The directory `path`, created if it does not exist. For root, the owner of an existing cluster determines the
    /// account.
    pub(super) fn durable(path: &Path, account: &mut Account) -> Result<Self, ServerError> {
        let path = std::path::absolute(path).map_err(ServerError::io("resolve", path))?;
        // Checked before anything is created there. The directory itself can be given to the account.
        account.check_reaches(path.parent().unwrap_or(&path))?;
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(ServerError::io("create", &path))?;
        let data = path.join("data");
        let mut entries = fs::read_dir(&path).map_err(ServerError::io("list", &path))?;
        if let Ok(found) = fs::metadata(&data) {
            if !data.join("PG_VERSION").is_file() {
                return Err(ServerError::NotACluster { directory: path });
            }
            account.become_owner_of(&found);
        } else if entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name()))) {
            return Err(ServerError::NotACluster { directory: path });
        } else {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, private).map_err(ServerError::io("close to others", &path))?;
            account.own(&path)?;
        }
        account.check_reaches(&path)?;
        Ok(Self::Durable(path))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(Scratch(path)) | Self::Durable(path) => path,
        }
    }

    /// The directory to be removed at the end.
    pub(super) fn to_remove(&self) -> Option<&Path> {
        match self {
            Self::Temporary(Scratch(path)) => Some(path),
            Self::Durable(_) => None,
        }
    }

    /// The version of PostgreSQL that can run the existing cluster.
    pub(super) fn wanted(&self) -> Result<Wanted, ServerError> {
        let file = self.path().join("data/PG_VERSION");
        match fs::read_to_string(&file) {
            Ok(version) => version
                .trim()
                .parse()
                .map(Wanted::Major)
                .map_err(|_| ServerError::NotACluster { directory: self.path().to_path_buf() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Wanted::Any),
            Err(error) => Err(ServerError::io("read", &file)(error)),
        }
    }
}

/// A directory that is removed with this value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            // It was never created, or the guardian removed it first.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, directory = %self.0.display(), "could not remove a temporary directory");
            }
            _ => {}
        }
    }
}

/// A random word: unguessable, and different for each call.
pub(super) fn random_word() -> Result<String, ServerError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 20];
    File::open(source).and_then(|mut random| random.read_exact(&mut bytes)).map_err(ServerError::io("read", source))?;
    Ok(hexadecimal(&bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half| char::from_digit(u32::from(half), 16).expect("half a byte is one digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    ["data", "data.new", "socket", "password", "lock", "initdb.log", "server.log"].iter().any(|ours| name == *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_as_two_hex_digits_each() {
        assert_eq!(hexadecimal(&[0, 0x0f, 0xa0, 255]), "000fa0ff");
    }

    #[test]
    fn a_directory_with_foreign_files_is_refused_and_left_alone() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("thesis.txt"), "x").unwrap();
        let refused = Home::durable(top.path(), &mut Account::Owner);
        assert!(matches!(refused, Err(ServerError::NotACluster { .. })), "{refused:?}");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_temporary_directory_is_private_and_removed_when_its_value_is_dropped() {
        let home = Home::temporary(&Account::Owner).unwrap();
        let path = home.to_remove().unwrap().to_path_buf();
        assert!(!path.exists());
        home.create(&Account::Owner).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").unwrap();
        drop(home);
        assert!(!path.exists());
    }
}
