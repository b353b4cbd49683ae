//! The client of the command socket, for the command line, the tests, the benches and other programs.
//!
//! ```no_run
//! use levain::client::Client;
//! use levain::protocol::message::{InvokeRequest, StreamChunk, StreamHead};
//!
//! # async fn example() -> Result<(), levain::client::ClientError> {
//! let client = Client::connect("data/levain.sock").await?;
//! let request = InvokeRequest { function_id: "hello".into(), ..InvokeRequest::default() };
//! let answer = client.call(&request).await?;
//! println!("{} {} bytes from {}", answer.status, answer.body.0.len(), answer.version);
//!
//! // Stream the body as the function produces it.
//! let mut answer = client.call_streaming(&InvokeRequest { stream: true, ..request })?;
//! if let Some(head) = answer.next_partial::<StreamHead>().await? {
//!     println!("{}", head.status);
//! }
//! while let Some(chunk) = answer.next_partial::<StreamChunk>().await? {
//!     println!("{} bytes", chunk.body.0.len());
//! }
//! println!("{} ms", answer.finish().await?.execution_time_ms);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is one connection, which its clones share. Calls run concurrently; their request ids tell them apart.
//! When a call is dropped before its answer, the client forgets it, and the daemon still completes the command. A
//! connection that has ended is not reopened: connect again.
//!
//! The caller of a lone call reads the socket itself, without a hand-over between tasks. While several calls wait, one
//! task reads for all of them (see `connection.rs`). Frames of a streamed answer that are not taken accumulate in
//! memory while other calls read the connection.

mod connection;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorCode};
use crate::protocol::frame::FrameError;
use crate::protocol::ipc::{self, CommandRequest, Encoding};
use crate::protocol::message::CancelRequest;
use crate::socket::{ShortPath, Socket};
use bytes::Bytes;
use connection::{Connection, Pending};
use interprocess::local_socket::{GenericFilePath, ToFsName, tokio::Stream, traits::tokio::Stream as _};
use serde::de::DeserializeOwned;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Default limit on a frame from the daemon, in bytes; see [`Client::with_frame_bytes_max`].
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Exit code of the command line when no daemon answers.
pub const EXIT_NO_DAEMON: u8 = 10;

/// Reason why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened.
    #[error("{}", connect_message(socket, source))]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("{0}")]
    Refused(Error),
    /// The connection ended before the answer was complete.
    #[error("the daemon closed the connection before it answered; its log says why")]
    Disconnected,
    /// The answer does not follow the protocol.
    #[error("{0}; is the daemon of another version?")]
    Protocol(#[from] ProtocolError),
}

/// Bytes from the daemon that are not a valid answer, or a request that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are not a frame, or the frame exceeds the limit.
    #[error("the daemon's answer cannot be read: {0}")]
    Frame(FrameError),
    /// The payload is not an answer to this command.
    #[error("the daemon's answer cannot be read: {0}")]
    Payload(Error),
    /// The status byte is unknown.
    #[error("the daemon's answer has the unknown status 0x{0:02x}")]
    Status(u8),
    /// The request is too long for a frame.
    #[error("a request of {0} bytes does not fit into a frame")]
    PayloadTooLarge(usize),
}

fn connect_message(socket: &Path, source: &io::Error) -> String {
    let socket = socket.display();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no daemon answers at {socket}: start one with `levain serve`, or name its socket with --socket or \
             LEVAIN_SOCKET"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("the daemon's socket {socket} may not be opened by this user: use the account that runs it")
        }
        _ => format!("cannot connect to {socket}: {source}"),
    }
}

impl ClientError {
    /// Returns the daemon's error code, if the daemon refused the request.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// Returns the exit code of the command line for this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(error) => error.code.exit_code(),
            Self::Connect { .. } | Self::Disconnected => EXIT_NO_DAEMON,
            Self::Protocol(_) => ErrorCode::Internal.exit_code(),
        }
    }
}

/// A connection to the daemon; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
    encoding: Encoding,
}

/// Converts the stream of the local socket, which on Unix is a Unix socket.
fn socket_of(stream: Stream) -> io::Result<Socket> {
    let Stream::UdSocket(stream) = stream;
    Socket::new(tokio::net::UnixStream::from(stream).into_std()?)
}

async fn connect(socket: &Path) -> io::Result<Socket> {
    let reached = ShortPath::new(socket)?;
    socket_of(Stream::connect(reached.as_path().to_fs_name::<GenericFilePath>()?).await?)
}

impl Client {
    /// Connects to the daemon's socket. Requests are encoded in MessagePack.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, ClientError> {
        let socket = socket.as_ref();
        match connect(socket).await {
            Ok(stream) => {
                let connection = Arc::new(Connection::new(stream, FRAME_BYTES_MAX));
                Ok(Self { connection, encoding: Encoding::MessagePack })
            }
            Err(source) => Err(ClientError::Connect { socket: socket.to_owned(), source }),
        }
    }

    /// Sets the encoding of requests, and so of their answers.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sets the limit on frames from the daemon, in bytes, for all clones.
    #[must_use]
    pub fn with_frame_bytes_max(self, bytes: usize) -> Self {
        self.connection.frame_bytes_max.store(bytes, Ordering::Relaxed);
        self
    }

    /// Sends a request at once and waits for its answer. Partial frames before the answer are skipped.
    pub fn call<R: CommandRequest>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<R::Response, ClientError>> + Send + use<R> {
        let answer = self.call_streaming(request);
        async move { answer?.finish().await }
    }

    /// Sends a request whose answer comes in parts.
    pub fn call_streaming<R: CommandRequest>(&self, request: &R) -> Result<Answer<R>, ClientError> {
        let payload = request.write(self.encoding).map_err(ProtocolError::Payload)?;
        let pending = self.connection.start(R::COMMAND, &payload)?;
        Ok(Answer { pending, last: None, request: PhantomData })
    }

    /// Sends arbitrary bytes as the payload of a command, and returns the status and payload of the first frame of its
    /// answer.
    pub async fn call_raw(&self, command: u8, payload: &[u8]) -> Result<(u8, Bytes), ClientError> {
        let frame = self.connection.start(command, payload)?.frame().await?;
        Ok((frame.tag, frame.payload))
    }
}

/// An answer that comes in parts.
#[derive(Debug)]
pub struct Answer<R> {
    pending: Pending,
    /// Payload of the final frame, once it has arrived.
    last: Option<Bytes>,
    request: PhantomData<fn() -> R>,
}

impl<R: CommandRequest> Answer<R> {
    /// Waits for the next part; returns `None` after the last one. Cancelling the wait loses no part.
    pub async fn next_partial<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let payload = self.next_payload().await?;
        payload.map(|it| read(&it)).transpose()
    }

    /// Asks the daemon to cancel the command. Its answer still arrives: `CANCELLED`, or its result if it could not be
    /// cancelled any more.
    pub fn cancel(&self) -> Result<(), ClientError> {
        let payload = Encoding::MessagePack.write(&CancelRequest { request_id: self.pending.id });
        let payload = payload.map_err(ProtocolError::Payload)?;
        self.pending.connection.start(CancelRequest::COMMAND, &payload).map(drop)
    }

    /// Waits for the response that completes the answer. Parts that were not taken are skipped.
    pub async fn finish(mut self) -> Result<R::Response, ClientError> {
        while self.next_payload().await?.is_some() {}
        let payload = self.last.take().unwrap_or_default();
        R::read_response(&payload).map_err(|error| ProtocolError::Payload(error).into())
    }

    async fn next_payload(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.last.is_some() {
            return Ok(None);
        }
        let frame = self.pending.frame().await?;
        match frame.tag {
            ipc::PARTIAL => Ok(Some(frame.payload)),
            ipc::SUCCESS => {
                self.last = Some(frame.payload);
                Ok(None)
            }
            ipc::ERROR => Err(ClientError::Refused(read(&frame.payload)?)),
            status => Err(ProtocolError::Status(status).into()),
        }
    }
}

fn read<T: DeserializeOwned>(payload: &Bytes) -> Result<T, ClientError> {
    Encoding::of(payload).read_shared(payload).map_err(|error| ProtocolError::Payload(error).into())
}
