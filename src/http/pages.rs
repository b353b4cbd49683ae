//! The daemon's own pages, which need no token: they tell nothing of what runs here.

use super::{
    answer::{self, Answer},
    api,
};
use crate::commands::Context;
use http::{HeaderMap, Method, StatusCode};

/// One page, for `GET` and `HEAD`.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) summary: &'static str,
    /// What it may answer: a status, a content type, and what that means.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    get: fn(&Context, &HeaderMap) -> Answer,
}

const TEXT: &str = "text/plain";

pub(super) static PAGES: &[Page] = &[
    Page {
        path: "/health",
        summary: "says that the daemon runs",
        answers: &[(200, TEXT, "It does.")],
        get: |_, _| answer::text(StatusCode::OK, "ok\n"),
    },
    Page {
        path: "/ready",
        summary: "says whether calls are served",
        answers: &[(200, TEXT, "They are."), (503, TEXT, "The daemon is stopping.")],
        get: |context, _| match context.stopping.is_cancelled() {
            true => answer::text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n"),
            false => answer::text(StatusCode::OK, "ok\n"),
        },
    },
    Page {
        path: "/openapi.json",
        summary: "describes all of this, as OpenAPI 3.1",
        answers: &[
            (200, "application/json", "The document."),
            (304, "", "The client has it already: its `If-None-Match` is the `ETag`."),
        ],
        get: |_, headers| api::openapi::get(headers),
    },
];

/// What a page answers; nothing where there is none at this path.
pub(super) fn get(context: &Context, method: &Method, path: &str, headers: &HeaderMap) -> Option<Answer> {
    let page = PAGES.iter().find(|it| it.path == path)?;
    Some(match *method {
        Method::GET | Method::HEAD => (page.get)(context, headers),
        _ => answer::method_not_allowed(method, path, &["GET", "HEAD"]),
    })
}
