//! An outgoing request: its head, then its body, whole or as it arrives.

use crate::model::{IncomingBody, RequestBody};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method};
use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, ready},
};

/// The rest of a request to write.
#[derive(Debug, Default)]
pub(super) struct PendingRequest {
    /// The head, or the line before a chunk.
    head: BytesMut,
    /// The body, or as much of it as has arrived.
    body: Bytes,
    /// The part of the body that has not arrived yet.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    body: Arc<dyn IncomingBody>,
    /// Whether each part is sent as a chunk, because the total length is unknown.
    is_chunked: bool,
    /// End of the previous chunk.
    chunk_end: &'static [u8],
}

/// Reason why nothing more can be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The worker takes no more.
    Peer(io::Error),
    /// The caller's body broke off.
    Body,
}

impl PendingRequest {
    /// Starts a request. `headers` contains neither `Content-Length` nor headers that concern the connection.
    pub(super) fn begin(&mut self, method: &Method, target: &str, headers: &HeaderMap, body: &RequestBody) {
        let (length, is_chunked) = match body {
            RequestBody::Whole(bytes) => (Some(bytes.len() as u64), false),
            RequestBody::Incoming(body) => (body.length(), body.length().is_none()),
        };
        write_head(&mut self.head, method, target, headers, length);
        match body {
            RequestBody::Whole(bytes) => (self.body, self.rest) = (bytes.clone(), None),
            RequestBody::Incoming(body) => {
                let rest = Rest { body: Arc::clone(body), is_chunked, chunk_end: b"" };
                (self.body, self.rest) = (Bytes::new(), Some(rest));
            }
        }
    }

    /// Whether the whole request is written.
    pub(super) fn is_done(&self) -> bool {
        self.head.is_empty() && self.body.is_empty() && self.rest.is_none()
    }

    /// Discards the rest.
    pub(super) fn give_up(&mut self) {
        *self = Self::default();
    }

    /// Writes something with `write`. Returns the number of bytes; 0 if nothing is left.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<Result<usize, WriteError>> {
        while self.head.is_empty() && self.body.is_empty() && self.rest.is_some() {
            ready!(self.poll_fill(context))?;
        }
        if self.is_done() {
            return Poll::Ready(Ok(0));
        }
        let slices = [IoSlice::new(&self.head), IoSlice::new(&self.body)];
        let written = match ready!(write(context, &slices)) {
            Ok(0) => return Poll::Ready(Err(WriteError::Peer(io::ErrorKind::WriteZero.into()))),
            Ok(written) => written,
            Err(error) => return Poll::Ready(Err(WriteError::Peer(error))),
        };
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        self.body.advance(written - of_head);
        Poll::Ready(Ok(written))
    }

    /// Takes the next part of an incoming body.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(Ok(())) };
        match ready!(rest.body.poll_chunk(context)) {
            // An empty chunk would end the body.
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                if rest.is_chunked {
                    self.head.extend_from_slice(rest.chunk_end);
                    self.head.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                    rest.chunk_end = b"\r\n";
                }
                self.body = bytes;
            }
            Some(Err(_)) => return Poll::Ready(Err(WriteError::Body)),
            None => {
                if rest.is_chunked {
                    self.head.extend_from_slice(rest.chunk_end);
                    self.head.extend_from_slice(b"0\r\n\r\n");
                }
                self.rest = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn write_head(out: &mut BytesMut, method: &Method, target: &str, headers: &HeaderMap, body_bytes: Option<u64>) {
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    for (name, value) in headers {
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    match body_bytes {
        Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {}
        Some(length) => put(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]),
        None => put(&[b"transfer-encoding: chunked\r\n"]),
    }
    put(&[b"\r\n"]);
}
