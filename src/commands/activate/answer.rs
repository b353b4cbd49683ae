//! Response of an act.

use super::Act;
use crate::{
    commands::previews::Place,
    model::{DeployOutcome, Deployment, Timestamp, Version},
    protocol::message::DeployResponse,
    router::Entry,
};

impl Act {
    pub(in crate::commands) fn response(
        &self,
        entry: &Entry,
        version: &Version,
        deployment: Option<&Deployment>,
        status: DeployOutcome,
        published: bool,
    ) -> DeployResponse {
        let Place { url, host_url } = Place::of(&self.context, entry, &self.alias);
        DeployResponse {
            deployment_id: deployment.map_or_else(String::new, |it| it.id.to_string()),
            function_id: entry.function.id.to_string(),
            function: entry.function.name.to_string(),
            version: version.label.to_string(),
            number: version.number,
            alias: self.alias.to_string(),
            environment: self.environment(entry).to_string(),
            status,
            weight: self.weight.map(u32::from),
            previous_version: match deployment {
                Some(deployment) => deployment.previous.as_ref().map(ToString::to_string),
                None => self.previous(entry, &version.label).map(ToString::to_string),
            },
            previous_weight: self.ended_share(entry, version, status),
            published,
            reused: self.reused,
            unchanged: false,
            new_function: self.new_function,
            digest: version.digest,
            size: version.size,
            duration_ms: self.duration_ms(),
            url,
            host_url,
            expires_at: self.expires_at(status),
            plan: Vec::new(),
        }
    }

    /// Share that the alias's second version had, if the alias's own version gets all invocations back.
    fn ended_share(&self, entry: &Entry, version: &Version, status: DeployOutcome) -> Option<u32> {
        let alias = self.present(entry).filter(|it| it.version == version.id && status == DeployOutcome::Deployed)?;
        alias.split.filter(|_| self.weight.is_none()).map(|it| it.weight.into())
    }

    pub(super) fn duration_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e3
    }

    /// Time at which the alias expires, give or take the time since the commit.
    fn expires_at(&self, status: DeployOutcome) -> Option<Timestamp> {
        let lifetime = self.lifetime.filter(|it| !it.is_zero() && status == DeployOutcome::Deployed)?;
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        Some(Timestamp::from_millis(Timestamp::now().as_millis().saturating_add(lifetime)))
    }
}
