//! The audit trail of the secrets that workers were given.

use crate::commands::Context;
use std::{sync::Arc, time::Duration};

/// Time for which injections are gathered before they are written.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);

/// Records which workers were given secrets.
pub async fn keep_secret_audit(context: Arc<Context>) {
    loop {
        context.variables.injected().await;
        tokio::time::sleep(WRITE_INTERVAL).await;
        if let Err(error) = context.write_injections().await {
            tracing::error!(%error, "cannot write which workers were given secrets");
        }
    }
}
