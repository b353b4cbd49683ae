//! Reading a backup back, which may be damaged or somebody else's: only what a backup has is taken from it.

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

/// What the first entry may have.
const ABOUT_BYTES_MAX: u64 = 64 * 1024;

/// What was found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Functions that are not deleted.
    pub functions: u32,
    /// Versions, each with its bundle as it was published.
    pub versions: u32,
    /// What its secrets are sealed with; absent where it has none.
    pub key_id: Option<KeyId>,
}

/// A file that is not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It does not begin as a backup does.
    #[error("this is no backup of Levain: {0}")]
    NoBackup(String),
    /// It is of another form.
    #[error("the backup has format {found}, and this Levain reads format {FORMAT}: restore it with Levain {levain}")]
    Format {
        /// Its format.
        found: u32,
        /// Who wrote it.
        levain: String,
    },
    /// It ends too early, or was changed.
    #[error("the backup is cut off or damaged: {0}")]
    Damaged(io::Error),
    /// Something in it belongs to no backup.
    #[error("the backup has an entry `{0}`, which no backup has")]
    Entry(String),
    /// A file of it cannot be beside another one.
    #[error("the backup has an entry `{0}`, and one in its place exists already")]
    Twice(String),
    /// It is read whole, and something is missing.
    #[error("the backup lacks {0}")]
    Lacks(String),
    /// What was unpacked cannot be written.
    #[error("cannot write what the backup has: {0}")]
    Write(#[source] io::Error),
    /// The database in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bundle in it.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl RestoreError {
    /// Whether it is no fault of the file: this machine could not take what is in it.
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

/// Unpacks a backup into a folder, which must be empty and nobody else's. Blocks on the disk and on `input`.
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
        return Err(RestoreError::Lacks("its database".into()));
    }
    Ok(about)
}

/// Sees that nothing follows: only zeros, which fill the last block of an archive, the check sum of all before it, and
/// the end of the file.
fn end(mut rest: GzDecoder<impl BufRead>) -> Result<(), RestoreError> {
    let mut buffer = [0; 8 * 1024];
    loop {
        match rest.read(&mut buffer).map_err(RestoreError::Damaged)? {
            0 => break,
            length if buffer[..length].iter().all(|it| *it == 0) => {}
            _ => return Err(RestoreError::Damaged(io::Error::other("something stands after its end"))),
        }
    }
    match rest.into_inner().fill_buf().map_err(RestoreError::Damaged)? {
        [] => Ok(()),
        _ => Err(RestoreError::Damaged(io::Error::other("something stands after its end"))),
    }
}

fn read_about(path: &str, entry: &mut Entry<'_, impl Read>) -> Result<About, RestoreError> {
    if path != ABOUT {
        return Err(RestoreError::NoBackup(format!("it does not begin with {ABOUT}")));
    }
    let mut text = Vec::new();
    entry.take(ABOUT_BYTES_MAX).read_to_end(&mut text).map_err(RestoreError::Damaged)?;
    // Others than this one may say more.
    let said: serde_json::Value = serde_json::from_slice(&text).map_err(|it| RestoreError::NoBackup(it.to_string()))?;
    match said["format"].as_u64() {
        Some(format) if format != u64::from(FORMAT) => Err(RestoreError::Format {
            found: format as u32,
            levain: said["levain"].as_str().unwrap_or("that wrote it").chars().take(40).collect(),
        }),
        _ => serde_json::from_value(said).map_err(|it| RestoreError::NoBackup(it.to_string())),
    }
}

/// Whether an entry is one that a backup has.
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

/// What cannot be read is the backup's fault, what cannot be written is not.
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

/// Sees that what was unpacked into a folder is whole, brings its database up to date and makes its bundles what a daemon
/// leaves. Blocks on the disk.
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
        let message = format!("what it tells of: {} versions, and {versions} are there", about.versions);
        return Err(RestoreError::Lacks(message));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder.join(MANIFESTS)).map_err(RestoreError::Write)?;
    fs::File::open(folder).and_then(|it| it.sync_all()).map_err(RestoreError::Write)?;
    let (functions, key_id) = (store.functions()?.len() as u32, store.variables()?.master_key_id);
    drop(store);
    // Closed, a database is one file. What could not be written into it lies beside it, and would not be put in place.
    if folder.join(DATABASE_LOG).exists() {
        return Err(RestoreError::Write(io::Error::other("its database could not be brought up to date")));
    }
    Ok(Checked { functions, versions, key_id })
}
