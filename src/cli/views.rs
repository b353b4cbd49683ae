//! Texts about pools, aliases and deployments that several commands show.

use super::print::{RED, styled, table};
use super::text;
use crate::model::{DeploymentKind, VersionLabel};
use crate::protocol::message::{DeploymentInfo, PoolInfo, SplitInfo};

/// Said where there is no function yet.
pub(super) const NO_FUNCTIONS: &str = "no functions yet: try `levain deploy hello ./hello.ts`";

/// Table of the workers in each pool.
pub(super) fn pools_text(pools: &[PoolInfo]) -> String {
    let heads =
        ["FUNCTION", "VERSION", "ENVIRONMENT", ">STARTING", ">IDLE", ">BUSY", ">RETIRING", ">STOPPING", ">QUEUED"];
    let rows = pools.iter().map(|it| {
        let [starting, idle, busy, retiring, stopping, queued] =
            [it.planned + it.starting, it.idle, it.busy, it.retiring, it.stopping, it.queued].map(|it| it.to_string());
        let (function, version, environment) = (it.function.clone(), it.version.clone(), it.environment.clone());
        [function, version.to_string(), environment.to_string(), starting, idle, busy, retiring, stopping, queued]
    });
    let mut shown = table(heads, rows);
    for pool in pools.iter().filter(|it| it.failed_starts > 0) {
        let PoolInfo { function, version, failed_starts, retry_in_ms, .. } = pool;
        let retry = text::duration_ms(*retry_in_ms as f64);
        shown.push_str(&styled(
            RED,
            format!("{function} {version} is unhealthy: {failed_starts} starts failed in a row, the next is tried in {retry}\n"),
        ));
    }
    for pool in pools.iter().filter(|it| it.planned > 0) {
        let PoolInfo { function, version, planned, .. } = pool;
        shown.push_str(&format!(
            "{function} {version} waits for capacity: {planned} workers start once the node has room\n"
        ));
    }
    shown
}

/// The versions of an alias, such as `v1` or `v1 90 %, v2 10 %`.
pub(super) fn targets_text(own: &VersionLabel, split: Option<&SplitInfo>) -> String {
    match split {
        None => own.to_string(),
        Some(SplitInfo { version, weight }) => format!("{own} {} %, {version} {weight} %", 100 - weight),
    }
}

/// Formats the change: `v1 → v2`, `v1 → none` where the alias was deleted, or `v1 → v2 10 %` where v2 got only a share.
pub(super) fn change_text(deployment: &DeploymentInfo) -> String {
    if deployment.kind == DeploymentKind::Remove {
        return format!("{} → none", deployment.version);
    }
    let before = deployment.previous_version.as_ref().map(|it| format!("{it} → ")).unwrap_or_default();
    let share = deployment.weight.map(|it| format!(" {it} %")).unwrap_or_default();
    format!("{before}{}{share}", deployment.version)
}
