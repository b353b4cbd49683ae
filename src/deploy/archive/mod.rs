//! Unpacks untrusted archives: tar, tar.gz and zip, recognised by their content.
//!
//! ```text
//! bytes or file ─▶ format by magic ─▶ tar | gzip ▶ tar | zip ─▶ every entry checked ─▶ files in a folder of its own
//! ```
//!
//! No part of an archive is trusted. Each entry is checked before a byte of it is written: its name (relative, UTF-8,
//! without `..`, backslash or drive, of bounded length and depth, unique), its kind (only files and folders: links,
//! devices, pipes and sockets are refused) and its size. Bytes, files, entries, time and the ratio to the packed size
//! are bounded, and declared values are compared with the actual ones. Archives inside archives are treated as files.
//!
//! Hidden files and those that macOS adds (`__MACOSX/`) are not unpacked, just as they are left out of a deployed
//! folder. Names that differ only by case are distinct, as in the file systems of Linux; on a file system that ignores
//! case, writing the second file fails.
//!
//! **Invariant.** Only new regular files below the given folder are written, and no link is ever made or followed. The
//! caller removes the folder: see [`super::Scratch`].

mod error;
mod input;
mod tar;
mod target;
mod zip;

#[cfg(test)]
mod tests;

pub use error::{ArchiveError, EntryRefusal};
pub use input::ArchiveInput;
pub use target::ArchiveLimits;

use flate2::bufread::MultiGzDecoder;
use std::{
    io::{self, Read},
    path::Path,
};
use target::UnpackTarget;

/// Format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// tar.
    Tar,
    /// gzip, which must hold a tar.
    Gzip,
    /// zip.
    Zip,
    /// A known but unsupported format, by its name.
    Other(&'static str),
}

/// First bytes of unsupported formats, for a helpful message.
const OTHERS: [(&[u8], &str); 7] = [
    (b"PK\x07\x08", "split zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x1f\x9d", "compress"),
];

impl ArchiveFormat {
    /// Detects the format by the first bytes; `None` if they are not an archive's.
    pub fn of(input: &ArchiveInput) -> io::Result<Option<Self>> {
        let mut start = Vec::new();
        input.stream().take(tar::BLOCK_BYTES as u64).read_to_end(&mut start)?;
        let is = |magic: &[u8]| start.starts_with(magic);
        // A zip without files begins with its end-of-directory record.
        Ok(if is(b"\x1f\x8b") {
            Some(Self::Gzip)
        } else if is(b"PK\x03\x04") || is(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| is(magic)) {
            Some(Self::Other(name))
        } else {
            tar::is_header(&start).then_some(Self::Tar)
        })
    }
}

/// Unpacks an archive into an empty folder that nobody else uses. Returns the paths of its files in the form that
/// [`crate::bundle::BundleStore::stage`] takes. Blocks on the disk.
///
/// After an error, the caller removes the folder with the files written so far.
pub(super) fn unpack(input: &ArchiveInput, folder: &Path, limits: ArchiveLimits) -> Result<Vec<String>, ArchiveError> {
    let length = input.length().map_err(ArchiveError::Read)?;
    let mut target = UnpackTarget::new(folder, limits, length);
    match ArchiveFormat::of(input).map_err(ArchiveError::Read)? {
        Some(ArchiveFormat::Tar) => tar::unpack(input.stream(), &mut target)?,
        Some(ArchiveFormat::Gzip) => tar::unpack(MultiGzDecoder::new(input.stream()), &mut target)?,
        Some(ArchiveFormat::Zip) => zip::unpack(input, length, &mut target)?,
        Some(ArchiveFormat::Other(name)) => return Err(ArchiveError::Format(name)),
        None => return Err(ArchiveError::Unknown),
    }
    Ok(target.into_files())
}
