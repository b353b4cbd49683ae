//! Messages of the commands about environments.

use super::{SplitInfo, is_false};
use crate::model::{Digest, EnvironmentName, Timestamp, VersionLabel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// CREATE_ENVIRONMENT.
    CreateEnvironmentRequest {
        /// Name of letters, digits, `_` and `-`; it must differ from every other name in more than case.
        #[schemars(with = "EnvironmentName")]
        name: String,
        /// Parent environment, which supplies the variables that this one does not set; no parent when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        parent?: String,
        /// Whether a version that is new to an alias in this environment needs approval.
        #[serde(default, skip_serializing_if = "is_false")]
        protected: bool,
        /// Whether the environment may inherit variables from `production` or a protected environment without being
        /// protected itself.
        #[serde(default, skip_serializing_if = "is_false")]
        allow: bool,
    }
    /// SET_ENVIRONMENT.
    SetEnvironmentRequest {
        /// Name of an existing environment.
        #[schemars(with = "EnvironmentName")]
        name: String,
        /// Whether a version that is new to an alias in this environment needs approval; unchanged when absent.
        protected?: bool,
        /// Parent environment, which supplies the variables that this one does not set; no parent when empty, unchanged
        /// when absent.
        parent?: String,
        /// Whether the change may let unprotected environments inherit variables from `production` or a protected
        /// environment.
        #[serde(default, skip_serializing_if = "is_false")]
        allow: bool,
    }
    /// LIST_ENVIRONMENTS.
    EnvironmentsRequest {
        /// Most environments in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// The `next_cursor` of the previous page.
        cursor?: String,
    }
    /// GET_ENVIRONMENT.
    EnvironmentRequest {
        /// Name of the environment.
        #[schemars(with = "EnvironmentName")]
        name: String,
    }
    /// DELETE_ENVIRONMENT.
    DeleteEnvironmentRequest {
        /// Name of the environment.
        #[schemars(with = "EnvironmentName")]
        name: String,
    }
    /// COMPARE_ENVIRONMENTS.
    CompareEnvironmentsRequest {
        /// Name of the first environment.
        #[schemars(with = "EnvironmentName")]
        from: String,
        /// Name of the second environment.
        to: String,
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
    }
}

messages! {
    /// LIST_ENVIRONMENTS.
    EnvironmentsResponse {
        /// Sorted by name.
        environments: Vec<EnvironmentInfo>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// An environment. CREATE_ENVIRONMENT, SET_ENVIRONMENT and DELETE_ENVIRONMENT.
    EnvironmentInfo {
        /// Name of the environment.
        name: EnvironmentName,
        /// Parent environment, which supplies the variables that this one does not set.
        parent: Option<String>,
        /// Whether a version that is new to an alias in this environment needs approval.
        protected: bool,
        /// Number of aliases that run in the environment, of all functions.
        aliases: u32,
        /// When the environment was created.
        created_at: Timestamp,
        /// Warnings about the change.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    /// GET_ENVIRONMENT.
    EnvironmentDetails {
        /// The fields of LIST_ENVIRONMENTS.
        #[serde(flatten)]
        info: EnvironmentInfo,
        /// Environments that it inherits variables from, the parent first.
        ancestors: Vec<String>,
        /// Environments that have this one as their parent.
        children: Vec<String>,
        /// Aliases that run in the environment, sorted by function and alias.
        runs: Vec<EnvironmentRun>,
    }
    /// An alias that runs in an environment.
    EnvironmentRun {
        /// Name of the function.
        function: String,
        /// Name of the alias.
        alias: String,
        /// Label of the version that the alias points at.
        version: VersionLabel,
        /// Number of that version.
        number: u32,
        /// The alias's second version and its share of the invocations; absent without a traffic split.
        split?: SplitInfo,
    }
    /// COMPARE_ENVIRONMENTS.
    CompareEnvironmentsResponse {
        /// Name of the first environment.
        from: String,
        /// Name of the second environment.
        to: String,
        /// Functions that run in at least one of the two, sorted by name.
        functions: Vec<ComparedFunction>,
    }
    /// A function in two environments.
    ComparedFunction {
        /// Name of the function.
        function: String,
        /// Id of the function.
        #[schemars(length(min = 1))]
        function_id: String,
        /// State of the first environment compared with the second.
        state: ComparedState,
        /// Version in the first environment.
        from?: ComparedSide,
        /// Version in the second environment.
        to?: ComparedSide,
        /// Reason why a side is missing although the function runs there.
        note?: String,
        /// Variables that differ, without their values.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        variables: Vec<ComparedVariable>,
    }
    /// A function in one of two compared environments.
    ComparedSide {
        /// Name of the alias that represents the environment.
        alias: String,
        /// Label of the version that the alias points at.
        version: VersionLabel,
        /// Number of that version.
        number: u32,
        /// SHA-256 digest of the version's bundle.
        digest: Digest,
        /// The alias's second version and its share of the invocations; absent without a traffic split.
        split?: SplitInfo,
    }
    /// A variable that differs between two environments.
    ComparedVariable {
        /// Name of the variable.
        name: String,
        /// Whether the variable is a secret.
        secret: bool,
        /// Generation in the first environment, 0 for a plain variable; absent if the environment does not have it.
        from?: u32,
        /// Generation in the second environment, 0 for a plain variable; absent if the environment does not have it.
        to?: u32,
    }
}

/// State of one environment compared with another, by the numbers of a function's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparedState {
    /// Both run the same code.
    InSync,
    /// The first has a later version.
    Ahead,
    /// The first has an earlier version.
    Behind,
    /// The function runs in the first environment only.
    OnlyFrom,
    /// The function runs in the second environment only.
    OnlyTo,
    /// The two cannot be ordered. Either an environment has no unambiguous alias for the function, as the note says, or
    /// both run the same version with different traffic splits.
    Unclear,
}
