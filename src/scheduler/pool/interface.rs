//! Input and output of a pool: plain data.

use std::time::{Duration, Instant};

use crate::model::{InvocationId, Settings, WorkerId};

/// Limits of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most workers at once. At least 1; 0 counts as 1.
    pub workers_max: usize,
    /// Most invocations that one worker runs at once. At least 1; 0 counts as 1.
    pub concurrency: usize,
    /// Most invocations that run at once. At least 1; 0 counts as 1.
    pub executions_max: usize,
    /// Most callers that wait beyond those that could get a slot.
    pub queue_max: usize,
    /// The floor: workers that idle expiry leaves alive. At most `workers_max` of them count.
    pub workers_min: usize,
    /// Idle time after which a `Tick` may stop a worker.
    pub idle_timeout: Duration,
    /// Invocations after which a worker is worn; 0 for no limit. Each worker's own limit is up to a tenth lower.
    pub requests_max: u64,
    /// Age at which a worker is worn; zero for no limit. Each worker's own limit is up to a tenth lower.
    pub age_max: Duration,
}

impl From<&Settings> for Limits {
    /// Takes the limits of a live version from a function's settings.
    fn from(settings: &Settings) -> Self {
        Self {
            workers_max: settings.workers_max() as usize,
            concurrency: settings.worker_concurrency as usize,
            executions_max: settings.max_concurrent_executions as usize,
            workers_min: settings.warm_workers as usize,
            queue_max: settings.queue_max as usize,
            idle_timeout: Duration::from_secs(settings.idle_timeout_seconds.into()),
            requests_max: settings.max_requests_per_worker.into(),
            age_max: Duration::from_secs(settings.max_age_seconds.into()),
        }
    }
}

/// Input to the pool's state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A caller wants a worker.
    Invoke(InvocationId),
    /// A caller that may still be waiting has left.
    Cancel(InvocationId),
    /// The node has a place for a worker that the pool asked for.
    Granted(WorkerId),
    /// A start succeeded.
    Ready(WorkerId),
    /// A start failed and its process is gone. No worker starts for callers until the back-off has passed.
    StartFailed(WorkerId),
    /// An invocation of the worker has ended, and the worker can take another.
    Release(WorkerId),
    /// An invocation of the worker is given up and will not end there: the worker takes no other, and stops when its
    /// remaining invocations are over.
    Abandon(WorkerId),
    /// The worker must die now, whatever it runs.
    Kill(WorkerId),
    /// The worker takes no more invocations, and stops when its current ones are over: its event loop is blocked.
    Retire(WorkerId),
    /// The worker must be replaced once another is ready to take its place.
    Worn(WorkerId),
    /// The process has exited, in whatever state it was. If it was busy, its callers learn that from the broken
    /// exchange, so the pool fails no caller.
    Exited(WorkerId),
    /// Keep at least this many workers alive, within `workers_max`, even if the latest start has just failed.
    Warm(usize),
    /// The limits changed.
    SetLimits(Limits),
    /// The node needs a place: the longest-idle worker stops, unless the floor needs it.
    Evict,
    /// The node needs places: this many workers stop instead of taking their next invocation, down to the floor.
    /// Replaces the number set before.
    Yield(usize),
    /// The pool takes no more work: waiting callers fail, idle and starting workers stop, busy ones finish and then
    /// stop.
    Close,
    /// Time has passed.
    Tick,
}

/// Output of the pool, to be performed by its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Ask the node for a place for a worker.
    Ask {
        /// Worker that needs the place.
        worker: WorkerId,
        /// Whether another worker stops when this one is ready.
        replaces: bool,
    },
    /// Return the place, or withdraw the request for it: the worker is forgotten and was never started.
    Withdraw(WorkerId),
    /// Start a process under this id, in the granted place.
    Start(WorkerId),
    /// Hand the invocation to the worker.
    Dispatch {
        /// Worker with a slot reserved for this invocation.
        worker: WorkerId,
        /// Invocation that waited longest.
        invocation: InvocationId,
    },
    /// End the process at once: no caller waits for anything that it runs.
    Stop(WorkerId),
    /// Tell the caller that no worker takes its invocation.
    Fail {
        /// Invocation whose caller to tell.
        invocation: InvocationId,
        /// Reason for the failure.
        reason: Failure,
    },
}

/// Reason why no worker takes an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The queue is full.
    QueueFull,
    /// The latest start failed, no worker may start yet, and none is alive that could serve the invocation.
    StartFailed,
    /// The pool is closed.
    Closed,
}

/// Workers in each state, and waiting callers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workers that wait for a place on the node.
    pub planned: usize,
    /// Processes that are not ready yet.
    pub starting: usize,
    /// Workers without an invocation.
    pub idle: usize,
    /// Workers with an invocation; they may take more.
    pub busy: usize,
    /// Workers that finish their invocations and then stop.
    pub retiring: usize,
    /// Processes told to end.
    pub stopping: usize,
    /// Invocations that run in the busy workers.
    pub running: usize,
    /// Callers without a worker, including those whose worker is starting.
    pub queued: usize,
}

impl Counts {
    /// Returns the number of workers that serve waiting callers now or will do so.
    pub fn alive(&self) -> usize {
        self.planned + self.starting + self.ready()
    }

    /// Returns the number of workers that serve.
    pub fn ready(&self) -> usize {
        self.idle + self.busy
    }

    /// Returns the number of places on the node that become free without a decision.
    pub fn leaving(&self) -> usize {
        self.retiring + self.stopping
    }
}

/// Holdings of a pool, from which the node decides whether to take a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Workers that serve.
    pub ready: usize,
    /// Ready workers above the floor.
    pub spare: usize,
    /// Idle start times of the workers that may go, longest-idle first.
    pub idle: Vec<Instant>,
    /// Time since which the longest-serving worker has served. A replacement inherits the time of its predecessor:
    /// otherwise a pool that recycles often would never have to give up its turn.
    pub serving_since: Option<Instant>,
    /// Places that become free without another decision.
    pub leaving: usize,
    /// Number of `leaving` workers that exit soon: the others finish their invocations first, which may take long.
    pub stopping: usize,
    /// Busy workers that the pool was told to give up.
    pub yielding: usize,
}
