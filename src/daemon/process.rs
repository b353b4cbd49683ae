//! Limits and settings of the daemon's own process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the hard limit: a worker needs about six, a connection one.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Keeps a crash from writing secrets to disk. The limit is one byte rather than none, because with a limit of 0 the
/// kernel still passes the memory to a program that collects crashes (`core(5)`, and `fs/coredump.c`).
pub(super) fn leave_no_core() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        tracing::warn!(%error, "cannot keep a crash from writing the daemon's memory to disk");
    }
}

/// Freed memory that the allocator keeps for later use.
#[cfg(target_env = "gnu")]
const MEMORY_KEPT_BYTES: libc::c_int = 32 << 20;

/// Makes the allocator keep the memory of large bodies. By default it soon returns the memory to the system, and each
/// page of the next large body costs a fault: for a body of 1 MiB in both directions that was a third of the daemon's
/// work.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the allocator's settings have no safe wrapper")]
pub(super) fn keep_freed_memory() {
    // SAFETY: mallopt takes plain numbers, at any time and from any thread.
    let are_set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MEMORY_KEPT_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, MEMORY_KEPT_BYTES) == 1
    };
    if !are_set {
        tracing::warn!("the allocator rejects its settings");
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_freed_memory() {}
