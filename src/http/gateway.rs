//! Invocations over HTTP: `/functions/<name>[:<qualifier>][/<path>]`, or any path on the host `[<qualifier>--]<name>`
//! of `localhost` or of `http.functions_domain`.

use super::{
    answer::{self, Answer, Body, INVOCATION_HEADER},
    api::decode,
    auth,
    details::Asker,
    exchange::Note,
    face::Face,
    incoming::Incoming,
    local, origin,
    peer::Peer,
    upload::{Outcome, Upload, UploadPace},
};
use crate::{
    commands::{self, Context},
    config::HttpConfig,
    error::{Error, ErrorCode},
    model::{Auth, Invocation, InvocationId, RequestBody, remove_named_by_connection},
    protocol::worker::RESERVED_PREFIX,
    router::{PIN_HEADER, Router},
    scheduler::Pace,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use hyper::body::Body as _;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, time::timeout_at};

/// Path prefix of all functions.
const PREFIX: &str = "/functions/";

/// Domain under which every daemon serves functions by host name (RFC 6761, section 6.3).
const LOCAL_DOMAIN: &str = "localhost";

/// Header with an id of the caller's own; it is returned unchanged.
const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-invocation-id");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Headers of the daemon that pages of `http.cors_origin` may read.
const EXPOSED: &str = "x-levain-invocation-id, x-levain-version, x-invocation-id, server-timing";

/// The function that a request is for, and the target that it sees.
#[derive(Debug)]
pub(super) struct Call {
    /// Name of the function, with the qualifier if one is given.
    function: String,
    /// Path and query as the function sees them.
    target: PathAndQuery,
    place: Place,
}

/// Kind of address that a function is called at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A host of its own.
    OwnHost,
    /// A path on the host shared by all functions. `is_bare`: the path ends with the function's name.
    Shared { is_bare: bool },
}

impl Call {
    /// Returns `None` if the request is for no function.
    pub(super) fn of(request: &Request<Incoming>, face: &Face) -> Option<Self> {
        let whole = request.uri().path_and_query();
        if let Some(label) = by_host(request, face) {
            let function = qualified(label, face.context().map(|it| &it.router));
            let target = whole.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            return Some(Self { function, target, place: Place::OwnHost });
        }
        let rest = whole?.as_str().strip_prefix(PREFIX)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        // No function has a name that cannot be decoded; the router reports it as unknown.
        let function = decode(name).unwrap_or_else(|_| name.to_owned());
        let is_bare = !rest.starts_with('/');
        let target = if is_bare { format!("/{rest}").parse() } else { rest.parse() };
        Some(Self { function, target: target.ok()?, place: Place::Shared { is_bare } })
    }
}

/// Returns the part of the request's host name before the functions' domain.
fn by_host(request: &Request<Incoming>, face: &Face) -> Option<String> {
    let host = super::host::name(request.headers().get(header::HOST)?.to_str().ok()?);
    let label = origin::below(host, LOCAL_DOMAIN).filter(|it| !it.contains('.'));
    let label = match (label, face.context()) {
        (Some(label), _) => label,
        // A label with a dot names no function, but nothing else is served on such hosts either.
        (None, Some(context)) => origin::below(host, &context.config.load().http.functions_domain)?,
        (None, None) => origin::below(host, &face.config().http.functions_domain)?,
    };
    Some(label.to_ascii_lowercase())
}

/// Returns the `function:qualifier` that a host label names. Since a function's name may contain `--`, the part before
/// the first `--` is a qualifier only if no function has the whole label as its name.
fn qualified(label: String, router: Option<&Router>) -> String {
    match label.split_once(commands::HOST_SEPARATOR) {
        Some((qualifier, function)) if router.is_none_or(|it| it.function(&label).is_err()) => {
            format!("{function}:{qualifier}")
        }
        _ => label,
    }
}

pub(super) async fn run(
    (face, context): (&Arc<Face>, &Arc<Context>),
    main: &Handle,
    call: Call,
    (peer, request): (&Peer, Request<Incoming>),
    note: &mut Note,
) -> Answer {
    let config = context.config.load();
    let correlation = request.headers().get(CORRELATION_HEADER).cloned();
    let (origin, place) = (config.http.cors_origin.as_str(), call.place);
    let mut answer = match preflight(origin, &request) {
        Some(answer) => answer,
        None => {
            let id = InvocationId::new();
            let looks_local = local::looks_local(face, peer, request.version(), request.headers());
            let mut asker = Asker { looks_local, ..Asker::default() };
            match invoke((face, context), &config.http, (id, call), (peer, request), (note, &mut asker)).await {
                Ok(answer) => answer,
                Err(error) => {
                    // Boxed, so that a successful invocation carries no room for this future.
                    let told = Box::pin(asker.told(error, (face, context), main, peer)).await;
                    answer::error(&told, Some(id))
                }
            }
        }
    };
    if place != Place::OwnHost {
        origin::quieten(answer.headers_mut());
    }
    let headers = answer.headers_mut();
    if let Some(correlation) = correlation {
        headers.insert(CORRELATION_HEADER, correlation);
    }
    if let Some(allowed) = HeaderValue::from_str(origin).ok().filter(|it| !it.is_empty()) {
        if allowed != "*" {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers.entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(allowed);
        // Appended, because the function may expose headers of its own.
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    answer
}

/// Answers a browser's preflight for a page of another origin.
fn preflight(origin: &str, request: &Request<Incoming>) -> Option<Answer> {
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = asked.filter(|_| request.method() == Method::OPTIONS && !origin.is_empty())?.clone();
    let mut answer = Response::new(Body::Whole(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    if let Some(names) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    Some(answer)
}

async fn invoke(
    (face, context): (&Arc<Face>, &Arc<Context>),
    config: &HttpConfig,
    (id, call): (InvocationId, Call),
    (peer, request): (&Peer, Request<Incoming>),
    (note, asker): (&mut Note, &mut Asker),
) -> Result<Answer, Error> {
    let received = Instant::now();
    let (head, body) = request.into_parts();
    let mut headers = head.headers;
    if call.place == (Place::Shared { is_bare: true }) {
        origin::check_script(&headers)?;
    }
    let route = match context.router.route(&call.function, None, Some(&headers)) {
        Ok(route) => route,
        Err(error) => {
            asker.authorization = headers.remove(header::AUTHORIZATION);
            return Err(error);
        }
    };
    note.invocation(id, &route);
    asker.calls(route.entry.function.id, route.environment.as_str());
    let is_pinned = headers.contains_key(PIN_HEADER);
    if route.entry.function.settings.auth == Auth::Token {
        let grant = auth::authorize(context, &headers, peer.address.ip())?;
        note.grant(&grant);
        grant.may_invoke(route.entry.function.id)?;
        asker.has_token = true;
        // The token is between the caller and the daemon: with it the function could call others in the caller's name.
        headers.remove(header::AUTHORIZATION);
    }
    commands::check_method(&head.method)?;
    // Before the daemon adds its own headers, so that a client cannot have those removed.
    remove_named_by_connection(&mut headers);
    remove_reserved(&mut headers);
    commands::check_head(&call.target, &headers)?;
    peer.introduce(&mut headers);
    let upload = match body.is_end_stream() {
        true => None,
        false => Some(Arc::new(upload(body, config)?)),
    };
    let timeout = Duration::from_secs(route.entry.function.settings.timeout_seconds.into());
    let body = match &upload {
        None => RequestBody::default(),
        Some(upload) => collect(upload, config, received + timeout).await?,
    };
    let mut invocation =
        Invocation { id, method: head.method, target: call.target.clone(), headers, body, received, timeout };
    let again = || {
        let route = context.router.route(&call.function, None, Some(&invocation.headers));
        route.ok().filter(|_| !is_pinned)
    };
    let begun = commands::call(context, route, again, &invocation).await;
    asker.authorization = invocation.headers.remove(header::AUTHORIZATION);
    drop(invocation);
    match begun {
        Ok(call) => {
            note.invocation(id, call.route());
            answer(call, config, face).await
        }
        Err(failed) => {
            let Some(upload) = upload else { return Err(failed.error) };
            Err(match upload.outcome() {
                Outcome::Fine => failed.error,
                outcome => broken(outcome, config),
            })
        }
    }
}

fn upload(body: Incoming, config: &HttpConfig) -> Result<Upload, Error> {
    let max = u64::from(config.body_bytes_max);
    if body.size_hint().lower() > max {
        return Err(broken(Outcome::TooLarge, config));
    }
    Ok(Upload::new(body, max, UploadPace::of(config)))
}

/// Collects a small body; any other is read by the function. Either way no worker waits for the body to begin.
async fn collect(upload: &Arc<Upload>, config: &HttpConfig, deadline: Instant) -> Result<RequestBody, Error> {
    match timeout_at(deadline.into(), upload.collect_small()).await {
        Ok(Ok(Some(bytes))) => Ok(RequestBody::Whole(bytes)),
        Ok(Ok(None)) => Ok(RequestBody::Incoming(Arc::clone(upload) as _)),
        Ok(Err(_)) => Err(broken(upload.outcome(), config)),
        Err(_) => {
            let message = "the body did not arrive within the function's timeout_seconds";
            Err(Error::new(ErrorCode::Timeout, message))
        }
    }
}

fn broken(outcome: Outcome, config: &HttpConfig) -> Error {
    match outcome {
        Outcome::TooLarge => Error::new(
            ErrorCode::PayloadTooLarge,
            format!("the body is larger than {} bytes (http.body_bytes_max)", config.body_bytes_max),
        ),
        Outcome::Stalled => Error::new(
            ErrorCode::Timeout,
            format!("the body made no progress for {} ms (http.body_timeout_ms)", config.body_timeout_ms),
        ),
        Outcome::Slow => Error::new(
            ErrorCode::Timeout,
            format!(
                "the body arrived at less than {} bytes per second (http.body_bytes_per_second_min)",
                config.body_bytes_per_second_min
            ),
        ),
        Outcome::Fine | Outcome::Broken => Error::invalid("the body of the request broke off"),
    }
}

/// Removes headers whose names are reserved for the daemon.
fn remove_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// Builds the response; the body is one piece if it arrived as one.
async fn answer(mut call: commands::Call, config: &HttpConfig, face: &Arc<Face>) -> Result<Answer, Error> {
    let pace = Pace { idle: config.body_timeout(), until: Instant::now() + config.stream_max() };
    let mut head = Response::new(());
    *head.status_mut() = call.status();
    head.headers_mut().clone_from(call.headers());
    let length = call.headers().get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    stamp(head.headers_mut(), &call);
    let body = match call.chunk().await.map_err(|failed| failed.error)? {
        None => Body::Whole(Bytes::new()),
        // The body is complete; reading its end only counts the invocation and does not wait.
        Some(first) if length == Some(first.len() as u64) => {
            call.chunk().await.map_err(|failed| failed.error)?;
            Body::Whole(first)
        }
        Some(first) => {
            call.keep_pace(pace);
            Body::of_call(first, call, length, (face, config.body_timeout()))
        }
    };
    Ok(head.map(|()| body))
}

/// Adds the headers with the invocation's id, the version, and the time spent so far.
fn stamp(headers: &mut HeaderMap, call: &commands::Call) {
    let visible = "ids, labels and numbers are visible ASCII";
    headers.insert(INVOCATION_HEADER, HeaderValue::try_from(call.id().to_string()).expect(visible));
    headers.insert(PIN_HEADER, HeaderValue::try_from(call.route().version.label.as_str()).expect(visible));
    let timing = call.timing();
    let [queue, start, run] = [timing.queue, timing.start, timing.run].map(|it| it.as_secs_f64() * 1e3);
    let text = format!("queue;dur={queue:.3}, start;dur={start:.3}, run;dur={run:.3}");
    // Appended: the header is a list, and the function may have entries of its own.
    headers.append(SERVER_TIMING, HeaderValue::try_from(text).expect(visible));
}
