//! What all connections of HTTP share: how far the daemon is, what is counted, where requests are written down, and the
//! certificate.

use super::{BindError, access_log::AccessLog, counters::Counters, local, tls::Tls};
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

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It opens its files and tries what workers need; there are no functions yet.
    Starting,
    /// Functions are served, and the workers that are always kept are on their way.
    Warming,
    /// Everything is there.
    Ready,
    /// What runs is finished, and nothing else begins.
    Stopping,
}

impl Phase {
    /// What `/ready` answers where it is not ready.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Starting => "the daemon is starting\n",
            Self::Warming => "the workers that are kept warm are starting\n",
            Self::Ready => "ok\n",
            Self::Stopping => "the daemon is stopping\n",
        }
    }
}

/// The HTTP face, for whoever serves it or steers it.
#[derive(Debug)]
pub struct Face {
    /// What it began with: all there is until there is a context.
    first: Arc<Config>,
    context: OnceLock<Arc<Context>>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The name in that address as it is configured, if there is one.
    pub(super) host: Option<String>,
    /// The other loopback address with the same port, if somebody else has it.
    pub(super) taken: Option<SocketAddr>,
    is_warm: AtomicBool,
    /// Cancelled when the daemon begins to stop.
    pub(super) stopping: CancellationToken,
    /// Cancelled when nobody is listened to any more.
    pub(super) closing: CancellationToken,
    pub(super) counters: Counters,
    pub(super) access_log: AccessLog,
    pub(super) tls: Option<Tls>,
    pub(super) started: SystemTime,
}

impl Face {
    /// The face of a daemon that is starting; `stopping` is cancelled when it begins to stop.
    pub(super) fn new(config: &Config, place: HttpPlace, stopping: CancellationToken) -> Result<Arc<Self>, BindError> {
        Ok(Arc::new(Self {
            first: Arc::new(config.clone()),
            address: place.address,
            host: config.http.address().and_then(local::configured_name),
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

    /// Functions can be called from now on.
    pub fn open(&self, context: Arc<Context>) {
        let is_first = self.context.set(context).is_ok();
        debug_assert!(is_first, "a daemon opens once");
    }

    /// The workers that are always kept are there, or could not be started.
    pub fn warmed(&self) {
        self.is_warm.store(true, Ordering::Relaxed);
    }

    /// Takes over what can change while the daemon runs, and opens files anew that may have been replaced.
    pub fn reload(&self, config: &Config) {
        if let Err(error) = self.access_log.reopen(&config.http.access_log) {
            tracing::error!("{error}; requests are written where they were");
        }
        self.reload_certificate();
    }

    /// Takes over the certificate if its files have changed.
    pub fn reload_certificate(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// The files of the certificate, if there is one.
    #[must_use]
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        self.tls.as_ref().map(Tls::files).unwrap_or_default()
    }

    /// Listens no more: what is left of the connections is answered, and no other comes.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Writes down what is known of the requests there were. Blocks for as long, within reason.
    pub fn finish(&self) {
        self.access_log.close();
    }

    /// Whether it can be reached from this machine only.
    pub(super) fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// What functions are called with; none while the daemon starts.
    pub(super) fn context(&self) -> Option<&Arc<Context>> {
        self.context.get()
    }

    /// The present configuration.
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
