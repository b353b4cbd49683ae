//! Management over HTTP: every command below `/api/`, as JSON.
//!
//! The path, query and body of a request become the fields of a command, which then runs like any other. [`routes`]
//! maps paths to commands. [`fields`] refuses unknown fields, so that a misspelt one has no unintended effect.
//! [`answers`] holds the few answers whose form differs, for clients of other systems.

mod answers;
mod download;
mod fields;
mod form;
pub(super) mod openapi;
mod routes;

use super::{
    answer::{self, Answer},
    auth,
    exchange::Note,
    face::Face,
    incoming::Incoming,
    upload::{Outcome, Upload, UploadPace},
};
use crate::{
    commands::{self, Context},
    error::{Error, ErrorCode},
    protocol::ipc::{Encoding, Request as Command},
};
use form::Code;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Body as _;
use openapi::Kind;
pub(super) use routes::decode;
use routes::{Found, RequestForm};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{net::IpAddr, sync::Arc};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// Header with a deployment's idempotency key: a request that is sent twice is carried out once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Path prefix of management.
pub(super) const PREFIX: &str = "/api/";

/// Carries out one request. Commands run on `main`, as lanes are for invocations.
pub(super) async fn run(
    (face, context): (&Arc<Face>, &Arc<Context>),
    main: &Handle,
    peer: IpAddr,
    request: Request<Incoming>,
    note: &mut Note,
) -> Answer {
    carry_out((face, context), main, peer, request, note).await.unwrap_or_else(|error| answer::error(&error, None))
}

async fn carry_out(
    (face, context): (&Arc<Face>, &Arc<Context>),
    main: &Handle,
    peer: IpAddr,
    request: Request<Incoming>,
    note: &mut Note,
) -> Result<Answer, Error> {
    // A client without a token must not learn which paths exist.
    let grant = auth::authorize_management(context, request.headers(), peer)?;
    note.grant(&grant);
    let path = request.uri().path();
    let (route, fields) = match routes::find(request.method(), path) {
        Found::Route(route, fields) => (route, fields),
        Found::OtherMethods(allowed) => return Ok(answer::method_not_allowed(request.method(), path, &allowed)),
        Found::Nothing => return Ok(answer::not_found(request.method(), path)),
    };
    if route.form.makes_functions() {
        // Before any of the bundle is received.
        grant.may_deploy()?;
    }
    let path = path.to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let key = idempotency_key(request.headers())?.filter(|_| route.form.makes_functions());
    let (mut payload, code) = body(context, request, route.form.makes_functions()).await?;
    payload.extend(query_fields(route.command.name, &query)?);
    let with = route.with.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    let fixed: Map<String, Value> = fields.into_iter().chain(with).collect();
    fields::check(route, &payload, &fixed, &context.router)?;
    fields::read(route.form, &mut payload);
    payload.extend(fixed);
    payload.extend(key.map(|it| ("idempotency_key".to_owned(), it.into())));
    let mut command = Command::of_fields(route.command.byte, &payload.into())?;
    if let (Command::Deploy(request), Some(code)) = (&mut command, code) {
        code.put_into(request);
    }
    grant.allows(&command, &context.router)?;
    if route.form == RequestForm::Download {
        return download::run((face, context), main, command, grant.caller()).await;
    }
    let (owner, caller) = (Arc::clone(context), grant.caller());
    // Dropped when the client leaves, which cancels a command that has not committed yet.
    let execution = AbortOnDropHandle::new(main.spawn(async move { commands::run(&owner, command, &caller).await }));
    let response = execution.await.map_err(Error::internal)??;
    let answered = match &route.answer {
        Some(form) => (form.write)(response, context)?,
        None => Encoding::Json.write(&*response)?,
    };
    let next = openapi::kind(route.command.name, "cursor").and_then(|_| next_page(&path, &query, &answered));
    let mut answer = answer::json(route.status, answered);
    if let Some(link) = next {
        answer.headers_mut().insert(header::LINK, link);
    }
    Ok(answer)
}

/// Returns the header `Idempotency-Key`: a quoted string, as in the IETF's draft, or bare text.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid("the header `Idempotency-Key` is given twice"));
    }
    let text = value.to_str().map_err(|_| Error::invalid("the header `Idempotency-Key` is not visible ASCII text"))?;
    let quoted = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    Ok(Some(quoted.unwrap_or(text).to_owned()))
}

/// Returns the link to the next page (RFC 8288).
fn next_page(path: &str, query: &str, answered: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Next {
        next_cursor: Option<String>,
    }
    let cursor = serde_json::from_slice::<Next>(answered).ok()?.next_cursor?;
    let is_kept = |it: &&str| !it.is_empty() && !it.starts_with("cursor=") && !it.starts_with("offset=");
    let mut query: Vec<&str> = query.split('&').filter(is_kept).collect();
    let cursor = format!("cursor={cursor}");
    query.push(&cursor);
    HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", query.join("&"))).ok()
}

/// Reads the fields of the body, and the code if it is a form; both are empty without a body.
async fn body(
    context: &Context,
    request: Request<Incoming>,
    takes_forms: bool,
) -> Result<(Map<String, Value>, Option<Code>), Error> {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok((Map::new(), None));
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    // Media types are case-insensitive (RFC 9110, section 8.3.1).
    let is_form = content_type.get(.."multipart/".len()).is_some_and(|it| it.eq_ignore_ascii_case("multipart/"));
    if is_form && !takes_forms {
        return Err(Error::invalid("only a deploy takes a form; send JSON here"));
    }
    let config = context.config.load_full();
    let (max, says) = match is_form {
        true => (form::bytes_max(&config.limits), "limits.bundle_bytes_max, and 1 MiB for its fields"),
        false => (config.limits.frame_bytes_max.into(), "limits.frame_bytes_max"),
    };
    let too_large = || Error::new(ErrorCode::PayloadTooLarge, format!("the body is larger than {max} bytes ({says})"));
    if body.size_hint().lower() > max {
        return Err(too_large());
    }
    let upload = Upload::new(body, max, UploadPace::of(&config.http));
    let read = match is_form {
        true => form::read(content_type, &upload, &context.code.scratch, &config.limits)
            .await
            .map(|(fields, code)| (fields, Some(code))),
        false => match upload.collect_all().await {
            Ok(bytes) => object(&bytes).map(|fields| (fields, None)),
            Err(_) => Err(Error::invalid("the body of the request broke off")),
        },
    };
    read.map_err(|error| match upload.outcome() {
        Outcome::TooLarge => too_large(),
        Outcome::Stalled => Error::new(ErrorCode::Timeout, "the body made no progress"),
        Outcome::Slow => Error::new(ErrorCode::Timeout, "the body arrived too slowly (http.body_bytes_per_second_min)"),
        Outcome::Fine | Outcome::Broken => error,
    })
}

fn object(json: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::invalid("the body is not a JSON object")),
        Err(error) => Err(Error::invalid(format!("the body is not JSON: {error}"))),
    }
}

/// Fields of SET_VARIABLES that hold values.
const VALUES: [&str; 3] = ["value", "variables", "dotenv"];

/// Converts query parameters to fields of a command. A field that is a number or a boolean must look like one; any
/// other is text. A name without a value is `true`.
fn query_fields(command: &str, query: &str) -> Result<Map<String, Value>, Error> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let (name, value) = (routes::decode(name)?, routes::decode(&value.replace('+', " "))?);
        if command == "SET_VARIABLES" && VALUES.contains(&name.as_str()) {
            return Err(Error::invalid(format!(
                "`{name}` belongs in the body, because histories and logs keep the address: nothing was set; if this \
                 was a secret, change it"
            )));
        }
        let shown = || value.chars().take(80).collect::<String>();
        let value = match (openapi::kind(command, &name), value.as_str()) {
            (Some(Kind::Truth), "true") => Value::Bool(true),
            (Some(Kind::Truth), "false") => Value::Bool(false),
            (Some(Kind::Truth), _) => {
                return Err(Error::invalid(format!("`{name}` is `true` or `false`, not `{}`", shown())));
            }
            (Some(Kind::Number), text) => match text.parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => return Err(Error::invalid(format!("`{name}` is a whole number, not `{}`", shown()))),
            },
            (Some(Kind::Text | Kind::Other) | None, _) => value.into(),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(format!("`{name}` is given twice in the query")));
        }
    }
    Ok(fields)
}

/// Status of an answer to a request that created something.
const CREATED: StatusCode = StatusCode::CREATED;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_numbers_truths_and_texts() {
        let of = |query| query_fields("GET_LOGS", query).map(Value::Object);
        let fields = of("limit=10&follow&since=15m&qualifier=1&execution_id=two+words%21&unknown=1").expect("a query");
        let expected = serde_json::json!({
            "limit": 10, "follow": true, "since": "15m", "qualifier": "1", "execution_id": "two words!", "unknown": "1"
        });
        assert_eq!(fields, expected);
        for bad in ["a=1&a=2", "a=%zz", "limit=much", "limit=true", "follow=1", "limit="] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_has_no_values_of_variables() {
        for query in ["value=hunter22", "dotenv=A%3Dhunter22", "variables=hunter22", "v%61lue=hunter22", "value"] {
            let error = query_fields("SET_VARIABLES", query).expect_err(query).message;
            assert!(!error.contains("hunter22") && error.contains("body"), "{error}");
        }
        assert!(query_fields("SET_VARIABLES", "key=A&is_secret&environment=dev&only_existing=true").is_ok());
        assert!(query_fields("GET_LOGS", "value=1").is_ok(), "other commands have no such field");
    }
}
