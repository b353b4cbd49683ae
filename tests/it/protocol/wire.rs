//! The command protocol written by hand from its documentation, without the daemon's types.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

pub const INVOKE: u8 = 0x01;
pub const GET_LOGS: u8 = 0x02;
pub const GET_METRICS: u8 = 0x03;
pub const REGISTER_FUNCTION: u8 = 0x04;
pub const DEPLOY_FUNCTION: u8 = 0x05;
pub const DELETE_FUNCTION: u8 = 0x06;
pub const DELETE_VERSION: u8 = 0x07;
pub const GET_FUNCTION_VERSIONS: u8 = 0x08;
pub const WARMUP_FUNCTION: u8 = 0x09;
pub const LIST_FUNCTIONS: u8 = 0x0A;
pub const GET_FUNCTION: u8 = 0x0B;
pub const UPDATE_FUNCTION: u8 = 0x0C;
pub const ROLLBACK: u8 = 0x0D;
pub const GET_DEPLOYMENTS: u8 = 0x0E;
pub const STATUS: u8 = 0x0F;

pub const SUCCESS: u8 = 0x00;
pub const ERROR: u8 = 0x01;
pub const PARTIAL: u8 = 0x02;

/// One frame: `u32 length | u64 id | u8 command | u32 payload length | payload`, little-endian.
pub fn frame(id: u64, command: u8, payload: &[u8]) -> Vec<u8> {
    let payload_length = u32::try_from(payload.len()).unwrap();
    let mut frame = (payload_length + 13).to_le_bytes().to_vec();
    frame.extend(id.to_le_bytes());
    frame.push(command);
    frame.extend(payload_length.to_le_bytes());
    frame.extend(payload);
    frame
}

/// A frame from the daemon.
#[derive(Debug)]
pub struct Answer {
    pub id: u64,
    pub status: u8,
    pub payload: Vec<u8>,
}

impl Answer {
    /// Decodes the payload, and returns its encoding too.
    pub fn read(&self) -> (Language, Value) {
        let language = if self.payload.first() == Some(&b'{') { Language::Json } else { Language::MessagePack };
        (language, language.read(&self.payload))
    }

    /// The code of an error answer.
    pub fn code(&self) -> String {
        let (_, value) = self.read();
        assert_eq!(self.status, ERROR, "{value}");
        assert!(value["error"].as_str().is_some_and(|it| !it.is_empty()), "{value}");
        value["code"].as_str().expect("an error has a code").to_owned()
    }
}

/// A connection to the command socket.
pub struct Wire {
    stream: UnixStream,
    last_id: u64,
}

impl Wire {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self::from(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads the next frame, or returns `None` when the daemon has closed the connection.
    pub fn receive(&mut self) -> Option<Answer> {
        let mut header = [0; 17];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) => {
                assert!(error.kind() != std::io::ErrorKind::WouldBlock, "no answer comes");
                return None;
            }
        }
        let length = u32::from_le_bytes(header[..4].try_into().unwrap());
        let payload_length = u32::from_le_bytes(header[13..].try_into().unwrap());
        assert_eq!(length, payload_length + 13, "both lengths agree");
        let mut payload = vec![0; payload_length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(Answer { id: u64::from_le_bytes(header[4..12].try_into().unwrap()), status: header[12], payload })
    }

    /// Reads the next frame, which must come.
    pub fn answer(&mut self) -> Answer {
        self.receive().expect("the connection is open")
    }

    /// Sends a request, and returns its single answer, which must have the same encoding.
    pub fn ask(&mut self, language: Language, command: u8, request: &Value) -> Answer {
        self.last_id += 1;
        self.send(&frame(self.last_id, command, &language.write(request)));
        let answer = self.answer();
        assert_eq!(answer.id, self.last_id);
        assert_eq!(answer.read().0, language, "the answer is in the request's language");
        answer
    }

    /// Sends a request that must succeed, and returns the answer's payload.
    pub fn call(&mut self, language: Language, command: u8, request: &Value) -> Value {
        let answer = self.ask(language, command, request);
        let (_, value) = answer.read();
        assert_eq!(answer.status, SUCCESS, "{request} -> {value}");
        value
    }

    /// Checks that the connection still serves.
    pub fn serves(&mut self) {
        let status = self.call(Language::Json, STATUS, &json!({}));
        assert!(status["pid"].is_u64(), "{status}");
    }

    /// Checks that the daemon closes the connection.
    pub fn is_closed(&mut self) {
        let more = self.receive();
        assert!(more.is_none(), "{more:?}");
    }
}

impl From<UnixStream> for Wire {
    fn from(stream: UnixStream) -> Self {
        Self { stream, last_id: 0 }
    }
}

/// Encoding of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Json,
    MessagePack,
}

impl Language {
    /// Encodes bytes as a field's value: base64 in JSON, `bin` in MessagePack.
    pub fn bytes(self, bytes: &[u8]) -> Value {
        match self {
            Self::Json => STANDARD.encode(bytes).into(),
            Self::MessagePack => json!({ BIN: STANDARD.encode(bytes) }),
        }
    }

    /// Decodes a field's value to bytes.
    pub fn unbytes(self, value: &Value) -> Vec<u8> {
        let text = if self == Self::Json { value } else { &value[BIN] };
        STANDARD.decode(text.as_str().expect("bytes")).unwrap()
    }

    pub fn write(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => value.to_string().into_bytes(),
            Self::MessagePack => {
                let mut out = Vec::new();
                pack(value, &mut out);
                out
            }
        }
    }

    fn read(self, payload: &[u8]) -> Value {
        match self {
            Self::Json => serde_json::from_slice(payload).unwrap(),
            Self::MessagePack => {
                let mut rest = payload;
                let value = unpack(&mut rest);
                assert!(rest.is_empty(), "{} bytes are left over", rest.len());
                value
            }
        }
    }
}

/// Key that represents `bin` in a [`Value`]: an object with this one key.
const BIN: &str = "$bin";

fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(0xc2 + u8::from(*value)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(small), _) if small < 0x80 => out.push(small as u8),
            (Some(large), _) => {
                out.push(0xcf);
                out.extend(large.to_be_bytes());
            }
            (None, Some(negative)) => {
                out.push(0xd3);
                out.extend(negative.to_be_bytes());
            }
            (None, None) => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => {
            head(text.len(), Some((0xa0, 32)), 0xdb, out);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            head(items.len(), Some((0x90, 16)), 0xdd, out);
            items.iter().for_each(|item| pack(item, out));
        }
        Value::Object(fields) => match (fields.len(), fields.get(BIN)) {
            (1, Some(Value::String(text))) => {
                let bytes = STANDARD.decode(text).unwrap();
                head(bytes.len(), None, 0xc6, out);
                out.extend(bytes);
            }
            _ => {
                head(fields.len(), Some((0x80, 16)), 0xdf, out);
                for (name, value) in fields {
                    pack(&Value::String(name.clone()), out);
                    pack(value, out);
                }
            }
        },
    }
}

/// Writes a type and a length: in one byte if the type has such a form and the length is below its limit, else in five.
fn head(length: usize, short: Option<(u8, usize)>, long: u8, out: &mut Vec<u8>) {
    match short {
        Some((base, below)) if length < below => out.push(base + length as u8),
        _ => {
            out.push(long);
            out.extend((length as u32).to_be_bytes());
        }
    }
}

fn unpack(rest: &mut &[u8]) -> Value {
    let [tag] = take(rest);
    match tag {
        0x00..=0x7f => tag.into(),
        0x80..=0x8f => map(usize::from(tag & 0x0f), rest),
        0x90..=0x9f => list(usize::from(tag & 0x0f), rest),
        0xa0..=0xbf => text(usize::from(tag & 0x1f), rest),
        0xc0 => Value::Null,
        0xc2 | 0xc3 => (tag == 0xc3).into(),
        0xc4 => bin(u8::from_be_bytes(take(rest)).into(), rest),
        0xc5 => bin(u16::from_be_bytes(take(rest)).into(), rest),
        0xc6 => bin(u32::from_be_bytes(take(rest)) as usize, rest),
        0xca => f32::from_be_bytes(take(rest)).into(),
        0xcb => f64::from_be_bytes(take(rest)).into(),
        0xcc => u8::from_be_bytes(take(rest)).into(),
        0xcd => u16::from_be_bytes(take(rest)).into(),
        0xce => u32::from_be_bytes(take(rest)).into(),
        0xcf => u64::from_be_bytes(take(rest)).into(),
        0xd0 => i8::from_be_bytes(take(rest)).into(),
        0xd1 => i16::from_be_bytes(take(rest)).into(),
        0xd2 => i32::from_be_bytes(take(rest)).into(),
        0xd3 => i64::from_be_bytes(take(rest)).into(),
        0xd9 => text(u8::from_be_bytes(take(rest)).into(), rest),
        0xda => text(u16::from_be_bytes(take(rest)).into(), rest),
        0xdb => text(u32::from_be_bytes(take(rest)) as usize, rest),
        0xdc => list(u16::from_be_bytes(take(rest)).into(), rest),
        0xdd => list(u32::from_be_bytes(take(rest)) as usize, rest),
        0xde => map(u16::from_be_bytes(take(rest)).into(), rest),
        0xdf => map(u32::from_be_bytes(take(rest)) as usize, rest),
        0xe0..=0xff => tag.cast_signed().into(),
        _ => panic!("0x{tag:02x} is not a type that answers use"),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_first_chunk().expect("the payload goes on");
    *rest = left;
    *taken
}

fn some<'a>(length: usize, rest: &mut &'a [u8]) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn text(length: usize, rest: &mut &[u8]) -> Value {
    std::str::from_utf8(some(length, rest)).expect("a text is UTF-8").into()
}

fn bin(length: usize, rest: &mut &[u8]) -> Value {
    json!({ BIN: STANDARD.encode(some(length, rest)) })
}

fn list(length: usize, rest: &mut &[u8]) -> Value {
    (0..length).map(|_| unpack(rest)).collect()
}

fn map(length: usize, rest: &mut &[u8]) -> Value {
    let field = |rest: &mut &[u8]| (unpack(rest).as_str().expect("a field has a name").to_owned(), unpack(rest));
    (0..length).map(|_| field(rest)).collect::<Map<_, _>>().into()
}
