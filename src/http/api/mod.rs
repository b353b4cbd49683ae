//! Management over HTTP: every command below `/api/`, as JSON.
//!
//! A request becomes the payload of a command and goes the way of any other: what stands in the path, the query and the
//! body are its fields. [`routes`] says which path is which command; [`shape`] has the few answers that clients of other
//! systems know in another form.

mod form;
mod routes;
mod shape;

use super::{
    answer::{self, Answer},
    auth,
    upload::{Outcome, Upload},
};
use crate::{
    commands::{self, Context, Partials},
    error::{Error, ErrorCode},
    protocol::ipc::{Encoding, Request as Command},
};
use form::Code;
use http::{Request, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use routes::Found;
use serde_json::{Map, Value};
use std::{net::IpAddr, sync::Arc};
use tokio::{runtime::Handle, sync::mpsc};

/// Where management is.
pub(super) const PREFIX: &str = "/api/";

/// Carries out one request. Commands run on `main`: a lane is for calls.
pub(super) async fn run(context: &Arc<Context>, main: &Handle, peer: IpAddr, request: Request<Incoming>) -> Answer {
    carry_out(context, main, peer, request).await.unwrap_or_else(|error| answer::error(&error, None))
}

async fn carry_out(
    context: &Arc<Context>,
    main: &Handle,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Answer, Error> {
    // Nobody without a token learns what there is.
    let grant = auth::authorize(context, request.headers(), peer)?;
    let path = request.uri().path();
    let (route, fields) = match routes::find(request.method(), path) {
        Found::Route(route, fields) => (route, fields),
        Found::OtherMethods(allowed) => return Ok(answer::method_not_allowed(request.method(), path, &allowed)),
        Found::Nothing => return Ok(answer::not_found(request.method(), path)),
    };
    if route.shape.makes_functions() {
        // Before anything of a bundle is taken in.
        grant.may_deploy()?;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (mut payload, code) = body(context, request, route.shape.makes_functions()).await?;
    shape::read(route.shape, &mut payload);
    payload.extend(query_fields(&query)?);
    payload.extend(route.with.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    payload.extend(fields);
    let bytes = serde_json::to_vec(&payload).map_err(Error::internal)?;
    let mut command = Command::decode(route.byte(), &bytes)?;
    if let (Command::Deploy(request), Some(code)) = (&mut command, code) {
        code.put_into(request);
    }
    grant.allows(&command, &context.router)?;
    let is_new = route.shape.makes_functions() && shape::is_new(context, &payload);
    let (owner, caller) = (Arc::clone(context), grant.caller());
    let execution = main.spawn(async move {
        // Nobody takes parts of an answer here; a command that sends some is told that its caller has left.
        let (sender, _) = mpsc::channel(1);
        let partials = Partials::new(Encoding::Json, 0, sender);
        commands::execute(&owner, command, Encoding::Json, &caller, &partials).await
    });
    let answered = execution.await.map_err(Error::internal)??;
    let answered = shape::write(route.shape, answered, context, is_new)?;
    Ok(answer::json(route.status, answered))
}

/// The fields of the body, and the code of a form; nothing where there is no body.
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
    let is_form = content_type.starts_with("multipart/");
    if is_form && !takes_forms {
        return Err(Error::invalid("a form is for a deploy; send JSON here"));
    }
    let config = context.config.load_full();
    let max = match is_form {
        true => form::bytes_max(&config.limits),
        false => config.limits.frame_bytes_max.into(),
    };
    let too_large = || Error::new(ErrorCode::PayloadTooLarge, format!("the body has more than {max} bytes"));
    if body.size_hint().lower() > max {
        return Err(too_large());
    }
    let upload = Upload::new(body, max, config.http.body_timeout());
    let read = match is_form {
        true => form::read(content_type, &upload, &context.scratch, &config.limits)
            .await
            .map(|(fields, code)| (fields, Some(code))),
        false => match upload.collect().await {
            Ok(bytes) => object(&bytes).map(|fields| (fields, None)),
            Err(_) => Err(Error::invalid("the body of the request broke off")),
        },
    };
    read.map_err(|error| match upload.outcome() {
        Outcome::TooLarge => too_large(),
        Outcome::Stalled => Error::new(ErrorCode::Timeout, "the body made no progress"),
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

/// The parameters of a query as fields: whole numbers, `true` and `false` are what they look like, all else is text.
fn query_fields(query: &str) -> Result<Map<String, Value>, Error> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let (name, value) = (routes::decode(name)?, routes::decode(&value.replace('+', " "))?);
        let value = match value.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(format!("`{name}` stands twice in the query")));
        }
    }
    Ok(fields)
}

/// The status of an answer that made something.
const CREATED: StatusCode = StatusCode::CREATED;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_numbers_truths_and_texts() {
        let fields = query_fields("limit=10&dry_run&follow=false&since=15m&reason=two+words%21").expect("a query");
        let expected = serde_json::json!({
            "limit": 10, "dry_run": true, "follow": false, "since": "15m", "reason": "two words!"
        });
        assert_eq!(Value::Object(fields), expected);
        assert!(query_fields("a=1&a=2").is_err() && query_fields("a=%zz").is_err());
    }
}
