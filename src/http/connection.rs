//! One connection, from its first byte to its last: TLS, the choice of the HTTP version, and the reasons to end it.

use super::{
    exchange::Told,
    face::Face,
    patient::Patient,
    peer::Peer,
    places::{Admission, Place},
    service::{self, Admitted},
    tls,
};
use crate::config::HttpConfig;
use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;

/// Concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// Most headers of one request.
const HEADERS_MAX: usize = 150;

/// Bytes of one HTTP/2 body that may be received before they are read, and of all bodies of one connection (RFC 9113,
/// section 5.2). The connection's window is larger, so that a slow reader of one body does not stop the others.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Most bytes buffered for sending on one HTTP/2 stream.
const STREAM_BUFFER_BYTES: usize = 128 * 1024;

/// First bytes of every HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Interval at which a connection is checked again whose client has sent only a part of the preface.
const PREFACE_POLL: Duration = Duration::from_millis(5);

/// Time for the first request's head on a connection that arrived while all places were taken. A client that has
/// something to ask sends it at once.
const CROWDED_HEAD_TIMEOUT: Duration = Duration::from_secs(3);

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// State shared by the requests of one connection.
struct Connection {
    face: Arc<Face>,
    main: Handle,
    peer: Peer,
    place: Place,
    is_http2: bool,
    /// Number of requests so far, and the most there may be.
    requests: AtomicU32,
    requests_max: u32,
    /// Deadline of the first request.
    first_until: Instant,
}

/// How the daemon ends a connection before the client does.
enum Ending {
    /// After all running requests are answered.
    Answered,
    /// As soon as no request runs.
    Idle,
}

/// Runs the tasks that HTTP/2 spawns beside the connection's own; they end with the connection.
#[derive(Debug, Clone, Default)]
struct Beside(TaskTracker);

impl<F> Executor<F> for Beside
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves one connection on the lane that first polls it.
pub(super) async fn serve(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    place: Place,
    face: Arc<Face>,
    main: Handle,
) -> Result<(), ConnectionError> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let counted = Arc::clone(&face);
    let _open = counted.counters.connection();
    let config = face.config();
    let closing = face.closing.clone();
    let patience = match place.admission {
        Admission::Free => config.http.head_timeout(),
        Admission::Displacing | Admission::Reserved => config.http.head_timeout().min(CROWDED_HEAD_TIMEOUT),
    };
    let first_until = Instant::now() + patience;
    let begins = async {
        let Some(tls) = &face.tls else {
            let is_http2 = speaks_http2(&stream).await?;
            return Ok((Begun::Plain(stream), is_http2));
        };
        let stream = tls.accept(stream).await.inspect_err(|_| face.counters.tls_failure())?;
        let is_http2 = tls::speaks_http2(&stream);
        io::Result::Ok((Begun::Tls(Box::new(stream)), is_http2))
    };
    let (begun, is_http2) = tokio::select! {
        begun = timeout_at(first_until, begins) => begun.inspect_err(|_| face.counters.slow_client())??,
        () = closing.cancelled() => return Ok(()),
        () = place.activity().evicted() => return Ok(()),
    };
    let requests_max = match (config.http.requests_per_connection_max, face.stopping.is_cancelled()) {
        // During shutdown, serve one request and close.
        (_, true) => 1,
        (0, false) => u32::MAX,
        (max, false) => max,
    };
    let requests = AtomicU32::new(0);
    let peer = Peer::new(peer, face.tls.is_some());
    let connection = Connection { face, main, peer, place, is_http2, requests, requests_max, first_until };
    let connection = Arc::new(connection);
    let outcome = match begun {
        Begun::Plain(stream) => connection.drive(stream, &config.http).await,
        Begun::Tls(stream) => connection.drive(*stream, &config.http).await,
    };
    // The client did not complete in time what it had begun to send.
    if outcome.as_ref().is_err_and(hyper::Error::is_timeout) {
        counted.counters.slow_client();
    }
    Ok(outcome?)
}

/// A connection that is ready for HTTP.
enum Begun {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Connection {
    /// Serves requests until the client closes the connection or the daemon ends it.
    async fn drive<S>(self: Arc<Self>, stream: S, config: &HttpConfig) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let service = service_fn(|request| Arc::clone(&self).respond(request));
        let activity = Arc::clone(self.place.activity());
        let stream = TokioIo::new(Patient::new(stream, config.body_timeout(), Arc::clone(&self.face), activity));
        // hyper's two connection types have the same methods but share no trait.
        macro_rules! drive {
            ($connection:expr) => {{
                let mut connection = pin!($connection);
                let ending = tokio::select! {
                    outcome = &mut connection => return outcome,
                    ending = self.ending() => ending,
                };
                connection.as_mut().graceful_shutdown();
                if let Ending::Answered = ending {
                    tokio::select! {
                        outcome = &mut connection => return outcome,
                        () = self.place.activity().evicted() => {}
                    }
                }
                // One poll sends the client the notice of the shutdown, as far as the socket takes it at once.
                if let Poll::Ready(outcome) = poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await {
                    return outcome;
                }
                // A request may have arrived meanwhile.
                if self.place.activity().is_idle() {
                    return Ok(());
                }
                connection.await
            }};
        }
        if self.is_http2 {
            let beside = Beside::default();
            let outcome = async { drive!(http2_builder(config, &beside).serve_connection(stream, service)) }.await;
            beside.0.close();
            beside.0.wait().await;
            outcome
        } else {
            drive!(http1_builder(config).serve_connection(stream, service))
        }
    }

    /// Resolves when the connection should end.
    async fn ending(&self) -> Ending {
        // A connection accepted during shutdown is ended by its limit of one request instead.
        let stopping = match self.requests_max {
            1 => &self.face.closing,
            _ => &self.face.stopping,
        };
        let activity = self.place.activity();
        tokio::select! {
            () = stopping.cancelled() => Ending::Answered,
            () = activity.told.notified() => if activity.is_evicted() { Ending::Idle } else { Ending::Answered },
            () = self.first_is_late() => Ending::Idle,
        }
    }

    /// Resolves when the first request is late. For a connection with a free place hyper's own header timeout covers
    /// this.
    async fn first_is_late(&self) {
        if self.place.admission != Admission::Free {
            sleep_until(self.first_until).await;
            if self.requests.load(Ordering::Relaxed) == 0 {
                return self.face.counters.slow_client();
            }
        }
        pending().await
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Told>, Infallible> {
        let admitted = Admitted { busy: self.place.busy(), may_call: self.place.may_call() };
        let is_worn = self.requests.fetch_add(1, Ordering::Relaxed) + 1 >= self.requests_max;
        let is_last = is_worn || !admitted.may_call;
        // Streams that the client has opened meanwhile are still served (RFC 9113, section 6.8).
        if is_last && self.is_http2 {
            self.place.activity().told.notify_one();
        }
        let mut answer = service::respond(&self.face, &self.main, &self.peer, admitted, request).await;
        if is_last && !self.is_http2 {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

/// Peeks at the first bytes, which stay in the socket, to tell HTTP/2 from HTTP/1.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut begin).await?;
        if seen == 0 || !PREFACE.starts_with(&begin[..seen]) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_POLL).await;
    }
}

fn http1_builder(config: &HttpConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout())
        .max_buf_size(config.head_bytes_max as usize)
        .max_headers(HEADERS_MAX);
    builder
}

fn http2_builder(config: &HttpConfig, beside: &Beside) -> http2::Builder<Beside> {
    let mut builder = http2::Builder::new(beside.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(config.head_bytes_max)
        .max_send_buf_size(STREAM_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(config.head_timeout())
        .keep_alive_timeout(config.head_timeout());
    builder
}
