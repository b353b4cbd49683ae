//! One call of a function, as every face of the daemon hands it to the scheduler.

use super::InvocationId;
use bytes::Bytes;
use http::{HeaderMap, Method, uri::PathAndQuery};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

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
    pub body: Bytes,
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

/// What a call had to wait for besides its own run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
