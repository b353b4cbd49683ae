//! Frames of the command protocol.
//!
//! ```text
//! u32 length (of the rest) | u64 request_id | u8 command or status | u32 payload_length | payload
//! ```
//!
//! All numbers are little-endian. `length` counts the request id, the tag, the payload length and the payload, so it is
//! always `payload_length + 13`; a frame in which the two disagree is malformed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a frame before the payload.
pub const HEADER_BYTES: usize = 17;

/// Bytes that `length` counts besides the payload.
pub const COUNTED_HEADER_BYTES: usize = 13;

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Id chosen by the client; the answer carries the same id.
    pub request_id: u64,
    /// Command byte of a request, or status byte of an answer.
    pub tag: u8,
    /// A MessagePack map or a JSON object.
    pub payload: Bytes,
}

/// Bytes that cannot be a frame. The connection must be closed, because the start of the next frame is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is over the limit.
    #[error("the frame has {found} bytes and the limit is {max}; send less, or raise limits.frame_bytes_max")]
    TooLarge {
        /// The request that the frame belongs to, if its id has arrived.
        request_id: u64,
        /// Bytes announced.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The two lengths contradict each other.
    #[error("malformed frame: length is {length}, which is not payload_length ({payload_length}) + 13")]
    LengthMismatch {
        /// The request that the frame belongs to.
        request_id: u64,
        /// The frame's `length`.
        length: u32,
        /// The frame's `payload_length`.
        payload_length: u32,
    },
}

impl FrameError {
    /// Returns the request id for the error answer to this frame.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        match *self {
            Self::TooLarge { request_id, .. } | Self::LengthMismatch { request_id, .. } => request_id,
        }
    }
}

/// Removes the first frame from `buffer` and returns it if the frame is complete. `bytes_max` bounds the announced
/// `length`.
///
/// When the header has arrived but the rest has not, the buffer reserves room for the whole frame.
pub fn decode(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buffer[..HEADER_BYTES];
    let length = header.get_u32_le();
    let request_id = header.get_u64_le();
    let tag = header.get_u8();
    let payload_length = header.get_u32_le();
    if length as usize > bytes_max {
        return Err(FrameError::TooLarge { request_id, found: length as usize, max: bytes_max });
    }
    if length.checked_sub(COUNTED_HEADER_BYTES as u32) != Some(payload_length) {
        return Err(FrameError::LengthMismatch { request_id, length, payload_length });
    }
    let total = HEADER_BYTES + payload_length as usize;
    if buffer.len() < total {
        buffer.reserve(total - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(payload_length as usize).freeze();
    Ok(Some(Frame { request_id, tag, payload }))
}

/// Appends a frame to `out`.
///
/// # Panics
/// When the payload is 4 GiB or larger, which no limit allows.
pub fn encode(request_id: u64, tag: u8, payload: &[u8], out: &mut BytesMut) {
    out.reserve(HEADER_BYTES + payload.len());
    encode_header(request_id, tag, payload.len(), out);
    out.put_slice(payload);
}

/// Appends the header of a frame whose payload has this length.
///
/// # Panics
/// When the length is 4 GiB or more, which no limit allows.
pub fn encode_header(request_id: u64, tag: u8, payload_bytes: usize, out: &mut BytesMut) {
    let payload_length = u32::try_from(payload_bytes).expect("payloads are bounded far below 4 GiB");
    out.reserve(HEADER_BYTES);
    out.put_u32_le(payload_length + COUNTED_HEADER_BYTES as u32);
    out.put_u64_le(request_id);
    out.put_u8(tag);
    out.put_u32_le(payload_length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let mut out = BytesMut::new();
        encode(0x0102_0304_0506_0708, 0x0F, b"{}", &mut out);
        let expected = b"\x0f\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x0f\x02\0\0\0{}";
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn lengths_that_disagree_and_frames_over_the_limit_are_refused() {
        let mut out = BytesMut::new();
        encode(7, 1, b"{}", &mut out);
        out[0] += 1;
        assert!(matches!(decode(&mut out, MAX), Err(FrameError::LengthMismatch { request_id: 7, .. })));
        let mut out = BytesMut::new();
        encode(7, 1, &[0; 100], &mut out);
        assert!(matches!(decode(&mut out, 112), Err(FrameError::TooLarge { request_id: 7, found: 113, max: 112 })));
        assert!(decode(&mut out, 113).is_ok_and(|it| it.is_some()));
    }

    proptest! {
        /// Frames decode the same however the bytes are cut.
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec((any::<u64>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 1..8),
            cut in 1usize..64,
        ) {
            let mut stream = BytesMut::new();
            for (request_id, tag, payload) in &frames {
                encode(*request_id, *tag, payload, &mut stream);
            }
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decode(&mut buffer, MAX).expect("these frames are whole") {
                    got.push((frame.request_id, frame.tag, frame.payload.to_vec()));
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(got, frames);
        }

        /// Garbage decodes to a frame, a wait for more bytes or an error, never to more bytes than came in.
        #[test]
        fn garbage_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            if let Ok(Some(frame)) = decode(&mut buffer, 4096) {
                prop_assert!(frame.payload.len() + HEADER_BYTES <= bytes.len());
            }
        }
    }
}
