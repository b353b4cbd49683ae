//! What commands that promote say and answer.

use super::{ManifestChange, is_false};
use crate::model::{AliasName, EnvironmentName};
use serde::{Deserialize, Serialize};

requests! {
    /// PROMOTE.
    PromoteRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The environment whose version is promoted, or an alias; `staging` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        from: Option<String>,
        /// The environment that gets it, or an alias; `production` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        to: Option<String>,
        /// The alias in `to` that is pointed at it, made if need be; when absent the one that stands for the environment:
        /// `LIVE`, `STAGING`, `DEV`, or the only one there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// The alias in `from` that it is taken from; when absent as for `alias`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        from_alias: Option<String>,
        /// Why, for the audit trail, which says from where in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Check everything, move nothing, and say what would happen.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
    /// PROMOTE_ALL.
    PromoteAllRequest {
        /// The environment whose versions are promoted; `staging` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        from: Option<String>,
        /// The environment that gets them; `production` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        to: Option<String>,
        /// Why, for the audit trail, which says from where in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Say what would change, change nothing.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

messages! {
    /// PROMOTE_ALL.
    PromoteAllResponse {
        /// The environment whose versions are promoted.
        from: String,
        /// The environment that gets them.
        to: String,
        /// Whether nothing was changed because only that was asked for.
        dry_run: bool,
        /// What was changed, or would be, by function.
        changes: Vec<ManifestChange>,
        /// Functions that had the same version in both already.
        unchanged: u32,
        /// Functions that run in `from` and were left out.
        skipped: Vec<SkippedFunction>,
    }
    /// A function that was not promoted with the others.
    SkippedFunction {
        /// Its name.
        function: String,
        /// Why.
        reason: String,
    }
}
