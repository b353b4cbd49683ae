//! The client side of HTTP/1.1 on one kept-alive connection to a worker.
//!
//! A connection writes one request at a time and reads its answer. Reading continues while it writes: a worker may
//! answer before it has read the request's body, and neither side may wait for the other for ever. The worker's output
//! is bounded and checked; an answer whose end is uncertain ends the connection.

mod request;

use crate::{
    model::RequestBody,
    socket::{News, Socket},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use request::{PendingRequest, WriteError};
use std::{
    future::poll_fn,
    io,
    path::Path,
    task::{Poll, ready},
};
use tokio::{net::UnixStream, task::coop::consume_budget};

/// Maximum bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Maximum headers of an answer.
const HEADERS_MAX: usize = 128;

/// Maximum bytes of a chunk's size line, or of all trailers.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Maximum heads that may announce the answer, such as `103 Early Hints`; Bun sends none.
const INFORMATIONAL_MAX: usize = 8;

/// End of every head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Room for the next read of a head or a small body, and of a large body.
const READ_BYTES: usize = 8 * 1024;
const READ_BODY_BYTES_MAX: usize = 256 * 1024;

/// Reason why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http1Error {
    /// No byte of the request has left: it may be sent elsewhere.
    #[error("the request could not be sent: {0}")]
    NotSent(#[source] io::Error),
    /// The caller's body broke off: the worker has only a part of it.
    #[error("the body of the request broke off")]
    Request,
    /// The connection ended before the answer did.
    #[error("the connection ended")]
    Ended,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The function chose headers that cannot be passed on.
    #[error("{0}")]
    Unfit(&'static str),
    /// The received bytes are not an HTTP answer.
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
}

/// Framing of a body, which tells where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    /// This many bytes are left.
    Length(u64),
    /// A chunk's size line comes next.
    ChunkSize,
    /// This many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk comes next.
    ChunkEnd,
    /// Trailers come next, up to an empty line; they may have this many bytes.
    Trailers(usize),
    /// The body ends with the connection.
    UntilEnd,
}

/// Usability of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Another request may follow.
    Reusable,
    /// No request may follow.
    Over,
    /// Bytes have arrived that belong to no answer. They would be taken for the next one.
    Unasked,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// One connection.
#[derive(Debug)]
pub(super) struct WorkerConnection {
    stream: Socket,
    /// Bytes read and not consumed yet.
    incoming: BytesMut,
    /// The rest of the request to write.
    outgoing: PendingRequest,
    /// The rest of the answer's body to read.
    body: BodyFraming,
    /// Whether another request may follow.
    reusable: bool,
}

impl WorkerConnection {
    /// Connects to a worker's socket.
    pub(super) async fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        Ok(Self::new(Socket::new(stream.into_std()?)?))
    }

    fn new(stream: Socket) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            outgoing: PendingRequest::default(),
            body: BodyFraming::Length(0),
            reusable: true,
        }
    }

    /// Usability of the connection once an answer is complete.
    pub(super) fn state(&self) -> ConnectionState {
        match self.body {
            BodyFraming::Length(0) if !self.incoming.is_empty() => ConnectionState::Unasked,
            BodyFraming::Length(0) if self.reusable && self.outgoing.is_done() => ConnectionState::Reusable,
            _ => ConnectionState::Over,
        }
    }

    /// Usability of a connection that has been idle since its last answer, as far as the runtime was notified.
    pub(super) fn state_after_rest(&self) -> ConnectionState {
        match self.stream.news() {
            News::None => self.state(),
            News::Bytes => ConnectionState::Unasked,
            News::End => ConnectionState::Over,
        }
    }

    /// Sends a request and reads the head of its answer. `headers` contains neither `Content-Length` nor headers that
    /// concern the connection.
    pub(super) async fn send(
        &mut self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &RequestBody,
    ) -> Result<ResponseHead, Http1Error> {
        self.outgoing.begin(method, target, headers, body);
        self.begin_writing().await?;
        self.read(READ_BYTES).await?;
        let mut informational = 0;
        loop {
            match self.parse_head(method)? {
                Parsed::Head(head) => return Ok(head),
                Parsed::Informational if informational == INFORMATIONAL_MAX => {
                    return Err(Http1Error::Malformed("too many informational heads precede it"));
                }
                Parsed::Informational => informational += 1,
                Parsed::Partial => self.read_head_on().await?,
            }
        }
    }

    /// Reads until the head can be complete: parsing it after each byte would take quadratic time.
    async fn read_head_on(&mut self) -> Result<(), Http1Error> {
        loop {
            let seen = self.incoming.len().saturating_sub(HEAD_END.len());
            self.read(READ_BYTES).await?;
            let end = self.incoming[seen..].windows(HEAD_END.len()).position(|it| it == HEAD_END);
            if end.map_or(self.incoming.len(), |end| seen + end) > HEAD_BYTES_MAX {
                return Err(Http1Error::Unfit("the head of the answer has more than 256 KiB: return fewer headers"));
            }
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Returns the next bytes of the answer's body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Http1Error> {
        loop {
            match self.body {
                BodyFraming::Length(0) => return Ok(None),
                BodyFraming::Length(left) | BodyFraming::Chunk(left) if !self.incoming.is_empty() => {
                    let bytes = self.take(left);
                    let left = left - bytes.len() as u64;
                    self.body = match self.body {
                        BodyFraming::Chunk(_) if left == 0 => BodyFraming::ChunkEnd,
                        BodyFraming::Chunk(_) => BodyFraming::Chunk(left),
                        _ => BodyFraming::Length(left),
                    };
                    // A body of very small chunks yields to other tasks now and then.
                    consume_budget().await;
                    return Ok(Some(bytes));
                }
                BodyFraming::Length(left) | BodyFraming::Chunk(left) => {
                    let room = usize::try_from(left).unwrap_or(usize::MAX);
                    self.read(room.clamp(READ_BYTES, READ_BODY_BYTES_MAX)).await?;
                }
                BodyFraming::ChunkSize => match self.take_line()? {
                    Some(line) => self.body = chunk_size(&line)?,
                    None => self.read(READ_BYTES).await?,
                },
                BodyFraming::ChunkEnd => match self.take_line()? {
                    Some(line) if line.is_empty() => self.body = BodyFraming::ChunkSize,
                    Some(_) => return Err(Http1Error::Malformed("a chunk is longer than its size")),
                    None => self.read(READ_BYTES).await?,
                },
                BodyFraming::Trailers(room) => match self.take_line()? {
                    Some(line) if line.is_empty() => self.body = BodyFraming::Length(0),
                    Some(line) => {
                        let left = room.checked_sub(line.len() + 1);
                        self.body =
                            BodyFraming::Trailers(left.ok_or(Http1Error::Malformed("its trailers are too long"))?);
                    }
                    None => self.read(READ_BYTES).await?,
                },
                BodyFraming::UntilEnd if !self.incoming.is_empty() => return Ok(Some(self.take(u64::MAX))),
                BodyFraming::UntilEnd => match self.read(READ_BODY_BYTES_MAX).await {
                    Err(Http1Error::Ended) => self.body = BodyFraming::Length(0),
                    outcome => outcome?,
                },
            }
        }
    }

    fn take(&mut self, at_most: u64) -> Bytes {
        let count = usize::try_from(at_most).unwrap_or(usize::MAX).min(self.incoming.len());
        self.incoming.split_to(count).freeze()
    }

    /// Takes a complete line, without its line ending.
    fn take_line(&mut self) -> Result<Option<Bytes>, Http1Error> {
        let Some(end) = self.incoming.iter().position(|&byte| byte == b'\n') else {
            return if self.incoming.len() > LINE_BYTES_MAX {
                Err(Http1Error::Malformed("a line is too long"))
            } else {
                Ok(None)
            };
        };
        let line = self.take(end as u64 + 1);
        let line = line.slice(..end);
        Ok(Some(if line.ends_with(b"\r") { line.slice(..end - 1) } else { line }))
    }

    /// Writes at least one byte. If this fails, no byte has left.
    async fn begin_writing(&mut self) -> Result<(), Http1Error> {
        let Self { outgoing, stream, .. } = self;
        let written =
            poll_fn(|context| outgoing.poll_write(context, |context, slices| stream.poll_write(context, slices)));
        match written.await {
            Ok(_) => Ok(()),
            Err(WriteError::Peer(error)) => Err(Http1Error::NotSent(error)),
            Err(WriteError::Body) => Err(Http1Error::Request),
        }
    }

    /// Reads at least one byte, while writing the rest of the request.
    async fn read(&mut self, room: usize) -> Result<(), Http1Error> {
        self.incoming.reserve(room);
        let Self { outgoing, stream, incoming, reusable, .. } = self;
        let count = poll_fn(|context| {
            while !outgoing.is_done() {
                match outgoing.poll_write(context, |context, slices| stream.poll_write(context, slices)) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => break,
                    // The worker takes no more of the request. It may still answer, but not another request.
                    Poll::Ready(Err(WriteError::Peer(_))) => {
                        *reusable = false;
                        outgoing.give_up();
                    }
                    Poll::Ready(Err(WriteError::Body)) => return Poll::Ready(Err(Http1Error::Request)),
                }
            }
            Poll::Ready(ready!(stream.poll_read(context, incoming)).map_err(Http1Error::Io))
        })
        .await?;
        if count == 0 { Err(Http1Error::Ended) } else { Ok(()) }
    }

    /// Splits the head off the received bytes, if it is complete, and records how its body ends.
    fn parse_head(&mut self, method: &Method) -> Result<Parsed, Http1Error> {
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut slots);
        let parsed = response.parse(&self.incoming).map_err(|error| match error {
            httparse::Error::TooManyHeaders => Http1Error::Unfit("the answer has more than 128 headers: return fewer"),
            httparse::Error::HeaderValue => {
                Http1Error::Unfit("a header of the answer has a character that no header may have")
            }
            _ => Http1Error::Malformed("its head does not parse"),
        })?;
        let httparse::Status::Complete(length) = parsed else { return Ok(Parsed::Partial) };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Http1Error::Malformed("its status is not valid"))?;
        let version = response.version;
        // Values are kept as slices of the received bytes; their positions are recorded before the head is split off.
        let base = self.incoming.as_ptr() as usize;
        let count = response.headers.len();
        let mut places = [(0, 0, 0, 0); HEADERS_MAX];
        for (place, field) in places.iter_mut().zip(response.headers.iter()) {
            let (name, value) = (field.name.as_ptr() as usize - base, field.value.as_ptr() as usize - base);
            *place = (name, name + field.name.len(), value, value + field.value.len());
        }
        let head = self.incoming.split_to(length).freeze();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Parsed::Informational);
        }
        let mut headers = HeaderMap::with_capacity(count);
        for &(name, name_end, value, value_end) in &places[..count] {
            let malformed = |_| Http1Error::Malformed("a header is not valid");
            let name = HeaderName::from_bytes(&head[name..name_end]).map_err(|_| malformed(()))?;
            let value = HeaderValue::from_maybe_shared(head.slice(value..value_end)).map_err(|_| malformed(()))?;
            headers.append(name, value);
        }
        self.body = framing(method, status, &headers)?;
        let closes = has_token(&headers, &header::CONNECTION, "close");
        self.reusable = version == Some(1) && !closes && self.body != BodyFraming::UntilEnd;
        Ok(Parsed::Head(ResponseHead { status, headers }))
    }
}

/// Result of parsing the received bytes.
enum Parsed {
    Head(ResponseHead),
    /// An informational head, which was dropped.
    Informational,
    Partial,
}

/// Determines how the end of this answer's body is marked (RFC 9112, section 6.3).
fn framing(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<BodyFraming, Http1Error> {
    if method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(BodyFraming::Length(0));
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Http1Error::Malformed("its transfer encoding is unknown"));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Http1Error::Malformed("it has a length and a transfer encoding"));
        }
        return Ok(BodyFraming::ChunkSize);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(BodyFraming::UntilEnd) };
    if lengths.any(|other| other != first) {
        return Err(Http1Error::Malformed("it has two lengths"));
    }
    let digits = first.to_str().ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|it| it.parse().ok()).ok_or(Http1Error::Malformed("its length is not a number"))?;
    Ok(BodyFraming::Length(length))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
}

fn chunk_size(line: &[u8]) -> Result<BodyFraming, Http1Error> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let size =
        text.and_then(|it| u64::from_str_radix(it, 16).ok()).ok_or(Http1Error::Malformed("a chunk has no size"))?;
    Ok(if size == 0 { BodyFraming::Trailers(LINE_BYTES_MAX) } else { BodyFraming::Chunk(size) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BodyBroken, IncomingBody};
    use proptest::prelude::*;
    use std::{sync::Arc, task::Context};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn socket(stream: UnixStream) -> Socket {
        Socket::new(stream.into_std().expect("a socket")).expect("a runtime")
    }

    /// Sends a GET to a peer that answers with these bytes, `cut` at a time, and then closes.
    async fn exchange(
        method: Method,
        answer: &[u8],
        cut: usize,
    ) -> Result<(ResponseHead, Vec<u8>, ConnectionState), Http1Error> {
        let (stream, mut peer) = UnixStream::pair().expect("a pair");
        let pieces: Vec<Vec<u8>> = answer.chunks(cut).map(<[u8]>::to_vec).collect();
        let peer = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                peer.read_buf(&mut request).await.expect("the request comes");
            }
            for piece in pieces {
                // The client does not read beyond the answer's end.
                if peer.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut connection = WorkerConnection::new(socket(stream));
        let head = connection.send(&method, "/", &HeaderMap::new(), &RequestBody::default()).await?;
        let mut body = Vec::new();
        while let Some(chunk) = connection.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        let state = connection.state();
        drop(connection);
        peer.await.expect("the peer ends");
        Ok((head, body, state))
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        let cases: [(&str, &str, bool); 7] = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
                "hello!",
                true,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", "", true),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", "to the end", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", "x", false),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true),
        ];
        for (answer, body, reusable) in cases {
            for cut in [1, 2, 7, 1000] {
                let (_, got, state) = exchange(Method::GET, answer.as_bytes(), cut).await.expect(answer);
                let state_then = if reusable { ConnectionState::Reusable } else { ConnectionState::Over };
                assert_eq!((String::from_utf8_lossy(&got).as_ref(), state), (body, state_then), "{answer:?} cut {cut}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_to_head_has_no_body() {
        let (head, body, state) = exchange(
            Method::HEAD,
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n",
            9,
        )
        .await
        .expect("an answer");
        assert_eq!(
            (head.headers.get_all("set-cookie").iter().count(), body.len(), state),
            (2, 0, ConnectionState::Reusable)
        );
    }

    #[tokio::test]
    async fn what_is_cut_or_malformed_is_an_error() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nxx",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\n",
            "nonsense\r\n\r\n",
            "",
        ] {
            assert!(exchange(Method::GET, answer.as_bytes(), 1000).await.is_err(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn bytes_after_the_answer_belong_to_none() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
        let (_, body, state) = exchange(Method::GET, answer, 1000).await.expect("an answer");
        assert_eq!((body.as_slice(), state), (&b"x"[..], ConnectionState::Unasked));
    }

    #[tokio::test]
    async fn bytes_that_come_while_it_rests_belong_to_no_answer() {
        let (stream, mut peer) = UnixStream::pair().expect("a pair");
        let mut connection = WorkerConnection::new(socket(stream));
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("there is room");
        connection.send(&Method::GET, "/", &HeaderMap::new(), &RequestBody::default()).await.expect("an answer");
        assert_eq!(connection.chunk().await.expect("a body"), None);
        tokio::time::sleep(std::time::Duration::ZERO).await;
        assert_eq!(
            (connection.state(), connection.state_after_rest()),
            (ConnectionState::Reusable, ConnectionState::Reusable)
        );
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled").await.expect("there is room");
        tokio::time::sleep(std::time::Duration::ZERO).await;
        assert_eq!(
            (connection.state(), connection.state_after_rest()),
            (ConnectionState::Reusable, ConnectionState::Unasked)
        );
    }

    #[tokio::test]
    async fn what_a_function_may_choose_is_told_from_what_no_shim_sends() {
        let with = |headers: String| format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
        let many: String = (0..=HEADERS_MAX).map(|number| format!("h{number}: v\r\n")).collect();
        let large = format!("large: {}\r\n", "x".repeat(HEAD_BYTES_MAX));
        for answer in [with(many), with(large), with("a: \u{1}\r\n".into())] {
            let outcome = exchange(Method::GET, answer.as_bytes(), 5_000).await;
            assert!(matches!(outcome, Err(Http1Error::Unfit(_))), "{:?}", outcome.map(|it| it.2));
        }
    }

    /// Sends a GET to a peer that writes `begin`, then `more` repeatedly for as long as it can. Returns how many bytes
    /// the peer could write, and the error that stopped it.
    async fn endless(begin: &str, more: &str) -> (usize, Http1Error) {
        let (stream, mut peer) = UnixStream::pair().expect("a pair");
        let (begin, more) = (begin.to_owned(), more.to_owned());
        let peer = tokio::spawn(async move {
            let mut written = begin.len();
            peer.write_all(begin.as_bytes()).await.expect("there is room");
            while peer.write_all(more.as_bytes()).await.is_ok() {
                written += more.len();
            }
            written
        });
        let mut connection = WorkerConnection::new(socket(stream));
        let outcome = async {
            connection.send(&Method::GET, "/", &HeaderMap::new(), &RequestBody::default()).await?;
            while connection.chunk().await?.is_some() {}
            Ok(())
        };
        let error = outcome.await.expect_err("it has no end");
        assert!(connection.incoming.capacity() < 2 * HEAD_BYTES_MAX + READ_BODY_BYTES_MAX, "{error}");
        drop(connection);
        (peer.await.expect("the peer ends"), error)
    }

    #[tokio::test]
    async fn what_has_no_end_is_cut_off() {
        /// Bytes that a socket buffers besides.
        const SOCKET_BYTES: usize = 1 << 20;
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let cases = [
            ("HTTP/1.1 200 OK\r\n".to_owned(), "x".repeat(100), HEAD_BYTES_MAX),
            ("HTTP/1.1 200 OK\r\n".to_owned(), "a: b\r\n".to_owned(), HEAD_BYTES_MAX),
            (String::new(), "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned(), 1_000),
            (chunked.to_owned(), "0".repeat(100), LINE_BYTES_MAX),
            (chunked.to_owned() + "1;", "x".repeat(100), LINE_BYTES_MAX),
            (chunked.to_owned() + "0\r\n", "a: b\r\n".to_owned(), LINE_BYTES_MAX),
            (chunked.to_owned() + "1\r\nx", "x".repeat(100), LINE_BYTES_MAX),
        ];
        for (begin, more, bytes_max) in cases {
            let (written, error) = endless(&begin, &more).await;
            assert!(written <= bytes_max + SOCKET_BYTES, "{begin:?} {more:?}: {written} {error}");
            assert!(matches!(error, Http1Error::Malformed(_) | Http1Error::Unfit(_)), "{begin:?}: {error}");
        }
    }

    /// A head that comes in single bytes is parsed a few times, not once for each byte: that would take seconds.
    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_costs_no_more_than_its_bytes() {
        let answer = format!("HTTP/1.1 200 OK\r\na: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(60_000));
        let parsing = std::time::Instant::now();
        let mut response = [httparse::EMPTY_HEADER; HEADERS_MAX];
        for _ in 0..100 {
            httparse::Response::new(&mut response).parse(answer.as_bytes()).expect("a head");
        }
        let once = parsing.elapsed() / 100;
        let started = std::time::Instant::now();
        exchange(Method::GET, answer.as_bytes(), 1).await.expect("an answer");
        let took = started.elapsed();
        assert!(took < 10_000 * once + std::time::Duration::from_secs(2), "{took:?}, a parse takes {once:?}");
    }

    #[tokio::test]
    async fn a_worker_may_answer_before_it_has_read_the_body() {
        let (stream, mut peer) = UnixStream::pair().expect("a pair");
        let answering = tokio::spawn(async move {
            let mut begun = [0; 16];
            peer.read_exact(&mut begun).await.expect("the head comes");
            let body = vec![b'y'; 1 << 20];
            peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n").await.expect("the client reads");
            peer.write_all(&body).await.expect("the client reads");
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).await.expect("the client writes");
            begun.len() + rest.len()
        });
        let mut connection = WorkerConnection::new(socket(stream));
        let body = Bytes::from(vec![b'x'; 4 << 20]);
        connection.send(&Method::POST, "/", &HeaderMap::new(), &RequestBody::Whole(body)).await.expect("an answer");
        let mut total = 0;
        while let Some(chunk) = connection.chunk().await.expect("a body") {
            total += chunk.len();
        }
        assert_eq!(total, 1 << 20);
        assert_eq!(connection.state(), ConnectionState::Over, "the request was not written to its end");
        drop(connection);
        assert!(answering.await.expect("the peer ends") < 4 << 20);
    }

    /// A body that comes in these parts, and then ends or breaks off.
    #[derive(Debug)]
    struct Parts {
        length: Option<u64>,
        parts: parking_lot::Mutex<Vec<Result<Bytes, BodyBroken>>>,
    }

    impl IncomingBody for Parts {
        fn length(&self) -> Option<u64> {
            self.length
        }

        fn poll_chunk(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
            // A part that begins with `wait` makes its reader wait once.
            let mut parts = self.parts.lock();
            match parts.pop() {
                None => Poll::Ready(None),
                Some(Ok(bytes)) if bytes.starts_with(b"wait") => {
                    parts.push(Ok(bytes.slice(4..)));
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(part) => Poll::Ready(Some(part)),
            }
        }
    }

    /// Sends a body in parts to a peer that answers at its end; returns what the peer received.
    async fn upload(
        length: Option<u64>,
        parts: &[Option<&'static str>],
    ) -> Result<(String, ConnectionState), Http1Error> {
        let (stream, mut peer) = UnixStream::pair().expect("a pair");
        let parts = parts.iter().rev().map(|it| it.map(Bytes::from).ok_or(BodyBroken)).collect();
        let body = RequestBody::Incoming(Arc::new(Parts { length, parts: parking_lot::Mutex::new(parts) }));
        let ends = if length.is_some() { "hello world" } else { "0\r\n\r\n" };
        let peer = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(ends.as_bytes()) && peer.read_buf(&mut request).await.is_ok_and(|it| it > 0) {}
            let _ = peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            String::from_utf8(request).expect("text")
        });
        let mut connection = WorkerConnection::new(socket(stream));
        connection.send(&Method::POST, "/", &HeaderMap::new(), &body).await?;
        let state = connection.state();
        Ok((peer.await.expect("the peer ends"), state))
    }

    #[tokio::test]
    async fn a_body_is_written_as_it_comes_in() {
        let parts = [Some("waithello"), Some(" "), Some(""), Some("waitworld")];
        let (got, state) = upload(Some(11), &parts).await.expect("an answer");
        assert_eq!(
            (got.as_str(), state),
            ("POST / HTTP/1.1\r\ncontent-length: 11\r\n\r\nhello world", ConnectionState::Reusable)
        );
        let (got, state) = upload(None, &parts).await.expect("an answer");
        let chunks = "5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
        assert_eq!(got, format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(state, ConnectionState::Reusable);
        let (got, _) = upload(None, &[]).await.expect("an answer");
        assert!(got.ends_with("\r\n\r\n0\r\n\r\n"), "{got}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_request() {
        for length in [Some(11), None] {
            let outcome = upload(length, &[Some("waithello"), None]).await;
            assert!(matches!(outcome, Err(Http1Error::Request)), "{outcome:?}");
        }
    }

    /// Answers as Bun sends them, and some that it does not.
    const ANSWERS: [&str; 6] = [
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nDate: Sat, 21 Nov 2026 15:37:02 GMT\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nto the end",
    ];

    proptest! {
        /// A mutated answer, in any pieces, ends in an answer or an error, and its body has no more bytes than were
        /// sent.
        #[test]
        fn mutations_are_harmless(
            which in 0..ANSWERS.len(),
            edits in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>(), 0..5_u8), 0..8),
            cut in 1usize..50,
        ) {
            let mut answer = ANSWERS[which].as_bytes().to_vec();
            for (place, other, byte, how) in edits {
                let (place, other) = (usize::from(place) % (answer.len() + 1), usize::from(other) % (answer.len() + 1));
                let range = place.min(other)..place.max(other);
                match how {
                    0 => answer.insert(place, byte),
                    1 => drop(answer.drain(range)),
                    2 => answer.extend_from_within(range),
                    3 => answer.splice(place..place, b"\r\n".repeat(usize::from(byte) % 4)).for_each(drop),
                    _ => answer.splice(place..place, vec![b'9'; usize::from(byte)]).for_each(drop),
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            if let Ok((_, body, _)) = runtime.block_on(exchange(Method::GET, &answer, cut)) {
                prop_assert!(body.len() <= answer.len());
            }
        }
    }

    proptest! {
        /// Any bytes, in any pieces, end in an answer or an error.
        #[test]
        fn garbage_is_harmless(
            head in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..50,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let answer = [head.as_bytes(), &rest].concat();
            let _ = runtime.block_on(exchange(Method::GET, &answer, cut));
        }
    }
}
