//! Packed bytes of an archive, in a file or in memory.

use bytes::Bytes;
use rawzip::ReaderAt;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
};

/// Read buffer size, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Packed bytes of an archive.
#[derive(Debug)]
pub enum ArchiveInput {
    /// Bytes in a file.
    File(File),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl ArchiveInput {
    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    pub(super) fn stream(&self) -> impl BufRead {
        BufReader::with_capacity(CHUNK_BYTES, InputStream { input: self, position: 0 })
    }
}

impl ReaderAt for ArchiveInput {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Bytes(bytes) => bytes.as_ref().read_at(buffer, offset),
        }
    }
}

/// Sequential reader of an input.
struct InputStream<'a> {
    input: &'a ArchiveInput,
    position: u64,
}

impl Read for InputStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}
