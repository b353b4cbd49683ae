//! Socket paths of any length. An address has room for a path of 107 bytes; a longer path is reached through its
//! folder, which is opened and named by its descriptor below `/proc`.

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Most bytes of a path in `sockaddr_un`, without its final zero byte.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A path that fits into a socket's address, valid while this lives.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    /// Folder that a shortened path goes through.
    folder: Option<OwnedFd>,
}

impl ShortPath {
    /// Returns the path itself, or a short one to the same place. Fails if the folder cannot be opened, and with
    /// `InvalidFilename` if the name alone is too long.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), folder: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        // A relative path of a single component has an empty parent.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(parent, flags, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        if short.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        Ok(Self { path: short, folder: Some(folder) })
    }

    /// Path to bind or connect to.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// Whether the path differs from the original one.
    #[must_use]
    pub fn is_shortened(&self) -> bool {
        self.folder.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::net};

    #[test]
    fn a_path_of_any_length_is_bound_and_reached() {
        let root = tempfile::tempdir().expect("a folder");
        let deep = root.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).expect("folders");
        let path = deep.join("s");
        let bound = ShortPath::new(&path).expect("the folder is there");
        assert!(bound.is_shortened() && bound.as_path() != path);
        let _listener = net::UnixListener::bind(bound.as_path()).expect("a short address");
        assert!(path.exists(), "the socket file is at the long path");
        let reached = ShortPath::new(&path).expect("the folder is there");
        net::UnixStream::connect(reached.as_path()).expect("it is reached");

        let near = root.path().join("s");
        assert_eq!(ShortPath::new(&near).expect("it is short").as_path(), near);
        let named = ShortPath::new(&deep.join("n".repeat(120))).expect_err("the name alone is too long");
        assert_eq!(named.kind(), io::ErrorKind::InvalidFilename);
        let absent = ShortPath::new(&deep.join("absent/s")).expect_err("there is no folder");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
