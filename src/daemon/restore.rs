//! Restoring a backup into a data directory without a node, and refusing to start on an incomplete node.
//!
//! ```text
//! lock ─▶ unpack into .restoring ─▶ check ─▶ bundles, deployments ─▶ the database, last ─▶ .restoring goes
//! ```
//!
//! Until the database is in place, the directory holds no node, and `.restoring` shows a daemon that a restore is
//! incomplete. An interrupted restore starts over.

use super::{StartError, lock::lock};
use crate::{
    backup::{self, RestoreError},
    bundle::remove_tree,
    crash_point::crash_point,
    secrets::KeyId,
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Folder in which a backup is unpacked and checked.
const RESTORING: &str = ".restoring";

/// Parts of a node in the order in which they are put in place, with the crash point of each step.
const PLACED: [(&str, &str); 3] =
    [("bundles", "restore.bundles"), ("deployments", "restore.deployments"), (DATABASE, "restore.database")];

const DATABASE: &str = "levain.db";

const DATABASE_LOG: &str = "levain.db-wal";

/// Files that a restore refuses to find: its own targets; the files that SQLite keeps beside a database and would apply
/// to the new one; and the next master key of a rotation, which may be the only copy of the current key. `master.key`,
/// `admin.token`, `logs.db` and files that are rebuilt may exist: they harm no node.
const IN_THE_WAY: [&str; 7] =
    ["bundles", "deployments", DATABASE, DATABASE_LOG, "levain.db-shm", "levain.db-journal", "master.key.next"];

/// A completed restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Description in the backup.
    pub about: backup::About,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Id of the master key that the secrets need; absent without secrets.
    pub key_id: Option<KeyId>,
}

/// Why a backup was not restored. Earlier files are untouched.
#[derive(Debug, thiserror::Error)]
pub enum FailedRestore {
    /// The directory holds a node, or a part of one.
    #[error(
        "{} holds a node already, or a part of one ({}): restore into an empty directory, or move these files away \
         together, because they belong together",
        data_dir.display(), found.join(", ")
    )]
    Occupied {
        /// The data directory.
        data_dir: PathBuf,
        /// The files found.
        found: Vec<&'static str>,
    },
    /// The directory is in use or unusable.
    #[error(transparent)]
    Directory(#[from] Box<StartError>),
    /// The backup is invalid.
    #[error(transparent)]
    Backup(#[from] RestoreError),
    /// A file operation failed.
    #[error("cannot put the backup in place: {0}")]
    Disk(#[from] io::Error),
}

/// Restores a backup into a data directory that has no node and no running daemon. Blocks on the disk and on `input`.
pub fn restore(input: impl Read, data_dir: &Path) -> Result<Restored, FailedRestore> {
    let is_new = !data_dir.exists();
    let lock = lock(data_dir).map_err(Box::new)?;
    let staging = data_dir.join(RESTORING);
    let outcome = begin(data_dir, &staging).and_then(|()| {
        place(input, data_dir, &staging).inspect_err(|_| {
            // Best effort: remains are cleared by the next restore, and refused by a daemon.
            let _ = clear(data_dir, &staging);
        })
    });
    drop(lock);
    if outcome.is_err() && is_new {
        // Only the lock file is in it.
        let _ = fs::remove_dir_all(data_dir);
    }
    outcome
}

/// Checks that there is no node, and creates an empty folder to unpack into.
fn begin(data_dir: &Path, staging: &Path) -> Result<(), FailedRestore> {
    if staging.exists() {
        clear(data_dir, staging)?;
    }
    // A dangling link is in the way too.
    let is_there = |name: &&str| fs::symlink_metadata(data_dir.join(name)).is_ok();
    let found: Vec<_> = IN_THE_WAY.into_iter().filter(is_there).collect();
    if !found.is_empty() {
        return Err(FailedRestore::Occupied { data_dir: data_dir.to_owned(), found });
    }
    Ok(DirBuilder::new().mode(0o700).create(staging)?)
}

/// Removes what an incomplete restore has put in place. With the database in place the restore was complete, and only
/// its folder is left.
fn clear(data_dir: &Path, staging: &Path) -> io::Result<()> {
    if !data_dir.join(DATABASE).exists() {
        for (name, _) in PLACED {
            remove(&data_dir.join(name))?;
        }
    }
    remove(staging)
}

/// Removes a folder, even if folders in it are read-only.
fn remove(folder: &Path) -> io::Result<()> {
    match remove_tree(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Handles an interrupted restore at the start of a daemon: with the database in place, the restore is complete and its
/// folder is removed; otherwise the start fails.
pub(super) fn finish(data_dir: &Path) -> Result<(), StartError> {
    let staging = data_dir.join(RESTORING);
    if !staging.exists() {
        return Ok(());
    }
    if !data_dir.join(DATABASE).exists() {
        return Err(StartError::Restoring { data_dir: data_dir.to_owned() });
    }
    remove(&staging).map_err(|source| StartError::DataDir { path: staging, source })
}

/// Refuses a directory that has lost its database. A new, empty node would delete the code that it does not know, and
/// the next backup would be empty.
pub(super) fn refuse_remains(data_dir: &Path) -> Result<(), StartError> {
    // An empty database is left by an interrupted first start, or by truncation.
    if fs::metadata(data_dir.join(DATABASE)).is_ok_and(|it| it.len() > 0) {
        return Ok(());
    }
    let has_entries = |name: &&str| fs::read_dir(data_dir.join(name)).is_ok_and(|it| it.count() > 0);
    let mut found: Vec<_> = ["bundles", "deployments"].into_iter().filter(has_entries).collect();
    if fs::metadata(data_dir.join(DATABASE_LOG)).is_ok_and(|it| it.len() > 0) {
        found.push(DATABASE_LOG);
    }
    if found.is_empty() { Ok(()) } else { Err(StartError::NoDatabase { data_dir: data_dir.to_owned(), found }) }
}

fn place(input: impl Read, data_dir: &Path, staging: &Path) -> Result<Restored, FailedRestore> {
    let about = backup::unpack(input, staging)?;
    let checked = backup::check(staging, &about)?;
    crash_point("restore.checked");
    for (name, step) in PLACED {
        fs::rename(staging.join(name), data_dir.join(name))?;
        File::open(data_dir)?.sync_all()?;
        crash_point(step);
    }
    remove(staging)?;
    Ok(Restored { about, data_dir: data_dir.to_owned(), key_id: checked.key_id })
}
