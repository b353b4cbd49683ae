//! The folder an archive is unpacked to: which names it takes, and how much.

use super::{super::build::project::REGISTRY_FILE, ArchiveError, ArchiveLimits, CHUNK_BYTES, Refusal};
use crate::bundle;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Entries of any kind for each file there may be: folders and ignored files come on top.
const ENTRIES_PER_FILE: usize = 4;

/// What may be unpacked whatever the ratio: small text is often very repetitive.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// The folder macOS adds to archives.
const MACOS_FOLDER: &str = "__MACOSX";

/// What a name was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
}

/// An archive on its way out.
#[derive(Debug)]
pub(super) struct Target<'a> {
    folder: &'a Path,
    limits: ArchiveLimits,
    deadline: Instant,
    entries: usize,
    /// Unpacked bytes so far, of content and of all that tells about it.
    unpacked: u64,
    unpacked_max: u64,
    /// Bytes of content that may still come.
    room: u64,
    names: HashMap<String, Kind>,
    files: Vec<String>,
    buffer: Vec<u8>,
}

impl<'a> Target<'a> {
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

    /// The paths of the files, in the archive's order.
    pub(super) fn into_files(self) -> Vec<String> {
        self.files
    }

    pub(super) fn entries_max(&self) -> usize {
        self.limits.files_max.saturating_mul(ENTRIES_PER_FILE)
    }

    /// Counts one more entry of any kind.
    pub(super) fn count_entry(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.entries_max() {
            return Err(ArchiveError::TooManyEntries(self.entries_max()));
        }
        self.check_time()
    }

    /// Takes room for the content of an entry before any of it is read, so that a bomb that says what it is writes
    /// nothing.
    pub(super) fn take_room(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.room = self.room.checked_sub(bytes).ok_or(ArchiveError::TooLarge(self.limits.bytes_max))?;
        self.check_ratio(self.limits.bytes_max - self.room)
    }

    /// Counts bytes that came out of the archive.
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

    /// The path of an entry inside the bundle, and what it is by its name; nothing when the entry is ignored.
    ///
    /// A name that could lead anywhere else is refused before it can be ignored.
    pub(super) fn name(&self, raw: &[u8]) -> Result<Option<(String, Kind)>, ArchiveError> {
        let refused = |refusal| Err(ArchiveError::entry(raw, refusal));
        let Ok(name) = std::str::from_utf8(raw) else { return refused(Refusal::NotUtf8) };
        // `tar czf x.tgz .` names everything like this.
        let mut path = name;
        while let Some(rest) = path.strip_prefix("./") {
            path = rest;
        }
        let (path, kind) = match path.strip_suffix('/') {
            Some(path) => (path, Kind::Folder),
            None => (path, Kind::File),
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
            return refused(Refusal::Path(problem));
        }
        // Where a project's packages come from is of use, if it is built.
        let is_hidden = |name: &str| name.starts_with('.') && name != REGISTRY_FILE;
        let is_ignored = path.split('/').any(is_hidden) || path.split('/').next() == Some(MACOS_FOLDER);
        Ok((!is_ignored).then(|| (path.to_owned(), kind)))
    }

    /// Takes a name for a folder, of which nothing is written: folders are made for their files.
    pub(super) fn add_folder(&mut self, path: String) -> Result<(), ArchiveError> {
        match self.names.entry(path) {
            Entry::Occupied(it) if *it.get() == Kind::File => {
                Err(ArchiveError::entry(it.key().as_bytes(), Refusal::FileAndFolder))
            }
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(it) => {
                it.insert(Kind::Folder);
                Ok(())
            }
        }
    }

    /// Takes a name for a file and makes it, empty.
    pub(super) fn add_file(&mut self, path: String) -> Result<File, ArchiveError> {
        if self.files.len() == self.limits.files_max {
            return Err(ArchiveError::TooManyFiles(self.limits.files_max));
        }
        if let Some(kind) = self.names.insert(path.clone(), Kind::File) {
            let refusal = if kind == Kind::File { Refusal::Twice } else { Refusal::FileAndFolder };
            return Err(ArchiveError::entry(path.as_bytes(), refusal));
        }
        let place = self.folder.join(&path);
        let is_taken = |kind| matches!(kind, io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory);
        let failed = |cause: io::Error| match cause.kind() {
            // A folder was made for another file here, or a file is where a folder would be.
            kind if is_taken(kind) => ArchiveError::entry(path.as_bytes(), Refusal::FileAndFolder),
            _ => ArchiveError::Write { path: place.clone(), cause },
        };
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).map_err(failed)?;
        self.files.push(path);
        Ok(file)
    }

    /// Reads `bytes` of content, and writes them to a file if there is one. `content` must not end before.
    pub(super) fn copy(
        &mut self,
        content: &mut impl Read,
        bytes: u64,
        mut file: Option<&mut File>,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), ArchiveError> {
        let mut left = bytes;
        // Out of itself while it is in use, because counting needs the rest.
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
