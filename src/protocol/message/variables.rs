//! Messages of the commands about variables and secrets. No answer holds the value of a secret.

use super::is_false;
use crate::model::{EnvironmentName, SecretAction, SecretText, Timestamp, VariableKey};
use serde::{Deserialize, Serialize};

requests! {
    /// SET_VARIABLES. Sets the variable in `key` and `value` and those in `variables` and `dotenv`, all or none.
    SetVariablesRequest {
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of the environment; all environments when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        environment?: String,
        /// Name of one variable.
        #[schemars(with = "Option<VariableKey>")]
        key?: String,
        /// Value of that variable.
        value?: SecretText,
        /// Whether the variables of this request are secrets. When absent, existing secrets stay secrets, and all other
        /// variables are plain.
        is_secret?: bool,
        /// List of variables to set.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        variables: Vec<VariableInput>,
        /// Text of a `.env` file with variables to set.
        dotenv?: SecretText,
        /// Whether the request is refused if it sets a new variable, or turns a plain variable into a secret.
        #[serde(default)]
        only_existing: bool,
    }
    /// A variable to set.
    VariableInput {
        /// Name of the variable.
        #[schemars(with = "VariableKey")]
        key: String,
        /// Value of the variable.
        value?: SecretText,
        /// Whether the variable is a secret; the request's `is_secret` applies when absent.
        is_secret?: bool,
        /// Generation of the secret whose value is restored, instead of a value.
        from_generation?: u32,
    }
    /// LIST_VARIABLES.
    ListVariablesRequest {
        /// The function's id or name; when absent, the variables for all functions.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of the environment; when absent, all environments, or `production` with `resolved`.
        #[schemars(with = "Option<EnvironmentName>")]
        environment?: String,
        /// Whether to list the variables that apply to the function in that environment, from every place.
        #[serde(default)]
        resolved: bool,
        /// Whether to show the values of secrets. Such a request is refused, and recorded in the audit trail.
        #[serde(default)]
        reveal: bool,
    }
    /// DELETE_VARIABLES. Deletes the variables in `key` and `keys`, all or none.
    DeleteVariablesRequest {
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of the environment; all environments when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        environment?: String,
        /// Name of one variable.
        #[schemars(with = "Option<VariableKey>")]
        key?: String,
        /// Names of further variables.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<VariableKey>")]
        keys: Vec<String>,
        /// Whether the request is refused if one of the variables is plain.
        #[serde(default, skip_serializing_if = "is_false")]
        only_secrets: bool,
    }
    /// SECRET_GENERATIONS.
    SecretGenerationsRequest {
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of the environment; all environments when absent.
        #[schemars(with = "Option<EnvironmentName>")]
        environment?: String,
        /// Name of the secret.
        #[schemars(with = "VariableKey")]
        key: String,
    }
    /// SECRET_AUDIT.
    SecretAuditRequest {
        /// The function's id or name; when absent, the whole audit trail, including rows that concern no function.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Most rows in the answer; 100 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
    }
    /// ROTATE_MASTER_KEY.
    RotateMasterKeyRequest {
    }
}

messages! {
    /// SET_VARIABLES and DELETE_VARIABLES.
    ChangeVariablesResponse {
        /// Names of new variables.
        created: Vec<String>,
        /// Names of variables with a new value.
        changed: Vec<String>,
        /// Names of variables that had this value already.
        unchanged: Vec<String>,
        /// Names of deleted variables.
        deleted: Vec<String>,
        /// Renewal of the running workers.
        workers: RenewalInfo,
        /// Warnings about the change.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    /// Renewal of the running workers after a change.
    RenewalInfo {
        /// Number of pools whose workers had to be replaced.
        pools: u32,
        /// Number of pools where some invocations still get the old values.
        pending: u32,
        /// Reason why a worker with the new values did not start.
        failure?: String,
    }
    /// LIST_VARIABLES.
    ListVariablesResponse {
        /// Sorted by name, then from the most specific place to the least specific.
        variables: Vec<VariableInfo>,
    }
    /// A variable.
    VariableInfo {
        /// Name of the variable.
        key: VariableKey,
        /// Value of the variable; absent for a secret.
        value?: String,
        /// Whether the variable is a secret.
        is_secret: bool,
        /// Current generation of a secret.
        generation?: u32,
        /// Place of the variable.
        #[serde(flatten)]
        place: PlaceInfo,
        /// With `resolved`: further places that set the variable, which have no effect, the most specific first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hides: Vec<PlaceInfo>,
        /// Actor who set it last.
        actor: String,
        /// When the variable was first set.
        created_at: Timestamp,
        /// When the variable was last set.
        updated_at: Timestamp,
    }
    /// Place of a variable: the function and the environment that it is set for.
    PlaceInfo {
        /// Id of the function; absent for all functions.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of the environment; absent for all environments.
        environment?: EnvironmentName,
    }
    /// SECRET_GENERATIONS.
    SecretGenerationsResponse {
        /// Sorted from the newest to the oldest.
        generations: Vec<GenerationInfo>,
    }
    /// One generation of a secret.
    GenerationInfo {
        /// Number of the generation, from 1.
        generation: u32,
        /// Whether functions get this generation.
        is_current: bool,
        /// Actor who set it.
        actor: String,
        /// When the generation was set.
        created_at: Timestamp,
    }
    /// SECRET_AUDIT.
    SecretAuditResponse {
        /// Sorted from the newest to the oldest.
        entries: Vec<SecretAuditInfo>,
    }
    /// One row of the audit trail of secrets.
    SecretAuditInfo {
        /// Time of the action; for several injections, of the first one.
        at: Timestamp,
        /// `set`, `rotate`, `delete`, `inject`, `reveal_denied`, `rotate_master_key` or `change_environment`.
        action: SecretAction,
        /// Actor who did it.
        actor: String,
        /// Id of the function that it concerns.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Name of that function; absent if it is deleted.
        function?: String,
        /// Environment that it concerns.
        environment?: EnvironmentName,
        /// Name of the secret.
        key?: VariableKey,
        /// Generation of the secret after the action.
        generation?: u32,
        /// Details; for an injection, the version and the secrets with their generations.
        detail?: String,
        /// Number of identical successive injections that this row stands for.
        count: u32,
        /// Time of the last of them.
        last_at: Timestamp,
    }
    /// ROTATE_MASTER_KEY.
    RotateMasterKeyResponse {
        /// Id of the key that secrets are encrypted with now. It reveals nothing about the key.
        key_id: String,
        /// Number of data keys that were encrypted again.
        data_keys: u32,
    }
}
