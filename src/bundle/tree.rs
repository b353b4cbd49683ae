//! Trees of files: hashing, forcing to disk, removing.

use crate::model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Read buffer size, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Digest and size of a tree of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) digest: Digest,
    /// Bytes of all files.
    pub(super) size: u64,
    /// Number of files.
    pub(super) files: usize,
}

/// Hashes all files below `root`.
///
/// A single file: SHA-256 of its bytes, as `sha256sum` prints it. Several: SHA-256 over all files in the byte order of
/// their paths, each as path length, path, file length, bytes, with lengths as little-endian `u64`.
///
/// Anything that is neither a regular file nor a folder is an error of kind `InvalidData`.
pub(super) fn fingerprint(root: &Path) -> io::Result<Fingerprint> {
    let paths = paths(root)?;
    let (mut hasher, mut size) = (Sha256::new(), 0);
    for path in &paths {
        let file = open_file(&root.join(path))?;
        let length = file.metadata()?.len();
        if paths.len() > 1 {
            hasher.update((path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update(length.to_le_bytes());
        }
        if hash(file, &mut hasher)? != length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file changes while it is read"));
        }
        size += length;
    }
    Ok(Fingerprint { digest: Digest(hasher.finalize().into()), size, files: paths.len() })
}

/// Returns the paths of all files below `root`, relative to it and sorted by their bytes.
pub(super) fn paths(root: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    list(root, "", &mut paths)?;
    paths.sort();
    Ok(paths)
}

/// Returns the size and SHA-256 of one file.
pub(super) fn file_fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let mut hasher = Sha256::new();
    let size = hash(open_file(path)?, &mut hasher)?;
    Ok(Fingerprint { digest: Digest(hasher.finalize().into()), size, files: 1 })
}

/// Collects the paths of all files below `folder`, relative to the root; `prefix` is the folder's own path.
fn list(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| foreign())?;
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.file_type()? {
            it if it.is_dir() => list(&entry.path(), &path, paths)?,
            it if it.is_file() => paths.push(path),
            _ => return Err(foreign()),
        }
    }
    Ok(())
}

pub(super) fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a regular file")
}

fn hash(mut file: File, hasher: &mut Sha256) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            length => {
                hasher.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

/// Opens a regular file for reading. Links are not followed and pipes are not waited for: both are `InvalidData`.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // ELOOP means a link; ENXIO a socket, which cannot be opened at all.
        Err(cause) if matches!(cause.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => return Err(foreign()),
        outcome => outcome?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(foreign()) }
}

/// Creates `target` as a folder of hard links to the files below `root`.
pub(super) fn link(root: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    for path in paths(root)? {
        let link = target.join(&path);
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::hard_link(root.join(&path), link)?;
    }
    Ok(())
}

/// Forces all files below `root` to disk and makes them read-only.
pub(super) fn seal_files(root: &Path) -> io::Result<()> {
    for path in paths(root)? {
        let file = open_file(&root.join(path))?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()?;
    }
    Ok(())
}

/// Forces a folder's entries to disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Forces a folder and its subfolders, but not their files, to disk, and makes the subfolders read-only.
pub(super) fn seal_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            seal_folders(&entry.path())?;
            make_read_only(&entry.path())?;
        }
    }
    sync_folder(folder)
}

/// Removes everybody's right to add and remove names in a folder.
pub(super) fn make_read_only(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o555))
}

/// Gives the owner the right to change and rename a folder.
pub(super) fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

/// Removes a file, or a folder with its content, whatever their modes.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    make_all_writable(path)?;
    fs::remove_dir_all(path)
}

fn make_all_writable(folder: &Path) -> io::Result<()> {
    make_writable(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_all_writable(&entry.path())?;
        }
    }
    Ok(())
}
