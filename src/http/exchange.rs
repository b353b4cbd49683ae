//! One request, from its head to the last byte of its answer. It is counted when it is over, and written to the access
//! log if that is on.

use super::{
    access_log::{Head, Record},
    activity::Busy,
    answer::{self, Answer, Body},
    face::Face,
    incoming::{Incoming, Receipt},
};
use crate::{
    commands::TokenRights,
    model::{InvocationId, Version},
    router::Route,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

/// Facts about a request that become known while it is served.
#[derive(Debug, Default)]
pub(super) struct Note {
    function: Option<Arc<str>>,
    version: Option<Arc<Version>>,
    invocation: Option<InvocationId>,
    grant: Option<TokenRights>,
    is_wanted: bool,
}

impl Note {
    /// Notes the invocation and its route.
    pub(super) fn invocation(&mut self, id: InvocationId, route: &Route) {
        if self.is_wanted {
            self.invocation = Some(id);
            self.function = Some(route.entry.function.name.as_str().into());
            self.version = Some(Arc::clone(&route.version));
        }
    }

    /// Notes the token that the request came with.
    pub(super) fn grant(&mut self, grant: &TokenRights) {
        if self.is_wanted {
            self.grant = Some(grant.clone());
        }
    }
}

/// A request that is being served. Dropping the exchange ends it: after the last byte of the answer, or when the client
/// leaves.
#[derive(Debug)]
pub(super) struct Exchange {
    face: Arc<Face>,
    /// Keeps the connection from counting as idle.
    _busy: Busy,
    begun: Instant,
    status: Option<StatusCode>,
    receipt: Option<Arc<Receipt>>,
    bytes_out: u64,
    is_complete: bool,
    is_head: bool,
    pub(super) note: Note,
    /// Present only if the access log is on.
    head: Option<Box<Head>>,
}

impl Exchange {
    /// Begins an exchange, and counts the bytes of the request's body.
    pub(super) fn begin(
        face: &Arc<Face>,
        (peer, busy): (SocketAddr, Busy),
        request: Request<hyper::body::Incoming>,
    ) -> (Self, Request<Incoming>) {
        face.counters.request_begins();
        let is_wanted = face.access_log.is_on();
        let request = Incoming::of(request);
        let head = is_wanted.then(|| Box::new(Head::of(&request, peer, &face.config().http)));
        let exchange = Self {
            face: Arc::clone(face),
            _busy: busy,
            begun: Instant::now(),
            status: None,
            receipt: request.body().receipt(),
            bytes_out: 0,
            is_complete: false,
            is_head: request.method() == Method::HEAD,
            note: Note { is_wanted, ..Note::default() },
            head,
        };
        (exchange, request)
    }

    /// Turns the answer into the response, whose body owns the exchange from here on.
    pub(super) fn answer(mut self, answer: Answer) -> Response<Told> {
        self.status = Some(answer.status());
        let is_cut = self.receipt.as_ref().is_some_and(|it| it.is_cut());
        let answer = if is_cut { answer::closing(answer) } else { answer };
        answer.map(|body| Told { body, exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let bytes_in = self.receipt.as_ref().map_or(0, |it| it.bytes());
        let status = self.status.map(|it| it.as_u16());
        self.face.counters.request_ends(status, bytes_in, self.bytes_out);
        let Some(head) = self.head.take() else { return };
        let note = std::mem::take(&mut self.note);
        self.face.access_log.push(Record {
            head: *head,
            status,
            bytes_in,
            bytes_out: self.bytes_out,
            duration: self.begun.elapsed(),
            is_complete: self.is_complete,
            function: note.function,
            version: note.version,
            invocation: note.invocation,
            grant: note.grant,
        });
    }
}

/// Body of an answer; counts its bytes as they are sent.
#[derive(Debug)]
pub(super) struct Told {
    body: Body,
    exchange: Exchange,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { body, exchange } = self.get_mut();
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            None => exchange.is_complete = true,
            Some(Ok(frame)) => exchange.bytes_out += frame.data_ref().map_or(0, |it| it.len() as u64),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // hyper does not poll past a declared length, nor a body where none is allowed, so the end may not have been
        // seen.
        let is_bodyless = self.exchange.is_head || self.exchange.status == Some(StatusCode::NOT_MODIFIED);
        self.exchange.is_complete |= is_bodyless || self.body.is_complete();
    }
}
