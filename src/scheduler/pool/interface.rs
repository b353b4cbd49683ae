//! What goes into a pool and what comes out: plain data.

use std::time::{Duration, Instant};

use crate::model::{InvocationId, WorkerId};

/// The caps a pool keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most workers at once. At least 1; 0 is taken as 1.
    pub workers_max: usize,
    /// Most invocations that one worker runs at once. At least 1; 0 is taken as 1.
    pub concurrency: usize,
    /// Most invocations that run at once. At least 1; 0 is taken as 1.
    pub executions_max: usize,
    /// Most callers that wait beyond those for whom there could be a slot.
    pub queue_max: usize,
    /// The floor: workers that idle expiry leaves alive. Where it exceeds `workers_max`, that holds.
    pub workers_min: usize,
    /// How long a worker stays idle before a `Tick` may stop it.
    pub idle_timeout: Duration,
    /// Invocations after which a worker is worn; 0 for no bound. Up to a tenth less, by the worker.
    pub requests_max: u64,
    /// Time after which a worker is worn; zero for no bound. Up to a tenth less, by the worker.
    pub age_max: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A caller wants a worker.
    Invoke(InvocationId),
    /// A caller that may still wait has left.
    Cancel(InvocationId),
    /// The node has a place for a worker that was asked for.
    Granted(WorkerId),
    /// A start succeeded.
    Ready(WorkerId),
    /// A start failed and its process is gone. No worker starts for callers until the back-off has passed.
    StartFailed(WorkerId),
    /// An invocation of the worker is over and it can take another.
    Release(WorkerId),
    /// An invocation of the worker is given up and will not end there: the worker takes no other, and stops when those
    /// it runs besides are over.
    Abandon(WorkerId),
    /// The worker must die now, whatever it runs.
    Kill(WorkerId),
    /// The worker takes no more invocations, and stops when those it runs are over: its event loop is held up.
    Retire(WorkerId),
    /// The worker shall be replaced when another is ready to take its place.
    Worn(WorkerId),
    /// The process is gone, whatever it was doing. If it was busy, its callers know from the broken exchange, so the
    /// pool fails nobody.
    Exited(WorkerId),
    /// Have at least this many workers alive, within `workers_max`, also if the latest start failed just now.
    Warm(usize),
    /// The limits changed.
    SetLimits(Limits),
    /// The node needs a place: the worker that is idle longest stops, unless the floor needs it.
    Evict,
    /// The node needs places: as many workers stop instead of taking their next invocation, down to the floor. Replaces
    /// what was said before.
    Yield(usize),
    /// No more work: waiting callers fail, idle and starting workers stop, busy ones finish and then stop.
    Close,
    /// Time passed.
    Tick,
}

/// What the holder of the pool must now do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Ask the node for a place for a worker.
    Ask {
        /// Which.
        worker: WorkerId,
        /// Whether another goes when this one is ready.
        replaces: bool,
    },
    /// Give the place back, or the wish for one: the worker is forgotten and was never started.
    Withdraw(WorkerId),
    /// Start a process under this id, in the place that was granted.
    Start(WorkerId),
    /// Hand the invocation to the worker.
    Dispatch {
        /// Has one slot reserved for this invocation.
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
    /// Workers that wait for a place on the node.
    pub planned: usize,
    /// Processes that are not ready yet.
    pub starting: usize,
    /// Workers without a call.
    pub idle: usize,
    /// Workers with a call that may take more.
    pub busy: usize,
    /// Workers that finish what they run and then stop.
    pub retiring: usize,
    /// Processes told to end.
    pub stopping: usize,
    /// Invocations that the busy ones run.
    pub running: usize,
    /// Callers without a worker, those for whom one is starting included.
    pub queued: usize,
}

impl Counts {
    /// Workers that serve callers who wait, or will.
    pub fn alive(&self) -> usize {
        self.planned + self.starting + self.ready()
    }

    /// Workers that serve.
    pub fn ready(&self) -> usize {
        self.idle + self.busy
    }

    /// Places on the node that become free without a decision.
    pub fn leaving(&self) -> usize {
        self.retiring + self.stopping
    }
}

/// What the node must know of a pool to take a place from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Workers that serve.
    pub ready: usize,
    /// How many of them it may lose before it is at its floor.
    pub spare: usize,
    /// Since when those are idle that may go, the longest first.
    pub idle: Vec<Instant>,
    /// Since when the worker that has served longest does. One that replaced another goes on with its time: else a pool
    /// that recycles often would never have had its turn.
    pub serving_since: Option<Instant>,
    /// Places that become free without another decision.
    pub leaving: usize,
    /// How many of them are about to: the others finish what they run first, which may take long.
    pub stopping: usize,
    /// How many of its busy workers it was told to give up.
    pub yielding: usize,
}
