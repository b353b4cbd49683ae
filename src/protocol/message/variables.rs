//! What commands about variables and secrets say and answer. No answer holds the value of a secret.

use super::is_false;
use crate::model::{EnvironmentName, SecretAction, SecretText, Timestamp, VariableKey};
use serde::{Deserialize, Serialize};

requests! {
    /// SET_VARIABLES: what `key` and `value` say, what `variables` lists and what `dotenv` holds, all at once or nothing.
    SetVariablesRequest {
        /// Id or name; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// An environment; all environments when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// The name of one variable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<VariableKey>")]
        key: Option<String>,
        /// Its value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<SecretText>,
        /// Whether what this request sets is secret. When absent, what is a secret stays one, and all else is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_secret: Option<bool>,
        /// Any number of variables.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        variables: Vec<VariableInput>,
        /// The text of a `.env` file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dotenv: Option<SecretText>,
        /// Refuse what is not there yet, and to make a secret of what is none.
        #[serde(default)]
        only_existing: bool,
    }
    /// A variable of SET_VARIABLES.
    VariableInput {
        /// Its name.
        #[schemars(with = "VariableKey")]
        key: String,
        /// Its value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<SecretText>,
        /// Whether it is a secret; as the request says when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_secret: Option<bool>,
        /// Instead of a value: what this generation of the secret was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_generation: Option<u32>,
    }
    /// LIST_VARIABLES.
    ListVariablesRequest {
        /// Id or name; the variables for all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// An environment; all of them when absent, and `production` with `resolved`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// What the function finds in that environment, wherever it comes from.
        #[serde(default)]
        resolved: bool,
        /// Ask for the values of secrets. This is refused, and noted in the audit trail.
        #[serde(default)]
        reveal: bool,
    }
    /// DELETE_VARIABLES: `key` and `keys`, all of them or none.
    DeleteVariablesRequest {
        /// Id or name; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// An environment; all environments when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// A name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<VariableKey>")]
        key: Option<String>,
        /// More names.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<VariableKey>")]
        keys: Vec<String>,
        /// Refuse what is no secret.
        #[serde(default, skip_serializing_if = "is_false")]
        only_secrets: bool,
    }
    /// SECRET_GENERATIONS.
    SecretGenerationsRequest {
        /// Id or name; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// An environment; all environments when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// The secret's name.
        #[schemars(with = "VariableKey")]
        key: String,
    }
    /// SECRET_AUDIT.
    SecretAuditRequest {
        /// Id or name; what concerns any function or none when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// Rows at most; 100 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
    }
    /// ROTATE_MASTER_KEY.
    RotateMasterKeyRequest {
    }
}

messages! {
    /// SET_VARIABLES and DELETE_VARIABLES.
    ChangeVariablesResponse {
        /// Names that were not there before.
        created: Vec<String>,
        /// Names that have another value now.
        changed: Vec<String>,
        /// Names that had this value before.
        unchanged: Vec<String>,
        /// Names that are there no more.
        deleted: Vec<String>,
        /// What became of running workers.
        workers: RenewalInfo,
        /// What whoever asked should know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    /// What became of running workers after a change.
    RenewalInfo {
        /// Pools whose workers had to be replaced.
        pools: u32,
        /// Pools where some calls still get a worker with the values from before.
        pending: u32,
        /// Why a worker with the present values did not start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    }
    /// LIST_VARIABLES.
    ListVariablesResponse {
        /// By name, then from the nearest place to the farthest.
        variables: Vec<VariableInfo>,
    }
    /// A variable.
    VariableInfo {
        /// Its name.
        #[schemars(with = "VariableKey")]
        key: String,
        /// Its value; absent where it is a secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// Whether it is a secret.
        is_secret: bool,
        /// A secret's present generation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
        /// For whom it is.
        #[serde(flatten)]
        place: PlaceInfo,
        /// With `resolved`: other places that have it too, whose values do not count, the next first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hides: Vec<PlaceInfo>,
        /// Who set it last.
        actor: String,
        /// When it was first set.
        created_at: Timestamp,
        /// When it was last set.
        updated_at: Timestamp,
    }
    /// For whom a variable is.
    PlaceInfo {
        /// The function's id; absent where it is for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// The environment; absent where it is for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
    }
    /// SECRET_GENERATIONS.
    SecretGenerationsResponse {
        /// The latest first.
        generations: Vec<GenerationInfo>,
    }
    /// A generation of a secret.
    GenerationInfo {
        /// Its number, from 1.
        generation: u32,
        /// Whether it is the one that functions get.
        is_current: bool,
        /// Who set it.
        actor: String,
        /// When.
        created_at: Timestamp,
    }
    /// SECRET_AUDIT.
    SecretAuditResponse {
        /// The newest first.
        entries: Vec<SecretAuditInfo>,
    }
    /// What was done with a secret.
    SecretAuditInfo {
        /// When; of several injections, the first.
        at: Timestamp,
        /// `set`, `rotate`, `delete`, `inject`, `reveal_denied`, `rotate_master_key` or `change_environment`.
        action: SecretAction,
        /// By whom.
        actor: String,
        /// The function it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// That function's name, unless it is deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
        /// The environment it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// The secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<VariableKey>")]
        key: Option<String>,
        /// Its generation afterwards.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
        /// More about it: of an injection, the version and the secrets with their generations.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// How many injections that followed each other and were the same it stands for.
        count: u32,
        /// When the last of them was.
        last_at: Timestamp,
    }
    /// ROTATE_MASTER_KEY.
    RotateMasterKeyResponse {
        /// Which key secrets are sealed with now; it says nothing about the key.
        key_id: String,
        /// How many data keys were sealed anew.
        data_keys: u32,
    }
}
