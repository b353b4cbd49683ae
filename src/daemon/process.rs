//! What the daemon asks of its own process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process open as many files as the system allows it: a worker needs about six, a connection one.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// A crash must not write secrets to disk. A limit of one byte, rather than none, also keeps the kernel from giving the
/// memory to a program that collects crashes (`core(5)`, and `fs/coredump.c`): with a limit of 0 it does.
pub(super) fn leave_no_core() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        tracing::warn!(%error, "cannot keep a crash from writing the daemon's memory to disk");
    }
}

/// Freed memory that stays with the process for its next use.
#[cfg(target_env = "gnu")]
const MEMORY_KEPT_BYTES: libc::c_int = 32 << 20;

/// Has the allocator keep what large bodies were in. By default it soon gives it back to the system, and each page of the
/// next large body costs a fault: for a body of 1 MiB there and back that was a third of the daemon's work.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the allocator's settings have no safe wrapper")]
pub(super) fn keep_freed_memory() {
    // SAFETY: mallopt takes plain numbers, at any time and from any thread.
    let are_set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MEMORY_KEPT_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, MEMORY_KEPT_BYTES) == 1
    };
    if !are_set {
        tracing::warn!("the allocator does not take its settings");
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_freed_memory() {}
