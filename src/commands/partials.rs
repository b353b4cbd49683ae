//! Parts of an answer that are sent before the answer itself: streamed bodies, followed logs, build output.

use crate::protocol::ipc::Encoding;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Channel for the parts of an answer.
#[derive(Debug)]
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

    /// Waits until the client cancels the command, possibly for ever.
    pub(super) async fn cancelled(&self) {
        match &self.cancelled {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Sends one part.
    pub async fn send<T: Serialize>(&self, part: &T) -> Result<(), CallerGone> {
        let payload = self.encoding.write(part).map_err(|_| CallerGone)?.into();
        self.sender.send(Part { request_id: self.request_id, payload }).await.map_err(|_| CallerGone)
    }
}
