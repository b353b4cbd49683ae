//! Puts code into a request if the daemon cannot, or should not, read it. A folder becomes a tar.gz of the files of its
//! bundle, or of the sources of a build, by the daemon's own rules ([`crate::deploy::list_needed`]).

use super::error::CliError;
use super::print::Out;
use super::text;
use crate::deploy::{self, ArchiveFormat, ArchiveInput, SourceError, SourceOptions};
use crate::protocol::field::Body;
use crate::protocol::message::DeployRequest;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io;
use std::path::Path;

/// Folder around all packed files. The daemon strips it, and so never strips a folder of the bundle itself.
const WRAPPER: &str = "levain-bundle";

/// Maximum bytes of an upload: more than any daemon accepts (`limits.frame_bytes_max`).
const BYTES_MAX: usize = 1 << 30;

/// Maximum files of an upload: more than any daemon accepts (`limits.bundle_files_max`).
const FILES_MAX: usize = 100_000;

/// Files between updates of the progress line.
const FILES_PER_STEP: usize = 50;

/// Reads the file or folder at a path into the request, in place of the path.
pub(super) fn put(request: &mut DeployRequest, path: &Path, out: &Out) -> Result<(), CliError> {
    request.bundle_path = None;
    let at_path = |source| CliError::Input { path: path.to_owned(), source };
    if fs::metadata(path).map_err(at_path)?.is_dir() {
        let bytes = pack(path, &SourceOptions { entry: request.entry.clone(), build: request.build }, out)?;
        tell_size(bytes.len(), out);
        request.archive = Some(Body(bytes.into()));
        return Ok(());
    }
    let bytes = Bytes::from(fs::read(path).map_err(at_path)?);
    tell_size(bytes.len(), out);
    match (deploy::stored_name(path), is_archive(&bytes)) {
        (Some(name), false) => {
            request.bundle = Some(Body(bytes));
            request.entry = Some(name);
        }
        // The daemon decides whether it unpacks this format.
        (None, false) if ArchiveFormat::of(&ArchiveInput::Bytes(bytes.clone())).map_err(at_path)?.is_none() => {
            return Err(SourceError::Extension(path.display().to_string()).into());
        }
        _ => request.archive = Some(Body(bytes)),
    }
    Ok(())
}

/// Puts bytes without a file name into the request: an archive, or code.
pub(super) fn put_bytes(request: &mut DeployRequest, bytes: Bytes) {
    let place = if is_archive(&bytes) { &mut request.archive } else { &mut request.bundle };
    *place = Some(Body(bytes));
}

/// Whether bytes are an archive, and not text that begins like a format that is not unpacked.
fn is_archive(bytes: &Bytes) -> bool {
    matches!(
        ArchiveFormat::of(&ArchiveInput::Bytes(bytes.clone())),
        Ok(Some(ArchiveFormat::Tar | ArchiveFormat::Gzip | ArchiveFormat::Zip))
    )
}

fn tell_size(bytes: usize, out: &Out) {
    out.progress(&format!("sending {}, then checking and loading the bundle …", text::size(bytes as u64)));
}

/// Packs a folder as a tar.gz. Equal files give equal bytes.
fn pack(folder: &Path, wanted: &SourceOptions, out: &Out) -> Result<Vec<u8>, CliError> {
    let mut files = deploy::list_needed(folder, wanted, FILES_MAX)?;
    files.sort();
    let encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut archive = tar::Builder::new(encoder);
    let mut read = 0;
    for (number, (name, path)) in files.iter().enumerate() {
        let at_path = |source| CliError::Input { path: path.clone(), source };
        let metadata = fs::symlink_metadata(path).map_err(at_path)?;
        if !metadata.is_file() {
            return Err(at_path(io::Error::other("it is not a regular file; links are not followed")));
        }
        if read + metadata.len() > BYTES_MAX as u64 {
            let message = format!("{} holds more than {BYTES_MAX} bytes, which no daemon accepts", folder.display());
            return Err(CliError::usage(message));
        }
        let content = fs::read(path).map_err(at_path)?;
        read += content.len() as u64;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{WRAPPER}/{name}"), content.as_slice()).map_err(at_path)?;
        if number % FILES_PER_STEP == 0 {
            out.progress(&format!("packing {} of {} files, {} …", number + 1, files.len(), text::size(read)));
        }
    }
    archive.into_inner().and_then(GzEncoder::finish).map_err(CliError::System)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = Out { is_json: true };
        for name in ["b.js", "index.js", ".env"] {
            fs::write(folder.path().join(name), name).expect("a file");
        }
        let packed = pack(folder.path(), &SourceOptions::default(), &out).expect("it is packed");
        assert_eq!(pack(folder.path(), &SourceOptions::default(), &out).expect("it is packed"), packed);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let entries = archive.entries().expect("a tar");
        let names: Vec<_> = entries.map(|it| it.expect("an entry").path().expect("a path").into_owned()).collect();
        assert_eq!(names, [Path::new("levain-bundle/b.js"), Path::new("levain-bundle/index.js")]);
        std::os::unix::fs::symlink("b.js", folder.path().join("link.js")).expect("a link");
        let error = pack(folder.path(), &SourceOptions::default(), &out).expect_err("a link is refused");
        assert!(error.to_string().contains("link.js"), "{error}");
    }

    #[test]
    fn a_file_is_sent_as_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let sent = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("a file");
            let bundle_path = Some(String::from("there"));
            let mut request = DeployRequest { bundle_path, ..DeployRequest::default() };
            put(&mut request, &path, &Out { is_json: true }).map(|()| request)
        };
        let code = sent("main.ts", b"export {}").expect("code");
        assert_eq!((code.bundle_path, code.entry.as_deref(), code.archive), (None, Some("main.ts"), None));
        assert_eq!(code.bundle.expect("code").0, "export {}");
        let archive = sent("x.js", b"PK\x03\x04").expect("an archive");
        assert_eq!((archive.bundle, archive.entry, archive.archive.is_some()), (None, None, true));
        assert!(sent("x.txt", b"words").is_err());
        assert!(sent("x.js", b"BZh()").expect("code").bundle.is_some());
        assert!(sent("x.bz2", b"BZh9").expect("an archive, which the daemon refuses").archive.is_some());
        let mut request = DeployRequest::default();
        put_bytes(&mut request, Bytes::from_static(b"\x1f\x8b\x08"));
        assert!(request.archive.is_some() && request.bundle.is_none());
    }
}
