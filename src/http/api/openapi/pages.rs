//! Paths of the document that are not commands: the daemon's own pages, and invocations of functions.

use super::failures;
use crate::{http::pages::PAGES, model::FunctionName};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

/// HTTP methods of invocations, as the document spells them.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "delete", "patch", "options"];

/// Adds these paths to the document.
pub(super) fn add(paths: &mut Map<String, Value>) {
    for page in PAGES {
        let answers = page.answers.iter().map(|(status, content_type, description)| {
            let mut answer = json!({ "description": description });
            if !content_type.is_empty() {
                let schema = if *content_type == "application/json" { json!({}) } else { json!({ "type": "string" }) };
                answer["content"] =
                    Value::Object(Map::from_iter([((*content_type).to_owned(), json!({ "schema": schema }))]));
            }
            (status.to_string(), answer)
        });
        let operation = json!({
            "operationId": format!("get{}", super::pascal(page.path)),
            "tags": ["daemon"],
            "summary": page.summary,
            "security": [],
            "responses": Map::from_iter(answers),
        });
        paths.insert(page.path.to_owned(), json!({ "get": operation }));
    }
    for (path, name) in [("/functions/{name}", "Root"), ("/functions/{name}/{path}", "Path")] {
        let operations = METHODS.iter().map(|method| ((*method).to_owned(), call(method, path, name)));
        paths.insert(path.to_owned(), Value::Object(operations.collect()));
    }
}

/// Describes an invocation by one method.
fn call(method: &str, path: &str, name: &str) -> Value {
    let pattern = "^[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9._-]{1,64})?$";
    let mut parameters = vec![json!({
        "name": "name",
        "in": "path",
        "required": true,
        "description": format!(
            "The function's {}, or its id; an alias, label or number may follow after a colon.",
            FunctionName::schema_name(),
        ),
        "schema": { "type": "string", "pattern": pattern },
    })];
    if path.ends_with("{path}") {
        parameters.push(json!({
            "name": "path",
            "in": "path",
            "required": true,
            "description": "The path that the function sees; it may contain slashes.",
            "schema": { "type": "string" },
        }));
    }
    let mut answers = failures::of_calls();
    answers.insert(
        "default".into(),
        json!({
            "description": "The function's answer.",
            "headers": {
                "X-Levain-Invocation-Id": {
                    "description": "The invocation's id, as in logs.",
                    "required": true,
                    "schema": { "$ref": "#/components/schemas/InvocationId" },
                },
            },
            "content": { "*/*": {} },
        }),
    );
    let mut operation = json!({
        "operationId": format!("{method}{name}OfFunction"),
        "tags": ["calls"],
        "summary": "calls a function",
        "description": "Method, path, query, headers and body reach the function unchanged, and its answer is returned \
            unchanged. A token is required if the function's `auth` is `token`.",
        "security": [{}, { "bearerAuth": [] }],
        "parameters": parameters,
        "responses": answers,
    });
    if matches!(method, "post" | "put" | "patch") {
        operation["requestBody"] = json!({ "content": { "*/*": {} } });
    }
    operation
}
