//! INVOKE.

use super::{Context, Partials, explain::is_functions_fault, shutting_down};
use crate::{
    error::{Error, ErrorCode},
    model::{Invocation, InvocationId, RequestBody, Settings, Timestamp, Timing},
    protocol::{
        field::{Body, Fields},
        message::{InvokeRequest, InvokeResponse, StreamChunk, StreamHead},
        worker::{LogLevel, RESERVED_PREFIX},
    },
    router::Route,
    scheduler::{Failed, InvokeError, Reply},
    telemetry::{LogRecord, Observation, Stream},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, uri::PathAndQuery};
use std::{
    fmt::Write,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

/// Methods that workers serve; others would only break their connection.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

/// What a request's path, query and headers may have together: Bun takes heads of 16 KiB, the daemon's own part
/// included, and about 200 headers.
const HEAD_BYTES_MAX: usize = 15 * 1024;
const HEADERS_MAX: usize = 150;

/// What an answer's frame holds besides the body.
const ANSWER_OVERHEAD_BYTES: usize = 64 * 1024;

pub(super) async fn run(
    context: &Arc<Context>,
    mut request: InvokeRequest,
    partials: &Partials,
) -> Result<InvokeResponse, Error> {
    let received = Instant::now();
    let (function, qualifier) = (mem::take(&mut request.function_id), request.qualifier.take());
    let mut route = context.router.route(&function, qualifier.as_deref(), request.headers.as_ref())?;
    let stream = request.stream.then_some(partials);
    let invocation = invocation(request, &route.entry.function.settings, received)?;
    let mut outcome = call(context, &route, &invocation, stream).await;
    let mut waited_elsewhere = Duration::ZERO;
    while let Err(failed) = &outcome
        && is_gone(context, &route, failed)
        && let Ok(next) = context.router.route(&function, qualifier.as_deref(), Some(&fields(&invocation.headers)))
    {
        waited_elsewhere += failed.timing.queue;
        route = next;
        outcome = call(context, &route, &invocation, stream).await;
    }
    if let Err(CallFailed { error: CallError::CallerGone, .. }) = outcome {
        return Err(Error::invalid("the caller has left"));
    }
    let (mut timing, failure) = match &outcome {
        Ok(answer) => (answer.timing, None),
        Err(failed) => (failed.timing, Some(refine(context, &failed.error))),
    };
    timing.queue += waited_elsewhere;
    observe(context, &route, invocation.id, timing, failure.as_ref());
    let mut response = InvokeResponse {
        success: true,
        status: 0,
        headers: Fields::default(),
        body: Body::default(),
        execution_time_ms: milliseconds(received.elapsed()),
        execution_id: invocation.id.to_string(),
        version: route.version.label.to_string(),
        cold_start: timing.cold_start,
        queue_ms: milliseconds(timing.queue),
        start_ms: milliseconds(timing.start),
        error: None,
        code: None,
        details: None,
    };
    match (outcome, failure) {
        (_, Some(error)) if is_functions_fault(error.code) => {
            response.success = false;
            (response.error, response.code, response.details) = (Some(error.message), Some(error.code), error.details);
        }
        (_, Some(error)) => return Err(error),
        (Ok(answer), None) => {
            response.status = answer.status;
            response.headers = answer.headers;
            response.body = Body(answer.body);
        }
        (Err(failed), None) => return Err(Error::internal(failed.error)),
    }
    Ok(response)
}

/// A complete answer; the body is empty if it was streamed.
struct Answered {
    status: u16,
    headers: Fields,
    body: Bytes,
    timing: Timing,
}

/// Why a call has no complete answer, and where its time went.
struct CallFailed {
    error: CallError,
    timing: Timing,
}

enum CallError {
    Invoke(InvokeError),
    AnswerTooLarge { max: usize },
    CallerGone,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invoke(error) => error.fmt(f),
            Self::AnswerTooLarge { max } => write!(
                f,
                "the answer has more than {max} bytes, which do not fit into one frame; invoke with `stream`, or raise \
                 limits.frame_bytes_max"
            ),
            Self::CallerGone => f.write_str("the caller has left"),
        }
    }
}

impl From<Failed> for CallFailed {
    fn from(failed: Failed) -> Self {
        Self { error: CallError::Invoke(failed.error), timing: failed.timing }
    }
}

/// Whether a call failed because its version was removed before a worker got it. Its alias had moved on by then, or it
/// would have held the version, so the call can go after it.
fn is_gone(context: &Context, route: &Route, failed: &CallFailed) -> bool {
    let is_refused = matches!(failed.error, CallError::Invoke(InvokeError::Closed | InvokeError::Start(_)));
    // What was sent has run for a while, and must not run twice.
    if !is_refused || !failed.timing.run.is_zero() {
        return false;
    }
    let (function, version) = (route.entry.function.id, route.version.id);
    let is_gone = context.router.function(&function.to_string()).is_ok_and(|entry| entry.version(version).is_none());
    if is_gone {
        // This call may have made the pool anew after it was closed.
        context.scheduler.close(version);
    }
    is_gone
}

async fn call(
    context: &Context,
    route: &Route,
    invocation: &Invocation,
    stream: Option<&Partials>,
) -> Result<Answered, CallFailed> {
    let pool = context.pool(&route.entry, &route.version, &route.environment);
    let mut reply = pool.invoke(invocation).await?;
    let status = reply.status().as_u16();
    let headers = fields(reply.headers());
    let body = match stream {
        Some(partials) => {
            let wait = reply.wait();
            let head = StreamHead {
                status,
                headers: headers.clone(),
                execution_id: invocation.id.to_string(),
                version: route.version.label.to_string(),
                cold_start: wait.cold_start,
                queue_ms: milliseconds(wait.queue),
                start_ms: milliseconds(wait.start),
            };
            // A caller that does not read holds the worker no longer than the invocation may take.
            match timeout_at(invocation.deadline().into(), forward(&mut reply, partials, &head)).await {
                Ok(forwarded) => forwarded?,
                Err(_) => {
                    let error = CallError::Invoke(InvokeError::Timeout { limit: invocation.timeout });
                    return Err(CallFailed { error, timing: reply.timing() });
                }
            }
            Bytes::new()
        }
        None => collect(&mut reply, context.config.load().limits.frame_bytes_max as usize).await?,
    };
    Ok(Answered { status, headers, body, timing: reply.timing() })
}

async fn collect(reply: &mut Reply, frame_bytes_max: usize) -> Result<Bytes, CallFailed> {
    // A body in JSON takes four bytes for three.
    let max = frame_bytes_max.saturating_sub(ANSWER_OVERHEAD_BYTES) / 4 * 3;
    let Some(first) = reply.chunk().await? else { return Ok(Bytes::new()) };
    let Some(second) = reply.chunk().await? else {
        return if first.len() > max { Err(too_large(reply, max)) } else { Ok(first) };
    };
    let length = reply.headers().get(http::header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(max));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while let Some(chunk) = reply.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > max {
            return Err(too_large(reply, max));
        }
    }
    if body.len() > max { Err(too_large(reply, max)) } else { Ok(body.freeze()) }
}

fn too_large(reply: &Reply, max: usize) -> CallFailed {
    CallFailed { error: CallError::AnswerTooLarge { max }, timing: reply.timing() }
}

async fn forward(reply: &mut Reply, partials: &Partials, head: &StreamHead) -> Result<(), CallFailed> {
    let gone = |reply: &Reply| CallFailed { error: CallError::CallerGone, timing: reply.timing() };
    if partials.send(head).await.is_err() {
        return Err(gone(reply));
    }
    while let Some(chunk) = reply.chunk().await? {
        if partials.send(&StreamChunk { body: Body(chunk) }).await.is_err() {
            return Err(gone(reply));
        }
    }
    Ok(())
}

/// What the client sees of a failure.
fn refine(context: &Context, error: &CallError) -> Error {
    match error {
        CallError::Invoke(InvokeError::Closed) if context.stopping.is_cancelled() => shutting_down(),
        CallError::Invoke(error) => error.into(),
        CallError::AnswerTooLarge { .. } => Error::new(ErrorCode::PayloadTooLarge, error.to_string()),
        CallError::CallerGone => Error::new(ErrorCode::InvalidRequest, error.to_string()),
    }
}

fn observe(context: &Context, route: &Route, id: InvocationId, timing: Timing, failure: Option<&Error>) {
    let (function_id, version) = (route.entry.function.id, &route.version);
    let at = Timestamp::now();
    let code = failure.map(|error| error.code);
    let observation = Observation { function_id, version_id: version.id, version: &version.label, code, timing, at };
    context.telemetry.metrics().record(&observation);
    if let Some(error) = failure {
        let stack = error.details.as_ref().and_then(|details| details.get("stack")?.as_str());
        let message = match stack {
            Some(stack) => format!("{}: {}\n{stack}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        context.telemetry.logs().push(LogRecord {
            at,
            function_id,
            version: version.label.clone(),
            invocation: Some(id),
            worker: 0,
            stream: Stream::System,
            level: LogLevel::Error,
            message,
        });
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are what the clock is good for, and what is worth reading.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn invocation(request: InvokeRequest, settings: &Settings, received: Instant) -> Result<Invocation, Error> {
    let body = request.body.unwrap_or_default().0;
    let method = match &request.method {
        Some(method) => METHODS
            .into_iter()
            .find(|it| it.as_str().eq_ignore_ascii_case(method))
            .ok_or_else(|| Error::invalid(format!("method `{method}` is not served: use one of {METHODS:?}")))?,
        None if body.is_empty() => Method::GET,
        None => Method::POST,
    };
    if !body.is_empty() && (method == Method::GET || method == Method::HEAD) {
        return Err(Error::invalid(format!(
            "a {method} request has no body that a function could see: use POST, or send none"
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

/// Refuses what Bun would answer with 431 in the function's place.
fn check_head(target: &PathAndQuery, headers: &HeaderMap) -> Result<(), Error> {
    let of_headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let bytes = target.as_str().len() + of_headers;
    if bytes > HEAD_BYTES_MAX || headers.len() > HEADERS_MAX {
        return Err(Error::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "path, query and headers have {bytes} bytes in {} headers; at most {HEAD_BYTES_MAX} bytes in {HEADERS_MAX} \
                 headers go to a function: put the rest into the body",
                headers.len()
            ),
        ));
    }
    Ok(())
}

fn target(path: &str, query: Option<&Fields>) -> Result<PathAndQuery, Error> {
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    // A fragment is the client's own business and never part of a request.
    target.push_str(path.split('#').next().unwrap_or_default());
    for (name, value) in query.map_or(&[][..], |query| &query.0) {
        target.push(if target.contains('?') { '&' } else { '?' });
        percent_encode(name, &mut target);
        target.push('=');
        percent_encode(value, &mut target);
    }
    target.parse().map_err(|error| Error::invalid(format!("path `{path}` is not valid: {error}; encode it")))
}

/// Everything but letters, digits and `-._~` as `%XX`, which every parser of queries reads back.
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
        // The daemon's own headers are not for clients to set.
        if parsed.as_str().starts_with(RESERVED_PREFIX) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            Error::invalid(format!("the value of header `{name}` has a character that headers cannot carry"))
        })?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn fields(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        // Bytes that are not UTF-8 are Latin-1 by the old rule of HTTP.
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
        let settings = Settings {
            memory_mb: 64,
            timeout_seconds: 1,
            max_concurrent_executions: 1,
            warm_workers: 0,
            worker_concurrency: 1,
            idle_timeout_seconds: 1,
            queue_max: 0,
            max_requests_per_worker: 0,
            max_age_seconds: 0,
            network: Default::default(),
        };
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
        let long = InvokeRequest { path: Some("x".repeat(HEAD_BYTES_MAX + 1)), ..InvokeRequest::default() };
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
