//! The file `logs.db`: handling of a damaged, removed or replaced database, at the start and while the daemon runs.
//!
//! Logs and metrics are worth less than a daemon that works. A damaged database is therefore moved aside, together with
//! SQLite's files beside it, and a new one takes its place.

use super::TelemetryError;
use super::database::{self, Database};
use crate::file_id::FileId;
use crate::model::Timestamp;
use crate::sqlite::{self, SqliteError};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Number of damaged databases that are kept; each may be as large as the log may get.
const DAMAGED_MAX: usize = 3;

/// Suffixes of the files that make up a database; the first is the database itself.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Opens the database for writing. A damaged one is moved aside and replaced by a new one.
pub(super) fn open(path: &Path) -> Result<Database, TelemetryError> {
    match Database::open(path) {
        Err(error) if error.is_damage() => {
            set_aside(path, &error);
            Database::open(path)
        }
        opened => opened,
    }
}

/// Moves the database aside and logs it. Open connections go on working on the moved files.
pub(super) fn set_aside(path: &Path, error: &TelemetryError) {
    match move_aside(path) {
        Ok(kept) => tracing::warn!(
            %error, kept = %kept.display(),
            "the log database is damaged: it is moved aside, and logs and metrics begin anew"
        ),
        Err(cause) => tracing::error!(
            %error, %cause, database = %path.display(),
            "the log database is damaged and cannot be moved aside; move it away by hand"
        ),
    }
}

fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let at = Timestamp::now().to_string().replace([':', '.'], "-");
    let kept = with_end(path, &format!(".damaged-{at}"));
    for part in PARTS {
        match fs::rename(with_end(path, part), with_end(&kept, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    forget_oldest(path)?;
    Ok(kept)
}

/// Removes the databases that were moved aside, except the newest [`DAMAGED_MAX`].
fn forget_oldest(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.damaged-", name.to_string_lossy());
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_part = PARTS[1..].iter().any(|part| name.ends_with(part));
        if name.starts_with(&prefix) && !is_part {
            kept.push(name);
        }
    }
    // The timestamp in their names makes this the order of time.
    kept.sort();
    let excess = kept.len().saturating_sub(DAMAGED_MAX);
    for name in &kept[..excess] {
        for part in PARTS {
            match fs::remove_file(with_end(&folder.join(name), part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Identities of the files that a connection has open.
#[derive(Debug)]
pub(super) struct OpenFiles {
    parts: Vec<(PathBuf, FileId)>,
}

impl OpenFiles {
    /// Records the files of a connection that was just opened and has read something.
    pub(super) fn now(path: &Path) -> Self {
        let part = |end: &&str| {
            let path = with_end(path, end);
            FileId::at(&path).map(|id| (path, id))
        };
        Self { parts: PARTS[..3].iter().filter_map(part).collect() }
    }

    /// Whether the file names still lead to these files. Data written to a removed file is lost when the file is
    /// closed.
    pub(super) fn is_in_place(&self) -> bool {
        self.parts.iter().all(|(path, id)| FileId::at(path).as_ref() == Some(id))
    }
}

/// A read-only connection. Opened at the first read, and again after [`shut`](Self::shut).
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// Whether a read found damage that the writer does not know of yet.
    damaged: AtomicBool,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: Mutex::new(None), damaged: AtomicBool::new(false) }
    }

    /// Runs a read; other readers wait until it ends.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, TelemetryError> {
        let mut connection = self.connection.lock();
        let connection = match &mut *connection {
            Some(connection) => connection,
            none => none.insert(database::open_reader(&self.path)?),
        };
        read(connection).map_err(TelemetryError::from).inspect_err(|error| {
            if error.is_damage() {
                self.damaged.store(true, Ordering::Release);
            }
        })
    }

    /// Closes the connection once the current read has ended. No read begins until the returned guard is dropped.
    pub(super) fn shut(&self) -> MutexGuard<'_, Option<Connection>> {
        let mut connection = self.connection.lock();
        *connection = None;
        connection
    }

    /// Returns whether a read has found damage since the last call. Called by the writer.
    pub(super) fn take_damage(&self) -> bool {
        self.damaged.swap(false, Ordering::AcqRel)
    }
}

/// The writer's database, or the means to open it again.
#[derive(Debug)]
pub(super) struct WriteAccess {
    path: PathBuf,
    open: Option<(Database, OpenFiles)>,
    /// Lower bound for the id of the next line, valid also in a database that replaces this one.
    next_id: i64,
}

impl WriteAccess {
    pub(super) fn new(path: &Path, database: Database) -> Self {
        Self { path: path.to_owned(), next_id: 0, open: Some((database, OpenFiles::now(path))) }
    }

    /// Returns the database; opens it if it is closed.
    pub(super) fn database(&mut self) -> Result<&mut Database, TelemetryError> {
        let (database, _) = match &mut self.open {
            Some(open) => open,
            none => {
                let mut database = open(&self.path)?;
                database.go_on_from(self.next_id);
                none.insert((database, OpenFiles::now(&self.path)))
            }
        };
        Ok(database)
    }

    /// Whether its files were removed or replaced.
    pub(super) fn is_displaced(&self) -> bool {
        self.open.as_ref().is_some_and(|(_, opened)| !opened.is_in_place())
    }

    /// Closes the database; the next use opens it again.
    pub(super) fn close(&mut self) {
        if let Some((database, _)) = self.open.take() {
            self.next_id = database.next_id();
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl TelemetryError {
    /// Whether the file is no database or a damaged one.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Open(error) => matches!(error, SqliteError::Corrupt { .. }),
            Self::Sqlite(error) => sqlite::is_damage(error),
            Self::Damaged => true,
            Self::Thread(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
