//! Deployments that wait for approval: listed, approved, rejected.

use super::error::CliError;
use super::outcome;
use super::print::table;
use super::session::Session;
use super::text;
use super::views::change_text;
use crate::model::{DeploymentStatus, Timestamp};
use crate::protocol::message::{DecideRequest, DeploymentInfo, DeploymentsRequest};
use clap::Args;

/// `levain approvals`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain approvals         of all functions\n  levain approvals hello")]
pub(super) struct Approvals {
    /// The function's name or id [default: all]
    name: Option<String>,
}

const APPROVE_EXAMPLES: &str = "Examples:
  levain approve hello         the only waiting deployment of hello
  levain approve 0123456789ab  by the beginning or the end of its id
  levain approve deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab --reason 'reviewed'

The version is loaded again, then its alias moves. If it does not load, the deployment keeps waiting.";

/// `levain approve`.
#[derive(Debug, Args)]
#[command(after_help = APPROVE_EXAMPLES)]
pub(super) struct Approve {
    /// The deployment's id, a unique beginning or end of it, or a function with one waiting deployment
    deployment: String,
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `levain reject`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain reject hello --reason 'not before Monday'\n\n\
    The version stays published; its alias does not move.")]
pub(super) struct Reject {
    /// The deployment's id, a unique beginning or end of it, or a function with one waiting deployment
    deployment: String,
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Approvals {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let request = DeploymentsRequest {
            function_id: self.name.unwrap_or_default(),
            status: Some(DeploymentStatus::PendingApproval),
            ..DeploymentsRequest::default()
        };
        session.print_list(request, None, |it| approvals_text(&it.deployments, Timestamp::now())).await
    }
}

impl Approve {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        decide(session, self.deployment, true, self.reason).await
    }
}

impl Reject {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        decide(session, self.deployment, false, Some(self.reason)).await
    }
}

async fn decide(
    session: &Session,
    deployment_id: String,
    approve: bool,
    reason: Option<String>,
) -> Result<(), CliError> {
    outcome::call(session, &DecideRequest { deployment_id, approve, reason }).await
}

fn approvals_text(waiting: &[DeploymentInfo], now: Timestamp) -> String {
    if waiting.is_empty() {
        return "nothing waits for approval".into();
    }
    let rows = waiting.iter().map(|it| {
        [
            text::age(it.finished_at, now),
            it.function.clone(),
            it.alias.to_string(),
            change_text(it),
            it.environment.to_string(),
            it.actor.clone(),
            text::or_dash(it.reason.as_deref()),
            text::left(it.expires_at, now),
            it.deployment_id.clone(),
        ]
    });
    let heads = ["SINCE", "FUNCTION", "ALIAS", "FROM → TO", "ENVIRONMENT", "ACTOR", "REASON", "EXPIRES IN", "ID"];
    table(heads, rows)
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::{DeploymentKind, FunctionId};

    fn waits(function: &str, id: &str) -> DeploymentInfo {
        DeploymentInfo {
            deployment_id: format!("deploy-{id}"),
            version: "v2".parse().expect("a name"),
            number: Some(2),
            alias: "LIVE".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            kind: DeploymentKind::Deploy,
            status: DeploymentStatus::PendingApproval,
            is_active: false,
            previous_version: Some("v1".parse().expect("a name")),
            created_at: Timestamp::from_millis(0),
            finished_at: Timestamp::from_millis(1_000),
            duration_ms: 1_000,
            actor: "uid:0".into(),
            reason: Some("ticket 7".into()),
            build_log: None,
            function_id: FunctionId::new(),
            function: function.into(),
            weight: Some(10),
            decided_by: None,
            decision: None,
            decided_at: None,
            expires_at: Some(Timestamp::from_millis(3_601_000)),
        }
    }

    #[test]
    fn what_waits_says_for_whom_and_for_how_long() {
        let text = plain(&approvals_text(
            &[waits("hello", "0190c1d2-aaaa-7bbb-8ccc-0123456789ab")],
            Timestamp::from_millis(61_000),
        ));
        assert!(
            text.contains("1m ago  hello     LIVE   v1 → v2 10 %  production   uid:0  ticket 7  59m 00s"),
            "{text}"
        );
    }
}
