//! What differs between two bundles of a function, file by file.
//!
//! Files are told apart by their digests, so only those that differ are read into memory, and of those only texts that
//! are not too long to be read by people. Whatever is left out is said.

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

/// Lines around a change that a diff shows.
const CONTEXT_LINES: usize = 3;

/// What a file takes in an answer besides its path and its diff, in bytes.
const FILE_OVERHEAD_BYTES: usize = 256;

/// How far a comparison goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferenceLimits {
    /// A file larger than this is not compared line by line.
    pub file_bytes_max: u64,
    /// All diffs together, written as JSON.
    pub diff_bytes_max: usize,
    /// The list of files without their diffs, written as JSON.
    pub list_bytes_max: usize,
    /// How long the shortest diffs are looked for. Those that come later are right, and longer than they need be.
    pub time: Duration,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// The files, by path.
    pub files: Vec<FileDifference>,
    /// Whether files or diffs are left out for want of room.
    pub truncated: bool,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Its path; after a renaming the later one.
    pub path: String,
    /// What became of it.
    pub change: Change,
    /// Its bytes before, if it was there.
    pub from_size: Option<u64>,
    /// Its bytes afterwards, if it is there.
    pub to_size: Option<u64>,
    /// Whether either side is no text.
    pub binary: bool,
    /// The lines that differ.
    pub diff: Diff,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has other bytes.
    Changed,
    /// It has another path, and the same bytes.
    Renamed {
        /// The path it had.
        from: String,
    },
}

/// The lines of a file that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diff {
    /// None to show: the file is renamed, or no text.
    None,
    /// As `diff -u` writes them.
    Unified(String),
    /// Not shown, because the file is larger than this.
    TooLarge(u64),
    /// Not shown, because there are so many of them.
    TooLong,
}

/// The files of a bundle.
struct Files {
    folder: PathBuf,
    label: String,
    fingerprints: BTreeMap<String, tree::Fingerprint>,
}

/// One side of a file.
enum Side {
    Absent,
    Text(String),
    Binary,
    Large { binary: bool },
}

impl BundleStore {
    /// Reads two bundles and says what differs. Which of them are what was published is for [`BundleStore::verify`].
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
            if let Change::Renamed { from } = &change {
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

    fn files(&self, function: FunctionId, label: &VersionLabel) -> Result<Files, BundleError> {
        let folder = self.folder(function, label);
        let fingerprints = || -> io::Result<_> {
            tree::paths(&folder)?
                .into_iter()
                .map(|path| Ok((path.clone(), tree::file_fingerprint(&folder.join(path))?)))
                .collect()
        };
        match fingerprints() {
            Ok(fingerprints) => Ok(Files { folder, label: label.to_string(), fingerprints }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(BundleError::Missing { folder }),
            Err(cause) => Err(BundleError::io(&folder)(cause)),
        }
    }
}

impl Files {
    fn size(&self, path: &str) -> Option<u64> {
        self.fingerprints.get(path).map(|it| it.size)
    }

    /// What a diff calls a file of this bundle.
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

/// What became of the files, by path. A file that is gone and one that is new are one that was renamed when their bytes
/// are the same; that empty files are the same means nothing.
fn changes(from: &Files, to: &Files) -> BTreeMap<String, Change> {
    let mut changes = BTreeMap::new();
    let mut gone: HashMap<Digest, Vec<&String>> = HashMap::new();
    for (path, before) in from.fingerprints.iter().rev() {
        match to.fingerprints.get(path) {
            Some(after) if after == before => {}
            Some(_) => drop(changes.insert(path.clone(), Change::Changed)),
            None if before.size == 0 => drop(changes.insert(path.clone(), Change::Removed)),
            None => gone.entry(before.digest).or_default().push(path),
        }
    }
    for (path, after) in to.fingerprints.iter().filter(|(path, _)| !from.fingerprints.contains_key(*path)) {
        // They were put there from the last to the first.
        let before = gone.get_mut(&after.digest).and_then(Vec::pop);
        let change = before.map_or(Change::Added, |before| Change::Renamed { from: before.clone() });
        changes.insert(path.clone(), change);
    }
    changes.extend(gone.into_values().flatten().map(|path| (path.clone(), Change::Removed)));
    changes
}

fn describe(
    from: &Files,
    to: &Files,
    path: String,
    change: Change,
    limits: &DifferenceLimits,
    deadline: Instant,
) -> Result<FileDifference, BundleError> {
    let before = if let Change::Renamed { from } = &change { from } else { &path };
    let (from_size, to_size) = (from.size(before), to.size(&path));
    let sides = [from.side(before, limits.file_bytes_max)?, to.side(&path, limits.file_bytes_max)?];
    let binary = sides.iter().any(|side| matches!(side, Side::Binary | Side::Large { binary: true }));
    let diff = match &sides {
        _ if binary || matches!(change, Change::Renamed { .. }) => Diff::None,
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
        // The end may cut a character in two.
        let is_text = std::str::from_utf8(&bytes).map_or_else(|error| error.error_len().is_none(), |_| true);
        return Ok(Side::Large { binary: !is_text || bytes.contains(&0) });
    }
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Side::Text(text),
        _ => Side::Binary,
    })
}

/// The lines that differ, with their surroundings; nothing for two empty texts.
fn unified(from: &str, to: &str, from_name: &str, to_name: &str, deadline: Instant) -> String {
    // Not the library's own lines: it ends them at a carriage return too, which would tear a diff apart.
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

/// Bytes of a text in JSON.
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
