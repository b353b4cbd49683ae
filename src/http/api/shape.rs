//! Requests and answers that have another form over HTTP than on the command socket.

use crate::{commands::Context, error::Error};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// The form of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// That of the command itself.
    Own,
    /// `name` names the function, which is made if need be; the answer has `id`, `version` as a number, `isNewFunction`.
    Deploy,
    /// The answer has a `message`.
    Rollback,
    /// Rows have `id`, `version` as a number, `isActive`, `deployedAt`.
    Deployments,
    /// `body` is any JSON; a text is sent as it is.
    Invoke,
}

impl Shape {
    pub(super) fn makes_functions(self) -> bool {
        self == Self::Deploy
    }
}

/// Whether a deploy is of a function that there is not yet.
pub(super) fn is_new(context: &Context, payload: &Map<String, Value>) -> bool {
    let function = payload.get("function_id").and_then(Value::as_str);
    function.is_some_and(|it| context.router.function(it).is_err())
}

/// From what the client has sent to the command's fields.
pub(super) fn read(shape: Shape, payload: &mut Map<String, Value>) {
    match shape {
        Shape::Deploy => {
            if let Some(name) = payload.remove("name") {
                payload.insert("function_id".into(), name);
            }
            payload.entry("create").or_insert(Value::Bool(true));
        }
        Shape::Invoke => {
            let bytes = match payload.remove("body") {
                None | Some(Value::Null) => return,
                Some(Value::String(text)) => text.into_bytes(),
                Some(other) => {
                    let headers = payload.entry("headers").or_insert_with(|| json!({}));
                    if let Some(headers) = headers.as_object_mut() {
                        headers.entry("content-type").or_insert("application/json".into());
                    }
                    other.to_string().into_bytes()
                }
            };
            payload.insert("body".into(), STANDARD.encode(bytes).into());
        }
        Shape::Own | Shape::Rollback | Shape::Deployments => {}
    }
}

/// From the command's answer to what the client gets.
pub(super) fn write(shape: Shape, answered: Vec<u8>, context: &Context, is_new: bool) -> Result<Vec<u8>, Error> {
    if shape == Shape::Own {
        return Ok(answered);
    }
    let answer: Value = serde_json::from_slice(&answered).map_err(Error::internal)?;
    let written = match shape {
        Shape::Deploy => deployed(&answer, context, is_new),
        Shape::Rollback => {
            let number = &answer["number"];
            with(
                &answer,
                json!({
                    "message": format!("Successfully rolled back to version {number}"),
                    "version": number,
                    "label": answer["version"],
                    "deploymentId": answer["deployment_id"],
                }),
            )
        }
        Shape::Deployments => {
            let rows = answer["deployments"].as_array().into_iter().flatten().map(|row| {
                with(
                    row,
                    json!({
                        "id": row["deployment_id"],
                        "version": row["number"],
                        "label": row["version"],
                        "isActive": row["is_active"],
                        "deployedAt": row["finished_at"],
                    }),
                )
            });
            json!({ "deployments": rows.collect::<Vec<_>>() })
        }
        Shape::Invoke => invoked(answer),
        Shape::Own => answer,
    };
    serde_json::to_vec(&written).map_err(Error::internal)
}

/// An answer with some fields added or replaced.
fn with(answer: &Value, fields: Value) -> Value {
    let mut answer = answer.clone();
    if let (Some(answer), Value::Object(fields)) = (answer.as_object_mut(), fields) {
        answer.extend(fields);
    }
    answer
}

fn deployed(answer: &Value, context: &Context, is_new: bool) -> Value {
    let id = answer["function_id"].as_str().unwrap_or_default();
    let entry = context.router.function(id).ok();
    let label = answer["version"].as_str().unwrap_or_default();
    let version = entry.as_ref().and_then(|it| it.labelled(label));
    let status = if answer["status"] == "deployed" { json!("active") } else { answer["status"].clone() };
    with(
        answer,
        json!({
            "id": answer["function_id"],
            "name": entry.as_ref().map(|it| it.function.name.clone()),
            "version": answer["number"],
            "label": answer["version"],
            "deploymentId": answer["deployment_id"],
            "status": status,
            "isNewFunction": is_new,
            "createdAt": version.map(|it| it.created_at),
        }),
    )
}

/// The body as text where it is one, and as base64 otherwise.
fn invoked(mut answer: Value) -> Value {
    let bytes = answer["body"].as_str().and_then(|it| STANDARD.decode(it).ok()).unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(text) => {
            let is_json =
                answer["headers"]["content-type"].as_str().is_some_and(|it| it.starts_with("application/json"));
            let parsed = is_json.then(|| serde_json::from_str(&text).ok()).flatten();
            answer["body"] = parsed.unwrap_or(Value::String(text));
        }
        Err(_) => answer["is_base64"] = Value::Bool(true),
    }
    answer
}
