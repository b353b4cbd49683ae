//! Sizes of each function's lines in `logs.db`, and the choice of lines to delete when it is too large.
//!
//! The table `log_shares` has one row per function with lines. It changes in the transaction that writes or deletes the
//! lines, so it is exact, and finding the largest share reads as many rows as there are functions.
//!
//! **Invariant.** The size limit deletes lines only from the function with the largest share. A function below an equal
//! part of the limit thus keeps its lines until they are too old, whatever others write.

use super::records::LogRecord;
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// Bytes that a line takes in the database besides its text: the row's other columns and two index entries.
pub(super) const ROW_BYTES: u64 = 120;

/// Bytes that a step of [`evict`] takes from the largest share even if that makes it smaller than the next one. Without
/// this, functions with equal shares would lose their lines in turn, one line per step.
const STEP_BYTES: u64 = 1 << 20;

/// Lines of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LogShare {
    pub(super) lines: u64,
    pub(super) text_bytes: u64,
}

impl LogShare {
    fn add(&mut self, text_bytes: u64) {
        self.lines += 1;
        self.text_bytes += text_bytes;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.text_bytes + ROW_BYTES * self.lines
    }
}

/// Lines that one transaction writes or deletes, by function.
#[derive(Debug, Default)]
struct ShareChange(HashMap<[u8; 16], LogShare>);

impl ShareChange {
    fn add(&mut self, function_id: [u8; 16], text_bytes: u64) {
        self.0.entry(function_id).or_default().add(text_bytes);
    }

    fn lines(&self) -> usize {
        self.0.values().map(|it| it.lines as usize).sum()
    }
}

/// Adds written lines to the shares.
pub(super) fn grow(transaction: &Connection, records: &[LogRecord]) -> rusqlite::Result<()> {
    let mut change = ShareChange::default();
    for record in records {
        change.add(record.function_id.to_bytes(), record.message.len() as u64);
    }
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO log_shares (function_id, lines, text_bytes) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET lines = lines + excluded.lines, text_bytes = text_bytes + excluded.text_bytes",
    )?;
    for (function_id, share) in change.0 {
        upsert.execute(params![function_id, share.lines.cast_signed(), share.text_bytes.cast_signed()])?;
    }
    Ok(())
}

fn shrink(transaction: &Connection, change: &ShareChange) -> rusqlite::Result<()> {
    let mut update = transaction.prepare_cached(
        "UPDATE log_shares SET lines = lines - ?2, text_bytes = text_bytes - ?3 WHERE function_id = ?1",
    )?;
    for (function_id, share) in &change.0 {
        update.execute(params![function_id, share.lines.cast_signed(), share.text_bytes.cast_signed()])?;
    }
    transaction.prepare_cached("DELETE FROM log_shares WHERE lines <= 0")?.execute([])?;
    Ok(())
}

/// Deletes up to `lines_max` lines logged before `oldest`, in milliseconds. Returns the number deleted.
pub(super) fn expire(transaction: &Connection, oldest: i64, lines_max: u32) -> rusqlite::Result<usize> {
    // The oldest lines have the lowest ids; a clock that was set back only delays a line's deletion.
    let mut delete = transaction.prepare_cached(
        "DELETE FROM logs WHERE id IN (SELECT id FROM logs ORDER BY id LIMIT ?1) AND at < ?2
         RETURNING function_id, octet_length(message)",
    )?;
    let mut change = ShareChange::default();
    let mut rows = delete.query(params![lines_max, oldest])?;
    while let Some(row) = rows.next()? {
        change.add(row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs());
    }
    if !change.0.is_empty() {
        shrink(transaction, &change)?;
    }
    Ok(change.lines())
}

/// Deletes the oldest lines of the function with the largest share: as many as make up for `excess_bytes`, but at most
/// `lines_max`, and not many more than bring its share down to the next one. Returns the number deleted; 0 if there are
/// no lines.
pub(super) fn evict(transaction: &Connection, excess_bytes: u64, lines_max: u32) -> rusqlite::Result<usize> {
    let largest = largest(transaction)?;
    let Some(&(function_id, share)) = largest.first() else { return Ok(0) };
    let ahead = share.bytes() - largest.get(1).map_or(0, |(_, next)| next.bytes());
    let wanted = excess_bytes.min(ahead.max(STEP_BYTES));

    let mut oldest = transaction
        .prepare_cached("SELECT id, octet_length(message) FROM logs WHERE function_id = ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = oldest.query(params![function_id, lines_max])?;
    let (mut taken, mut last_id) = (LogShare::default(), None);
    while taken.bytes() < wanted
        && let Some(row) = rows.next()?
    {
        last_id = Some(row.get::<_, i64>(0)?);
        taken.add(row.get::<_, i64>(1)?.unsigned_abs());
    }
    drop(rows);
    let Some(last_id) = last_id else {
        // Another process has deleted its lines, so there is nothing left to count.
        return transaction.execute("DELETE FROM log_shares WHERE function_id = ?1", [function_id]);
    };
    transaction
        .prepare_cached("DELETE FROM logs WHERE function_id = ?1 AND id <= ?2")?
        .execute(params![function_id, last_id])?;
    let change = ShareChange(HashMap::from([(function_id, taken)]));
    shrink(transaction, &change)?;
    Ok(change.lines())
}

/// Returns the two largest shares, the largest first.
fn largest(connection: &Connection) -> rusqlite::Result<Vec<([u8; 16], LogShare)>> {
    let mut select = connection.prepare_cached(
        "SELECT function_id, lines, text_bytes FROM log_shares ORDER BY text_bytes + ?1 * lines DESC LIMIT 2",
    )?;
    let share = |row: &rusqlite::Row<'_>| {
        let count = |column| row.get::<_, i64>(column).map(|it| it.max(0).unsigned_abs());
        Ok((row.get(0)?, LogShare { lines: count(1)?, text_bytes: count(2)? }))
    };
    select.query_map([ROW_BYTES.cast_signed()], share)?.collect()
}
