//! State shared by all HTTP connections: the daemon's phase, the counters, the access log and the certificate.

use super::{BindError, access_log::AccessLog, counters::Counters, host, tls::Tls};
use crate::{
    commands::{Context, HttpPlace},
    config::Config,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};
use tokio_util::sync::CancellationToken;

/// Phase of the daemon's life, as HTTP clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The daemon opens its files and tries what workers need; no function can be called yet.
    Starting,
    /// Functions are served; the workers that are always kept are starting.
    Warming,
    /// Functions are served and the kept workers are warm.
    Ready,
    /// Running requests finish; new ones are refused.
    Stopping,
}

impl Phase {
    /// Text that `/ready` answers in this phase.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Starting => "the daemon is starting\n",
            Self::Warming => "the workers that are kept warm are starting\n",
            Self::Ready => "ok\n",
            Self::Stopping => "the daemon is stopping\n",
        }
    }
}

/// Handle of the HTTP server, for its connections and for the daemon.
#[derive(Debug)]
pub struct Face {
    /// Configuration at the start; it applies until there is a context.
    first: Arc<Config>,
    context: OnceLock<Arc<Context>>,
    /// Address that the server listens on.
    pub(super) address: SocketAddr,
    /// Host name in `http.address`, unless that is a number.
    pub(super) host: Option<String>,
    /// The other loopback address with this port, if another process listens there.
    pub(super) taken: Option<SocketAddr>,
    is_warm: AtomicBool,
    /// Cancelled when the daemon begins to stop.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the server stops accepting connections.
    pub(super) closing: CancellationToken,
    pub(super) counters: Counters,
    pub(super) access_log: AccessLog,
    pub(super) tls: Option<Tls>,
    pub(super) started: SystemTime,
}

impl Face {
    /// Creates the face of a starting daemon. `stopping` is cancelled when the daemon begins to stop.
    pub(super) fn new(config: &Config, place: HttpPlace, stopping: CancellationToken) -> Result<Arc<Self>, BindError> {
        Ok(Arc::new(Self {
            first: Arc::new(config.clone()),
            address: place.address,
            host: config.http.address().and_then(host::configured_name),
            taken: place.taken,
            context: OnceLock::new(),
            is_warm: AtomicBool::new(false),
            stopping,
            closing: CancellationToken::new(),
            counters: Counters::default(),
            access_log: AccessLog::open(&config.http.access_log)?,
            tls: Tls::open(&config.http)?,
            started: SystemTime::now(),
        }))
    }

    /// Opens the face: functions can be called from here on.
    pub fn open(&self, context: Arc<Context>) {
        let is_first = self.context.set(context).is_ok();
        debug_assert!(is_first, "a daemon opens once");
    }

    /// Notes that the kept workers are warm, or could not be started.
    pub fn warmed(&self) {
        self.is_warm.store(true, Ordering::Relaxed);
    }

    /// Applies the live keys of a new configuration, and reopens files that may have been replaced.
    pub fn reload(&self, config: &Config) {
        if let Err(error) = self.access_log.reopen(&config.http.access_log) {
            tracing::error!("{error}; requests are written where they were");
        }
        self.reload_certificate();
    }

    /// Reads the certificate again if its files have changed.
    pub fn reload_certificate(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// Paths of the certificate and its key; empty without TLS.
    #[must_use]
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        self.tls.as_ref().map(Tls::files).unwrap_or_default()
    }

    /// Stops accepting connections; running requests are still answered.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Writes the last lines of the access log. Blocks until then, at most a few seconds.
    pub fn finish(&self) {
        self.access_log.close();
    }

    /// Whether the server can be reached from this machine only.
    pub(super) fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// The daemon's context; `None` while the daemon starts.
    pub(super) fn context(&self) -> Option<&Arc<Context>> {
        self.context.get()
    }

    /// The current configuration.
    pub(super) fn config(&self) -> Arc<Config> {
        self.context.get().map_or_else(|| Arc::clone(&self.first), |context| context.config.load_full())
    }

    pub(super) fn phase(&self) -> Phase {
        match (self.stopping.is_cancelled(), self.context.get()) {
            (true, _) => Phase::Stopping,
            (false, None) => Phase::Starting,
            (false, Some(_)) if self.is_warm.load(Ordering::Relaxed) => Phase::Ready,
            (false, Some(_)) => Phase::Warming,
        }
    }
}
