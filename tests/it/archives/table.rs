//! Harmful archives, the code they are refused with, and a part of the message.

use super::build::{Entry, entry, file, gzip, header, long_file, pax_file, tar_of, zip_of};
use levain::error::ErrorCode;

type Row = (&'static str, Vec<u8>, ErrorCode, &'static [&'static str]);

pub fn harmful() -> Vec<Row> {
    let mut rows = names();
    let tars: Vec<Row> = tars().into_iter().chain(damaged_tars()).collect();
    rows.extend(tars.iter().map(|(what, bytes, code, words)| (*what, gzip(bytes), *code, *words)));
    rows.extend(tars);
    rows.extend(zips());
    rows.extend(damaged_zips());
    let text =
        |bytes: &[u8], words: &'static [&'static str]| ("no archive", bytes.to_vec(), ErrorCode::BundleInvalid, words);
    rows.extend([
        text(b"\xfd7zXZ\0....", &["xz", "tar.gz or zip"]),
        text(b"PK\x07\x08PK\x03\x04....", &["split zip"]),
        text(b"7z\xbc\xaf\x27\x1c....", &["7z"]),
        text(&gzip(b"export default 1;"), &["holds no tar", "tar czf"]),
        text(&gzip(b""), &["holds no tar"]),
        text(&tar_of(&[entry(b'5', b"f/", b"", b"")]), &["no files"]),
        text(&zip_of(&[]), &["no files"]),
    ]);
    rows
}

/// Names that are not allowed in a bundle, in a tar and in a zip.
fn names() -> Vec<Row> {
    let long = format!("{}.js", "x".repeat(300));
    let deep = format!("{}a.js", "d/".repeat(40));
    let longest = format!("{}a.js", "dddddddd/".repeat(120));
    let names: [(&[u8], &'static [&'static str]); 15] = [
        (b"../evil.js", &["`../evil.js`", "`..`"]),
        (b"lib/../../evil.js", &["`lib/../../evil.js`", "`..`"]),
        (b"lib/..", &["`lib/..`", "`..`"]),
        (b"./../evil.js", &["`./../evil.js`", "`..`"]),
        (b"/tmp/levain-evil.js", &["`/tmp/levain-evil.js`", "relative"]),
        (b"//evil.js", &["relative"]),
        (b"C:/evil.js", &["`C:/evil.js`", "drive"]),
        (b"c:evil.js", &["drive"]),
        (b"..\\evil.js", &["backslash"]),
        (b"lib//evil.js", &["`lib//evil.js`", "empty"]),
        (b"lib/./evil.js", &["`lib/./evil.js`"]),
        (b"caf\xe9.js", &["caf\u{fffd}.js", "not UTF-8"]),
        (b"bell\x07.js", &["bell\\u{7}.js", "control"]),
        (b"two\nlines.js", &["two\\nlines.js", "control"]),
        (b".hidden/../../evil.js", &["`..`"]),
    ];
    let long: [(&[u8], &'static [&'static str]); 3] = [
        (long.as_bytes(), &["longer than 255"]),
        (deep.as_bytes(), &["32 folders deep"]),
        (longest.as_bytes(), &["longer than 1024"]),
    ];
    let invalid = ErrorCode::BundleInvalid;
    let mut rows = Vec::new();
    for (name, words) in names {
        let tar = tar_of(&[file(b"index.js", b"export default 1"), file(name, b"evil")]);
        rows.push(("a name in a tar", tar, invalid, words));
    }
    for (name, words) in long {
        rows.push(("a long name in a tar", tar_of(&[long_file(name)]), invalid, words));
    }
    for (name, words) in names.into_iter().chain(long) {
        let zip = zip_of(&[Entry::stored(b"index.js", b"export default 1"), Entry::stored(name, b"evil")]);
        rows.push(("a name in a zip", zip, invalid, words));
    }
    rows.push(("a name in a pax record", tar_of(&[pax_file("path", "../evil.js")]), invalid, &["`../evil.js`"]));
    rows.push(("a zero in a pax record", tar_of(&[pax_file("path", "a\0.js")]), invalid, &["control"]));
    rows
}

fn tars() -> Vec<Row> {
    let index = || file(b"index.js", b"export default 1");
    let with = |entries: &[Vec<u8>]| tar_of(&[&[index()], entries].concat());
    let invalid = ErrorCode::BundleInvalid;
    let large = |size: u64| with(&[header(b'0', b"large.js", b"", size)]);
    let device = |kind| with(&[entry(kind, b"device", b"", b"")]);
    vec![
        (
            "a symbolic link out",
            with(&[entry(b'2', b"link", b"/etc", b""), file(b"link/evil.js", b"")]),
            invalid,
            &["`link`", "symbolic link to `/etc`", "--dereference"],
        ),
        (
            "a symbolic link in",
            with(&[entry(b'2', b"link.js", b"index.js", b"")]),
            invalid,
            &["`link.js`", "`index.js`"],
        ),
        (
            "a hard link out",
            with(&[entry(b'1', b"hard", b"/etc/passwd", b"")]),
            invalid,
            &["`hard`", "hard link to `/etc/passwd`"],
        ),
        ("a hard link in", with(&[entry(b'1', b"hard.js", b"index.js", b"")]), invalid, &["hard link"]),
        ("a character device", device(b'3'), invalid, &["`device`", "character device"]),
        ("a block device", device(b'4'), invalid, &["`device`", "block device"]),
        ("a pipe", device(b'6'), invalid, &["`device`", "named pipe"]),
        ("a kind nobody knows", device(b'V'), invalid, &["`device`", "only files and folders"]),
        ("a sparse file", with(&[entry(b'S', b"sparse", b"", b"")]), invalid, &["`sparse`", "--sparse"]),
        ("a sparse file as pax has it", with(&[pax_file("GNU.sparse.major", "1")]), invalid, &["`a.js`", "--sparse"]),
        ("a hidden sparse file", with(&[entry(b'S', b".sparse", b"", b"")]), invalid, &["`.sparse`"]),
        ("a hidden link with content", with(&[entry(b'1', b".link", b"x", b"content")]), invalid, &["`.link`"]),
        ("a name twice", with(&[index()]), invalid, &["`index.js`", "twice"]),
        ("a name twice in two ways", with(&[file(b"./index.js", b"")]), invalid, &["`index.js`", "twice"]),
        ("a file that is a folder", with(&[file(b"index.js/a.js", b"")]), invalid, &["`index.js/a.js`", "of a folder"]),
        (
            "a folder that is a file",
            with(&[entry(b'5', b"index.js/", b"", b"")]),
            invalid,
            &["`index.js`", "of a folder"],
        ),
        (
            "a folder with content",
            with(&[entry(b'5', b"lib", b"", b"content")]),
            invalid,
            &["`lib`", "folder has content"],
        ),
        ("two sizes", with(&[pax_file("size", "0")]), invalid, &["`a.js`", "two sizes"]),
        ("more than fits", large(65 << 20), ErrorCode::PayloadTooLarge, &["67108864 bytes", "limits.bundle_bytes_max"]),
        ("more than there is", large(u64::MAX / 2), ErrorCode::PayloadTooLarge, &["67108864 bytes"]),
    ]
}

fn damaged_tars() -> Vec<Row> {
    let tar = tar_of(&[file(b"index.js", &[b'/'; 600])]);
    let mut header = tar.clone();
    header[1] ^= 1;
    let mut second = tar_of(&[file(b"a.js", b""), file(b"b.js", b"")]);
    second[512] ^= 1;
    let invalid = ErrorCode::BundleInvalid;
    let cut = |length: usize| ("a tar that is cut off", tar[..length].to_vec(), invalid, &["cut off"] as &[&str]);
    vec![
        cut(600),
        cut(1_200),
        cut(1_536),
        cut(2_048),
        ("bytes after the end", [&tar[..], &[1; 512]].concat(), invalid, &["follow the end"]),
        ("a wrong header", second, invalid, &["damaged", "checksum"]),
        ("a header that does not come", tar_of(&[entry(b'L', b"x", b"", b"name")]), invalid, &["damaged"]),
    ]
}

fn zips() -> Vec<Row> {
    let index = || Entry::deflated(b"index.js", b"export default 1");
    let with = |entry: Entry| zip_of(&[index(), entry]);
    let other = || Entry::deflated(b"other.js", b"export default 2");
    let kind = |mode| with(Entry { mode, ..Entry::stored(b"thing", b"/etc/passwd") });
    let invalid = ErrorCode::BundleInvalid;
    vec![
        ("a symbolic link", kind(0o120_777), invalid, &["`thing`", "symbolic link", "zip"]),
        ("a character device", kind(0o020_644), invalid, &["`thing`", "device"]),
        ("a block device", kind(0o060_644), invalid, &["`thing`", "block device"]),
        ("a pipe", kind(0o010_644), invalid, &["`thing`", "named pipe"]),
        ("a socket", kind(0o140_644), invalid, &["`thing`", "socket"]),
        ("a folder by its mode", kind(0o040_755), invalid, &["`thing`", "folder"]),
        ("a name twice", with(index()), invalid, &["`index.js`", "twice"]),
        ("a file that is a folder", with(Entry::stored(b"index.js/a.js", b"")), invalid, &["of a folder"]),
        ("a password", with(Entry { flags: 0x801, ..other() }), invalid, &["`other.js`", "encrypted", "password"]),
        ("a strong password", with(Entry { flags: 0x840, ..other() }), invalid, &["encrypted"]),
        ("a hidden directory", with(Entry { flags: 0x2800, ..other() }), invalid, &["encrypted"]),
        ("a password by AES", with(Entry { method: 99, ..other() }), invalid, &["encrypted"]),
        (
            "another compression",
            with(Entry { method: 12, ..other() }),
            invalid,
            &["`other.js`", "method 12", "deflate"],
        ),
        ("two sizes", with(Entry { size: 3, ..Entry::stored(b"a.js", b"12345") }), invalid, &["`a.js`", "two sizes"]),
        (
            "two names",
            with(Entry { local_name: Some(b"../ab.js".to_vec()), ..other() }),
            invalid,
            &["`other.js`", "another name"],
        ),
        (
            "more than fits",
            with(Entry { size: 65 << 20, ..other() }),
            ErrorCode::PayloadTooLarge,
            &["67108864 bytes", "limits.bundle_bytes_max"],
        ),
        ("shared bytes", with(Entry { offset: Some(0), ..index() }), invalid, &["`index.js`", "another entry"]),
    ]
}

fn damaged_zips() -> Vec<Row> {
    let content: Vec<_> = (0..3_000_u32).flat_map(u32::to_le_bytes).collect();
    let good = Entry::deflated(b"index.js", &content);
    let of = |entry: Entry| zip_of(&[entry]);
    let (whole, size) = (of(good.clone()), good.size);
    let mut count = whole.clone();
    let at = count.len() - 14;
    count[at..at + 4].copy_from_slice(&[2, 0, 2, 0]);
    let mut packed = good.packed.clone();
    packed.truncate(packed.len() / 2);
    let invalid = ErrorCode::BundleInvalid;
    vec![
        ("a wrong checksum", of(Entry { crc: 1, ..good.clone() }), invalid, &["`index.js`", "checksum"]),
        ("more than it says", of(Entry { size: size - 1, ..good.clone() }), invalid, &["`index.js`", "length"]),
        ("less than it says", of(Entry { size: size + 1, ..good.clone() }), invalid, &["`index.js`", "length"]),
        ("half of it", of(Entry { packed, ..good.clone() }), invalid, &["`index.js`", "length"]),
        ("no deflate", of(Entry { packed: vec![0xff; 50], ..good.clone() }), invalid, &["damaged"]),
        ("a wrong count", count, invalid, &["damaged"]),
        ("bytes after the end", [&whole[..], b"x"].concat(), invalid, &["follow the end"]),
        ("its end is missing", whole[..whole.len() - 1].to_vec(), invalid, &["cut off"]),
        ("its directory is missing", whole[..whole.len() - 40].to_vec(), invalid, &["cut off"]),
        ("its beginning alone", whole[..40].to_vec(), invalid, &["cut off"]),
    ]
}
