//! One invocation, from the wait for a worker to the last byte of its answer.

use super::{
    DaemonHost, PoolHandle,
    driver::{Lease, LeaseResult, Refusal},
};
use crate::{
    model::{ColdStart, Invocation, Timing},
    protocol::worker::HandlerFailure,
    worker::{ExchangeError, Exit, KillReason, StartError, WorkerAnswer},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{timeout, timeout_at};

/// Most workers tried for one invocation that none of them received.
const HAND_OVER_TRIES: usize = 5;

/// Time within which a worker that dropped its connection must exit; the next constant is for a killed one.
const EXIT_GRACE: Duration = Duration::from_millis(500);
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Reason why an invocation has no (complete) answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The queue is full.
    #[error("too many invocations of this function are waiting; try again in {} ms", .retry_after.as_millis())]
    QueueFull {
        /// Wait after which a retry is likely to succeed.
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
        /// Whether a place on the node was all that another start lacked.
        node_is_full: bool,
        /// Time spent waiting.
        waited: Duration,
        /// Wait after which a retry is likely to succeed.
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
    /// The invocation ran past its timeout.
    #[error("the invocation took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// Time it was allowed.
        limit: Duration,
    },
    /// The answer had begun, and then made no progress for too long.
    #[error("the answer made no progress for {} ms (http.body_timeout_ms)", .idle.as_millis())]
    Stalled {
        /// Time without progress.
        idle: Duration,
    },
    /// The answer went on for too long, even though it made progress.
    #[error("the answer was not complete {:.0} s after it had begun (http.stream_seconds_max)", .limit.as_secs_f64())]
    Endless {
        /// Time it was allowed.
        limit: Duration,
    },
    /// The worker died.
    #[error("the worker crashed: {0}")]
    Crashed(Exit),
    /// The worker used too much memory.
    #[error("out of memory: {0}")]
    OutOfMemory(Exit),
    /// The handler threw, or returned no Response.
    #[error("{}", .0.message)]
    Handler(HandlerFailure),
    /// The caller's request body broke off.
    #[error("the body of the request broke off")]
    BrokenRequest,
    /// The answer's body failed although the worker is still alive.
    #[error("the answer broke off: {0}")]
    BrokenAnswer(String),
}

/// An answer as it arrives. Its worker is given back at the end of the body, or when this is dropped.
#[derive(Debug)]
pub struct Reply {
    answer: WorkerAnswer,
    /// `None` once the answer is complete.
    lease: Option<Lease<DaemonHost>>,
    deadline: Instant,
    limit: Duration,
    pace: Option<Pace>,
    wait: Wait,
    sent: Instant,
}

/// Pace that an answer must keep once it outlives its invocation's timeout.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest wait for the next bytes.
    pub idle: Duration,
    /// Time by which the answer must have ended, whatever its progress.
    pub until: Instant,
}

/// Time an invocation waited for its worker, split by reason.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Time waiting for a free worker.
    pub queue: Duration,
    /// Time waiting for a start.
    pub start: Duration,
    /// Kind of start.
    pub cold_start: ColdStart,
}

impl Wait {
    /// Counts a wait that ended without a worker as queue time.
    fn in_queue(since: Instant) -> Self {
        Self { queue: since.elapsed(), start: Duration::ZERO, cold_start: ColdStart::None }
    }

    /// Splits the time since `asked` at the start of the worker, if the invocation waited for that start.
    fn for_worker(asked: Instant, lease: &Lease<DaemonHost>) -> Self {
        let waited = asked.elapsed();
        let worker = &lease.worker;
        let Some(waited_for_start) = worker.ready_at.checked_duration_since(asked) else {
            return Self { queue: waited, start: Duration::ZERO, cold_start: ColdStart::None };
        };
        let start = waited_for_start.min(worker.start_time).min(waited);
        Self { queue: waited - start, start, cold_start: worker.kind }
    }
}

/// A failed invocation and its timing.
#[derive(Debug)]
pub struct Failed {
    /// Reason for the failure.
    pub error: InvokeError,
    /// Timing up to the failure.
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
            lease.run_until(invocation.deadline());
            let exchange = timeout_at(invocation.deadline().into(), lease.worker.exchange(invocation)).await;
            let error = match exchange {
                Ok(Ok(answer)) => {
                    let (deadline, limit) = (invocation.deadline(), invocation.timeout);
                    return Ok(Reply { answer, lease: Some(lease), deadline, limit, pace: None, wait, sent });
                }
                // The worker never got the invocation, so another may have it. This worker is unusable.
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

    async fn acquire(&self, invocation: &Invocation) -> Result<Lease<DaemonHost>, InvokeError> {
        let mut waiting = match self.driver.request(&self.cell, invocation.id) {
            Ok(result) => return accept(result),
            Err(waiting) => waiting,
        };
        let queue_timeout = self.driver.host.limits.load().queue_timeout;
        let queued = Instant::now();
        let deadline = invocation.deadline();
        let until = deadline.min(queued + queue_timeout);
        match timeout_at(until.into(), waiting.result()).await {
            Ok(result) => accept(result),
            Err(_) if until == deadline => Err(InvokeError::Timeout { limit: invocation.timeout }),
            Err(_) => {
                let node_is_full = self.cell.counts().planned > 0;
                Err(InvokeError::QueueTimeout { node_is_full, waited: queue_timeout, retry_after: RETRY_AFTER })
            }
        }
    }
}

/// Time that an overloaded caller is told to wait before it retries.
const RETRY_AFTER: Duration = Duration::from_millis(500);

fn accept(result: LeaseResult<DaemonHost>) -> Result<Lease<DaemonHost>, InvokeError> {
    result.map_err(|refusal| match refusal {
        Refusal::QueueFull => InvokeError::QueueFull { retry_after: RETRY_AFTER },
        Refusal::StartFailed(error) => InvokeError::Start(error),
        Refusal::Closed => InvokeError::Closed,
    })
}

/// Finds out why there is no answer, and gives the worker back if it is alive.
async fn explain(lease: Lease<DaemonHost>, error: ExchangeError) -> InvokeError {
    let (cause, grace) = match error {
        ExchangeError::Handler { failure, pending } => {
            // The drop of the lease waits for pending promises.
            if pending {
                drop(lease)
            } else {
                lease.release()
            }
            return InvokeError::Handler(failure);
        }
        ExchangeError::Violation(violation) | ExchangeError::ViolationBefore(violation) => {
            lease.worker.kill(KillReason::Protocol(violation));
            (violation.to_string(), KILL_GRACE)
        }
        ExchangeError::Broken(cause) => (cause, EXIT_GRACE),
        // The function may still be running on the partial body: the drop of the lease waits until it has ended.
        ExchangeError::Request => return InvokeError::BrokenRequest,
        ExchangeError::NotSent => ("it was never sent".to_owned(), EXIT_GRACE),
    };
    // The connections of a dead worker close a moment before its exit is visible.
    match timeout(grace, lease.worker.exited_during(lease.invocation)).await {
        Ok(exit) => {
            lease.kill(KillReason::Stop);
            match exit.reason {
                Some(KillReason::OutOfMemory { .. }) => InvokeError::OutOfMemory(exit),
                // Not the function's fault: it was deleted, or the daemon's shutdown grace is over.
                Some(KillReason::Stop) => InvokeError::Closed,
                _ => InvokeError::Crashed(exit),
            }
        }
        // The handler may still be running: the drop of the lease waits until it has ended.
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
    /// Returns the HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.answer.status
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.answer.headers
    }

    /// Returns the waits before the run.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// Adds time spent waiting for other workers.
    pub fn add_to_queue(&mut self, waited: Duration) {
        self.wait.queue += waited;
    }

    /// From now on, lets the answer go on beyond the invocation's deadline at this pace.
    pub fn keep_pace(&mut self, pace: Pace) {
        (self.pace, self.limit) = (Some(pace), pace.until.saturating_duration_since(Instant::now()));
    }

    /// Returns the timing up to now.
    #[must_use]
    pub fn timing(&self) -> Timing {
        timing(self.wait, self.sent.elapsed())
    }

    /// Returns the next bytes of the body; `None` at its end, after the worker was given back.
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
                    // The function answered but has promises pending: the drop of the lease waits for them.
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
