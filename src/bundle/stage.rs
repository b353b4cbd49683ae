//! A bundle being staged: checked, written, hashed and on disk, but without its final name.

use super::{BundleError, INCOMING, SourceFolder, folder, tree};
use crate::crash_point::crash_point;
use crate::model::{Digest, FunctionId, VersionLabel};
use bytes::Bytes;
use std::collections::{BTreeMap, btree_map};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Longest path inside a bundle, in bytes; with the store's own folders it stays under the system's 4096.
const PATH_BYTES_MAX: usize = 1_024;

/// Longest name of a file or folder, in bytes: the limit of file systems.
const NAME_BYTES_MAX: usize = 255;

/// Deepest nesting of folders.
const DEPTH_MAX: usize = 32;

/// Content of one file of a bundle.
#[derive(Debug, Clone)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Regular file to copy. Links are refused: the link's target has to be named instead.
    File(PathBuf),
    /// Regular file in a folder that is not the daemon's own, by its path in the folder.
    Within(SourceFolder, String),
    /// An open regular file, and its path.
    Opened(Arc<File>, PathBuf),
}

impl Content {
    /// Opens the source at its beginning; `None` for bytes. Anything but a regular file is `InvalidData`.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        match self {
            Self::Bytes(_) => Ok(None),
            Self::File(path) => tree::open_file(path).map(Some),
            Self::Within(folder, inside) => folder.open(inside).map(Some),
            Self::Opened(file, _) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                Ok(Some(file))
            }
        }
    }

    /// Returns the bytes in memory; empty if there is a source.
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            _ => Bytes::new(),
        }
    }

    /// Returns the source's path for error messages.
    fn place(&self) -> PathBuf {
        match self {
            Self::Bytes(_) => PathBuf::new(),
            Self::File(path) | Self::Opened(_, path) => path.clone(),
            Self::Within(folder, inside) => folder.path_of(inside),
        }
    }
}

/// Limits on a bundle's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleLimits {
    /// Bytes of all files together.
    pub bytes_max: u64,
    /// Number of files.
    pub files_max: usize,
}

/// A bundle under a temporary name. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    root: PathBuf,
    /// Current folder.
    folder: PathBuf,
    entry: String,
    fingerprint: tree::Fingerprint,
    published: bool,
}

impl Staged {
    pub(super) fn write(
        root: &Path,
        files: impl IntoIterator<Item = (String, Content)>,
        entry: &str,
        limits: BundleLimits,
    ) -> Result<Self, BundleError> {
        let files = check(files, entry, limits)?;
        let folder = root.join(format!("{INCOMING}{}", Uuid::now_v7()));
        let fingerprint = tree::Fingerprint { digest: Digest([0; 32]), size: 0, files: 0 };
        let at_folder = BundleError::io(&folder);
        fs::create_dir(&folder).map_err(at_folder)?;
        // From here on, every exit removes the folder.
        let mut staged = Self {
            root: root.to_owned(),
            folder: folder.clone(),
            entry: entry.to_owned(),
            fingerprint,
            published: false,
        };
        tree::make_writable(&folder).map_err(at_folder)?;
        let mut room = limits.bytes_max;
        for (path, content) in &files {
            let written = copy(content, &folder.join(path), room)?;
            room = room.checked_sub(written).ok_or(BundleError::TooLarge(limits.bytes_max))?;
            crash_point("bundle.staging");
        }
        tree::seal_folders(&folder).map_err(at_folder)?;
        // The files are read back rather than hashed while written: the digest then covers the stored bytes, and is
        // computed in a single way.
        staged.fingerprint = tree::fingerprint(&folder).map_err(at_folder)?;
        crash_point("bundle.staged");
        Ok(staged)
    }

    /// Returns the digest of the files.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.fingerprint.digest
    }

    /// Whether the bundle is a single file.
    #[must_use]
    pub fn is_one_file(&self) -> bool {
        self.fingerprint.files == 1
    }

    /// Returns the bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.fingerprint.size
    }

    /// Returns the file to import, relative to the folder.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// Returns the temporary folder, for checks that read or run the files before they are published.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives the bundle its final name and makes it read-only; the name is on disk when this returns.
    ///
    /// [`BundleError::Exists`] if there is a bundle of that name. This bundle is removed then, as after any error.
    pub fn publish(mut self, function: FunctionId, label: &VersionLabel) -> Result<PathBuf, BundleError> {
        let target = folder(&self.root, function, label);
        let parent = self.root.join(function.to_string());
        match fs::create_dir(&parent) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome.map_err(BundleError::io(&parent))?,
        }
        // A rename replaces an empty folder at most, and a bundle has a file.
        fs::rename(&self.folder, &target).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                BundleError::Exists(target.clone())
            }
            _ => BundleError::Io { path: target.clone(), cause },
        })?;
        self.folder.clone_from(&target);
        crash_point("bundle.renamed");
        // The folder becomes read-only after the rename because a folder must be writable to change its parent.
        tree::make_read_only(&target).map_err(BundleError::io(&target))?;
        for folder in [&target, &parent, &self.root] {
            tree::sync_folder(folder).map_err(BundleError::io(folder))?;
        }
        self.published = true;
        crash_point("bundle.published");
        Ok(target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(cause) = tree::remove(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %cause, "an unfinished bundle stays until the next start");
        }
    }
}

/// Runs every check that is possible before a file is written.
fn check(
    files: impl IntoIterator<Item = (String, Content)>,
    entry: &str,
    limits: BundleLimits,
) -> Result<BTreeMap<String, Content>, BundleError> {
    let mut checked = BTreeMap::new();
    for (path, content) in files {
        check_path(&path).map_err(|reason| refused(&path, reason))?;
        if checked.len() == limits.files_max {
            return Err(BundleError::TooManyFiles(limits.files_max));
        }
        match checked.entry(path) {
            btree_map::Entry::Vacant(vacant) => drop(vacant.insert(content)),
            btree_map::Entry::Occupied(occupied) => return Err(refused(occupied.key(), "it occurs twice".into())),
        }
    }
    for path in checked.keys() {
        let mut folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        if let Some(folder) = folders.find(|it| checked.contains_key(*it)) {
            return Err(refused(folder, "it is the folder of another file".into()));
        }
    }
    if checked.contains_key(entry) { Ok(checked) } else { Err(BundleError::EntryMissing(entry.to_owned())) }
}

fn refused(path: &str, reason: String) -> BundleError {
    BundleError::Path { path: path.chars().take(NAME_BYTES_MAX).collect(), reason }
}

/// Returns the fault of a file's path inside a bundle, if any.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it has no name".into());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("its path is longer than {PATH_BYTES_MAX} bytes"));
    }
    if path.starts_with('/') {
        return Err("its path must be relative".into());
    }
    if path.chars().any(char::is_control) {
        return Err("its path has control characters".into());
    }
    if path.matches('/').count() > DEPTH_MAX {
        return Err(format!("it is more than {DEPTH_MAX} folders deep"));
    }
    for name in path.split('/') {
        match name {
            "" => return Err("a name in its path is empty".into()),
            "." | ".." => return Err("its path must not have `.` or `..`".into()),
            name if name.len() > NAME_BYTES_MAX => {
                return Err(format!("a name in its path is longer than {NAME_BYTES_MAX} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes one file and forces it to disk; stops one byte over `room`. Returns the number of bytes written.
fn copy(content: &Content, target: &Path, room: u64) -> Result<u64, BundleError> {
    let at_target = BundleError::io(target);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(at_target)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).map_err(at_target)?;
    let written = match content {
        Content::Bytes(bytes) if bytes.len() as u64 > room => room.saturating_add(1),
        Content::Bytes(bytes) => file.write_all(bytes).map(|()| bytes.len() as u64).map_err(at_target)?,
        _ => {
            let source = content.open().map_err(|cause| match cause.kind() {
                io::ErrorKind::InvalidData => BundleError::NotAFile(content.place()),
                _ => BundleError::Source { path: content.place(), cause },
            })?;
            match source {
                Some(source) => copy_file(source, &content.place(), &mut file, target, room.saturating_add(1))?,
                None => 0,
            }
        }
    };
    // The mode is set afterwards because the umask would change a mode given at creation.
    file.set_permissions(Permissions::from_mode(0o444)).and_then(|()| file.sync_all()).map_err(at_target)?;
    Ok(written)
}

/// Copies at most `bytes_max`. `io::copy` would not tell which side failed.
fn copy_file(source: File, path: &Path, file: &mut File, target: &Path, bytes_max: u64) -> Result<u64, BundleError> {
    let mut source = source.take(bytes_max);
    let (mut buffer, mut written) = (vec![0; tree::CHUNK_BYTES], 0);
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(length) => length,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(BundleError::Source { path: path.to_owned(), cause }),
        };
        file.write_all(&buffer[..length]).map_err(BundleError::io(target))?;
        written += length as u64;
    }
}
