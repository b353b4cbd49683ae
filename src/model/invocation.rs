//! An invocation of a function, as every face of the daemon hands it to the scheduler.

use super::{InvocationId, words::words};
use bytes::Bytes;
use http::{HeaderMap, Method, uri::PathAndQuery};
use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// An invocation on its way to a worker.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Identity, in every log line and answer about it.
    pub id: InvocationId,
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Headers; a name may occur more than once.
    pub headers: HeaderMap,
    /// The request body.
    pub body: RequestBody,
    /// Time when the daemon received it.
    pub received: Instant,
    /// Time it may take from then on, the wait for a worker included.
    pub timeout: Duration,
}

impl Invocation {
    /// Time by which it must have ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.received + self.timeout
    }
}

/// The body of a request.
#[derive(Debug, Clone)]
pub enum RequestBody {
    /// A complete body.
    Whole(Bytes),
    /// A body that arrives while the function reads it.
    Incoming(Arc<dyn IncomingBody>),
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// A body that arrives in chunks. A single reader reads it from the first byte.
pub trait IncomingBody: Debug + Send + Sync {
    /// Length in bytes, if known.
    fn length(&self) -> Option<u64>;

    /// Polls for the next bytes; `None` at the end.
    fn poll_chunk(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>>;
}

/// A body whose stream ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct BodyBroken;

words! {
    /// Kind of start that an invocation waited for.
    ColdStart {
        /// A warm worker took it.
        None = "none",
        /// A prewarmed worker loaded the function for it.
        Prewarmed = "prewarmed",
        /// A new worker process was spawned for it.
        Spawned = "spawned",
    }
}

/// Breakdown of the time an invocation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time spent waiting for a free worker.
    pub queue: Duration,
    /// Time spent waiting for a worker to start.
    pub start: Duration,
    /// Time from the request's first byte to the worker until the answer's last byte.
    pub run: Duration,
    /// Kind of start it waited for.
    pub cold_start: ColdStart,
}
