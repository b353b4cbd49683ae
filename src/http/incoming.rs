//! The body of a request, and the rest of it that nobody reads.
//!
//! On HTTP/1.1 the next request follows the body. An answer may be complete before the body is, and closing a
//! connection with unread bytes can lose the answer. So the rest is read and discarded while the answer is sent, within
//! limits. Where that is not possible, the answer says that it is the connection's last.

use bytes::Bytes;
use http::{Request, Version, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{runtime::Handle, time::timeout};

/// Most bytes of an unwanted body that are read and discarded, and the time for that.
const REST_BYTES_MAX: u64 = 16 * 1024 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// Progress of a body, for the code that answers its request.
#[derive(Debug, Default)]
pub(super) struct Receipt {
    bytes: AtomicU64,
    is_cut: AtomicBool,
}

impl Receipt {
    /// Bytes that were read before the body was dropped.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the connection ends because the rest of the body is not read.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }
}

/// Body of a request; counts its bytes as they arrive. Dropped before its end, it discards the rest.
#[derive(Debug)]
pub(super) struct Incoming {
    /// `None` only during the drop.
    body: Option<hyper::body::Incoming>,
    /// `None` for a body without bytes.
    receipt: Option<Arc<Receipt>>,
    /// Whether the client sends the body only on request (RFC 9110, section 10.1.1).
    is_asked_for: bool,
    /// Whether the body is on an HTTP/2 stream, where no other request waits behind it.
    is_stream: bool,
    is_over: bool,
}

impl Incoming {
    pub(super) fn of(request: Request<hyper::body::Incoming>) -> Request<Self> {
        let is_asked_for = request.headers().contains_key(header::EXPECT);
        let is_stream = request.version() == Version::HTTP_2;
        request.map(|body| {
            let receipt = (!body.is_end_stream()).then(Arc::default);
            Self { body: Some(body), receipt, is_asked_for, is_stream, is_over: false }
        })
    }

    pub(super) fn receipt(&self) -> Option<Arc<Receipt>> {
        self.receipt.clone()
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(receipt) = &this.receipt {
                    receipt.bytes.fetch_add(frame.data_ref().map_or(0, |it| it.len() as u64), Ordering::Relaxed);
                }
            }
            Some(Err(_)) | None => this.is_over = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (Some(body), Some(receipt)) = (self.body.take(), &self.receipt) else { return };
        if self.is_over || self.is_stream || body.is_end_stream() {
            return;
        }
        // Reading would ask the client to send the body.
        let is_unsent = self.is_asked_for && receipt.bytes() == 0;
        if is_unsent || body.size_hint().lower() > REST_BYTES_MAX {
            receipt.is_cut.store(true, Ordering::Relaxed);
        }
        if let (false, Ok(runtime)) = (is_unsent, Handle::try_current()) {
            runtime.spawn(timeout(REST_TIMEOUT, forget(body)));
        }
    }
}

/// Reads and discards the rest, up to the limit.
async fn forget(mut body: hyper::body::Incoming) {
    let mut room = REST_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match room.checked_sub(frame.data_ref().map_or(0, |it| it.len() as u64)) {
            Some(left) => room = left,
            None => break,
        }
    }
}
