//! What SET_TRAFFIC says, and how an alias's two versions are shown.

use super::VersionRef;
use crate::model::{AliasName, Percent, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// SET_TRAFFIC.
    SetTrafficRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// The version that the share is for, a label, a number or an alias; the one that the alias points at when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<VersionRef>,
        /// Its share in whole percent, 0 to 100; the other version has the rest. All for the alias's own version ends the
        /// split; the shares stay when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Percent>")]
        weight: Option<u32>,
        /// What tells callers apart, so that each stays with one version: `header:<name>`, `cookie:<name>`, or `none`;
        /// as before when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^(none|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})$"))]
        sticky: Option<String>,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
}

messages! {
    /// The second version of an alias.
    SplitInfo {
        /// The label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its share in percent; the version that the alias points at has the rest.
        weight: u32,
    }
}
