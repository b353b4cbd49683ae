//! INVOKE.

use super::{
    Caller, Command, Context,
    call::{self, Call, Failed, call, check_head},
    error_map::is_functions_fault,
};
use crate::{
    error::{Error, ErrorCode},
    model::{ColdStart, Invocation, InvocationId, RequestBody, Settings, Timing, is_host},
    protocol::{
        field::{Body, Fields},
        message::{InvokeRequest, InvokeResponse, StreamChunk, StreamHead},
        worker::RESERVED_PREFIX,
    },
    router::PIN_HEADER,
    scheduler::InvokeError,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use std::{
    fmt::Write,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

/// Bytes of an answer's frame besides the body.
const ANSWER_OVERHEAD_BYTES: usize = 64 * 1024;

impl Command for InvokeRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<InvokeResponse, Error> {
        run(context, self, caller).await
    }
}

pub(super) async fn run(
    context: &Arc<Context>,
    mut request: InvokeRequest,
    caller: &Caller,
) -> Result<InvokeResponse, Error> {
    let received = Instant::now();
    let (function, qualifier) = (mem::take(&mut request.function_id), request.qualifier.take());
    let route = context.router.route(&function, qualifier.as_deref(), request.headers.as_ref())?;
    let is_pinned = request.headers.as_ref().is_some_and(|it| it.get(PIN_HEADER).is_some());
    let stream = request.stream.then_some(caller);
    let invocation = invocation(request, &route.entry.function.settings, received)?;
    let mut response = InvokeResponse {
        success: true,
        status: 0,
        headers: Fields::default(),
        body: Body::default(),
        execution_time_ms: 0.0,
        execution_id: invocation.id,
        version: route.version.label.clone(),
        cold_start: ColdStart::None,
        queue_ms: 0.0,
        start_ms: 0.0,
        error: None,
        code: None,
        details: None,
    };
    let again = || {
        let route = context.router.route(&function, qualifier.as_deref(), Some(&invocation.headers));
        route.ok().filter(|_| !is_pinned)
    };
    let outcome = match call(context, route, again, &invocation).await {
        Ok(call) => {
            (response.status, response.headers) = (call.status().as_u16(), fields(call.headers()));
            response.version = call.route().version.label.clone();
            match stream {
                Some(caller) => forward(call, &invocation, caller, &response).await?.map(|it| (Bytes::new(), it)),
                None => collect(call, context.config.load().limits.frame_bytes_max as usize).await,
            }
        }
        Err(failed) => Err(failed),
    };
    let timing = match outcome {
        Ok((body, timing)) => {
            response.body = Body(body);
            timing
        }
        Err(Failed { error, timing, version }) if is_functions_fault(error.code) => {
            response.version = version.clone();
            (response.success, response.status, response.headers) = (false, 0, Fields::default());
            (response.error, response.code, response.details) = (Some(error.message), Some(error.code), error.details);
            timing
        }
        Err(Failed { error, .. }) => return Err(error),
    };
    response.execution_time_ms = milliseconds(received.elapsed());
    response.cold_start = timing.cold_start;
    (response.queue_ms, response.start_ms) = (milliseconds(timing.queue), milliseconds(timing.start));
    Ok(response)
}

/// Reads the whole body, if it fits into a frame.
async fn collect(mut call: Call, frame_bytes_max: usize) -> Result<(Bytes, Timing), Failed> {
    // A body in JSON takes four bytes for three.
    let max = frame_bytes_max.saturating_sub(ANSWER_OVERHEAD_BYTES) / 4 * 3;
    let Some(first) = call.chunk().await? else { return Ok((Bytes::new(), call.timing())) };
    if first.len() > max {
        return Err(call.fail(too_large(max)));
    }
    let Some(second) = call.chunk().await? else { return Ok((first, call.timing())) };
    let length = call.headers().get(http::header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(max));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while body.len() <= max {
        match call.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok((body.freeze(), call.timing())),
        }
    }
    Err(call.fail(too_large(max)))
}

fn too_large(max: usize) -> Error {
    let message = format!(
        "the answer has more than {max} bytes, which do not fit into one frame; invoke with `stream`, or raise \
         limits.frame_bytes_max"
    );
    Error::new(ErrorCode::PayloadTooLarge, message)
}

/// Sends the answer in parts as it comes. The outer error means that the caller has left.
async fn forward(
    mut call: Call,
    invocation: &Invocation,
    caller: &Caller,
    response: &InvokeResponse,
) -> Result<Result<Timing, Failed>, Error> {
    let wait = call.wait();
    let head = StreamHead {
        status: response.status,
        headers: response.headers.clone(),
        execution_id: response.execution_id,
        version: response.version.clone(),
        cold_start: wait.cold_start,
        queue_ms: milliseconds(wait.queue),
        start_ms: milliseconds(wait.start),
    };
    let gone = |_| Error::invalid("the caller has left");
    let forwarding = async {
        caller.send(&head).await.map_err(gone)?;
        loop {
            match call.chunk().await {
                Ok(Some(chunk)) => caller.send(&StreamChunk { body: Body(chunk) }).await.map_err(gone)?,
                Ok(None) => return Ok(None),
                Err(failed) => return Ok(Some(failed)),
            }
        }
    };
    // A caller that does not read holds the worker no longer than the invocation may take.
    match timeout_at(invocation.deadline().into(), forwarding).await {
        Ok(Ok(None)) => Ok(Ok(call.timing())),
        Ok(Ok(Some(failed))) => Ok(Err(failed)),
        Ok(Err(gone)) => Err(gone),
        Err(_) => {
            let timeout = InvokeError::Timeout { limit: invocation.timeout };
            Ok(Err(call.fail((&timeout).into())))
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are the precision of the clock, and enough for a reader.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn invocation(request: InvokeRequest, settings: &Settings, received: Instant) -> Result<Invocation, Error> {
    let body = request.body.unwrap_or_default().0;
    let method = match &request.method {
        Some(name) => call::method(name)?,
        None if body.is_empty() => Method::GET,
        None => Method::POST,
    };
    if !body.is_empty() && (method == Method::GET || method == Method::HEAD) {
        return Err(Error::invalid(format!(
            "a {method} request cannot carry a body to a function: use POST, or leave the body out"
        )));
    }
    let limit = Duration::from_secs(settings.timeout_seconds.into());
    let timeout = request.timeout_ms.map_or(limit, |own| limit.min(Duration::from_millis(own)));
    if timeout.is_zero() {
        return Err(Error::invalid("timeout_ms is 0: it must be at least 1"));
    }
    let target = target(request.path.as_deref().unwrap_or("/"), request.query.as_ref())?;
    let headers = headers(request.headers.as_ref())?;
    check_head(&target, &headers)?;
    Ok(Invocation {
        id: InvocationId::new(),
        method,
        target,
        headers,
        body: RequestBody::Whole(body),
        received,
        timeout,
    })
}

fn target(path: &str, query: Option<&Fields>) -> Result<PathAndQuery, Error> {
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    // A fragment belongs to the client and is never part of a request.
    target.push_str(path.split('#').next().unwrap_or_default());
    for (name, value) in query.map_or(&[][..], |query| &query.0) {
        target.push(if target.contains('?') { '&' } else { '?' });
        percent_encode(name, &mut target);
        target.push('=');
        percent_encode(value, &mut target);
    }
    target.parse().map_err(|error| Error::invalid(format!("path `{path}` is not valid: {error}; encode it")))
}

/// Encodes all but letters, digits and `-._~` as `%XX`, which every parser of queries reads back.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all that is written");
        }
    }
}

fn headers(fields: Option<&Fields>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields.map_or(&[][..], |fields| &fields.0) {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::invalid(format!("header name `{name}` is not valid")))?;
        // Clients cannot set the daemon's own headers.
        if parsed.as_str().starts_with(RESERVED_PREFIX) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            Error::invalid(format!("the value of header `{name}` has a character that headers cannot carry"))
        })?;
        if parsed == header::HOST && !is_host(value.as_bytes()) {
            return Err(Error::invalid("the header `Host` is not a valid host"));
        }
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn fields(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        // Bytes that are not UTF-8 are Latin-1 by HTTP's old rule.
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    };
    Fields(headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_and_added_to_those_of_the_path() {
        let query = Fields(vec![("a b".into(), "c&d=é".into()), ("x".into(), String::new())]);
        let target = target("p?q=1#top", Some(&query)).expect("a path");
        assert_eq!(target.as_str(), "/p?q=1&a%20b=c%26d%3D%C3%A9&x=");
    }

    #[test]
    fn what_a_worker_would_answer_itself_is_refused() {
        let settings = Settings::default();
        let outcome =
            |request: InvokeRequest| invocation(request, &settings, Instant::now()).map_err(|error| error.code);
        let body = Some(Body::from(b"x".to_vec()));
        let method = |method: &str| InvokeRequest { method: Some(method.into()), ..InvokeRequest::default() };
        assert!(outcome(method("options")).is_ok_and(|it| it.method == Method::OPTIONS));
        assert!(matches!(outcome(method("CONNECT")), Err(ErrorCode::InvalidRequest)));
        assert!(matches!(
            outcome(InvokeRequest { body: body.clone(), ..method("GET") }),
            Err(ErrorCode::InvalidRequest)
        ));
        assert!(outcome(InvokeRequest { body, ..InvokeRequest::default() }).is_ok_and(|it| it.method == Method::POST));
        let long = InvokeRequest { path: Some("x".repeat(call::HEAD_BYTES_MAX + 1)), ..InvokeRequest::default() };
        assert!(matches!(outcome(long), Err(ErrorCode::PayloadTooLarge)));
    }

    #[test]
    fn header_names_and_values_are_checked_and_reserved_ones_dropped() {
        let field = |name: &str, value: &str| Fields(vec![(name.into(), value.into())]);
        assert!(headers(Some(&field("a b", "c"))).is_err());
        assert!(headers(Some(&field("a", "c\r\nd: e"))).is_err());
        assert!(headers(Some(&field("X-Levain-Deadline", "1"))).is_ok_and(|it| it.is_empty()));
        assert_eq!(headers(Some(&field("A", "ü"))).expect("UTF-8 is allowed").len(), 1);
    }
}
