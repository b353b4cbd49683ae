//! Admission of a function to this node beside the others.
//!
//! Warm workers are promises, and no function gives its own up for another. A floor that the node cannot keep is
//! therefore refused before anything changes, with the sum that shows why. Workers that are warm by chance never count:
//! they make room.

use crate::{
    commands::Context,
    error::{Error, ErrorCode},
    model::Settings,
    router::Entry,
};
use serde_json::json;

/// Refuses settings that can never run here. `entry` is the function with its present settings, `settings` are the new
/// ones.
pub(in crate::commands) fn check(context: &Context, entry: &Entry, settings: &Settings) -> Result<(), Error> {
    let caps = context.scheduler.node().caps;
    let (wanted, memory_max) = (settings.memory_mb, caps.memory_max >> 20);
    if settings.memory_bytes() > caps.memory_max {
        let message = format!(
            "one worker may have {wanted} MiB (memory_mb), and all workers together may have {memory_max} MiB \
             (workers.memory_mb_max): lower the one or raise the other"
        );
        let details = json!({ "memory_mb": wanted, "memory_mb_max": memory_max });
        return Err(Error { details: Some(details), ..Error::new(ErrorCode::WorkerUnavailable, message) });
    }
    let others = context.router.totals().warm_workers.saturating_sub(entry.warm_workers());
    // A function without a worker of its own could never be invoked.
    let own = u64::from(settings.warm_workers.max(1));
    let (needed, max) = (others + own, caps.workers_max as u64);
    if needed > max {
        let what = if settings.warm_workers == 0 { "the one it needs" } else { "its warm_workers" };
        let message = format!(
            "the node has no room: {others} warm workers of other functions + {own} ({what}) = {needed}, and \
             workers.workers_max is {max}: lower warm_workers or raise workers_max"
        );
        let details = json!({ "others": others, "own": own, "needed": needed, "workers_max": max });
        return Err(Error { details: Some(details), ..Error::new(ErrorCode::WorkerUnavailable, message) });
    }
    Ok(())
}
