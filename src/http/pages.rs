//! The daemon's own pages. Most need no token, because they reveal nothing about the functions.

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

/// A page, for `GET` and `HEAD`.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) path: &'static str,
    /// Summary in the OpenAPI document.
    pub(super) summary: &'static str,
    /// Possible answers: status, content type and meaning.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    get: Get,
}

/// Source of a page's content.
#[derive(Debug)]
enum Get {
    /// A function; the page is open to everybody.
    Now(fn(&Face, &HeaderMap) -> Answer),
    /// [`metrics`], once the daemon has a context, for whoever `http.metrics` allows.
    Metrics,
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

pub(super) static PAGES: &[Page] = &[
    Page {
        path: "/health",
        summary: "reports that the daemon runs",
        answers: &[(200, TEXT, "The daemon runs.")],
        get: Get::Now(|_, _| answer::text(StatusCode::OK, "ok\n")),
    },
    Page {
        path: "/ready",
        summary: "reports whether functions can be called",
        answers: &[(200, TEXT, "Functions can be called."), (503, TEXT, "The daemon is starting or stopping.")],
        get: Get::Now(|face, _| match face.phase() {
            Phase::Ready => ready(face.taken),
            phase => answer::not_now(phase.reason()),
        }),
    },
    Page {
        path: "/metrics",
        summary: "returns metrics in the text format of Prometheus",
        answers: &[
            (200, TEXT, "The metrics."),
            (401, JSON, "A token is required by `http.metrics`."),
            (403, JSON, "The token lacks the scope `read`."),
            (404, JSON, "Metrics are switched off by `http.metrics`."),
            (503, TEXT, "The daemon is starting."),
        ],
        get: Get::Metrics,
    },
    Page {
        path: "/openapi.json",
        summary: "describes the HTTP API as OpenAPI 3.1",
        answers: &[
            (200, JSON, "The document."),
            (304, "", "The client's copy is current: its `If-None-Match` is the `ETag`."),
        ],
        get: Get::Now(|_, headers| api::openapi::get(headers)),
    },
];

/// Answers that the daemon is ready, with a warning if `localhost` may lead to another process.
fn ready(taken: Option<SocketAddr>) -> Answer {
    let Some(taken) = taken else { return answer::text(StatusCode::OK, "ok\n") };
    let text = format!("ok\nanother process listens on {taken}, so localhost may lead to it\n");
    answer::typed(StatusCode::OK, answer::TEXT, text.into())
}

/// Answers with the page at the request's path, or returns `None` if there is none.
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
