//! Response of a move.

use super::{Placement, Plan};
use crate::{
    commands::previews::Place,
    model::{DeployOutcome, Deployment, Timestamp},
    protocol::message::DeployResponse,
};

impl Placement {
    pub(in crate::commands) fn answer(
        &self,
        plan: &Plan,
        deployment: Option<&Deployment>,
        status: DeployOutcome,
    ) -> DeployResponse {
        let Plan { entry, wanted, version, delivery, .. } = plan;
        let Place { url, host_url } = Place::of(&self.context, entry, &wanted.alias);
        let is_deployed = status == DeployOutcome::Deployed;
        DeployResponse {
            deployment_id: deployment.map_or_else(String::new, |it| it.id.to_string()),
            function_id: entry.function.id,
            function: entry.function.name.to_string(),
            version: version.label.clone(),
            number: version.number,
            alias: wanted.alias.clone(),
            environment: plan.environment.clone(),
            status,
            weight: wanted.weight.map(u32::from),
            previous_version: match deployment {
                Some(deployment) => deployment.previous.as_ref().cloned(),
                None => plan.previous().cloned(),
            },
            previous_weight: plan.ended_share().filter(|_| is_deployed).map(u32::from),
            published: delivery.is_new && status != DeployOutcome::Checked,
            reused: delivery.reused,
            unchanged: false,
            new_function: delivery.new_function,
            digest: version.digest,
            size: version.size,
            duration_ms: wanted.duration_ms(),
            url,
            host_url,
            expires_at: is_deployed.then(|| expires_at(plan)).flatten(),
            plan: Vec::new(),
        }
    }
}

/// Time at which the alias expires, give or take the time since the commit.
fn expires_at(plan: &Plan) -> Option<Timestamp> {
    let lifetime = plan.wanted.change.lifetime.filter(|it| !it.is_zero())?;
    let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    Some(Timestamp::from_millis(Timestamp::now().as_millis().saturating_add(lifetime)))
}
