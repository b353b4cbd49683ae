//! Stamps of files on disk: enough to detect changes without reading the content.
//!
//! A bundle is read completely once, which takes some time. Every later worker start only compares these stamps, at
//! about a microsecond a file; linking the file into the worker's folder costs ten times as much. The inode's change
//! time is not part of a stamp because every worker gets the files as further hard links, which change it.

use super::tree;
use nix::{
    fcntl::{AtFlags, OFlag, open},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Stamps of a tree of files at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps {
    root: PathBuf,
    /// Stamps by path in the tree, sorted by the bytes of the paths. Folders are included because their stamps reveal
    /// new names. The root's path is empty.
    entries: Vec<(String, Stamp)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    /// Modification time in seconds and nanoseconds.
    modified: (i64, i64),
    is_file: bool,
}

impl From<FileStat> for Stamp {
    fn from(it: FileStat) -> Self {
        Self {
            device: it.st_dev,
            inode: it.st_ino,
            size: it.st_size,
            modified: (it.st_mtime, it.st_mtime_nsec),
            is_file: SFlag::from_bits_truncate(it.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG,
        }
    }
}

impl Stamps {
    /// Takes the stamps of a tree.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut names = vec![String::new()];
        for path in tree::paths(root)? {
            let folders = path.match_indices('/').map(|(end, _)| path[..end].to_owned());
            names.extend(folders);
            names.push(path);
        }
        names.sort_unstable();
        names.dedup();
        let folder = open_root(root)?;
        let entry = |name: String| {
            let stamp = stamp(&folder, &name)?;
            Ok::<_, io::Error>((name, stamp))
        };
        Ok(Self { root: root.to_owned(), entries: names.into_iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Returns the number of files and folders.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether all stamps are unchanged. Blocks on the disk for about a microsecond a file.
    #[must_use]
    pub fn still_hold(&self) -> bool {
        let Ok(root) = open_root(&self.root) else { return false };
        self.entries.iter().all(|(name, before)| stamp(&root, name).is_ok_and(|now| now == *before))
    }

    /// Returns the first file that is changed, new or gone, if any. Reads the folders.
    #[must_use]
    pub fn changed_file(&self) -> Option<String> {
        let root = open_root(&self.root).ok()?;
        let is_changed = |(name, before): &&(String, Stamp)| before.is_file && stamp(&root, name).ok() != Some(*before);
        if let Some((name, _)) = self.entries.iter().find(is_changed) {
            return Some(name.clone());
        }
        let is_known = |name: &String| self.entries.binary_search_by(|entry| entry.0.cmp(name)).is_ok();
        tree::paths(&self.root).ok()?.into_iter().find(|name| !is_known(name))
    }
}

/// Opens the root once, so that the files need not be looked up from the top of the file system.
fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(open(root, flags, Mode::empty())?)
}

fn stamp(root: &OwnedFd, name: &str) -> io::Result<Stamp> {
    Ok(fstatat(root, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn every_change_is_seen_and_its_file_is_named() {
        let make = || {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir_all(folder.path().join("lib/deep")).expect("folders");
            for name in ["index.js", "lib/a.js", "lib/deep/b.js"] {
                fs::write(folder.path().join(name), "12345").expect("a file");
            }
            let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
            for name in ["index.js", "lib/a.js", "lib/deep/b.js", "lib/deep", "lib", ""] {
                fs::File::open(folder.path().join(name)).and_then(|it| it.set_times(old)).expect("a time");
            }
            let stamps = Stamps::of(folder.path()).expect("they are there");
            assert!(stamps.still_hold() && stamps.changed_file().is_none());
            assert_eq!(stamps.count(), 6);
            (folder, stamps)
        };
        type Change = (&'static str, fn(&Path));
        let changes: [Change; 5] = [
            ("lib/a.js", |root| fs::write(root.join("lib/a.js"), "54321").expect("a file of the same size")),
            ("index.js", |root| {
                fs::write(root.join("new"), "12345").expect("a file");
                fs::rename(root.join("new"), root.join("index.js")).expect("it replaces");
            }),
            ("lib/deep/new.js", |root| fs::write(root.join("lib/deep/new.js"), "").expect("a file")),
            ("lib/deep/b.js", |root| fs::remove_file(root.join("lib/deep/b.js")).expect("it goes")),
            ("index.js", |root| {
                fs::remove_file(root.join("index.js")).expect("it goes");
                symlink("lib/a.js", root.join("index.js")).expect("a link");
            }),
        ];
        for (name, change) in changes {
            let (folder, stamps) = make();
            change(folder.path());
            assert!(!stamps.still_hold(), "{name}");
            assert_eq!(stamps.changed_file().as_deref(), Some(name));
        }
        // Hard links to the files do not count as a change.
        let (folder, stamps) = make();
        let other = tempfile::tempdir_in(folder.path().parent().expect("it has one")).expect("a folder");
        fs::hard_link(folder.path().join("index.js"), other.path().join("index.js")).expect("a second name");
        assert!(stamps.still_hold());
    }
}
