//! Encodings of payloads: JSON and MessagePack.
//!
//! A type's code for serde exists once, for a reader or writer behind a pointer, and not once per encoding: with 50
//! commands this saves megabytes of machine code. Only an invocation, whose time matters, is read and written directly.

use super::field;
use crate::error::Error;
use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;
use serde_path_to_error::Track;
use std::borrow::Cow;

/// Capacity for the fields of most payloads, without their body, in bytes.
const FIELDS_BYTES: usize = 768;

/// Encoding of a payload. An answer uses the encoding of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON object; bodies are base64 strings.
    Json,
    /// A MessagePack map with field names as keys; bodies are `bin`.
    MessagePack,
}

/// Reads one value from any reader, and keeps it.
type Read<'a, 'de> = dyn FnMut(&mut dyn erased_serde::Deserializer<'de>) -> Result<(), erased_serde::Error> + 'a;

impl Encoding {
    /// Detects the encoding from the payload's first byte. An empty payload counts as an empty JSON object.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        match payload.first() {
            None | Some(b'{') => Self::Json,
            Some(_) => Self::MessagePack,
        }
    }

    /// Writes a payload.
    pub fn write(self, value: &dyn erased_serde::Serialize) -> Result<Vec<u8>, Error> {
        self.write_directly(value, 0)
    }

    /// Writes a payload that holds a body of about `body_bytes` with code of its own for the type. The buffer has that
    /// capacity from the start, so it does not grow.
    pub fn write_directly<T: Serialize + ?Sized>(self, value: &T, body_bytes: usize) -> Result<Vec<u8>, Error> {
        match self {
            Self::Json => {
                // Base64 encodes three bytes as four.
                let mut payload = Vec::with_capacity(FIELDS_BYTES + body_bytes / 3 * 4);
                serde_json::to_writer(&mut payload, value).map_err(Error::internal)?;
                Ok(payload)
            }
            Self::MessagePack => {
                let mut payload = Vec::with_capacity(FIELDS_BYTES + body_bytes);
                rmp_serde::encode::write_named(&mut payload, value).map_err(Error::internal)?;
                Ok(payload)
            }
        }
    }

    /// Reads a payload. Large bodies in it share its memory.
    pub fn read_shared<T: DeserializeOwned>(self, payload: &Bytes) -> Result<T, Error> {
        field::sharing(payload, |payload| self.read(payload))
    }

    /// Reads a payload.
    pub fn read<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, Error> {
        let mut value = None;
        self.read_with(payload, &mut |reader| {
            value = Some(erased_serde::deserialize(reader)?);
            Ok(())
        })?;
        value.ok_or_else(|| Error::internal("a payload was read without a value"))
    }

    /// Reads a payload with code of its own for the type.
    pub(super) fn read_directly<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, Error> {
        let value = match self {
            Self::Json => serde_json::from_slice(payload).ok(),
            Self::MessagePack if is_map(payload) => {
                let mut reader = message_pack(payload);
                T::deserialize(&mut reader).ok().filter(|_| is_at_end(&mut reader))
            }
            Self::MessagePack => None,
        };
        // A payload that cannot be read is read again, for the error.
        value.map_or_else(|| self.read(payload), Ok)
    }

    fn read_with<'de>(self, payload: &'de [u8], read: &mut Read<'_, 'de>) -> Result<(), Error> {
        let payload = if payload.is_empty() { b"{}" } else { payload };
        match self {
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_slice(payload);
                let value = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(&mut reader));
                let Err(error) =
                    value.map_err(|it| it.to_string()).and_then(|()| reader.end().map_err(|it| it.to_string()))
                else {
                    return Ok(());
                };
                let mut track = Track::new();
                let mut again = serde_json::Deserializer::from_slice(payload);
                let tracked = serde_path_to_error::Deserializer::new(&mut again, &mut track);
                let is_read = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(tracked)).is_ok();
                Err(unreadable(&error, track, is_read))
            }
            Self::MessagePack => {
                if !is_map(payload) {
                    return Err(Error::invalid("payload: expected a JSON object or a MessagePack map"));
                }
                let mut reader = message_pack(payload);
                let Err(error) = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(&mut reader)) else {
                    return match is_at_end(&mut reader) {
                        true => Ok(()),
                        false => Err(Error::invalid("payload: bytes follow the MessagePack map")),
                    };
                };
                let mut track = Track::new();
                let mut again = message_pack(payload);
                let tracked = serde_path_to_error::Deserializer::new(&mut again, &mut track);
                let is_read = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(tracked)).is_ok();
                Err(unreadable(&error.to_string(), track, is_read))
            }
        }
    }
}

/// Deepest nesting of a payload, unknown fields included. A deeper payload would need more stack than a thread has.
const MESSAGE_PACK_DEPTH_MAX: usize = 64;

type MessagePackReader<'de> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'de, [u8]>>;

fn message_pack(payload: &[u8]) -> MessagePackReader<'_> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    reader.set_max_depth(MESSAGE_PACK_DEPTH_MAX);
    reader
}

fn is_map(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

/// Whether the map that was read is the last value in the payload.
fn is_at_end(reader: &mut MessagePackReader<'_>) -> bool {
    matches!(IgnoredAny::deserialize(reader), Err(rmp_serde::decode::Error::InvalidMarkerRead(_)))
}

/// Reads a value from the fields of a JSON object.
pub(super) fn read_fields<T: DeserializeOwned>(fields: &Value) -> Result<T, Error> {
    let mut value = None;
    let mut read = |reader: &mut dyn erased_serde::Deserializer<'_>| {
        value = Some(erased_serde::deserialize(reader)?);
        Ok(())
    };
    fields_with(fields, &mut read)?;
    value.ok_or_else(|| Error::internal("fields were read without a value"))
}

fn fields_with<'de>(fields: &'de Value, read: &mut Read<'_, 'de>) -> Result<(), Error> {
    let Err(error) = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(fields)) else { return Ok(()) };
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(fields, &mut track);
    let is_read = read(&mut <dyn erased_serde::Deserializer<'de>>::erase(tracked)).is_ok();
    Err(unreadable(&error.to_string(), track, is_read))
}

/// Builds the error for a payload that cannot be read. The message names the field, which a second reading has found,
/// and leaves out its value, which may be a secret.
fn unreadable(what: &str, track: Track, is_read: bool) -> Error {
    // rmp-serde would show the marker byte, and a small number is part of its marker.
    let what = if what.starts_with("wrong msgpack marker ") { "invalid type" } else { what };
    let path = if is_read { ".".to_owned() } else { track.path().to_string() };
    let field = match path.as_str() {
        "." => String::new(),
        path => format!("`{}`: ", path.chars().take(FIELD_CHARS_MAX).collect::<String>()),
    };
    Error::invalid(format!("payload: {field}{}", without_value(what)))
}

/// Longest part of a field's path that a message shows, in characters.
const FIELD_CHARS_MAX: usize = 200;

/// Removes the value from serde's message, such as ``invalid type: string "hunter22", expected a boolean``.
fn without_value(what: &str) -> Cow<'_, str> {
    let begins = ["invalid type: ", "invalid value: ", "unknown variant "];
    let Some(begin) = begins.into_iter().find(|begin| what.starts_with(begin)) else { return what.into() };
    // A value may contain `, expected`, but the expectation does not, so the last one counts.
    let (said, expected) = what.rsplit_once(", expected ").unwrap_or((what, "something else"));
    let kind = said[begin.len().min(said.len())..].split(['`', '"']).next().unwrap_or_default();
    format!("{}, expected {expected}", format!("{begin}{kind}").trim_end()).into()
}

#[cfg(test)]
mod tests {
    use crate::protocol::ipc::Request;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_payload_is_said_without_what_stood_there() {
        let said = |payload: &[u8]| Request::decode(0x2D, payload).expect_err("the request is invalid").message;
        let cases = [
            (json!({"key": "N", "value": 123_456_789}), "payload: `value`: invalid type: integer, expected a string"),
            (json!({"value": [1.5]}), "payload: `value`: invalid type: sequence, expected a string"),
            (
                json!({"is_secret": "a\", expected `b"}),
                "payload: `is_secret`: invalid type: string, expected a boolean",
            ),
            (json!({"variables": "S=hunter22"}), "payload: `variables`: invalid type: string, expected a sequence"),
            (
                json!({"variables": [{"key": "A"}, {"key": "A", "value": true}]}),
                "payload: `variables[1].value`: invalid type: boolean, expected a string",
            ),
            (
                json!({"variables": [{"key": "A", "from_generation": -123_456_789}]}),
                "payload: `variables[0].from_generation`: invalid value: integer, expected u32",
            ),
            (json!({"variables": [{}]}), "payload: `variables[0]`: missing field `key`"),
        ];
        for (request, expected) in cases {
            let (json, packed) = (serde_json::to_vec(&request), rmp_serde::to_vec_named(&request));
            let said_of_json = said(&json.expect("plain data"));
            assert_eq!(said_of_json.split(" at line ").next(), Some(expected));
            // The MessagePack reader does not always name the expected type.
            let said_of_packed = said(&packed.expect("plain data"));
            let place = &expected[..expected.rfind("`: ").expect("it names a field") + 3];
            assert!(said_of_packed.starts_with(place) && !said_of_packed.contains("hunter22"), "{said_of_packed}");
            assert!(!said_of_packed.contains("123456789"), "{said_of_packed}");
        }
        // An unknown enum word is reported without its text, too.
        let said =
            Request::decode(0x02, br#"{"function_id": "f", "level": "hunter22"}"#).expect_err("no level").message;
        assert!(said.starts_with("payload: `level`: ") && !said.contains("hunter22"), "{said}");
    }
}
