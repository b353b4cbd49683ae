//! One call of a function, as every face of the daemon hands it to the scheduler.

use super::InvocationId;
use bytes::Bytes;
use http::{HeaderMap, Method, uri::PathAndQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// A call on its way to a worker.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its identity, in every log line and answer about it.
    pub id: InvocationId,
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// Headers; a name may come more than once.
    pub headers: HeaderMap,
    /// The request body.
    pub body: RequestBody,
    /// When the daemon got it.
    pub received: Instant,
    /// How long it may take from then on, the wait for a worker included.
    pub timeout: Duration,
}

impl Invocation {
    /// When it must have ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.received + self.timeout
    }
}

/// The body of a request.
#[derive(Debug, Clone)]
pub enum RequestBody {
    /// All of it is there.
    Whole(Bytes),
    /// It comes in while the function reads it.
    Incoming(Arc<dyn IncomingBody>),
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// A body that comes in. One reader has it, from the first byte on.
pub trait IncomingBody: Debug + Send + Sync {
    /// How many bytes it will have, where that is known.
    fn length(&self) -> Option<u64>;

    /// The next bytes; none at the end.
    fn poll_chunk(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>>;
}

/// A body that ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct BodyBroken;

/// What a call had to wait for besides its own run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColdStart {
    /// A warm worker took it.
    None,
    /// A process that was waiting for a function loaded it.
    Prewarmed,
    /// A worker process was spawned for it.
    Spawned,
}

/// Where the time of a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a worker to be free.
    pub queue: Duration,
    /// Waiting for a worker to start.
    pub start: Duration,
    /// From the request's first byte to the worker until the answer's last byte.
    pub run: Duration,
    /// What kind of start it waited for.
    pub cold_start: ColdStart,
}
