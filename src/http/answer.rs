//! Answers over HTTP and their bodies.

use super::{
    face::Face,
    streamed::{Chunks, Streamed},
};
use crate::{
    commands::{Call, Failed},
    error::{Error, ErrorCode},
    model::InvocationId,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Header with the invocation's id.
pub(super) const INVOCATION_HEADER: HeaderName = HeaderName::from_static("x-levain-invocation-id");

/// An HTTP response of the daemon.
pub(super) type Answer = Response<Body>;

/// Body of an [`Answer`].
pub(super) enum Body {
    /// Complete body; empty once it has been taken.
    Whole(Bytes),
    /// Body that arrives in pieces. `length` is the number of bytes left, if known.
    Stream { chunks: Streamed, length: Option<u64> },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream { length, .. } => write!(f, "Stream({length:?})"),
        }
    }
}

impl Body {
    /// Streams the rest of an invocation's answer after the bytes in `first`, to a client that must ask for more within
    /// `patience`. Dropping the body before its end ends the invocation.
    pub(super) fn of_call(
        first: Bytes,
        call: Call,
        length: Option<u64>,
        (face, patience): (&Arc<Face>, Duration),
    ) -> Self {
        let left = length.map(|length| length.saturating_sub(first.len() as u64));
        let next = |(first, mut call, mut left): (Option<Bytes>, Call, Option<u64>)| async move {
            if let Some(first) = first {
                return Some((Ok(first), (None, call, left)));
            }
            match chunk(&mut call, &mut left).await {
                Ok(Some(chunk)) => Some((Ok(chunk), (None, call, left))),
                Ok(None) => None,
                // The head has been sent already, so breaking off is the only way to keep the client from taking this
                // for the end.
                Err(failed) => Some((Err(io::Error::other(failed.error.message)), (None, call, left))),
            }
        };
        let chunks = Box::pin(stream::unfold((Some(first), call, left), next));
        Self::Stream { chunks: Streamed::new(chunks, patience, Arc::clone(face)), length }
    }

    /// Streams chunks of unknown total length, with the same patience for the client.
    pub(super) fn stream(chunks: Chunks, (face, patience): (&Arc<Face>, Duration)) -> Self {
        Self::Stream { chunks: Streamed::new(chunks, patience, Arc::clone(face)), length: None }
    }

    /// Whether every byte has been sent.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream { length, .. } => *length == Some(0),
        }
    }
}

/// Returns the next bytes of an invocation. hyper does not poll past the last byte of a declared length, but the
/// invocation is counted only when its end is read. So the end is read here, together with the last byte; it is known
/// by then and costs no wait.
async fn chunk(call: &mut Call, left: &mut Option<u64>) -> Result<Option<Bytes>, Failed> {
    let chunk = call.chunk().await?;
    if let (Some(bytes), Some(left)) = (&chunk, left) {
        *left = left.saturating_sub(bytes.len() as u64);
        if *left == 0 {
            call.chunk().await?;
        }
    }
    Ok(chunk)
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { chunks, length } => chunks.poll_next(context).map(|chunk| {
                let chunk = chunk?;
                if let (Ok(bytes), Some(left)) = (&chunk, length) {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                Some(chunk.map(Frame::data))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { length: Some(left), .. } => SizeHint::with_exact(*left),
            Self::Stream { length: None, .. } => SizeHint::default(),
        }
    }
}

/// Content type of plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Answers with plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Answer {
    typed(status, TEXT, Bytes::from_static(text.as_bytes()))
}

/// Marks an answer as the last on its connection. HTTP/2 has no such header, and hyper removes it there.
pub(super) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Answers 503 with a reason, and asks the client to retry after a second.
pub(super) fn not_now(reason: &'static str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Answers with text that is already JSON.
pub(super) fn json(status: StatusCode, json: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", json.into())
}

/// Answers 304: the client's copy is current.
pub(super) fn not_modified() -> Answer {
    let mut answer = Response::new(Body::Whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Wire form of a failure.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure<'a> {
    #[serde(flatten)]
    error: &'a Error,
    /// The invocation that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<InvocationId>,
}

/// Answers with a failure, under the status of its code.
pub(super) fn error(error: &Error, invocation_id: Option<InvocationId>) -> Answer {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let failure = Failure { error, invocation_id };
    let mut answer = match serde_json::to_vec(&failure) {
        Ok(json) => typed(status, "application/json", json.into()),
        Err(_) => text(status, "an internal error\n"),
    };
    if matches!(error.code, ErrorCode::Overloaded | ErrorCode::Starting | ErrorCode::ShuttingDown) {
        // Rounded up to whole seconds, at least one: the header takes no fractions.
        let details = error.details.as_ref();
        let wait_ms = details.and_then(|it| it.get("retry_after_ms")?.as_u64()).unwrap_or(1_000);
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1_000).max(1)));
    }
    if error.code == ErrorCode::Unauthorized {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(id) = invocation_id {
        let id = HeaderValue::try_from(id.to_string()).expect("an id is visible ASCII");
        answer.headers_mut().insert(INVOCATION_HEADER, id);
    }
    answer
}

/// Answers 405: the path exists for other methods.
pub(super) fn method_not_allowed(method: &Method, path: &str, allowed: &[&str]) -> Answer {
    let (path, names) = (path.chars().take(200).collect::<String>(), allowed.join(", "));
    let mut answer = error(&Error::invalid(format!("{method} is not allowed for {path}; use {names}")), None);
    *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(names) = HeaderValue::try_from(names) {
        answer.headers_mut().insert(header::ALLOW, names);
    }
    answer
}

/// Answers 417: the daemon meets no expectation but `100-continue`.
pub(super) fn expectation_failed() -> Answer {
    let message = "the header `Expect` may say `100-continue` and nothing else";
    let mut answer = closing(error(&Error::invalid(message), None));
    *answer.status_mut() = StatusCode::EXPECTATION_FAILED;
    answer
}

/// Answers 404: no route has this path.
pub(super) fn not_found(method: &Method, path: &str) -> Answer {
    let path: String = path.chars().take(200).collect();
    let message = format!("not found: {method} {path}; functions are under /functions/, management is under /api/");
    let mut answer = error(&Error::invalid(message), None);
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}
