//! Messages of the commands that promote versions.

use super::{ManifestChange, is_false};
use crate::model::{AliasName, EnvironmentName};
use serde::{Deserialize, Serialize};

requests! {
    /// PROMOTE.
    PromoteRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Source: an environment or an alias; `staging` when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        from?: String,
        /// Target: an environment or an alias; `production` when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        to?: String,
        /// Alias in `to` to point at the version, created if needed. When absent, the alias that represents the
        /// environment: `LIVE`, `STAGING`, `DEV`, or the only one there.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Alias in `from` whose version is promoted. When absent, the alias that represents the environment, as for
        /// `alias`.
        #[schemars(with = "Option<AliasName>")]
        from_alias?: String,
        /// Reason, for the audit trail, which records the source in any case.
        reason?: String,
        /// Whether this is a dry run: everything is checked, no alias moves, and the answer holds the plan.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
    /// PROMOTE_ALL.
    PromoteAllRequest {
        /// Source environment; `staging` when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        from?: String,
        /// Target environment; `production` when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        to?: String,
        /// Reason, for the audit trail, which records the source in any case.
        reason?: String,
        /// Whether this is a dry run: the answer lists the changes, and nothing changes.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

messages! {
    /// PROMOTE_ALL.
    PromoteAllResponse {
        /// Source environment.
        from: String,
        /// Target environment.
        to: String,
        /// Whether this was a dry run, which changes nothing.
        dry_run: bool,
        /// Aliases that were changed, or would be, sorted by function.
        changes: Vec<ManifestChange>,
        /// Number of functions that had the same version in both already.
        unchanged: u32,
        /// Functions that run in `from` and were skipped.
        skipped: Vec<SkippedFunction>,
    }
    /// A function that was skipped.
    SkippedFunction {
        /// Name of the function.
        function: String,
        /// Reason why it was skipped.
        reason: String,
    }
}
