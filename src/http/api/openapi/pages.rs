//! What stands in the document besides the commands: the daemon's own pages, and calls of functions.

use super::failures;
use crate::{http::pages::PAGES, model::FunctionName};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

/// Methods of calls, as the document spells them.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "delete", "patch", "options"];

/// Adds them to the paths.
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

/// A call of a function.
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
            "description": "What the function sees as its path; it may have slashes.",
            "schema": { "type": "string" },
        }));
    }
    let mut answers = failures::of_calls();
    answers.insert(
        "default".into(),
        json!({
            "description": "What the function answers.",
            "headers": {
                "X-Levain-Invocation-Id": {
                    "description": "The invocation, as logs name it.",
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
        "description": "Method, path, query, headers and body reach the function as they are, and what it answers comes \
            back as it is. A token is needed where the function's `auth` is `token`.",
        "security": [{}, { "bearerAuth": [] }],
        "parameters": parameters,
        "responses": answers,
    });
    if matches!(method, "post" | "put" | "patch") {
        operation["requestBody"] = json!({ "content": { "*/*": {} } });
    }
    operation
}
