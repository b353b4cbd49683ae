//! The expiry of previews.

use crate::{
    commands::{
        Context,
        previews::{has_expired, remove},
    },
    model::Timestamp,
    store::Removal,
};
use std::{sync::Arc, time::Duration};

/// Longest time between searches for expired previews, because the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Time between a failed deletion and the next try.
const RETRY: Duration = Duration::from_secs(5);

/// Actor of expiry in the audit trail.
const ACTOR: &str = "ttl";

/// Deletes expired previews, until the daemon stops.
pub async fn keep_previews(context: Arc<Context>) {
    let keep = async {
        loop {
            let next = expire(&context).await;
            tokio::select! {
                () = context.wakes.expiring.notified() => {}
                () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
            }
        }
    };
    context.stopping.run_until_cancelled(keep).await;
}

/// Deletes expired previews, and returns the time until the next one may be due.
async fn expire(context: &Arc<Context>) -> Duration {
    let expiring = match context.blocking(|context| Ok(context.store.expiring()?)).await {
        Ok(expiring) => expiring,
        Err(error) => {
            tracing::warn!(%error, "cannot look for previews that have expired");
            return RETRY;
        }
    };
    let now = Timestamp::now();
    let mut next = Duration::MAX;
    for (id, alias, at) in expiring {
        if at > now {
            let wait = at.as_millis().saturating_sub(now.as_millis());
            next = next.min(Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX)));
            break;
        }
        let removal = Removal { actor: ACTOR.into(), reason: Some(format!("expired at {at}")), at: now };
        if let Err(error) = remove(context, id, &alias, removal, move |it| has_expired(it, now)).await {
            tracing::warn!(%error, function = %id, %alias, "an expired preview cannot be deleted");
            next = RETRY;
        }
    }
    next
}
