//! What commands about environments say and answer.

use super::{SplitInfo, is_false};
use crate::model::{Digest, EnvironmentName, Timestamp, VersionLabel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// CREATE_ENVIRONMENT.
    CreateEnvironmentRequest {
        /// Letters, digits, `_` and `-`; no other differs from it only in case.
        #[schemars(with = "EnvironmentName")]
        name: String,
        /// The environment it takes variables from where it has none of its own; none when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        parent: Option<String>,
        /// Whether a version that is new to an alias in it needs approval.
        #[serde(default, skip_serializing_if = "is_false")]
        protected: bool,
        /// Whether it may take variables from `production` or a protected environment without being protected itself.
        #[serde(default, skip_serializing_if = "is_false")]
        allow: bool,
    }
    /// SET_ENVIRONMENT.
    SetEnvironmentRequest {
        /// The environment, which is there.
        #[schemars(with = "EnvironmentName")]
        name: String,
        /// Whether a version that is new to an alias in it needs approval; as before when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protected: Option<bool>,
        /// The environment it takes variables from where it has none of its own; none when empty, as before when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// Whether environments that are not protected may take variables from `production` or a protected one by this.
        #[serde(default, skip_serializing_if = "is_false")]
        allow: bool,
    }
    /// LIST_ENVIRONMENTS.
    EnvironmentsRequest {
        /// Environments at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// The `next_cursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// GET_ENVIRONMENT.
    EnvironmentRequest {
        /// Its name.
        #[schemars(with = "EnvironmentName")]
        name: String,
    }
    /// DELETE_ENVIRONMENT.
    DeleteEnvironmentRequest {
        /// Its name.
        #[schemars(with = "EnvironmentName")]
        name: String,
    }
    /// COMPARE_ENVIRONMENTS.
    CompareEnvironmentsRequest {
        /// One environment.
        #[schemars(with = "EnvironmentName")]
        from: String,
        /// The other one.
        to: String,
        /// Id or name of the one function it is about; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
    }
}

messages! {
    /// LIST_ENVIRONMENTS.
    EnvironmentsResponse {
        /// By name.
        environments: Vec<EnvironmentInfo>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// An environment. CREATE_ENVIRONMENT, SET_ENVIRONMENT and DELETE_ENVIRONMENT.
    EnvironmentInfo {
        /// Its name.
        #[schemars(with = "EnvironmentName")]
        name: String,
        /// The environment it takes variables from where it has none of its own.
        parent: Option<String>,
        /// Whether a version that is new to an alias in it needs approval.
        protected: bool,
        /// Aliases that run in it, of all functions.
        aliases: u32,
        /// When it was made.
        created_at: Timestamp,
        /// After a change: what whoever asked should know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    /// GET_ENVIRONMENT.
    EnvironmentDetails {
        /// All that a list says of it.
        #[serde(flatten)]
        info: EnvironmentInfo,
        /// The environments it takes variables from, the nearest first.
        ancestors: Vec<String>,
        /// The environments whose parent it is.
        children: Vec<String>,
        /// What runs in it, by function and alias.
        runs: Vec<EnvironmentRun>,
    }
    /// An alias that runs in an environment.
    EnvironmentRun {
        /// The function's name.
        function: String,
        /// The alias.
        alias: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version.
        number: u32,
        /// The second version, which has a share of its calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<SplitInfo>,
    }
    /// COMPARE_ENVIRONMENTS.
    CompareEnvironmentsResponse {
        /// One environment.
        from: String,
        /// The other one.
        to: String,
        /// The functions that run in one of them at least, by name.
        functions: Vec<ComparedFunction>,
    }
    /// A function in two environments.
    ComparedFunction {
        /// Its name.
        function: String,
        /// Its id.
        #[schemars(length(min = 1))]
        function_id: String,
        /// How the first environment stands to the second.
        state: ComparedState,
        /// What runs in the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ComparedSide>,
        /// What runs in the second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<ComparedSide>,
        /// Why a side is missing although something runs there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// The variables that differ; no value is among it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        variables: Vec<ComparedVariable>,
    }
    /// What a function is in an environment.
    ComparedSide {
        /// The alias that stands for the environment.
        alias: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version.
        number: u32,
        /// What its code hashes to.
        digest: Digest,
        /// The second version, which has a share of its calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<SplitInfo>,
    }
    /// A variable that is not the same in two environments.
    ComparedVariable {
        /// Its name.
        name: String,
        /// Whether it is a secret.
        secret: bool,
        /// Its generation in the first environment, 0 where it is no secret; absent where that does not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
        /// The same in the second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
    }
}

/// How one environment stands to another, by the numbers of a function's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparedState {
    /// Both have the same code.
    InSync,
    /// The first has a later version.
    Ahead,
    /// The first has an earlier version.
    Behind,
    /// Nothing stands for the function in the second.
    OnlyFrom,
    /// Nothing stands for the function in the first.
    OnlyTo,
    /// It is not clear what stands for the function in either; the note says why.
    Unclear,
}
