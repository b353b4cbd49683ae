//! Metrics of invocations per version: counted in memory, stored by the minute, reported over a period.
//!
//! ```text
//!   record ──> minute in progress ──> finished ──> leaving ──> metrics_minutes
//!              └──── one lock per version ────┘   └── one lock, the writer's ──┘
//! ```
//!
//! This module owns the minutes until the writer has written them. A version's counts never mix with another's: a
//! function's percentiles come from the summed histograms of its versions.

use super::file::Reader;
use super::minute::{Figures, Minute, MinuteRow, MinuteSum, minute_of};
use super::totals::{Observation, VersionTotals};
use super::{TelemetryError, database};
use crate::model::{FunctionId, Timestamp, VersionId, VersionLabel};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::{fmt, str::FromStr};

/// Limit on minutes of one version that wait for the writer; beyond it, the oldest is lost.
const FINISHED_MAX: usize = 60;

/// Limit on rows that wait for the disk to work again; beyond it, the oldest are lost.
const LEAVING_MAX: usize = 10_000;

/// Period of a report. It begins with a whole minute, so it reaches up to one minute further back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Period {
    /// `1m`
    OneMinute,
    /// `5m`
    FiveMinutes,
    /// `15m`
    FifteenMinutes,
    /// `1h`
    #[default]
    OneHour,
    /// `6h`
    SixHours,
    /// `24h`
    OneDay,
    /// `7d`
    SevenDays,
    /// `all`: as far back as metrics are kept.
    All,
}

impl Period {
    /// The periods, shortest first.
    pub const ALL: [Self; 8] = [
        Self::OneMinute,
        Self::FiveMinutes,
        Self::FifteenMinutes,
        Self::OneHour,
        Self::SixHours,
        Self::OneDay,
        Self::SevenDays,
        Self::All,
    ];

    /// Returns the period's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.text_and_minutes().0
    }

    fn text_and_minutes(self) -> (&'static str, Option<i64>) {
        match self {
            Self::OneMinute => ("1m", Some(1)),
            Self::FiveMinutes => ("5m", Some(5)),
            Self::FifteenMinutes => ("15m", Some(15)),
            Self::OneHour => ("1h", Some(60)),
            Self::SixHours => ("6h", Some(6 * 60)),
            Self::OneDay => ("24h", Some(24 * 60)),
            Self::SevenDays => ("7d", Some(7 * 24 * 60)),
            Self::All => ("all", None),
        }
    }

    /// Returns the first minute of a report made at `now`.
    fn first_minute(self, now: Timestamp) -> i64 {
        self.text_and_minutes().1.map_or(i64::MIN, |minutes| minute_of(now) - minutes)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error for a text that names no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a period: use 1m, 5m, 15m, 1h, 6h, 24h, 7d or all")]
pub struct PeriodError(String);

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let found = Self::ALL.into_iter().find(|period| period.as_str() == text);
        found.ok_or_else(|| PeriodError(text.chars().take(64).collect()))
    }
}

/// Metrics of a function over a period.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsReport {
    /// Period of the report.
    pub period: Period,
    /// Figures over all versions; only `last_invoked` looks back beyond the period, as far as metrics are kept.
    pub figures: Figures,
    /// Versions invoked within the period, in order of publication.
    pub versions: Vec<VersionReport>,
}

/// Metrics of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionReport {
    /// Id of the version.
    pub version_id: VersionId,
    /// Label of the version.
    pub version: VersionLabel,
    /// Figures of the version.
    pub figures: Figures,
}

impl VersionTotals {
    fn row(&self, minute: &Minute) -> MinuteRow {
        minute.row(self.function_id, self.version_id, &self.version)
    }
}

/// Metrics of every function.
#[derive(Debug)]
pub struct Metrics {
    /// Live counts per version. An entry is made with the first invocation, and has a histogram only for minutes with
    /// invocations.
    versions: RwLock<HashMap<VersionId, Mutex<Live>>>,
    /// Minutes on their way to the database. A holder of this lock sees each minute in exactly one place: the writer
    /// holds it until its transaction is committed, a report holds it while it reads memory and pins its snapshot.
    leaving: Mutex<Vec<MinuteRow>>,
    reader: Reader,
}

/// In-memory state of one version.
#[derive(Debug)]
struct Live {
    totals: VersionTotals,
    current: Option<Box<Minute>>,
    finished: Vec<Minute>,
}

impl Live {
    fn record(&mut self, observation: &Observation<'_>) {
        let minute = minute_of(observation.at);
        // An invocation that comes late over the turn of a minute counts for the new one. Only a clock that was set
        // back gives an earlier minute.
        let in_progress = |it: &Minute| minute == it.minute || minute == it.minute - 1;
        if !self.current.as_deref().is_some_and(in_progress) {
            self.finish(i64::MAX);
        }
        let current = self.current.get_or_insert_with(|| Box::new(Minute::new(minute)));
        current.record(observation.outcome, &observation.timing, observation.at);
        self.totals.record(observation);
    }

    /// Ends the minute in progress if it is before the given one.
    fn finish(&mut self, before: i64) {
        if let Some(minute) = self.current.take_if(|it| it.minute < before) {
            if self.finished.len() >= FINISHED_MAX {
                self.finished.remove(0);
            }
            self.finished.push(*minute);
        }
    }
}

impl Metrics {
    pub(super) fn new(reader: Reader) -> Self {
        Self { versions: RwLock::default(), leaving: Mutex::default(), reader }
    }

    /// Counts an invocation. Takes two short locks, and allocates only for a version's first invocation in a minute.
    pub fn record(&self, observation: &Observation<'_>) {
        if let Some(live) = self.versions.read().get(&observation.version_id) {
            return live.lock().record(observation);
        }
        let first_call =
            || Mutex::new(Live { totals: VersionTotals::new(observation), current: None, finished: Vec::new() });
        self.versions.write().entry(observation.version_id).or_insert_with(first_call).get_mut().record(observation);
    }

    /// Reports a function's metrics over a period that ends at `now`.
    ///
    /// Blocks on the disk: for weeks of invocations, a good part of a second.
    pub fn report(
        &self,
        function_id: FunctionId,
        period: Period,
        now: Timestamp,
    ) -> Result<MetricsReport, TelemetryError> {
        let first_minute = period.first_minute(now);
        let mut function = MinuteSum::new();
        let mut versions: BTreeMap<VersionId, (VersionLabel, MinuteSum)> = BTreeMap::new();
        let mut add = |row: &MinuteRow| {
            function.add(row);
            versions.entry(row.version_id).or_insert_with(|| (row.version.clone(), MinuteSum::new())).1.add(row);
        };

        let (rows, last_written) = self.reader.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let in_memory_and_last_written = {
                let leaving = self.leaving.lock();
                // The first statement pins the snapshot.
                let last_written = database::last_invoked(&snapshot, function_id)?;
                (self.rows_in_memory(&leaving, function_id), last_written)
            };
            database::select_minutes(&snapshot, function_id, first_minute, &mut add)?;
            Ok(in_memory_and_last_written)
        })?;
        rows.iter().filter(|row| row.minute >= first_minute).for_each(add);

        let last_invoked = rows.iter().map(|row| row.last_at).chain(last_written).max();
        let report = |(version_id, (version, tally)): (_, (_, MinuteSum))| {
            let figures = tally.figures();
            VersionReport { version_id, version, figures }
        };
        Ok(MetricsReport {
            period,
            figures: Figures { last_invoked, ..function.figures() },
            versions: versions.into_iter().map(report).collect(),
        })
    }

    fn rows_in_memory(&self, leaving: &[MinuteRow], function_id: FunctionId) -> Vec<MinuteRow> {
        let mut rows: Vec<_> = leaving.iter().filter(|row| row.function_id == function_id).cloned().collect();
        for live in self.versions.read().values() {
            let live = live.lock();
            if live.totals.function_id == function_id {
                rows.extend(live.finished.iter().chain(live.current.as_deref()).map(|it| live.totals.row(it)));
            }
        }
        rows
    }

    /// Returns the totals of each version since the daemon started, in no particular order.
    #[must_use]
    pub fn totals(&self) -> Vec<VersionTotals> {
        self.versions.read().values().map(|live| live.lock().totals.clone()).collect()
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes the minutes before the given one and forgets them once that has succeeded. Called by the writer.
    pub(super) fn hand_over<E>(&self, before: i64, write: impl FnOnce(&[MinuteRow]) -> Result<(), E>) -> Result<(), E> {
        let mut leaving = self.leaving.lock();
        let mut finished = Vec::new();
        for live in self.versions.read().values() {
            let mut live = live.lock();
            live.finish(before);
            if !live.finished.is_empty() {
                finished.push((live.totals.clone(), std::mem::take(&mut live.finished)));
            }
        }
        // Done after the versions' locks are released, so that invocations do not wait for it.
        for (version, minutes) in finished {
            leaving.extend(minutes.iter().map(|it| version.row(it)));
        }
        let excess = leaving.len().saturating_sub(LEAVING_MAX);
        leaving.drain(..excess);
        if !leaving.is_empty() {
            write(&leaving)?;
            leaving.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
