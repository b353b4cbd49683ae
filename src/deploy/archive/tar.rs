//! tar: ustar, GNU and pax headers, and the older form without magic bytes.
//!
//! Only the header's layout comes from the crate. The entries are walked here because the crate reads long names and
//! pax records of any length into memory, and lets a pax record override the header's size, which other programs
//! ignore.

use super::{
    error::{ArchiveError, EntryRefusal, shown},
    target::{NameUse, UnpackTarget},
};
use std::io::Read;
use tar::{Header, PaxExtensions};

/// Block size of tar, in bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// Longest long name or set of pax records, in bytes.
const EXTENSION_BYTES_MAX: u64 = 64 * 1024;

/// Zero bytes that may follow the end: more than the largest record size used when writing a tar.
const PADDING_BYTES_MAX: u64 = 1 << 20;

/// Headers before an entry that extend the entry's own header.
#[derive(Debug, Default)]
struct Extension {
    /// Long name from a GNU header.
    long_name: Option<Vec<u8>>,
    /// Long link target from a GNU header.
    long_link: Option<Vec<u8>>,
    /// Records from a pax header.
    records: Option<Vec<u8>>,
}

/// Whether these bytes are an entry's header.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    // The checksum covers all bytes, with spaces in place of the checksum itself.
    let sum = bytes.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
    bytes.len() == BLOCK_BYTES && Header::from_byte_slice(bytes).cksum().is_ok_and(|it| it == sum.sum::<u32>())
}

/// Unpacks a stream to its very end.
pub(super) fn unpack(mut stream: impl Read, target: &mut UnpackTarget<'_>) -> Result<(), ArchiveError> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut is_first = true;
    let mut extension = Extension::default();
    loop {
        match fill(&mut stream, &mut block)? {
            length if is_first && length < BLOCK_BYTES => return Err(ArchiveError::NoTar),
            BLOCK_BYTES => target.count_unpacked(BLOCK_BYTES)?,
            _ => return Err(ArchiveError::Truncated),
        }
        if block.iter().all(|it| *it == 0) {
            break;
        }
        if !is_header(&block) {
            return Err(if is_first { ArchiveError::NoTar } else { damaged("a header has a wrong checksum") });
        }
        is_first = false;
        target.count_entry()?;
        let header = Header::from_byte_slice(&block);
        let size = header.entry_size().map_err(|_| damaged("a header has no size"))?;
        match header.entry_type().as_byte() {
            b'L' => set(&mut extension.long_name, without_end(read(&mut stream, size, target)?))?,
            b'K' => set(&mut extension.long_link, without_end(read(&mut stream, size, target)?))?,
            b'x' => set(&mut extension.records, read(&mut stream, size, target)?)?,
            // Global records hold harmless data, such as git's comment or a time. Records that would change every entry
            // are refused.
            b'g' => drop(records(&read(&mut stream, size, target)?, header, size, true)?),
            _ => {
                entry(&mut stream, header, size, std::mem::take(&mut extension), target)?;
                pad(&mut stream, size, target)?;
            }
        }
    }
    if extension.long_name.is_some() || extension.long_link.is_some() || extension.records.is_some() {
        return Err(damaged("an extended header is not followed by its entry"));
    }
    end(&mut stream, target)
}

/// Unpacks one file or folder, or refuses the entry.
fn entry(
    stream: &mut impl Read,
    header: &Header,
    size: u64,
    extension: Extension,
    target: &mut UnpackTarget<'_>,
) -> Result<(), ArchiveError> {
    let values = match &extension.records {
        Some(text) => records(text, header, size, false)?,
        None => PaxValues::default(),
    };
    let name = values.path.or(extension.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = header.entry_type().as_byte();
    let refused = |refusal| Err(ArchiveError::entry(&name, refusal));
    let Some((path, by_name)) = target.name(&name)? else {
        // How a sparse header, or a link with a size, continues depends on the program that reads it.
        return match kind {
            b'S' => refused(EntryRefusal::Sparse),
            b'0' | b'\0' | b'7' => {
                target.take_room(size)?;
                target.copy(stream, size, None, |_| {})
            }
            _ if size == 0 => Ok(()),
            _ => refused(EntryRefusal::Contradiction("it has content, which only files have")),
        };
    };
    if values.is_sparse {
        return refused(EntryRefusal::Sparse);
    }
    let link = |kind| {
        let link = values.link.or(extension.long_link);
        let link = link.or_else(|| header.link_name_bytes().map(|it| it.into_owned()));
        EntryRefusal::Link { kind, target: link.map(|it| shown(&it)) }
    };
    match kind {
        b'0' | b'\0' | b'7' if by_name == NameUse::File => {
            target.take_room(size)?;
            let mut file = target.add_file(path)?;
            target.copy(stream, size, Some(&mut file), |_| {})
        }
        // In the oldest format, a folder is marked only by the end of its name.
        b'5' | b'0' | b'\0' if size == 0 => target.add_folder(path),
        b'5' | b'0' | b'\0' | b'7' => refused(EntryRefusal::Contradiction("a folder has content")),
        b'1' => refused(link("hard link")),
        b'2' => refused(link("symbolic link")),
        b'3' => refused(EntryRefusal::Kind("character device")),
        b'4' => refused(EntryRefusal::Kind("block device")),
        b'6' => refused(EntryRefusal::Kind("named pipe")),
        b'S' => refused(EntryRefusal::Sparse),
        _ => refused(EntryRefusal::Kind("special entry of tar")),
    }
}

/// Values from an entry's pax records.
#[derive(Debug, Default)]
struct PaxValues {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    is_sparse: bool,
}

fn records(text: &[u8], header: &Header, size: u64, is_global: bool) -> Result<PaxValues, ArchiveError> {
    let mut values = PaxValues::default();
    for record in PaxExtensions::new(text) {
        let record = record.map_err(|_| damaged("a pax record cannot be read"))?;
        let value = record.value_bytes();
        match record.key_bytes() {
            b"path" | b"linkpath" | b"size" if is_global => {
                return Err(damaged("a pax record gives all entries the same name or size"));
            }
            b"path" => values.path = Some(value.to_owned()),
            b"linkpath" => values.link = Some(value.to_owned()),
            // With two different sizes, the unpacked content would depend on the program.
            b"size" if std::str::from_utf8(value).ok().and_then(|it| it.parse().ok()) != Some(size) => {
                return Err(ArchiveError::entry(
                    &header.path_bytes(),
                    EntryRefusal::Contradiction("its header and its pax record have two sizes"),
                ));
            }
            key if key.starts_with(b"GNU.sparse.") => values.is_sparse = true,
            _ => {}
        }
    }
    Ok(values)
}

/// Reads the content of an extended header.
fn read(stream: &mut impl Read, size: u64, target: &mut UnpackTarget<'_>) -> Result<Vec<u8>, ArchiveError> {
    if size > EXTENSION_BYTES_MAX {
        return Err(damaged("an extended header is too long"));
    }
    target.take_room(size)?;
    let mut content = Vec::new();
    target.copy(stream, size, None, |bytes| content.extend_from_slice(bytes))?;
    pad(stream, size, target)?;
    Ok(content)
}

/// Cuts a C string at its terminating zero.
fn without_end(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|it| *it == 0) {
        name.truncate(end);
    }
    name
}

fn set(place: &mut Option<Vec<u8>>, content: Vec<u8>) -> Result<(), ArchiveError> {
    match place.replace(content) {
        None => Ok(()),
        Some(_) => Err(damaged("an entry has two extended headers of one kind")),
    }
}

/// Skips the padding after content, up to the end of its last block.
fn pad(stream: &mut impl Read, size: u64, target: &mut UnpackTarget<'_>) -> Result<(), ArchiveError> {
    let block = BLOCK_BYTES as u64;
    target.copy(stream, (block - size % block) % block, None, |_| {})
}

/// Reads the second block of zeros, and requires zeros up to the end of the stream. Reading to the end also verifies
/// the checksum of a gzip.
fn end(stream: &mut impl Read, target: &mut UnpackTarget<'_>) -> Result<(), ArchiveError> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    if fill(stream, &mut block)? < BLOCK_BYTES {
        return Err(ArchiveError::Truncated);
    }
    let mut padding = 0;
    loop {
        if block.iter().any(|it| *it != 0) || padding > PADDING_BYTES_MAX {
            return Err(ArchiveError::Trailing);
        }
        match fill(stream, &mut block)? {
            0 => return Ok(()),
            length => {
                padding += length as u64;
                target.count_unpacked(length)?;
            }
        }
    }
}

/// Reads a block as far as the stream goes.
fn fill(stream: &mut impl Read, block: &mut Vec<u8>) -> Result<usize, ArchiveError> {
    block.clear();
    stream.by_ref().take(BLOCK_BYTES as u64).read_to_end(block).map_err(ArchiveError::reading)
}

fn damaged(reason: &str) -> ArchiveError {
    ArchiveError::Damaged(reason.into())
}
