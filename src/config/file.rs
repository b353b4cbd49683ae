//! Reading the configuration file: it must be a regular file of bounded size, so that reading never blocks.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Most bytes of the file: more than a hundred times the size of `config.toml` with its comments.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the whole file. A pipe, a device or a folder is refused before it is read: a pipe may never begin or end, and
/// a device such as `/dev/zero` has no end.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Checked before opening, because opening some devices has side effects.
    regular(&fs::metadata(path)?)?;
    // Without O_NONBLOCK, opening a pipe waits for a writer. The file may have been replaced since the first check, so
    // its type is checked again.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    regular(&file.metadata()?)?;
    let mut text = String::new();
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        let what = format!("it has more than {FILE_BYTES_MAX} bytes, too many for a configuration; name another file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = "it is not a regular file; write the configuration to a file and give its path";
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::os::unix::fs::symlink("/dev/zero", at("zero")).expect("a link");
        fs::write(at("large"), vec![b'#'; 1 << 20]).expect("a file");
        fs::write(at("too-large"), vec![b'#'; (1 << 20) + 1]).expect("a file");
        for name in ["pipe", "zero", "."] {
            let error = read(&at(name)).expect_err("no regular file");
            assert!(error.to_string().contains("regular file"), "{name}: {error}");
        }
        let error = read(&at("too-large")).expect_err("too large");
        assert!(error.to_string().contains("1048576"), "{error}");
        assert_eq!(read(&at("large")).expect("just fits").len(), 1 << 20);
    }
}
