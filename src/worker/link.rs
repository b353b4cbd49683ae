//! Invocations to a worker: HTTP/1.1 over its Unix socket, one kept-alive connection for each invocation in flight.
//!
//! A connection is driven by whoever uses it, inside the same future: no task of its own, no hand-over. Dropping an
//! [`Answer`] before its end drops the connection, which aborts `req.signal` in the worker.

use crate::{
    model::Invocation,
    protocol::worker::{
        DEADLINE_HEADER, ERROR_HEADER, HandlerFailure, INVOCATION_HEADER, PENDING_HEADER, RESERVED_PREFIX,
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{
    future::{Future, poll_fn},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};
use tokio::net::UnixStream;

/// The file name of a worker's socket, in the worker's own folder.
pub(super) const SOCKET_NAME: &str = "s";

/// The most bytes an answer's head may have.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// The most bytes of a failure report that are read.
const FAILURE_BYTES_MAX: usize = 64 * 1024;

/// Headers that are about one connection and do not travel on, besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type RequestBody = Full<Bytes>;

/// Why there is no (complete) answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The worker never got the request: it may be given to another.
    #[error("the worker is gone")]
    NotSent,
    /// The connection ended before the answer did.
    #[error("the worker closed the connection before the answer was complete: {0}")]
    Broken(String),
    /// The handler threw, or returned no Response.
    #[error("{}", .0.message)]
    Handler(HandlerFailure),
}

/// The connections to one worker.
#[derive(Debug)]
pub(super) struct Link {
    idle: Arc<Mutex<Vec<Connection>>>,
    socket: SocketPath,
}

/// A way to a socket that works however long the path of its folder is.
#[derive(Debug)]
pub(super) struct SocketPath {
    /// Keeps the folder reachable under `path`.
    _folder: OwnedFd,
    path: PathBuf,
}

impl SocketPath {
    /// The worker's socket in an opened folder.
    pub(super) fn new(folder: OwnedFd) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd()));
        Self { _folder: folder, path }
    }
}

impl Link {
    pub(super) fn new(socket: SocketPath) -> Self {
        Self { idle: Arc::default(), socket }
    }

    /// Sends a request that is not an invocation and collects its answer.
    pub(super) async fn call(
        &self,
        request: Request<RequestBody>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), ExchangeError> {
        let mut answer = self.send(request).await?;
        let status = answer.status;
        let body = answer.collect(bytes_max).await?;
        Ok((status, body))
    }

    /// Sends an invocation and waits for the head of the answer.
    pub(super) async fn exchange(&self, invocation: &Invocation) -> Result<Answer, ExchangeError> {
        let mut answer = self.send(request(invocation)).await?;
        if answer.failed {
            let report = answer.collect(FAILURE_BYTES_MAX).await?;
            let failure = serde_json::from_slice(&report).unwrap_or_else(|_| HandlerFailure {
                name: None,
                message: format!("the handler failed, and its report is not readable ({} bytes)", report.len()),
                stack: None,
            });
            return Err(ExchangeError::Handler(failure));
        }
        // Bun lets a handler return 101, and nothing could follow that here.
        if answer.status.is_informational() {
            let message =
                format!("the handler returned status {}; an answer has a status from 200 on", answer.status.as_u16());
            return Err(ExchangeError::Handler(HandlerFailure { name: None, message, stack: None }));
        }
        Ok(answer)
    }

    async fn send(&self, mut request: Request<RequestBody>) -> Result<Answer, ExchangeError> {
        loop {
            let (mut connection, reused) = match self.take_idle() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match connection.send(request).await {
                Ok(response) => return Ok(Answer::new(response, connection, Arc::clone(&self.idle))),
                // A kept-alive connection may have been closed by the worker in the meantime; a new one tells for sure.
                Err(SendError::NotSent(returned)) if reused => request = *returned,
                Err(SendError::NotSent(_)) => return Err(ExchangeError::NotSent),
                Err(SendError::Broken(error)) => return Err(ExchangeError::Broken(error.to_string())),
            }
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().pop()
    }

    async fn connect(&self) -> Result<Connection, ExchangeError> {
        Connection::open(&self.socket).await.map_err(|error| {
            tracing::debug!(%error, "cannot connect to a worker");
            ExchangeError::NotSent
        })
    }
}

/// What moves the bytes of a connection; none once that has closed.
type Driver = Option<Pin<Box<http1::Connection<TokioIo<UnixStream>, RequestBody>>>>;

/// One connection and the state machine that moves its bytes.
struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

enum SendError {
    NotSent(Box<Request<RequestBody>>),
    Broken(hyper::Error),
}

impl Connection {
    async fn open(socket: &SocketPath) -> io::Result<Self> {
        let stream = UnixStream::connect(&socket.path).await?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    async fn send(&mut self, request: Request<RequestBody>) -> Result<http::Response<Incoming>, SendError> {
        let Self { sender, driver } = self;
        if !matches!(drive(driver, sender.ready()).await, Ok(Ok(()))) {
            return Err(SendError::NotSent(Box::new(request)));
        }
        match drive(driver, sender.try_send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Err(SendError::NotSent(Box::new(request))),
                None => Err(SendError::Broken(error.into_error())),
            },
            Err(error) => Err(SendError::Broken(error)),
        }
    }
}

/// Runs a future that needs the connection to make progress.
async fn drive<F: Future>(driver: &mut Driver, future: F) -> Result<F::Output, hyper::Error> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let closed = driver.as_mut().map_or(Poll::Ready(Ok(())), |driver| driver.as_mut().poll(context));
        if closed.is_ready() {
            // Whoever waits for it learns of its end by its drop: a request that it has not read would wait for ever.
            *driver = None;
        }
        // What the driver just did may be what the future waits for.
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        match closed {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// The head of an answer, and its body as it comes.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, without those that are about the connection.
    pub headers: HeaderMap,
    /// Whether promises given to `waitUntil` are pending: the worker will say when they have settled.
    pub pending: bool,
    /// Whether the shim made it because the handler failed.
    failed: bool,
    body: Incoming,
    /// None once the body is complete: the connection has gone back to the idle ones.
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Answer {
    fn new(response: http::Response<Incoming>, connection: Connection, idle: Arc<Mutex<Vec<Connection>>>) -> Self {
        let (mut parts, body) = response.into_parts();
        let pending = parts.headers.contains_key(PENDING_HEADER);
        let failed = parts.headers.contains_key(ERROR_HEADER);
        remove_hop_by_hop(&mut parts.headers);
        Self { status: parts.status, headers: parts.headers, pending, failed, body, connection: Some(connection), idle }
    }

    /// The next bytes of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        loop {
            let frame = drive(&mut connection.driver, self.body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => {
                    self.idle.lock().extend(self.connection.take());
                    return Ok(None);
                }
                Ok(Some(Err(error))) | Err(error) => {
                    self.connection = None;
                    return Err(ExchangeError::Broken(error.to_string()));
                }
            }
        }
    }

    /// The whole body, as long as it has at most `bytes_max` bytes; what is over is cut off.
    async fn collect(&mut self, bytes_max: usize) -> Result<Bytes, ExchangeError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            let room = bytes_max - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        Ok(body.into())
    }
}

fn request(invocation: &Invocation) -> Request<RequestBody> {
    let mut request = Request::new(Full::new(invocation.body.clone()));
    *request.method_mut() = invocation.method.clone();
    *request.uri_mut() = Uri::from(invocation.target.clone());
    let mut headers = invocation.headers.clone();
    remove_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    }
    let id = HeaderValue::try_from(invocation.id.to_string()).expect("an id is visible ASCII");
    headers.insert(INVOCATION_HEADER, id);
    let left = invocation.deadline().saturating_duration_since(Instant::now());
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(DEADLINE_HEADER, HeaderValue::from(left));
    *request.headers_mut() = headers;
    request
}

/// Removes what is about one connection, and what only this protocol may say.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(connection) = headers.get(header::CONNECTION) {
        let named: Vec<HeaderName> =
            connection.to_str().unwrap_or_default().split(',').filter_map(|name| name.trim().parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}
