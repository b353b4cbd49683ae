//! The lock of a data directory: one daemon at a time.

use super::StartError;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal,
    unistd::Pid,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The file whose lock says that a data directory is in use.
const LOCK_FILE: &str = "levain.lock";

/// How long the lock may be held by what is left of a daemon that was killed: a worker it was just starting has the
/// daemon's files until it runs a program of its own, which takes a while on a busy machine.
const LOCK_GRACE: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Makes the data directory and takes its lock.
pub(super) fn lock(data_dir: &Path) -> Result<Flock<File>, StartError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::DataDir { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(at(data_dir))?;
    let path = data_dir.join(LOCK_FILE);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut locked = Flock::lock(file.map_err(at(&path))?, FlockArg::LockExclusiveNonblock);
    let patience = Instant::now() + LOCK_GRACE;
    while let Err((file, Errno::EWOULDBLOCK)) = locked {
        if is_alive(&path) || Instant::now() >= patience {
            locked = Err((file, Errno::EWOULDBLOCK));
            break;
        }
        thread::sleep(LOCK_POLL);
        locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    }
    match locked {
        Ok(mut lock) => {
            let written = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
            written.map_err(at(&path))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let holder = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
            Err(StartError::Locked { path: data_dir.to_owned(), holder })
        }
        Err((_, error)) => Err(at(&path)(error.into())),
    }
}

/// Whether the daemon that the lock file names still runs. One that is not known is given the benefit of the wait.
fn is_alive(path: &Path) -> bool {
    let pid = fs::read_to_string(path).ok().and_then(|it| it.trim().parse::<i32>().ok()).filter(|it| *it > 0);
    pid.is_some_and(|pid| signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}
