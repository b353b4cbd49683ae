//! Check of a request's fields: a misspelt one is reported before anything is changed.

use super::{
    openapi::{self, Known},
    routes::Route,
};
use crate::{config, error::Error, router::Router};
use serde_json::{Map, Value};

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
        let own = if name == "name" && route.shape.makes_functions() { "function_id" } else { name };
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
