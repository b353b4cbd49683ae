//! What commands about policies and rollouts say and answer.

use super::VersionRef;
use crate::model::{
    AliasName, Counts, FunctionId, Policy, RolloutId, RolloutStatus, Timestamp, VersionLabel, rollout::Step,
};
use crate::protocol::field::object_or_none;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// SET_POLICY.
    SetPolicyRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// By what it goes back by itself, in place of what there was; when absent, it has no policy any more.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        policy: Option<Policy>,
        /// Change nothing, only answer.
        #[serde(default)]
        show: bool,
    }
    /// LIST_ROLLOUTS.
    RolloutsRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Only those of this alias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// Rollouts at most; 100 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// The `next_cursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
}

messages! {
    /// START_ROLLOUT.
    StartRolloutRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The version that gets more and more of the calls: a label, or a number.
        version: VersionRef,
        /// Shares that rise to 100 %, and how long each is held: `10% 5m, 50% 5m, 100%`.
        plan: String,
        /// The alias whose calls it gets; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// CONTROL_ROLLOUT.
    ControlRolloutRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// What becomes of its rollout.
        action: RolloutAction,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    /// SET_POLICY: the policy that holds, and how its version does.
    PolicyResponse {
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The alias.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The policy; absent where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<Policy>,
        /// The label of the version under judgement.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its calls within the window.
        counts: Counts,
        /// Until when it is not judged, because the alias has just gone back to it by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rests_until: Option<Timestamp>,
        /// What was found last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_verdict: Option<PolicyVerdict>,
    }
    /// A limit that was not kept.
    PolicyVerdict {
        /// When.
        at: Timestamp,
        /// The label of the version it was about.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The label that the alias went back to; absent for a warning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        went_back_to: Option<String>,
        /// The arithmetic.
        reason: String,
    }
    /// A rollout; START_ROLLOUT and CONTROL_ROLLOUT answer with it.
    RolloutDetails {
        /// Its identity.
        #[schemars(with = "RolloutId")]
        rollout_id: String,
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The alias whose calls it moves.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The label of the version that gets them.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version.
        number: u32,
        /// `running`, `paused`, `done` or `aborted`.
        status: RolloutStatus,
        /// The plan as it is written.
        plan: String,
        /// The plan.
        steps: Vec<Step>,
        /// The step that goes on, from 1; where it ended, for one that is over.
        step: u32,
        /// How long until the next step; absent for one that does not run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_in_ms: Option<u64>,
        /// Who started it.
        actor: String,
        /// Why.
        reason: Option<String>,
        /// Why it was paused or aborted.
        outcome: Option<String>,
        /// When it was started.
        created_at: Timestamp,
        /// When it last changed.
        updated_at: Timestamp,
        /// When it ended.
        finished_at: Option<Timestamp>,
    }
    /// LIST_ROLLOUTS.
    RolloutsResponse {
        /// The latest first.
        rollouts: Vec<RolloutDetails>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
}

/// What becomes of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutAction {
    /// It keeps its present share.
    Pause,
    /// It goes on; the hold of its present step begins anew.
    Resume,
    /// It ends, and all calls go to the alias's own version.
    Abort,
}
