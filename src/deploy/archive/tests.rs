//! Round trips of archives; damaged, truncated and oversized archives; and nothing outside the folder is touched.
//! Malicious archives meet a whole daemon in `tests/it/archives.rs`.

use super::*;
use ::tar::{Builder, EntryType, Header};
use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::DeflateEncoder};
use proptest::prelude::*;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    time::{Duration, Instant},
};

type Files = BTreeMap<String, Vec<u8>>;

const LIMITS: ArchiveLimits =
    ArchiveLimits { bytes_max: 4 << 20, files_max: 40, ratio_max: 200, time_max: Duration::from_secs(20) };

/// Way to pack an archive.
#[derive(Debug, Clone, Copy)]
enum Packing {
    Tar,
    Gzip,
    Stored,
    Deflated,
}

const PACKINGS: [Packing; 4] = [Packing::Tar, Packing::Gzip, Packing::Stored, Packing::Deflated];

fn pack<'a>(packing: Packing, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    match packing {
        Packing::Tar => tar(files),
        Packing::Gzip => gzip(&tar(files)),
        Packing::Stored => zip(CompressionMethod::STORE, files),
        Packing::Deflated => zip(CompressionMethod::DEFLATE, files),
    }
}

fn tar<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Each entry has a data descriptor, because the crate always writes one.
fn zip<'a>(method: CompressionMethod, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (path, content) in files {
        let (mut entry, config) = archive.new_file(path).compression_method(method).start().expect("memory takes it");
        let descriptor = if method == CompressionMethod::DEFLATE {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
            writer.write_all(content).expect("memory takes it");
            let (encoder, descriptor) = writer.finish().expect("memory takes it");
            encoder.finish().expect("memory takes it");
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(content).expect("memory takes it");
            writer.finish().expect("memory takes it").1
        };
        entry.finish(descriptor).expect("memory takes it");
    }
    archive.finish().expect("memory takes it")
}

/// Unpacks bytes into a folder whose neighbours must not change.
fn unpack_with(bytes: &[u8], limits: ArchiveLimits) -> Result<Files, ArchiveError> {
    let around = tempfile::tempdir().expect("a folder");
    let folder = around.path().join("target");
    fs::create_dir(&folder).expect("a folder");
    let outcome = unpack(&ArchiveInput::Bytes(Bytes::copy_from_slice(bytes)), &folder, limits);
    let beside: Vec<_> = fs::read_dir(around.path()).expect("the folder").flatten().map(|it| it.file_name()).collect();
    assert_eq!(beside, ["target"]);
    let mut found = Files::new();
    read(&folder, "", &mut found);
    let mut names = outcome?;
    names.sort();
    assert_eq!(names, found.keys().cloned().collect::<Vec<_>>());
    Ok(found)
}

fn unpacked(bytes: &[u8]) -> Result<Files, ArchiveError> {
    unpack_with(bytes, LIMITS)
}

/// Reads all files below a folder, which must contain only regular files and folders.
fn read(folder: &Path, prefix: &str, files: &mut Files) {
    for child in fs::read_dir(folder).expect("a folder").flatten() {
        let name = format!("{prefix}{}", child.file_name().to_str().expect("UTF-8"));
        let kind = child.file_type().expect("a kind");
        if kind.is_dir() {
            read(&child.path(), &format!("{name}/"), files);
        } else {
            assert!(kind.is_file(), "{name}");
            files.insert(name, fs::read(child.path()).expect("a file"));
        }
    }
}

fn owned(files: &[(&str, &[u8])]) -> Files {
    files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
}

fn borrowed(files: &Files) -> impl Iterator<Item = (&str, &[u8])> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
}

/// Builds a tar entry of any kind, without checks.
fn raw(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(tar::BLOCK_BYTES), 0);
    bytes
}

/// Joins entries and the end of a tar.
fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 2 * tar::BLOCK_BYTES]].concat()
}

fn files_strategy() -> impl Strategy<Value = Files> {
    let name = "[a-zA-Z0-9_é][a-zA-Z0-9_. -]{0,120}";
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2_000),
        (0..40_000_usize).prop_map(|length| b"export default 1;\n".iter().copied().cycle().take(length).collect()),
    ];
    let files = proptest::collection::btree_map(path, content, 0..8);
    // No name may also be the folder of another.
    files.prop_filter("a file cannot be a folder", |files| {
        let is_folder = |name: &String| files.keys().any(|it| it.starts_with(&format!("{name}/")));
        !files.keys().any(is_folder)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_out(files in files_strategy()) {
        for packing in PACKINGS {
            let bytes = pack(packing, borrowed(&files));
            // A tar without entries is two blocks of zeros, which could be any file.
            if !(files.is_empty() && matches!(packing, Packing::Tar)) {
                prop_assert_eq!(&unpacked(&bytes).expect("a good archive"), &files, "{:?}", packing);
            }
        }
    }

    #[test]
    fn no_damage_gets_a_file_out_of_the_folder_or_the_process_down(
        files in files_strategy(),
        packing in proptest::sample::select(&PACKINGS),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        inside in any::<bool>(),
    ) {
        let mut bytes = if inside { tar(borrowed(&files)) } else { pack(packing, borrowed(&files)) };
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let limits = ArchiveLimits { time_max: Duration::from_secs(5), ..LIMITS };
        // A tar has no checksum of its content, so damage may go unnoticed.
        let _ = unpack_with(&if inside { gzip(&bytes) } else { bytes }, limits);
    }

    #[test]
    fn any_bytes_are_refused_in_peace(start in 0..5_usize, bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        let magic: [&[u8]; 5] = [b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c"];
        prop_assert!(unpacked(&[magic[start], &bytes].concat()).is_err());
    }
}

#[test]
fn an_archive_cut_at_any_byte_is_refused_or_whole() {
    let files = owned(&[("index.js", b"export default () => new Response('x');"), ("lib/a.js", &[7; 60])]);
    for packing in PACKINGS {
        let bytes = pack(packing, borrowed(&files));
        for length in 0..bytes.len() {
            match unpacked(&bytes[..length]) {
                Ok(found) => panic!("{packing:?} {length} of {}: {found:?}", bytes.len()),
                Err(ArchiveError::Truncated | ArchiveError::Unknown) => {}
                // A tar is recognised by its first block; a truncated zip directory may look like damage.
                Err(error) => assert!(matches!(error, ArchiveError::Damaged(_)), "{packing:?} {length}: {error:?}"),
            }
        }
        assert_eq!(unpacked(&bytes).expect("it is whole"), files, "{packing:?}");
    }
}

#[test]
fn bytes_after_the_end_are_refused_and_the_padding_of_tar_is_not() {
    let files = owned(&[("index.js", b"x")]);
    for packing in PACKINGS {
        let bytes = pack(packing, borrowed(&files));
        let outcome = unpacked(&[&bytes[..], b"garbage"].concat());
        assert!(outcome.is_err(), "{packing:?}: {outcome:?}");
    }
    let tar = tar(borrowed(&files));
    let padded = |bytes: usize| [tar.clone(), vec![0; bytes]].concat();
    for bytes in [padded(10_240), gzip(&padded(10_240)), gzip(&padded(7))] {
        assert_eq!(unpacked(&bytes).expect("padding"), files);
    }
    assert!(matches!(unpacked(&gzip(&padded(2 << 20))), Err(ArchiveError::Trailing)));
    let two = [gzip(&tar), gzip(&tar)].concat();
    assert!(matches!(unpacked(&two), Err(ArchiveError::Trailing)), "a second tar in a second member");
    let half = tar.len() / 2;
    let members = [gzip(&tar[..half]), gzip(&tar[half..])].concat();
    assert_eq!(unpacked(&members).expect("one tar in two members"), files);
}

#[test]
fn a_wrong_checksum_is_refused() {
    let content = b"export default () => new Response('x');";
    for packing in [Packing::Gzip, Packing::Stored, Packing::Deflated] {
        let mut bytes = pack(packing, [("index.js", content.as_slice())]);
        let place = match packing {
            // Position of the checksum of the whole, before the length.
            Packing::Gzip => bytes.len() - 8,
            Packing::Stored => bytes.windows(6).position(|it| it == b"export").expect("it is stored"),
            _ => bytes.windows(4).rposition(|it| it == b"PK\x01\x02").expect("a directory") + 16,
        };
        bytes[place] ^= 1;
        let error = unpacked(&bytes).expect_err("it is damaged");
        let is_right = match packing {
            Packing::Gzip => matches!(error, ArchiveError::Damaged(_)),
            _ => matches!(error, ArchiveError::Entry { refusal: EntryRefusal::Content("checksum"), .. }),
        };
        assert!(is_right, "{packing:?}: {error:?}");
    }
}

#[test]
fn what_programs_add_is_ignored_or_understood() {
    let ignored: [(&str, &[u8]); 6] = [
        ("__MACOSX/._index.js", b"x"),
        ("._index.js", b"x"),
        ("lib/.DS_Store", b"x"),
        (".git/HEAD", b"x"),
        ("__MACOSX/lib/a", b"x"),
        ("lib/.hidden/a.js", b"x"),
    ];
    let kept: [(&str, &[u8]); 2] = [("index.js", b"1"), ("lib/__MACOSX/a.js", b"2")];
    for packing in PACKINGS {
        let bytes = pack(packing, ignored.into_iter().chain(kept));
        assert_eq!(unpacked(&bytes).expect("a good archive"), owned(&kept), "{packing:?}");
    }
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let record = |key: &str, value: &str| {
        // The length includes its own digits.
        let rest = key.len() + value.len() + 3;
        let length = (1..).find(|length: &usize| length.to_string().len() + rest == *length).expect("there is one");
        format!("{length} {key}={value}\n").into_bytes()
    };
    let pax = [record("path", "lib/\u{e9}.js"), record("mtime", "1.5"), record("size", "1")].concat();
    let tar = tar_of(&[
        raw(b'g', b"pax_global_header", &record("comment", "0123456789abcdef")),
        raw(b'5', b"./", b""),
        raw(b'0', b"./index.js", b"1"),
        raw(b'5', b"lib/", b""),
        raw(b'\0', b"lib/old/", b""),
        raw(b'7', b"lib/b.js", b"2"),
        raw(b'L', b"././@LongLink", &[long.as_bytes(), b"\0"].concat()),
        raw(b'0', b"dddd", b"3"),
        raw(b'x', b"PaxHeaders/x", &pax),
        raw(b'0', b"lib/x.js", b"4"),
        raw(b'2', b"lib/.bin", b""),
    ]);
    let wanted = owned(&[("index.js", b"1"), ("lib/b.js", b"2"), (&long, b"3"), ("lib/\u{e9}.js", b"4")]);
    assert_eq!(unpacked(&tar).expect("a good archive"), wanted);
    let refused = |entries: &[Vec<u8>]| unpacked(&tar_of(entries)).expect_err("it is refused");
    let file = || raw(b'0', b"a.js", b"1");
    let sparse = [raw(b'x', b"x", &record("GNU.sparse.major", "1")), file()];
    assert!(matches!(refused(&sparse), ArchiveError::Entry { refusal: EntryRefusal::Sparse, .. }));
    for size in ["0", "2", "x"] {
        let sizes = [raw(b'x', b"x", &record("size", size)), file()];
        assert!(matches!(refused(&sizes), ArchiveError::Entry { refusal: EntryRefusal::Contradiction(_), .. }));
    }
    let damaged = [
        vec![raw(b'x', b"x", &record("path", "b.js"))],
        vec![raw(b'x', b"x", b"no record"), file()],
        vec![raw(b'x', b"x", &record("a", "b")), raw(b'x', b"x", &record("a", "b")), file()],
        vec![raw(b'g', b"x", &record("path", "b.js")), file()],
        vec![raw(b'L', b"x", &[b'a'; 70_000]), file()],
        vec![file(), vec![1; 512]],
    ];
    for entries in damaged {
        assert!(matches!(refused(&entries), ArchiveError::Damaged(_)));
    }
}

#[test]
fn bytes_files_entries_growth_and_time_are_bounded() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    let zeros = vec![0; 3 << 20];
    let names: Vec<_> = (0..200).map(|it| format!("{it}.js")).collect();
    let folders: Vec<_> = (0..200).map(|it| format!(".git/{it}")).collect();
    for packing in PACKINGS {
        let outcome = |names: &[&str], content: &[u8], limits: ArchiveLimits| {
            let result = unpack_with(&pack(packing, names.iter().map(|name| (*name, content))), limits);
            result.map(|files| files.len())
        };
        let of = |names: &[String], count: usize, limits| {
            outcome(&names[..count].iter().map(String::as_str).collect::<Vec<_>>(), b"", limits)
        };
        let exact = ArchiveLimits { bytes_max: 2 << 20, ..LIMITS };
        assert_eq!(outcome(&["a", "b"], &noise, exact).expect("as much as there may be"), 2);
        let less = ArchiveLimits { bytes_max: (2 << 20) - 1, ..LIMITS };
        assert!(matches!(outcome(&["a", "b"], &noise, less), Err(ArchiveError::TooLarge(_))), "{packing:?}");
        assert_eq!(of(&names, 40, LIMITS).expect("as many as there may be"), 40);
        assert!(matches!(of(&names, 41, LIMITS), Err(ArchiveError::TooManyFiles(40))), "{packing:?}");
        assert_eq!(of(&folders, 160, LIMITS).expect("as many as there may be"), 0);
        assert!(matches!(of(&folders, 161, LIMITS), Err(ArchiveError::TooManyEntries(160))), "{packing:?}");
        let is_compressed = matches!(packing, Packing::Gzip | Packing::Deflated);
        let grown = outcome(&["a"], &zeros, ArchiveLimits { ratio_max: 20, ..LIMITS });
        assert_eq!(matches!(grown, Err(ArchiveError::Ratio(20))), is_compressed, "{packing:?}: {grown:?}");
        let none = ArchiveLimits { time_max: Duration::ZERO, ..LIMITS };
        assert!(matches!(outcome(&["a"], &zeros, none), Err(ArchiveError::TooSlow(_))), "{packing:?}");
    }
}

#[test]
fn a_file_that_ends_the_time_is_not_waited_for() {
    /// Returns a byte at a time, forever.
    struct Slow;
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer[0] = 1;
            Ok(1)
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let limits = ArchiveLimits { bytes_max: u64::MAX, time_max: Duration::from_millis(50), ..LIMITS };
    let mut target = UnpackTarget::new(folder.path(), limits, u64::MAX);
    let started = Instant::now();
    let outcome = target.copy(&mut Slow, u64::MAX, None, |_| {});
    assert!(matches!(outcome, Err(ArchiveError::TooSlow(_))), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn names_that_differ_by_case_are_two_and_equal_ones_are_refused() {
    for packing in PACKINGS {
        let two: [(&str, &[u8]); 2] = [("a.js", b"1"), ("A.js", b"2")];
        assert_eq!(unpacked(&pack(packing, two)).expect("two files"), owned(&two), "{packing:?}");
        let twice: [(&str, &[u8]); 2] = [("a.js", b"1"), ("./a.js", b"2")];
        let refusal = |files: [(&'static str, &'static [u8]); 2]| match unpacked(&tar(files)) {
            Err(ArchiveError::Entry { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal(twice), EntryRefusal::Twice);
        assert_eq!(refusal([("a", b"1"), ("a/b", b"2")]), EntryRefusal::FileAndFolder);
        assert_eq!(refusal([("a/b", b"1"), ("a", b"2")]), EntryRefusal::FileAndFolder);
    }
}

#[test]
fn sizes_of_64_bits_are_understood() {
    let local = |extra: &[u8]| {
        let mut bytes = b"PK\x03\x04\x2d\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(rawzip::crc32(b"x").to_le_bytes());
        bytes.extend([0xff; 8]);
        bytes.extend([4, 0, extra.len() as u8, 0]);
        [&bytes, b"a.js".as_slice(), extra, b"x"].concat()
    };
    let (one, zero) = (1_u64.to_le_bytes(), 0_u64.to_le_bytes());
    let file = local(&[[1, 0, 16, 0].as_slice(), &one, &one].concat());
    let extra = [[1, 0, 24, 0].as_slice(), &one, &one, &zero].concat();
    let mut directory = b"PK\x01\x02\x2d\0\x2d\0\0\0\0\0\0\0\0\0".to_vec();
    directory.extend(rawzip::crc32(b"x").to_le_bytes());
    directory.extend([0xff; 8]);
    directory.extend([4, 0, extra.len() as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    directory.extend_from_slice(b"a.js");
    directory.extend(extra);
    let (start, end) = (file.len() as u64, (file.len() + directory.len()) as u64);
    let mut tail = b"PK\x06\x06".to_vec();
    tail.extend(44_u64.to_le_bytes());
    tail.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [1, 1, directory.len() as u64, start] {
        tail.extend(number.to_le_bytes());
    }
    tail.extend(b"PK\x06\x07\0\0\0\0");
    tail.extend(end.to_le_bytes());
    tail.extend([1, 0, 0, 0]);
    tail.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    let bytes = [file, directory, tail].concat();
    assert_eq!(unpacked(&bytes).expect("a good archive"), owned(&[("a.js", b"x")]));
}
