//! Unpacks archives that somebody else has made: tar, tar.gz and zip, told apart by their content.
//!
//! ```text
//! bytes or file ─▶ format by magic ─▶ tar | gzip ▶ tar | zip ─▶ every entry checked ─▶ files in a folder of its own
//! ```
//!
//! Nothing in an archive is trusted. Each entry is checked before a byte of it is written: its name (relative, UTF-8, no
//! `..`, no backslash, no drive, of bounded length and depth, there once), its kind (files and folders alone: links,
//! devices, pipes and sockets are refused) and its size. Bytes, files, entries, time and the growth against the packed
//! size are bounded, and what is declared is compared with what is there. Archives inside archives are files.
//!
//! Hidden files and what macOS adds (`__MACOSX/`) are not unpacked, as they are no part of a folder that is deployed
//! either. Names that differ by case alone are two names: file systems here tell them apart, and one that does not
//! makes the second file fail.
//!
//! **Invariant.** Only new regular files below the given folder are written, and no link is ever made or followed. The
//! folder is the caller's to remove: see [`super::Scratch`].

mod error;
mod tar;
mod target;
mod zip;

#[cfg(test)]
mod tests;

pub use error::{ArchiveError, Refusal};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use rawzip::ReaderAt;
use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};
use target::Target;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much an archive may make of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Bytes of all its entries together, unpacked.
    pub bytes_max: u64,
    /// Files.
    pub files_max: usize,
    /// Unpacked bytes for each byte of it, beyond the first MiB.
    pub ratio_max: u64,
    /// Time for all of it.
    pub time_max: Duration,
}

/// Where the bytes of an archive are.
#[derive(Debug)]
pub enum Input {
    /// A file.
    File(File),
    /// Memory.
    Bytes(Bytes),
}

impl Input {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn stream(&self) -> BufReader<Stream<'_>> {
        BufReader::with_capacity(CHUNK_BYTES, Stream { input: self, position: 0 })
    }
}

impl ReaderAt for Input {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Bytes(bytes) => bytes.as_ref().read_at(buffer, offset),
        }
    }
}

/// An input from its beginning to its end.
struct Stream<'a> {
    input: &'a Input,
    position: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// tar.
    Tar,
    /// gzip, which must hold a tar.
    Gzip,
    /// zip.
    Zip,
    /// One that is not unpacked here, by its name.
    Other(&'static str),
}

/// The first bytes of other formats, for a message that helps.
const OTHERS: [(&[u8], &str); 7] = [
    (b"PK\x07\x08", "split zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x1f\x9d", "compress"),
];

impl Format {
    /// What these bytes are, by their beginning; nothing when they are no archive.
    pub fn of(input: &Input) -> io::Result<Option<Self>> {
        let mut block = [0; tar::BLOCK_BYTES];
        let mut length = 0;
        while length < block.len() {
            match input.read_at(&mut block[length..], length as u64)? {
                0 => break,
                more => length += more,
            }
        }
        let start = &block[..length];
        let is = |magic: &[u8]| start.starts_with(magic);
        // A zip without any file begins with the end of its directory.
        Ok(if is(b"\x1f\x8b") {
            Some(Self::Gzip)
        } else if is(b"PK\x03\x04") || is(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| is(magic)) {
            Some(Self::Other(name))
        } else {
            (length == block.len() && tar::is_header(&block)).then_some(Self::Tar)
        })
    }
}

/// Unpacks an archive into a folder, which must be empty and nobody else's. Returns the paths of its files, as
/// [`crate::bundle::BundleStore::stage`] takes them. Blocks on the disk.
///
/// What has been written when it fails is the caller's to remove with the folder.
pub(super) fn unpack(input: &Input, folder: &Path, limits: ArchiveLimits) -> Result<Vec<String>, ArchiveError> {
    let length = input.length().map_err(ArchiveError::Read)?;
    let mut target = Target::new(folder, limits, length);
    match Format::of(input).map_err(ArchiveError::Read)? {
        Some(Format::Tar) => tar::unpack(input.stream(), &mut target)?,
        Some(Format::Gzip) => tar::unpack(MultiGzDecoder::new(input.stream()), &mut target)?,
        Some(Format::Zip) => zip::unpack(input, length, &mut target)?,
        Some(Format::Other(name)) => return Err(ArchiveError::Format(name)),
        None => return Err(ArchiveError::Unknown),
    }
    Ok(target.into_files())
}
