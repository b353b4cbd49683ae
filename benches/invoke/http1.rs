//! An HTTP client for one kept-alive connection.

use crate::{Result, load::Caller};
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use httparse::Status;
use levain::protocol::worker::{DEADLINE_HEADER, INVOCATION_HEADER};
use std::{borrow::Cow, fmt, net::SocketAddr, path::Path};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf},
    net::{TcpStream, UnixStream},
};

/// Room made for one read; a large answer takes several reads.
const READ_BYTES: usize = 64 * 1024;

/// Invocation id for servers without a daemon.
const INVOCATION: &str = "exec-00000000-0000-7000-8000-000000000000";

/// A request that is sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Cow<'static, str>,
    pub(crate) body: Bytes,
    /// Least size of a correct answer's body, in bytes.
    pub(crate) answer_bytes_min: u64,
}

impl Call {
    /// A `GET` of a path.
    pub(crate) fn get(target: impl Into<Cow<'static, str>>) -> Self {
        Self { method: Method::GET, target: target.into(), body: Bytes::new(), answer_bytes_min: 2 }
    }
}

/// One kept-alive HTTP connection, with less to do than any real client: the request's bytes are ready, and only the
/// status and the end of the answer are looked at. Levain's peers are therefore not slowed down by their client.
pub(crate) struct HttpCaller {
    peer: String,
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    answer_bytes_min: u64,
    /// Bytes that are read but not yet consumed.
    buffer: BytesMut,
}

impl fmt::Debug for HttpCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpCaller({})", self.peer)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl HttpCaller {
    pub(crate) async fn connect(socket: &Path, call: &Call) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        Ok(Self::new(socket.display().to_string(), Box::new(stream), call))
    }

    pub(crate) async fn connect_tcp(address: SocketAddr, call: &Call) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(address.to_string(), Box::new(stream), call))
    }

    fn new(peer: String, stream: Box<dyn Stream>, call: &Call) -> Self {
        let Call { method, target, body, answer_bytes_min } = call;
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        request += &format!("{INVOCATION_HEADER}: {INVOCATION}\r\n{DEADLINE_HEADER}: 30000\r\n");
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        let request = [request.as_bytes(), body].concat();
        Self { peer, stream, request, answer_bytes_min: *answer_bytes_min, buffer: BytesMut::new() }
    }

    async fn exchange(&mut self) -> Result<()> {
        let (reader, mut writer) = io::split(&mut self.stream);
        let mut answer = Answer { reader, buffer: &mut self.buffer };
        // A server may answer while it still reads; a client that only writes could then wait for ever.
        let write = async { Ok(writer.write_all(&self.request).await?) };
        let ((), (status, bytes)) = tokio::try_join!(write, answer.read())?;
        match status {
            200 if bytes >= self.answer_bytes_min => Ok(()),
            status => Err(format!("the server answered {status} with {bytes} bytes").into()),
        }
    }
}

impl Caller for HttpCaller {
    async fn call(&mut self) -> Result<()> {
        self.exchange().await.map_err(|error| format!("{}: {error}", self.peer).into())
    }
}

struct Answer<'a> {
    reader: ReadHalf<&'a mut Box<dyn Stream>>,
    buffer: &'a mut BytesMut,
}

impl Answer<'_> {
    /// Reads to the answer's end, and returns its status and the number of bytes in its body.
    async fn read(&mut self) -> Result<(u16, u64)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let Status::Complete(head_bytes) = head.parse(self.buffer)? else {
                self.fill().await?;
                continue;
            };
            let status = head.code.unwrap_or_default();
            let length = head.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"));
            let length = length.map(|it| std::str::from_utf8(it.value)).transpose()?.map(str::parse).transpose()?;
            self.buffer.advance(head_bytes);
            let bytes = match length {
                Some(length) => self.skip(length).await?,
                None => self.skip_chunks().await?,
            };
            return Ok((status, bytes));
        }
    }

    async fn skip_chunks(&mut self) -> Result<u64> {
        let mut bytes = 0;
        loop {
            let size = httparse::parse_chunk_size(self.buffer).map_err(|_| "its answer has no length")?;
            let Status::Complete((line_bytes, size)) = size else {
                self.fill().await?;
                continue;
            };
            self.buffer.advance(line_bytes);
            bytes += size;
            // A line end follows each chunk, including the empty last one.
            self.skip(size + 2).await?;
            if size == 0 {
                return Ok(bytes);
            }
        }
    }

    async fn skip(&mut self, bytes: u64) -> Result<u64> {
        let mut left = bytes;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let taken = self.buffer.len().min(left as usize);
            self.buffer.advance(taken);
            left -= taken as u64;
        }
        Ok(bytes)
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.reader.read_buf(self.buffer).await? {
            0 => Err("it closed the connection".into()),
            _ => Ok(()),
        }
    }
}
