//! Sends invocations to a worker: HTTP/1.1 over its Unix socket, one kept-alive connection for each invocation in
//! flight.
//!
//! This module decides which headers travel, which connection is used, and what an answer means; [`super::http1`] owns
//! the bytes. The caller's future drives the connection itself, without a task or a hand-over. Dropping an [`WorkerAnswer`]
//! before its end drops the connection, which aborts `req.signal` in the worker.
//!
//! **Invariant.** A request is sent on a connection only if nothing has arrived on it since the last answer was
//! complete.

use super::{
    http1::{ConnectionState, Http1Error, ResponseHead, WorkerConnection},
    violation::Violation,
};
use crate::{
    model::{Invocation, RequestBody, remove_named_by_connection},
    protocol::worker::{
        DEADLINE_HEADER, ERROR_HEADER, HandlerFailure, INVOCATION_HEADER, PENDING_HEADER, RESERVED_PREFIX,
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};
use tokio::runtime::{self, Handle};

/// Maximum bytes read of a failure report.
const FAILURE_BYTES_MAX: usize = 256 * 1024;

/// Headers that concern one connection and are not forwarded, besides `WorkerConnection` and the headers it names.
const HOP_BY_HOP: [HeaderName; 8] = [
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Reason why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The worker never got the request: another worker may get it.
    #[error("the worker is gone")]
    NotSent,
    /// The caller's body broke off.
    #[error("the body of the request broke off")]
    Request,
    /// The connection ended before the answer did.
    #[error("the worker closed the connection before the answer was complete: {0}")]
    Broken(String),
    /// The answer cannot have come from a shim.
    #[error("{0}")]
    Violation(Violation),
    /// A violation before the request was sent: another worker may get the request.
    #[error("{0}")]
    ViolationBefore(Violation),
    /// The handler threw, or returned no Response.
    #[error("{}", .failure.message)]
    Handler {
        /// The handler's error.
        failure: HandlerFailure,
        /// Whether promises given to `waitUntil` are pending: the worker will report when they have settled.
        pending: bool,
    },
}

/// The connections to one worker.
#[derive(Debug)]
pub(super) struct Link {
    idle: Arc<Idle>,
    socket: SocketPath,
}

/// Connections that wait for their next use. Each is used only by the runtime that opened it: another one would be
/// woken across threads.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<(runtime::Id, WorkerConnection)>>);

impl Idle {
    /// Takes a connection on which nothing has happened since it became idle.
    ///
    /// Bytes that arrive between this check and the request cannot be told from an answer. They can only be an answer
    /// that the function itself has written; the real answer then follows, unasked.
    fn take(&self) -> Result<Option<WorkerConnection>, Violation> {
        let own = Handle::current().id();
        loop {
            let connection = {
                let mut idle = self.0.lock();
                let Some(index) = idle.iter().rposition(|(runtime, _)| *runtime == own) else { return Ok(None) };
                idle.swap_remove(index).1
            };
            match connection.state_after_rest() {
                ConnectionState::Reusable => return Ok(Some(connection)),
                ConnectionState::Over => {}
                ConnectionState::Unasked => return Err(Violation::BytesUnasked),
            }
        }
    }

    fn put(&self, connection: WorkerConnection) -> Result<(), Violation> {
        match connection.state() {
            ConnectionState::Reusable => self.0.lock().push((Handle::current().id(), connection)),
            ConnectionState::Over => {}
            ConnectionState::Unasked => return Err(Violation::BytesUnasked),
        }
        Ok(())
    }
}

/// Path to a socket that has no name in the file system any more.
#[derive(Debug)]
pub(super) struct SocketPath {
    /// Keeps the socket reachable under `path`.
    _socket: OwnedFd,
    path: PathBuf,
}

impl SocketPath {
    /// Wraps the worker's opened socket.
    pub(super) fn new(socket: OwnedFd) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        Self { _socket: socket, path }
    }
}

impl Link {
    pub(super) fn new(socket: SocketPath) -> Self {
        Self { idle: Arc::default(), socket }
    }

    /// Sends a request that is not an invocation and collects its answer.
    pub(super) async fn call(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), ExchangeError> {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let mut answer = self.send(method, path, &headers, &RequestBody::Whole(body)).await?;
        let status = answer.status;
        let body = answer.collect(bytes_max).await?;
        Ok((status, body))
    }

    /// Sends an invocation and waits for the head of the answer.
    pub(super) async fn exchange(&self, invocation: &Invocation) -> Result<WorkerAnswer, ExchangeError> {
        let headers = request_headers(invocation);
        let target = invocation.target.as_str();
        let mut answer = self.send(&invocation.method, target, &headers, &invocation.body).await?;
        if answer.failed {
            let report = answer.collect(FAILURE_BYTES_MAX).await?;
            let failure = serde_json::from_slice(&report).unwrap_or_else(|_| HandlerFailure {
                name: None,
                message: format!("the handler failed, and its report is not readable ({} bytes)", report.len()),
                stack: None,
            });
            return Err(ExchangeError::Handler { failure, pending: answer.pending });
        }
        // Bun lets a handler return 101, but no upgraded connection could follow here.
        if answer.status.is_informational() {
            let message =
                format!("the handler returned status {}; return a status of 200 or above", answer.status.as_u16());
            let failure = HandlerFailure { name: None, message, stack: None };
            return Err(ExchangeError::Handler { failure, pending: answer.pending });
        }
        Ok(answer)
    }

    async fn send(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &RequestBody,
    ) -> Result<WorkerAnswer, ExchangeError> {
        loop {
            let idle = self.idle.take().map_err(ExchangeError::ViolationBefore)?;
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => WorkerConnection::open(&self.socket.path).await.map_err(|error| {
                    tracing::debug!(%error, "cannot connect to a worker");
                    ExchangeError::NotSent
                })?,
            };
            match connection.send(method, target, headers, body).await {
                Ok(head) => return Ok(WorkerAnswer::new(head, connection, Arc::clone(&self.idle))),
                // The worker may have closed a kept-alive connection in the meantime; a new connection tells for sure.
                Err(Http1Error::NotSent(_)) if reused => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl From<Http1Error> for ExchangeError {
    fn from(error: Http1Error) -> Self {
        match error {
            Http1Error::NotSent(_) => Self::NotSent,
            Http1Error::Request => Self::Request,
            Http1Error::Malformed(what) => Self::Violation(Violation::NotHttp(what)),
            Http1Error::Unfit(what) => {
                let failure = HandlerFailure { name: None, message: what.into(), stack: None };
                // The rest of the answer is not read, so the worker must report when the invocation is over.
                Self::Handler { failure, pending: true }
            }
            Http1Error::Ended | Http1Error::Io(_) => Self::Broken(error.to_string()),
        }
    }
}

/// The head of an answer, and its body as it arrives.
#[derive(Debug)]
pub struct WorkerAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, without those that concern the connection.
    pub headers: HeaderMap,
    /// Whether promises given to `waitUntil` are pending: the worker will report when they have settled.
    pub pending: bool,
    /// Whether the shim made this answer because the handler failed.
    failed: bool,
    /// `None` once the body is complete: the connection has returned to the idle ones.
    connection: Option<WorkerConnection>,
    idle: Arc<Idle>,
}

impl WorkerAnswer {
    fn new(head: ResponseHead, connection: WorkerConnection, idle: Arc<Idle>) -> Self {
        let ResponseHead { status, mut headers } = head;
        let pending = headers.contains_key(PENDING_HEADER);
        let failed = headers.contains_key(ERROR_HEADER);
        remove_hop_by_hop(&mut headers);
        Self { status, headers, pending, failed, connection: Some(connection), idle }
    }

    /// Returns the next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        match connection.chunk().await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                if let Some(connection) = self.connection.take() {
                    self.idle.put(connection).map_err(ExchangeError::Violation)?;
                }
                Ok(None)
            }
            Err(error) => {
                self.connection = None;
                Err(error.into())
            }
        }
    }

    /// Returns the body, up to `bytes_max` bytes. The rest is not read, and the worker must report when the invocation
    /// is over.
    async fn collect(&mut self, bytes_max: usize) -> Result<Bytes, ExchangeError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            let room = bytes_max - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                (self.connection, self.pending) = (None, true);
            }
        }
        Ok(body.into())
    }
}

/// Builds the headers for the worker: the caller's, plus those that the shim needs.
fn request_headers(invocation: &Invocation) -> HeaderMap {
    let mut headers = invocation.headers.clone();
    remove_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    let id = HeaderValue::try_from(invocation.id.to_string()).expect("an id is visible ASCII");
    headers.insert(INVOCATION_HEADER, id);
    let left = invocation.deadline().saturating_duration_since(Instant::now());
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(DEADLINE_HEADER, HeaderValue::from(left));
    headers
}

/// Removes headers that concern one connection, and those reserved for this protocol.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}
