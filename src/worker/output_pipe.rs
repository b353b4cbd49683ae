//! The reading end of a pipe, which can be unwatched for a while.
//!
//! A runtime is notified of each write to a pipe that it watches, even when nobody reads: a worker that writes single
//! bytes would still keep it busy. A shut tap is not watched, and its writer waits once the pipe is full.

use std::{future, io, os::fd::OwnedFd};
use tokio::net::unix::pipe;

/// The reading end of a pipe.
#[derive(Debug)]
pub(super) enum OutputPipe {
    Open(pipe::Receiver),
    Shut(OwnedFd),
    /// The pipe could not be opened or shut.
    Gone,
}

impl OutputPipe {
    /// Waits until there is something to read, or until the end of the stream. Waits for ever while shut.
    pub(super) async fn readable(&self) {
        match self {
            Self::Open(pipe) => drop(pipe.readable().await),
            Self::Shut(_) | Self::Gone => future::pending().await,
        }
    }

    /// Reads the data that the runtime knows of. Returns 0 at the end of the stream.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Open(pipe) => pipe.try_read(buffer),
            Self::Shut(_) | Self::Gone => self.read(buffer),
        }
    }

    /// Reads the available data, whether or not the runtime was notified of it.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Open(pipe) => Ok(nix::unistd::read(pipe, buffer)?),
            Self::Shut(pipe) => Ok(nix::unistd::read(pipe, buffer)?),
            Self::Gone => Ok(0),
        }
    }

    /// Stops watching the pipe.
    pub(super) fn shut(&mut self) {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Open(pipe) => pipe.into_nonblocking_fd().map_or(Self::Gone, Self::Shut),
            other => other,
        };
    }

    /// Watches the pipe again.
    pub(super) fn open(&mut self) {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Shut(pipe) => pipe::Receiver::from_owned_fd(pipe).map_or(Self::Gone, Self::Open),
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{io::AsyncWriteExt, time::timeout};

    #[tokio::test]
    async fn what_was_written_while_it_was_shut_is_read_when_it_is_open() {
        let (mut writer, reader) = pipe::pipe().expect("a pipe");
        let mut tap = OutputPipe::Open(reader);
        let mut buffer = [0; 8];
        let read = |tap: &OutputPipe, buffer: &mut [u8]| tap.try_read(buffer).map_err(|error| error.kind());
        tap.shut();
        tap.shut();
        writer.write_all(b"abc").await.expect("there is room");
        assert!(timeout(Duration::from_millis(20), tap.readable()).await.is_err());
        assert_eq!((read(&tap, &mut buffer[..1]), buffer[0]), (Ok(1), b'a'), "it can be read all the same");
        tap.open();
        tap.open();
        timeout(Duration::from_secs(10), tap.readable()).await.expect("something is there");
        assert_eq!((read(&tap, &mut buffer), &buffer[..2]), (Ok(2), &b"bc"[..]));
        tap.shut();
        assert_eq!(read(&tap, &mut buffer), Err(io::ErrorKind::WouldBlock));
        drop(writer);
        tap.open();
        timeout(Duration::from_secs(10), tap.readable()).await.expect("the end is there");
        assert_eq!(read(&tap, &mut buffer), Ok(0));
    }
}
