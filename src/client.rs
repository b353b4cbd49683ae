//! The client of the command socket: the command line, the tests, the benches and other programs use this one.
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
//! // The same with the body as it is produced.
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
//! A [`Client`] is one connection. Its clones share it; their calls run concurrently and are told apart by their
//! request id. Dropping a call before its answer forgets it here, and the daemon still completes it. A connection that
//! has ended stays so: connect again.
//!
//! A lone call is read by its caller, without a hand-over between tasks; while several wait, one task reads for all of
//! them (see `connection.rs`). Frames of a streamed answer that nobody asks for are kept in memory as long as other
//! calls have the connection read.

mod connection;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorCode};
use crate::protocol::frame::FrameError;
use crate::protocol::ipc::{self, Call, Encoding};
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

/// The largest frame a client takes unless [`Client::with_frame_bytes_max`] says otherwise, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// The exit code of the command line when no daemon answers.
pub const EXIT_NO_DAEMON: u8 = 10;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection.
    #[error("{}", connect_message(socket, source))]
    Connect {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("{0}")]
    Refused(Error),
    /// The connection ended before the answer was complete.
    #[error("the daemon closed the connection before it answered; its log says why")]
    Disconnected,
    /// What came is not what the protocol says.
    #[error("{0}; is the daemon of another version?")]
    Protocol(#[from] ProtocolError),
}

/// Bytes that are no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Not a frame, or one over the limit.
    #[error("the daemon's answer cannot be read: {0}")]
    Frame(FrameError),
    /// Not the payload that answers this command.
    #[error("the daemon's answer cannot be read: {0}")]
    Payload(Error),
    /// A status byte nobody knows.
    #[error("the daemon's answer has the unknown status 0x{0:02x}")]
    Status(u8),
    /// A request whose length has no room in a frame.
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
    /// The daemon's error code, when it was the daemon that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// The exit code of the command line.
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

/// The stream of the local socket, which on Unix is a Unix socket.
fn socket_of(stream: Stream) -> io::Result<Socket> {
    let Stream::UdSocket(stream) = stream;
    Socket::new(tokio::net::UnixStream::from(stream).into_std()?)
}

async fn connect(socket: &Path) -> io::Result<Socket> {
    let reached = ShortPath::new(socket)?;
    socket_of(Stream::connect(reached.as_path().to_fs_name::<GenericFilePath>()?).await?)
}

impl Client {
    /// Connects to the daemon's socket. Calls are written in MessagePack.
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

    /// The same connection with requests, and so answers, in the given encoding.
    #[must_use]
    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Bounds the frames taken from the daemon, in bytes, for all clones.
    #[must_use]
    pub fn with_frame_bytes_max(self, bytes: usize) -> Self {
        self.connection.frame_bytes_max.store(bytes, Ordering::Relaxed);
        self
    }

    /// Sends a request, at once, and waits for its answer. Partial frames before it are skipped.
    pub fn call<R: Call>(&self, request: &R) -> impl Future<Output = Result<R::Response, ClientError>> + Send + use<R> {
        let answer = self.call_streaming(request);
        async move { answer?.finish().await }
    }

    /// Sends a request whose answer comes in parts.
    pub fn call_streaming<R: Call>(&self, request: &R) -> Result<Answer<R>, ClientError> {
        let payload = self.encoding.write(request).map_err(ProtocolError::Payload)?;
        let pending = self.connection.start(R::COMMAND, &payload)?;
        Ok(Answer { pending, last: None, request: PhantomData })
    }

    /// Sends any bytes as the payload of any command and gives the status and payload of the first frame that answers.
    pub async fn call_raw(&self, command: u8, payload: &[u8]) -> Result<(u8, Bytes), ClientError> {
        let frame = self.connection.start(command, payload)?.frame().await?;
        Ok((frame.tag, frame.payload))
    }
}

/// An answer that comes in parts.
#[derive(Debug)]
pub struct Answer<R> {
    pending: Pending,
    /// The payload that completes the answer, once it has come.
    last: Option<Bytes>,
    request: PhantomData<fn() -> R>,
}

impl<R: Call> Answer<R> {
    /// The next part, or nothing when all have come. Cancelling this wait loses no part.
    pub async fn next_partial<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let payload = self.next_payload().await?;
        payload.map(|it| read(&it)).transpose()
    }

    /// Tells the daemon that the command is no longer wanted. Its answer still comes: `CANCELLED`, or what it did before
    /// it could be cancelled.
    pub fn cancel(&self) -> Result<(), ClientError> {
        let payload = Encoding::MessagePack.write(&CancelRequest { request_id: self.pending.id });
        let payload = payload.map_err(ProtocolError::Payload)?;
        self.pending.connection.start(CancelRequest::COMMAND, &payload).map(drop)
    }

    /// The response that completes the answer. Parts that were not asked for are skipped.
    pub async fn finish(mut self) -> Result<R::Response, ClientError> {
        while self.next_payload().await?.is_some() {}
        read(self.last.as_ref().unwrap_or(&Bytes::new()))
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
