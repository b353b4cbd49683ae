//! How and why a worker ended.

use super::violation::Violation;
use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};

/// Why the daemon ended a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// The worker is not needed any more.
    Stop,
    /// The invocation took too long.
    Deadline,
    /// The worker used more memory than its function may use.
    OutOfMemory {
        /// Private memory found, in bytes.
        found: u64,
        /// Limit of private memory, in bytes.
        max: u64,
    },
    /// The worker did not start in time.
    StartTimeout,
    /// The worker could not be reached, mostly because it had ended by itself.
    Unreachable,
    /// The worker did something the shim never does.
    Protocol(Violation),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit status as the kernel reported it.
    pub status: ExitStatus,
    /// Reason why the daemon ended the worker, if it did.
    pub reason: Option<KillReason>,
    /// Last lines of output: of the start, or of the invocation that was given to
    /// [`Worker::exited_during`](super::Worker::exited_during).
    pub last_words: Vec<String>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(KillReason::OutOfMemory { found, max }) => {
                return write!(f, "it used {} MiB of memory; the limit is {} MiB", found >> 20, max >> 20);
            }
            Some(KillReason::Deadline) => {
                return f.write_str("it was ended because an invocation took too long and did not stop");
            }
            Some(KillReason::Protocol(violation)) => {
                return write!(f, "it was ended because it broke the protocol: {violation}");
            }
            _ => {}
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "it exited with code {code}"),
            (_, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(f, "it was ended by {name}"),
                Err(_) => write!(f, "it was ended by signal {signal}"),
            },
            _ => write!(f, "it ended with status {:#x}", self.status.into_raw()),
        }
    }
}
