//! Outgoing frames of one connection.

use crate::protocol::frame;
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
};
use tokio::io::AsyncWrite;

/// Size from which a payload is written without being copied; smaller ones are gathered in one buffer.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Most pieces in one write.
const SLICES_MAX: usize = 16;

/// Initial size of the buffer; a buffer that has grown beyond the second number is replaced.
const BUFFER_BYTES: usize = 8 * 1024;
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// Bytes to write, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Complete pieces.
    pieces: VecDeque<Bytes>,
    /// The piece under construction, after all others.
    tail: BytesMut,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { pieces: VecDeque::new(), tail: BytesMut::with_capacity(BUFFER_BYTES), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Number of unsent bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, request_id: u64, status: u8, payload: Bytes) {
        self.bytes += frame::HEADER_BYTES + payload.len();
        if payload.len() < COPY_BYTES_MAX {
            frame::encode(request_id, status, &payload, &mut self.tail);
        } else {
            frame::encode_header(request_id, status, payload.len(), &mut self.tail);
            self.pieces.push_back(self.tail.split().freeze());
            self.pieces.push_back(payload);
        }
    }

    /// Writes some of the unsent bytes.
    pub(super) async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let written = std::future::poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
            let count = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            Pin::new(&mut *writer).poll_write_vectored(context, &slices[..count])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.take(written);
        Ok(())
    }

    fn take(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(piece) = self.pieces.front_mut() {
            let of_piece = written.min(piece.len());
            piece.advance(of_piece);
            written -= of_piece;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(written);
        if self.tail.is_empty() && self.tail.capacity() > BUFFER_KEPT_BYTES {
            self.tail = BytesMut::with_capacity(BUFFER_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn frames_of_all_sizes_arrive_whole_and_in_order() {
        let mut outbox = Outbox::new();
        let mut expected = BytesMut::new();
        for (id, size) in [3, COPY_BYTES_MAX, 0, 200_000, COPY_BYTES_MAX - 1, 5].into_iter().enumerate() {
            let payload = Bytes::from(vec![id as u8; size]);
            frame::encode(id as u64, 2, &payload, &mut expected);
            outbox.push(id as u64, 2, payload);
        }
        assert_eq!(outbox.len(), expected.len());
        // Too small for any write to take all the bytes.
        let (mut writer, mut reader) = tokio::io::duplex(1_000);
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.expect("bytes");
            got
        });
        while !outbox.is_empty() {
            outbox.write(&mut writer).await.expect("somebody reads");
        }
        drop(writer);
        assert_eq!(reading.await.expect("the reader"), expected);
    }
}
