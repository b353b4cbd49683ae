//! Errors of unpacking an archive.

use std::{io, path::PathBuf, time::Duration};

/// A refused archive.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ArchiveError {
    #[error("the archive is refused because of its entry `{}`: {refusal}", name.escape_debug())]
    Entry {
        /// Name of the entry, cut to a printable length.
        name: String,
        refusal: EntryRefusal,
    },
    #[error("the archive is in the {0} format, which is not supported: pack the files as tar.gz or zip")]
    Format(&'static str),
    #[error("these bytes are not an archive: use tar, tar.gz or zip")]
    Unknown,
    #[error("the gzip file holds no tar archive: pack the files with `tar czf`")]
    NoTar,
    #[error("the archive is cut off: its end is missing, so pack or send it again")]
    Truncated,
    #[error("bytes follow the end of the archive: pack it again")]
    Trailing,
    #[error("the archive is damaged: {0}; pack or send it again")]
    Damaged(String),
    #[error(
        "the archive unpacks to more than {0} bytes, which is the limit (limits.bundle_bytes_max): leave out what the \
         function does not need"
    )]
    TooLarge(u64),
    #[error(
        "the archive unpacks to more than {0} times its size, like an archive bomb (limits.archive_ratio_max): pack it \
         with less compression if it is none"
    )]
    Ratio(u64),
    #[error(
        "the archive has more than {0} files, which is the limit (limits.bundle_files_max): leave out what the \
         function does not need"
    )]
    TooManyFiles(usize),
    #[error(
        "the archive has more than {0} entries, folders and hidden files included: leave out what the function does \
         not need, such as .git"
    )]
    TooManyEntries(usize),
    #[error("unpacking the archive takes longer than {0:?}, which is the limit (limits.archive_timeout_ms)")]
    TooSlow(Duration),
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("the archive cannot be unpacked to {}: {cause}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// Reason to refuse an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EntryRefusal {
    #[error("its name is not UTF-8; rename the file")]
    NotUtf8,
    #[error("{0}; pack the files by relative names below one folder")]
    Path(String),
    #[error("it occurs twice; pack each file once")]
    Twice,
    #[error("its name is that of a file and of a folder; rename one of them")]
    FileAndFolder,
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
    #[error("it is a {0}, and only files and folders are unpacked; leave it out")]
    Kind(&'static str),
    #[error("it is a sparse file; pack it without `--sparse`")]
    Sparse,
    #[error("it is encrypted; pack it without a password")]
    Encrypted,
    #[error("it is compressed by method {0}; zip with `deflate` or `store`")]
    Method(u16),
    #[error("it shares its bytes with another entry, as only an archive bomb does")]
    Overlap,
    #[error("the archive contradicts itself about it: {0}; pack it again")]
    Contradiction(&'static str),
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
