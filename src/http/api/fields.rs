//! Fields of a request: a misspelt one is reported before anything is changed, and some are converted to the command's.

use super::{
    openapi::{self, Known},
    routes::{RequestForm, Route},
};
use crate::{config, error::Error, router::Router};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// Converts a client's fields to the command's fields.
pub(super) fn read(form: RequestForm, payload: &mut Map<String, Value>) {
    match form {
        RequestForm::Deploy => {
            if let Some(name) = payload.remove("name") {
                payload.insert("function_id".into(), name);
            }
            payload.entry("create").or_insert(Value::Bool(true));
        }
        RequestForm::Invoke => {
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
        RequestForm::Own | RequestForm::Download => {}
    }
}

/// Checks the body and query of a request that changes something against the fields of its route. `fixed` are the
/// fields given by the path; a field given twice must have the same value.
pub(super) fn check(
    route: &Route,
    given: &Map<String, Value>,
    fixed: &Map<String, Value>,
    router: &Router,
) -> Result<(), Error> {
    let Some(request) = openapi::request(route).filter(|_| route.method != "GET") else { return Ok(()) };
    for (name, value) in given {
        let own = if name == "name" && route.form.makes_functions() { "function_id" } else { name };
        match (fixed.get(own), request.fields.get(name)) {
            (Some(said), _) => {
                let (said, found) = (text(said), text(value));
                let id = |it: &str| router.function(it).ok().map(|it| it.function.id);
                let is_same =
                    said == found || (own == "function_id" && id(&said).is_some_and(|it| id(&found) == Some(it)));
                if !is_same {
                    let (said, found) = (shown(&said), shown(&found));
                    return Err(Error::invalid(format!(
                        "`{name}` is `{said}` in the path, but `{found}` in the query or body"
                    )));
                }
            }
            (None, Some(known)) => nested(known, value, name)?,
            (None, None) => return Err(unknown(name, name, request.fields.keys())),
        }
    }
    let missing = request.required.iter().find(|it| !given.contains_key(*it));
    missing.map_or(Ok(()), |it| Err(Error::invalid(format!("the field `{it}` is missing"))))
}

/// Checks the fields inside a field's value.
fn nested(known: &Known, value: &Value, place: &str) -> Result<(), Error> {
    match (known, value) {
        (Known::Fields(fields), Value::Object(given)) => given.iter().try_for_each(|(name, value)| {
            let place = format!("{place}.{}", shown(name));
            match fields.get(name) {
                Some(known) => nested(known, value, &place),
                None => Err(unknown(name, &place, fields.keys())),
            }
        }),
        (Known::Each(known), Value::Array(values)) => {
            let mut values = values.iter().enumerate();
            values.try_for_each(|(index, value)| nested(known, value, &format!("{place}[{index}]")))
        }
        _ => Ok(()),
    }
}

fn unknown<'a>(name: &str, place: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    let nearest = config::meant(name, known.iter().copied()).map(|it| format!("did you mean `{it}`? "));
    let (place, nearest, known) = (shown(place), nearest.unwrap_or_default(), known.join(", "));
    Error::invalid(format!("unknown field `{place}` ({nearest}known fields are: {known})"))
}

/// Text of a value as a path would have it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Beginning of a client's text, as far as an error shows it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
