//! What can go wrong with a bundle.

use crate::model::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// A bundle that cannot be stored, found or trusted.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file's path inside the bundle is not acceptable.
    #[error("the bundle cannot hold a file `{}`: {reason}", path.escape_debug())]
    Path {
        /// The path, cut to a length that can be shown.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file to import is not among the files.
    #[error("the bundle has no file `{0}`, which is the one to import")]
    EntryMissing(String),
    /// The files are too many bytes together.
    #[error("the bundle is larger than {0} bytes, which is the limit")]
    TooLarge(u64),
    /// The files are too many.
    #[error("the bundle has more than {0} files, which is the limit")]
    TooManyFiles(usize),
    /// A source file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Source {
        /// The source file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A source is a folder, a link, a device or a pipe.
    #[error("{} is not a regular file; links are not followed", .0.display())]
    NotAFile(PathBuf),
    /// There is a bundle of that name.
    #[error("there is a bundle at {} already", .0.display())]
    Exists(PathBuf),
    /// The bundle is not there.
    #[error("the bundle {} is missing: restore it from a backup, or deploy another version", folder.display())]
    Missing {
        /// Where it should be.
        folder: PathBuf,
    },
    /// The bundle is not what was published.
    #[error(
        "the bundle {} was changed after it was published ({}its digest was {expected}): restore it from a backup, or \
         deploy another version",
        folder.display(), file.as_ref().map(|it| format!("the file `{}`; ", it.escape_debug())).unwrap_or_default()
    )]
    Changed {
        /// Where it is.
        folder: PathBuf,
        /// The file that differs, where that is known.
        file: Option<String>,
        /// What it was.
        expected: Digest,
    },
    /// The disk failed.
    #[error("the bundle store failed at {}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

impl BundleError {
    /// Turns what the system says about `path` into an error, for `map_err`.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        |cause| Self::Io { path: path.to_owned(), cause }
    }
}
