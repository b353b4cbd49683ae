//! Archives put together byte by byte, so that they can be malformed.

use flate2::{Compress, Compression, Crc, FlushCompress, Status, write::GzEncoder};
use std::io::Write;
use tar::{EntryType, Header};

/// Size of a tar block in bytes.
const BLOCK: usize = 512;

/// Makes a tar entry of any kind, without checks.
pub fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = [header(kind, name, link, content.len() as u64).as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Makes a tar entry's header alone.
pub fn header(kind: u8, name: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o6777);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

pub fn file(name: &[u8], content: &[u8]) -> Vec<u8> {
    entry(b'0', name, b"", content)
}

/// Makes a tar entry for a file whose name is too long for its header.
pub fn long_file(name: &[u8]) -> Vec<u8> {
    [entry(b'L', b"././@LongLink", b"", &[name, b"\0"].concat()), file(b"short.js", b"")].concat()
}

/// Makes a tar entry for a file with one pax record.
pub fn pax_file(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|length: &usize| length.to_string().len() + rest == *length).unwrap();
    [entry(b'x', b"PaxHeaders/x", b"", format!("{length} {key}={value}\n").as_bytes()), file(b"a.js", b"1")].concat()
}

/// Joins entries and adds the end of a tar.
pub fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 2 * BLOCK]].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Deflates bytes as they are compressed within a zip.
fn deflate(bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut packed = Vec::with_capacity(bytes.len() + 1_024);
    let status = compress.compress_vec(bytes, &mut packed, flush).unwrap();
    assert!(matches!(status, Status::Ok | Status::StreamEnd) && compress.total_in() == bytes.len() as u64);
    packed
}

/// Compresses very many zeros between two other pieces, and returns the checksum and number of all these bytes too. The
/// zeros are compressed once, in a piece that ends on a whole byte and can be repeated.
pub fn deflated_zeros(before: &[u8], zeros: u64, after: &[u8]) -> (Vec<u8>, u32, u64) {
    const PIECE: u64 = 1 << 20;
    assert_eq!(zeros % PIECE, 0);
    let piece = vec![0; PIECE as usize];
    let mut packed = deflate(before, FlushCompress::Full);
    let packed_piece = deflate(&piece, FlushCompress::Full);
    let checksum = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc
    };
    let (mut crc, piece) = (checksum(before), checksum(&piece));
    for _ in 0..zeros / PIECE {
        packed.extend_from_slice(&packed_piece);
        crc.combine(&piece);
    }
    packed.extend(deflate(after, FlushCompress::Finish));
    crc.combine(&checksum(after));
    (packed, crc.sum(), before.len() as u64 + zeros + after.len() as u64)
}

/// Packs very many zeros between two other pieces as a gzip.
pub fn gzipped_zeros(before: &[u8], zeros: u64, after: &[u8]) -> Vec<u8> {
    let (packed, crc, length) = deflated_zeros(before, zeros, after);
    let start = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&start, packed.as_slice(), &crc.to_le_bytes(), &(length as u32).to_le_bytes()].concat()
}

/// An entry of a zip, as described by its two headers.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    /// Name in the header before the content, if that differs.
    pub local_name: Option<Vec<u8>>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub size: u64,
    pub packed: Vec<u8>,
    /// Unix mode and file type.
    pub mode: u32,
    /// Offset of another entry's header before the content, which this entry reuses.
    pub offset: Option<u32>,
}

impl Entry {
    pub fn stored(name: &[u8], content: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(content);
        Self {
            name: name.to_vec(),
            local_name: None,
            flags: 0x800,
            method: 0,
            crc: crc.sum(),
            size: content.len() as u64,
            packed: content.to_vec(),
            mode: 0o100_644,
            offset: None,
        }
    }

    pub fn deflated(name: &[u8], content: &[u8]) -> Self {
        let packed = deflate(content, FlushCompress::Finish);
        Self { method: 8, packed, ..Self::stored(name, content) }
    }

    /// The part that both headers of the entry share.
    fn common(&self, name: &[u8], extra: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend((self.packed.len() as u32).to_le_bytes());
        bytes.extend(u32::try_from(self.size).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend((extra as u16).to_le_bytes());
        bytes
    }

    /// The Zip64 field with the size, if that does not fit into a header.
    fn extra(&self) -> Vec<u8> {
        let long = || [[1, 0, 8, 0].as_slice(), &self.size.to_le_bytes()].concat();
        u32::try_from(self.size).map_or_else(|_| long(), |_| Vec::new())
    }
}

pub fn zip_of(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(bytes.len() as u32);
        let extra = entry.extra();
        if entry.offset.is_none() {
            let name = entry.local_name.as_ref().unwrap_or(&entry.name);
            bytes.extend(b"PK\x03\x04\x14\0");
            bytes.extend(entry.common(name, extra.len()));
            bytes.extend([name.as_slice(), &extra, &entry.packed].concat());
        }
        directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend(entry.common(&entry.name, extra.len()));
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend([entry.name.as_slice(), &extra].concat());
    }
    let (start, count) = (bytes.len() as u32, (entries.len() % 65_536) as u16);
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}
