//! A connected Unix stream socket that wakes its owner only when there is something to read.
//!
//! tokio's own streams are registered for reading and writing from the start. On a Unix socket each read by the peer
//! makes room, and would wake a process that has nothing to write and is waiting for the answer: two needless wake-ups
//! for each invocation, one of them on the way of the answer. This socket is registered for writing only after a write
//! has found no room, which happens only with large messages and slow readers.

mod path;

pub use path::{SOCKET_PATH_BYTES_MAX, ShortPath};

use bytes::BytesMut;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use std::{
    future::poll_fn,
    io::{self, IoSlice, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncWrite, Interest, unix::AsyncFd};

/// Event on a socket since the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// No event.
    None,
    /// Bytes have arrived.
    Bytes,
    /// The peer has closed it.
    End,
}

/// A connected stream, used from the runtime in which it was created: another would be woken across threads.
#[derive(Debug)]
pub struct Socket {
    stream: AsyncFd<UnixStream>,
    /// Duplicate of the descriptor, registered for writing. It is kept once it exists, since a peer that has been slow
    /// will be slow again.
    writable: OnceLock<AsyncFd<UnixStream>>,
}

impl Socket {
    /// Takes over a connected stream. Must be called within a runtime.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: register(stream, Interest::READABLE)?, writable: OnceLock::new() })
    }

    /// Reads into the spare capacity of `buffer`, which must have some. Returns 0 when the peer sends no more.
    pub fn poll_read(&self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.capacity() - buffer.len();
            match receive(self.stream.get_ref(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Ok(received) => {
                    // A read that does not fill the room has taken everything; another one would only find that out.
                    if received < room {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads into the spare capacity of `buffer`, which must have some. Returns 0 when the peer sends no more.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// Reads what has arrived, whether or not the runtime knows of it. Fails with `WouldBlock` if nothing has.
    pub fn read_now(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        receive(self.stream.get_ref(), buffer)
    }

    /// Returns what has arrived unread, as far as the runtime knows: a system call is made only if the runtime has seen
    /// an event.
    #[must_use]
    pub fn news(&self) -> News {
        let peek = |stream: &UnixStream| Ok(recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?);
        match self.stream.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => News::None,
            Ok(0) | Err(_) => News::End,
            Ok(_) => News::Bytes,
        }
    }

    /// Writes some of the slices' bytes.
    pub fn poll_write(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let Some(writable) = self.writable.get() else {
                match self.try_write(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let stream = self.stream.get_ref().try_clone()?;
                        let _ = self.writable.set(register(stream, Interest::WRITABLE)?);
                        continue;
                    }
                    outcome => return Poll::Ready(outcome),
                }
            };
            let mut guard = ready!(writable.poll_write_ready(context))?;
            match self.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Ok(written) => {
                    if written < slices.iter().map(|it| it.len()).sum() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.stream.get_ref();
        let mut full = slices.iter().filter(|it| !it.is_empty());
        match (full.next(), full.next()) {
            (Some(only), None) => Ok(send(stream.as_raw_fd(), only, MsgFlags::MSG_NOSIGNAL)?),
            _ => (&*stream).write_vectored(slices),
        }
    }

    /// Whether the peer has closed the whole socket, not only its sending side.
    pub fn is_peer_gone(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO)?;
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        Ok(events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }
}

#[allow(unsafe_code, reason = "the descriptor must stay what it is while it is registered")]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a stream of the standard library owns its descriptor and always gives the same one.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

#[allow(unsafe_code, reason = "bytes are received into memory that is not initialised yet")]
fn receive(stream: &UnixStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let room = buffer.spare_capacity_mut();
    // SAFETY: at most `room.len()` bytes are written to `room`, which nothing else refers to.
    let received = unsafe { libc::recv(stream.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the system has written that many bytes behind those that were there.
    unsafe { buffer.set_len(buffer.len() + received) };
    Ok(received)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

impl AsyncWrite for &Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write(*self, context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_write(*self, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};
    use tokio::io::AsyncWriteExt;

    fn pair() -> (Socket, Socket) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Socket::new(one).expect("a runtime"), Socket::new(other).expect("a runtime"))
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("it does not hang")
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_whole() {
        let (writer, reader) = pair();
        let sent: Vec<u8> = (0..5_000_000_u32).map(|it| it as u8).collect();
        // In its own task, which only the socket's readiness wakes.
        let (bytes, writing) = (sent.clone(), Arc::new(writer));
        let writer = Arc::clone(&writing);
        let writes = tokio::spawn(async move {
            let mut writing = &*writing;
            for half in bytes.chunks(bytes.len() / 2) {
                writing.write_all(half).await.expect("somebody reads");
            }
            writing.shutdown().await.expect("it is connected");
        });
        let read = async {
            let mut got = BytesMut::new();
            loop {
                got.reserve(10_000);
                if reader.read(&mut got).await.expect("it is connected") == 0 {
                    return got;
                }
            }
        };
        let got = soon(read).await;
        writes.await.expect("all was written");
        assert!(got == sent);
        assert!(writer.writable.get().is_some(), "it had to wait, so it was registered");
        assert!(reader.writable.get().is_none());
    }

    #[tokio::test]
    async fn messages_come_one_by_one_and_small_ones_register_nothing() {
        let (one, other) = pair();
        let mut got = BytesMut::with_capacity(64);
        for number in 0..100_u8 {
            let (message, mut writer) = ([number; 3], &one);
            let (read, written) = soon(async { tokio::join!(other.read(&mut got), writer.write_all(&message)) }).await;
            assert_eq!((read.expect("it is connected"), written.is_ok()), (3, true));
            assert_eq!(got[..], [number; 3]);
            got.clear();
        }
        assert!(one.writable.get().is_none());
    }

    #[tokio::test]
    async fn what_comes_between_reads_is_news() {
        let (one, other) = pair();
        let mut got = BytesMut::with_capacity(8);
        assert_eq!(other.news(), News::None);
        (&one).write_all(b"expected").await.expect("it is connected");
        assert_eq!(soon(other.read(&mut got)).await.expect("it is connected"), 8);
        assert_eq!(other.news(), News::None, "a read that fills its buffer may have left something, and has not");
        (&one).write_all(b"more").await.expect("it is connected");
        // The runtime learns of it at its next poll, which precedes every later event.
        tokio::time::sleep(Duration::ZERO).await;
        assert_eq!((other.news(), other.news()), (News::Bytes, News::Bytes), "looking is not reading");
        got.clear();
        assert_eq!(soon(other.read(&mut got)).await.expect("it is connected"), 4);
        assert_eq!(other.news(), News::None);
        drop(one);
        tokio::time::sleep(Duration::ZERO).await;
        assert_eq!(other.news(), News::End);
    }

    #[tokio::test]
    async fn half_and_whole_closes_are_told_apart() {
        let (one, other) = pair();
        let mut got = BytesMut::with_capacity(8);
        (&one).shutdown().await.expect("it is connected");
        assert_eq!(soon(other.read(&mut got)).await.expect("an end"), 0);
        assert!(!other.is_peer_gone().expect("a socket"));
        drop(one);
        assert!(other.is_peer_gone().expect("a socket"));
    }
}
