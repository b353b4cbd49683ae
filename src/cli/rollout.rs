//! Rollouts: a version gets an alias's calls step by step.

use super::arguments::{OfAlias, Reason};
use super::error::CliError;
use super::print::{DIM, GREEN, facts, styled, table};
use super::session::Session;
use super::text;
use crate::model::{RolloutStatus, Timestamp, rollout::RolloutPlan};
use crate::protocol::message::{
    ControlRolloutRequest, RolloutAction, RolloutDetails, RolloutsRequest, RolloutsResponse, StartRolloutRequest,
};
use clap::{Args, Subcommand};

/// Said where there is no rollout yet.
const NO_ROLLOUTS: &str = "no rollouts yet: `levain rollout start` begins one";

/// Default number of rollouts in a list.
const ROLLOUTS_DEFAULT: u32 = 100;

/// `levain rollout`.
#[derive(Debug, Subcommand)]
pub(super) enum Rollout {
    /// Start to move an alias's calls to a version step by step
    Start(Start),
    /// Hold the present share until the rollout is resumed
    #[command(after_help = "Example:\n  levain rollout pause hello --reason 'looks odd'")]
    Pause(Control),
    /// Resume the rollout; the present step is held again from its start
    #[command(after_help = "Example:\n  levain rollout resume hello")]
    Resume(Control),
    /// End the rollout and send all calls to the alias's own version
    #[command(after_help = "Example:\n  levain rollout abort hello --reason 'too slow'")]
    Abort(Control),
    /// List a function's rollouts, newest first
    #[command(visible_alias = "ls", after_help = "Example:\n  levain rollout list hello")]
    List {
        /// The function's name or id
        name: String,
        /// Only rollouts of this alias
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        /// Maximum number of rollouts [default: 100]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// List all rollouts
        #[arg(long, conflicts_with = "limit")]
        all: bool,
    },
    /// Show an alias's latest rollout
    #[command(after_help = "Example:\n  levain rollout show hello")]
    Show(OfAlias),
}

const EXAMPLES: &str = "Examples:
  levain deploy hello ./dist --no-activate
  levain rollout start hello v2 --plan '10% 5m, 50% 5m, 100%'
  levain rollout start hello 3 --plan '1% 1h, 10% 1h, 100%' --alias STAGING

Each step is a share and the time it is held: 30s, 5m, 2h or 1d. If the alias has a policy (`levain policy`) and the \
version violates it, all calls go back and the rollout ends. Any other change of the alias ends it too.";

/// `levain rollout start`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Start {
    #[command(flatten)]
    which: OfAlias,
    /// A label or a number
    version: String,
    /// Shares that rise to 100%, with the time each is held
    #[arg(long, value_name = "PLAN", value_parser = parse_plan)]
    plan: RolloutPlan,
    #[command(flatten)]
    reason: Reason,
}

/// `levain rollout pause`, `resume` and `abort`.
#[derive(Debug, Args)]
pub(super) struct Control {
    #[command(flatten)]
    which: OfAlias,
    #[command(flatten)]
    reason: Reason,
}

fn parse_plan(text: &str) -> Result<RolloutPlan, String> {
    text.parse().map_err(|error: crate::model::rollout::RolloutPlanError| error.to_string())
}

impl Rollout {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Start(start) => start.run(session).await,
            Self::Pause(control) => control.run(session, RolloutAction::Pause).await,
            Self::Resume(control) => control.run(session, RolloutAction::Resume).await,
            Self::Abort(control) => control.run(session, RolloutAction::Abort).await,
            Self::List { name, alias, limit, all } => {
                let request = RolloutsRequest { function_id: name, alias, ..RolloutsRequest::default() };
                let limit = (!all).then_some(limit.unwrap_or(ROLLOUTS_DEFAULT));
                session.print_list(request, limit, |it| rollouts_text(it, Timestamp::now())).await
            }
            Self::Show(OfAlias { name, alias }) => {
                let request =
                    RolloutsRequest { function_id: name.clone(), alias: Some(alias), limit: Some(1), cursor: None };
                let text = |it: &RolloutsResponse| match it.rollouts.first() {
                    Some(rollout) => rollout_text(&name, rollout),
                    None => NO_ROLLOUTS.into(),
                };
                session.print(&request, text).await
            }
        }
    }
}

impl Start {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { which: OfAlias { name, alias }, version, plan, reason: Reason { reason } } = self;
        let (version, plan, alias) = (version.into(), plan.to_string(), Some(alias));
        let request = StartRolloutRequest { function_id: name.clone(), version, plan, alias, reason };
        session.print(&request, |it| rollout_text(&name, it)).await
    }
}

impl Control {
    async fn run(self, session: &mut Session, action: RolloutAction) -> Result<(), CliError> {
        let Self { which: OfAlias { name, alias }, reason: Reason { reason } } = self;
        let request = ControlRolloutRequest { function_id: name.clone(), alias: Some(alias), action, reason };
        session.print(&request, |it| rollout_text(&name, it)).await
    }
}

/// Present share of the version.
fn share_text(rollout: &RolloutDetails) -> String {
    let share = match rollout.status {
        RolloutStatus::Aborted => return "-".into(),
        _ => rollout.steps.get((rollout.step as usize).saturating_sub(1)),
    };
    share.map(|it| it.percent.to_string()).unwrap_or_default()
}

fn next_text(rollout: &RolloutDetails) -> String {
    let share = rollout.steps.get(rollout.step as usize).map(|it| it.percent);
    let next = share.zip(rollout.next_in_ms);
    next.map(|(share, ms)| format!("{share} in {}", text::duration_ms(ms as f64))).unwrap_or_default()
}

fn rollout_text(name: &str, rollout: &RolloutDetails) -> String {
    let RolloutDetails { alias, version, plan, step, steps, .. } = rollout;
    let status = match (rollout.status, rollout.status.name()) {
        (RolloutStatus::Running | RolloutStatus::Done, word) => styled(GREEN, word),
        (_, word) => word.to_owned(),
    };
    let reason = rollout.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    let facts = facts([
        ("plan", plan.clone()),
        ("step", format!("{step} of {}", steps.len())),
        ("share", share_text(rollout)),
        ("next", next_text(rollout)),
        ("by", format!("{}{reason}", rollout.actor)),
        ("outcome", rollout.outcome.clone().unwrap_or_default()),
    ]);
    format!("{name} {alias} → {version} {status} {}\n{facts}", styled(DIM, rollout.rollout_id))
}

fn rollouts_text(response: &RolloutsResponse, now: Timestamp) -> String {
    if response.rollouts.is_empty() {
        return NO_ROLLOUTS.into();
    }
    let rows = response.rollouts.iter().map(|it| {
        [
            text::age(it.created_at, now),
            it.alias.to_string(),
            it.version.to_string(),
            it.status.name().into(),
            format!("{} of {}", it.step, it.steps.len()),
            share_text(it),
            text::or_dash(Some(&next_text(it))),
            it.plan.clone(),
            it.actor.clone(),
            text::or_dash(it.outcome.as_deref().or(it.reason.as_deref())),
            it.rollout_id.to_string(),
        ]
    });
    let heads =
        ["WHEN", "ALIAS", "VERSION", "STATUS", "STEP", ">SHARE", "NEXT", "PLAN", "ACTOR", "OUTCOME OR REASON", "ID"];
    table(heads, rows)
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;

    #[test]
    fn a_rollout_shows_where_it_is_and_what_comes_next() {
        let plan: RolloutPlan = "10% 5m, 50% 5m, 100%".parse().expect("a plan");
        let rollout = RolloutDetails {
            rollout_id: "rollout-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            alias: "LIVE".parse().expect("a name"),
            version: "v2".parse().expect("a name"),
            number: 2,
            status: RolloutStatus::Running,
            plan: plan.to_string(),
            steps: plan.steps().to_vec(),
            step: 1,
            next_in_ms: Some(90_000),
            actor: "uid:0".into(),
            reason: Some("new parser".into()),
            outcome: None,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            finished_at: None,
        };
        let text = plain(&rollout_text("hello", &rollout));
        let expected = "hello LIVE → v2 running rollout-0190c1d2-aaaa-7bbb-8ccc-0123456789ab\n\
                        plan   10% 5m, 50% 5m, 100%\n\
                        step   1 of 3\n\
                        share  10 %\n\
                        next   50 % in 1m 30s\n\
                        by     uid:0: new parser\n";
        assert_eq!(text, expected);
        let aborted = RolloutDetails { status: RolloutStatus::Aborted, next_in_ms: None, ..rollout };
        let list = plain(&rollouts_text(
            &RolloutsResponse { rollouts: vec![aborted], next_cursor: None },
            Timestamp::from_millis(0),
        ));
        assert!(list.contains("now   LIVE   v2       aborted  1 of 3      -  -"), "{list}");
    }
}
