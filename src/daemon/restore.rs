//! Putting a backup in place of nothing: in a data directory that holds no node. And what a daemon does that finds a part
//! of a node only.
//!
//! ```text
//! lock ─▶ unpack into .restoring ─▶ check ─▶ bundles, deployments ─▶ the database, last ─▶ .restoring goes
//! ```
//!
//! Until the database is in its place the directory holds no node, and says so to a daemon by `.restoring`: a restore
//! that was interrupted is begun anew.

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

/// Where a backup is unpacked and checked.
const RESTORING: &str = ".restoring";

/// What makes a directory a node's, in the order in which it is put there, and the step that this is.
const PLACED: [(&str, &str); 3] =
    [("bundles", "restore.bundles"), ("deployments", "restore.deployments"), (DATABASE, "restore.database")];

const DATABASE: &str = "levain.db";

const DATABASE_LOG: &str = "levain.db-wal";

/// What the directory must not hold: what a restore puts there, what SQLite keeps beside a database and would take for a
/// part of the new one, and a master key on its way, which may be the only copy of the one that counts. `master.key`,
/// `admin.token`, `logs.db` and what is made anew may be there: they do no harm to any node.
const IN_THE_WAY: [&str; 7] =
    ["bundles", "deployments", DATABASE, DATABASE_LOG, "levain.db-shm", "levain.db-journal", "master.key.next"];

/// A backup that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What it says of itself.
    pub about: backup::About,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The master key that its secrets need; absent where it has none.
    pub key_id: Option<KeyId>,
}

/// A backup that is not restored. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum FailedRestore {
    /// There is a node already, or a part of one.
    #[error(
        "{} holds a node already, or what is left of one ({}): restore into an empty directory, or move all of that \
         away together, for the files belong together",
        data_dir.display(), found.join(", ")
    )]
    Occupied {
        /// The data directory.
        data_dir: PathBuf,
        /// All that is there.
        found: Vec<&'static str>,
    },
    /// The directory is in use or cannot be used.
    #[error(transparent)]
    Directory(#[from] Box<StartError>),
    /// The file.
    #[error(transparent)]
    Backup(#[from] RestoreError),
    /// The disk failed.
    #[error("cannot put the backup in place: {0}")]
    Disk(#[from] io::Error),
}

/// Restores a backup into a data directory without a node, where no daemon runs. Blocks on the disk and on `input`.
pub fn restore(input: impl Read, data_dir: &Path) -> Result<Restored, FailedRestore> {
    let is_new = !data_dir.exists();
    let lock = lock(data_dir).map_err(Box::new)?;
    let staging = data_dir.join(RESTORING);
    let outcome = begin(data_dir, &staging).and_then(|()| {
        place(input, data_dir, &staging).inspect_err(|_| {
            // Best effort: what stays is begun anew by the next restore, and refused by a daemon.
            let _ = clear(data_dir, &staging);
        })
    });
    drop(lock);
    if outcome.is_err() && is_new {
        // The lock's file is all that is in it.
        let _ = fs::remove_dir_all(data_dir);
    }
    outcome
}

/// Sees that there is no node, and makes an empty folder to unpack to.
fn begin(data_dir: &Path, staging: &Path) -> Result<(), FailedRestore> {
    if staging.exists() {
        clear(data_dir, staging)?;
    }
    // A link that leads nowhere is in the way as well.
    let is_there = |name: &&str| fs::symlink_metadata(data_dir.join(name)).is_ok();
    let found: Vec<_> = IN_THE_WAY.into_iter().filter(is_there).collect();
    if !found.is_empty() {
        return Err(FailedRestore::Occupied { data_dir: data_dir.to_owned(), found });
    }
    Ok(DirBuilder::new().mode(0o700).create(staging)?)
}

/// Takes away what a restore has put there. With the database in place it had ended, and only the folder is left.
fn clear(data_dir: &Path, staging: &Path) -> io::Result<()> {
    if !data_dir.join(DATABASE).exists() {
        for (name, _) in PLACED {
            remove(&data_dir.join(name))?;
        }
    }
    remove(staging)
}

/// Removes a folder, whose folders may be read-only.
fn remove(folder: &Path) -> io::Result<()> {
    match remove_tree(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What a daemon does where a restore was interrupted: one that had put all in place has ended, any other has not.
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

/// Refuses a directory that has lost its database. An empty node in its place would delete the code that it knows nothing
/// of, and the next backup would be of nothing.
pub(super) fn refuse_remains(data_dir: &Path) -> Result<(), StartError> {
    // An empty file is what a first start leaves that is cut off, or a database that somebody has cut off.
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
