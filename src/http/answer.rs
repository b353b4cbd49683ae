//! What goes back over HTTP.

use crate::{
    commands::Call,
    error::{Error, ErrorCode},
    model::InvocationId,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

/// The header that names the invocation.
pub(super) const INVOCATION_HEADER: HeaderName = HeaderName::from_static("x-levain-invocation-id");

/// An answer.
pub(super) type Answer = Response<Body>;

/// Its body.
pub(super) enum Body {
    /// All of it, until it is taken.
    Whole(Bytes),
    /// What comes piece by piece. `length` is how much is left, where that is known.
    Stream { chunks: Chunks, length: Option<u64> },
}

pub(super) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream { length, .. } => write!(f, "Stream({length:?})"),
        }
    }
}

impl Body {
    /// The rest of a call's answer behind these first bytes. Dropped before its end it ends the call.
    pub(super) fn of_call(first: Bytes, call: Call, length: Option<u64>) -> Self {
        let next = |(first, mut call): (Option<Bytes>, Call)| async move {
            if let Some(first) = first {
                return Some((Ok(first), (None, call)));
            }
            match call.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), (None, call))),
                Ok(None) => None,
                // The head has gone: all that is left is to break off, so that nobody takes this for the end.
                Err(failed) => Some((Err(io::Error::other(failed.error.message)), (None, call))),
            }
        };
        Self::Stream { chunks: Box::pin(stream::unfold((Some(first), call), next)), length }
    }

    /// Chunks of a length that is not known before their end.
    pub(super) fn stream(chunks: Chunks) -> Self {
        Self::Stream { chunks, length: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { chunks, length } => chunks.as_mut().poll_next(context).map(|chunk| {
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

/// Plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Answer {
    typed(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

/// A value that is JSON already.
pub(super) fn json(status: StatusCode, json: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", json.into())
}

/// The client has it already.
pub(super) fn not_modified() -> Answer {
    let mut answer = Response::new(Body::Whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// How a failure stands on the wire.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure<'a> {
    #[serde(flatten)]
    error: &'a Error,
    /// The call that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<InvocationId>,
}

/// A failure, with its code's status.
pub(super) fn error(error: &Error, invocation_id: Option<InvocationId>) -> Answer {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let failure = Failure { error, invocation_id };
    let mut answer = match serde_json::to_vec(&failure) {
        Ok(json) => typed(status, "application/json", json.into()),
        Err(_) => text(status, "an internal error\n"),
    };
    if error.code == ErrorCode::Overloaded {
        // Whole seconds, rounded up: less is no header.
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

/// Something is here, for other methods.
pub(super) fn method_not_allowed(method: &Method, path: &str, allowed: &[&str]) -> Answer {
    let (path, names) = (path.chars().take(200).collect::<String>(), allowed.join(", "));
    let mut answer = error(&Error::invalid(format!("{method} {path} is nothing: {names} would be")), None);
    *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(names) = HeaderValue::try_from(names) {
        answer.headers_mut().insert(header::ALLOW, names);
    }
    answer
}

/// Nothing is here.
pub(super) fn not_found(method: &Method, path: &str) -> Answer {
    let path: String = path.chars().take(200).collect();
    let message = format!("{method} {path} is nothing here: functions are below /functions/, management below /api/");
    let mut answer = error(&Error::invalid(message), None);
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}
