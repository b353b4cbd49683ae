//! A thread that accesses files with another user's rights.
//!
//! The daemon reads paths that a peer of the command socket names, and must not read files that the peer cannot read.
//! So a dedicated thread takes the peer's identity permanently, opens the requested paths, and ends with its owner. No
//! other thread of the daemon ever has that identity, and no thread has to give it back.
//!
//! The thread changes only the ids that apply to files. With another real or effective user id, the peer could send
//! signals to the thread and thereby to the daemon.

#![allow(unsafe_code, reason = "the wrappers of setgroups change all threads, and capset has none")]

use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use std::{io, sync::mpsc, thread};

/// Identity of a peer, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

type UserJob = Box<dyn FnOnce() + Send>;

/// Handle of the thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct AsUser {
    jobs: mpsc::Sender<UserJob>,
}

impl AsUser {
    /// Starts the thread. Fails if this process may not take the identity.
    pub(super) fn start(user: &UnixUser) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<UserJob>();
        let (tell, told) = mpsc::sync_channel(1);
        let user = user.clone();
        thread::Builder::new().name("levain-as-user".into()).spawn(move || {
            let outcome = become_user(&user);
            let is_done = outcome.is_ok();
            // `start` waits for this message.
            drop(tell.send(outcome));
            if is_done {
                waiting.into_iter().for_each(|job| job());
            }
        })?;
        told.recv().unwrap_or_else(|_| Err(ended()))?;
        Ok(Self { jobs })
    }

    /// Runs a closure with the user's rights, and waits for its result.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = mpsc::sync_channel(1);
        self.jobs.send(Box::new(move || drop(tell.send(work())))).map_err(|_| ended())?;
        told.recv().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that reads as another user has ended")
}

/// Gives this thread the user's rights to files, and no capabilities.
fn become_user(user: &UnixUser) -> io::Result<()> {
    let is_dumpable = prctl::get_dumpable()?;
    set_groups(&user.groups)?;
    setfsgid(Gid::from_raw(user.gid));
    setfsuid(Uid::from_raw(user.uid));
    // Neither call reports success. Asked for an invalid id, both return the current id and change nothing.
    let (gid, uid) = (setfsgid(Gid::from_raw(u32::MAX)), setfsuid(Uid::from_raw(u32::MAX)));
    if (uid.as_raw(), gid.as_raw()) != (user.uid, user.gid) {
        return Err(Errno::EPERM.into());
    }
    drop_capabilities()?;
    // The kernel clears the flag of the whole process when an id of one thread changes.
    prctl::set_dumpable(is_dumpable)?;
    Ok(())
}

/// Sets the groups of this thread only, as the plain system call does.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many numbers as the length says, and the slice has them.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Drops all capabilities. The kernel does so by itself only if the thread's file-system user id was root's, and can be
/// told not to.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, and this thread.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    const NONE: [u32; 6] = [0; 6];
    // SAFETY: the structures are a version and a number, and twice three sets of 32 bits; the kernel only reads them.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), NONE.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    /// Returns the lines of `/proc` about this thread's rights.
    fn rights() -> io::Result<Vec<String>> {
        let text = fs::read_to_string("/proc/thread-self/status")?;
        let is_one =
            |it: &&str| ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"].iter().any(|name| it.starts_with(name));
        Ok(text.lines().filter(is_one).map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
    }

    #[test]
    fn the_thread_reads_as_the_user_and_no_other_thread_does() {
        if !Uid::effective().is_root() {
            // An unprivileged user cannot take another identity.
            assert!(AsUser::start(&UnixUser { uid: 65_534, gid: 65_534, groups: Vec::new() }).is_err());
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let (secret, shared) = (folder.path().join("secret"), folder.path().join("shared"));
        for (path, gid, mode) in [(&secret, 0, 0o600), (&shared, 4_321, 0o640)] {
            fs::write(path, "text").expect("a file");
            std::os::unix::fs::chown(path, Some(0), Some(gid)).expect("an owner");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        }
        let before = rights().expect("a status");
        let user = AsUser::start(&UnixUser { uid: 65_534, gid: 65_533, groups: vec![4_321] }).expect("root may");
        let read = |path: &std::path::Path| {
            let path = path.to_owned();
            user.run(move || fs::read_to_string(path)).map_err(|it| it.kind())
        };
        assert_eq!(read(&secret), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(read(&shared).as_deref(), Ok("text"), "access through one of its groups");
        let other = AsUser::start(&UnixUser { uid: 65_534, gid: 65_533, groups: Vec::new() }).expect("root may");
        let path = shared.clone();
        assert!(other.run(move || fs::read_to_string(path)).is_err(), "the user is not in that group");
        let taken = user.run(rights).expect("a status");
        assert_eq!(taken[0], "Uid: 0 0 0 65534");
        assert_eq!(taken[1], "Gid: 0 0 0 65533");
        assert_eq!(taken[2], "Groups: 4321");
        assert!(taken[3..].iter().all(|it| it.ends_with(" 0000000000000000")), "{taken:?}");
        assert_eq!(rights().expect("a status"), before);
        assert_eq!(fs::read_to_string(&secret).expect("this thread may"), "text");
    }
}
