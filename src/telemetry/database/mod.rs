//! The SQL of `logs.db`.
//!
//! Ids are stored as their 16 UUID bytes: a line has up to two of them, each once in the row and once in an index, and
//! as text they would take more room than the line itself. `select hex(function_id)` shows one by hand.

use super::TelemetryError;
use super::minute::MinuteRow;
use super::records::{LogEntry, LogOptions, LogPage, LogQuery, LogRecord, Stream};
use super::shares;
use crate::model::{FunctionId, InvocationId, Timestamp, VersionId, VersionLabel};
use crate::protocol::worker::LogLevel;
use crate::sqlite::{self, Durability};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OpenFlags, Row, params, params_from_iter};
use std::path::Path;
use std::time::Duration;

/// Append only: the file's `user_version` is the number of applied migrations.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/001_logs_and_metrics.sql"),
    include_str!("../migrations/002_log_shares.sql"),
    include_str!("../migrations/003_answers_by_class.sql"),
];

/// Rows that one step of [`Database::retain`] deletes: few enough that lines do not wait long for it, and twice a
/// batch, because a step follows each batch and deleting must outpace writing.
const DELETE_ROWS: u32 = 2_000;

/// Pages that one step of [`Database::retain`] returns to the file system.
const VACUUM_PAGES: u32 = 1_000;

/// Bytes of text in one page of lines, so that it fits a frame of the command protocol in either encoding.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Time that a statement waits for another process's lock, such as that of a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The only connection that writes; owned by the writer thread.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    next_id: i64,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, TelemetryError> {
        let connection = sqlite::open(path, Durability::Normal, MIGRATIONS)?;
        let auto_vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        if auto_vacuum != INCREMENTAL {
            // Takes effect with a VACUUM, which costs nothing on a new file.
            connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
            connection.execute_batch("VACUUM")?;
        }
        let next_id = connection.query_row("SELECT ifnull(max(id), 0) + 1 FROM logs", [], |row| row.get(0))?;
        Ok(Self { connection, next_id })
    }

    /// Returns the id of the next line.
    pub(super) fn next_id(&self) -> i64 {
        self.next_id
    }

    /// Raises the id of the next line to at least this: no id is reused while the daemon runs.
    pub(super) fn go_on_from(&mut self, next_id: i64) {
        self.next_id = self.next_id.max(next_id);
    }

    /// Writes a batch in one transaction and returns the id of its first line; the others follow it.
    pub(super) fn append(&mut self, records: &[LogRecord]) -> rusqlite::Result<i64> {
        let first_id = self.next_id;
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO logs (id, at, function_id, version, invocation, worker, stream, level, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (id, record) in (first_id..).zip(records) {
            insert.execute(params![
                id,
                record.at.as_millis(),
                record.function_id.to_bytes(),
                record.version.as_str(),
                record.invocation.map(InvocationId::to_bytes),
                record.worker,
                record.stream as u8,
                record.level as u8,
                record.message,
            ])?;
            self.next_id = id + 1;
        }
        drop(insert);
        shares::grow(&transaction, records)?;
        transaction.commit()?;
        Ok(first_id)
    }

    /// Writes finished minutes in one transaction.
    pub(super) fn append_minutes(&mut self, rows: &[MinuteRow]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO metrics_minutes (function_id, version_id, version, minute, invocations, errors_by_code,
                 answers_by_class, cold_starts_by_kind, queue_us_sum, start_us_sum, run_us_sum, run_us_max,
                 run_histogram, last_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        for row in rows {
            insert.execute(params![
                row.function_id.to_bytes(),
                row.version_id.to_bytes(),
                row.version.as_str(),
                row.minute,
                signed(row.invocations),
                row.errors_by_code,
                row.answers_by_class,
                row.cold_starts_by_kind,
                signed(row.queue_us_sum),
                signed(row.start_us_sum),
                signed(row.run_us_sum),
                signed(row.run_us_max),
                row.run_histogram,
                row.last_at.as_millis(),
            ])?;
        }
        drop(insert);
        transaction.commit()
    }

    /// Performs one step of keeping the log within its limits; returns whether more remains to be done.
    pub(super) fn retain(&mut self, options: &LogOptions, now: Timestamp) -> rusqlite::Result<bool> {
        let retention = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.as_millis().saturating_sub(retention);
        let transaction = self.connection.transaction()?;
        let mut deleted = shares::expire(&transaction, oldest, DELETE_ROWS)?;
        deleted += transaction
            .prepare_cached(
                "DELETE FROM metrics_minutes
                 WHERE id IN (SELECT id FROM metrics_minutes ORDER BY id LIMIT ?1) AND minute < ?2",
            )?
            .execute(params![DELETE_ROWS, oldest.div_euclid(60_000)])?;
        let excess_bytes = Size::of(&transaction)?.used_bytes().saturating_sub(options.database_bytes_max);
        if deleted == 0 && excess_bytes > 0 {
            // Lines are deleted first: they make up most of the file, and a minute of metrics says more per byte.
            deleted = shares::evict(&transaction, excess_bytes, DELETE_ROWS)?;
            if deleted == 0 {
                let sql =
                    "DELETE FROM metrics_minutes WHERE id IN (SELECT id FROM metrics_minutes ORDER BY id LIMIT ?1)";
                deleted = transaction.prepare_cached(sql)?.execute([DELETE_ROWS])?;
            }
        }
        transaction.commit()?;
        Ok(self.give_back_pages()? || deleted > 0)
    }

    /// Shrinks the file by a step if much of it is unused; a smaller remainder stays for later lines.
    fn give_back_pages(&self) -> rusqlite::Result<bool> {
        let size = Size::of(&self.connection)?;
        if size.free_pages < 64 || size.free_pages < size.pages / 8 {
            return Ok(false);
        }
        // Each step of this statement returns one page.
        let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}

/// Value of `PRAGMA auto_vacuum` under which pages are returned on request.
const INCREMENTAL: i64 = 2;

/// Size of the database without its write-ahead log.
struct Size {
    pages: u64,
    free_pages: u64,
    page_bytes: u64,
}

impl Size {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let value = |name| connection.pragma_query_value(None, name, |row| unsigned(row, 0));
        Ok(Self { pages: value("page_count")?, free_pages: value("freelist_count")?, page_bytes: value("page_size")? })
    }

    fn used_bytes(&self) -> u64 {
        self.pages.saturating_sub(self.free_pages) * self.page_bytes
    }
}

/// Opens a read-only connection; the file must exist.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Returns the lines that a query asks for.
pub(super) fn select_logs(connection: &Connection, query: &LogQuery) -> rusqlite::Result<LogPage> {
    let (mut values, mut filter) = (Vec::<Value>::new(), String::from("true"));
    let mut and = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            filter.push_str(&format!(" AND {condition} ?{}", values.len()));
        }
    };
    // The plus sign keeps the planner off the function's index where that of the invocation finds far fewer lines.
    let of_function = if query.invocation.is_some() { "+function_id =" } else { "function_id =" };
    and(of_function, query.function_id.map(|it| it.to_bytes().to_vec().into()));
    and("version =", query.version.as_ref().map(|it| it.as_str().to_owned().into()));
    and("invocation =", query.invocation.map(|it| it.to_bytes().to_vec().into()));
    and("level >=", query.level_min.map(|it| i64::from(it as u8).into()));
    and("at >=", query.since.map(|it| it.as_millis().into()));
    and("id >", query.after.map(Value::from));
    and("at <=", query.until.map(|it| it.as_millis().into()));

    // One snapshot for both statements, so that the total matches the page.
    let transaction = connection.unchecked_transaction()?;
    let total = transaction
        .prepare_cached(&format!("SELECT count(*) FROM logs WHERE {filter}"))?
        .query_row(params_from_iter(&values), |row| unsigned(row, 0))?;
    values.push(query.before.unwrap_or(i64::MAX).into());
    let mut select = transaction.prepare_cached(&format!(
        "SELECT id, at, function_id, version, invocation, worker, stream, level, message FROM logs
         WHERE {filter} AND id < ?{} ORDER BY id DESC LIMIT ?{} OFFSET ?{}",
        values.len(),
        values.len() + 1,
        values.len() + 2,
    ))?;
    // One extra row shows whether more lines exist.
    let limit = query.limit.min(LogQuery::LIMIT_MAX);
    values.push((limit + 1).into());
    values.push(signed(query.offset).into());
    let mut rows = select.query(params_from_iter(&values))?;
    let (mut entries, mut bytes, mut has_more) = (Vec::new(), 0, false);
    while let Some(row) = rows.next()? {
        let entry = log_entry(row)?;
        bytes += entry.record.message.len();
        has_more = entries.len() == limit as usize || bytes > PAGE_BYTES_MAX && !entries.is_empty();
        if has_more {
            break;
        }
        entries.push(entry);
    }
    Ok(LogPage { entries, total, has_more })
}

fn log_entry(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    let record = LogRecord {
        at: Timestamp::from_millis(row.get(1)?),
        function_id: FunctionId::from_bytes(row.get(2)?),
        version: label(row, 3)?,
        invocation: row.get::<_, Option<[u8; 16]>>(4)?.map(InvocationId::from_bytes),
        worker: row.get(5)?,
        stream: one_of(row, 6, &Stream::ALL)?,
        level: one_of(row, 7, &[LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error])?,
        message: row.get(8)?,
    };
    Ok(LogEntry { id: row.get(0)?, record })
}

/// Returns the member of `all` at the index stored in a column.
fn one_of<T: Copy>(row: &Row<'_>, column: usize, all: &[T]) -> rusqlite::Result<T> {
    let place: i64 = row.get(column)?;
    let member = usize::try_from(place).ok().and_then(|place| all.get(place));
    member.copied().ok_or(rusqlite::Error::IntegralValueOutOfRange(column, place))
}

fn label(row: &Row<'_>, column: usize) -> rusqlite::Result<VersionLabel> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Converts a count for SQLite, which has no unsigned 64-bit integers.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Passes the written minutes of a function from minute `since` on to a callback.
pub(super) fn select_minutes(
    connection: &Connection,
    function_id: FunctionId,
    since: i64,
    mut each: impl FnMut(&MinuteRow),
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT version_id, version, minute, invocations, errors_by_code, answers_by_class, cold_starts_by_kind,
             queue_us_sum, start_us_sum, run_us_sum, run_us_max, run_histogram, last_at
         FROM metrics_minutes WHERE function_id = ?1 AND minute >= ?2",
    )?;
    let mut rows = select.query(params![function_id.to_bytes(), since])?;
    while let Some(row) = rows.next()? {
        each(&MinuteRow {
            function_id,
            version_id: VersionId::from_bytes(row.get(0)?),
            version: label(row, 1)?,
            minute: row.get(2)?,
            invocations: unsigned(row, 3)?,
            errors_by_code: row.get(4)?,
            answers_by_class: row.get(5)?,
            cold_starts_by_kind: row.get(6)?,
            queue_us_sum: unsigned(row, 7)?,
            start_us_sum: unsigned(row, 8)?,
            run_us_sum: unsigned(row, 9)?,
            run_us_max: unsigned(row, 10)?,
            run_histogram: row.get(11)?,
            last_at: Timestamp::from_millis(row.get(12)?),
        });
    }
    Ok(())
}

/// Returns when a function was last invoked according to the written minutes.
pub(super) fn last_invoked(connection: &Connection, function_id: FunctionId) -> rusqlite::Result<Option<Timestamp>> {
    let mut select = connection.prepare_cached(
        "SELECT max(last_at) FROM metrics_minutes WHERE function_id = ?1
             AND minute = (SELECT max(minute) FROM metrics_minutes WHERE function_id = ?1)",
    )?;
    let last: Option<i64> = select.query_row([function_id.to_bytes()], |row| row.get(0))?;
    Ok(last.map(Timestamp::from_millis))
}

#[cfg(test)]
mod tests;
