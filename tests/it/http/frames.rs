//! An HTTP/2 client that sends whatever a test asks for, byte by byte (RFC 9113).

use std::{collections::HashMap, mem, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Time limit for a frame of the daemon.
const PATIENCE: Duration = Duration::from_secs(20);

/// Encodes a frame (section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes one setting (section 6.5.1).
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Encodes a header as a literal without indexing (RFC 7541, section 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(text.len(), &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Encodes a length behind a clear first bit (RFC 7541, section 5.1).
pub fn integer(mut number: usize, into: &mut Vec<u8>) {
    if number < 127 {
        return into.push(number as u8);
    }
    into.push(127);
    number -= 127;
    while number >= 128 {
        into.push(number as u8 | 128);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Encodes the header list of a request, and further headers.
pub fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)];
    pseudo.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
}

/// Encodes a whole request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", path, &[]))
}

/// A received frame.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or RST_STREAM.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// State of a connection at the end of a test.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Error code of the last GOAWAY.
    pub goaway: Option<u32>,
    /// Streams that were reset, with their error codes.
    pub resets: Vec<(u32, u32)>,
    /// Streams that were answered with a head.
    pub answered: Vec<u32>,
    /// Whether the daemon has closed the connection.
    pub is_closed: bool,
}

/// The HTTP/2 client.
pub struct Peer {
    stream: TcpStream,
    seen: Vec<u8>,
    /// Initial window of streams, and the difference from it for each stream and the connection as a whole (section
    /// 5.2).
    window: i64,
    windows: HashMap<u32, i64>,
    /// Whether settings of the daemon await an acknowledgement, before which it does not apply them (section 6.5.3).
    is_asked: bool,
}

/// Outcome of an upload.
pub struct Sent {
    pub bytes: usize,
    /// Frames received meanwhile.
    pub seen: Vec<Frame>,
}

/// Initial window of a stream and of the connection (section 6.9.2).
const WINDOW: i64 = 65_535;

impl Peer {
    /// Connects without sending anything.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, seen: Vec::new(), window: WINDOW, windows: HashMap::new(), is_asked: false }
    }

    /// Connects and sends the preface and these settings.
    pub async fn begin(address: SocketAddr, settings: &[u8]) -> Self {
        let mut peer = Self::connect(address).await;
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        peer
    }

    /// Sends bytes until the daemon closes the connection or takes none for a while, and returns the number sent.
    pub async fn send(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match timeout(Duration::from_secs(2), self.stream.write(&bytes[sent..])).await {
                Ok(Ok(some)) if some > 0 => sent += some,
                _ => break,
            }
        }
        sent
    }

    /// Sends a body within the daemon's windows, until the daemon grants no more for this long.
    pub async fn upload(&mut self, stream: u32, bytes: usize, patience: Duration) -> Sent {
        let mut sent = Sent { bytes: 0, seen: Vec::new() };
        while sent.bytes < bytes {
            if mem::take(&mut self.is_asked) {
                self.send(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            let mut of = |stream| *self.windows.entry(stream).or_default();
            let room = (WINDOW + of(0)).min(self.window + of(stream)).clamp(0, 16_384) as usize;
            let some = room.min(bytes - sent.bytes);
            if some > 0 {
                sent.bytes += some;
                let flags = if sent.bytes == bytes { END_STREAM } else { 0 };
                self.send(&frame(DATA, flags, stream, &vec![b'x'; some])).await;
                for window in [0, stream] {
                    *self.windows.entry(window).or_default() -= some as i64;
                }
                continue;
            }
            let Ok(Some(frame)) = timeout(patience, self.next()).await else { break };
            let is_reset = frame.kind == RST_STREAM && frame.stream == stream;
            sent.seen.push(frame);
            if is_reset {
                break;
            }
        }
        sent
    }

    fn note(&mut self, frame: &Frame) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match frame.kind {
            WINDOW_UPDATE => *self.windows.entry(frame.stream).or_default() += number(&frame.payload),
            SETTINGS if frame.flags & ACK == 0 => {
                // INITIAL_WINDOW_SIZE.
                let sizes = frame.payload.chunks(6).filter(|it| it[..2] == [0, 4]);
                sizes.for_each(|it| self.window = number(&it[2..]));
                self.is_asked = true;
            }
            _ => {}
        }
    }

    /// The next frame, or `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(header) = self.seen.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                if self.seen.len() >= 9 + length {
                    let (kind, flags) = (header[3], header[4]);
                    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
                    let payload = self.seen[9..9 + length].to_vec();
                    self.seen.drain(..9 + length);
                    let frame = Frame { kind, flags, stream, payload };
                    self.note(&frame);
                    return Some(frame);
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.seen))
                .await
                .expect("the daemon sends a frame in time");
            if !matches!(read, Ok(some) if some > 0) {
                return None;
            }
        }
    }

    /// Collects frames until the daemon closes the connection, or answers a PING that is sent now and so goes on.
    pub async fn outcome(&mut self) -> End {
        self.send(&frame(PING, 0, 0, b"the end?")).await;
        let mut end = End::default();
        while let Some(frame) = self.next().await {
            match frame.kind {
                GOAWAY => end.goaway = Some(frame.code()),
                RST_STREAM => end.resets.push((frame.stream, frame.code())),
                HEADERS => end.answered.push(frame.stream),
                PING if frame.flags == ACK && frame.payload == b"the end?" => return end,
                _ => {}
            }
        }
        end.is_closed = true;
        end
    }

    /// The frames of one stream up to its end.
    pub async fn answer(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            if frame.stream != stream {
                continue;
            }
            let is_last = frame.kind == RST_STREAM || frame.flags & END_STREAM != 0 && frame.kind <= HEADERS;
            frames.push(frame);
            if is_last {
                break;
            }
        }
        frames
    }
}
