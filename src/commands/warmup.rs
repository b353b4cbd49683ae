//! WARMUP_FUNCTION.

use super::Context;
use crate::{
    error::Error,
    protocol::message::{WarmupRequest, WarmupResponse},
};
use std::sync::Arc;

pub(super) async fn run(context: &Arc<Context>, request: &WarmupRequest) -> Result<WarmupResponse, Error> {
    let route = context.router.resolve(&request.function_id, request.qualifier.as_deref())?;
    let max = route.entry.function.settings.max_concurrent_executions;
    if request.count > max {
        let count = request.count;
        return Err(Error::invalid(format!("count is {count}: the function's max_concurrent_executions is {max}")));
    }
    let pool = context.pool(&route.entry, &route.version, &route.environment);
    let warmed = pool.warm(request.count as usize).await;
    match warmed.failure {
        Some(failure) if warmed.ready == 0 => Err(failure.as_ref().into()),
        _ => Ok(WarmupResponse { warm: warmed.ready as u32, failed: warmed.failed as u32 }),
    }
}
