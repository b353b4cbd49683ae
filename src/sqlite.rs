//! Opening an SQLite database and migrating its schema, shared by the store and the log database.
//!
//! A schema is an append-only list of migrations. `user_version` counts the migrations that a file has seen. Each
//! further one runs in its own transaction, so an interrupted start continues where it stopped. A file that has seen
//! more migrations than this program knows is refused, because an older program would damage what a newer one wrote.

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time that a statement waits for a lock held by another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Size in bytes to which the write-ahead log is cut back after a checkpoint.
const WAL_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// Prepared statements kept by a connection.
const STATEMENTS_MAX: usize = 64;

/// Durability of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit is on disk when it returns: for data that is acknowledged to a client. Such a file is checked
    /// completely when it is opened, so that damage stops the start and not a later command, unless nothing has
    /// touched it since [`close`].
    Full,
    /// A power cut may lose the last commits, but never reorder them: for logs, which are many and large.
    Normal,
}

/// Why a database cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The file cannot be created or reached.
    #[error("the database {} cannot be opened: {cause}", path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        cause: io::Error,
    },
    /// The file is damaged, or not a database.
    #[error(
        "the database {path} is damaged or not a database ({detail}): restore a backup into another directory, or move it \
         away together with {path}-wal and {path}-shm, which are parts of it",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Finding of SQLite.
        detail: String,
    },
    /// A newer program wrote the file.
    #[error(
        "the database {} has schema {found}, but this program knows schemas up to {known}: start the newer program that \
         wrote it",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        found: i64,
        /// Newest schema that this program knows.
        known: usize,
    },
    /// A migration failed; the file is as it was before it.
    #[error("the database {} cannot be migrated from schema {from} to the next: {cause}", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        from: usize,
        /// Error of SQLite.
        #[source]
        cause: rusqlite::Error,
    },
    /// Any other failure, such as a full disk.
    #[error("the database {} failed: {cause}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Error of SQLite.
        #[source]
        cause: rusqlite::Error,
    },
}

/// Opens the database at `path`, creates it if it does not exist, and runs the migrations that it has not seen.
///
/// The file is accessible to its owner only. The connection enforces foreign keys.
pub fn open(path: &Path, durability: Durability, migrations: &[&str]) -> Result<Connection, SqliteError> {
    let failed = |cause| classify(path, cause);
    let unreachable = |cause| SqliteError::Unreachable { path: path.to_owned(), cause };
    create_private(path).map_err(unreachable)?;
    let is_as_closed = take_mark(path).map_err(unreachable)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection, durability).map_err(failed)?;
    if durability == Durability::Full && !is_as_closed {
        check(&connection, path)?;
    }
    migrate(&mut connection, path, migrations)?;
    // Enabled after the migrations: one that rebuilds a table must drop the old one while others refer to it.
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    Ok(connection)
}

/// Closes a database, and marks its file as whole: the next start need not read all of it.
///
/// The mark names the file's inode, size and time of its last change, and counts only while all three are the same. A
/// killed daemon leaves none, because the mark is removed before the first write.
pub fn close(connection: Connection, path: &Path) -> Result<(), SqliteError> {
    connection.close().map_err(|(_, cause)| classify(path, cause))?;
    // The last connection to close removes the write-ahead log. If it is still there, somebody else has it open.
    if beside(path, "-wal").exists() {
        return Ok(());
    }
    let marked = identity(path).and_then(|identity| {
        let mut mark =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside(path, MARK))?;
        mark.write_all(identity.as_bytes())?;
        mark.sync_all()
    });
    marked.map_err(|cause| SqliteError::Unreachable { path: path.to_owned(), cause })
}

/// End of the name of the file that marks a database as whole.
const MARK: &str = "-closed";

/// Removes the mark of a database, and returns whether the file is as it was when it was closed.
fn take_mark(path: &Path) -> io::Result<bool> {
    let mark = beside(path, MARK);
    let marked = match fs::read_to_string(&mark) {
        Ok(marked) => marked,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => String::new(),
        Err(error) => return Err(error),
    };
    let is_as_closed = marked == identity(path)? && !beside(path, "-wal").exists();
    match fs::remove_file(&mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => {
            outcome?;
            // The removal must reach the disk before anything is written.
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
    }
    Ok(is_as_closed)
}

fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    Ok(format!("{} {} {}.{:09}", file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
}

/// A file beside the database, whose name has this end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Copies the database at `from`, as it is at one instant, to the new file `to`. Writers of `from` are not stopped.
///
/// The copy contains only what queries can see; unlike the file itself, it has no remains of deleted data.
pub fn copy(from: &Path, to: &Path) -> Result<(), SqliteError> {
    let failed = |cause| classify(from, cause);
    create_private(to).map_err(|cause| SqliteError::Unreachable { path: to.to_owned(), cause })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed)?;
    Ok(())
}

/// Creates the file for its owner only. SQLite would create it with the umask's rights; the files beside it copy its
/// mode.
fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn configure(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_MAX, |_| Ok(()))?;
    // Deleted data is overwritten: a value that has become a secret must not remain on disk in the clear.
    let secure_delete = durability == Durability::Full;
    connection.pragma_update_and_check(None, "secure_delete", secure_delete, |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", false)
}

fn check(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|cause| classify(path, cause))?;
    if verdict == "ok" { Ok(()) } else { Err(SqliteError::Corrupt { path: path.to_owned(), detail: verdict }) }
}

fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), SqliteError> {
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|cause| classify(path, cause))?;
    let seen = usize::try_from(found).ok().filter(|&it| it <= migrations.len()).ok_or_else(|| SqliteError::TooNew {
        path: path.to_owned(),
        found,
        known: migrations.len(),
    })?;
    for (from, migration) in migrations.iter().enumerate().skip(seen) {
        apply(connection, migration, from + 1).map_err(|cause| match classify(path, cause) {
            SqliteError::Failed { path, cause } => SqliteError::Migration { path, from, cause },
            other => other,
        })?;
    }
    Ok(())
}

fn apply(connection: &mut Connection, migration: &str, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(migration)?;
    if transaction.prepare("PRAGMA foreign_key_check")?.exists([])? {
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
        return Err(rusqlite::Error::SqliteFailure(error, None));
    }
    transaction.pragma_update(None, "user_version", i64::try_from(version).unwrap_or(i64::MAX))?;
    transaction.commit()
}

fn classify(path: &Path, cause: rusqlite::Error) -> SqliteError {
    let path = path.to_owned();
    if is_damage(&cause) {
        SqliteError::Corrupt { path, detail: cause.to_string() }
    } else {
        SqliteError::Failed { path, cause }
    }
}

/// Whether SQLite reports that the file is damaged, or not a database.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const FIRST: &str = "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT; INSERT INTO parent VALUES (1);";
    const SECOND: &str = "CREATE TABLE child (parent INTEGER NOT NULL REFERENCES parent(id)) STRICT;";

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("test.db");
        (folder, path)
    }

    fn pragma(connection: &Connection, name: &str) -> String {
        let text = |row: &rusqlite::Row<'_>| row.get_ref(0).map(|it| format!("{it:?}"));
        connection.pragma_query_value(None, name, text).expect("a pragma")
    }

    #[test]
    fn a_database_is_private_and_configured() {
        let (_folder, path) = scratch();
        for (durability, synchronous) in [(Durability::Full, "Integer(2)"), (Durability::Normal, "Integer(1)")] {
            let connection = open(&path, durability, &[FIRST]).expect("opens");
            assert_eq!(pragma(&connection, "synchronous"), synchronous);
            assert_eq!(pragma(&connection, "foreign_keys"), "Integer(1)");
            assert!(pragma(&connection, "journal_mode").starts_with("Text"), "a mode");
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
            assert_eq!(mode, "wal");
            assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        }
    }

    /// Damages a page of the database, and keeps the time of its last modification.
    fn damage(path: &Path) {
        let (before, modified) = (identity(path), fs::metadata(path).and_then(|it| it.modified()).expect("a time"));
        let mut bytes = fs::read(path).expect("the database");
        let page = bytes.len() - 4_096;
        bytes[page..].fill(0x5a);
        // File times move on by the system's clock tick.
        while identity(path).ok() == before.as_ref().ok().cloned() {
            let mut file = OpenOptions::new().write(true).open(path).expect("the database");
            file.write_all(&bytes).expect("writes");
            file.set_modified(modified).expect("sets the time");
        }
    }

    #[test]
    fn a_database_is_checked_unless_it_is_as_it_was_closed() {
        let (_folder, path) = scratch();
        let open = || open(&path, Durability::Full, &[FIRST]);
        let mark = beside(&path, MARK);
        let is_corrupt = |opened: Result<Connection, SqliteError>| matches!(opened, Err(SqliteError::Corrupt { .. }));
        // Nothing says that it was closed: a crash, or an older program.
        drop(open().expect("opens"));
        assert!(!mark.exists());
        close(open().expect("opens"), &path).expect("closes");
        assert!(mark.exists());
        assert!(take_mark(&path).expect("reads"), "the file is as it was closed");
        assert!(!take_mark(&path).expect("reads"), "the mark counts once");
        close(open().expect("opens"), &path).expect("closes");
        let marked = fs::read(&mark).expect("a mark");
        damage(&path);
        assert!(is_corrupt(open()), "a changed file is checked");
        // A mark that says something else, or nothing, says nothing about this file.
        fs::write(&mark, marked).expect("writes");
        assert!(is_corrupt(open()));
        fs::write(&mark, "1 2 3.4").expect("writes");
        assert!(is_corrupt(open()));
        fs::write(&mark, [0xff; 9]).expect("writes");
        assert!(is_corrupt(open()));
    }

    #[test]
    fn a_migration_runs_once_and_those_that_are_new_follow() {
        let (_folder, path) = scratch();
        for migrations in [&[FIRST][..], &[FIRST], &[FIRST, SECOND], &[FIRST, SECOND]] {
            let connection = open(&path, Durability::Full, migrations).expect("opens");
            assert_eq!(pragma(&connection, "user_version"), format!("Integer({})", migrations.len()));
            let rows: i64 = connection.query_row("SELECT count(*) FROM parent", [], |row| row.get(0)).expect("rows");
            assert_eq!(rows, 1);
        }
        let connection = open(&path, Durability::Full, &[FIRST, SECOND]).expect("opens");
        assert!(connection.execute("INSERT INTO child VALUES (7)", []).is_err(), "foreign keys are enforced");
    }

    #[test]
    fn a_migration_that_fails_leaves_the_schema_before_it() {
        let (_folder, path) = scratch();
        for broken in [
            "CREATE TABLE half (id); SELECT nonsense;",
            "CREATE TABLE half (id INTEGER REFERENCES parent(id)); INSERT INTO half VALUES (9);",
        ] {
            let error = open(&path, Durability::Full, &[FIRST, broken]).expect_err("the second one is broken");
            assert!(matches!(error, SqliteError::Migration { from: 1, .. }), "{error}");
            let connection = open(&path, Durability::Full, &[FIRST]).expect("the first one holds");
            assert!(connection.prepare("SELECT * FROM half").is_err(), "nothing of the second one is left");
        }
    }

    #[test]
    fn a_newer_database_is_refused_by_name() {
        let (_folder, path) = scratch();
        drop(open(&path, Durability::Full, &[FIRST, SECOND]).expect("opens"));
        let error = open(&path, Durability::Full, &[FIRST]).expect_err("it has seen two migrations");
        assert!(matches!(error, SqliteError::TooNew { found: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("test.db"), "{error}");
    }

    #[test]
    fn damage_is_found_at_the_start_and_named() {
        let (_folder, path) = scratch();
        fs::write(&path, "this is no database, however long it is read ".repeat(100)).expect("writes");
        let error = open(&path, Durability::Normal, &[FIRST]).expect_err("not a database");
        assert!(matches!(error, SqliteError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("test.db-wal"), "the message names the files that belong to it: {error}");

        fs::remove_file(&path).expect("removes");
        let connection = open(&path, Durability::Full, &[FIRST]).expect("opens");
        connection
            .execute_batch("CREATE TABLE filler (text); INSERT INTO filler VALUES (hex(zeroblob(100000)))")
            .expect("fills");
        drop(connection);
        let mut bytes = fs::read(&path).expect("reads");
        bytes[4096..4096 + 512].fill(0xa5);
        fs::write(&path, bytes).expect("writes");
        let error = open(&path, Durability::Full, &[FIRST]).expect_err("a page is damaged");
        assert!(matches!(error, SqliteError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_to_be_missing() {
        let (folder, _) = scratch();
        let error = open(&folder.path().join("absent/test.db"), Durability::Full, &[]).expect_err("no folder");
        assert!(matches!(error, SqliteError::Unreachable { .. }), "{error}");
    }
}
