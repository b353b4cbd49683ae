//! The bundle store: the code of every version as files, `{root}/{function id}/{version label}/…`.
//!
//! ```text
//! stage ──▶ .incoming-<uuid> ── publish: rename ──▶ {function}/{label} ── remove: rename ──▶ .trash-<uuid> ──▶ gone
//!              │ dropped: gone                         │ verify: still what was published?
//! ```
//!
//! A bundle appears and disappears by one rename, and is on disk before it has its name. It is never written again: its
//! files are read-only, and [`BundleStore::verify`] notices when somebody changed them all the same.
//!
//! Which versions exist is the database's to say, not this folder's. A bundle is published *before* its row is committed
//! and removed *after* its row is deleted, so a row always has its bundle; a bundle that a crash left without a row is
//! removed by [`BundleStore::reconcile`] at the next start.
//!
//! All methods block on the disk: an asynchronous caller gives them a thread (`spawn_blocking`).

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
pub use difference::{Change, Diff, Difference, DifferenceLimits, FileDifference};
pub use error::BundleError;
pub use named::{Named, NotOpened, SourceFolder};
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

/// Folders in which a bundle is put together.
const INCOMING: &str = ".incoming-";

/// Folders of bundles that are being deleted.
const TRASH: &str = ".trash-";

/// The folder of all bundles; see the module.
#[derive(Debug)]
pub struct BundleStore {
    root: PathBuf,
    /// Held for reading while a bundle goes.
    removals: RwLock<()>,
}

/// What [`BundleStore::reconcile`] found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Bundles no version refers to; they are gone now.
    pub removed: Vec<(FunctionId, VersionLabel)>,
    /// Versions whose bundle is not there.
    pub missing: Vec<(FunctionId, VersionLabel)>,
    /// What is in the folder and is no bundle of a known function; it is left alone.
    pub unknown: Vec<PathBuf>,
}

impl BundleStore {
    /// Opens the store in the folder `root`, makes the folder if there is none, and removes what an interrupted
    /// deployment or deletion left behind.
    pub fn open(root: &Path) -> Result<Self, BundleError> {
        let at_root = BundleError::io(root);
        fs::create_dir_all(root).map_err(at_root)?;
        // Absolute, because workers start in folders of their own.
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

    /// Writes a bundle under a temporary name, complete and on disk. `entry` is the file that is imported.
    ///
    /// Paths are relative to the bundle, with `/` between folders. Nothing is left when this fails.
    pub fn stage(
        &self,
        files: impl IntoIterator<Item = (String, Content)>,
        entry: &str,
        limits: BundleLimits,
    ) -> Result<Staged, BundleError> {
        Staged::write(&self.root, files, entry, limits)
    }

    /// Where a version's bundle is, or would be.
    #[must_use]
    pub fn folder(&self, function: FunctionId, label: &VersionLabel) -> PathBuf {
        folder(&self.root, function, label)
    }

    /// Reads the bundle through and compares it with the digest it was published with.
    ///
    /// Errors: [`BundleError::Missing`], [`BundleError::Changed`].
    pub fn verify(&self, function: FunctionId, label: &VersionLabel, expected: &Digest) -> Result<(), BundleError> {
        self.verify_again(function, label, expected, None).map(drop)
    }

    /// Does what [`Self::verify`] does, and gives what tells later whether the bundle is still that. `before` is what it
    /// gave the last time; an error then names the file that has changed since.
    pub fn verify_again(
        &self,
        function: FunctionId,
        label: &VersionLabel,
        expected: &Digest,
        before: Option<&Stamps>,
    ) -> Result<Stamps, BundleError> {
        let folder = self.folder(function, label);
        // The stamps come first, so that they are of nothing later than what is read.
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

    /// Keeps every bundle that is there until the guard goes; deletions wait.
    pub fn keep(&self) -> impl Drop {
        self.removals.write()
    }

    /// Makes `target` a folder with the same files, as further links to them: the bundle may go, and they stay.
    pub fn link(&self, function: FunctionId, label: &VersionLabel, target: &Path) -> Result<(), BundleError> {
        let folder = self.folder(function, label);
        if !folder.is_dir() {
            return Err(BundleError::Missing { folder });
        }
        tree::link(&folder, target).map_err(BundleError::io(&folder))
    }

    /// Makes files that were put where a version's bundle belongs what [`Staged::publish`] leaves: on disk, read-only and
    /// compared with the digest they were published with.
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

    /// Deletes a bundle. One that is not there counts as deleted.
    pub fn remove(&self, function: FunctionId, label: &VersionLabel) -> Result<(), BundleError> {
        let _removing = self.removals.read();
        let folder = self.folder(function, label);
        let trash = self.root.join(format!("{TRASH}{}", Uuid::now_v7()));
        // A folder has to be writable to change its parent.
        match tree::make_writable(&folder).and_then(|()| fs::rename(&folder, &trash)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(BundleError::io(&folder))?,
        }
        // The last bundle of a function takes the function's folder with it; with others in it that one stays.
        let parent = folder.parent().filter(|parent| fs::remove_dir(parent).is_err());
        for parent in parent.into_iter().chain([self.root.as_path()]) {
            tree::sync_folder(parent).map_err(BundleError::io(parent))?;
        }
        crash_point("bundle.trashed");
        tree::remove(&trash).map_err(BundleError::io(&trash))
    }

    /// Brings the folder in line with the versions there are: `known` holds every function, also the deleted ones, with
    /// the labels of its versions.
    ///
    /// Bundles of a known function without a version are removed. Folders of unknown functions are reported and kept:
    /// they are what is left of the code if the database is lost. It needs the store for itself, because a bundle
    /// that is just being published has no version yet.
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

/// Names and paths of what is in a folder, by name.
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
