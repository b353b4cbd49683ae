//! The slot of one worker: its folder, its user, and the code that the daemon puts there.
//!
//! A process is confined before its function is known, so it starts with an empty folder that is read-only to it. The
//! daemon fills the folder from outside once the function is known. The worker sees nothing else of the daemon's files.
//!
//! **Invariant.** The daemon opens every file of a worker that it uses before a function is loaded: afterwards any name
//! there may lead anywhere.

use super::users::User;
use crate::worker::{cgroup::ControlGroup, folder::Folder};
use nix::{
    fcntl::{AT_FDCWD, OFlag, open},
    sys::stat::{Mode, SFlag, fstat},
    unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat},
};
use std::{
    fs::{self, DirEntry, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::spawn_blocking;

/// Name of the worker's socket, in its home.
pub(in super::super) const SOCKET_NAME: &str = "s";

/// Number of files up to which the copy is faster than handing it to another thread.
const FEW_FILES: usize = 4;

/// Folder that the daemon fills with code.
const BUNDLE: &str = "bundle";

/// Permissions of files owned by a process that writes to the folder of its code.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o444;

/// Folder to write in for a worker without a `/tmp` of its own.
const HOME: &str = "home";

/// The slot of one worker. Dropping it removes the folder.
#[derive(Debug)]
pub(in super::super) struct Slot {
    folder: Folder,
    /// The worker's own user; `None` if it runs as the daemon's.
    user: Option<User>,
    /// Control group of the worker's processes.
    group: Option<Arc<ControlGroup>>,
    /// The worker's view of its files.
    view: View,
}

/// View that a worker has of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum View {
    /// A root of its own: the code is in `/bundle`, the home is `/tmp`, and only the daemon can write to the code.
    OwnRoot,
    /// The machine's files.
    Machine,
}

impl Slot {
    pub(super) fn new(path: &Path, view: View, user: Option<User>, group: Option<ControlGroup>) -> io::Result<Self> {
        let folder = Folder::new(path)?;
        fs::create_dir(path.join(BUNDLE))?;
        fs::set_permissions(path.join(BUNDLE), Permissions::from_mode(0o755))?;
        if view == View::Machine {
            fs::create_dir(path.join(HOME))?;
            fs::set_permissions(path.join(HOME), Permissions::from_mode(0o700))?;
        }
        Ok(Self { folder, user, group: group.map(Arc::new), view })
    }

    /// Number of the user that the worker runs as, if it has its own.
    pub(super) fn user(&self) -> Option<u32> {
        self.user.as_ref().map(User::number)
    }

    /// Control group of the worker's processes.
    pub(in super::super) fn group(&self) -> Option<&Arc<ControlGroup>> {
        self.group.as_ref()
    }

    /// Folder of the code, as the daemon sees it.
    pub(in super::super) fn bundle(&self) -> PathBuf {
        self.folder.path.join(BUNDLE)
    }

    /// Folder of the code, as the worker sees it.
    pub(in super::super) fn bundle_inside(&self) -> PathBuf {
        match self.view {
            View::OwnRoot => super::root::BUNDLE.into(),
            View::Machine => self.bundle(),
        }
    }

    /// Folder in which the worker starts and writes, as the worker sees it.
    pub(in super::super) fn home_inside(&self) -> PathBuf {
        match self.view {
            View::OwnRoot => super::root::HOME.into(),
            View::Machine => self.folder.path.join(HOME),
        }
    }

    /// Takes the socket that the worker serves: from now on it can be reached only through this descriptor. Call this
    /// before a function is loaded.
    pub(in super::super) fn take_socket(&self, pid: u32) -> io::Result<OwnedFd> {
        let home = match self.view {
            View::OwnRoot => PathBuf::from(format!("/proc/{pid}/root{}", super::root::HOME)),
            View::Machine => self.home_inside(),
        };
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let home = open(&home, flags | OFlag::O_DIRECTORY, Mode::empty())?;
        let socket = nix::fcntl::openat(home.as_fd(), SOCKET_NAME, flags, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(socket.as_fd())?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFSOCK {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file at a worker's socket path is not a socket",
            ));
        }
        unlinkat(home.as_fd(), SOCKET_NAME, UnlinkatFlags::NoRemoveDir)?;
        Ok(socket)
    }

    /// Copies a folder into the code folder of a process that writes there, which becomes the owner of all of it. Call
    /// this while nothing runs there.
    pub(in super::super) fn fill(&self, name: &str, from: &Path) -> io::Result<()> {
        let to = self.bundle().join(name);
        fs::create_dir(&to)?;
        // Always a copy, whatever the view: with a hard link the original would change its owner too.
        place(from, &to, View::Machine)?;
        let mut folders = vec![to];
        self.give(&self.bundle(), FOLDER_MODE)?;
        while let Some(folder) = folders.pop() {
            self.give(&folder, FOLDER_MODE)?;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => folders.push(entry.path()),
                    false => self.give(&entry.path(), FILE_MODE)?,
                }
            }
        }
        Ok(())
    }

    /// Creates an empty folder owned by the process that writes there.
    pub(in super::super) fn make_folder(&self, relative: &Path) -> io::Result<()> {
        let path = self.bundle().join(relative);
        fs::create_dir(&path)?;
        self.give(&path, FOLDER_MODE)
    }

    fn give(&self, path: &Path, mode: u32) -> io::Result<()> {
        let user = self.user();
        lchown(path, user, user)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    /// Puts all files of a folder into the worker's code folder.
    pub(in super::super) async fn deliver(&self, folder: &Path) -> io::Result<()> {
        let (from, to, view) = (folder.to_owned(), self.bundle(), self.view);
        let entries: Vec<_> = fs::read_dir(folder)?.take(FEW_FILES + 1).flatten().collect();
        let is_file = |entry: &DirEntry| entry.file_type().is_ok_and(|it| it.is_file());
        if entries.len() <= FEW_FILES && entries.iter().all(is_file) {
            return place(&from, &to, view);
        }
        spawn_blocking(move || place(&from, &to, view)).await.map_err(io::Error::other)?
    }
}

/// Copies a folder into an existing one. A file whose reader cannot change it becomes a hard link, which takes no time
/// and no room.
fn place(from: &Path, to: &Path, view: View) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            fs::set_permissions(&to, Permissions::from_mode(0o755))?;
            place(&from, &to, view)?;
        } else if view == View::Machine || linkat(AT_FDCWD, &from, AT_FDCWD, &to, LinkatFlags::empty()).is_err() {
            fs::copy(&from, &to)?;
            fs::set_permissions(&to, Permissions::from_mode(0o444))?;
        }
    }
    Ok(())
}
