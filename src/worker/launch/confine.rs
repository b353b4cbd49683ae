//! Confinement of a process: plain data, prepared before the `clone` call and carried out by its child.

use super::Resource;
use seccompiler::BpfProgram;
use std::{
    ffi::{CStr, CString, OsStr, c_int},
    fmt,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
};

/// All isolation of a process from the machine. The default isolates nothing.
#[derive(Debug, Default)]
pub struct Confinement {
    /// New namespaces, as `CLONE_NEW…` flags.
    pub namespaces: c_int,
    /// Steps before the process gives up the daemon's rights, in this order.
    pub steps: Vec<ConfineStep>,
    /// Identity in its user namespace, if the daemon sets it; otherwise the process sets it itself, in a step.
    pub user_map: Option<UserMap>,
    /// User and group that the process changes to; `None` if it keeps the daemon's.
    pub identity: Option<u32>,
    /// Whether the process gives up every capability, for ever.
    pub drop_capabilities: bool,
    /// Landlock ruleset.
    pub ruleset: Option<Arc<OwnedFd>>,
    /// Filters of system calls. All of them apply; the last one is asked first.
    pub filters: Vec<Arc<BpfProgram>>,
}

/// A user and group of the same number in a user namespace, and their number outside. The daemon needs `CAP_SETUID` and
/// `CAP_SETGID`.
#[derive(Debug, Clone, Copy)]
pub struct UserMap {
    /// Number inside the namespace.
    pub inside: u32,
    /// Number in the daemon's namespace.
    pub outside: u32,
}

/// One action of the child in the namespaces it was created in.
#[derive(Debug)]
pub enum ConfineStep {
    /// Writes a file: a process enters a control group this way, or sets its identity in its user namespace.
    Write {
        /// The file, which exists.
        path: CString,
        /// The whole content, written in one call.
        text: CString,
    },
    /// Mounts a file system, or a file or folder again.
    Mount(MountCall),
    /// Makes a mount read-only, without set-user-id programs.
    ReadOnly(CString),
    /// Changes the working folder.
    WorkingDir(CString),
    /// Makes the working folder, a mount of its own, the root, and puts the old root out of reach.
    SwapRoot,
    /// Starts the loopback device of a new network namespace.
    Loopback,
}

/// Arguments of one `mount` call.
#[derive(Debug)]
pub struct MountCall {
    /// Source of the mount.
    pub source: CString,
    /// Mount point.
    pub target: CString,
    /// Type of the file system; `None` for a bind mount or a change of propagation.
    pub kind: Option<&'static CStr>,
    /// `MS_…` flags.
    pub flags: libc::c_ulong,
    /// Options of the file system.
    pub options: Option<CString>,
}

impl ConfineStep {
    /// Mounts a file or folder at a second place.
    ///
    /// # Panics
    /// When a path contains a zero byte, like the constructors below: no existing path does.
    #[must_use]
    pub fn bind(source: &Path, target: &Path) -> Self {
        let flags = libc::MS_BIND | libc::MS_REC;
        Self::Mount(MountCall { source: text(source), target: text(target), kind: None, flags, options: None })
    }

    /// Mounts a file system that needs no device, without executable files.
    #[must_use]
    pub fn file_system(kind: &'static CStr, target: &Path, options: Option<&str>) -> Self {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let options = options.map(text);
        Self::Mount(MountCall { source: kind.into(), target: text(target), kind: Some(kind), flags, options })
    }

    /// Isolates mounts made here from the rest of the machine, and the other way round.
    #[must_use]
    pub fn private_mounts() -> Self {
        let (source, target) = (c"none".into(), c"/".into());
        Self::Mount(MountCall { source, target, kind: None, flags: libc::MS_REC | libc::MS_PRIVATE, options: None })
    }

    /// Makes a mount read-only.
    #[must_use]
    pub fn read_only(target: &Path) -> Self {
        Self::ReadOnly(text(target))
    }

    /// Changes the working folder.
    #[must_use]
    pub fn go_to(folder: &Path) -> Self {
        Self::WorkingDir(text(folder))
    }

    /// Writes a file.
    #[must_use]
    pub fn write(path: &Path, content: &str) -> Self {
        Self::Write { path: text(path), text: text(content) }
    }
}

fn text(text: impl AsRef<OsStr>) -> CString {
    CString::new(text.as_ref().as_bytes()).expect("existing paths and the daemon's own options contain no zero byte")
}

impl fmt::Display for ConfineStep {
    /// Writes the system call and its subject, for an error message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, .. } => {
                write!(f, "write {}", path.to_string_lossy())
            }
            Self::Mount(MountCall { source, target, kind: None, flags, .. }) if flags & libc::MS_BIND != 0 => {
                write!(f, "bind mount of {} on {}", source.to_string_lossy(), target.to_string_lossy())
            }
            Self::Mount(MountCall { kind: Some(kind), target, .. }) => {
                write!(f, "mount of {} on {}", kind.to_string_lossy(), target.to_string_lossy())
            }
            Self::Mount(MountCall { target, .. }) => write!(f, "private mounts below {}", target.to_string_lossy()),
            Self::ReadOnly(target) => write!(f, "mount_setattr {}", target.to_string_lossy()),
            Self::WorkingDir(folder) => write!(f, "chdir {}", folder.to_string_lossy()),
            Self::SwapRoot => f.write_str("pivot_root"),
            Self::Loopback => f.write_str("start of the loopback device"),
        }
    }
}

/// A resource limit, in the unit of the resource. A value above the daemon's own hard limit is lowered to it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The limited resource.
    pub resource: Resource,
    /// Effective limit, which the process may raise itself.
    pub soft: u64,
    /// Ceiling for the soft limit.
    pub hard: u64,
}

impl Limit {
    /// Creates a limit that the process cannot raise.
    #[must_use]
    pub const fn fixed(resource: Resource, value: u64) -> Self {
        Self { resource, soft: value, hard: value }
    }
}
