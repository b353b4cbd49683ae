//! Calls of functions: `/functions/<name>[:<qualifier>][/<path>]`, and the path as it is on the host
//! `[<qualifier>--]<name>` of `localhost` or of `http.functions_domain`.

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

/// Where functions are.
const PREFIX: &str = "/functions/";

/// The domain of which functions have hosts wherever the daemon runs (RFC 6761, section 6.3).
const LOCAL_DOMAIN: &str = "localhost";

/// An id of the caller's own, which comes back as it went in.
const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-invocation-id");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The headers of the daemon's own that pages of `http.cors_origin` may read.
const EXPOSED: &str = "x-levain-invocation-id, x-levain-version, x-invocation-id, server-timing";

/// Which function a request is for.
#[derive(Debug)]
pub(super) struct Call {
    /// Its name, with the qualifier if one is given.
    function: String,
    /// What the function sees of the path and query.
    target: PathAndQuery,
    place: Place,
}

/// Where a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a host of its own.
    OwnHost,
    /// Among others, at a path that ends with its name or below that.
    Shared { is_bare: bool },
}

impl Call {
    /// None where a request is for no function.
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
        // No function has a name that means nothing, and the router says so.
        let function = decode(name).unwrap_or_else(|_| name.to_owned());
        let is_bare = !rest.starts_with('/');
        let target = if is_bare { format!("/{rest}").parse() } else { rest.parse() };
        Some(Self { function, target: target.ok()?, place: Place::Shared { is_bare } })
    }
}

/// What stands before the domain of functions in a request's host name.
fn by_host(request: &Request<Incoming>, face: &Face) -> Option<String> {
    let host = local::name(request.headers().get(header::HOST)?.to_str().ok()?);
    let label = origin::below(host, LOCAL_DOMAIN).filter(|it| !it.contains('.'));
    let label = match (label, face.context()) {
        (Some(label), _) => label,
        // No function is called what has a dot in it, and nothing else is served there.
        (None, Some(context)) => origin::below(host, &context.config.load().http.functions_domain)?,
        (None, None) => origin::below(host, &face.config().http.functions_domain)?,
    };
    Some(label.to_ascii_lowercase())
}

/// The function that a label names. A function may have `--` in its name; where there is none of the whole label, what
/// stands before the first `--` is the qualifier.
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
                    // Apart, so that a call that works carries no room for it.
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
        // The function may let pages read some of its own besides.
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    answer
}

/// What a browser asks before it lets a page of another origin call.
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
        // It is between the caller and the daemon: with it the function could call others in the caller's name.
        headers.remove(header::AUTHORIZATION);
    }
    commands::check_method(&head.method)?;
    // Before the daemon adds headers of its own, so that a client cannot have those removed.
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

/// A small body as a whole, any other to be read by the function. A worker waits for neither of them to begin.
async fn collect(upload: &Arc<Upload>, config: &HttpConfig, deadline: Instant) -> Result<RequestBody, Error> {
    match timeout_at(deadline.into(), upload.collect_small()).await {
        Ok(Ok(Some(bytes))) => Ok(RequestBody::Whole(bytes)),
        Ok(Ok(None)) => Ok(RequestBody::Incoming(Arc::clone(upload) as _)),
        Ok(Err(_)) => Err(broken(upload.outcome(), config)),
        Err(_) => {
            let message = "the body did not come within the time that the function has (timeout_seconds)";
            Err(Error::new(ErrorCode::Timeout, message))
        }
    }
}

fn broken(outcome: Outcome, config: &HttpConfig) -> Error {
    match outcome {
        Outcome::TooLarge => Error::new(
            ErrorCode::PayloadTooLarge,
            format!("the body has more than {} bytes (http.body_bytes_max)", config.body_bytes_max),
        ),
        Outcome::Stalled => Error::new(
            ErrorCode::Timeout,
            format!("the body made no progress for {} ms (http.body_timeout_ms)", config.body_timeout_ms),
        ),
        Outcome::Slow => Error::new(
            ErrorCode::Timeout,
            format!(
                "the body came with less than {} bytes per second (http.body_bytes_per_second_min)",
                config.body_bytes_per_second_min
            ),
        ),
        Outcome::Fine | Outcome::Broken => Error::invalid("the body of the request broke off"),
    }
}

/// The daemon's own headers are not for clients to set.
fn remove_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// The function's answer, whole where it came whole.
async fn answer(mut call: commands::Call, config: &HttpConfig, face: &Arc<Face>) -> Result<Answer, Error> {
    let pace = Pace { idle: config.body_timeout(), until: Instant::now() + config.stream_max() };
    let mut head = Response::new(());
    *head.status_mut() = call.status();
    head.headers_mut().clone_from(call.headers());
    let length = call.headers().get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    stamp(head.headers_mut(), &call);
    let body = match call.chunk().await.map_err(|failed| failed.error)? {
        None => Body::Whole(Bytes::new()),
        // The end is known before it is asked for.
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

/// Says which invocation this is, which version answers, and where the time went until now.
fn stamp(headers: &mut HeaderMap, call: &commands::Call) {
    let visible = "ids, labels and numbers are visible ASCII";
    headers.insert(INVOCATION_HEADER, HeaderValue::try_from(call.id().to_string()).expect(visible));
    headers.insert(PIN_HEADER, HeaderValue::try_from(call.route().version.label.as_str()).expect(visible));
    let timing = call.timing();
    let [queue, start, run] = [timing.queue, timing.start, timing.run].map(|it| it.as_secs_f64() * 1e3);
    let text = format!("queue;dur={queue:.3}, start;dur={start:.3}, run;dur={run:.3}");
    // The function may have said something of its own there, and it is a list.
    headers.append(SERVER_TIMING, HeaderValue::try_from(text).expect(visible));
}
