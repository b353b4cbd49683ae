//! Differences between two bundles of a function, file by file.
//!
//! Files are compared by their digests, so only those that differ are read into memory, and of those only text files
//! short enough for people to read. The result says what was left out.

use super::{BundleError, BundleStore, tree};
use crate::model::{Digest, FunctionId, VersionLabel};
use similar::{TextDiff, udiff::UnifiedHunkHeader};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Unchanged lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// Bytes that a file adds to an answer besides its path and its diff.
const FILE_OVERHEAD_BYTES: usize = 256;

/// Limits of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferenceLimits {
    /// Size above which a file is not compared line by line.
    pub file_bytes_max: u64,
    /// Size of all diffs together, written as JSON.
    pub diff_bytes_max: usize,
    /// Size of the list of files without their diffs, written as JSON.
    pub list_bytes_max: usize,
    /// Time spent looking for the shortest diffs. Diffs computed after it are correct, but may be longer than
    /// necessary.
    pub time: Duration,
}

/// Result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Differing files, by path.
    pub files: Vec<FileDifference>,
    /// Whether files or diffs were left out because of the limits.
    pub truncated: bool,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Path; after a renaming the new one.
    pub path: String,
    /// Kind of change.
    pub change: ChangeKind,
    /// Size before in bytes, if the file existed.
    pub from_size: Option<u64>,
    /// Size afterwards in bytes, if the file exists.
    pub to_size: Option<u64>,
    /// Whether either side is binary.
    pub binary: bool,
    /// Lines that differ.
    pub diff: Diff,
}

/// Kind of change to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The file is new.
    Added,
    /// The file is gone.
    Removed,
    /// The content changed.
    Changed,
    /// The path changed, but not the content.
    Renamed {
        /// Former path.
        from: String,
    },
}

/// Differing lines of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diff {
    /// No lines to show: the file is renamed or binary.
    None,
    /// Left out because the file is a source map: one long line that only programs read.
    SourceMap,
    /// Lines in the format of `diff -u`.
    Unified(String),
    /// Left out because the file is larger than this many bytes.
    TooLarge(u64),
    /// Left out because the diff is too long.
    TooLong,
}

/// The files of a bundle.
struct BundleFiles {
    folder: PathBuf,
    label: String,
    fingerprints: BTreeMap<String, tree::Fingerprint>,
}

/// One side of a file's comparison.
enum Side {
    Absent,
    Text(String),
    Binary,
    Large { binary: bool },
}

impl BundleStore {
    /// Compares two bundles. Whether they are as published is checked by [`BundleStore::verify`].
    pub fn compare(
        &self,
        function: FunctionId,
        from: &VersionLabel,
        to: &VersionLabel,
        limits: &DifferenceLimits,
    ) -> Result<Difference, BundleError> {
        let deadline = Instant::now() + limits.time;
        let (from, to) = (self.files(function, from)?, self.files(function, to)?);
        let mut difference = Difference::default();
        let (mut list_bytes, mut diff_bytes) = (0, 0);
        for (path, change) in changes(&from, &to) {
            list_bytes += FILE_OVERHEAD_BYTES + json_bytes(&path);
            if let ChangeKind::Renamed { from } = &change {
                list_bytes += json_bytes(from);
            }
            if list_bytes > limits.list_bytes_max {
                difference.truncated = true;
                break;
            }
            let mut file = describe(&from, &to, path, change, limits, deadline)?;
            if let Diff::Unified(text) = &file.diff {
                let bytes = json_bytes(text);
                if diff_bytes + bytes > limits.diff_bytes_max {
                    (file.diff, difference.truncated) = (Diff::TooLong, true);
                } else {
                    diff_bytes += bytes;
                }
            }
            difference.files.push(file);
        }
        Ok(difference)
    }

    fn files(&self, function: FunctionId, label: &VersionLabel) -> Result<BundleFiles, BundleError> {
        let folder = self.folder(function, label);
        let fingerprints = || -> io::Result<_> {
            tree::paths(&folder)?
                .into_iter()
                .map(|path| Ok((path.clone(), tree::file_fingerprint(&folder.join(path))?)))
                .collect()
        };
        match fingerprints() {
            Ok(fingerprints) => Ok(BundleFiles { folder, label: label.to_string(), fingerprints }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(BundleError::Missing { folder }),
            Err(cause) => Err(BundleError::io(&folder)(cause)),
        }
    }
}

impl BundleFiles {
    fn size(&self, path: &str) -> Option<u64> {
        self.fingerprints.get(path).map(|it| it.size)
    }

    /// Name of this bundle's file in a diff.
    fn name(&self, path: &str) -> String {
        match self.fingerprints.contains_key(path) {
            true => format!("{}/{path}", self.label),
            false => "/dev/null".into(),
        }
    }

    fn side(&self, path: &str, bytes_max: u64) -> Result<Side, BundleError> {
        let Some(size) = self.size(path) else { return Ok(Side::Absent) };
        let path = self.folder.join(path);
        side(&path, size, bytes_max).map_err(BundleError::io(&path))
    }
}

/// Classifies the changes, by path. A removed and an added file with equal content count as renamed; empty files do
/// not.
fn changes(from: &BundleFiles, to: &BundleFiles) -> BTreeMap<String, ChangeKind> {
    let mut changes = BTreeMap::new();
    let mut gone: HashMap<Digest, Vec<&String>> = HashMap::new();
    for (path, before) in from.fingerprints.iter().rev() {
        match to.fingerprints.get(path) {
            Some(after) if after == before => {}
            Some(_) => drop(changes.insert(path.clone(), ChangeKind::Changed)),
            None if before.size == 0 => drop(changes.insert(path.clone(), ChangeKind::Removed)),
            None => gone.entry(before.digest).or_default().push(path),
        }
    }
    for (path, after) in to.fingerprints.iter().filter(|(path, _)| !from.fingerprints.contains_key(*path)) {
        // The paths were pushed in reverse order.
        let before = gone.get_mut(&after.digest).and_then(Vec::pop);
        let change = before.map_or(ChangeKind::Added, |before| ChangeKind::Renamed { from: before.clone() });
        changes.insert(path.clone(), change);
    }
    changes.extend(gone.into_values().flatten().map(|path| (path.clone(), ChangeKind::Removed)));
    changes
}

fn describe(
    from: &BundleFiles,
    to: &BundleFiles,
    path: String,
    change: ChangeKind,
    limits: &DifferenceLimits,
    deadline: Instant,
) -> Result<FileDifference, BundleError> {
    let before = if let ChangeKind::Renamed { from } = &change { from } else { &path };
    let (from_size, to_size) = (from.size(before), to.size(&path));
    let sides = [from.side(before, limits.file_bytes_max)?, to.side(&path, limits.file_bytes_max)?];
    let binary = sides.iter().any(|side| matches!(side, Side::Binary | Side::Large { binary: true }));
    let diff = match &sides {
        _ if binary || matches!(change, ChangeKind::Renamed { .. }) => Diff::None,
        _ if path.ends_with(".map") => Diff::SourceMap,
        [Side::Large { .. }, _] | [_, Side::Large { .. }] => Diff::TooLarge(limits.file_bytes_max),
        [before, after] => {
            Diff::Unified(unified(before.text(), after.text(), &from.name(&path), &to.name(&path), deadline))
        }
    };
    Ok(FileDifference { path, change, from_size, to_size, binary, diff })
}

impl Side {
    fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

fn side(path: &Path, size: u64, bytes_max: u64) -> io::Result<Side> {
    let (file, mut bytes) = (tree::open_file(path)?, Vec::new());
    if size > bytes_max {
        file.take(tree::CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        // The last character may be cut off.
        let is_text = std::str::from_utf8(&bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
        return Ok(Side::Large { binary: !is_text || bytes.contains(&0) });
    }
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Side::Text(text),
        _ => Side::Binary,
    })
}

/// Returns the differing lines with their context; empty for two empty texts.
fn unified(from: &str, to: &str, from_name: &str, to_name: &str, deadline: Instant) -> String {
    // The library's own line splitting also ends lines at carriage returns, which would break the diff.
    let lines = |text| -> Vec<&str> { str::split_inclusive(text, '\n').collect() };
    let (from, to) = (lines(from), lines(to));
    let diff: TextDiff<'_, '_, str> = TextDiff::configure().deadline(deadline).diff_slices(&from, &to);
    let mut text = String::new();
    for hunk in diff.grouped_ops(CONTEXT_LINES) {
        if text.is_empty() {
            let _ = writeln!(text, "--- {from_name}\n+++ {to_name}");
        }
        let _ = writeln!(text, "{}", UnifiedHunkHeader::new(&hunk));
        for line in hunk.iter().flat_map(|part| diff.iter_changes(part)) {
            let end = if line.value().ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
            let _ = write!(text, "{}{}{end}", line.tag(), line.value());
        }
    }
    text
}

/// Length of a text in JSON, in bytes.
fn json_bytes(text: &str) -> usize {
    let bytes = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes).sum()
}

#[cfg(test)]
mod tests;
