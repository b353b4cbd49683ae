//! Noise: bytes that are not frames, frames that are not requests, and requests that make no sense. A seed always gives
//! the same noise.

use crate::protocol::wire::{Language, frame};
use serde_json::{Map, Value, json};

/// A small generator of random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Bytes for one connection.
pub struct Batch {
    pub bytes: Vec<u8>,
    pub frames: usize,
    /// Number of answers to wait for; 0 if the daemon may close the connection at any frame.
    pub answers: usize,
}

pub struct Noise(Random);

impl Noise {
    pub fn new(random: Random) -> Self {
        Self(random)
    }

    pub fn batch(&mut self) -> Batch {
        let frames = 1 + self.0.below(100);
        let sort = self.0.below(4);
        let mut bytes = Vec::new();
        for id in 0..frames as u64 {
            match sort {
                0 => bytes.extend(self.0.bytes(60)),
                1 => bytes.extend(self.broken(id)),
                2 => bytes.extend(self.garbled(id)),
                _ => bytes.extend(self.senseless(id)),
            }
        }
        // Each whole frame gets an answer.
        Batch { bytes, frames, answers: if sort >= 2 { frames } else { 0 } }
    }

    /// A frame that is cut off, or whose lengths are wrong.
    fn broken(&mut self, id: u64) -> Vec<u8> {
        let command = self.0.next() as u8;
        let mut frame = frame(id, command, &self.0.bytes(40));
        match self.0.below(4) {
            0 => frame.truncate(self.0.below(frame.len())),
            1 => frame[..4].copy_from_slice(&u32::MAX.to_le_bytes()),
            2 => frame[13..17].copy_from_slice(&(self.0.next() as u32).to_le_bytes()),
            _ => {
                // Both lengths agree and are just below the limit, but the payload does not follow.
                frame[..4].copy_from_slice(&(16_777_216_u32).to_le_bytes());
                frame[13..17].copy_from_slice(&(16_777_216_u32 - 13).to_le_bytes());
            }
        }
        frame
    }

    /// A whole frame around random bytes.
    fn garbled(&mut self, id: u64) -> Vec<u8> {
        let mut payload = self.0.bytes(120);
        // An empty payload is an empty request, which some commands accept.
        payload.insert(0, self.0.one(&[b'{', 0x81, 0x82, 0x8f, 0xde, 0xdf, 0x93, 0xdd, 0xc1, b'[']));
        frame(id, self.command(), &payload)
    }

    /// A request whose fields have the right names and wrong values, in either encoding.
    fn senseless(&mut self, id: u64) -> Vec<u8> {
        const FIELDS: [&str; 29] = [
            "activate",
            "alias",
            "body",
            "bundle",
            "bundle_path",
            "count",
            "description",
            "dry_run",
            "end_date",
            "entry",
            "execution_id",
            "files",
            "follow",
            "handler",
            "headers",
            "level",
            "limit",
            "method",
            "offset",
            "path",
            "period",
            "qualifier",
            "query",
            "reason",
            "runtime",
            "settings",
            "since",
            "tags",
            "timeout_ms",
        ];
        let mut request = Map::new();
        for _ in 0..self.0.below(6) {
            request.insert(self.0.one(&FIELDS).into(), self.value(3));
        }
        // No function has such a name, and none can be created with it.
        let wrong = [json!("no such function"), json!(7), json!([]), json!({}), Value::Null, json!(""), json!("a:b:c")];
        request.insert("function_id".into(), self.0.one(&wrong));
        request.insert("name".into(), self.0.one(&wrong));
        let language = self.0.one(&[Language::Json, Language::MessagePack]);
        frame(id, self.command(), &language.write(&request.into()))
    }

    /// A command that needs a function or a name, or a command that does not exist.
    fn command(&mut self) -> u8 {
        self.0.one(&[1, 3, 4, 5, 6, 7, 8, 9, 0x0B, 0x0C, 0x0D, 0x0E, 0x10, 0xff])
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.0.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.0.below(2) == 0),
            2 => json!(self.0.next()),
            3 => json!(-(self.0.below(1000) as i64)),
            4 => json!(self.0.next() as f64 / 7.0),
            5 => Value::String(String::from_utf8_lossy(&self.0.bytes(20)).into_owned()),
            6 => (0..self.0.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let field = |random: &mut Self| (format!("k{}", random.0.below(9)), random.value(depth - 1));
                (0..self.0.below(4)).map(|_| field(self)).collect::<Map<_, _>>().into()
            }
        }
    }
}

/// Requests in which one field is a deeply nested array, in both encodings, closed and not.
pub fn nested(field: &str, depth: usize) -> [Vec<u8>; 4] {
    let json = |end: &str| format!("{{\"{field}\": {}{}", "[".repeat(depth), end.repeat(depth)).into_bytes();
    let mut packed = vec![0x81, 0xa0 + field.len() as u8];
    packed.extend(field.as_bytes());
    packed.resize(packed.len() + depth, 0x91);
    let mut closed = packed.clone();
    closed.push(0xc0);
    let mut closed_json = json("]");
    closed_json.push(b'}');
    [json(""), closed_json, packed, closed]
}
