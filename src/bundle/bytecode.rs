//! Compiled forms of bundles: a cache beside the bundles, `{root}/{runtime}/{version id}.{digest}/…`.
//!
//! ```text
//! begin ──▶ .incoming-<uuid> ── keep: rename ──▶ {version id}.{digest} ── remove ──▶ gone
//!              │ dropped: gone                      │ find: still what its name says?
//! ```
//!
//! No part of this cache is required: any of it may be deleted at any time, and every failure here is logged and makes
//! workers load the bundle itself. Files compiled by another runtime are never loaded.
//!
//! **Invariant.** A [`Compiled`] is set only to files that this process has made, or has read completely and found to
//! match the digest in their name: a damaged file would crash the worker.
//!
//! The methods except [`BytecodeStore::compiled`] and [`BytecodeStore::has`] block on the disk.

use super::{INCOMING, Stamps, tree};
use crate::model::VersionId;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use uuid::Uuid;

/// Compiled forms of one runtime; see the module documentation.
#[derive(Debug)]
pub struct BytecodeStore {
    /// Folder of this runtime; `None` means that nothing is compiled.
    folder: Option<PathBuf>,
    versions: Mutex<HashMap<VersionId, Compiled>>,
    /// Bytes on disk per version, including forms not verified yet.
    sizes: Mutex<HashMap<VersionId, u64>>,
}

/// Folder of a version's compiled form, set once the form is verified. Clones share the same form.
#[derive(Debug, Clone, Default)]
pub struct Compiled(Arc<OnceLock<Form>>);

/// A compiled form on disk.
#[derive(Debug)]
struct Form {
    folder: PathBuf,
    /// Stamps taken when the form was made or verified; `None` if they could not be read.
    stamps: Option<Stamps>,
}

impl Form {
    fn at(folder: PathBuf) -> Self {
        let stamps = Stamps::of(&folder).ok();
        Self { folder, stamps }
    }
}

/// A folder in which a compiled form is being made. Dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
}

impl Compiled {
    /// Creates a reference to an existing compiled form.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self(Arc::new(Form::at(folder.to_owned()).into()))
    }

    /// Returns the folder, if the form exists and is unchanged. Blocks on the disk for some microseconds.
    #[must_use]
    pub fn unchanged(&self) -> Option<&Path> {
        let form = self.0.get()?;
        if form.stamps.as_ref().is_some_and(Stamps::still_hold) {
            return Some(&form.folder);
        }
        tracing::warn!(path = %form.folder.display(), "bytecode was changed after it was made: the bundle itself is loaded");
        None
    }

    /// Returns the folder, if the form exists.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.get().map(|it| it.folder.as_path())
    }
}

impl Draft {
    /// Returns the folder to put the files into.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

impl BytecodeStore {
    /// Opens the cache in the folder `root` for a runtime. Runtimes with different compiled forms must have different
    /// names. Removes forms of other runtimes and of versions that are not `known`; without a runtime it removes
    /// everything.
    #[must_use]
    pub fn open(root: &Path, runtime: Option<&str>, known: &HashSet<VersionId>) -> Self {
        let folder = runtime.and_then(|runtime| match make(root, runtime) {
            Ok(folder) => Some(folder),
            Err(error) => {
                tracing::warn!(path = %root.display(), %error, "cannot open the bytecode cache: no bundle is compiled");
                None
            }
        });
        let own = folder.as_deref().and_then(Path::file_name);
        for path in children(root).into_iter().filter(|path| own.is_none() || path.file_name() != own) {
            remove(&path);
        }
        let mut sizes = HashMap::new();
        for path in folder.iter().flat_map(|folder| children(folder)) {
            match version_of(&path) {
                Some((id, _)) if known.contains(&id) => *sizes.entry(id).or_default() += size(&path),
                _ => remove(&path),
            }
        }
        Self { folder, versions: Mutex::default(), sizes: Mutex::new(sizes) }
    }

    /// Returns the cache's size on disk, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sizes.lock().values().sum()
    }

    /// Whether bundles are compiled.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.folder.is_some()
    }

    /// Returns a version's compiled form, which may be set later.
    #[must_use]
    pub fn compiled(&self, version: VersionId) -> Compiled {
        self.versions.lock().entry(version).or_default().clone()
    }

    /// Whether a version has a verified compiled form.
    #[must_use]
    pub fn has(&self, version: VersionId) -> bool {
        self.versions.lock().get(&version).is_some_and(|it| it.folder().is_some())
    }

    /// Looks for a compiled form that an earlier process made, and verifies it. Returns whether a valid one was found.
    pub fn find(&self, version: VersionId) -> bool {
        for path in self.folders_of(version) {
            let digest = version_of(&path).map(|(_, digest)| digest);
            match tree::fingerprint(&path) {
                Ok(found) if Some(found.digest.to_string()) == digest => {
                    let _ = self.compiled(version).0.set(Form::at(path));
                    return true;
                }
                _ => {
                    tracing::warn!(path = %path.display(), "bytecode was changed after it was made, and is removed");
                    self.sizes.lock().remove(&version);
                    remove(&path);
                }
            }
        }
        false
    }

    /// Creates an empty folder for a compiled form. Returns `None` if compilation is off.
    pub fn begin(&self) -> io::Result<Option<Draft>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let folder = folder.join(format!("{INCOMING}{}", Uuid::now_v7()));
        fs::create_dir_all(&folder)?;
        Ok(Some(Draft { folder }))
    }

    /// Turns a draft into the compiled form of a version: workers that start from now on load it.
    pub fn keep(&self, draft: &Draft, version: VersionId) -> io::Result<()> {
        let tree::Fingerprint { digest, size, .. } = tree::fingerprint(&draft.folder)?;
        let folder = draft.folder.with_file_name(format!("{version}.{digest}"));
        for file in children(&draft.folder) {
            fs::set_permissions(file, Permissions::from_mode(0o444))?;
        }
        // The rename replaces an empty folder at most: a folder of this name has the same content.
        fs::rename(&draft.folder, &folder)?;
        tree::make_read_only(&folder)?;
        self.sizes.lock().insert(version, size);
        let _ = self.compiled(version).0.set(Form::at(folder));
        Ok(())
    }

    /// Removes the compiled forms of a version. A worker that is just starting loads the bundle itself.
    pub fn remove(&self, version: VersionId) {
        self.versions.lock().remove(&version);
        self.sizes.lock().remove(&version);
        for path in self.folders_of(version) {
            remove(&path);
        }
    }

    fn folders_of(&self, version: VersionId) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.folder.iter().flat_map(|folder| children(folder)).collect();
        paths.retain(|path| version_of(path).is_some_and(|(id, _)| id == version));
        paths
    }
}

/// Creates the folder of a runtime. Its path is absolute because workers start in folders of their own.
fn make(root: &Path, runtime: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(root.join(runtime))?;
    Ok(root.canonicalize()?.join(runtime))
}

/// Parses a folder's name into its version and the digest of its files.
fn version_of(path: &Path) -> Option<(VersionId, String)> {
    let (id, digest) = path.file_name()?.to_str()?.split_once('.')?;
    Some((id.parse().ok()?, digest.to_owned()))
}

/// Total bytes of the files of a compiled form, which has no subfolders.
fn size(folder: &Path) -> u64 {
    children(folder).iter().filter_map(|file| fs::metadata(file).ok()).map(|it| it.len()).sum()
}

/// Lists the entries of a folder; none if it cannot be read.
fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn remove(path: &Path) {
    match tree::remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove bytecode");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIME: Option<&str> = Some("bun-1");

    fn open(root: &Path, known: &[VersionId]) -> BytecodeStore {
        BytecodeStore::open(root, RUNTIME, &known.iter().copied().collect())
    }

    fn keep(store: &BytecodeStore, version: VersionId, text: &str) -> PathBuf {
        let draft = store.begin().expect("a folder").expect("the cache is on");
        fs::write(draft.folder().join("a.js"), text).expect("a file");
        assert!(!store.has(version));
        store.keep(&draft, version).expect("it is kept");
        store.compiled(version).folder().expect("it is there").to_owned()
    }

    #[test]
    fn what_is_kept_is_read_only_and_found_again() {
        let root = tempfile::tempdir().expect("a folder");
        let version = VersionId::new();
        let store = open(root.path(), &[]);
        // A reference taken before the form exists sees it later.
        let early = store.compiled(version);
        assert_eq!(store.bytes(), 0);
        let folder = keep(&store, version, "1");
        assert_eq!(store.bytes(), 1);
        assert_eq!((early.folder(), early.unchanged()), (Some(&*folder), Some(&*folder)));
        assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o555);
        assert_eq!(fs::metadata(folder.join("a.js")).expect("a file").permissions().mode() & 0o777, 0o444);

        let store = open(root.path(), &[version]);
        assert!(!store.has(version), "the form is not verified yet");
        assert_eq!(store.bytes(), 1, "its size is known already");
        assert!(store.find(version) && store.has(version) && folder.exists());
        store.remove(version);
        assert!(!store.has(version) && !folder.exists() && !store.find(version));
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn what_was_changed_is_removed() {
        let root = tempfile::tempdir().expect("a folder");
        let version = VersionId::new();
        let made = open(root.path(), &[]);
        let file = keep(&made, version, "1").join("a.js");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("permissions");
        fs::write(&file, "of another length").expect("a file");
        assert_eq!(made.compiled(version).unchanged(), None, "a changed form is not loaded");
        let store = open(root.path(), &[version]);
        assert!(!store.find(version) && !store.has(version) && !file.exists());
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn what_nobody_can_use_goes() {
        let root = tempfile::tempdir().expect("a folder");
        let (known, unknown) = (VersionId::new(), VersionId::new());
        let left = |store: &BytecodeStore| [known, unknown].map(|version| store.find(version));
        let store = open(root.path(), &[]);
        keep(&store, known, "1");
        keep(&store, unknown, "1");
        fs::create_dir_all(root.path().join("bun-1/.incoming-1/deep")).expect("a folder");
        fs::write(root.path().join("stray"), "").expect("a file");
        assert_eq!(left(&open(root.path(), &[known])), [true, false]);
        assert_eq!(children(&root.path().join("bun-1")).len(), 1);
        assert_eq!(children(root.path()), [root.path().join("bun-1")]);

        // Opened with another runtime, and without one.
        let ids = HashSet::from([known]);
        assert!(!BytecodeStore::open(root.path(), Some("bun-2"), &ids).find(known));
        assert_eq!(children(root.path()), [root.path().join("bun-2")]);
        let off = BytecodeStore::open(root.path(), None, &ids);
        assert!(!off.is_on() && off.begin().expect("nothing fails").is_none() && children(root.path()).is_empty());
    }

    #[test]
    fn a_draft_that_is_not_kept_is_gone() {
        let root = tempfile::tempdir().expect("a folder");
        let store = open(root.path(), &[]);
        let draft = store.begin().expect("a folder").expect("the cache is on");
        fs::write(draft.folder().join("a.js"), "1").expect("a file");
        drop(draft);
        assert!(children(&root.path().join("bun-1")).is_empty());
    }
}
