//! Message of SET_TRAFFIC, and the description of a traffic split.

use super::VersionRef;
use crate::model::{AliasName, Percent, Split, Version, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// SET_TRAFFIC.
    SetTrafficRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Name of the alias; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Version that gets the share: a label, a number or an alias. When absent, the version that the alias points
        /// at.
        version?: VersionRef,
        /// Share of that version in whole percent, 0 to 100; the other version gets the rest. A share of 100 for the
        /// alias's own version ends the split. The shares stay when absent.
        #[schemars(with = "Option<Percent>")]
        weight?: u32,
        /// Header or cookie that identifies callers, so that each one stays on one version: `header:<name>`,
        /// `cookie:<name>` or `none`. Unchanged when absent.
        #[schemars(regex(pattern = "^(none|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})$"))]
        sticky?: String,
        /// Reason, for the audit trail.
        reason?: String,
    }
}

messages! {
    /// The second version of an alias.
    SplitInfo {
        /// Label of the version.
        version: VersionLabel,
        /// Share of the version in percent; the version that the alias points at gets the rest.
        weight: u32,
    }
}

impl SplitInfo {
    /// Describes the second version of an alias.
    #[must_use]
    pub fn new(version: &Version, split: Split) -> Self {
        Self { version: version.label.clone(), weight: split.weight.into() }
    }
}
