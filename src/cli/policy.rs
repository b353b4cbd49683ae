//! Policies: limits that roll an alias back automatically.

use super::arguments::{OfAlias, parse_milliseconds, parse_span};
use super::error::CliError;
use super::print::{GREEN, YELLOW, facts, styled};
use super::session::Session;
use super::text;
use crate::model::{Policy, PolicyAction, Timestamp, policy::PolicyLimits};
use crate::protocol::message::{PolicyResponse, PolicyVerdict, SetPolicyRequest};
use clap::{Args, Subcommand};

/// `levain policy`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Set the limits beyond which an alias is rolled back automatically
    Set(Set),
    /// Show an alias's policy, its recent calls and its last verdict
    #[command(after_help = "Example:\n  levain policy show hello")]
    Show(OfAlias),
    /// Remove an alias's policy
    #[command(after_help = "Example:\n  levain policy remove hello --alias STAGING")]
    Remove(OfAlias),
}

const EXAMPLES: &str = "Examples:
  levain policy set hello --error-rate 5           5 % of the calls may fail
  levain policy set hello --p99 200ms --window 5m  a p99 of at most 200 ms
  levain policy set hello --crashes 3 --warn       only warn

While the alias is split, its second version is judged and loses its share. Otherwise the alias goes back to the \
version it pointed at before. The policy stays with the alias when the alias moves.";

/// `levain policy set`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Set {
    #[command(flatten)]
    which: OfAlias,
    /// Highest share of failed calls: errors, timeouts, crashes, and answers with a status of 500 or above
    #[arg(long, value_name = "PERCENT", value_parser = parse_fraction)]
    error_rate: Option<f64>,
    /// Latency limit for 99 % of calls, such as 200ms or 2s
    #[arg(long, value_name = "TIME", value_parser = parse_milliseconds)]
    p99: Option<u32>,
    /// Highest number of calls that end with a dead worker
    #[arg(long, value_name = "N")]
    crashes: Option<u32>,
    /// Time span in which calls are counted, such as 90s, 5m or 1h [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    window: Option<u32>,
    /// Calls needed before the version is judged [default: 50]
    #[arg(long, value_name = "N")]
    min_requests: Option<u32>,
    /// Only warn, without moving the alias
    #[arg(long)]
    warn: bool,
    /// Time after a rollback in which the version is not judged; also the time between two warnings [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    cooldown: Option<u32>,
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse().ok().filter(|it: &f64| (0.0..=100.0).contains(it));
    number.ok_or_else(|| "a share is a number of percent from 0 to 100, such as 5 or 0.5".into())
}

impl PolicyCommand {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let request = |which: OfAlias| SetPolicyRequest {
            function_id: which.name,
            alias: Some(which.alias),
            ..SetPolicyRequest::default()
        };
        let request = match self {
            Self::Set(set) => SetPolicyRequest { policy: Some(set.policy()?), ..request(set.which) },
            Self::Show(which) => SetPolicyRequest { show: true, ..request(which) },
            Self::Remove(which) => request(which),
        };
        session.print(&request, |it| policy_text(&request.function_id, it, Timestamp::now())).await
    }
}

impl Set {
    fn policy(&self) -> Result<Policy, CliError> {
        let default = PolicyLimits::default();
        let limits = PolicyLimits {
            window_seconds: self.window.unwrap_or(default.window_seconds),
            min_requests: self.min_requests.unwrap_or(default.min_requests),
            error_rate_max: self.error_rate,
            p99_ms_max: self.p99,
            crashes_max: self.crashes,
            action: if self.warn { PolicyAction::Warn } else { PolicyAction::Rollback },
            cooldown_seconds: self.cooldown.unwrap_or(default.cooldown_seconds),
        };
        if limits.error_rate_max.is_none() && limits.p99_ms_max.is_none() && limits.crashes_max.is_none() {
            return Err(CliError::usage("a policy needs a limit: give --error-rate, --p99 or --crashes"));
        }
        limits.try_into().map_err(|error: crate::model::policy::PolicyError| CliError::usage(error.to_string()))
    }
}

fn policy_text(name: &str, response: &PolicyResponse, now: Timestamp) -> String {
    let PolicyResponse { alias, version, counts, .. } = response;
    let last = response.last_verdict.as_ref().map(|it| verdict_text(it, now)).unwrap_or_default();
    let Some(policy) = &response.policy else {
        let last = if last.is_empty() { last } else { format!("\n{last}") };
        return format!("{name} {alias} has no policy: it is never rolled back automatically{last}");
    };
    let seconds = |it: u32| text::duration_ms(f64::from(it) * 1e3);
    let action = match policy.action {
        PolicyAction::Rollback => styled(GREEN, "rolls back"),
        PolicyAction::Warn => styled(YELLOW, "warns"),
    };
    let found = format!(
        "{} calls, {} errors, {} crashes{}",
        counts.calls,
        counts.errors,
        counts.crashes,
        policy.p99_ms_max.map(|ms| format!(", {} over {ms} ms", counts.slow)).unwrap_or_default()
    );
    let window = format!("{}, at least {} calls", seconds(policy.window_seconds), policy.min_requests);
    let rest = response.rests_until.map(|until| {
        let left = until.as_millis().saturating_sub(now.as_millis()).max(0);
        format!("not judged for {}: the alias was just rolled back to it", text::duration_ms(left as f64))
    });
    let facts = facts([
        ("limits", policy.maxima()),
        ("window", window),
        ("cooldown", seconds(policy.cooldown_seconds)),
        ("judged", version.to_string()),
        ("now", found),
        ("rest", rest.unwrap_or_default()),
        ("last", last),
    ]);
    format!("{name} {alias} {action} automatically\n{facts}")
}

fn verdict_text(verdict: &PolicyVerdict, now: Timestamp) -> String {
    let PolicyVerdict { version, reason, .. } = verdict;
    let age = text::age(verdict.at, now);
    match &verdict.went_back_to {
        Some(target) => format!("{version} → {target} {age}: {reason}"),
        None => format!("warning about {version} {age}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::PolicyCounts;

    #[test]
    fn a_share_may_have_a_fraction() {
        assert_eq!([parse_fraction("5"), parse_fraction("0.5%")], [Ok(5.0), Ok(0.5)]);
        assert!(parse_fraction("101").is_err() && parse_fraction("NaN").is_err());
    }

    #[test]
    fn a_policy_shows_its_limits_what_is_counted_and_what_was_found() {
        let limits = PolicyLimits { error_rate_max: Some(5.0), p99_ms_max: Some(200), ..PolicyLimits::default() };
        let response = PolicyResponse {
            function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            alias: "LIVE".parse().expect("a name"),
            policy: Some(limits.try_into().expect("a policy")),
            version: "v1".parse().expect("a name"),
            counts: PolicyCounts { calls: 12, errors: 1, crashes: 0, slow: 2 },
            rests_until: Some(Timestamp::from_millis(180_000)),
            last_verdict: Some(PolicyVerdict {
                at: Timestamp::from_millis(0),
                version: "v2".parse().expect("a name"),
                went_back_to: Some("v1".into()),
                reason: "error rate 34.0 %".into(),
            }),
        };
        let text = plain(&policy_text("hello", &response, Timestamp::from_millis(60_000)));
        let expected = "hello LIVE rolls back automatically\n\
                        limits    errors at most 5 %, p99 at most 200 ms\n\
                        window    1m 00s, at least 50 calls\n\
                        cooldown  5m 00s\n\
                        judged    v1\n\
                        now       12 calls, 1 errors, 0 crashes, 2 over 200 ms\n\
                        rest      not judged for 2m 00s: the alias was just rolled back to it\n\
                        last      v2 → v1 1m ago: error rate 34.0 %\n";
        assert_eq!(text, expected);
        let none = PolicyResponse { policy: None, rests_until: None, last_verdict: None, ..response };
        assert!(policy_text("hello", &none, Timestamp::from_millis(0)).contains("has no policy"));
    }
}
