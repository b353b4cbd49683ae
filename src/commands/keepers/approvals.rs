//! The expiry of deployments that wait for approval and are never decided.

use crate::{
    commands::{
        Context,
        approval::{expired, expiry, ttl_ms},
    },
    error::Error,
    model::Timestamp,
};
use std::{sync::Arc, time::Duration};

/// Longest time between searches for deployments that have waited too long, because the limit may be changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Rejects deployments that wait too long for approval, until the daemon stops.
pub async fn keep_expiring(context: Arc<Context>) {
    let keep = async {
        loop {
            let next = context.blocking(expire).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot look for deployments that have waited too long");
                LOOK_EVERY
            });
            tokio::time::sleep(next.min(LOOK_EVERY)).await;
        }
    };
    context.stopping.run_until_cancelled(keep).await;
}

/// Rejects deployments that have waited too long, and returns the time until the next one may be due. Nothing is
/// written if none is due.
fn expire(context: &Context) -> Result<Duration, Error> {
    let now = Timestamp::now();
    let until = Timestamp::from_millis(now.as_millis().saturating_sub(ttl_ms(context)));
    let (late, waiting): (Vec<_>, Vec<_>) =
        context.store.waiting()?.into_iter().partition(|it| it.finished_at <= until);
    if !late.is_empty() {
        for deployment in context.store.expire(until, &expired(context, now))? {
            tracing::info!(deployment = %deployment.id, "not decided in time: rejected");
        }
    }
    let next = waiting.iter().map(|it| expiry(context, it.finished_at)).min();
    let wait = next.map_or(i64::MAX, |next| next.as_millis().saturating_sub(now.as_millis()));
    Ok(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}
