//! The bundle store: the code of every version as files, `{root}/{function id}/{version label}/…`.
//!
//! ```text
//! stage ──▶ .incoming-<uuid> ── publish: rename ──▶ {function}/{label} ── remove: rename ──▶ .trash-<uuid> ──▶ gone
//!              │ dropped: gone                         │ verify: still what was published?
//! ```
//!
//! A bundle appears and disappears by a single rename, and is on disk before it gets its name. It is never written
//! again: its files are read-only, and [`BundleStore::verify`] detects changes made in spite of that.
//!
//! The database, not this folder, decides which versions exist. A bundle is published *before* its row is committed and
//! removed *after* its row is deleted, so a row always has its bundle. A bundle that a crash left without a row is
//! removed by [`BundleStore::reconcile`] at the next start.
//!
//! Every method blocks on the disk, so an asynchronous caller runs them on a blocking thread (`spawn_blocking`).

mod bytecode;
mod difference;
mod error;
mod named;
mod stage;
mod stamps;
mod tree;
mod user;

#[cfg(test)]
mod tests;

pub use bytecode::{BytecodeStore, Compiled, Draft};
pub use difference::{ChangeKind, Diff, Difference, DifferenceLimits, FileDifference};
pub use error::BundleError;
pub use named::{NotOpened, SourceEntry, SourceFolder};
pub(crate) use stage::check_path;
pub use stage::{BundleLimits, Content, Staged};
pub use stamps::Stamps;
pub(crate) use tree::remove as remove_tree;
pub use user::UnixUser;

use crate::crash_point::crash_point;
use crate::model::{Digest, FunctionId, VersionLabel};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};
use uuid::Uuid;

/// Prefix of folders in which a bundle is assembled.
const INCOMING: &str = ".incoming-";

/// Prefix of folders of bundles being deleted.
const TRASH: &str = ".trash-";

/// The folder of all bundles; see the module documentation.
#[derive(Debug)]
pub struct BundleStore {
    root: PathBuf,
    /// Read-locked while a bundle is removed.
    removals: RwLock<()>,
}

/// Result of [`BundleStore::reconcile`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Bundles without a version, which were removed.
    pub removed: Vec<(FunctionId, VersionLabel)>,
    /// Versions whose bundle is missing.
    pub missing: Vec<(FunctionId, VersionLabel)>,
    /// Entries that are not a bundle of a known function; they are left alone.
    pub unknown: Vec<PathBuf>,
}

impl BundleStore {
    /// Opens the store in the folder `root`, creates the folder if necessary, and removes leftovers of interrupted
    /// deployments and deletions.
    pub fn open(root: &Path) -> Result<Self, BundleError> {
        let at_root = BundleError::io(root);
        fs::create_dir_all(root).map_err(at_root)?;
        // The path is absolute because workers start in folders of their own.
        let root = root.canonicalize().map_err(at_root)?;
        if let Some(parent) = root.parent() {
            tree::sync_folder(parent).map_err(BundleError::io(parent))?;
        }
        for (name, path) in children(&root)? {
            if name.starts_with(INCOMING) || name.starts_with(TRASH) {
                tree::remove(&path).map_err(BundleError::io(&path))?;
            }
        }
        Ok(Self { root, removals: RwLock::default() })
    }

    /// Writes a bundle under a temporary name, complete and on disk. `entry` is the file to import.
    ///
    /// Paths are relative to the bundle, with `/` between folders. A failure leaves no files behind.
    pub fn stage(
        &self,
        files: impl IntoIterator<Item = (String, Content)>,
        entry: &str,
        limits: BundleLimits,
    ) -> Result<Staged, BundleError> {
        Staged::write(&self.root, files, entry, limits)
    }

    /// Returns the folder of a version's bundle, which need not exist.
    #[must_use]
    pub fn folder(&self, function: FunctionId, label: &VersionLabel) -> PathBuf {
        folder(&self.root, function, label)
    }

    /// Reads the bundle and compares it with the digest it was published with.
    ///
    /// Errors: [`BundleError::Missing`], [`BundleError::Changed`].
    pub fn verify(&self, function: FunctionId, label: &VersionLabel, expected: &Digest) -> Result<(), BundleError> {
        self.verify_again(function, label, expected, None).map(drop)
    }

    /// Verifies like [`Self::verify`], and returns stamps by which a later change can be detected. `before` holds the
    /// stamps of the last time, from which an error names the file that has changed since.
    pub fn verify_again(
        &self,
        function: FunctionId,
        label: &VersionLabel,
        expected: &Digest,
        before: Option<&Stamps>,
    ) -> Result<Stamps, BundleError> {
        let folder = self.folder(function, label);
        // The stamps are taken first, so that they are never newer than the content that is hashed.
        match Stamps::of(&folder).and_then(|it| Ok((it, tree::fingerprint(&folder)?))) {
            Ok((stamps, found)) if found.digest == *expected => Ok(stamps),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(BundleError::Missing { folder }),
            Err(cause) if cause.kind() != io::ErrorKind::InvalidData => Err(BundleError::io(&folder)(cause)),
            _ => {
                let file = before.and_then(Stamps::changed_file);
                Err(BundleError::Changed { folder, file, expected: *expected })
            }
        }
    }

    /// Keeps every existing bundle until the guard is dropped; deletions wait.
    pub fn keep(&self) -> impl Drop {
        self.removals.write()
    }

    /// Creates `target` as a folder with hard links to the same files, which stay when the bundle is removed.
    pub fn link(&self, function: FunctionId, label: &VersionLabel, target: &Path) -> Result<(), BundleError> {
        let folder = self.folder(function, label);
        if !folder.is_dir() {
            return Err(BundleError::Missing { folder });
        }
        tree::link(&folder, target).map_err(BundleError::io(&folder))
    }

    /// Seals files restored to the place of a version's bundle: verifies them against the digest they were published
    /// with, forces them to disk and makes them read-only, as [`Staged::publish`] does.
    pub fn seal(&self, function: FunctionId, label: &VersionLabel, expected: &Digest) -> Result<(), BundleError> {
        let folder = self.folder(function, label);
        if !folder.is_dir() {
            return Err(BundleError::Missing { folder });
        }
        tree::seal_files(&folder)
            .and_then(|()| tree::seal_folders(&folder))
            .and_then(|()| tree::make_read_only(&folder))
            .map_err(BundleError::io(&folder))?;
        self.verify(function, label, expected)
    }

    /// Deletes a bundle. A missing bundle is no error.
    pub fn remove(&self, function: FunctionId, label: &VersionLabel) -> Result<(), BundleError> {
        let _removing = self.removals.read();
        let folder = self.folder(function, label);
        let trash = self.root.join(format!("{TRASH}{}", Uuid::now_v7()));
        // A folder must be writable to change its parent.
        match tree::make_writable(&folder).and_then(|()| fs::rename(&folder, &trash)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(BundleError::io(&folder))?,
        }
        // The function's folder goes with its last bundle; while others are in it, the removal of the folder fails.
        let parent = folder.parent().filter(|parent| fs::remove_dir(parent).is_err());
        for parent in parent.into_iter().chain([self.root.as_path()]) {
            tree::sync_folder(parent).map_err(BundleError::io(parent))?;
        }
        crash_point("bundle.trashed");
        tree::remove(&trash).map_err(BundleError::io(&trash))
    }

    /// Brings the folder in line with the database: `known` holds every function, also the deleted ones, with the
    /// labels of its versions.
    ///
    /// Bundles of a known function without a version are removed. Folders of unknown functions are reported and kept:
    /// if the database is lost, they are the remains of the code. Exclusive access is required because a bundle that is
    /// just being published has no version yet.
    pub fn reconcile(&mut self, known: &HashMap<FunctionId, HashSet<VersionLabel>>) -> Result<Reconciled, BundleError> {
        let mut outcome = Reconciled::default();
        for (name, path) in children(&self.root)? {
            match FunctionId::from_str(&name).ok().and_then(|it| known.get_key_value(&it)) {
                Some((&function, labels)) if path.is_dir() => {
                    self.reconcile_function(function, labels, &path, &mut outcome)?;
                }
                _ => outcome.unknown.push(path),
            }
        }
        for (&function, labels) in known {
            let lost = labels.iter().filter(|it| !self.folder(function, it).is_dir());
            outcome.missing.extend(lost.map(|label| (function, label.clone())));
        }
        outcome.missing.sort();
        Ok(outcome)
    }

    fn reconcile_function(
        &self,
        function: FunctionId,
        labels: &HashSet<VersionLabel>,
        folder: &Path,
        outcome: &mut Reconciled,
    ) -> Result<(), BundleError> {
        for (name, path) in children(folder)? {
            match VersionLabel::from_str(&name) {
                Ok(label) if labels.contains(&label) => {}
                Ok(label) => {
                    self.remove(function, &label)?;
                    outcome.removed.push((function, label));
                }
                Err(_) => outcome.unknown.push(path),
            }
        }
        Ok(())
    }
}

fn folder(root: &Path, function: FunctionId, label: &VersionLabel) -> PathBuf {
    root.join(function.to_string()).join(label.as_str())
}

/// Returns the names and paths of a folder's entries, sorted by name.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, BundleError> {
    let list = || -> io::Result<Vec<(String, PathBuf)>> {
        let entry =
            |it: io::Result<fs::DirEntry>| it.map(|it| (it.file_name().to_string_lossy().into_owned(), it.path()));
        fs::read_dir(folder)?.map(entry).collect()
    };
    let mut children = list().map_err(BundleError::io(folder))?;
    children.sort();
    Ok(children)
}
