//! What a request is for, by its host or its path.

use super::{
    answer::{self, Answer},
    api,
    exchange::{Exchange, Told},
    face::{Face, Phase},
    gateway,
    incoming::Incoming,
    pages,
};
use crate::error::{Error, ErrorCode};
use http::{Request, Response, Version, header};
use std::{net::SocketAddr, sync::Arc};
use tokio::runtime::Handle;

/// Answers a request.
pub(super) async fn respond(
    face: &Arc<Face>,
    main: &Handle,
    peer: SocketAddr,
    request: Request<hyper::body::Incoming>,
) -> Response<Told> {
    let (mut exchange, request) = Exchange::begin(face, peer, request);
    let answer = dispatch(face, main, peer, request, &mut exchange).await;
    exchange.answer(answer)
}

async fn dispatch(
    face: &Arc<Face>,
    main: &Handle,
    peer: SocketAddr,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Answer {
    if let Err(error) = check_host(&request) {
        return answer::closing(answer::error(&error, None));
    }
    let (note, phase) = (&mut exchange.note, face.phase());
    if let Some(call) = gateway::Call::of(&request, face.context().map(|it| &it.router)) {
        return match (face.context(), phase) {
            (Some(context), Phase::Warming | Phase::Ready) => {
                gateway::run((face, context), call, peer.ip(), request, note).await
            }
            _ => answer::error(&not_now(phase), None),
        };
    }
    if request.uri().path().starts_with(api::PREFIX) {
        return match face.context() {
            Some(context) => api::run((face, context), main, peer.ip(), request, note).await,
            None => answer::error(&not_now(phase), None),
        };
    }
    match pages::get(face, main, peer.ip(), &request, note).await {
        Some(answer) => answer,
        None => answer::not_found(request.method(), request.uri().path()),
    }
}

/// A request of HTTP/1.1 has one host (RFC 9112, section 3.2), and none may have two: who stands before the daemon may
/// have looked at the other one.
fn check_host<B>(request: &Request<B>) -> Result<(), Error> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (request.version(), hosts) {
        (_, 2..) => Err(Error::invalid("the request has two headers `Host`")),
        (Version::HTTP_11, 0) => Err(Error::invalid("the request has no header `Host`")),
        _ => Ok(()),
    }
}

/// Why functions cannot be called.
fn not_now(phase: Phase) -> Error {
    match phase {
        Phase::Stopping => Error::new(ErrorCode::ShuttingDown, "the daemon is stopping; try again when it is back"),
        _ => Error::new(ErrorCode::Starting, "the daemon is starting; try again in a moment"),
    }
}
