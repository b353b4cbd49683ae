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
//! process. A worker's output is bounded, and a worker that sends anything the shim never sends is ended ([`violation`]);
//! a message that names an invocation counts only if that worker runs it or has just run it. All output of the process
//! is read before its end is reported.
//!
//! The number of workers is decided by `scheduler`, not here.

mod ancestors;
mod blueprint;
mod boot;
mod cgroup;
mod control;
mod error;
mod exit;
mod folder;
mod http1;
mod inner;
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
mod read_pace;
mod run_folder;
pub mod runtime;
pub mod sandbox;
mod sockets;
mod spawn;
mod supervise;
mod tool;
mod violation;

pub use blueprint::{Blueprint, SharedNetwork, SpawnLimits};
pub use error::{SpawnerError, StartError};
pub use exit::{Exit, KillReason};
pub use folder::remove as remove_folder;
pub use launch::Launcher;
pub use link::{ExchangeError, WorkerAnswer};
pub use run_folder::RunFolder;
pub use runtime::BunRuntime;
pub use sandbox::SandboxOptions;
pub use spawn::Spawner;
pub use tool::{Filler, ToolError, ToolJob, Workplace, WorkplaceLimits, tree_bytes};
pub use violation::Violation;

use crate::{
    model::{ColdStart, Invocation, InvocationId, Network},
    protocol::worker::{Assigned, ToWorker},
    secrets::VariableRevisions,
};
use inner::WorkerInner;
use link::Link;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

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
        self.shared.invocations.begin(invocation.id, Instant::now());
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
        self.shared.invocations.is_running()
    }

    /// Marks the invocation as over, as far as this worker is concerned.
    pub fn ended(&self, invocation: InvocationId) {
        self.shared.invocations.end(invocation, Instant::now());
    }

    /// Resolves, with a value or without, when the worker has reported that this invocation, whose caller is done with
    /// it, has settled, or when the worker has died.
    pub fn settled(&self, invocation: InvocationId) -> oneshot::Receiver<()> {
        self.shared.invocations.settled(invocation)
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
        Exit { last_words: self.shared.last_words.of(invocation), ..exit }
    }

    /// Exit of the process, if it has ended.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.shared.exit.borrow().clone()
    }
}
