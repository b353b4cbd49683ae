//! Messages of the commands about policies and rollouts.

use super::VersionRef;
use crate::model::{
    AliasName, FunctionId, Policy, PolicyCounts, RolloutId, RolloutStatus, Timestamp, VersionLabel,
    rollout::RolloutStep,
};
use crate::protocol::field::object_or_none;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// SET_POLICY.
    SetPolicyRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// New policy, which replaces the current one; when absent, the policy is removed.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        policy: Option<Policy>,
        /// Whether the command only shows the policy and changes nothing.
        #[serde(default)]
        show: bool,
    }
    /// LIST_ROLLOUTS.
    RolloutsRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Only rollouts of this alias.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Most rollouts in the answer; 100 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// The `next_cursor` of the previous page.
        cursor?: String,
    }
}

messages! {
    /// START_ROLLOUT.
    StartRolloutRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Version to roll out: a label or a number.
        version: VersionRef,
        /// Rising shares up to 100 %, and the time that each is held: `10% 5m, 50% 5m, 100%`.
        plan: String,
        /// Alias whose traffic the version gets; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Reason, for the audit trail.
        reason?: String,
    }
    /// CONTROL_ROLLOUT.
    ControlRolloutRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Action on the alias's rollout.
        action: RolloutAction,
        /// Reason, for the audit trail.
        reason?: String,
    }
    /// SET_POLICY. The policy in force, and the counts of the version that it judges.
    PolicyResponse {
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the alias.
        alias: AliasName,
        /// Policy of the alias; absent if it has none.
        policy?: Policy,
        /// Label of the version that the policy judges.
        version: VersionLabel,
        /// Counts of that version's invocations within the window.
        counts: PolicyCounts,
        /// End of the cooldown, during which the version is not judged because the alias was just rolled back to it
        /// automatically.
        rests_until?: Timestamp,
        /// Last violation of the policy.
        last_verdict?: PolicyVerdict,
    }
    /// A violation of a policy's limit.
    PolicyVerdict {
        /// When the violation was found.
        at: Timestamp,
        /// Label of the version that violated it.
        version: VersionLabel,
        /// Label of the version that the alias was rolled back to; absent for a warning.
        went_back_to?: String,
        /// The limit and the measured value, in words.
        reason: String,
    }
    /// A rollout; the answer of START_ROLLOUT and CONTROL_ROLLOUT.
    RolloutDetails {
        /// Id of the rollout.
        rollout_id: RolloutId,
        /// Id of the function.
        function_id: FunctionId,
        /// Alias whose traffic the rollout moves.
        alias: AliasName,
        /// Label of the version that gets the traffic.
        version: VersionLabel,
        /// Number of that version.
        number: u32,
        /// `running`, `paused`, `done` or `aborted`.
        status: RolloutStatus,
        /// Plan as text: `10% 5m, 50% 5m, 100%`.
        plan: String,
        /// Steps of the plan.
        steps: Vec<RolloutStep>,
        /// Current step, from 1; the last step that was reached, if the rollout has ended.
        step: u32,
        /// Time until the next step, in milliseconds; absent unless the rollout is running.
        next_in_ms?: u64,
        /// Actor who started the rollout.
        actor: String,
        /// Reason that the actor gave.
        reason: Option<String>,
        /// Reason why it was paused or aborted.
        outcome: Option<String>,
        /// When the rollout was started.
        created_at: Timestamp,
        /// When the rollout last changed.
        updated_at: Timestamp,
        /// When the rollout ended.
        finished_at: Option<Timestamp>,
    }
    /// LIST_ROLLOUTS.
    RolloutsResponse {
        /// Sorted from the newest to the oldest.
        rollouts: Vec<RolloutDetails>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
}

/// Action on a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutAction {
    /// Keep the current share.
    Pause,
    /// Continue. The hold time of the current step starts again.
    Resume,
    /// End the rollout. All traffic returns to the alias's own version.
    Abort,
}
