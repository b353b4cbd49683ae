//! Reads a backup, which may be damaged or hostile: only entries that belong in a backup are unpacked.

use super::{ABOUT, About, BUNDLES, DATABASE, DATABASE_LOG, FORMAT, MANIFESTS};
use crate::{
    bundle::{BundleError, BundleStore, check_path},
    model::{FunctionId, VersionLabel},
    secrets::KeyId,
    sqlite::SqliteError,
    store::{Store, StoreError},
};
use flate2::bufread::GzDecoder;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};
use tar::{Archive, Entry, EntryType};

/// Limit on the first entry, in bytes.
const ABOUT_BYTES_MAX: u64 = 64 * 1024;

/// Result of a successful check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Number of functions, without deleted ones.
    pub functions: u32,
    /// Number of versions, each with its bundle as it was published.
    pub versions: u32,
    /// Id of the key that its secrets are sealed with; `None` without secrets.
    pub key_id: Option<KeyId>,
}

/// Reason why a file cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file does not begin like a backup.
    #[error("not a Levain backup: {0}")]
    NoBackup(String),
    /// The backup has another format.
    #[error("the backup has format {found}, and this Levain reads format {FORMAT}: restore it with Levain {levain}")]
    Format {
        /// Format of the backup.
        found: u32,
        /// Version of Levain that wrote it.
        levain: String,
    },
    /// The file is truncated, or was changed.
    #[error("the backup is truncated or damaged: {0}")]
    Damaged(io::Error),
    /// The archive has an entry that does not belong in a backup.
    #[error("the backup has the entry `{0}`, which does not belong in a backup")]
    Entry(String),
    /// The archive has an entry whose path another entry occupies.
    #[error("the backup has the entry `{0}`, whose path another entry occupies")]
    Twice(String),
    /// The archive is complete, but something is missing from it.
    #[error("the backup is incomplete: {0}")]
    Lacks(String),
    /// The unpacked files cannot be written.
    #[error("cannot write the files of the backup: {0}")]
    Write(#[source] io::Error),
    /// The database in the backup cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bundle in the backup cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl RestoreError {
    /// Returns whether the fault is with this machine's disk, not with the file.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        let is_of_the_disk = |cause: &rusqlite::Error| {
            use rusqlite::ErrorCode::{CannotOpen, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure};
            let code = cause.sqlite_error_code();
            code.is_some_and(|it| {
                [CannotOpen, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure].contains(&it)
            })
        };
        match self {
            Self::Write(_)
            | Self::Bundle(BundleError::Io { .. })
            | Self::Store(StoreError::Open(SqliteError::Unreachable { .. })) => true,
            Self::Store(
                StoreError::Sqlite(cause)
                | StoreError::Open(SqliteError::Migration { cause, .. } | SqliteError::Failed { cause, .. }),
            ) => is_of_the_disk(cause),
            _ => false,
        }
    }
}

/// Unpacks a backup into a folder, which must be empty and which no other process may use. Blocks on the disk and on
/// `input`.
pub fn unpack(input: impl Read, folder: &Path) -> Result<About, RestoreError> {
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(input)));
    let mut about = None;
    for entry in archive.entries().map_err(RestoreError::Damaged)? {
        let mut entry = entry.map_err(|error| match about {
            None => RestoreError::NoBackup(error.to_string()),
            Some(_) => RestoreError::Damaged(error),
        })?;
        let path = std::str::from_utf8(&entry.path_bytes()).map(str::to_owned).unwrap_or_default();
        if about.is_none() {
            about = Some(read_about(&path, &mut entry)?);
            continue;
        }
        if entry.header().entry_type() != EntryType::Regular || !belongs(&path) {
            return Err(RestoreError::Entry(path.escape_debug().take(200).collect()));
        }
        write(&mut entry, &path, folder)?;
    }
    end(archive.into_inner())?;
    let about = about.ok_or_else(|| RestoreError::NoBackup("it is empty".into()))?;
    if !folder.join(DATABASE).is_file() {
        return Err(RestoreError::Lacks("it has no database".into()));
    }
    Ok(about)
}

/// Checks the end of the file: only zeros, which pad the last block of an archive, then the checksum, and nothing after
/// it.
fn end(mut rest: GzDecoder<impl BufRead>) -> Result<(), RestoreError> {
    let mut buffer = [0; 8 * 1024];
    loop {
        match rest.read(&mut buffer).map_err(RestoreError::Damaged)? {
            0 => break,
            length if buffer[..length].iter().all(|it| *it == 0) => {}
            _ => return Err(RestoreError::Damaged(io::Error::other("there are bytes after its end"))),
        }
    }
    match rest.into_inner().fill_buf().map_err(RestoreError::Damaged)? {
        [] => Ok(()),
        _ => Err(RestoreError::Damaged(io::Error::other("there are bytes after its end"))),
    }
}

fn read_about(path: &str, entry: &mut Entry<'_, impl Read>) -> Result<About, RestoreError> {
    if path != ABOUT {
        return Err(RestoreError::NoBackup(format!("it does not begin with {ABOUT}")));
    }
    let mut text = Vec::new();
    entry.take(ABOUT_BYTES_MAX).read_to_end(&mut text).map_err(RestoreError::Damaged)?;
    // Other formats may have other fields, so the format is read first.
    let said: serde_json::Value = serde_json::from_slice(&text).map_err(|it| RestoreError::NoBackup(it.to_string()))?;
    match said["format"].as_u64() {
        Some(format) if format != u64::from(FORMAT) => Err(RestoreError::Format {
            found: format as u32,
            levain: said["levain"].as_str().unwrap_or("that wrote it").chars().take(40).collect(),
        }),
        _ => serde_json::from_value(said).map_err(|it| RestoreError::NoBackup(it.to_string())),
    }
}

/// Returns whether an entry belongs in a backup.
fn belongs(path: &str) -> bool {
    let mut parts = path.splitn(4, '/');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(DATABASE), None, ..] => true,
        [Some(MANIFESTS), Some(name), None, _] => check_path(name).is_ok() && !name.starts_with('.'),
        [Some(BUNDLES), Some(function), Some(label), Some(rest)] => {
            function.parse::<FunctionId>().is_ok() && label.parse::<VersionLabel>().is_ok() && check_path(rest).is_ok()
        }
        _ => false,
    }
}

fn write(entry: &mut Entry<'_, impl Read>, name: &str, folder: &Path) -> Result<(), RestoreError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => RestoreError::Twice(name.to_owned()),
        _ => RestoreError::Write(error),
    };
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let size = entry.size();
    match copy(entry, &mut file)? {
        written if written == size => file.sync_all().map_err(RestoreError::Write),
        _ => Err(RestoreError::Damaged(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Copies an entry to a file. A failed read is a fault of the backup; a failed write is not.
fn copy(entry: &mut impl Read, file: &mut File) -> Result<u64, RestoreError> {
    let (mut buffer, mut written) = (vec![0; 64 * 1024], 0);
    loop {
        match entry.read(&mut buffer).map_err(RestoreError::Damaged)? {
            0 => return Ok(written),
            length => {
                io::Write::write_all(file, &buffer[..length]).map_err(RestoreError::Write)?;
                written += length as u64;
            }
        }
    }
}

/// Checks that an unpacked backup is complete, migrates its database, and seals its bundles as a daemon does. Blocks on
/// the disk.
pub fn check(folder: &Path, about: &About) -> Result<Checked, RestoreError> {
    let store = Store::open(&folder.join(DATABASE))?;
    let bundles = BundleStore::open(&folder.join(BUNDLES))?;
    let mut versions = 0;
    for function in store.published()?.into_keys() {
        for version in store.versions(function)? {
            bundles.seal(function, &version.label, &version.digest)?;
            versions += 1;
        }
    }
    if versions != about.versions {
        let message = format!("it should have {} versions, and has {versions}", about.versions);
        return Err(RestoreError::Lacks(message));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder.join(MANIFESTS)).map_err(RestoreError::Write)?;
    fs::File::open(folder).and_then(|it| it.sync_all()).map_err(RestoreError::Write)?;
    let (functions, key_id) = (store.functions()?.len() as u32, store.variables()?.master_key_id);
    drop(store);
    // A closed database is one file. If its log is still there, changes are missing from the database, and the log
    // would not be put in place.
    if folder.join(DATABASE_LOG).exists() {
        return Err(RestoreError::Write(io::Error::other("the database could not be migrated")));
    }
    Ok(Checked { functions, versions, key_id })
}
