//! Requests and answers whose form over HTTP differs from that on the command socket.

mod answers;

pub(super) use answers::{Deployed, DeploymentRows, Invoked, RolledBack};

use crate::{
    commands::Context,
    error::Error,
    protocol::message::{DeployResponse, DeploymentsResponse, InvokeResponse},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Form of a route's request and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The command's own form.
    Own,
    /// `name` names the function, which is created if need be; the answer has `id`, `version` as a number,
    /// `isNewFunction`.
    Deploy,
    /// The answer has a `message`.
    Rollback,
    /// Rows have `id`, `version` as a number, `isActive`, `deployedAt`.
    Deployments,
    /// The answer is a file.
    Download,
    /// `body` is any JSON; a text is sent as it is.
    Invoke,
}

impl Shape {
    pub(super) fn makes_functions(self) -> bool {
        self == Self::Deploy
    }
}

/// Converts a client's fields to the command's fields.
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
        Shape::Own | Shape::Rollback | Shape::Deployments | Shape::Download => {}
    }
}

/// Converts the command's answer to the client's form.
pub(super) fn write(shape: Shape, answered: Vec<u8>, context: &Context) -> Result<Vec<u8>, Error> {
    match shape {
        Shape::Own | Shape::Download => Ok(answered),
        Shape::Deploy => written(&answered, |answer| deployed(answer, context)),
        Shape::Rollback => written(&answered, |answer: DeployResponse| RolledBack::from(answer)),
        Shape::Deployments => written(&answered, |answer: DeploymentsResponse| DeploymentRows::from(answer)),
        Shape::Invoke => written(&answered, |answer: InvokeResponse| Invoked::from(answer)),
    }
}

fn written<A: DeserializeOwned, W: Serialize>(answered: &[u8], write: impl FnOnce(A) -> W) -> Result<Vec<u8>, Error> {
    let answer = serde_json::from_slice(answered).map_err(Error::internal)?;
    serde_json::to_vec(&write(answer)).map_err(Error::internal)
}

fn deployed(answer: DeployResponse, context: &Context) -> Deployed {
    let entry = context.router.function(&answer.function_id).ok();
    let version = entry.as_ref().and_then(|it| it.labelled(&answer.version));
    let (name, created) = (entry.as_ref().map(|it| it.function.name.clone()), version.map(|it| it.created_at));
    Deployed::new(answer, name, created)
}
