//! JSON Schemas of requests and answers, collected in one place of the document.
//!
//! A type may have two schemas: in a request, fields with a default are optional; in an answer, they are always
//! present. Where the two differ, the request's schema has the suffix `Input`.

use crate::protocol::ipc::CommandRow;
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Place of the schemas in the document.
const PLACE: &str = "#/components/schemas/";

/// Schemas of requests and of answers, which grow as types are asked for.
#[derive(Debug)]
pub(super) struct Schemas {
    taken: SchemaGenerator,
    answered: SchemaGenerator,
    /// Names whose schemas for requests and answers differ.
    differing: BTreeSet<String>,
}

impl Schemas {
    /// Collects the schemas of these commands.
    pub(super) fn of(commands: &[CommandRow]) -> Self {
        let generator = |contract| {
            let settings = SchemaSettings::draft2020_12().with(|it| {
                it.definitions_path = "/components/schemas".into();
                it.meta_schema = None;
                it.contract = contract;
            });
            settings.into_generator()
        };
        let (mut taken, mut answered) = (generator(Contract::Deserialize), generator(Contract::Serialize));
        for command in commands {
            (command.request)(&mut taken);
            (command.response)(&mut answered);
        }
        taken.definitions_mut().values_mut().for_each(close);
        let differing = differing(taken.definitions(), answered.definitions());
        Self { taken, answered, differing }
    }

    /// Returns the fields of a command's request with their schemas, and the names of the required ones.
    pub(super) fn fields(&mut self, command: &CommandRow) -> (Map<String, Value>, Vec<String>) {
        let schema = (command.request)(&mut self.taken);
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(PLACE));
        let mut schema = name.and_then(|it| self.taken.definitions().get(it)).cloned().unwrap_or_default();
        self.finish(&mut schema, true);
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let required = required.map(str::to_owned).collect();
        match schema["properties"].take() {
            Value::Object(fields) => (fields, required),
            _ => (Map::new(), required),
        }
    }

    /// Returns the doc comment of a command's request.
    pub(super) fn description(&mut self, command: &CommandRow) -> String {
        let schema = (command.request)(&mut self.taken);
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(PLACE));
        let description = name.and_then(|it| self.taken.definitions().get(it)?.get("description")?.as_str());
        let text = description.unwrap_or_default().strip_prefix(command.name).unwrap_or_default();
        text.trim_start_matches(['.', ' ']).to_owned()
    }

    /// Returns the schema of an answer.
    pub(super) fn answer(&mut self, schema: fn(&mut SchemaGenerator) -> Schema) -> Value {
        schema(&mut self.answered).into()
    }

    /// Returns the schema of an answer that belongs to no command.
    pub(super) fn answer_of<T: JsonSchema>(&mut self) -> Value {
        self.answered.subschema_for::<T>().into()
    }

    /// Returns the kind of a request's field for values given as text.
    pub(super) fn kind(&self, schema: &Value) -> Kind {
        match schema.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(PLACE)) {
            Some(name) => self.definition(name).map_or(Kind::Text, |it| self.kind(it)),
            None => match &schema["type"] {
                it if has_type(it, "string") => Kind::Text,
                it if has_type(it, "integer") || has_type(it, "number") => Kind::Number,
                it if has_type(it, "boolean") => Kind::Truth,
                it if has_type(it, "object") || has_type(it, "array") => Kind::Other,
                _ => match schema["anyOf"].as_array().into_iter().flatten().find(|it| it["type"] != "null") {
                    Some(first) if first.get("$ref").is_some() => self.kind(first),
                    // A choice of words, or of a number and text.
                    _ => Kind::Text,
                },
            },
        }
    }

    /// Returns the fields that a request's field may contain.
    pub(super) fn known(&self, schema: &Value) -> Known {
        self.known_to(schema, DEPTH_MAX)
    }

    fn known_to(&self, schema: &Value, depth: usize) -> Known {
        let Some(depth) = depth.checked_sub(1) else { return Known::Any };
        if let Some(name) = schema["$ref"].as_str().and_then(|it| it.strip_prefix(PLACE)) {
            return self.definition(name).map_or(Known::Any, |it| self.known_to(it, depth));
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let mut choices = choices.iter().filter(|it| it["type"] != "null");
            return match (choices.next(), choices.next()) {
                (Some(one), None) => self.known_to(one, depth),
                _ => Known::Any,
            };
        }
        if is_closed(schema) {
            let fields = schema["properties"].as_object().into_iter().flatten();
            return Known::Fields(fields.map(|(name, it)| (name.clone(), self.known_to(it, depth))).collect());
        }
        match self.known_to(&schema["items"], depth) {
            Known::Any => Known::Any,
            each => Known::Each(Box::new(each)),
        }
    }

    /// Returns the request's schema with this name.
    fn definition(&self, name: &str) -> Option<&Value> {
        let own = name.strip_suffix("Input").filter(|it| self.differing.contains(*it)).unwrap_or(name);
        self.taken.definitions().get(own)
    }

    /// Returns all collected schemas, by name.
    pub(super) fn all(mut self) -> Map<String, Value> {
        let used = |schemas: &Map<String, Value>| schemas.clone();
        let (taken, mut all) = (used(self.taken.definitions()), self.answered.take_definitions(true));
        all.values_mut().for_each(|it| self.finish(it, false));
        for (name, mut schema) in taken {
            self.finish(&mut schema, true);
            let name = if self.differing.contains(&name) { format!("{name}Input") } else { name };
            all.entry(name).or_insert(schema);
        }
        all
    }

    /// Corrects references to schemas with two forms, and adds the maximum of large integers.
    fn finish(&self, schema: &mut Value, is_taken: bool) {
        match schema {
            Value::Array(all) => all.iter_mut().for_each(|it| self.finish(it, is_taken)),
            Value::Object(fields) => {
                if let Some(Value::String(place)) = fields.get_mut("$ref")
                    && let Some(name) = place.strip_prefix(PLACE)
                    && is_taken
                    && self.differing.contains(name)
                {
                    place.push_str("Input");
                }
                let max = match fields.get("format").and_then(Value::as_str) {
                    Some("uint8") => Some(json!(u8::MAX)),
                    Some("uint16") => Some(json!(u16::MAX)),
                    Some("uint32") => Some(json!(u32::MAX)),
                    Some("uint64") => Some(json!(u64::MAX)),
                    _ => None,
                };
                if let Some(max) = max {
                    fields.entry("maximum").or_insert(max);
                }
                fields.values_mut().for_each(|it| self.finish(it, is_taken));
            }
            _ => {}
        }
    }
}

/// Limit on the nesting of requests.
const DEPTH_MAX: usize = 16;

/// Fields that a value in a request may have.
#[derive(Debug)]
pub(in crate::http::api) enum Known {
    /// Anything: the value is no object, or a map.
    Any,
    /// These and no others.
    Fields(BTreeMap<String, Known>),
    /// Each value of an array.
    Each(Box<Known>),
}

/// Excludes additional fields from every object that has fields.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(close),
        Value::Object(fields) => {
            // An object with choices gets further fields from these.
            let is_plain = !["anyOf", "oneOf", "allOf"].iter().any(|it| fields.contains_key(*it));
            if is_plain && fields.get("properties").is_some_and(Value::is_object) {
                fields.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            fields.values_mut().for_each(close);
        }
        _ => {}
    }
}

fn is_closed(schema: &Value) -> bool {
    schema["additionalProperties"] == false
}

/// Kind of a field whose value is given as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http::api) enum Kind {
    /// A number.
    Number,
    /// `true` or `false`.
    Truth,
    /// Text, or a value that may be text.
    Text,
    /// Anything else.
    Other,
}

fn has_type(types: &Value, name: &str) -> bool {
    types == name || types.as_array().is_some_and(|it| it.iter().any(|it| it == name))
}

/// Returns the names whose schemas for requests and answers differ, directly or through a reference.
fn differing(taken: &Map<String, Value>, answered: &Map<String, Value>) -> BTreeSet<String> {
    let both = || taken.iter().filter_map(|(name, schema)| Some((name, schema, answered.get(name)?)));
    let mut differing: BTreeSet<String> = both().filter(|(_, a, b)| a != b).map(|(name, ..)| name.clone()).collect();
    loop {
        let refers = |schema: &Value| {
            let text = schema.to_string();
            differing.iter().any(|it| text.contains(&format!("\"{PLACE}{it}\"")))
        };
        let more: Vec<String> = both()
            .filter(|(name, schema, _)| !differing.contains(*name) && refers(schema))
            .map(|(name, ..)| name.clone())
            .collect();
        if more.is_empty() {
            return differing;
        }
        differing.extend(more);
    }
}

/// Removes `null` from a schema, since a path or query has no null.
pub(super) fn without_null(mut schema: Value) -> Value {
    if let Some(types) = schema.get_mut("type").filter(|it| it.is_array()) {
        let left: Vec<Value> = types.as_array().into_iter().flatten().filter(|it| *it != "null").cloned().collect();
        *types = if let [one] = &left[..] { one.clone() } else { left.into() };
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|it| it["type"] != "null");
        if let [one] = &choices[..] {
            let mut one = one.clone();
            if let (Some(fields), Value::Object(others)) = (one.as_object_mut(), schema) {
                others.into_iter().filter(|(name, _)| name != "anyOf").for_each(|(name, it)| {
                    fields.entry(name).or_insert(it);
                });
            }
            return one;
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|it| !it.is_null());
    }
    if schema["default"].is_null()
        && let Some(fields) = schema.as_object_mut()
    {
        fields.remove("default");
    }
    schema
}
