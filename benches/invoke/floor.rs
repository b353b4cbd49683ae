//! Floors: bytes between two processes that do nothing with them, and a process that only uses up a processor.
//!
//! The other process is this program again, started with a hidden argument.

use crate::{
    Result,
    load::Caller,
    process::{self, Running},
};
use bytes::{Bytes, BytesMut};
use levain::protocol::{
    frame::{self, Frame},
    ipc,
};
use std::{
    env,
    io::{ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream as BlockingStream},
    path::Path,
    process::{Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// Answers on its standard input, a socket.
const SERVE_PAIR: &str = "--serve-pair";

/// Answers frames on a Unix socket.
const SERVE_FRAMES: &str = "--serve-frames";

/// Uses a processor up until its standard input ends.
const BURN: &str = "--burn";

/// Largest frame that the two ends accept.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Sizes of an invocation's request and answer, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes of the request's payload.
    pub(crate) request: usize,
    /// Bytes of the answer's payload.
    pub(crate) answer: usize,
}

/// Plays the other process, if the arguments ask for it.
pub(crate) fn serve_if_asked() -> Option<Result<()>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [SERVE_PAIR, request, answer] => Some(serve_pair(request, answer)),
        [SERVE_FRAMES, answer, socket] => Some(serve_frames(answer, Path::new(socket))),
        [BURN] => Some(burn()),
        _ => None,
    }
}

fn peer(arguments: &[&str], stdin: Stdio) -> Result<Running> {
    let mut command = Command::new(env::current_exe()?);
    Ok(Running::spawn(command.args(arguments).stdin(stdin))?)
}

/// Minimal hop between processes: blocking reads and writes on a socket pair.
#[derive(Debug)]
pub(crate) struct Pair {
    stream: BlockingStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    _peer: Running,
}

impl Pair {
    pub(crate) fn start(sizes: Sizes) -> Result<Self> {
        let (request, answer) = (frame::HEADER_BYTES + sizes.request, frame::HEADER_BYTES + sizes.answer);
        let (stream, theirs) = BlockingStream::pair()?;
        let arguments = [SERVE_PAIR, &request.to_string(), &answer.to_string()];
        let peer = peer(&arguments, Stdio::from(std::os::fd::OwnedFd::from(theirs)))?;
        Ok(Self { stream, request: vec![1; request], answer: vec![0; answer], _peer: peer })
    }
}

impl Caller for Pair {
    async fn call(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        Ok(self.stream.read_exact(&mut self.answer)?)
    }
}

fn serve_pair(request: &str, answer: &str) -> Result<()> {
    let (mut request, answer) = (vec![0; request.parse()?], vec![1; answer.parse()?]);
    let mut stream = BlockingStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    loop {
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(&answer)?;
    }
}

/// Hop between a client and a daemon: the daemon's frames, both ends asynchronous, payloads never looked at.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: UnixStream,
    buffer: BytesMut,
    request: Bytes,
    last_id: u64,
    _peer: Running,
}

impl Frames {
    /// Starts the peer; `socket` is a path that does not exist yet.
    pub(crate) async fn start(sizes: Sizes, socket: &Path) -> Result<Self> {
        let path = socket.to_str().ok_or("the temporary directory's name is not UTF-8")?;
        let peer = peer(&[SERVE_FRAMES, &sizes.answer.to_string(), path], Stdio::null())?;
        let stream = process::retry(|| UnixStream::connect(socket)).await?;
        let request = vec![0; sizes.request].into();
        Ok(Self { stream, buffer: BytesMut::new(), request, last_id: 0, _peer: peer })
    }
}

impl Caller for Frames {
    async fn call(&mut self) -> Result<()> {
        self.last_id += 1;
        let mut out = BytesMut::new();
        frame::encode(self.last_id, 0x01, &self.request, &mut out);
        self.stream.write_all(&out).await?;
        match next_frame(&mut self.stream, &mut self.buffer).await? {
            Some(frame) if frame.request_id == self.last_id => Ok(()),
            other => Err(format!("unexpected frame: {other:?}").into()),
        }
    }
}

async fn next_frame(stream: &mut UnixStream, buffer: &mut BytesMut) -> Result<Option<Frame>> {
    loop {
        if let Some(frame) = frame::decode(buffer, FRAME_BYTES_MAX)? {
            return Ok(Some(frame));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn serve_frames(answer: &str, socket: &Path) -> Result<()> {
    let answer = vec![0; answer.parse()?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut stream, _) = UnixListener::bind(socket)?.accept().await?;
        let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
        while let Some(frame) = next_frame(&mut stream, &mut buffer).await? {
            frame::encode(frame.request_id, ipc::SUCCESS, &answer, &mut out);
            stream.write_all_buf(&mut out).await?;
        }
        Ok(())
    })
}

/// A process that only burns CPU time, as any other program on the machine might.
#[derive(Debug)]
pub(crate) struct Burner(#[expect(dead_code, reason = "the process burns until this is dropped")] Running);

impl Burner {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self(peer(&[BURN], Stdio::piped())?))
    }
}

fn burn() -> Result<()> {
    // Runs in a session of its own, as workers do: the kernel may share the processors out among sessions.
    nix::unistd::setsid()?;
    let waits = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !waits.is_finished() {}
    Ok(())
}
