//! Failures in the document: one answer for each status, with the codes that have it.

use super::super::{super::answer::Failure, routes::Route};
use super::schemas::Schemas;
use crate::error::ErrorCode;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Returns the name of the answer with this status.
fn name(status: u16) -> String {
    format!("Failure{status}")
}

/// Returns every answer that a failure may get, by name.
pub(super) fn all(schemas: &mut Schemas) -> Map<String, Value> {
    let statuses: BTreeSet<u16> = ErrorCode::ALL.iter().map(|it| it.http_status()).collect();
    statuses.into_iter().map(|status| (name(status), failure(status, schemas))).collect()
}

fn failure(status: u16, schemas: &mut Schemas) -> Value {
    let mut codes: Vec<ErrorCode> = ErrorCode::ALL.iter().copied().filter(|it| it.http_status() == status).collect();
    let mut meanings: Vec<String> = codes.iter().map(|it| format!("- `{it}`: {}", it.meaning())).collect();
    if status == StatusCode::NOT_FOUND.as_u16() {
        codes.push(ErrorCode::InvalidRequest);
        meanings.push(format!("- `{}`: No route has this path.", ErrorCode::InvalidRequest));
    }
    let reason = StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason()).unwrap_or_default();
    let schema = schemas.answer_of::<Failure<'static>>();
    let mut answer = json!({
        "description": format!("{reason}:\n\n{}", meanings.join("\n")),
        "content": {
            "application/json": {
                "schema": { "allOf": [schema, { "properties": { "code": { "enum": codes } } }] },
            },
        },
    });
    let header = |name: &str, description: &str, schema: Value| {
        let header = json!({ "description": description, "required": true, "schema": schema });
        Value::Object(Map::from_iter([(name.to_owned(), header)]))
    };
    match StatusCode::from_u16(status) {
        Ok(StatusCode::UNAUTHORIZED) => {
            answer["headers"] = header("WWW-Authenticate", "How to authenticate.", json!({ "const": "Bearer" }));
        }
        Ok(StatusCode::TOO_MANY_REQUESTS) => {
            let schema = json!({ "type": "integer", "minimum": 1 });
            answer["headers"] = header("Retry-After", "Seconds to wait before the next attempt.", schema);
        }
        _ => {}
    }
    answer
}

/// Returns the failure answers of a route, by status.
pub(super) fn of(route: &Route, names_something: bool) -> Map<String, Value> {
    let mut statuses = BTreeSet::from([400, 401, 403, 429, 500, 503]);
    if names_something {
        statuses.extend([404, 409]);
    }
    // A route that changes something has a body and may load code.
    if !matches!(route.method, "GET" | "DELETE") {
        statuses.extend([404, 409, 413, 422, 502, 504]);
    }
    let refer = |status: u16| json!({ "$ref": format!("#/components/responses/{}", name(status)) });
    statuses.into_iter().map(|status| (status.to_string(), refer(status))).collect()
}

/// Returns the failure answers of an invocation, by status: every one can occur.
pub(super) fn of_calls() -> Map<String, Value> {
    let statuses: BTreeSet<u16> = ErrorCode::ALL.iter().map(|it| it.http_status()).collect();
    let refer = |status: u16| json!({ "$ref": format!("#/components/responses/{}", name(status)) });
    statuses.into_iter().map(|status| (status.to_string(), refer(status))).collect()
}
