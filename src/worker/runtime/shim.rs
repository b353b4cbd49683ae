//! The shim's files: part of this binary, and written to disk for Bun.

use super::RuntimeError;
use crate::model::hex;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../worker-shim/dist/", $name)))),*]
    };
}

/// Every file of the shim, with its text. Each is bundled from several sources, because opening those one by one would
/// add a quarter to the start of a worker. `bun run build` in `worker-shim/` makes them; a test there fails when they
/// are outdated.
const FILES: &[(&str, &str)] = files!["entry.js" "check.js" "compile.js" "build.js" "rehearsal.js"];

/// Prefix of the folder's name; the digest of the content follows.
const PREFIX: &str = "shim-";

/// Name prefix of an incomplete folder, which stays incomplete once its writer is gone.
const UNFINISHED: &str = ".shim-";

/// Digits of the digest in the name: the shims of one data directory are few.
const DIGEST_DIGITS: usize = 16;

/// Writes the shim, unless it is there, and removes those of other versions. Returns the absolute path of its folder.
pub(super) fn write(data_dir: &Path) -> Result<PathBuf, RuntimeError> {
    let parent = super::folder(data_dir)?;
    let name = folder_name();
    let folder = parent.join(&name);
    // Held for milliseconds: another process may be about to replace a damaged folder.
    let _lock = lock(&parent.join("shim.lock"))?;
    // After a loss of power a file can exist without its text.
    if !is_complete(&folder) {
        let new = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&parent).map_err(RuntimeError::at(&parent))?;
        for (name, text) in FILES {
            let file = new.path().join(name);
            fs::write(&file, text)
                .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o444)))
                .map_err(RuntimeError::at(&file))?;
        }
        let _ = fs::remove_dir_all(&folder);
        fs::set_permissions(new.path(), Permissions::from_mode(0o755))
            .and_then(|()| fs::rename(new.path(), &folder))
            .map_err(RuntimeError::at(&folder))?;
    }
    for entry in fs::read_dir(&parent).map_err(RuntimeError::at(&parent))?.flatten() {
        let other = entry.file_name();
        let is_ours = [PREFIX, UNFINISHED].iter().any(|it| other.to_string_lossy().starts_with(it));
        if is_ours && entry.path().is_dir() && other != *name {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(folder)
}

fn lock(path: &Path) -> Result<Flock<File>, RuntimeError> {
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(RuntimeError::at(path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| RuntimeError::at(path)(error.into()))
}

fn folder_name() -> String {
    let mut digest = Sha256::new();
    for (name, text) in FILES {
        // The lengths separate the end of one file from the beginning of the next.
        digest.update(format!("{name} {}\n", text.len()));
        digest.update(text);
    }
    let mut digits = hex::encode(&digest.finalize());
    digits.truncate(DIGEST_DIGITS);
    format!("{PREFIX}{digits}")
}

fn is_complete(folder: &Path) -> bool {
    FILES.iter().all(|(name, text)| fs::read(folder.join(name)).is_ok_and(|it| it == text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_replaces_others() {
        let data = tempfile::tempdir().expect("a folder");
        let old = data.path().join("runtime/shim-0123456789abcdef");
        fs::create_dir_all(&old).expect("a folder");
        fs::write(old.join("entry.js"), "old").expect("a file");
        fs::create_dir(data.path().join("runtime/.shim-killed")).expect("a folder");
        let folder = write(data.path()).expect("the shim");
        assert!(is_complete(&folder) && !old.exists());
        let entry = folder.join("entry.js");
        let written = fs::metadata(&entry).expect("a file");
        assert_eq!(written.permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o755);
        assert_eq!(write(data.path()).expect("the shim"), folder);
        let again = fs::metadata(&entry).expect("a file");
        assert_eq!(again.modified().expect("a time"), written.modified().expect("a time"));
        let left = fs::read_dir(data.path().join("runtime")).expect("a folder").flatten();
        let left: Vec<_> = left.map(|it| it.path()).filter(|it| it.is_dir()).collect();
        assert_eq!(left, [folder]);
    }

    #[test]
    fn a_damaged_one_is_replaced() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = write(data.path()).expect("the shim");
        fs::remove_file(folder.join("check.js")).expect("a file");
        fs::write(folder.join("check.js"), "").expect("a file");
        assert_eq!(write(data.path()).expect("the shim"), folder);
        assert!(is_complete(&folder));
    }

    #[test]
    fn writing_it_at_once_is_safe() {
        let data = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert!(is_complete(&write(data.path()).expect("the shim"))));
            }
        });
    }
}
