//! `GET /openapi.json`: the API below `/api/` and the pages beside it, as OpenAPI 3.1.
//!
//! The document is derived: paths come from [`ROUTES`], summaries from [`COMMANDS`], schemas and descriptions from the
//! types that are read and written, codes from [`crate::error`]. It reveals nothing about this daemon and needs no
//! token.

mod failures;
mod pages;
mod schemas;

#[cfg(test)]
mod tests;

pub(super) use schemas::{Kind, Known};

use super::{
    download,
    routes::{ROUTES, RequestForm, Route},
};
use crate::{
    commands::SCOPES,
    http::answer::{self, Answer},
    model::hex,
    protocol::ipc::{COMMANDS, CommandRow},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemas::{Schemas, without_null};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    sync::LazyLock,
};

/// The document, built on first use.
static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::new);

#[derive(Debug)]
struct Document {
    json: Bytes,
    /// Digest that identifies this document.
    etag: HeaderValue,
    /// Kinds of the fields of each command, for values given as text.
    kinds: HashMap<&'static str, HashMap<String, Kind>>,
    /// Fields that the requests of each route may have, by method and path.
    requests: HashMap<(&'static str, &'static str), Taken>,
}

/// Fields that a request may have besides those in its path.
#[derive(Debug)]
pub(super) struct Taken {
    /// Known fields, by name.
    pub(super) fields: BTreeMap<String, Known>,
    /// Names of the required fields.
    pub(super) required: Vec<String>,
}

impl Document {
    fn new() -> Self {
        let mut schemas = Schemas::of(COMMANDS);
        let kinds = |command: &CommandRow, schemas: &mut Schemas| {
            let fields = schemas.fields(command).0;
            fields.into_iter().map(|(name, schema)| (name, schemas.kind(&schema))).collect()
        };
        let kinds = COMMANDS.iter().map(|it| (it.name, kinds(it, &mut schemas))).collect();
        let requests = ROUTES.iter().map(|it| ((it.method, it.path), taken(it, &mut schemas))).collect();
        let document = document(schemas).to_string();
        let etag = format!("\"{}\"", hex::encode(&Sha256::digest(&document)[..16]));
        let etag = HeaderValue::try_from(etag).expect("hexadecimal digits");
        Self { json: document.into(), etag, kinds, requests }
    }
}

/// Answers with the document, or with 304 if the client has it (RFC 9110, section 13.1.2).
pub(in crate::http) fn get(headers: &HeaderMap) -> Answer {
    let Document { json, etag, .. } = &*DOCUMENT;
    let asked = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let is_known = |it: &str| it == "*" || it.strip_prefix("W/").unwrap_or(it) == etag;
    let is_there = asked.flat_map(|it| it.split(',')).any(|it| is_known(it.trim()));
    let mut answer = if is_there { answer::not_modified() } else { answer::json(StatusCode::OK, json.clone()) };
    answer.headers_mut().insert(header::ETAG, etag.clone());
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Returns the kind of a command's field for values given as text, or `None` if the command has no such field.
pub(super) fn kind(command: &str, field: &str) -> Option<Kind> {
    DOCUMENT.kinds.get(command)?.get(field).copied()
}

/// Returns the fields that a request of this route may have besides those in its path.
pub(super) fn request(route: &Route) -> Option<&'static Taken> {
    DOCUMENT.requests.get(&(route.method, route.path))
}

fn taken(route: &Route, schemas: &mut Schemas) -> Taken {
    let (fields, required) = fields(route, schemas);
    let fields = fields.into_iter().map(|(name, schema)| (name, schemas.known(&schema))).collect();
    Taken { fields, required }
}

fn document(mut schemas: Schemas) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route, &mut schemas);
    }
    pages::add(&mut paths);
    let failures = failures::all(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Levain",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "a functions runtime for one machine",
            "description": "Management is below `/api/` and needs a token; functions are called below `/functions/`.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearerAuth": [] }],
        "tags": tags(&paths),
        "paths": paths,
        "components": {
            "schemas": schemas.all(),
            "responses": failures,
            "securitySchemes": {
                "bearerAuth": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The first token is in `data/admin.token`; `levain token create` makes others.",
                },
            },
        },
    })
}

fn tags(paths: &Map<String, Value>) -> Vec<Value> {
    let operations = paths.values().filter_map(Value::as_object).flat_map(Map::values);
    let names: BTreeSet<&str> = operations.filter_map(|it| it["tags"][0].as_str()).collect();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

/// Describes one method on one path.
fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let command = route.command;
    let mut all = schemas.fields(command).0;
    let names_something = all.contains_key("function_id") || route.path.contains('{');
    let mut parameters = Vec::new();
    for name in placeholders(route.path) {
        let schema = all.remove(name).unwrap_or_else(|| json!({ "type": "string" }));
        parameters.push(parameter(name, "path", schema, true));
    }
    let (mut fields, required) = fields(route, schemas);
    let takes_body = !matches!(route.method, "GET" | "DELETE");
    if !takes_body {
        // Objects and arrays cannot be given in a query.
        fields.retain(|_, schema| schemas.kind(schema) != Kind::Other);
        for (name, schema) in std::mem::take(&mut fields) {
            let is_required = required.contains(&name);
            parameters.push(parameter(&name, "query", schema, is_required));
        }
    }
    if route.form.makes_functions() {
        parameters.push(parameter("Idempotency-Key", "header", idempotency_key(), false));
    }
    let mut answers = failures::of(route, names_something);
    let mut answer = answer(route, schemas);
    if parameters.iter().any(|it| it["name"] == "cursor") {
        answer["headers"] = json!({
            "Link": {
                "description": "Link to the next page, if there is one (RFC 8288): `<…>; rel=\"next\"`.",
                "schema": { "type": "string" },
            },
        });
    }
    answers.insert(route.status.as_u16().to_string(), answer);
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag(route.path)],
        "summary": command.does,
        "description": description(route, schemas),
        "responses": answers,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if takes_body && !fields.is_empty() {
        operation["requestBody"] = request_body(route.form, fields, &required, schemas);
    }
    operation
}

fn idempotency_key() -> Value {
    json!({
        "description": "A key chosen by the client, new for each deployment, in quotes or bare: a repeated request \
            with the same key is carried out once and gets the same answer.",
        "type": "string",
        "pattern": "^[!-~]([ -~]{0,253}[!-~])?$",
    })
}

/// Describes the answer of a successful request.
fn answer(route: &Route, schemas: &mut Schemas) -> Value {
    let (content_type, schema) = match &route.answer {
        // OpenAPI describes raw bytes by their content type alone.
        _ if route.form == RequestForm::Download => (download::CONTENT_TYPE, json!({})),
        Some(form) => ("application/json", schemas.answer(form.schema)),
        None => ("application/json", schemas.answer(route.command.response)),
    };
    json!({ "description": "Success.", "content": { content_type: { "schema": schema } } })
}

fn description(route: &Route, schemas: &mut Schemas) -> String {
    let command = route.command;
    let mut text = format!("The command `{}`. ", command.name);
    let says = schemas.description(command);
    if !says.is_empty() {
        let _ = write!(text, "{says} ");
    }
    if route.with.contains(&("follow", false)) {
        text += "Returns the lines that exist; following new ones takes the command socket. ";
    }
    if let Some((_, scope, other)) = SCOPES.iter().find(|(variant, ..)| *variant == command.variant) {
        let _ = write!(text, "Requires a token with the scope `{}`", scope.name());
        if let Some(other) = other {
            let _ = write!(text, ", for some requests `{}`", other.name());
        }
        text.push('.');
    }
    text
}

/// Returns the fields of a request on this route besides those in its path, and the names of the required ones.
fn fields(route: &Route, schemas: &mut Schemas) -> (Map<String, Value>, Vec<String>) {
    let (mut fields, mut required) = schemas.fields(route.command);
    for name in placeholders(route.path).chain(route.with.iter().map(|it| it.0)) {
        required.retain(|it| it != name);
        fields.remove(name);
    }
    convert(route.form, &mut fields, &mut required);
    (fields, required)
}

/// Replaces the command's own fields by those that `fields::read` takes.
fn convert(form: RequestForm, fields: &mut Map<String, Value>, required: &mut Vec<String>) {
    match form {
        RequestForm::Deploy => {
            // The path does not name the function.
            if fields.remove("function_id").is_some() {
                required.retain(|it| it != "function_id");
                let description = "The function's name, or the id of an existing function.";
                let schema = json!({ "$ref": "#/components/schemas/FunctionName", "description": description });
                fields.insert("name".into(), schema);
                required.push("name".into());
            }
            if let Some(create) = fields.get_mut("create") {
                create["default"] = true.into();
            }
        }
        RequestForm::Invoke => {
            fields.insert("body".into(), json!({ "description": "Any JSON value; a string is sent as it is." }));
            // This route answers in one piece.
            fields.remove("stream");
        }
        RequestForm::Own | RequestForm::Download => {}
    }
}

fn request_body(form: RequestForm, fields: Map<String, Value>, required: &[String], schemas: &Schemas) -> Value {
    let object = |fields: &Map<String, Value>| {
        let mut schema = json!({ "type": "object", "properties": fields, "additionalProperties": false });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    };
    let mut content = json!({ "application/json": { "schema": object(&fields) } });
    if form == RequestForm::Deploy {
        content["multipart/form-data"] = multipart(&object(&fields), schemas);
    }
    json!({ "required": !required.is_empty(), "content": content })
}

/// Describes the fields as a form: code is sent as files, and every field is text.
fn multipart(object: &Value, schemas: &Schemas) -> Value {
    let mut schema = object.clone();
    for field in schema["properties"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        let description = field["description"].clone();
        match schemas.kind(field) {
            Kind::Number => *field = json!({ "type": "string", "pattern": "^[0-9]{1,9}$" }),
            Kind::Truth => *field = json!({ "type": "string", "enum": ["true", "false"] }),
            Kind::Text | Kind::Other => *field = without_null(field.take()),
        }
        if description.is_string() {
            field["description"] = description;
        }
    }
    let file = |description: &str| json!({ "type": "string", "format": "binary", "description": description });
    for (name, description) in
        [("archive", "A tar, tar.gz or zip of the files."), ("bundle", "The text of a one-file bundle.")]
    {
        schema["properties"][name] = file(description);
    }
    let files = file("A file of the bundle, under its file name.");
    schema["properties"]["files"] = json!({ "type": "array", "items": files });
    json!({
        "schema": schema,
        "encoding": {
            "archive": { "contentType": "application/octet-stream" },
            "bundle": { "contentType": "application/octet-stream" },
            "files": { "contentType": "application/octet-stream" },
        },
    })
}

fn parameter(name: &str, place: &str, schema: Value, is_required: bool) -> Value {
    let mut schema = without_null(schema);
    let description = schema.as_object_mut().and_then(|it| it.remove("description"));
    let mut parameter = json!({ "name": name, "in": place, "required": is_required, "schema": schema });
    if let Some(description) = description {
        parameter["description"] = description;
    }
    parameter
}

/// Names of the placeholders of a path.
fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'))
}

fn tag(path: &str) -> &str {
    path.strip_prefix(super::PREFIX).and_then(|it| it.split('/').next()).unwrap_or(path)
}

/// Returns `getFunctionVersions` for `GET /api/functions/{function_id}/versions`: a segment followed by a placeholder
/// is singular.
fn operation_id(route: &Route) -> String {
    let parts: Vec<&str> = route.path.strip_prefix(super::PREFIX).unwrap_or(route.path).split('/').collect();
    let mut id = route.method.to_lowercase();
    for (index, part) in parts.iter().enumerate().filter(|(_, it)| !it.starts_with('{')) {
        let is_one = parts.get(index + 1).is_some_and(|it| it.starts_with('{'));
        let plural = if part.ends_with("ses") { "es" } else { "s" };
        id += &pascal(if is_one { part.strip_suffix(plural).unwrap_or(part) } else { part });
    }
    id
}

/// Returns `OpenapiJson` for `/openapi.json`.
fn pascal(text: &str) -> String {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
    words.map(|it| it[..1].to_uppercase() + &it[1..]).collect()
}
