//! Field types whose form differs between JSON and MessagePack, or between one value and several; and structs that are
//! read from maps only.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, cell::RefCell, fmt, marker::PhantomData};

/// Bytes: `bin` in MessagePack, a base64 string in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body(pub Bytes);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64Visitor)
        } else {
            deserializer.deserialize_byte_buf(BytesVisitor)
        }
    }
}

/// Describes the JSON form. The pattern requires the unused bits after the last byte to be zero.
impl JsonSchema for Body {
    fn schema_name() -> Cow<'static, str> {
        "Body".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes in base64 (RFC 4648, section 4), with padding.",
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$",
        })
    }
}

/// Size from which a body shares the memory of its payload, in bytes. Smaller bodies are copied, because a small body
/// would keep alive a whole buffer that holds other frames too.
const SHARED_BYTES_MIN: usize = 64 * 1024;

thread_local! {
    /// The payload being read on this thread.
    static PAYLOAD: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Runs `read` on a payload, and lets large bodies share its memory where they are plain bytes.
pub(super) fn sharing<T>(payload: &Bytes, read: impl FnOnce(&[u8]) -> T) -> T {
    if payload.len() < SHARED_BYTES_MIN {
        return read(payload);
    }
    /// Releases the payload, even if `read` panics.
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            PAYLOAD.take();
        }
    }
    PAYLOAD.set(payload.clone());
    let _done = Done;
    read(payload)
}

struct Base64Visitor;

impl Visitor<'_> for Base64Visitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Body, E> {
        STANDARD.decode(text).map(Body::from).map_err(|error| E::custom(format_args!("not base64: {error}")))
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Body, E> {
        PAYLOAD.with_borrow(|payload| {
            let is_part = bytes.len() >= SHARED_BYTES_MIN && payload.as_ptr_range().contains(&bytes.as_ptr());
            if is_part { Ok(Body(payload.slice_ref(bytes))) } else { self.visit_bytes(bytes) }
        })
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Body, E> {
        Ok(Body(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Body, E> {
        Ok(Body(bytes.into()))
    }

    /// Accepts text as its UTF-8 bytes, because some MessagePack libraries have one type for both.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Body, E> {
        self.visit_bytes(text.as_bytes())
    }
}

/// Headers or query parameters: a map whose values are a string or an array of strings. Fields keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// Returns the first value under `name`, compared case-insensitively.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns all values under `name`, compared case-insensitively, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl JsonSchema for Fields {
    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Headers or query parameters: each has one value, or several.",
            "type": "object",
            "additionalProperties": {
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
            },
        })
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_first = |index: usize| self.0[..index].iter().all(|(key, _)| *key != self.0[index].0);
        let names = (0..self.0.len()).filter(|&index| is_first(index)).count();
        let mut map = serializer.serialize_map(Some(names))?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            if !is_first(index) {
                continue;
            }
            let values: Vec<&str> =
                self.0[index..].iter().filter(|(key, _)| key == name).map(|(_, it)| it.as_str()).collect();
            if let [_] = values[..] {
                map.serialize_entry(name, value)?;
            } else {
                map.serialize_entry(name, &values)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names to a string or an array of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
        while let Some((name, OneOrMany(values))) = map.next_entry::<String, OneOrMany>()? {
            let mut values = values.into_iter();
            let last = values.next_back();
            fields.extend(values.map(|value| (name.clone(), value)));
            fields.extend(last.map(|value| (name, value)));
        }
        Ok(Fields(fields))
    }
}

struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<OneOrMany, A::Error> {
        let mut many = Vec::with_capacity(values.size_hint().unwrap_or(0).min(64));
        while let Some(value) = values.next_element()? {
            many.push(value);
        }
        Ok(OneOrMany(many))
    }
}

/// A struct that is read from a map only. By default serde also accepts an array of the fields in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a struct from a map only.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|it| it.0)
}

/// Reads an optional struct from a map only.
pub(super) fn object_or_none<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<Object<T>>::deserialize(deserializer).map(|it| it.map(|it| it.0))
}

/// Reads a list of structs, each from a map only.
pub(super) fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Vec::<Object<T>>::deserialize(deserializer).map(|it| it.into_iter().map(|it| it.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_base64_in_json_and_bin_in_messagepack() {
        let body = Body::from(vec![0, 255, 7]);
        assert_eq!(serde_json::to_string(&body).expect("bytes"), "\"AP8H\"");
        let packed = rmp_serde::to_vec_named(&body).expect("bytes");
        assert_eq!(packed, [0xc4, 3, 0, 255, 7]);
        assert_eq!(rmp_serde::from_slice::<Body>(&packed).expect("bin"), body);
        assert_eq!(serde_json::from_str::<Body>("\"AP8H\"").expect("base64"), body);
        assert!(serde_json::from_str::<Body>("\"!\"").is_err());
    }

    #[test]
    fn a_struct_is_read_from_a_map_alone() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Inner {
            a: u32,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Outer {
            #[serde(deserialize_with = "object")]
            one: Inner,
            #[serde(default, deserialize_with = "object_or_none")]
            perhaps: Option<Inner>,
            #[serde(default, deserialize_with = "objects")]
            some: Vec<Inner>,
        }
        let good = Outer { one: Inner { a: 1 }, perhaps: Some(Inner { a: 2 }), some: vec![Inner { a: 3 }] };
        let packed = rmp_serde::to_vec_named(&good).expect("plain data");
        assert_eq!(rmp_serde::from_slice::<Outer>(&packed).expect("maps"), good);
        let read = |json: &str| serde_json::from_str::<Outer>(json).is_ok();
        assert!(read(r#"{"one": {"a": 1}}"#) && read(r#"{"one": {"a": 1}, "perhaps": null, "some": [{"a": 1}]}"#));
        for bad in [r#"{"one": [1]}"#, r#"{"one": {"a": 1}, "perhaps": [1]}"#, r#"{"one": {"a": 1}, "some": [[1]]}"#] {
            assert!(!read(bad), "{bad}");
        }
        assert!(rmp_serde::from_slice::<Outer>(&rmp_serde::to_vec(&good).expect("arrays")).is_err());
    }

    #[test]
    fn a_large_body_shares_the_memory_of_its_payload_and_a_small_one_does_not() {
        for (size, shares) in [(SHARED_BYTES_MIN - 1, false), (SHARED_BYTES_MIN, true)] {
            let body = Body::from(vec![7; size]);
            let payload = Bytes::from(rmp_serde::to_vec(&body).expect("bytes"));
            let read: Body = sharing(&payload, |payload| rmp_serde::from_slice(payload).expect("bin"));
            assert_eq!(read, body);
            assert_eq!(payload.as_ptr_range().contains(&read.0.as_ptr()), shares);
            assert!(PAYLOAD.take().is_empty(), "the payload is released");
        }
    }

    #[test]
    fn repeated_fields_become_an_array_and_come_back() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = Fields(vec![pair("set-cookie", "a=1"), pair("x", "y"), pair("set-cookie", "b=2")]);
        let json = serde_json::to_string(&fields).expect("a map");
        assert_eq!(json, r#"{"set-cookie":["a=1","b=2"],"x":"y"}"#);
        let back: Fields = serde_json::from_str(&json).expect("a map");
        assert_eq!(back.0, [pair("set-cookie", "a=1"), pair("set-cookie", "b=2"), pair("x", "y")]);
        assert!(serde_json::from_str::<Fields>(r#"{"x": 1}"#).is_err());
    }
}
