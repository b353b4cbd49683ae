//! Temporary folder for incoming code: `data/incoming`, whose content never outlives a deployment or a daemon.

use std::{fs, fs::File, io, os::unix::fs::DirBuilderExt, path::PathBuf};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Deployments that may unpack or copy code at once; each may fill the disk with a whole bundle.
const TURNS: usize = 4;

/// Uploads that may arrive at once, limited for the same reason. They take as long as their senders do, so they do not
/// share the deployments' slots.
const UPLOADS: usize = 16;

/// The parent of temporary folders.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    turns: Semaphore,
    uploads: Semaphore,
}

impl Scratch {
    /// Recreates the folder, which removes the leftovers of a killed daemon.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Self { root, turns: Semaphore::new(TURNS), uploads: Semaphore::new(UPLOADS) })
    }

    /// Waits for a slot to fill a folder. Dropping the value frees the slot.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes the semaphore")
    }

    /// Takes a slot for an upload until the value is dropped; `None` if all are taken.
    pub fn upload(&self) -> Option<SemaphorePermit<'_>> {
        self.uploads.try_acquire().ok()
    }

    /// Creates an empty file without a name.
    pub fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.root)
    }

    /// Creates an empty folder, which is removed with the value.
    pub fn folder(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("unpacked-").tempdir_in(&self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_with_their_value_or_at_the_next_start() {
        let data = tempfile::tempdir().expect("a folder");
        let root = data.path().join("incoming");
        let scratch = Scratch::open(root.clone()).expect("a scratch folder");
        let (one, two) = (scratch.folder().expect("one"), scratch.folder().expect("another"));
        fs::create_dir_all(one.path().join("a/b")).expect("a folder in it");
        drop(one);
        assert_eq!(fs::read_dir(&root).expect("the folder").count(), 1);
        // Leaves the folder behind, as a killed daemon would.
        let left = two.keep();
        fs::write(left.join("file"), "").expect("a file in it");
        Scratch::open(root.clone()).expect("a scratch folder");
        assert_eq!(fs::read_dir(&root).expect("the folder").count(), 0);
    }
}
