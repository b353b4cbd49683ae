//! Cache of installed packages: a later build with the same lockfile downloads nothing and waits for nothing.
//!
//! ```text
//! data/packages/<digest>/node_modules    result of an installation
//!                        size            its bytes; the modification time is the last use
//! ```
//!
//! A folder is named by a hash of all inputs of its installation, so it only serves builds with the same packages.
//! Builds see it read-only, so none can change what another one gets. When the cache is too large, the least recently
//! used folders are removed.

use super::super::names::MODULES;
use crate::{model::Digest, worker};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use uuid::Uuid;

/// Prefix of incomplete folders.
const UNFINISHED: &str = ".new-";

const SIZE: &str = "size";

/// Folder of cached packages.
#[derive(Debug, Clone)]
pub(super) struct Packages {
    root: PathBuf,
    /// Number of builds that use each folder.
    used: Arc<Mutex<HashMap<String, usize>>>,
}

/// Hash of the inputs of an installation.
#[derive(Debug)]
pub(super) struct InstallationKey(Sha256);

/// Cached packages in use; they are not removed while this value lives.
#[derive(Debug)]
pub(super) struct CachedPackages {
    packages: Packages,
    name: String,
}

impl InstallationKey {
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        // The lengths separate the values from each other.
        self.0.update(format!("{} {name} {}\n", name.len(), bytes.len()));
        self.0.update(bytes);
    }

    fn name(self) -> String {
        Digest(self.0.finalize().into()).to_string()
    }
}

impl CachedPackages {
    /// Returns the folder of the packages.
    pub(super) fn folder(&self) -> PathBuf {
        self.packages.root.join(&self.name).join(MODULES)
    }
}

impl Drop for CachedPackages {
    fn drop(&mut self) {
        let mut used = self.packages.used.lock();
        if let Some(count) = used.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.name);
            }
        }
    }
}

impl Packages {
    /// Opens the cache in this folder, which is created if necessary.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        for entry in fs::read_dir(&root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                worker::remove_folder(&entry.path());
            }
        }
        Ok(Self { root, used: Arc::default() })
    }

    /// Returns the cached packages of an installation, or else the name to keep them under.
    pub(super) fn find(&self, key: InstallationKey) -> Result<CachedPackages, String> {
        let name = key.name();
        // The use is counted first, so that the packages are not removed in between.
        let kept = self.take(&name);
        let size = File::options().write(true).open(self.root.join(&name).join(SIZE));
        match size.and_then(|it| it.set_modified(SystemTime::now())) {
            Ok(()) => Ok(kept),
            Err(_) => Err(name),
        }
    }

    fn take(&self, name: &str) -> CachedPackages {
        *self.used.lock().entry(name.to_owned()).or_default() += 1;
        CachedPackages { packages: self.clone(), name: name.to_owned() }
    }

    /// Moves the packages of an installation into the cache, and makes room for them. Packages that are too large or
    /// cannot be moved stay where they are.
    pub(super) fn keep(&self, name: &str, modules: &Path, bytes_max: u64) -> io::Result<Option<CachedPackages>> {
        let Some(bytes) = worker::tree_bytes(modules, bytes_max) else { return Ok(None) };
        let unfinished = self.root.join(format!("{UNFINISHED}{}", Uuid::now_v7()));
        fs::DirBuilder::new().mode(0o700).create(&unfinished)?;
        let kept = self.take(name);
        let target = self.root.join(name);
        let moved = fs::rename(modules, unfinished.join(MODULES))
            .and_then(|()| fs::write(unfinished.join(SIZE), bytes.to_string()))
            .and_then(|()| fs::rename(&unfinished, &target));
        match moved {
            Ok(()) => {}
            // Another build stored the same packages first.
            Err(_) if target.join(SIZE).is_file() => worker::remove_folder(&unfinished),
            Err(error) => {
                worker::remove_folder(&unfinished);
                return Err(error);
            }
        }
        self.make_room(bytes_max);
        Ok(Some(kept))
    }

    /// Removes the least recently used packages that are not in use until the rest is within the limit.
    fn make_room(&self, bytes_max: u64) {
        let mut all: Vec<(SystemTime, u64, String)> = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let size = entry.path().join(SIZE);
            let used = fs::metadata(&size).and_then(|it| it.modified());
            let bytes = fs::read_to_string(&size).ok().and_then(|it| it.parse().ok());
            if let (Ok(used), Some(bytes), Ok(name)) = (used, bytes, entry.file_name().into_string()) {
                all.push((used, bytes, name));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|it| it.1).sum();
        for (_, bytes, name) in all {
            if total <= bytes_max {
                break;
            }
            let trash = self.root.join(format!("{UNFINISHED}{}", Uuid::now_v7()));
            let is_moved = {
                let used = self.used.lock();
                !used.contains_key(&name) && fs::rename(self.root.join(&name), &trash).is_ok()
            };
            if is_moved {
                worker::remove_folder(&trash);
                total -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn key(text: &str) -> InstallationKey {
        let mut key = InstallationKey::new();
        key.add("bun.lock", text.as_bytes());
        key
    }

    /// Stores an installation of one mebibyte.
    fn keep(packages: &Packages, text: &str, bytes_max: u64) -> Option<CachedPackages> {
        let made = tempfile::tempdir_in(packages.root.parent().expect("it has one")).expect("a folder");
        let modules = made.path().join(MODULES);
        fs::create_dir_all(modules.join("a")).expect("folders");
        fs::write(modules.join("a/index.js"), vec![b' '; MIB as usize - 65_536]).expect("a file");
        let name = packages.find(key(text)).expect_err("it is new");
        packages.keep(&name, &modules, bytes_max).expect("it can be moved")
    }

    #[test]
    fn the_same_packages_are_found_again_until_there_is_no_room() {
        let data = tempfile::tempdir().expect("a folder");
        let packages = Packages::open(data.path().join("packages")).expect("a folder");
        let one = keep(&packages, "one", 2 * MIB).expect("there is room");
        assert!(one.folder().join("a/index.js").is_file());
        drop(keep(&packages, "two", 2 * MIB));
        // The first folder is in use, so the second one is removed although it was used later.
        drop(keep(&packages, "three", 2 * MIB));
        drop(one);
        let is_kept = |text| packages.find(key(text)).is_ok();
        assert_eq!((is_kept("one"), is_kept("two"), is_kept("three")), (true, false, true));
        assert!(keep(&packages, "large", MIB / 2).is_none());
        let left = fs::read_dir(&packages.root).expect("a folder").count();
        assert_eq!(left, 2, "nothing unfinished is left");
    }

    #[test]
    fn what_a_killed_daemon_has_left_goes() {
        let data = tempfile::tempdir().expect("a folder");
        let root = data.path().join("packages");
        fs::create_dir_all(root.join(".new-x/node_modules/a")).expect("folders");
        Packages::open(root.clone()).expect("a folder");
        assert_eq!(fs::read_dir(root).expect("a folder").count(), 0);
    }
}
