//! Dispatch of a request by its host or its path.

use super::{
    activity::Busy,
    answer::{self, Answer},
    api,
    exchange::{Exchange, Told},
    face::{Face, Phase},
    gateway, host,
    incoming::Incoming,
    pages,
    peer::Peer,
};
use crate::error::{Error, ErrorCode};
use http::{Request, Response, Version, header};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Permissions of a request, by the place that its connection has.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) busy: Busy,
    /// Whether the request may call a function.
    pub(super) may_call: bool,
}

/// Answers a request.
pub(super) async fn respond(
    face: &Arc<Face>,
    main: &Handle,
    peer: &Peer,
    Admitted { busy, may_call }: Admitted,
    request: Request<hyper::body::Incoming>,
) -> Response<Told> {
    let (mut exchange, request) = Exchange::begin(face, (peer.address, busy), request);
    let answer = dispatch(face, main, (peer, may_call), request, &mut exchange).await;
    exchange.answer(answer)
}

async fn dispatch(
    face: &Arc<Face>,
    main: &Handle,
    (peer, may_call): (&Peer, bool),
    mut request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Answer {
    if let Err(error) = host::settle(&mut request).and_then(|()| check_coding(&request)) {
        return answer::closing(answer::error(&error, None));
    }
    if has_unknown_expectation(&request) {
        return answer::expectation_failed();
    }
    let (note, phase) = (&mut exchange.note, face.phase());
    if let Some(call) = gateway::Call::of(&request, face) {
        if !may_call {
            return answer::closing(answer::error(&no_place(face), None));
        }
        return match (face.context(), phase) {
            (Some(context), Phase::Warming | Phase::Ready) => {
                gateway::run((face, context), main, call, (peer, request), note).await
            }
            _ => answer::error(&not_now(phase), None),
        };
    }
    if request.uri().path().starts_with(api::PREFIX) {
        return match face.context() {
            Some(context) => api::run((face, context), main, peer.address.ip(), request, note).await,
            None => answer::error(&not_now(phase), None),
        };
    }
    match pages::get(face, main, peer, &request, note).await {
        Some(answer) => answer,
        None => answer::not_found(request.method(), request.uri().path()),
    }
}

/// Refuses transfer codings other than `chunked`, which the daemon would not decode (RFC 9112, section 6.1).
fn check_coding<B>(request: &Request<B>) -> Result<(), Error> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Error::invalid("a body may have the transfer coding `chunked` and no other")),
    }
}

/// Whether a request has an expectation other than `100-continue` (RFC 9110, section 10.1.1). HTTP/1.0 has no
/// expectations.
fn has_unknown_expectation<B>(request: &Request<B>) -> bool {
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    request.version() > Version::HTTP_10 && expected.any(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Error for an invocation on a reserved connection.
fn no_place(face: &Face) -> Error {
    let max = face.config().http.connections_max;
    let message = format!("all {max} connections over HTTP are busy (http.connections_max); try again in a moment");
    Error::new(ErrorCode::Overloaded, message)
}

/// Error for an invocation while functions are not served.
fn not_now(phase: Phase) -> Error {
    match phase {
        Phase::Stopping => Error::new(ErrorCode::ShuttingDown, "the daemon is stopping; try again when it is back"),
        _ => Error::new(ErrorCode::Starting, "the daemon is starting; try again in a moment"),
    }
}
