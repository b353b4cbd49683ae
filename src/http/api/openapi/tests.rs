//! The document is valid OpenAPI 3.1 and agrees with the tables it is made from.

use super::*;
use crate::{error::ErrorCode, http::pages::PAGES};

fn parsed() -> Value {
    serde_json::from_slice(&DOCUMENT.json).expect("JSON")
}

/// Collects every value of the document with this key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|it| all(it, key, found)),
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|it| all(it, key, found));
        }
        _ => {}
    }
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    let operations = |(path, methods): (&String, &'_ Value)| {
        let methods = methods.as_object().expect("methods").clone();
        methods.into_iter().map(|(method, _)| (path.clone(), method)).collect::<Vec<_>>()
    };
    let names: Vec<_> = paths.flat_map(operations).collect();
    names
        .into_iter()
        .map(|(path, method)| (method.to_uppercase(), path.clone(), &document["paths"][path][method]))
        .collect()
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let document = parsed();
    let told: BTreeSet<_> = operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let mut wanted: BTreeSet<_> = ROUTES.iter().map(|it| (it.method.to_owned(), it.path.to_owned())).collect();
    wanted.extend(PAGES.iter().map(|it| ("GET".to_owned(), it.path.to_owned())));
    for path in ["/functions/{name}", "/functions/{name}/{path}"] {
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        wanted.extend(methods.map(|method| (method.to_owned(), path.to_owned())));
    }
    assert_eq!(told, wanted);
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_one() {
    let document = parsed();
    let mut references = Vec::new();
    all(&document, "$ref", &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let place = reference.as_str().expect("a text").strip_prefix('#').expect("a place in the document");
        assert!(document.pointer(place).is_some(), "{place}");
    }
    let mut schemas = Vec::new();
    all(&document, "schema", &mut schemas);
    schemas.extend(document["components"]["schemas"].as_object().expect("schemas").values());
    for schema in schemas {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{schema}");
    }
}

#[test]
fn operations_are_told_apart_and_complete() {
    let document = parsed();
    let operations = operations(&document);
    let ids: BTreeSet<_> = operations.iter().map(|it| it.2["operationId"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), operations.len(), "{ids:?}");
    for name in ["getFunctionVersions", "deleteFunctionAlias", "postDeploymentApprove", "getOpenapiJson"] {
        assert!(ids.contains(name), "{name}: {ids:?}");
    }
    for (method, path, operation) in &operations {
        let said: Vec<_> = operation["parameters"].as_array().into_iter().flatten().collect();
        let in_path: BTreeSet<_> =
            said.iter().filter(|it| it["in"] == "path").filter_map(|it| it["name"].as_str()).collect();
        assert_eq!(in_path, placeholders(path).collect(), "{method} {path}");
        assert!(said.iter().all(|it| it["schema"].is_object()), "{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|it| !it.is_empty()), "{method} {path}");
        let answers = operation["responses"].as_object().expect("answers");
        assert!(answers.values().all(|it| it["description"].is_string() || it["$ref"].is_string()), "{method} {path}");
        let is_good = |status: &&String| status.starts_with('2') || *status == "default";
        assert_eq!(answers.keys().filter(is_good).count(), 1, "{method} {path}");
    }
}

#[test]
fn every_code_stands_behind_its_status() {
    let document = parsed();
    for code in ErrorCode::ALL {
        let answer = &document["components"]["responses"][format!("Failure{}", code.http_status())];
        let codes = &answer["content"]["application/json"]["schema"]["allOf"][1]["properties"]["code"]["enum"];
        assert!(codes.as_array().expect("codes").iter().any(|it| it == code.as_str()), "{code}");
        assert!(answer["description"].as_str().expect("a text").contains(code.meaning()), "{code}");
    }
}

#[test]
fn what_requests_and_answers_have_in_common_is_told_once() {
    let document = parsed();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    // A time may be an age in a request, and a manifest contains times.
    for name in ["Timestamp", "Manifest"] {
        assert_ne!(schemas[name], schemas[&format!("{name}Input")], "{name}");
    }
    assert!(!schemas.contains_key("DigestInput") && schemas.contains_key("Digest"));
    let parameter = &document["paths"]["/api/functions/{function_id}/logs"]["get"]["parameters"];
    let since = parameter.as_array().expect("parameters").iter().find(|it| it["name"] == "since").expect("since");
    assert_eq!(since["schema"], json!({ "$ref": "#/components/schemas/TimestampInput" }));
    let settings = &schemas["SettingsPatch"];
    assert_eq!(settings["properties"]["memory_mb"]["minimum"], 32);
    assert_eq!(settings["additionalProperties"], false);
}

#[test]
fn a_body_has_the_fields_that_are_told_and_no_others() {
    /// Whether this object and each one below or referred to excludes additional fields.
    fn is_closed(document: &Value, schema: &Value, depth: usize) -> bool {
        assert!(depth < 32, "{schema}");
        let referred = schema["$ref"].as_str().and_then(|it| document.pointer(it.strip_prefix('#')?));
        let own = schema["properties"].is_null() || schema["additionalProperties"] == false;
        let below: Vec<&Value> = ["properties", "anyOf"]
            .iter()
            .flat_map(|it| match &schema[it] {
                Value::Object(fields) => fields.values().collect(),
                Value::Array(all) => all.iter().collect(),
                _ => Vec::new(),
            })
            .chain([&schema["items"]])
            .chain(referred)
            .collect();
        own && below.into_iter().filter(|it| it.is_object()).all(|it| is_closed(document, it, depth + 1))
    }
    let document = parsed();
    let mut bodies = 0;
    for (method, path, operation) in operations(&document) {
        for content in operation["requestBody"]["content"].as_object().into_iter().flat_map(Map::values) {
            let schema = &content["schema"];
            if path.starts_with("/api/") {
                assert!(
                    schema["properties"].is_object() && is_closed(&document, schema, 0),
                    "{method} {path}: {schema}"
                );
                bodies += 1;
            }
        }
    }
    assert!(bodies > 15, "{bodies}");
}

#[test]
fn who_has_the_document_is_not_sent_it_again() {
    let asked = |etag: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.extend(etag.map(|it| (header::IF_NONE_MATCH, HeaderValue::try_from(it).expect("visible"))));
        get(&headers)
    };
    let first = asked(None);
    let etag = first.headers()[header::ETAG].to_str().expect("visible").to_owned();
    assert_eq!(first.status(), 200);
    for (known, status) in
        [(etag.clone(), 304), (format!("\"a\", W/{etag}"), 304), ("*".into(), 304), ("\"a\"".into(), 200)]
    {
        assert_eq!(asked(Some(&known)).status(), status, "{known}");
    }
}
