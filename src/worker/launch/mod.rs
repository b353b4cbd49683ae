//! Starts and ends processes: the one `clone` call of the daemon.
//!
//! `std::process::Command` forks as soon as a child needs more than the standard library offers, and a fork copies the
//! page tables of the daemon: 15 ms at 500 MB. Here the child borrows the daemon's memory until it executes its program
//! (`CLONE_VM`), while the launching thread is suspended (`CLONE_VFORK`), so a launch costs the same at any size.
//!
//! ```text
//! Launcher::launch ── spec ──▶ thread: C strings, clone ── pidfd ──▶ Process ── wait ──▶ ExitStatus
//!                                       │ child: session, stdio, directory, limits, execve
//! Process dropped ── SIGKILL ──▶ thread: reap
//! ```
//!
//! Invariants:
//! - A process ends with the daemon, however the daemon ends: the parent-death signal fires when the *thread* that
//!   created the child ends, so one thread launches everything and lives as long as its [`Launcher`].
//! - Between `clone` and `execve` the child allocates nothing, takes no lock and touches only prepared data.
//! - A group is signalled only while its leader is not reaped: until then no other process can get that number.
//! - A process inherits three files, and no other file, variable or ignored signal, and gains nothing by executing a
//!   set-user-id program. Its [`Confinement`] decides its user and its view of the machine.

mod clone;
mod confine;
mod process;
#[cfg(test)]
mod tests;
mod user_map;

pub use confine::{ConfineStep, Confinement, Limit, MountCall, UserMap};
pub use nix::sys::resource::Resource;
pub use process::{LaunchedProcess, MemoryGauge, private_memory_bytes};

use clone::Stack;
pub use clone::landlock_version;
use nix::sys::signal::SigSet;
use process::{Child, KillOnDrop};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fmt, io, thread};
use tokio::sync::oneshot;

/// Interval at which the launching thread tries to reap dropped processes.
const REAP_INTERVAL: Duration = Duration::from_millis(5);

/// A process to start, with everything it gets.
pub struct LaunchSpec {
    /// Absolute path of the program, looked up in the root of the new process.
    pub program: PathBuf,
    /// Arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Working directory at the start.
    pub working_dir: PathBuf,
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
    /// Resource limits; a crash leaves no core file, and no program is given its memory.
    pub limits: Vec<Limit>,
    /// Isolation from the rest of the machine.
    pub confinement: Confinement,
}

impl fmt::Debug for LaunchSpec {
    /// Shows only the names of the variables: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("working_dir", &self.working_dir)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Reason why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A text for the kernel contains a zero byte.
    #[error("cannot start {program}: its {what} contains a zero byte")]
    ZeroByte {
        /// The program.
        program: PathBuf,
        /// The kind of text.
        what: &'static str,
    },
    /// A system call failed, in the daemon or in the child.
    #[error("cannot start {program}: {step}: {source}")]
    Step {
        /// The program.
        program: PathBuf,
        /// The system call and its subject.
        step: String,
        /// Error of the system call.
        source: io::Error,
    },
    /// The launching thread has ended.
    #[error("cannot start {program}: the launcher has stopped")]
    Stopped {
        /// The program.
        program: PathBuf,
    },
}

/// The thread that starts every process; dropping it kills all of them.
#[derive(Debug)]
pub struct Launcher {
    jobs: mpsc::Sender<LaunchRequest>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Requests to the launching thread.
enum LaunchRequest {
    Launch { spec: Box<LaunchSpec>, reply: oneshot::Sender<Result<KillOnDrop, LaunchError>> },
    Reap(Arc<Child>),
    Stop,
}

impl Launcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no memory for the child's stack, or no thread.
    pub fn start() -> io::Result<Self> {
        let stack = Stack::new()?;
        clone::keep_exit_statuses()?;
        let (jobs, inbox) = mpsc::channel();
        let own = jobs.clone();
        let thread = thread::Builder::new().name("levain-launch".into()).spawn(move || run(&inbox, &own, stack))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// Starts a process in a session and group of its own. Leaves no process behind when cancelled.
    ///
    /// # Errors
    /// See [`LaunchError`]; a process whose program could not be executed is cleaned up.
    pub async fn launch(&self, spec: LaunchSpec) -> Result<LaunchedProcess, LaunchError> {
        let program = spec.program.clone();
        let (reply, answer) = oneshot::channel();
        // If the launcher is gone, the request is dropped, and with it the sender of the answer.
        let _ = self.jobs.send(LaunchRequest::Launch { spec: Box::new(spec), reply });
        let child = answer.await.map_err(|_| LaunchError::Stopped { program: program.clone() })??;
        LaunchedProcess::new(child).map_err(|source| LaunchError::Step { program, step: "epoll_ctl".into(), source })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.jobs.send(LaunchRequest::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Body of the launching thread.
fn run(inbox: &mpsc::Receiver<LaunchRequest>, jobs: &mpsc::Sender<LaunchRequest>, mut stack: Stack) {
    // A child begins with this mask and the daemon's handlers; a handler would run in the daemon's memory.
    let _ = SigSet::all().thread_set_mask();
    let mut dying: Vec<Arc<Child>> = Vec::new();
    loop {
        let job = if dying.is_empty() {
            inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(REAP_INTERVAL)
        };
        match job {
            Ok(LaunchRequest::Launch { reply, .. }) if reply.is_closed() => {}
            Ok(LaunchRequest::Launch { spec, reply }) => {
                let child = clone::launch(*spec, &mut stack);
                // A process whose caller is gone is killed here, by its drop.
                let _ = reply.send(child.map(|child| KillOnDrop::new(child, jobs.clone())));
            }
            Ok(LaunchRequest::Reap(child)) => dying.push(child),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(LaunchRequest::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        dying.retain(|child| matches!(child.try_reap(), Ok(None)));
    }
    // Late requests are answered by the drop of their channel.
    for job in inbox.try_iter() {
        if let LaunchRequest::Reap(child) = job {
            dying.push(child);
        }
    }
    for child in dying {
        child.reap_blocking();
    }
}
