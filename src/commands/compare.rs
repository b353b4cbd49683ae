//! COMPARE_VERSIONS: the differences between two versions of a function.
//!
//! The command reads bundles and changes nothing, so it takes no lock. The answer is bounded: a diff that is too long
//! to read is left out, and the answer says so.

use super::{Caller, Command, Context, placement};
use crate::{
    bundle::{ChangeKind, Diff, Difference, DifferenceLimits, FileDifference},
    error::Error,
    model::{Settings, Version},
    protocol::message::{CompareRequest, CompareResponse, ComparedVersion, FileChange, SettingChange},
    router::Entry,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Largest file that is compared line by line.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Maximum bytes of all diffs in an answer, if its frame has room for more.
const DIFF_BYTES_MAX: usize = 4 << 20;

/// Time in which the shortest diffs of all files are searched.
const DIFF_TIME: Duration = Duration::from_secs(2);

/// Concurrent comparisons: comparing two texts of nothing but line ends takes tens of megabytes for a moment.
static PLACES: Semaphore = Semaphore::const_new(2);

impl Command for CompareRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<CompareResponse, Error> {
        let entry = context.router.function(&self.function_id)?;
        let (from, to) = (placement::version(&entry, &self.from)?, placement::version(&entry, &self.to)?);
        // A bundle of one file has the same digest under another file name.
        let same_code = from.digest == to.digest && from.entry == to.entry;
        let difference = if same_code { Difference::default() } else { read(context, &entry, &from, &to).await? };
        Ok(CompareResponse {
            settings: settings(&from.settings, &to.settings),
            from: compared(&from),
            to: compared(&to),
            same_code,
            files: difference.files.into_iter().map(file).collect(),
            truncated: difference.truncated,
        })
    }
}

async fn read(
    context: &Arc<Context>,
    entry: &Entry,
    from: &Arc<Version>,
    to: &Arc<Version>,
) -> Result<Difference, Error> {
    let frame_bytes_max = context.config.load().limits.frame_bytes_max as usize;
    let limits = DifferenceLimits {
        file_bytes_max: FILE_BYTES_MAX,
        diff_bytes_max: DIFF_BYTES_MAX.min(frame_bytes_max / 4),
        list_bytes_max: frame_bytes_max / 4,
        time: DIFF_TIME,
    };
    let (function, sides) = (entry.function.id, [Arc::clone(from), Arc::clone(to)]);
    let place = PLACES.acquire().await.map_err(Error::internal)?;
    let compared = context.blocking(move |context| {
        // Held until the comparison is done, even if the caller has left.
        let _place = place;
        for version in &sides {
            context.code.bundles.verify(function, &version.label, &version.digest)?;
        }
        Ok(context.code.bundles.compare(function, &sides[0].label, &sides[1].label, &limits)?)
    });
    compared.await.map_err(|error| gone(context, entry, [from, to]).unwrap_or(error))
}

/// `VERSION_NOT_FOUND` if a version was deleted meanwhile, which explains its missing bundle.
fn gone(context: &Context, entry: &Entry, sides: [&Arc<Version>; 2]) -> Option<Error> {
    let present = context.router.by_id(entry.function.id).ok()?;
    let gone = sides.into_iter().find(|it| present.version(it.id).is_none())?;
    Some(present.version_not_found(gone.label.as_str()))
}

fn compared(version: &Version) -> ComparedVersion {
    ComparedVersion {
        version: version.label.clone(),
        number: version.number,
        digest: version.digest,
        size: version.size,
        created_at: version.created_at,
        description: version.description.clone(),
        tags: version.tags.clone(),
        git_commit: version.git_commit.clone(),
        git_branch: version.git_branch.clone(),
        bun_version: version.bun_version.clone(),
        entry: version.entry.clone(),
        source: version.source,
    }
}

fn settings(from: &Settings, to: &Settings) -> Vec<SettingChange> {
    let changes = from.values().zip(to.values()).filter(|(from, to)| from.1 != to.1);
    let mut changes: Vec<_> =
        changes.map(|((setting, from), (_, to))| SettingChange { key: setting.key.into(), from, to }).collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

fn file(file: FileDifference) -> FileChange {
    let (change, renamed_from) = match file.change {
        ChangeKind::Added => ("added", None),
        ChangeKind::Removed => ("removed", None),
        ChangeKind::Changed => ("changed", None),
        ChangeKind::Renamed { from } => ("renamed", Some(from)),
    };
    let (diff, note) = match file.diff {
        Diff::None => (None, None),
        Diff::Unified(text) => (Some(text), None),
        Diff::SourceMap => (None, Some("source map".into())),
        Diff::TooLarge(max) => (None, Some(format!("larger than {max} bytes"))),
        Diff::TooLong => (None, Some("the diff is too long for this answer".into())),
    };
    let FileDifference { path, from_size, to_size, binary, .. } = file;
    FileChange { path, change: change.into(), renamed_from, from_size, to_size, binary, diff, note }
}
