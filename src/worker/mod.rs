//! One Bun process that runs one function, from its spawn to its death.
//!
//! [`Spawner::claim`] takes a prewarmed process, [`Spawner::spawn`] makes one ([`launch`]) and waits for the shim's
//! `ready`; then either assigns the function ([`boot`]) and hands out a [`Worker`]. From then on:
//!
//! - [`sandbox`] has kept it from the rest of the machine since before it ran Bun;
//! - [`link`] carries invocations to it, as HTTP/1.1 on the worker's own Unix socket;
//! - one supervising task ([`supervise`]) reads its control channel, stdout and stderr, and notices its end;
//! - [`words`] has the lines that the report of a crash may show to whom;
//! - [`Worker::kill`] ends it, with everything it has started, and remembers why.
//!
//! Beside the workers there are throw-away processes ([`tool`]): Bun on code that is not a function yet.
//!
//! **Invariants.** A process is reaped exactly once, by its supervisor. A worker's folder exists as long as its process.
//! Everything a worker says is bounded, and a worker that says what no shim says is ended ([`conduct`]); a message that
//! names an invocation counts only if that worker runs it or has just run it. Before an end is reported, all that the
//! process has written is read.
//!
//! This module decides nothing about how many workers there are: that is `scheduler`.

mod blueprint;
mod boot;
mod calls;
mod cgroup;
mod conduct;
mod control;
mod error;
mod folder;
mod http1;
pub mod launch;
mod lines;
pub mod link;
mod mark;
mod orphans;
mod ping;
mod prewarm;
mod run_folder;
pub mod runtime;
pub mod sandbox;
mod sockets;
mod spawn;
mod supervise;
mod tap;
mod tool;
mod words;

pub use blueprint::{Blueprint, SharedNetwork, SpawnLimits};
pub use conduct::Violation;
pub use error::{SpawnerError, StartError};
pub use folder::remove as remove_folder;
pub use launch::Launcher;
pub use link::{Answer, ExchangeError};
pub use run_folder::RunFolder;
pub use runtime::Runtime;
pub use sandbox::SandboxOptions;
pub use spawn::Spawner;
pub use tool::{Filler, Job, ToolError, Workplace, WorkplaceLimits, tree_bytes};

use crate::{
    model::{ColdStart, FunctionId, Invocation, InvocationId, Network, VersionLabel},
    protocol::worker::{Assigned, ToWorker},
    secrets::{Scrubber, Worn},
};
use calls::Calls;
use cgroup::Group;
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
use words::Words;

/// A process with a function in it.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    link: Link,
    /// From the spawn, or the claim of a prewarmed process, until the function was loaded.
    pub start_time: Duration,
    /// When the function was loaded.
    pub ready_at: Instant,
    /// Whether a prewarmed process was claimed for it, or one was spawned.
    pub kind: ColdStart,
    /// The network it has.
    pub network: Network,
    /// What it said of its function when it had loaded it.
    pub assigned: Assigned,
    /// Which variables it has.
    pub worn: Worn,
    /// What it needs without having leaked anything: the memory it had when it had settled in; 0 before.
    memory_at_first: AtomicU64,
}

/// How long a worker that is ready goes on loading what its function needs at all.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// What a worker and its supervisor both see.
#[derive(Debug)]
struct Shared {
    process: launch::Process,
    /// What limits it and all it has started.
    group: Option<Arc<Group>>,
    /// The memory that the group's limit is made for; 0 before there is a function.
    group_memory_max: AtomicU64,
    /// The daemon's end of the control channel.
    control: Arc<UnixStream>,
    calls: Calls,
    ping: Ping,
    gauge: Option<launch::MemoryGauge>,
    /// What the gauge showed when it was last read; 0 before.
    memory: AtomicU64,
    /// Set when it gets its function.
    owner: OnceLock<Owner>,
    words: Words,
    /// Why it was killed, if it was: set before the signal is sent.
    kill_reason: OnceLock<KillReason>,
    /// Set once, when the process has been reaped.
    exit: watch::Sender<Option<Exit>>,
}

/// The function a worker belongs to.
#[derive(Debug)]
struct Owner {
    function_id: FunctionId,
    version: VersionLabel,
    /// Bytes of private memory it may have; its pool's, so that it follows the function's settings.
    memory_max: Arc<AtomicU64>,
    /// Masks its secrets in what it writes, if it has any.
    scrubber: Option<Scrubber>,
}

/// Why the daemon ended a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// It is not needed any more.
    Stop,
    /// Its invocation took too long.
    Deadline,
    /// It had more memory than its function may have.
    OutOfMemory {
        /// Private memory it had, in bytes.
        found: u64,
        /// Private memory it may have, in bytes.
        max: u64,
    },
    /// It did not start in time.
    StartTimeout,
    /// It could not be reached; mostly because it had ended by itself.
    Unreachable,
    /// It did what the shim never does.
    Protocol(Violation),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// What the kernel said.
    pub status: ExitStatus,
    /// Why the daemon ended it, if it did.
    pub reason: Option<KillReason>,
    /// The last lines it wrote: of the start, or of the invocation that [`Worker::exited_during`] was asked about.
    pub last_words: Vec<String>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(KillReason::OutOfMemory { found, max }) => {
                return write!(f, "it had {} MiB of memory and may have {} MiB", found >> 20, max >> 20);
            }
            Some(KillReason::Deadline) => {
                return f.write_str("it was ended because an invocation took too long and did not end there");
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
    pub async fn exchange(&self, invocation: &Invocation) -> Result<Answer, ExchangeError> {
        self.shared.calls.begin(invocation.id);
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

    /// Whether it runs an invocation.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.calls.is_running()
    }

    /// The invocation is over, as far as this worker is concerned.
    pub fn ended(&self, invocation: InvocationId) {
        self.shared.calls.end(invocation);
    }

    /// Resolves, with a value or without, when the worker has said that this invocation, which its caller is done with,
    /// is over there too; or when the worker has died.
    pub fn settled(&self, invocation: InvocationId) -> oneshot::Receiver<()> {
        self.shared.calls.settled(invocation)
    }

    /// Asks the worker to say when an invocation has settled whose connection was dropped.
    pub fn dropped(&self, invocation: InvocationId) {
        // A channel that is full belongs to a worker that does not read it; the deadline ends that one.
        if let Err(error) = self.shared.tell(&ToWorker::Dropped { invocation: invocation.to_string() }) {
            tracing::debug!(pid = self.pid(), %error, "cannot write to a worker's control channel");
        }
    }

    /// Asks the worker whether its event loop turns, unless it has not answered the last time yet.
    pub fn ping(&self) {
        self.shared.ping.ask(Instant::now(), |number| self.shared.tell(&ToWorker::Ping { number }).is_ok());
    }

    /// How long the last [`Self::ping`] has gone unanswered; none when it was answered, or never asked.
    ///
    /// A worker that cannot be asked, because it does not read its channel, counts as one that does not answer.
    #[must_use]
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.shared.ping.unanswered_for(now)
    }

    /// Private memory of the process in bytes, as [`Spawner::enforce_memory`] last found it; 0 before the first time.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// Whether it has as much memory as that, and half as much again as it began with: a function that needs so much from
    /// the start is not helped by a new worker. To be asked after each look at the memory.
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

    /// Ends the process and all it has started, at once. The first reason stands.
    pub fn kill(&self, reason: KillReason) {
        self.shared.kill(reason);
    }

    /// Waits for the end of the process.
    pub async fn exited(&self) -> Exit {
        self.shared.exited().await
    }

    /// Waits for the end of the process, for the report to the caller of an invocation that it ran.
    pub async fn exited_during(&self, invocation: InvocationId) -> Exit {
        let exit = self.shared.exited().await;
        Exit { last_words: self.shared.words.of(invocation), ..exit }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.shared.exit.borrow().clone()
    }
}

impl Shared {
    fn kill(&self, reason: KillReason) {
        let _ = self.kill_reason.set(reason);
        self.process.kill_tree();
        // What has left its process group as well, where no namespace ends with the process.
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Has its group's limits apply to it, and to all that it starts from then on, where they do not yet.
    fn enter_group(&self) -> io::Result<()> {
        let entered = self.group.as_ref().and_then(|group| self.process.with_pid(|pid| group.add(pid)));
        entered.unwrap_or(Ok(()))
    }

    /// Has the kernel end it at this much private memory, as far as it has a control group: between two looks at its
    /// memory a process can take any amount.
    fn limit_memory(&self, max: u64) {
        let Some(group) = &self.group else { return };
        if self.group_memory_max.swap(max, Ordering::Relaxed) == max {
            return;
        }
        if let Err(error) = group.set_memory_max(max.saturating_add(sandbox::GROUP_OVERHEAD_BYTES)) {
            tracing::debug!(pid = self.process.pid(), %error, "the limit of a worker's control group stays");
        }
    }

    /// Whether the kernel has ended something that an invocation has started, for the memory of all of it together.
    fn has_lost_a_process(&self) -> bool {
        self.calls.is_running() && self.group.as_ref().is_some_and(|group| group.out_of_memory_kills() > 0)
    }

    /// Why it was ended, if it was: by the daemon, or by the kernel for its memory.
    fn end_reason(&self, status: ExitStatus) -> Option<KillReason> {
        if status.signal() == Some(libc::SIGKILL) && self.group.as_ref().is_some_and(|it| it.out_of_memory_kills() > 0)
        {
            let max = self.group_memory_max.load(Ordering::Relaxed);
            let found = max + sandbox::GROUP_OVERHEAD_BYTES;
            let _ = self.kill_reason.set(KillReason::OutOfMemory { found, max });
        }
        self.kill_reason.get().copied()
    }

    /// Writes on the control channel, as a whole or not at all.
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

    /// Reads and remembers the memory that it shares with nobody, in bytes; none once it is gone.
    fn measure_memory(&self) -> Option<u64> {
        let found = self.gauge.as_ref()?.private_bytes()?;
        self.memory.store(found, Ordering::Relaxed);
        Some(found)
    }

    fn scrubber(&self) -> Option<&Scrubber> {
        self.owner.get().and_then(|it| it.scrubber.as_ref())
    }
}
