//! What goes into a pool and what comes out: plain data.

use std::time::Duration;

use crate::model::{InvocationId, WorkerId};

/// The caps a pool keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most workers at once, those that are stopping included. At least 1; 0 is taken as 1.
    pub workers_max: usize,
    /// Most callers that wait beyond those for whom a slot is not busy.
    pub queue_max: usize,
    /// The floor: workers that idle expiry leaves alive. Where it exceeds `workers_max`, that holds.
    pub workers_min: usize,
    /// How long a worker stays idle before a `Tick` may stop it.
    pub idle_timeout: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A caller wants a worker.
    Invoke(InvocationId),
    /// A caller that may still wait has left.
    Cancel(InvocationId),
    /// A start succeeded.
    Ready(WorkerId),
    /// A start failed and its process is gone. No worker starts for callers until the back-off has passed.
    StartFailed(WorkerId),
    /// The worker's invocation is over and it can take another.
    Release(WorkerId),
    /// The worker's invocation is over and the worker must die now.
    Kill(WorkerId),
    /// The process is gone, whatever it was doing. If it was busy, its caller knows from the broken exchange, so the
    /// pool fails nobody.
    Exited(WorkerId),
    /// Have at least this many workers alive, within `workers_max`, also if the latest start failed just now.
    Warm(usize),
    /// The limits changed.
    SetLimits(Limits),
    /// No more work: waiting callers fail, idle and starting workers stop, busy ones finish and then stop.
    Close,
    /// Time passed.
    Tick,
}

/// What the holder of the pool must now do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Start a process under this id.
    Start(WorkerId),
    /// Hand the invocation to the worker.
    Dispatch {
        /// Was idle, is now reserved for this invocation.
        worker: WorkerId,
        /// Was waiting longest.
        invocation: InvocationId,
    },
    /// End the process at once: it runs no invocation that anybody waits for.
    Stop(WorkerId),
    /// Tell the caller that no worker takes its invocation.
    Fail {
        /// Whose caller to tell.
        invocation: InvocationId,
        /// Why.
        reason: Failure,
    },
}

/// Why no worker takes an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// As many callers wait as may.
    QueueFull,
    /// The latest start failed, no worker may start yet, and none is alive that could serve it.
    StartFailed,
    /// The pool is closed.
    Closed,
}

/// How many workers are in each state, and how many callers wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that are not ready yet.
    pub starting: usize,
    /// Workers that could take a call now.
    pub idle: usize,
    /// Workers with a call.
    pub busy: usize,
    /// Processes told to end.
    pub stopping: usize,
    /// Callers without a worker, those for whom one is starting included.
    pub queued: usize,
}

impl Counts {
    /// Workers that serve, or will: all but the stopping ones.
    pub fn alive(&self) -> usize {
        self.starting + self.idle + self.busy
    }
}
