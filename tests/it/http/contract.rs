//! Checks requests and answers against `/openapi.json`.

use super::{Shown, curl};
use crate::harness::TestDaemon;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The document, and the operations that have been seen to work.
pub struct Contract {
    document: Value,
    worked: Mutex<BTreeSet<(String, String)>>,
}

impl Contract {
    /// Reads a daemon's own document.
    pub async fn of(daemon: &TestDaemon) -> Self {
        let shown = curl(daemon, &[], "/openapi.json").await;
        assert_eq!((shown.status(), shown.header("content-type")), (200, "application/json"));
        Self { document: shown.json(), worked: Mutex::default() }
    }

    /// Fails if an answer does not match the document, or if a request does not match it and yet worked.
    pub fn check(&self, (method, target, body): (&str, &str, Option<&Value>), shown: &Shown) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some((template, operation)) = self.operation(method, path) else {
            assert!([404, 405].contains(&shown.status()), "{method} {target} is not in the document: {shown:?}");
            return;
        };
        let status = shown.status().to_string();
        let answer = &operation["responses"][&status];
        assert!(answer.is_object(), "{method} {template}: the document lacks the answer {status}: {shown:?}");
        let answer = self.resolved(answer);
        let content_type = shown.header("content-type").split(';').next().unwrap();
        let schema = &answer["content"][content_type]["schema"];
        assert!(schema.is_object(), "{method} {template} {status}: no {content_type}");
        let headers = answer["headers"].as_object().into_iter().flatten();
        for (name, _) in headers.filter(|(_, header)| header["required"] == true) {
            shown.header(name);
        }
        // Other media types have no schema worth checking.
        if content_type == "application/json" {
            self.validate(schema, &shown.json(), &format!("the answer {status} of {method} {target}"));
        }
        if shown.status() >= 300 {
            return;
        }
        self.worked.lock().insert((method.to_owned(), template.to_owned()));
        if let Some(body) = body {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{method} {template} takes no body");
            self.validate(schema, body, &format!("the body of {method} {target}"));
            let known = schema["properties"].as_object().unwrap();
            let unknown: Vec<_> = body.as_object().unwrap().keys().filter(|it| !known.contains_key(*it)).collect();
            assert!(unknown.is_empty(), "{method} {template}: the document lacks the fields {unknown:?}");
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] == "query");
        let known: Vec<_> = parameters.filter_map(|it| it["name"].as_str()).collect();
        for name in query.split('&').filter(|it| !it.is_empty()).map(|it| it.split('=').next().unwrap()) {
            assert!(known.contains(&name), "{method} {template}: the document lacks the parameter `{name}`");
        }
    }

    /// Operations below `/api/` that have not been seen to work.
    pub fn unseen(&self) -> Vec<String> {
        let worked = self.worked.lock();
        let paths = self.document["paths"].as_object().unwrap().iter().filter(|it| it.0.starts_with("/api/"));
        let operations = paths.flat_map(|(path, it)| it.as_object().unwrap().keys().map(move |method| (method, path)));
        let operations = operations.map(|(method, path)| (method.to_uppercase(), path.clone()));
        operations.filter(|it| !worked.contains(it)).map(|(method, path)| format!("{method} {path}")).collect()
    }

    /// Finds the operation of a path: a literal template is preferred to one with placeholders.
    fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let fits = |template: &str| {
            let (templates, parts): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            let same = |(template, part): (&&str, &&str)| template.starts_with('{') || template == part;
            templates.len() == parts.len() && templates.iter().zip(&parts).all(same)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let template = paths.keys().filter(|it| fits(it)).min_by_key(|it| it.matches('{').count())?;
        paths[template].get(method.to_lowercase()).map(|operation| (template.as_str(), operation))
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let place = value["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
        place.map_or(value, |it| self.document.pointer(it).unwrap())
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let schema = json!({ "allOf": [schema], "components": self.document["components"] });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<_> =
            validator.iter_errors(value).map(|it| format!("{} at {}", it, it.instance_path())).collect();
        assert!(errors.is_empty(), "{what} does not match the document: {errors:#?}\n{value:#}");
    }
}
