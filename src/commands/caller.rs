//! The client behind a request: its rights, and the way to send it parts of an answer before the answer itself.

use crate::{bundle::UnixUser, protocol::ipc::Encoding};
use bytes::Bytes;
use std::{future::pending, sync::Arc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Client behind a request, with its rights.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name in the audit trail: `uid:1000`, or `token:<name>` over HTTP.
    pub actor: Arc<str>,
    /// Whether the caller may do what needs the scope `admin`.
    pub is_admin: bool,
    /// User whose rights count for the files that the caller names; `None` for those of the daemon.
    pub reads_as: Option<Arc<UnixUser>>,
    /// Receiver of the parts of an answer; `None` for a caller that takes whole answers only.
    pub partials: Option<Partials>,
}

impl Caller {
    /// The daemon itself, or a client that receives whole answers only.
    #[must_use]
    pub fn new(actor: impl Into<Arc<str>>, is_admin: bool) -> Self {
        Self { actor: actor.into(), is_admin, reads_as: None, partials: None }
    }

    /// Sends the parts of an answer this way.
    #[must_use]
    pub fn with(self, partials: Partials) -> Self {
        Self { partials: Some(partials), ..self }
    }

    /// Sends one part of an answer.
    pub(super) async fn send(&self, part: &(dyn erased_serde::Serialize + Sync)) -> Result<(), CallerGone> {
        match &self.partials {
            Some(partials) => partials.send(part).await,
            None => Err(CallerGone),
        }
    }

    /// Waits until the client cancels the command, possibly for ever.
    pub(super) async fn cancelled(&self) {
        match self.partials.as_ref().and_then(|it| it.cancelled.as_ref()) {
            Some(token) => token.cancelled().await,
            None => pending().await,
        }
    }
}

/// Channel for the parts of an answer.
#[derive(Debug, Clone)]
pub struct Partials {
    encoding: Encoding,
    request_id: u64,
    sender: mpsc::Sender<Part>,
    /// Cancelled by a client that waits for the answer and no longer wants the command.
    cancelled: Option<CancellationToken>,
}

/// A part of an answer.
#[derive(Debug)]
pub struct Part {
    /// Request that the part belongs to.
    pub request_id: u64,
    /// Content of the part, in the request's encoding.
    pub payload: Bytes,
}

/// Error for a caller that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerGone;

impl Partials {
    /// Creates a channel whose parts have the given encoding and are sent in order; a full channel makes the command
    /// wait.
    #[must_use]
    pub fn new(encoding: Encoding, request_id: u64, sender: mpsc::Sender<Part>) -> Self {
        Self { encoding, request_id, sender, cancelled: None }
    }

    /// Lets the client cancel the command by this token.
    #[must_use]
    pub fn cancelled_by(self, token: CancellationToken) -> Self {
        Self { cancelled: Some(token), ..self }
    }

    /// Sends one part.
    async fn send(&self, part: &(dyn erased_serde::Serialize + Sync)) -> Result<(), CallerGone> {
        let payload = self.encoding.write(part).map_err(|_| CallerGone)?.into();
        self.sender.send(Part { request_id: self.request_id, payload }).await.map_err(|_| CallerGone)
    }
}
