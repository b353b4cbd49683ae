//! Traffic: the shares of an alias's two versions.

use super::arguments::{OfAlias, Reason, parse_percent};
use super::error::CliError;
use super::print::{DIM, styled, table};
use super::session::Session;
use super::{outcome, text};
use crate::error::ErrorCode;
use crate::model::Percent;
use crate::protocol::message::{
    AliasDetails, AliasesRequest, MetricsRequest, MetricsResponse, SetAliasRequest, SetTrafficRequest,
};
use clap::{Args, Subcommand};
use serde::Serialize;

/// `levain traffic`.
#[derive(Debug, Subcommand)]
pub(super) enum Traffic {
    /// Give a version a share of an alias's calls
    Set(Set),
    /// Show the shares of an alias's versions and how their recent calls went
    #[command(after_help = "Example:\n  levain traffic show hello")]
    Show(OfAlias),
    /// Give all calls back to the version that the alias points at
    #[command(after_help = "Example:\n  levain traffic clear hello --reason 'it is slow'")]
    Clear {
        #[command(flatten)]
        which: OfAlias,
        #[command(flatten)]
        reason: Reason,
    },
    /// Point the alias at its second version, which then gets all calls
    #[command(after_help = "Example:\n  levain traffic promote hello\n\n\
        To promote between environments, use `levain promote`.")]
    Promote {
        #[command(flatten)]
        which: OfAlias,
        #[command(flatten)]
        reason: Reason,
    },
}

const EXAMPLES: &str = "Examples:
  levain traffic set hello v2 10    one call in ten goes to v2
  levain traffic set hello v2 0     v2 only on request: X-Levain-Version: v2
  levain traffic set hello v2 100   all calls, until `levain traffic clear`
  levain traffic set hello v2 50 --sticky cookie:session
                                    each session stays with its version";

/// `levain traffic set`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Set {
    #[command(flatten)]
    which: OfAlias,
    /// A label or a number
    version: String,
    /// Share in percent; the other version gets the rest
    #[arg(value_name = "PERCENT", value_parser = parse_percent)]
    weight: Percent,
    /// Keep each caller on one version by header:NAME or cookie:NAME; none ends that [default: unchanged]
    #[arg(long, value_name = "WHAT")]
    sticky: Option<String>,
    #[command(flatten)]
    reason: Reason,
}

impl Traffic {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let request = match self {
            Self::Set(set) => set.request(),
            Self::Show(which) => return show(session, which).await,
            Self::Clear { which: OfAlias { name, alias }, reason: Reason { reason } } => SetTrafficRequest {
                function_id: name,
                alias: Some(alias),
                weight: Some(100),
                reason,
                ..SetTrafficRequest::default()
            },
            Self::Promote { which, reason } => return promote(session, which, reason).await,
        };
        outcome::call(session, &request).await
    }
}

impl Set {
    fn request(self) -> SetTrafficRequest {
        SetTrafficRequest {
            function_id: self.which.name,
            alias: Some(self.which.alias),
            version: Some(self.version.into()),
            weight: Some(self.weight.into()),
            sticky: self.sticky,
            reason: self.reason.reason,
        }
    }
}

async fn promote(session: &mut Session, which: OfAlias, reason: Reason) -> Result<(), CliError> {
    let alias = details(session, &which).await?;
    let Some(split) = alias.split else {
        let (OfAlias { name, alias: shown }, version) = (which, alias.version);
        let message = format!(
            "{shown} of `{name}` points at `{version}` alone: give another version a share first, with `levain traffic set`"
        );
        return Err(CliError::failed(ErrorCode::Conflict, message));
    };
    let request = SetAliasRequest {
        function_id: which.name,
        name: which.alias,
        version: split.version.as_str().into(),
        environment: None,
        description: None,
        reason: reason.reason,
        dry_run: false,
    };
    outcome::call(session, &request).await
}

/// Time span that `levain traffic show` covers.
const PERIOD: &str = "5m";

/// JSON output of `levain traffic show`.
#[derive(Debug, Serialize)]
struct Shown {
    alias: AliasDetails,
    metrics: MetricsResponse,
}

async fn details(session: &Session, which: &OfAlias) -> Result<AliasDetails, CliError> {
    let (function_id, alias) = (which.name.clone(), Some(which.alias.clone()));
    let aliases = session.call(&AliasesRequest { function_id, alias, ..AliasesRequest::default() }).await?.aliases;
    let missing = || CliError::failed(ErrorCode::AliasNotFound, "the daemon's answer does not have the alias");
    aliases.into_iter().next().ok_or_else(missing)
}

async fn show(session: &mut Session, which: OfAlias) -> Result<(), CliError> {
    let alias = details(session, &which).await?;
    let metrics = session.call(&MetricsRequest { function_id: which.name, period: Some(PERIOD.into()) }).await?;
    session.out.response(&Shown { alias, metrics }, shown_text)
}

fn shown_text(shown: &Shown) -> String {
    let Shown { alias, metrics } = shown;
    let second = alias.split.as_ref();
    let own = (alias.version.as_str(), 100 - second.map_or(0, |it| it.weight));
    let targets = [own].into_iter().chain(second.map(|it| (it.version.as_str(), it.weight)));
    let rows = targets.map(|(version, weight)| {
        let figures = metrics.versions.iter().find(|it| it.version == version).map(|it| &it.figures);
        let count = |it: fn(&_) -> u64| figures.map_or(0, it).to_string();
        let [p50, p99] = [figures.map(|it| it.p50_ms), figures.map(|it| it.p99_ms)]
            .map(|it| it.map_or_else(|| "-".into(), text::duration_ms));
        [version.into(), format!("{weight} %"), count(|it| it.invocations), count(|it| it.errors), p50, p99]
    });
    let sticky = alias.sticky.as_ref().map_or_else(String::new, |it| format!(", sticky by {it}"));
    let head =
        format!("{} of {}{sticky}; calls by any alias in the last {}", alias.name, metrics.function, metrics.period);
    format!("{}\n\n{}", styled(DIM, &head), table(["VERSION", ">SHARE", ">CALLS", ">ERRORS", ">P50", ">P99"], rows))
}
