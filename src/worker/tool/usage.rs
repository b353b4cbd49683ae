//! Measures the size of a hostile tree of files.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Maximum files and folders in one workplace: several times the packages of a large project.
const ENTRIES_MAX: usize = 500_000;

/// The kernel's unit of [`MetadataExt::blocks`].
const BLOCK_BYTES: u64 = 512;

/// Whether a tree is within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Within,
    Over,
}

impl Usage {
    /// Measures a tree that others change meanwhile. Anything unreadable, because it is too deep or locked, counts as
    /// too much.
    pub(super) fn of(folder: &Path, bytes_max: u64) -> Self {
        match count(folder, bytes_max) {
            Some(_) => Self::Within,
            None => Self::Over,
        }
    }
}

/// Returns the bytes of a tree; a file with several names counts once. `None` if they exceed `bytes_max`.
#[must_use]
pub fn count(folder: &Path, bytes_max: u64) -> Option<u64> {
    let (mut bytes, mut entries) = (0_u64, 0_usize);
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut seen = HashSet::new();
    while let Some(folder) = folders.pop() {
        let children = match fs::read_dir(&folder) {
            Ok(children) => children,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        };
        for child in children.flatten() {
            let metadata = match child.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return None,
            };
            entries += 1;
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert(metadata.ino()) {
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
            }
            if bytes > bytes_max || entries > ENTRIES_MAX {
                return None;
            }
            if metadata.is_dir() {
                folders.push(child.path());
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_once_and_links_lead_nowhere() {
        let tree = tempfile::tempdir().expect("a folder");
        fs::create_dir(tree.path().join("a")).expect("a folder");
        fs::write(tree.path().join("a/x"), vec![1; 100_000]).expect("a file");
        fs::hard_link(tree.path().join("a/x"), tree.path().join("a/y")).expect("a second name");
        std::os::unix::fs::symlink("/", tree.path().join("root")).expect("a link");
        let bytes = count(tree.path(), u64::MAX).expect("it is within");
        assert!((100_000..150_000).contains(&bytes), "{bytes}");
        assert_eq!(Usage::of(tree.path(), 150_000), Usage::Within);
        assert_eq!(Usage::of(tree.path(), 90_000), Usage::Over);
    }
}
