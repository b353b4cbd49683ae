//! What a process is confined by: plain data, prepared before the `clone` call and carried out by its child.

use super::Resource;
use seccompiler::BpfProgram;
use std::{
    ffi::{CStr, CString, OsStr, c_int},
    fmt,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
};

/// Everything that keeps a process from the rest of the machine. The default keeps it from nothing.
#[derive(Debug, Default)]
pub struct Confinement {
    /// Namespaces of its own, as `CLONE_NEW…` flags.
    pub namespaces: c_int,
    /// What is done before it gives up the daemon's rights, in this order.
    pub steps: Vec<Step>,
    /// Who it may become in its user namespace, if the daemon says so; else it says so itself, in a step.
    pub user_map: Option<UserMap>,
    /// The user and group it becomes; none: it stays who the daemon is.
    pub identity: Option<u32>,
    /// Whether it gives up every capability, for ever.
    pub drop_capabilities: bool,
    /// A Landlock ruleset.
    pub ruleset: Option<Arc<OwnedFd>>,
    /// Filters of system calls. All of them apply; the last is the first to be asked.
    pub filters: Vec<Arc<BpfProgram>>,
}

/// A user and group of the same number in a user namespace, and who that is outside. The daemon needs `CAP_SETUID` and
/// `CAP_SETGID`.
#[derive(Debug, Clone, Copy)]
pub struct UserMap {
    /// In the namespace.
    pub inside: u32,
    /// Where the daemon is.
    pub outside: u32,
}

/// One thing that the child does in the namespaces it was born into.
#[derive(Debug)]
pub enum Step {
    /// Writes a file: how a process enters a control group, or says who it is in its user namespace.
    Write {
        /// The file, which exists.
        path: CString,
        /// All that is written, in one call.
        text: CString,
    },
    /// Mounts something.
    Mount(Mount),
    /// Makes a mount read-only, without set-user-id programs.
    ReadOnly(CString),
    /// Goes to a folder.
    WorkingDir(CString),
    /// Makes the working folder, a mount of its own, the root, and puts the old root out of reach.
    SwapRoot,
    /// Starts the loopback device of a new network namespace.
    Loopback,
}

/// The arguments of one `mount` call.
#[derive(Debug)]
pub struct Mount {
    /// What.
    pub source: CString,
    /// Where.
    pub target: CString,
    /// The kind of file system; none for what is mounted elsewhere.
    pub kind: Option<&'static CStr>,
    /// `MS_…` flags.
    pub flags: libc::c_ulong,
    /// Options of the file system.
    pub options: Option<CString>,
}

impl Step {
    /// Mounts a file or folder at a second place.
    ///
    /// # Panics
    /// When a path has a zero byte in it, as with the others below: no path that exists has one.
    #[must_use]
    pub fn bind(source: &Path, target: &Path) -> Self {
        let flags = libc::MS_BIND | libc::MS_REC;
        Self::Mount(Mount { source: text(source), target: text(target), kind: None, flags, options: None })
    }

    /// Mounts a file system of a kind that needs no device, where nothing is executed.
    #[must_use]
    pub fn file_system(kind: &'static CStr, target: &Path, options: Option<&str>) -> Self {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let options = options.map(text);
        Self::Mount(Mount { source: kind.into(), target: text(target), kind: Some(kind), flags, options })
    }

    /// Keeps mounts made here from the rest of the machine, and the other way round.
    #[must_use]
    pub fn private_mounts() -> Self {
        let (source, target) = (c"none".into(), c"/".into());
        Self::Mount(Mount { source, target, kind: None, flags: libc::MS_REC | libc::MS_PRIVATE, options: None })
    }

    /// Makes a mount read-only.
    #[must_use]
    pub fn read_only(target: &Path) -> Self {
        Self::ReadOnly(text(target))
    }

    /// Goes to a folder.
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
    CString::new(text.as_ref().as_bytes()).expect("no path that exists has a zero byte, and no option is made with one")
}

impl fmt::Display for Step {
    /// The system call and what it is about, for an error message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, .. } => {
                write!(f, "write {}", path.to_string_lossy())
            }
            Self::Mount(Mount { source, target, kind: None, flags, .. }) if flags & libc::MS_BIND != 0 => {
                write!(f, "bind mount of {} on {}", source.to_string_lossy(), target.to_string_lossy())
            }
            Self::Mount(Mount { kind: Some(kind), target, .. }) => {
                write!(f, "mount of {} on {}", kind.to_string_lossy(), target.to_string_lossy())
            }
            Self::Mount(Mount { target, .. }) => write!(f, "private mounts below {}", target.to_string_lossy()),
            Self::ReadOnly(target) => write!(f, "mount_setattr {}", target.to_string_lossy()),
            Self::WorkingDir(folder) => write!(f, "chdir {}", folder.to_string_lossy()),
            Self::SwapRoot => f.write_str("pivot_root"),
            Self::Loopback => f.write_str("start of the loopback device"),
        }
    }
}

/// A resource limit, in the unit of the resource. What exceeds the daemon's own hard limit is lowered to it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// Where the process is stopped; it may raise this itself.
    pub soft: u64,
    /// How far it may raise it.
    pub hard: u64,
}

impl Limit {
    /// One that the process cannot raise.
    #[must_use]
    pub const fn fixed(resource: Resource, value: u64) -> Self {
        Self { resource, soft: value, hard: value }
    }
}
