//! One connection: frames in, commands side by side, frames out.
//!
//! The requests of a connection run in its one task, polled next to its reads and writes. An invocation is thus handed
//! to no other task, and is woken only by its worker's socket. Answers are sent in the order in which they are ready.
//!
//! The connection stops reading from a client that sends faster than it is served. A client that does not read its
//! answers slows down the streams that it has requested, and is cut off when too much waits for it or for all clients
//! together.

use super::{backlog::Share, outbox::Outbox};
use crate::{
    commands::{self, Caller, Context, Part, Partials},
    config::Config,
    error::{Error, ErrorCode},
    protocol::{
        frame::{self, COUNTED_HEADER_BYTES, Frame, FrameError},
        ipc::{self, CommandRequest, Encoding, Request},
        message::{CancelRequest, CancelResponse, InvokeRequest},
    },
    socket::Socket,
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
};
use tokio::{
    io::AsyncWriteExt,
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Unsent bytes above which streams must wait.
const BACKLOG_SOFT_BYTES: usize = 256 * 1024;

/// Unsent bytes, in frames of the largest size, above which the client is cut off.
const BACKLOG_FRAMES_MAX: usize = 4;

/// Largest payload of an invocation that runs on the lane; larger ones run on the main runtime.
const PAYLOAD_HERE_BYTES_MAX: usize = 256 * 1024;

/// Parts of streamed answers in the channel from commands to the connection.
const PARTIALS_MAX: usize = 8;

/// Initial size of the read buffer; a buffer that has grown beyond the second number is replaced.
const BUFFER_BYTES: usize = 8 * 1024;
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// The state of one connection.
pub(super) struct Connection {
    context: Arc<Context>,
    caller: Caller,
    /// Runtime for everything but invocations.
    main: Handle,
    /// The configuration when the connection was made.
    config: Arc<Config>,
    incoming: BytesMut,
    outgoing: Outbox,
    /// Unsent bytes of this client, counted from the soft limit on.
    backlog: Share,
    /// Ids of requests whose final answer is still to come.
    open: HashSet<u64>,
    /// Cancellation of these requests, except invocations.
    cancels: HashMap<u64, CancellationToken>,
    /// Deadline for completing a partly received frame.
    frame_deadline: Option<Instant>,
    /// Set when reading has ended: the peer has closed its side or broken the protocol, or the daemon stops.
    done_reading: bool,
}

/// An answer that is not encoded yet.
struct Outgoing {
    request_id: u64,
    status: u8,
    payload: Bytes,
}

impl Connection {
    pub(super) fn new(context: Arc<Context>, caller: Caller, main: Handle, backlog: Share) -> Self {
        let config = context.config.load_full();
        Self {
            context,
            caller,
            main,
            config,
            incoming: BytesMut::with_capacity(BUFFER_BYTES),
            outgoing: Outbox::new(),
            backlog,
            open: HashSet::new(),
            cancels: HashMap::new(),
            frame_deadline: None,
            done_reading: false,
        }
    }

    /// Serves the connection to its end. When the client leaves, its running requests are cancelled.
    pub(super) async fn run(mut self, socket: Socket) -> io::Result<()> {
        let mut writer = &socket;
        let (partials, mut parts) = mpsc::channel::<Part>(PARTIALS_MAX);
        let mut running = FuturesUnordered::new();
        let mut stopped = pin!(self.context.stopping.clone().cancelled_owned());
        loop {
            while let Some(frame) = self.next_frame() {
                running.extend(self.begin(frame, &partials));
            }
            if self.done_reading && running.is_empty() && self.outgoing.is_empty() {
                return writer.shutdown().await;
            }
            self.note_backlog();
            let may_read = !self.done_reading
                && self.outgoing.len() < BACKLOG_SOFT_BYTES
                && self.open.len() < self.config.limits.requests_per_connection_max as usize;
            let deadline = self.frame_deadline.filter(|_| may_read);
            tokio::select! {
                biased;
                written = self.outgoing.write(&mut writer), if !self.outgoing.is_empty() => written?,
                Some(answer) = running.next(), if !running.is_empty() => {
                    // Parts that a command has sent precede its final answer.
                    while let Ok(part) = parts.try_recv() {
                        self.enqueue_part(part);
                    }
                    self.finish(answer)?;
                }
                Some(part) = parts.recv(), if self.outgoing.len() < BACKLOG_SOFT_BYTES => self.enqueue_part(part),
                read = read(&socket, &mut self.incoming), if may_read => {
                    if read? == 0 {
                        self.done_reading = true;
                        // If the client is gone, dropping the running requests cancels them. A client that has closed
                        // only its sending side still waits for its answers.
                        if socket.is_peer_gone()? && !running.is_empty() {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
                () = self.backlog.cut_off(), if self.backlog.is_held() => {
                    let waiting = self.outgoing.len();
                    tracing::warn!(waiting, "a client that does not read is cut off: too many bytes wait for all clients together");
                    return Err(io::Error::other("clients do not read their answers"));
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.on_frame_timeout(),
                () = &mut stopped, if !self.done_reading => self.done_reading = true,
            }
        }
    }

    /// Reports the backlog. Bytes below the soft limit are not counted, as the number of connections bounds them.
    fn note_backlog(&mut self) {
        let waiting = self.outgoing.len();
        let counted = if waiting > BACKLOG_SOFT_BYTES { waiting } else { 0 };
        self.backlog.set(counted, self.config.limits.backlog_bytes_max as usize);
    }

    /// Takes the next complete frame from the buffer.
    fn next_frame(&mut self) -> Option<Frame> {
        if self.done_reading || self.open.len() >= self.config.limits.requests_per_connection_max as usize {
            return None;
        }
        match frame::decode(&mut self.incoming, self.config.limits.frame_bytes_max as usize) {
            Ok(Some(frame)) => {
                self.frame_deadline = None;
                if frame.payload.len() > BUFFER_KEPT_BYTES {
                    // The remaining bytes would keep the memory of the whole frame alive.
                    self.incoming = BytesMut::from(&self.incoming[..]);
                }
                Some(frame)
            }
            Ok(None) => {
                let begun = !self.incoming.is_empty();
                let deadline = || Instant::now() + self.config.limits.frame_timeout();
                self.frame_deadline = begun.then(|| self.frame_deadline.unwrap_or_else(deadline));
                None
            }
            Err(error) => {
                self.on_malformed(&error);
                None
            }
        }
    }

    fn on_malformed(&mut self, error: &FrameError) {
        let code = match error {
            FrameError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            FrameError::LengthMismatch { .. } => ErrorCode::InvalidRequest,
        };
        self.refuse(error.request_id(), Encoding::Json, &Error::new(code, error.to_string()));
        self.done_reading = true;
    }

    fn on_frame_timeout(&mut self) {
        let limit = self.config.limits.frame_timeout().as_millis();
        self.refuse(
            0,
            Encoding::Json,
            &Error::invalid(format!("a frame was not completed within {limit} ms of its first byte")),
        );
        self.done_reading = true;
    }

    /// Starts a request, or answers an invalid one at once.
    fn begin(&mut self, frame: Frame, partials: &mpsc::Sender<Part>) -> Option<impl Future<Output = Outgoing> + use<>> {
        let Frame { request_id, tag, payload } = frame;
        let encoding = Encoding::of(&payload);
        if self.open.contains(&request_id) {
            let message =
                format!("request id {request_id} is in use on this connection: wait for its answer, or use another id");
            self.refuse(request_id, encoding, &Error::invalid(message));
            return None;
        }
        if tag == CancelRequest::COMMAND {
            self.cancel(request_id, encoding, &payload);
            return None;
        }
        self.open.insert(request_id);
        let context = Arc::clone(&self.context);
        let mut partials = Partials::new(encoding, request_id, partials.clone());
        if tag != InvokeRequest::COMMAND {
            let cancel = CancellationToken::new();
            self.cancels.insert(request_id, cancel.clone());
            partials = partials.cancelled_by(cancel);
        }
        let caller = self.caller.clone().with(partials);
        let payload_bytes_max = (self.config.limits.frame_bytes_max as usize).saturating_sub(COUNTED_HEADER_BYTES);
        // Other connections on the lane must not wait while a large payload is read, nor for a command that may block.
        let here = tag == InvokeRequest::COMMAND && payload.len() <= PAYLOAD_HERE_BYTES_MAX;
        let main = (!here).then(|| self.main.clone());
        Some(async move {
            let command = async move {
                let request = Request::decode_shared(tag, &payload)?;
                drop(payload);
                let answer = commands::execute(&context, request, encoding, &caller).await?;
                match answer.len() {
                    length if length > payload_bytes_max => Err(answer_too_large(length, payload_bytes_max)),
                    _ => Ok(answer),
                }
            };
            // A panicking command must not end the other requests on the connection.
            let outcome = match main {
                None => AssertUnwindSafe(command).catch_unwind().await.ok(),
                Some(main) => AbortOnDropHandle::new(main.spawn(command)).await.ok(),
            };
            match outcome.unwrap_or_else(|| Err(Error::internal("a command panicked"))) {
                Ok(payload) => Outgoing { request_id, status: ipc::SUCCESS, payload: payload.into() },
                Err(error) => {
                    let payload = encoding.write(&error).unwrap_or_default().into();
                    Outgoing { request_id, status: ipc::ERROR, payload }
                }
            }
        })
    }

    /// Cancels another request of this connection. That request still gets its own answer.
    fn cancel(&mut self, request_id: u64, encoding: Encoding, payload: &[u8]) {
        let answer = encoding.read::<CancelRequest>(payload).and_then(|request| {
            let found = self.cancels.get(&request.request_id).inspect(|it| it.cancel()).is_some();
            encoding.write(&CancelResponse { found })
        });
        match answer {
            Ok(payload) => self.enqueue(Outgoing { request_id, status: ipc::SUCCESS, payload: payload.into() }),
            Err(error) => self.refuse(request_id, encoding, &error),
        }
    }

    fn finish(&mut self, answer: Outgoing) -> io::Result<()> {
        self.open.remove(&answer.request_id);
        self.cancels.remove(&answer.request_id);
        self.enqueue(answer);
        let max = BACKLOG_FRAMES_MAX * self.config.limits.frame_bytes_max as usize;
        if self.outgoing.len() > max {
            tracing::warn!(waiting = self.outgoing.len(), "a client that does not read its answers is cut off");
            return Err(io::Error::other("the client does not read its answers"));
        }
        Ok(())
    }

    fn refuse(&mut self, request_id: u64, encoding: Encoding, error: &Error) {
        let payload = encoding.write(error).unwrap_or_default().into();
        self.enqueue(Outgoing { request_id, status: ipc::ERROR, payload });
    }

    fn enqueue_part(&mut self, part: Part) {
        let Part { request_id, payload } = part;
        self.enqueue(Outgoing { request_id, status: ipc::PARTIAL, payload });
    }

    fn enqueue(&mut self, outgoing: Outgoing) {
        self.outgoing.push(outgoing.request_id, outgoing.status, outgoing.payload);
    }
}

async fn read(socket: &Socket, incoming: &mut BytesMut) -> io::Result<usize> {
    if incoming.capacity() == incoming.len() {
        incoming.reserve(BUFFER_BYTES);
    }
    socket.read(incoming).await
}

fn answer_too_large(length: usize, max: usize) -> Error {
    let message =
        format!("the answer has {length} bytes and a frame takes {max}; ask for less, or raise limits.frame_bytes_max");
    Error::new(ErrorCode::PayloadTooLarge, message)
}
