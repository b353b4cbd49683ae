//! WARMUP_FUNCTION.

use super::Context;
use super::{Caller, Command};
use crate::{
    error::Error,
    protocol::message::{WarmupRequest, WarmupResponse},
};
use std::sync::Arc;

impl Command for WarmupRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<WarmupResponse, Error> {
        let route = context.router.resolve(&self.function_id, self.qualifier.as_deref())?;
        let max = route.entry.function.settings.max_concurrent_executions;
        if self.count > max {
            let count = self.count;
            return Err(Error::invalid(format!("count is {count}: the function's max_concurrent_executions is {max}")));
        }
        let pool = context.pool(&route.entry, &route.version, &route.environment);
        let warmed = pool.warm(self.count as usize).await;
        match warmed.failure {
            Some(failure) if warmed.ready == 0 => Err(failure.as_ref().into()),
            _ => Ok(WarmupResponse { warm: warmed.ready as u32, failed: warmed.failed as u32 }),
        }
    }
}
