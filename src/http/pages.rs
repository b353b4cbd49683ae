//! The daemon's own pages. Most need no token: they tell nothing of what runs here.

use super::{
    answer::{self, Answer},
    api,
    exchange::Note,
    face::{Face, Phase},
    metrics,
    peer::Peer,
};
use http::{HeaderMap, Method, Request, StatusCode};
use std::{net::SocketAddr, sync::Arc};
use tokio::runtime::Handle;

/// One page, for `GET` and `HEAD`.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) summary: &'static str,
    /// What it may answer: a status, a content type, and what that means.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    get: Get,
}

/// How a page is made.
#[derive(Debug)]
enum Get {
    /// At once, for everybody.
    Now(fn(&Face, &HeaderMap) -> Answer),
    /// By [`metrics`], once there is something to count, for whom the configuration lets see it.
    Metrics,
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

pub(super) static PAGES: &[Page] = &[
    Page {
        path: "/health",
        summary: "says that the daemon runs",
        answers: &[(200, TEXT, "It does.")],
        get: Get::Now(|_, _| answer::text(StatusCode::OK, "ok\n")),
    },
    Page {
        path: "/ready",
        summary: "says whether calls are served",
        answers: &[(200, TEXT, "They are."), (503, TEXT, "The daemon is starting or stopping.")],
        get: Get::Now(|face, _| match face.phase() {
            Phase::Ready => ready(face.taken),
            phase => answer::not_now(phase.reason()),
        }),
    },
    Page {
        path: "/metrics",
        summary: "what is counted, in the text format of Prometheus",
        answers: &[
            (200, TEXT, "The numbers."),
            (401, JSON, "A token is needed, as `http.metrics` says."),
            (403, JSON, "The token is not for this."),
            (404, JSON, "It is switched off."),
            (503, TEXT, "The daemon is starting."),
        ],
        get: Get::Metrics,
    },
    Page {
        path: "/openapi.json",
        summary: "describes all of this, as OpenAPI 3.1",
        answers: &[
            (200, JSON, "The document."),
            (304, "", "The client has it already: its `If-None-Match` is the `ETag`."),
        ],
        get: Get::Now(|_, headers| api::openapi::get(headers)),
    },
];

/// Says that calls are served, and whether `localhost` may lead to somebody else.
fn ready(taken: Option<SocketAddr>) -> Answer {
    let Some(taken) = taken else { return answer::text(StatusCode::OK, "ok\n") };
    let text = format!("ok\nanother process listens on {taken}, so localhost may lead to it\n");
    answer::typed(StatusCode::OK, answer::TEXT, text.into())
}

/// What a page answers; nothing where there is none at this path.
pub(super) async fn get<B>(
    face: &Arc<Face>,
    main: &Handle,
    peer: &Peer,
    request: &Request<B>,
    note: &mut Note,
) -> Option<Answer> {
    let (method, path) = (request.method(), request.uri().path());
    let page = PAGES.iter().find(|it| it.path == path)?;
    Some(match (method, &page.get) {
        (&Method::GET | &Method::HEAD, Get::Now(get)) => get(face, request.headers()),
        (&Method::GET | &Method::HEAD, Get::Metrics) => match face.context() {
            Some(context) => metrics::run((face, context), main, peer, request, note).await,
            None => answer::not_now(face.phase().reason()),
        },
        _ => answer::method_not_allowed(method, path, &["GET", "HEAD"]),
    })
}
