//! zip: unpacks the entries of the central directory, as every program does. The crate handles 64-bit sizes and data
//! descriptors; a directory of any length is read through one buffer.

use super::{
    error::{ArchiveError, EntryRefusal},
    input::{ArchiveInput, CHUNK_BYTES},
    target::{NameUse, UnpackTarget},
};
use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, Crc32, ErrorKind, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipArchive, ZipArchiveEntryWayfinder,
    ZipFileHeaderRecord, ZipLocator,
};
use std::io::{self, BufReader, Read};

/// Size of the end record with the longest comment, which follows the directory.
const END_BYTES_MAX: u64 = 22 + u16::MAX as u64;

/// Unix file types, in the upper half of an entry's attributes.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFBLK: u32 = 0o060_000;

/// A file to unpack.
struct File {
    /// Name as in the directory.
    name: Vec<u8>,
    path: String,
    method: CompressionMethod,
    size: u64,
    crc: u32,
    wayfinder: ZipArchiveEntryWayfinder,
}

pub(super) fn unpack(input: &ArchiveInput, length: u64, target: &mut UnpackTarget<'_>) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let locator = ZipLocator::new().max_search_space(END_BYTES_MAX);
    let archive = locator.locate_in_reader(input, &mut buffer, length).map_err(|(_, error)| problem(error))?;
    match archive.end_offset() {
        end if end > length => return Err(ArchiveError::Truncated),
        end if end < length => return Err(ArchiveError::Trailing),
        _ => {}
    }
    if archive.entries_hint() > target.entries_max() as u64 {
        return Err(ArchiveError::TooManyEntries(target.entries_max()));
    }
    let (files, count) = directory(&archive, &mut buffer, target)?;
    if count != archive.entries_hint() {
        return Err(ArchiveError::Damaged("its directory does not have as many entries as it declares".into()));
    }
    for file in files {
        unpack_file(&archive, &file, &mut buffer, target)?;
    }
    Ok(())
}

/// Reads and checks the whole directory before anything is unpacked. Returns the files, and the number of entries.
fn directory(
    archive: &ZipArchive<&ArchiveInput>,
    buffer: &mut [u8],
    target: &mut UnpackTarget<'_>,
) -> Result<(Vec<File>, u64), ArchiveError> {
    let (mut files, mut ranges) = (Vec::new(), Vec::new());
    let mut entries = archive.entries(buffer);
    while let Some(record) = entries.next_entry().map_err(problem)? {
        target.count_entry()?;
        let wayfinder = record.wayfinder();
        let name = record.file_path().as_bytes().to_vec();
        let (_, end) = archive.get_entry(wayfinder).map_err(problem)?.compressed_data_range();
        ranges.push((record.local_header_offset(), end, name.clone()));
        let Some((path, kind)) = target.name(&name)? else { continue };
        check(&record, kind).map_err(|refusal| ArchiveError::entry(&name, refusal))?;
        match kind {
            NameUse::Folder => target.add_folder(path)?,
            NameUse::File => {
                let size = record.uncompressed_size_hint();
                target.take_room(size)?;
                let (method, crc) = (record.compression_method(), record.crc32());
                files.push(File { name, path, method, size, crc, wayfinder });
            }
        }
    }
    let count = ranges.len() as u64;
    check_ranges(ranges, archive.directory_offset())?;
    Ok((files, count))
}

/// Checks an entry's kind.
fn check(record: &ZipFileHeaderRecord<'_>, kind: NameUse) -> Result<(), EntryRefusal> {
    let flags = record.flags();
    if flags.is_encrypted() || flags.has_strong_encryption() || flags.is_masked() {
        return Err(EntryRefusal::Encrypted);
    }
    // The creating system does not matter: without Unix modes these bits are not set.
    match (record.external_attributes() >> 16) & S_IFMT {
        S_IFLNK => return Err(EntryRefusal::Link { kind: "symbolic link", target: None }),
        S_IFIFO => return Err(EntryRefusal::Kind("named pipe")),
        S_IFSOCK => return Err(EntryRefusal::Kind("socket")),
        S_IFBLK => return Err(EntryRefusal::Kind("block device")),
        S_IFDIR if kind == NameUse::File => {
            return Err(EntryRefusal::Contradiction("it is a folder with the name of a file"));
        }
        S_IFREG if kind == NameUse::Folder => {
            return Err(EntryRefusal::Contradiction("it is a file with the name of a folder"));
        }
        0 | S_IFDIR | S_IFREG => {}
        _ => return Err(EntryRefusal::Kind("device")),
    }
    match record.compression_method() {
        CompressionMethod::STORE if record.compressed_size_hint() != record.uncompressed_size_hint() => {
            Err(EntryRefusal::Contradiction("it is not compressed and has two sizes"))
        }
        CompressionMethod::STORE | CompressionMethod::DEFLATE => Ok(()),
        CompressionMethod::AES => Err(EntryRefusal::Encrypted),
        method => Err(EntryRefusal::Method(method.as_u16())),
    }
}

/// Refuses entries that share bytes or reach into the directory: otherwise a small archive could unpack to any number
/// of large files.
fn check_ranges(mut ranges: Vec<(u64, u64, Vec<u8>)>, directory: u64) -> Result<(), ArchiveError> {
    ranges.sort();
    let mut free = 0;
    for (start, end, name) in ranges {
        if start < free || end > directory {
            return Err(ArchiveError::entry(&name, EntryRefusal::Overlap));
        }
        free = end;
    }
    Ok(())
}

fn unpack_file(
    archive: &ZipArchive<&ArchiveInput>,
    file: &File,
    buffer: &mut [u8],
    target: &mut UnpackTarget<'_>,
) -> Result<(), ArchiveError> {
    let refused = |refusal| ArchiveError::entry(&file.name, refusal);
    let entry = archive.get_entry(file.wayfinder).map_err(problem)?;
    let local = entry.local_header(buffer).map_err(problem)?;
    // Programs that read the archive from its beginning use this header.
    if local.file_path().as_bytes() != file.name {
        return Err(refused(EntryRefusal::Contradiction("its header has another name than the directory")));
    }
    if local.compression_method() != file.method || local.flags().is_encrypted() {
        return Err(refused(EntryRefusal::Contradiction("its header has another method than the directory")));
    }
    let packed = BufReader::with_capacity(CHUNK_BYTES, entry.reader());
    let mut content: Box<dyn Read + '_> = match file.method {
        CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut written = target.add_file(file.path.clone())?;
    let mut crc = Crc32::new();
    let copied = target.copy(&mut content, file.size, Some(&mut written), |bytes| crc.update(bytes));
    copied.map_err(|error| match error {
        ArchiveError::Truncated => refused(EntryRefusal::Content("length")),
        error => error,
    })?;
    // The content must not be longer than declared.
    match content.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => return Err(refused(EntryRefusal::Content("length"))),
        Err(cause) => return Err(ArchiveError::reading(cause)),
    }
    if crc.checksum() == file.crc { Ok(()) } else { Err(refused(EntryRefusal::Content("checksum"))) }
}

/// Converts an error of the crate about the whole archive.
fn problem(error: rawzip::Error) -> ArchiveError {
    let text = error.to_string();
    match error.into_kind() {
        ErrorKind::MissingEndOfCentralDirectory | ErrorKind::Eof => ArchiveError::Truncated,
        ErrorKind::IO(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        ErrorKind::IO(cause) => ArchiveError::reading(cause),
        _ => ArchiveError::Damaged(text),
    }
}
