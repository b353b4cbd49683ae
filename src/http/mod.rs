//! The HTTP server: functions below `/functions/` and by host names of their own, such as `<function>.localhost`.
//!
//! [`Server`] accepts connections and gives each to a lane, as the command socket does. hyper speaks HTTP/1.1 and
//! HTTP/2 on them ([`connection`]), behind TLS where a certificate is configured ([`tls`]). [`service`] dispatches a
//! request by its [`host`] or its path: to a function ([`gateway`]), to a command ([`api`]), or to a page about the
//! daemon itself ([`metrics`]). [`auth`] and [`local`] identify the client, and [`details`] decides how much it learns
//! about a failure. Headers with which a function would speak for a shared [`origin`] are dropped. Each request is
//! counted and may be logged ([`exchange`], [`access_log`]); [`incoming`] discards the part of its body that nobody
//! reads.
//!
//! The server listens before the daemon has functions and until the last invocation has ended, so that load balancers
//! see both in `/ready`. Requests that cannot be served at that time are answered with 503 ([`face`]).
//!
//! **Invariants.** Everything that a peer can make the daemon hold is bounded: heads, bodies in transit, connections,
//! and each wait. A peer that goes away takes its invocation with it. While the daemon stops, running requests are
//! answered and no others begin.

mod access_log;
mod activity;
mod answer;
mod api;
mod auth;
mod connection;
mod counters;
mod details;
mod exchange;
mod face;
mod gateway;
mod host;
mod incoming;
mod listen;
mod local;
mod metrics;
mod origin;
mod pages;
mod patient;
mod peer;
mod places;
mod service;
mod streamed;
mod tls;
mod upload;

pub use access_log::AccessLogError;
pub use face::Face;
pub use tls::TlsError;

use crate::{commands::HttpPlace, config::Config, lanes::Lanes};
use listen::Listeners;
use places::{Admission, Place, Places};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Pause before the next accept after the system has run out of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval of the search for an idle connection while all are busy and another one waits.
const PLACE_POLL: Duration = Duration::from_millis(20);

/// Least time between two warnings that all connections are taken.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot listen on {address} for HTTP: {source}; choose another address with --http, or --http off")]
    Address {
        /// Address from the configuration.
        address: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The certificate or its key is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
}

/// Bound listeners; connections wait until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    place: HttpPlace,
    lanes: Arc<Lanes>,
    face: Arc<Face>,
    connections_max: usize,
}

impl Server {
    /// Binds the configured address; `None` if HTTP is off. `stopping` is cancelled when the daemon begins to stop.
    pub async fn bind(
        config: &Config,
        lanes: Arc<Lanes>,
        stopping: CancellationToken,
    ) -> Result<Option<Self>, BindError> {
        let Some(address) = config.http.address() else { return Ok(None) };
        let fail = |source| BindError::Address { address: address.to_owned(), source };
        let listeners = Listeners::bind(address).await.map_err(fail)?;
        let place = HttpPlace { address: listeners.address().map_err(fail)?, taken: listeners.taken() };
        let face = Face::new(config, place, stopping)?;
        Ok(Some(Self { listeners, place, lanes, face, connections_max: config.http.connections_max as usize }))
    }

    /// Addresses that the server listens on.
    #[must_use]
    pub fn place(&self) -> HttpPlace {
        self.place
    }

    /// Handle by which the daemon reports its progress.
    #[must_use]
    pub fn face(&self) -> Arc<Face> {
        Arc::clone(&self.face)
    }

    /// Serves connections until the face is closed, then lets existing ones finish their requests. Dropping the future
    /// ends all connections.
    pub async fn run(self) {
        let closing = self.face.closing.clone();
        let mut connections = JoinSet::new();
        let places = Places::new(self.connections_max);
        let mut warned = None;
        // A connection without a place; later ones wait in the system's queue.
        let mut waiting: Option<(TcpStream, SocketAddr)> = None;
        loop {
            if let Some((stream, peer)) = waiting.take() {
                match places.admit(peer.ip()) {
                    Some(place) => self.serve(&mut connections, stream, peer, place, &mut warned),
                    None => waiting = Some((stream, peer)),
                }
            }
            tokio::select! {
                () = closing.cancelled() => break,
                Some(_) = connections.join_next() => {}
                // An existing connection may have become idle.
                () = tokio::time::sleep(PLACE_POLL), if waiting.is_some() => {}
                accepted = self.listeners.accept(), if waiting.is_none() => match accepted.and_then(for_a_lane) {
                    Ok(accepted) => waiting = Some(accepted),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an HTTP connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop(self.listeners);
        while connections.join_next().await.is_some() {}
    }

    /// Gives a connection to a lane.
    fn serve(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        warned: &mut Option<Instant>,
    ) {
        let is_due = warned.is_none_or(|it| it.elapsed() > WARNING_PAUSE);
        if place.admission != Admission::Free && is_due {
            *warned = Some(Instant::now());
            tracing::warn!(
                connections_max = self.connections_max,
                "all HTTP connections are taken: the longest idle one is closed for a new one, and without an idle one \
                 only /health, /ready and /api/ are served; raise http.connections_max if these are your clients"
            );
        }
        let (face, main) = (Arc::clone(&self.face), Handle::current());
        let served = async move {
            if let Err(error) = connection::serve(stream, peer, place, face, main).await {
                tracing::debug!(%error, "an HTTP connection broke off");
            }
        };
        self.lanes.serve(connections, served);
    }
}

/// Detaches a connection from this runtime, so that a lane can take it.
fn for_a_lane((stream, peer): (tokio::net::TcpStream, SocketAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    Ok((stream.into_std()?, peer))
}
