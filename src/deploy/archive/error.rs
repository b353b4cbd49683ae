//! Errors of unpacking an archive.

use std::{io, path::PathBuf, time::Duration};

/// A refused archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// One entry is refused.
    #[error("the archive is refused because of its entry `{}`: {refusal}", name.escape_debug())]
    Entry {
        /// Name of the entry, cut to a printable length.
        name: String,
        /// Reason for the refusal.
        refusal: EntryRefusal,
    },
    /// The format is not supported.
    #[error("the archive is in the {0} format, which is not supported: pack the files as tar.gz or zip")]
    Format(&'static str),
    /// The bytes are not an archive.
    #[error("these bytes are not an archive: use tar, tar.gz or zip")]
    Unknown,
    /// The gzip file does not contain a tar.
    #[error("the gzip file holds no tar archive: pack the files with `tar czf`")]
    NoTar,
    /// The end of the archive is missing.
    #[error("the archive is cut off: its end is missing, so pack or send it again")]
    Truncated,
    /// Bytes follow the end of the archive.
    #[error("bytes follow the end of the archive: pack it again")]
    Trailing,
    /// The archive contradicts itself.
    #[error("the archive is damaged: {0}; pack or send it again")]
    Damaged(String),
    /// The unpacked entries are too large together.
    #[error(
        "the archive unpacks to more than {0} bytes, which is the limit (limits.bundle_bytes_max): leave out what the \
         function does not need"
    )]
    TooLarge(u64),
    /// The ratio of unpacked to packed size is too high.
    #[error(
        "the archive unpacks to more than {0} times its size, like an archive bomb (limits.archive_ratio_max): pack it \
         with less compression if it is none"
    )]
    Ratio(u64),
    /// The archive has too many files.
    #[error(
        "the archive has more than {0} files, which is the limit (limits.bundle_files_max): leave out what the \
         function does not need"
    )]
    TooManyFiles(usize),
    /// The archive has too many entries of any kind.
    #[error(
        "the archive has more than {0} entries, folders and hidden files included: leave out what the function does \
         not need, such as .git"
    )]
    TooManyEntries(usize),
    /// Unpacking takes too long.
    #[error("unpacking the archive takes longer than {0:?}, which is the limit (limits.archive_timeout_ms)")]
    TooSlow(Duration),
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Writing to the target folder failed.
    #[error("the archive cannot be unpacked to {}: {cause}", path.display())]
    Write {
        /// Path concerned.
        path: PathBuf,
        /// Error of the system.
        #[source]
        cause: io::Error,
    },
}

/// Reason to refuse an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    /// The name is not UTF-8.
    #[error("its name is not UTF-8; rename the file")]
    NotUtf8,
    /// The name is not a valid path in a bundle.
    #[error("{0}; pack the files by relative names below one folder")]
    Path(String),
    /// The name occurs twice.
    #[error("it occurs twice; pack each file once")]
    Twice,
    /// The name is used for a file and for a folder.
    #[error("its name is that of a file and of a folder; rename one of them")]
    FileAndFolder,
    /// A symbolic or hard link.
    #[error(
        "it is a {kind}{}, and links are not unpacked; pack the file itself (`tar --dereference --hard-dereference`, \
         `zip` without `-y`)",
        to(.target.as_deref())
    )]
    Link {
        /// `symbolic link` or `hard link`.
        kind: &'static str,
        /// Target of the link, if its header has one.
        target: Option<String>,
    },
    /// Neither a file nor a folder.
    #[error("it is a {0}, and only files and folders are unpacked; leave it out")]
    Kind(&'static str),
    /// A sparse file.
    #[error("it is a sparse file; pack it without `--sparse`")]
    Sparse,
    /// The entry is encrypted.
    #[error("it is encrypted; pack it without a password")]
    Encrypted,
    /// The compression method is not supported.
    #[error("it is compressed by method {0}; zip with `deflate` or `store`")]
    Method(u16),
    /// The entry shares its bytes with another one.
    #[error("it shares its bytes with another entry, as only an archive bomb does")]
    Overlap,
    /// Two places of the archive disagree about the entry.
    #[error("the archive contradicts itself about it: {0}; pack it again")]
    Contradiction(&'static str),
    /// The content differs from what was packed.
    #[error("its content does not match the {0} in the archive; pack or send it again")]
    Content(&'static str),
}

/// Number of characters shown of a name.
const SHOWN_MAX: usize = 200;

impl ArchiveError {
    /// Creates an error for a refused entry. Bytes of its name that are not text are replaced.
    pub(super) fn entry(name: &[u8], refusal: EntryRefusal) -> Self {
        Self::Entry { name: shown(name), refusal }
    }

    /// Converts an error of reading the packed bytes.
    pub(super) fn reading(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Damaged(cause.to_string()),
            _ => Self::Read(cause),
        }
    }
}

fn to(target: Option<&str>) -> String {
    target.map_or_else(String::new, |target| format!(" to `{}`", target.escape_debug()))
}

/// Converts a name to a printable form.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_MAX).collect()
}
