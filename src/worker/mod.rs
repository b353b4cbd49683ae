//! One Bun process that runs one function, from its spawn to its death.
//!
//! [`Spawner::claim`] takes a prewarmed process; [`Spawner::spawn`] starts a new one ([`launch`]) and waits for the
//! shim's `ready`. Either then assigns the function ([`boot`]) and hands out a [`Worker`]. From then on:
//!
//! - [`sandbox`] isolates the process from the machine, since before it executed Bun;
//! - [`link`] carries invocations to it, as HTTP/1.1 on the worker's own Unix socket;
//! - one supervising task ([`supervise`]) reads its control channel, stdout and stderr, and notices its end;
//! - [`last_words`] keeps its last lines and decides which of them a crash report may show to which caller;
//! - [`Worker::kill`] ends it, with everything it has started, and records the reason.
//!
//! [`tool`] runs throw-away processes beside the workers: Bun on code that is not a function yet.
//!
//! **Invariants.** A process is reaped exactly once, by its supervisor. A worker's folder exists as long as its
//! process. A worker's output is bounded, and a worker that sends anything the shim never sends is ended ([`conduct`]);
//! a message that names an invocation counts only if that worker runs it or has just run it. All output of the process
//! is read before its end is reported.
//!
//! The number of workers is decided by `scheduler`, not here.

mod blueprint;
mod boot;
mod cgroup;
mod conduct;
mod control;
mod error;
mod folder;
mod http1;
mod invocations;
mod last_words;
pub mod launch;
mod lines;
pub mod link;
mod orphans;
mod output_pipe;
mod ping;
mod prewarm;
mod process_mark;
mod run_folder;
pub mod runtime;
pub mod sandbox;
mod sockets;
mod spawn;
mod supervise;
mod tool;

pub use blueprint::{Blueprint, SharedNetwork, SpawnLimits};
pub use conduct::Violation;
pub use error::{SpawnerError, StartError};
pub use folder::remove as remove_folder;
pub use launch::Launcher;
pub use link::{ExchangeError, WorkerAnswer};
pub use run_folder::RunFolder;
pub use runtime::BunRuntime;
pub use sandbox::SandboxOptions;
pub use spawn::Spawner;
pub use tool::{Filler, ToolError, ToolJob, Workplace, WorkplaceLimits, tree_bytes};

use crate::{
    model::{ColdStart, FunctionId, Invocation, InvocationId, Network, VersionLabel},
    protocol::worker::{Assigned, ToWorker},
    secrets::{Scrubber, VariableRevisions},
};
use cgroup::ControlGroup;
use invocations::InvocationTable;
use last_words::LastWords;
use link::Link;
use ping::Ping;
use std::{
    fmt, io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::UnixStream,
    sync::{oneshot, watch},
};

/// A process with a function loaded.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<WorkerInner>,
    link: Link,
    /// Time from the spawn, or the claim of a prewarmed process, until the function was loaded.
    pub start_time: Duration,
    /// When the function was loaded.
    pub ready_at: Instant,
    /// Whether the worker came from a prewarmed process or from a new one.
    pub kind: ColdStart,
    /// Network access of the worker.
    pub network: Network,
    /// The shim's answer to the assignment, about the loaded function.
    pub assigned: Assigned,
    /// The set of variables the worker was given.
    pub revisions: VariableRevisions,
    /// Private memory in bytes once the worker had settled, the baseline for leak detection; 0 before.
    memory_at_first: AtomicU64,
}

/// Time after its start in which a worker may still load what its function always needs.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// State shared by a worker and its supervisor.
#[derive(Debug)]
struct WorkerInner {
    process: launch::LaunchedProcess,
    /// Control group that limits the process and everything it has started.
    group: Option<Arc<ControlGroup>>,
    /// The private-memory limit that the group was last given; 0 before there is a function.
    group_memory_max: AtomicU64,
    /// The daemon's end of the control channel.
    control: Arc<UnixStream>,
    calls: InvocationTable,
    ping: Ping,
    gauge: Option<launch::MemoryGauge>,
    /// Private memory in bytes at the last reading of the gauge; 0 before.
    memory: AtomicU64,
    /// Set when the function is assigned.
    owner: OnceLock<Owner>,
    words: LastWords,
    /// Reason for the kill, if any: set before the signal is sent.
    kill_reason: OnceLock<KillReason>,
    /// Set once, when the process has been reaped.
    exit: watch::Sender<Option<Exit>>,
}

/// The function a worker belongs to.
#[derive(Debug)]
struct Owner {
    function_id: FunctionId,
    version: VersionLabel,
    /// Limit of private memory in bytes; shared with the pool, so that it follows the function's settings.
    memory_max: Arc<AtomicU64>,
    /// Masks the function's secrets in the worker's output, if it has any.
    scrubber: Option<Scrubber>,
}

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
    /// Last lines of output: of the start, or of the invocation that was given to [`Worker::exited_during`].
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

impl Worker {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.process.pid()
    }

    /// Sends an invocation and waits for the head of its answer.
    ///
    /// The invocation counts as running, for logs and settling, until [`Self::ended`] is called for it.
    pub async fn exchange(&self, invocation: &Invocation) -> Result<WorkerAnswer, ExchangeError> {
        self.shared.calls.begin(invocation.id, Instant::now());
        match self.link.exchange(invocation).await {
            Err(ExchangeError::ViolationBefore(violation)) => {
                self.kill(KillReason::Protocol(violation));
                Err(ExchangeError::NotSent)
            }
            Err(ExchangeError::Handler { mut failure, pending }) => {
                if let Some(scrubber) = self.shared.scrubber() {
                    let texts = [failure.name.as_mut(), Some(&mut failure.message), failure.stack.as_mut()];
                    texts.into_iter().flatten().for_each(|text| *text = scrubber.scrub_line(text, usize::MAX));
                }
                Err(ExchangeError::Handler { failure, pending })
            }
            outcome => outcome,
        }
    }

    /// Whether an invocation is running.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.calls.is_running()
    }

    /// Marks the invocation as over, as far as this worker is concerned.
    pub fn ended(&self, invocation: InvocationId) {
        self.shared.calls.end(invocation, Instant::now());
    }

    /// Resolves, with a value or without, when the worker has reported that this invocation, whose caller is done with
    /// it, has settled, or when the worker has died.
    pub fn settled(&self, invocation: InvocationId) -> oneshot::Receiver<()> {
        self.shared.calls.settled(invocation)
    }

    /// Asks the worker to report when an invocation whose connection was dropped has settled.
    pub fn dropped(&self, invocation: InvocationId) {
        // A full channel means that the worker does not read it; the deadline ends that worker.
        if let Err(error) = self.shared.tell(&ToWorker::Dropped { invocation: invocation.to_string() }) {
            tracing::debug!(pid = self.pid(), %error, "cannot write to a worker's control channel");
        }
    }

    /// Asks the worker whether its event loop turns, unless an earlier ping is still unanswered.
    pub fn ping(&self) {
        self.shared.ping.ask(Instant::now(), |number| self.shared.tell(&ToWorker::Ping { number }).is_ok());
    }

    /// Time for which the last [`Self::ping`] has gone unanswered; `None` if it was answered or none was sent.
    ///
    /// A worker whose channel is full, because it does not read it, counts as not answering.
    #[must_use]
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.shared.ping.unanswered_for(now)
    }

    /// Private memory of the process in bytes, at the last [`Spawner::enforce_memory`]; 0 before the first.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// Whether the worker uses at least `bytes`, and half as much again as it began with: a new worker would not help a
    /// function that needs that much from the start. Call this after each reading of the memory.
    #[must_use]
    pub fn has_grown_to(&self, bytes: u64) -> bool {
        let memory = self.memory_bytes();
        if self.ready_at.elapsed() < SETTLE_TIME {
            self.memory_at_first.store(memory, Ordering::Relaxed);
            return false;
        }
        let at_first = self.memory_at_first.load(Ordering::Relaxed);
        memory >= bytes.max(at_first + at_first / 2)
    }

    /// Ends the process and everything it has started, at once. The first reason given is kept.
    pub fn kill(&self, reason: KillReason) {
        self.shared.kill(reason);
    }

    /// Waits for the process to end.
    pub async fn exited(&self) -> Exit {
        self.shared.exited().await
    }

    /// Waits for the process to end, and returns the lines that the caller of this invocation may see.
    pub async fn exited_during(&self, invocation: InvocationId) -> Exit {
        let exit = self.shared.exited().await;
        Exit { last_words: self.shared.words.of(invocation), ..exit }
    }

    /// Exit of the process, if it has ended.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.shared.exit.borrow().clone()
    }
}

impl WorkerInner {
    fn kill(&self, reason: KillReason) {
        let _ = self.kill_reason.set(reason);
        self.process.kill_tree();
        // Reaches processes that left the process group, where no namespace ends with the process.
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Moves the process into its control group, so that the group's limits apply to it and to everything it starts
    /// from then on.
    fn enter_group(&self) -> io::Result<()> {
        let entered = self.group.as_ref().and_then(|group| self.process.with_pid(|pid| group.add(pid)));
        entered.unwrap_or(Ok(()))
    }

    /// Sets the kernel's limit of private memory, if the process has a control group: between two readings a process
    /// can allocate any amount.
    fn limit_memory(&self, max: u64) {
        let Some(group) = &self.group else { return };
        if self.group_memory_max.swap(max, Ordering::Relaxed) == max {
            return;
        }
        if let Err(error) = group.set_memory_max(max.saturating_add(sandbox::GROUP_OVERHEAD_BYTES)) {
            tracing::debug!(pid = self.process.pid(), %error, "cannot change a worker's group memory limit");
        }
    }

    /// Whether the kernel has killed a process of this group for the group's memory while an invocation runs.
    fn has_lost_a_process(&self) -> bool {
        self.calls.is_running() && self.group.as_ref().is_some_and(|group| group.out_of_memory_kills() > 0)
    }

    /// Reason why the worker was ended: by the daemon, or by the kernel for its memory.
    fn end_reason(&self, status: ExitStatus) -> Option<KillReason> {
        if status.signal() == Some(libc::SIGKILL) && self.group.as_ref().is_some_and(|it| it.out_of_memory_kills() > 0)
        {
            let max = self.group_memory_max.load(Ordering::Relaxed);
            let found = max + sandbox::GROUP_OVERHEAD_BYTES;
            let _ = self.kill_reason.set(KillReason::OutOfMemory { found, max });
        }
        self.kill_reason.get().copied()
    }

    /// Writes a message to the control channel, as a whole or not at all.
    fn tell(&self, message: &ToWorker) -> io::Result<()> {
        let mut line = serde_json::to_vec(message).expect("plain data serialises");
        line.push(b'\n');
        self.control.try_write(&line).map(drop)
    }

    async fn exited(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.expect("the sender lives in the same Arc");
        exit.clone().expect("it was waited for")
    }

    /// Reads and stores the private memory of the process, in bytes; `None` once the process is gone.
    fn measure_memory(&self) -> Option<u64> {
        let found = self.gauge.as_ref()?.private_bytes()?;
        self.memory.store(found, Ordering::Relaxed);
        Some(found)
    }

    fn scrubber(&self) -> Option<&Scrubber> {
        self.owner.get().and_then(|it| it.scrubber.as_ref())
    }
}
