//! Why an archive is not unpacked.

use std::{io, path::PathBuf, time::Duration};

/// An archive that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// One entry is not acceptable.
    #[error("the archive is refused because of its entry `{}`: {refusal}", name.escape_debug())]
    Entry {
        /// The entry's name, cut to a length that can be shown.
        name: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// It is in a format that is not unpacked.
    #[error("the archive is in the {0} format, which is not unpacked: pack the files as tar.gz or zip")]
    Format(&'static str),
    /// It is no archive.
    #[error("these bytes are no archive: tar, tar.gz and zip are unpacked")]
    Unknown,
    /// What is in the gzip file is no tar.
    #[error("the gzip file holds no tar archive: pack the files with `tar czf`")]
    NoTar,
    /// Its end is missing.
    #[error("the archive is cut off: its end is missing, so pack or send it again")]
    Truncated,
    /// It goes on after its end.
    #[error("bytes follow the end of the archive: pack it again")]
    Trailing,
    /// It contradicts itself.
    #[error("the archive is damaged: {0}; pack or send it again")]
    Damaged(String),
    /// Its entries are too many bytes together.
    #[error(
        "the archive unpacks to more than {0} bytes, which is the limit (limits.bundle_bytes_max): leave out what the \
         function does not need"
    )]
    TooLarge(u64),
    /// It grows too much.
    #[error(
        "the archive unpacks to more than {0} times its size, as only a bomb does (limits.archive_ratio_max): pack it \
         with less compression if it is none"
    )]
    Ratio(u64),
    /// It has too many files.
    #[error(
        "the archive has more than {0} files, which is the limit (limits.bundle_files_max): leave out what the \
         function does not need"
    )]
    TooManyFiles(usize),
    /// It has too many entries of any kind.
    #[error(
        "the archive has more than {0} entries, folders and hidden files included: leave out what the function does \
         not need, such as .git"
    )]
    TooManyEntries(usize),
    /// It takes too long.
    #[error("the archive is not unpacked within {0:?}, which is the limit (limits.archive_timeout_ms)")]
    TooSlow(Duration),
    /// Its bytes cannot be read.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The folder it is unpacked to fails.
    #[error("the archive cannot be unpacked to {}: {cause}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// Why an entry is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its name is not UTF-8.
    #[error("its name is not UTF-8; rename the file")]
    NotUtf8,
    /// Its name cannot be that of a bundle's file.
    #[error("{0}; pack the files by relative names below one folder")]
    Path(String),
    /// There are two of it.
    #[error("it comes twice; pack each file once")]
    Twice,
    /// A file's name is that of a folder, too.
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
        /// Where it leads, if its header says so.
        target: Option<String>,
    },
    /// Neither a file nor a folder.
    #[error("it is a {0}, and only files and folders are unpacked; leave it out")]
    Kind(&'static str),
    /// A file with holes.
    #[error("it is a sparse file; pack it without `--sparse`")]
    Sparse,
    /// It cannot be read without a password.
    #[error("it is encrypted; pack it without a password")]
    Encrypted,
    /// It is compressed in an unknown way.
    #[error("it is compressed by method {0}; zip with `deflate` or `store`")]
    Method(u16),
    /// It shares its bytes with another.
    #[error("its bytes are those of another entry too, as only a bomb does it")]
    Overlap,
    /// Two places of the archive disagree about it.
    #[error("the archive says two things about it: {0}; pack it again")]
    Contradiction(&'static str),
    /// Its content is not what was packed.
    #[error("its content does not have the {0} that the archive says; pack or send it again")]
    Content(&'static str),
}

/// Characters of a name that are shown.
const SHOWN_MAX: usize = 200;

impl ArchiveError {
    /// An entry that is refused. Bytes of its name that are not text are replaced.
    pub(super) fn entry(name: &[u8], refusal: Refusal) -> Self {
        Self::Entry { name: shown(name), refusal }
    }

    /// What a reader of the packed bytes says.
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

/// A name as it can be shown.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_MAX).collect()
}
