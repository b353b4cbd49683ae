//! Deployments that wait for approval: listed, approved, rejected.

use super::error::CliError;
use super::interrupt::Interrupts;
use super::outcome;
use super::print::table;
use super::session::{Session, list};
use super::text;
use super::versions::change_text;
use crate::client::{Client, ClientError};
use crate::error::{Error, ErrorCode};
use crate::model::{DeploymentId, DeploymentStatus, Timestamp};
use crate::protocol::message::{DecideRequest, DeploymentInfo, DeploymentsRequest};
use clap::Args;

/// Shortest ending of an id that identifies a deployment.
const ENDING_MIN: usize = 4;

/// `levain approvals`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain approvals         of all functions\n  levain approvals hello")]
pub(super) struct Approvals {
    /// The function's name or id [default: all]
    name: Option<String>,
}

const APPROVE_EXAMPLES: &str = "Examples:
  levain approve hello                       the only waiting deployment of hello
  levain approve 0123456789ab                by the end of its id, or by its beginning
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
        let response = session.list(waiting(self.name), None).await?;
        session.out.response(&response, |it| approvals_text(&it.deployments, Timestamp::now()))
    }
}

impl Approve {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        decide(session, &self.deployment, true, self.reason).await
    }
}

impl Reject {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        decide(session, &self.deployment, false, Some(self.reason)).await
    }
}

fn waiting(function: Option<String>) -> DeploymentsRequest {
    DeploymentsRequest {
        function_id: function.unwrap_or_default(),
        status: Some(DeploymentStatus::PendingApproval),
        ..DeploymentsRequest::default()
    }
}

async fn decide(session: &mut Session, wanted: &str, approve: bool, reason: Option<String>) -> Result<(), CliError> {
    let client = session.client().await?;
    let (deployment_id, function) = resolve(&client, wanted).await?;
    let request = DecideRequest { deployment_id, approve, reason };
    let done = Interrupts::listen()?.call(&client, &request, &session.out, |_| ()).await?;
    outcome::show(&session.out, &function, &done)
}

/// Finds the id of the wanted deployment and the name of its function. The id of a deployment that does not wait is
/// passed on: the daemon's answer says what happened to it.
async fn resolve(client: &Client, wanted: &str) -> Result<(String, String), ClientError> {
    let waiting = list(client, waiting(None), None).await?.deployments;
    match find(&waiting, wanted).map_err(ClientError::Refused)? {
        Some(found) => Ok((found.deployment_id.clone(), found.function.clone())),
        None => Ok((wanted.to_owned(), String::new())),
    }
}

/// Finds the waiting deployment that `wanted` names; `None` if `wanted` is the id of another deployment.
fn find<'a>(waiting: &'a [DeploymentInfo], wanted: &str) -> Result<Option<&'a DeploymentInfo>, Error> {
    let is_named = |it: &&DeploymentInfo| {
        let id = it.deployment_id.as_str();
        let uuid = id.split_once('-').map_or(id, |it| it.1);
        let is_end = wanted.len() >= ENDING_MIN && uuid.ends_with(wanted);
        !wanted.is_empty() && (id.starts_with(wanted) || uuid.starts_with(wanted) || is_end)
    };
    let of_function: Vec<_> = waiting.iter().filter(|it| it.function == wanted || it.function_id == wanted).collect();
    // The name of a function takes precedence over parts of ids.
    let is_function = !of_function.is_empty();
    let found = if is_function { of_function } else { waiting.iter().filter(is_named).collect() };
    match found.as_slice() {
        [one] => Ok(Some(one)),
        [] if wanted.parse::<DeploymentId>().is_ok() => Ok(None),
        [] => {
            let shown: String = wanted.chars().take(80).collect();
            let message = format!("no deployment `{shown}` waits for approval; `levain approvals` lists those that do");
            Err(Error::new(ErrorCode::DeploymentNotFound, message))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|it| it.deployment_id.as_str()).collect();
            let count = ids.len();
            let message = match is_function {
                true => format!("{count} deployments of `{wanted}` wait for approval: give the id of one"),
                false => format!("{count} waiting deployments match `{wanted}`: give more of the id"),
            };
            let details = serde_json::json!({ "deployments": ids });
            Err(Error::new(ErrorCode::Conflict, message).with_details(details))
        }
    }
}

fn approvals_text(waiting: &[DeploymentInfo], now: Timestamp) -> String {
    if waiting.is_empty() {
        return "nothing waits for approval".into();
    }
    let rows = waiting.iter().map(|it| {
        let left = it.expires_at.map(|at| at.as_millis().saturating_sub(now.as_millis()).max(0));
        [
            text::age(it.finished_at, now),
            it.function.clone(),
            it.alias.clone(),
            change_text(it),
            it.environment.clone(),
            it.actor.clone(),
            text::or_dash(it.reason.as_deref()),
            left.map_or_else(|| "-".into(), |left| text::duration_ms(left as f64)),
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
    use crate::model::DeploymentKind;

    fn waits(function: &str, id: &str) -> DeploymentInfo {
        DeploymentInfo {
            deployment_id: format!("deploy-{id}"),
            version: "v2".into(),
            number: Some(2),
            alias: "LIVE".into(),
            environment: "production".into(),
            kind: DeploymentKind::Deploy,
            status: DeploymentStatus::PendingApproval,
            is_active: false,
            previous_version: Some("v1".into()),
            created_at: Timestamp::from_millis(0),
            finished_at: Timestamp::from_millis(1_000),
            duration_ms: 1_000,
            actor: "uid:0".into(),
            reason: Some("ticket 7".into()),
            build_log: None,
            function_id: format!("func-{function}"),
            function: function.into(),
            weight: Some(10),
            decided_by: None,
            decision: None,
            decided_at: None,
            expires_at: Some(Timestamp::from_millis(3_601_000)),
        }
    }

    const FIRST: &str = "0190c1d2-aaaa-7bbb-8ccc-0123456789ab";
    const SECOND: &str = "0190c1d2-aaab-7bbb-8ccc-fedcba987654";

    #[test]
    fn a_deployment_is_found_by_its_id_its_beginning_its_end_or_its_function() {
        let waiting = [waits("hello", FIRST), waits("other", SECOND)];
        let found = |wanted: &str| find(&waiting, wanted).map(|it| it.map(|it| it.function.as_str()));
        let full = format!("deploy-{FIRST}");
        for wanted in [full.as_str(), FIRST, "deploy-0190c1d2-aaaa", "0190c1d2-aaaa", "89ab", "hello", "func-hello"] {
            assert_eq!(found(wanted), Ok(Some("hello")), "{wanted}");
        }
        let code = |wanted: &str| found(wanted).map_err(|error| error.code);
        for (wanted, expected) in [
            ("0190", Err(ErrorCode::Conflict)),
            ("deploy-", Err(ErrorCode::Conflict)),
            ("", Err(ErrorCode::DeploymentNotFound)),
            ("ab", Err(ErrorCode::DeploymentNotFound)),
            ("nobody", Err(ErrorCode::DeploymentNotFound)),
            ("deploy-0190c1d2-ffff-7bbb-8ccc-0123456789ab", Ok(None)),
        ] {
            assert_eq!(code(wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn a_function_with_two_that_wait_needs_an_id() {
        let waiting = [waits("hello", FIRST), waits("hello", SECOND)];
        let error = find(&waiting, "hello").expect_err("two");
        assert_eq!(error.code, ErrorCode::Conflict);
        assert_eq!(error.message, "2 deployments of `hello` wait for approval: give the id of one");
        let prefix = find(&waiting, "0190").expect_err("two").message;
        assert_eq!(prefix, "2 waiting deployments match `0190`: give more of the id");
        assert!(error.details.is_some_and(|it| it.to_string().contains(SECOND)), "{}", error.message);
        assert_eq!(find(&waiting, "7654").map(|it| it.is_some()), Ok(true));
    }

    #[test]
    fn what_waits_says_for_whom_and_for_how_long() {
        let text = plain(&approvals_text(&[waits("hello", FIRST)], Timestamp::from_millis(61_000)));
        assert!(
            text.contains("1m ago  hello     LIVE   v1 → v2 10 %  production   uid:0  ticket 7  59m 00s"),
            "{text}"
        );
    }
}
