//! Writing of the times at which tokens were last used.

use crate::commands::Context;
use std::{sync::Arc, time::Duration};

/// Interval at which the times are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// Writes from time to time when tokens were last used, until the task is dropped.
pub async fn keep_token_uses(context: Arc<Context>) {
    loop {
        tokio::time::sleep(WRITE_INTERVAL).await;
        if let Err(error) = context.write_token_uses().await {
            tracing::error!(%error, "cannot write when tokens were last used");
        }
    }
}
