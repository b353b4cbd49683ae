//! The lock of a data directory: one daemon at a time.
//!
//! Both the directory and a lock file in it are locked. The directory's lock is the one that counts, because removing
//! or replacing a file cannot undo it. The lock file names the process, and is what an older Levain locks. A lock file
//! that is removed while the daemon runs is created again.

use super::StartError;
use crate::file_id::FileId;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal,
    unistd::Pid,
};
use parking_lot::Mutex;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Weak,
    thread,
    time::{Duration, Instant},
};

/// Name of the lock file.
const LOCK_FILE: &str = "levain.lock";

/// Time to wait for a lock that a killed daemon's leftovers still hold: a worker that was just being started keeps the
/// daemon's files open until it executes its own program, which takes a while on a busy machine.
const LOCK_GRACE: Duration = Duration::from_secs(5);

/// Interval of the attempts meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Interval at which the daemon checks that the lock file exists. A check is one system call.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// Exclusive hold of a data directory; dropping it frees the directory.
#[derive(Debug)]
pub(super) struct DataLock {
    path: PathBuf,
    file: Mutex<Flock<File>>,
    /// `None` on a file system that cannot lock folders, such as NFS.
    _directory: Option<Flock<File>>,
}

/// Creates the data directory and takes its lock.
pub(super) fn lock(data_dir: &Path) -> Result<DataLock, StartError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::DataDir { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(at(data_dir))?;
    let path = data_dir.join(LOCK_FILE);
    let taken = || {
        let holder = holder(&path).map_or_else(String::new, |pid| format!(" (process {pid})"));
        StartError::Locked { path: data_dir.to_owned(), holder }
    };
    let directory = match acquire(File::open(data_dir).map_err(at(data_dir))?, &path) {
        Ok(lock) => Some(lock),
        Err(Errno::EWOULDBLOCK) => return Err(taken()),
        Err(error) => {
            tracing::debug!(%error, "the data directory itself cannot be locked; only its lock file is");
            None
        }
    };
    let file = match acquire(open(&path).map_err(at(&path))?, &path) {
        Ok(lock) => lock,
        Err(Errno::EWOULDBLOCK) => return Err(taken()),
        Err(error) => return Err(at(&path)(error.into())),
    };
    sign(&file).map_err(at(&path))?;
    Ok(DataLock { path, file: Mutex::new(file), _directory: directory })
}

/// Watches the lock file until the daemon releases the lock.
pub(super) async fn keep(lock: Weak<DataLock>) {
    let mut look = tokio::time::interval(FILE_INTERVAL);
    let mut is_lost = false;
    loop {
        look.tick().await;
        let Some(lock) = lock.upgrade() else { return };
        match lock.look_after_file() {
            Ok(false) => is_lost = false,
            Ok(true) => tracing::warn!(path = %lock.path.display(), "the lock file was removed: it is created again"),
            Err(error) if !is_lost => {
                is_lost = true;
                tracing::error!(path = %lock.path.display(), %error, "the lock file was removed and cannot be created again");
            }
            Err(_) => {}
        }
    }
}

impl DataLock {
    /// Creates the lock file again if it is gone or replaced. Returns whether it was.
    fn look_after_file(&self) -> io::Result<bool> {
        let mut lock = self.file.lock();
        if FileId::at(&self.path) == Some(FileId::from(&lock.metadata()?)) {
            return Ok(false);
        }
        let file = Flock::lock(open(&self.path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        sign(&file)?;
        *lock = file;
        Ok(true)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes the daemon's process id into the lock file.
fn sign(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

/// Locks a file or folder. Fails at once if the named holder is alive; if it is dead or unknown, waits for its
/// leftovers to release the lock.
fn acquire(file: File, named_in: &Path) -> Result<Flock<File>, Errno> {
    let patience = Instant::now() + LOCK_GRACE;
    let mut locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    while let Err((file, Errno::EWOULDBLOCK)) = locked {
        if holder(named_in).is_some_and(is_alive) || Instant::now() >= patience {
            return Err(Errno::EWOULDBLOCK);
        }
        thread::sleep(LOCK_POLL);
        locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    }
    locked.map_err(|(_, error)| error)
}

/// Returns the process that the lock file names.
fn holder(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Whether a process still runs. Every answer of the system but `ESRCH` counts as alive.
fn is_alive(pid: i32) -> bool {
    signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}
