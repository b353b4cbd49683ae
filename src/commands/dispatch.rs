//! Dispatch: from a decoded request to its command.

use super::{Caller, Context, context::shutting_down, invoke};
use crate::{
    error::Error,
    protocol::ipc::{CommandRequest, Encoding, Request, for_each_command},
};
use std::{any::Any, future::Future, pin::Pin, sync::Arc};

/// A request that the daemon carries out.
pub(super) trait Command: CommandRequest {
    /// Carries out the command.
    fn run(self, context: &Arc<Context>, caller: &Caller)
    -> impl Future<Output = Result<Self::Response, Error>> + Send;
}

/// A successful answer, in no encoding yet.
pub trait Response: erased_serde::Serialize + Any + Send {}

impl<T: erased_serde::Serialize + Any + Send> Response for T {}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Response>, Error>> + Send + 'a>>;

/// Carries out a command, and returns the payload of its answer in this encoding.
pub async fn execute(
    context: &Arc<Context>,
    request: Request,
    encoding: Encoding,
    caller: &Caller,
) -> Result<Vec<u8>, Error> {
    match request {
        Request::Invoke(request) => {
            refuse_when_stopping(context)?;
            let response = invoke::run(context, request, caller).await?;
            encoding.write_directly(&response, response.body.0.len())
        }
        request => encoding.write(&*run(context, request, caller).await?),
    }
}

/// Carries out a command.
pub async fn run(context: &Arc<Context>, request: Request, caller: &Caller) -> Result<Box<dyn Response>, Error> {
    if !matches!(request, Request::Status(_)) {
        refuse_when_stopping(context)?;
    }
    dispatch(context, request, caller).await
}

fn refuse_when_stopping(context: &Context) -> Result<(), Error> {
    if context.stopping.is_cancelled() { Err(shutting_down()) } else { Ok(()) }
}

macro_rules! by_type {
    ($($byte:tt $name:literal $variant:ident($request:ty) -> $response:ty: $does:literal;)*) => {
        /// Each command has a future of its own on the heap, as large as that command needs.
        fn dispatch<'a>(context: &'a Arc<Context>, request: Request, caller: &'a Caller) -> Outcome<'a> {
            match request {
                $(Request::$variant(request) => Box::pin(answer(context, request, caller)),)*
            }
        }
    };
}

for_each_command!(by_type);

async fn answer<C: Command>(context: &Arc<Context>, command: C, caller: &Caller) -> Result<Box<dyn Response>, Error> {
    Ok(Box::new(command.run(context, caller).await?))
}
