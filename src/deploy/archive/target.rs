//! The folder an archive is unpacked to: accepted names, and the limits on its content.

use super::{
    super::names::REGISTRY_FILE,
    error::{ArchiveError, EntryRefusal},
    input::CHUNK_BYTES,
};
use crate::bundle;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Entries of any kind allowed per allowed file: folders and ignored files need room too.
const ENTRIES_PER_FILE: usize = 4;

/// Bytes that may be unpacked regardless of the ratio: small texts are often very repetitive.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// Folder that macOS adds to archives.
const MACOS_FOLDER: &str = "__MACOSX";

/// Limits on what an archive unpacks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Unpacked bytes of all entries together.
    pub bytes_max: u64,
    /// Number of files.
    pub files_max: usize,
    /// Unpacked bytes for each packed byte, beyond the first MiB.
    pub ratio_max: u64,
    /// Time for the whole archive.
    pub time_max: Duration,
}

/// Use of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameUse {
    File,
    Folder,
}

/// State of unpacking one archive.
#[derive(Debug)]
pub(super) struct UnpackTarget<'a> {
    folder: &'a Path,
    limits: ArchiveLimits,
    deadline: Instant,
    entries: usize,
    /// Bytes unpacked so far, both content and extended headers.
    unpacked: u64,
    unpacked_max: u64,
    /// Bytes of content still allowed.
    room: u64,
    names: HashMap<String, NameUse>,
    files: Vec<String>,
    buffer: Vec<u8>,
}

impl<'a> UnpackTarget<'a> {
    pub(super) fn new(folder: &'a Path, limits: ArchiveLimits, packed: u64) -> Self {
        Self {
            folder,
            limits,
            deadline: Instant::now() + limits.time_max,
            entries: 0,
            unpacked: 0,
            unpacked_max: packed.saturating_mul(limits.ratio_max).saturating_add(RATIO_FREE_BYTES),
            room: limits.bytes_max,
            names: HashMap::new(),
            files: Vec::new(),
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    /// Returns the paths of the files, in the archive's order.
    pub(super) fn into_files(self) -> Vec<String> {
        self.files
    }

    pub(super) fn entries_max(&self) -> usize {
        self.limits.files_max.saturating_mul(ENTRIES_PER_FILE)
    }

    /// Counts an entry of any kind.
    pub(super) fn count_entry(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.entries_max() {
            return Err(ArchiveError::TooManyEntries(self.entries_max()));
        }
        self.check_time()
    }

    /// Reserves room for an entry's content before any of it is read, so that an archive bomb with true sizes writes
    /// nothing.
    pub(super) fn take_room(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.room = self.room.checked_sub(bytes).ok_or(ArchiveError::TooLarge(self.limits.bytes_max))?;
        self.check_ratio(self.limits.bytes_max - self.room)
    }

    /// Counts bytes that were unpacked.
    pub(super) fn count_unpacked(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        self.unpacked += bytes as u64;
        self.check_ratio(self.unpacked)?;
        self.check_time()
    }

    fn check_ratio(&self, bytes: u64) -> Result<(), ArchiveError> {
        if bytes > self.unpacked_max { Err(ArchiveError::Ratio(self.limits.ratio_max)) } else { Ok(()) }
    }

    fn check_time(&self) -> Result<(), ArchiveError> {
        if Instant::now() > self.deadline { Err(ArchiveError::TooSlow(self.limits.time_max)) } else { Ok(()) }
    }

    /// Returns an entry's path inside the bundle, and the kind that its name implies; `None` if the entry is ignored.
    ///
    /// A name that leads outside is refused even if it would be ignored.
    pub(super) fn name(&self, raw: &[u8]) -> Result<Option<(String, NameUse)>, ArchiveError> {
        let refused = |refusal| Err(ArchiveError::entry(raw, refusal));
        let Ok(name) = std::str::from_utf8(raw) else { return refused(EntryRefusal::NotUtf8) };
        // `tar czf x.tgz .` puts `./` before every name.
        let mut path = name;
        while let Some(rest) = path.strip_prefix("./") {
            path = rest;
        }
        let (path, kind) = match path.strip_suffix('/') {
            Some(path) => (path, NameUse::Folder),
            None => (path, NameUse::File),
        };
        if matches!(path, "" | ".") && !name.is_empty() && name != "/" {
            return Ok(None);
        }
        let drive = path.as_bytes();
        let problem = if drive.len() > 1 && drive[0].is_ascii_alphabetic() && drive[1] == b':' {
            Some("its path must not begin with a drive".to_owned())
        } else if path.contains('\\') {
            Some("its path has a backslash".to_owned())
        } else if name.starts_with('/') {
            Some("its path must be relative".to_owned())
        } else {
            bundle::check_path(path).err()
        };
        if let Some(problem) = problem {
            return refused(EntryRefusal::Path(problem));
        }
        // A build needs the file that names the package registry.
        let is_hidden = |name: &str| name.starts_with('.') && name != REGISTRY_FILE;
        let is_ignored = path.split('/').any(is_hidden) || path.split('/').next() == Some(MACOS_FOLDER);
        Ok((!is_ignored).then(|| (path.to_owned(), kind)))
    }

    /// Reserves a name for a folder. No folder is created here: folders are created for their files.
    pub(super) fn add_folder(&mut self, path: String) -> Result<(), ArchiveError> {
        match self.names.entry(path) {
            Entry::Occupied(it) if *it.get() == NameUse::File => {
                Err(ArchiveError::entry(it.key().as_bytes(), EntryRefusal::FileAndFolder))
            }
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(it) => {
                it.insert(NameUse::Folder);
                Ok(())
            }
        }
    }

    /// Reserves a name for a file, and creates the file empty.
    pub(super) fn add_file(&mut self, path: String) -> Result<File, ArchiveError> {
        if self.files.len() == self.limits.files_max {
            return Err(ArchiveError::TooManyFiles(self.limits.files_max));
        }
        if let Some(kind) = self.names.insert(path.clone(), NameUse::File) {
            let refusal = if kind == NameUse::File { EntryRefusal::Twice } else { EntryRefusal::FileAndFolder };
            return Err(ArchiveError::entry(path.as_bytes(), refusal));
        }
        let place = self.folder.join(&path);
        let is_taken = |kind| matches!(kind, io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory);
        let failed = |cause: io::Error| match cause.kind() {
            // The path is already a folder, or one of its parents is a file.
            kind if is_taken(kind) => ArchiveError::entry(path.as_bytes(), EntryRefusal::FileAndFolder),
            _ => ArchiveError::Write { path: place.clone(), cause },
        };
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).map_err(failed)?;
        self.files.push(path);
        Ok(file)
    }

    /// Reads `bytes` of content, and writes them to a file if given. `content` must not end earlier.
    pub(super) fn copy(
        &mut self,
        content: &mut impl Read,
        bytes: u64,
        mut file: Option<&mut File>,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), ArchiveError> {
        let mut left = bytes;
        // The buffer is taken out of `self` because counting borrows the rest.
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = loop {
            if left == 0 {
                break Ok(());
            }
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = match content.read(&mut buffer[..wanted]) {
                Ok(0) => break Err(ArchiveError::Truncated),
                Ok(length) => length,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => break Err(ArchiveError::reading(cause)),
            };
            left -= length as u64;
            see(&buffer[..length]);
            let written = file.as_mut().map_or(Ok(()), |file| file.write_all(&buffer[..length]));
            let written = written.map_err(|cause| ArchiveError::Write { path: PathBuf::from(self.folder), cause });
            if let Err(error) = written.and_then(|()| self.count_unpacked(length)) {
                break Err(error);
            }
        };
        self.buffer = buffer;
        outcome
    }
}
