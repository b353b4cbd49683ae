//! REGISTER_FUNCTION.

use super::{Caller, Command, Context};
use crate::{
    error::{Error, ErrorCode},
    model::{Function, FunctionId, FunctionName, FunctionStatus, Timestamp},
    protocol::message::{RegisterRequest, RegisterResponse},
    store::StoreError,
};
use std::sync::Arc;

/// The only supported runtime.
const RUNTIME: &str = "bun";

/// Export that is invoked when the request names none.
const DEFAULT_HANDLER: &str = "default";

/// Maximum bytes of an export's name.
const HANDLER_BYTES_MAX: usize = 128;

impl Command for RegisterRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<RegisterResponse, Error> {
        let function = function(context, self)?;
        let owner = Arc::clone(context);
        context.to_its_end(async move { owner.blocking(move |context| register(context, function)).await }).await
    }
}

/// Builds the function that a request asks for, without storing it.
pub(super) fn function(context: &Context, request: RegisterRequest) -> Result<Function, Error> {
    let name: FunctionName = request.name.parse()?;
    let runtime = request.runtime.unwrap_or_else(|| RUNTIME.into());
    if runtime != RUNTIME {
        return Err(Error::invalid(format!("runtime `{runtime}` does not exist: `{RUNTIME}` is the only one")));
    }
    let handler = request.handler.unwrap_or_else(|| DEFAULT_HANDLER.into());
    let valid = |it: char| it.is_alphanumeric() || it == '_' || it == '$';
    if handler.is_empty() || handler.len() > HANDLER_BYTES_MAX || !handler.chars().all(valid) {
        return Err(Error::invalid(format!("handler `{handler}` is not the name of an export")));
    }
    let settings = context.config.load().functions.with(&request.settings.unwrap_or_default())?;
    let now = Timestamp::now();
    let (id, status) = (FunctionId::new(), FunctionStatus::Registered);
    Ok(Function { id, name, runtime, handler, status, settings, created_at: now, updated_at: now })
}

/// Creates the function, or finds the existing one.
fn register(context: &Context, function: Function) -> Result<RegisterResponse, Error> {
    if let Ok(existing) = context.router.function(function.name.as_str()) {
        let answer = same(&existing.function, &function)?;
        match context.store.claim_function(existing.function.id) {
            Ok(()) => return Ok(answer),
            // The deployment that created the function has just failed and removed it.
            Err(StoreError::FunctionNotFound(id)) => context.router.remove(id),
            Err(error) => return Err(error.into()),
        }
    }
    match context.store.insert_function(&function) {
        Ok(()) => {
            context.refresh(function.id)?;
            Ok(response(&function, true))
        }
        // Another command has just created the function.
        Err(StoreError::NameTaken(name)) => {
            let existing = named(context, &name)?;
            context.store.claim_function(existing.id)?;
            same(&existing, &function)
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds the function of this name, which another command has just created. That command may not have told the router
/// yet, and this one may use the function at once.
pub(super) fn named(context: &Context, name: &FunctionName) -> Result<Function, Error> {
    let existing = context.store.function_named(name)?;
    let existing = existing.ok_or_else(|| Error::internal("a taken name belongs to no function"))?;
    context.refresh(existing.id)?;
    Ok(existing)
}

fn same(existing: &Function, wanted: &Function) -> Result<RegisterResponse, Error> {
    if existing.handler == wanted.handler && existing.settings == wanted.settings {
        return Ok(response(existing, false));
    }
    let name = &existing.name;
    Err(Error::new(
        ErrorCode::Conflict,
        format!(
            "`{name}` exists with another handler or other settings; `levain config-of {name}` shows and changes settings"
        ),
    ))
}

fn response(function: &Function, created: bool) -> RegisterResponse {
    RegisterResponse {
        function_id: function.id,
        name: function.name.to_string(),
        runtime: function.runtime.clone(),
        handler: function.handler.clone(),
        status: function.status,
        created,
    }
}
