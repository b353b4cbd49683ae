//! The HTTP face: functions below `/functions/`, and by the host name `<function>.localhost`.
//!
//! [`Server`] accepts connections and gives each to a lane, as the command socket does; hyper speaks HTTP/1.1 and h2c on
//! them. What a request means is said by [`gateway`], and who asks by [`auth`].
//!
//! **Invariants.** What a peer can make the daemon hold is bounded: heads, bodies on their way, connections, and each
//! wait. A peer that goes away takes its invocation with it. While the daemon stops, requests that run are answered and
//! no other begins.

mod answer;
mod api;
mod auth;
mod gateway;
mod pages;
mod upload;

use crate::{commands::Context, config::HttpConfig, lanes::Lanes};
use answer::Answer;
use http::Request;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::TaskTracker;

/// How long to wait before accepting again when the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that go on at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;

/// Headers of one request.
const HEADERS_MAX: usize = 150;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}; set http.address to another, or to off")]
pub struct BindError {
    address: String,
    source: io::Error,
}

/// A listener; connections wait until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    lanes: Arc<Lanes>,
}

impl Server {
    /// Listens where the configuration says, or nowhere.
    pub async fn bind(config: &HttpConfig, lanes: Arc<Lanes>) -> Result<Option<Self>, BindError> {
        let Some(address) = config.address() else { return Ok(None) };
        let fail = |source| BindError { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Some(Self { listener, address, lanes }))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until the daemon stops, then lets those there are finish what they run. Dropping the future
    /// ends all connections.
    pub async fn run(self, context: Arc<Context>) {
        let stop = context.stopping.clone();
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(context.config.load().http.connections_max as usize));
        loop {
            // Further connections wait in the system's queue.
            let place = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                place = Arc::clone(&room).acquire_owned() => place.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer.ip()))) {
                Ok((stream, peer)) => {
                    let (context, main) = (Arc::clone(&context), Handle::current());
                    let served = async move {
                        if let Err(error) = serve(stream, peer, context, main).await {
                            tracing::debug!(%error, "an HTTP connection broke off");
                        }
                        drop(place);
                    };
                    self.lanes.serve(&mut connections, served);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// Runs what HTTP/2 has go on beside a connection's own task; it ends with the connection.
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

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a connection is looked at that has begun to say which version it speaks.
const PREFACE_POLL: Duration = Duration::from_millis(5);

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// One connection, on the lane where it is first polled.
async fn serve(
    stream: std::net::TcpStream,
    peer: IpAddr,
    context: Arc<Context>,
    main: Handle,
) -> Result<(), ConnectionError> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let config = context.config.load_full();
    let stop = context.stopping.clone();
    let speaks_http2 = tokio::select! {
        found = timeout(config.http.head_timeout(), speaks_http2(&stream)) => found??,
        () = stop.cancelled() => return Ok(()),
    };
    let service = service_fn(|request| {
        let context = Arc::clone(&context);
        let main = main.clone();
        async move { Ok::<_, Infallible>(respond(&context, &main, peer, request).await) }
    });
    let stream = TokioIo::new(stream);
    // Both kinds of connection are driven alike, and share no trait.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            tokio::select! {
                outcome = &mut connection => Ok(outcome?),
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    Ok(connection.await?)
                }
            }
        }};
    }
    if speaks_http2 {
        let beside = Beside::default();
        let outcome = drive!(http2_builder(&config.http, &beside).serve_connection(stream, service));
        beside.0.close();
        beside.0.wait().await;
        outcome
    } else {
        drive!(http1_builder(&config.http).serve_connection(stream, service))
    }
}

/// Waits for the first bytes, and leaves them where they are.
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
        .keep_alive_interval(config.head_timeout())
        .keep_alive_timeout(config.head_timeout());
    builder
}

/// What a request means, by its host or its path.
async fn respond(context: &Arc<Context>, main: &Handle, peer: IpAddr, request: Request<Incoming>) -> Answer {
    if let Some(call) = gateway::Call::of(&request, &context.router) {
        return gateway::run(context, call, peer, request).await;
    }
    if request.uri().path().starts_with(api::PREFIX) {
        return api::run(context, main, peer, request).await;
    }
    let (method, path) = (request.method(), request.uri().path());
    pages::get(context, method, path, request.headers()).unwrap_or_else(|| answer::not_found(method, path))
}
