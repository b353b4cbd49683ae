//! Errors of the bundle store.

use crate::model::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// A bundle that cannot be stored, found or trusted.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file's path inside the bundle is not acceptable.
    #[error("the bundle cannot hold a file `{}`: {reason}", path.escape_debug())]
    Path {
        /// Path, cut to a printable length.
        path: String,
        /// Reason for the refusal.
        reason: String,
    },
    /// The entry file is not among the files.
    #[error("the bundle has no file `{0}`, which should be imported")]
    EntryMissing(String),
    /// The files together are too large.
    #[error("the bundle is larger than {0} bytes, which is the limit")]
    TooLarge(u64),
    /// There are too many files.
    #[error("the bundle has more than {0} files, which is the limit")]
    TooManyFiles(usize),
    /// A source file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Source {
        /// The source file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        cause: io::Error,
    },
    /// A source is not a regular file: a folder, a link, a device or a pipe.
    #[error("{} is not a regular file; links are not followed", .0.display())]
    NotAFile(PathBuf),
    /// A bundle of that name already exists.
    #[error("a bundle already exists at {}", .0.display())]
    Exists(PathBuf),
    /// The bundle does not exist.
    #[error("the bundle {} is missing: restore it from a backup, or deploy another version", folder.display())]
    Missing {
        /// Expected folder of the bundle.
        folder: PathBuf,
    },
    /// The bundle differs from what was published.
    #[error(
        "the bundle {} was changed after it was published ({}its digest was {expected}): restore it from a backup, or \
         deploy another version",
        folder.display(), file.as_ref().map(|it| format!("the file `{}`; ", it.escape_debug())).unwrap_or_default()
    )]
    Changed {
        /// Folder of the bundle.
        folder: PathBuf,
        /// File that differs, if known.
        file: Option<String>,
        /// Digest it was published with.
        expected: Digest,
    },
    /// Reading or writing the store failed.
    #[error("the bundle store failed at {}: {cause}", path.display())]
    Io {
        /// Path concerned.
        path: PathBuf,
        /// Error of the system.
        #[source]
        cause: io::Error,
    },
}

impl BundleError {
    /// Converts a system error about `path`, for `map_err`.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        |cause| Self::Io { path: path.to_owned(), cause }
    }
}
