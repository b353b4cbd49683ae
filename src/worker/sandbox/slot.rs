//! The place of one worker: its folder, who it is, and the code that the daemon puts there for it.
//!
//! A process is confined before anybody knows which function it will run, and so it is born with an empty folder that is
//! read-only to it. The daemon fills it from outside when the function is known. Nothing else of the daemon's files can
//! be seen from where the worker is.
//!
//! **Invariant.** What the daemon uses of a worker's files it has found before a function was loaded: afterwards every
//! name there may lead anywhere.

use super::{
    super::{cgroup::Group, folder::Folder},
    users::User,
};
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

/// The worker's socket, in its home.
pub(in super::super) const SOCKET_NAME: &str = "s";

/// So many files are placed sooner than another thread could begin to.
const FEW_FILES: usize = 4;

/// What the daemon fills.
const BUNDLE: &str = "bundle";

/// Permissions of what a process owns that writes to the folder of its code.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o444;

/// Where a worker writes that has no `/tmp` of its own.
const HOME: &str = "home";

/// The place of one worker. It goes when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Slot {
    folder: Folder,
    /// Who it is; none: who the daemon is.
    user: Option<User>,
    /// What limits its processes together.
    group: Option<Arc<Group>>,
    /// How the worker sees its place.
    view: View,
}

/// What a worker sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum View {
    /// A root of its own: its code is in `/bundle`, its home is `/tmp`, and only the daemon can write to its code.
    OwnRoot,
    /// The machine's files.
    Machine,
}

impl Slot {
    pub(super) fn new(path: &Path, view: View, user: Option<User>, group: Option<Group>) -> io::Result<Self> {
        let folder = Folder::new(path)?;
        fs::create_dir(path.join(BUNDLE))?;
        fs::set_permissions(path.join(BUNDLE), Permissions::from_mode(0o755))?;
        if view == View::Machine {
            fs::create_dir(path.join(HOME))?;
            fs::set_permissions(path.join(HOME), Permissions::from_mode(0o700))?;
        }
        Ok(Self { folder, user, group: group.map(Arc::new), view })
    }

    /// The number of the user it runs as, if it is one of its own.
    pub(super) fn user(&self) -> Option<u32> {
        self.user.as_ref().map(User::number)
    }

    /// What limits its processes together.
    pub(in super::super) fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// The folder of its code, as the daemon sees it.
    pub(in super::super) fn bundle(&self) -> PathBuf {
        self.folder.path.join(BUNDLE)
    }

    /// The folder of its code, as the worker sees it.
    pub(in super::super) fn bundle_inside(&self) -> PathBuf {
        match self.view {
            View::OwnRoot => super::root::BUNDLE.into(),
            View::Machine => self.bundle(),
        }
    }

    /// The folder it starts and writes in, as it sees it.
    pub(in super::super) fn home_inside(&self) -> PathBuf {
        match self.view {
            View::OwnRoot => super::root::HOME.into(),
            View::Machine => self.folder.path.join(HOME),
        }
    }

    /// Takes the socket that the worker serves: from now on it can be reached through this descriptor only. To be called
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
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what a worker serves is no socket"));
        }
        unlinkat(home.as_fd(), SOCKET_NAME, UnlinkatFlags::NoRemoveDir)?;
        Ok(socket)
    }

    /// Makes a folder for a process that writes to the folder of its code, of the same files as another one; it is the
    /// owner of all of it. To be called while nothing runs there.
    pub(in super::super) fn fill(&self, name: &str, from: &Path) -> io::Result<()> {
        let to = self.bundle().join(name);
        fs::create_dir(&to)?;
        // Whatever the view: a second name of a file would be given away with the first one.
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

    /// Makes an empty folder of that kind.
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

    /// Puts all files of a folder where the worker finds them.
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

/// Copies a folder into one that exists. A file becomes a second name of the same file where its reader cannot change it:
/// that takes no time and no room.
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
