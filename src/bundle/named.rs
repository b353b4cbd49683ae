//! Access to a file or folder that somebody names on this machine.
//!
//! A folder is opened once, and everything in it is found from there, never by its path again. Its owner may exchange
//! entries at any time: no name in it leads out of it, because links are never followed (`openat2`). Only the named
//! path itself may contain links.
//!
//! With a [`UnixUser`], opening happens with that user's rights. Open files are then read by the daemon.

use super::user::{AsUser, UnixUser};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};
use std::{
    ffi::OsString,
    fmt,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file or folder found at a path.
#[derive(Debug)]
pub enum SourceEntry {
    /// A folder.
    Folder(SourceFolder),
    /// A regular file, and its path with all links resolved.
    File(File, PathBuf),
    /// Anything else, and its path with all links resolved.
    Other(PathBuf),
}

/// An open folder. Clones share it.
#[derive(Clone)]
pub struct SourceFolder(Arc<OpenFolder>);

struct OpenFolder {
    folder: OwnedFd,
    path: PathBuf,
    user: Option<AsUser>,
    uid: Option<u32>,
}

impl fmt::Debug for SourceFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceFolder").field(&self.0.path).finish()
    }
}

/// A path that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// This process may not take the identity of the user.
    #[error("{0}")]
    Identity(#[source] io::Error),
    /// The path itself cannot be opened.
    #[error("{0}")]
    Path(#[from] io::Error),
}

impl SourceEntry {
    /// Opens a path named by somebody else, with the rights of a user or those of this process. `/proc/self/fd` and
    /// `/proc/self/cwd` are refused: they would lead to files that this process has open, bypassing the permissions on
    /// the way to them.
    pub fn open(path: &Path, user: Option<&UnixUser>) -> Result<Self, NotOpened> {
        Self::open_by(path, user, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// Opens a path named by this process itself, which may refer to its own open files.
    pub fn open_own(path: &Path) -> Result<Self, NotOpened> {
        Self::open_by(path, None, ResolveFlag::empty())
    }

    fn open_by(path: &Path, user: Option<&UnixUser>, resolve: ResolveFlag) -> Result<Self, NotOpened> {
        let uid = user.map(|it| it.uid);
        let user = user.map(AsUser::start).transpose().map_err(NotOpened::Identity)?;
        let named = path.to_owned();
        let (place, file) = with(user.as_ref(), move || {
            // Anything but a folder or a regular file is only inspected, because opening a device can have side
            // effects.
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
            let place = openat2(AT_FDCWD, named.as_path(), how)?;
            let file = File::from(place.try_clone()?).metadata()?.is_file().then(|| reopen(&place)).transpose()?;
            Ok((place, file))
        })?;
        if let Some(file) = file {
            return Ok(Self::File(file, real_path(&place)?));
        }
        let place = File::from(place);
        if !place.metadata()?.is_dir() {
            return Ok(Self::Other(real_path(&place)?));
        }
        Ok(Self::Folder(SourceFolder(Arc::new(OpenFolder { folder: place.into(), path: path.to_owned(), user, uid }))))
    }
}

impl SourceFolder {
    /// Returns the path of an entry, without a trailing slash.
    #[must_use]
    pub fn path_of(&self, inside: &str) -> PathBuf {
        match inside.trim_end_matches('/') {
            "" => self.0.path.clone(),
            inside => self.0.path.join(inside),
        }
    }

    /// Returns the user whose rights apply, if not those of this process.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.0.uid
    }

    /// Opens a regular file by its path in the folder. Anything else is `InvalidData`: a folder, a device, a pipe, or a
    /// link, also on the way there.
    pub fn open(&self, inside: &str) -> io::Result<File> {
        let file = match self.beneath(inside, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            // ELOOP means a link; ENXIO a socket, which cannot be opened at all.
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
                return Err(super::tree::foreign());
            }
            outcome => File::from(outcome?),
        };
        if file.metadata()?.is_file() { Ok(file) } else { Err(super::tree::foreign()) }
    }

    /// Whether there is a regular file at this path.
    #[must_use]
    pub fn has(&self, inside: &str) -> bool {
        let place = self.beneath(inside, OFlag::O_PATH);
        place.and_then(|it| File::from(it).metadata()).is_ok_and(|it| it.is_file())
    }

    /// Lists a subfolder, or this folder if `inside` is empty: the names, and whether each is a folder.
    pub fn list(&self, inside: &str) -> io::Result<Vec<(OsString, bool)>> {
        let inside = if inside.is_empty() { "." } else { inside };
        let folder = self.beneath(inside, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        // The standard library reads folders by path only; this path leads to the open folder.
        let children = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
        children.map(|child| child.and_then(|it| Ok((it.file_name(), it.file_type()?.is_dir())))).collect()
    }

    fn beneath(&self, inside: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let (own, inside) = (Arc::clone(&self.0), inside.to_owned());
        let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC);
        let how = how.resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        with(self.0.user.as_ref(), move || Ok(openat2(&own.folder, Path::new(&inside), how)?))
    }
}

fn with<T: Send + 'static>(
    user: Option<&AsUser>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match user {
        Some(user) => user.run(work),
        None => work(),
    }
}

/// Opens for reading what is open as a location only (`O_PATH`). The rights are those of the calling thread.
fn reopen(place: &OwnedFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match open(Path::new(&path), flags, Mode::empty()) {
        Err(Errno::ENOENT) => Err(io::Error::other("opening it needs /proc, which is missing")),
        opened => Ok(File::from(opened?)),
    }
}

/// Returns the path of an open file or folder.
fn real_path(place: &impl AsRawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(path: &Path) -> SourceFolder {
        match SourceEntry::open(path, None) {
            Ok(SourceEntry::Folder(folder)) => folder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_name_in_a_folder_leads_out_of_it() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("in/sub")).expect("folders");
        fs::create_dir(at("out")).expect("a folder");
        for path in ["in/sub/a", "out/a"] {
            fs::write(at(path), path).expect("a file");
        }
        symlink(at("out"), at("in/link")).expect("a link");
        symlink("sub/a", at("in/short")).expect("a link");
        // The named path itself may contain links.
        symlink(at("in"), at("named")).expect("a link");
        let named = folder(&at("named"));
        let read = |inside: &str| named.open(inside).and_then(io::read_to_string).map_err(|it| it.kind());
        assert_eq!(read("sub/a").as_deref(), Ok("in/sub/a"));
        for inside in ["link/a", "short", "link", "sub"] {
            assert_eq!(read(inside), Err(io::ErrorKind::InvalidData), "{inside}");
            assert!(!named.has(inside), "{inside}");
        }
        for inside in ["../out/a", "/etc/passwd", "sub/../../out/a"] {
            assert!(named.open(inside).is_err() && named.list(inside).is_err(), "{inside}");
        }
        assert!(named.has("sub/a") && !named.has("absent") && named.list("link").is_err());
        let mut names = named.list("").expect("a listing");
        names.sort();
        let expected = [("link", false), ("short", false), ("sub", true)].map(|(name, it)| (name.into(), it));
        assert_eq!(names, expected);
        // Later changes to the named path do not matter.
        fs::remove_file(at("named")).expect("it goes");
        symlink(at("out"), at("named")).expect("a link");
        assert_eq!(read("sub/a").as_deref(), Ok("in/sub/a"));
        assert!(named.open("a").is_err());
    }

    #[test]
    fn what_this_process_has_open_has_no_path_for_others() {
        let root = tempfile::tempdir().expect("a folder");
        let open = File::open(root.path()).expect("it is open");
        for path in [format!("/proc/self/fd/{}", open.as_raw_fd()), "/proc/self/cwd".into(), "/proc/self/root".into()] {
            assert!(matches!(SourceEntry::open(Path::new(&path), None), Err(NotOpened::Path(_))), "{path}");
            assert!(matches!(SourceEntry::open_own(Path::new(&path)), Ok(SourceEntry::Folder(_))), "{path}");
        }
        assert!(
            matches!(SourceEntry::open(Path::new("/dev/null"), None), Ok(SourceEntry::Other(path)) if path == Path::new("/dev/null"))
        );
    }
}
