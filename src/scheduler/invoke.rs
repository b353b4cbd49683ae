//! One invocation, from the wait for a worker to the last byte of its answer.

use super::{
    PoolHandle,
    cell::{Grant, Refusal},
    lease::Lease,
};
use crate::{
    model::{ColdStart, Invocation, Timing},
    protocol::worker::HandlerFailure,
    worker::{Answer, ExchangeError, Exit, KillReason, StartError},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{timeout, timeout_at};

/// Workers that are tried for an invocation which none of them got.
const HAND_OVER_TRIES: usize = 5;

/// How long a worker that has dropped its connection may take to be gone, and one that was killed.
const EXIT_GRACE: Duration = Duration::from_millis(500);
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Why an invocation has no (complete) answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// As many wait as may.
    #[error("too many invocations of this function are waiting; try again in {} ms", .retry_after.as_millis())]
    QueueFull {
        /// When a try is likely to succeed.
        retry_after: Duration,
    },
    /// No worker became free in time.
    #[error(
        "no worker became free within {} ms{}; try again in {} ms",
        .waited.as_millis(),
        if *.node_is_full { ", and the node has no room for another" } else { "" },
        .retry_after.as_millis()
    )]
    QueueTimeout {
        /// Whether another would have started, had the node had a place for it.
        node_is_full: bool,
        /// How long it waited.
        waited: Duration,
        /// When a try is likely to succeed.
        retry_after: Duration,
    },
    /// The pool is closed: the function was deleted, or the daemon stops.
    #[error("the function takes no more invocations")]
    Closed,
    /// No worker could be started.
    #[error("no worker could be started{}", .0.as_ref().map_or_else(String::new, |error| format!(": {error}")))]
    Start(Option<Arc<StartError>>),
    /// Workers died faster than the invocation could be handed over.
    #[error("{HAND_OVER_TRIES} workers ended before they got the invocation")]
    Unreachable,
    /// It took too long.
    #[error("the invocation took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// What it was allowed.
        limit: Duration,
    },
    /// Its answer had begun, and made no progress any more.
    #[error("the answer made no progress for {} ms (http.body_timeout_ms)", .idle.as_millis())]
    Stalled {
        /// How long.
        idle: Duration,
    },
    /// Its answer went on for too long, however well.
    #[error("the answer was not complete {:.0} s after it had begun (http.stream_seconds_max)", .limit.as_secs_f64())]
    Endless {
        /// What it was allowed.
        limit: Duration,
    },
    /// The worker died.
    #[error("the worker crashed: {0}")]
    Crashed(Exit),
    /// The worker had too much memory.
    #[error("out of memory: {0}")]
    OutOfMemory(Exit),
    /// The handler threw, or returned no Response.
    #[error("{}", .0.message)]
    Handler(HandlerFailure),
    /// The caller's body ended before its end.
    #[error("the body of the request broke off")]
    BrokenRequest,
    /// The answer broke off although the worker lives: its body failed.
    #[error("the answer broke off: {0}")]
    BrokenAnswer(String),
}

/// An answer as it comes in; its worker is given back at the end of the body, or when this is dropped.
#[derive(Debug)]
pub struct Reply {
    answer: Answer,
    /// None once the answer is complete.
    lease: Option<Lease>,
    deadline: Instant,
    limit: Duration,
    pace: Option<Pace>,
    wait: Wait,
    sent: Instant,
}

/// How slow an answer may be that outlives the timeout of its invocation.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest wait for its next bytes.
    pub idle: Duration,
    /// When it must have ended, however well it goes on.
    pub until: Instant,
}

/// How long an invocation waited for its worker, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// For a free worker.
    pub queue: Duration,
    /// For a start.
    pub start: Duration,
    /// What kind of start.
    pub cold_start: ColdStart,
}

impl Wait {
    /// What a wait that ended without a worker was spent on: the queue.
    fn in_queue(since: Instant) -> Self {
        Self { queue: since.elapsed(), start: Duration::ZERO, cold_start: ColdStart::None }
    }

    /// Splits the time since `asked` at the start of the worker, if that is what was waited for.
    fn for_worker(asked: Instant, lease: &Lease) -> Self {
        let waited = asked.elapsed();
        let worker = lease.worker();
        let Some(waited_for_start) = worker.ready_at.checked_duration_since(asked) else {
            return Self { queue: waited, start: Duration::ZERO, cold_start: ColdStart::None };
        };
        let start = waited_for_start.min(worker.start_time).min(waited);
        Self { queue: waited - start, start, cold_start: worker.kind }
    }
}

/// A failed invocation and where its time went.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: InvokeError,
    /// Where its time went.
    pub timing: Timing,
}

impl PoolHandle {
    /// Runs an invocation on one of the pool's workers and waits for the head of its answer.
    pub async fn invoke(&self, invocation: &Invocation) -> Result<Reply, Failed> {
        let asked = Instant::now();
        for _ in 0..HAND_OVER_TRIES {
            let mut lease = match self.acquire(invocation).await {
                Ok(lease) => lease,
                Err(error) => return Err(failed(error, Wait::in_queue(asked), None)),
            };
            let wait = Wait::for_worker(asked, &lease);
            let sent = Instant::now();
            let exchange = timeout_at(invocation.deadline().into(), lease.exchange(invocation)).await;
            let error = match exchange {
                Ok(Ok(answer)) => {
                    let (deadline, limit) = (invocation.deadline(), invocation.timeout);
                    return Ok(Reply { answer, lease: Some(lease), deadline, limit, pace: None, wait, sent });
                }
                // It never got there: another worker may have it. This one is of no use.
                Ok(Err(ExchangeError::NotSent)) => {
                    lease.kill(KillReason::Unreachable);
                    continue;
                }
                Ok(Err(error)) => explain(lease, error).await,
                Err(_) => {
                    lease.overtime();
                    InvokeError::Timeout { limit: invocation.timeout }
                }
            };
            return Err(failed(error, wait, Some(sent)));
        }
        Err(failed(InvokeError::Unreachable, Wait::in_queue(asked), None))
    }

    async fn acquire(&self, invocation: &Invocation) -> Result<Lease, InvokeError> {
        let mut waiting = match self.shared.request(&self.cell, invocation.id) {
            Ok(grant) => return accept(grant),
            Err(waiting) => waiting,
        };
        let queue_timeout = self.shared.limits.load().queue_timeout;
        let queued = Instant::now();
        let deadline = invocation.deadline();
        let until = deadline.min(queued + queue_timeout);
        match timeout_at(until.into(), waiting.granted()).await {
            Ok(grant) => accept(grant),
            Err(_) if until == deadline => Err(InvokeError::Timeout { limit: invocation.timeout }),
            Err(_) => {
                let node_is_full = self.cell.snapshot().counts.planned > 0;
                Err(InvokeError::QueueTimeout { node_is_full, waited: queue_timeout, retry_after: RETRY_AFTER })
            }
        }
    }
}

/// What an overloaded caller is told to wait before the next try.
const RETRY_AFTER: Duration = Duration::from_millis(500);

fn accept(grant: Grant) -> Result<Lease, InvokeError> {
    grant.map_err(|refusal| match refusal {
        Refusal::QueueFull => InvokeError::QueueFull { retry_after: RETRY_AFTER },
        Refusal::StartFailed(error) => InvokeError::Start(error),
        Refusal::Closed => InvokeError::Closed,
    })
}

/// Finds out why there is no answer, and gives the worker back if it lives.
async fn explain(lease: Lease, error: ExchangeError) -> InvokeError {
    let (cause, grace) = match error {
        ExchangeError::Handler { failure, pending } => {
            // The drop of a lease waits for what is pending.
            if pending {
                drop(lease)
            } else {
                lease.release()
            }
            return InvokeError::Handler(failure);
        }
        ExchangeError::Violation(violation) | ExchangeError::ViolationBefore(violation) => {
            lease.worker().kill(KillReason::Protocol(violation));
            (violation.to_string(), KILL_GRACE)
        }
        ExchangeError::Broken(cause) => (cause, EXIT_GRACE),
        // The function may still run on what it has: the drop of the lease waits until it does not.
        ExchangeError::Request => return InvokeError::BrokenRequest,
        ExchangeError::NotSent => ("it was never sent".to_owned(), EXIT_GRACE),
    };
    // A dead worker closes its connections a moment before its end can be seen.
    match timeout(grace, lease.exited()).await {
        Ok(exit) => {
            lease.kill(KillReason::Stop);
            match exit.reason {
                Some(KillReason::OutOfMemory { .. }) => InvokeError::OutOfMemory(exit),
                // Not the function's doing: it was deleted, or the daemon does not wait any longer.
                Some(KillReason::Stop) => InvokeError::Closed,
                _ => InvokeError::Crashed(exit),
            }
        }
        // The handler may still run: the drop of the lease waits until it does not.
        Err(_) => InvokeError::BrokenAnswer(cause),
    }
}

fn failed(error: InvokeError, wait: Wait, sent: Option<Instant>) -> Failed {
    Failed { error, timing: timing(wait, sent.map_or(Duration::ZERO, |sent| sent.elapsed())) }
}

fn timing(wait: Wait, run: Duration) -> Timing {
    Timing { queue: wait.queue, start: wait.start, run, cold_start: wait.cold_start }
}

impl Reply {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.answer.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.answer.headers
    }

    /// What was waited for before the run.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// It waited this much longer, for other workers.
    pub fn add_to_queue(&mut self, waited: Duration) {
        self.wait.queue += waited;
    }

    /// From now on the answer may go on beyond the invocation's deadline, at this pace.
    pub fn keep_pace(&mut self, pace: Pace) {
        (self.pace, self.limit) = (Some(pace), pace.until.saturating_duration_since(Instant::now()));
    }

    /// Where the time went, up to now.
    #[must_use]
    pub fn timing(&self) -> Timing {
        timing(self.wait, self.sent.elapsed())
    }

    /// The next bytes of the body; `None` at its end, when the worker has been given back.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        let deadline = match self.pace {
            None => self.deadline,
            Some(Pace { idle, until }) => until.min(Instant::now() + idle),
        };
        let chunk = timeout_at(deadline.into(), self.answer.chunk()).await;
        let error = match chunk {
            Ok(Ok(Some(bytes))) => return Ok(Some(bytes)),
            Ok(Ok(None)) => {
                match self.lease.take() {
                    // The function answered, and has more to do: the drop of the lease waits for that.
                    Some(lease) if self.answer.pending => drop(lease),
                    Some(lease) => lease.release(),
                    None => {}
                }
                return Ok(None);
            }
            Ok(Err(error)) => match self.lease.take() {
                Some(lease) => explain(lease, error).await,
                None => InvokeError::BrokenAnswer(error.to_string()),
            },
            Err(_) => {
                if let Some(lease) = self.lease.take() {
                    lease.overtime();
                }
                match self.pace {
                    Some(pace) if deadline < pace.until => InvokeError::Stalled { idle: pace.idle },
                    Some(_) => InvokeError::Endless { limit: self.limit },
                    None => InvokeError::Timeout { limit: self.limit },
                }
            }
        };
        Err(failed(error, self.wait, Some(self.sent)))
    }
}
