//! Traffic: the shares of an alias's two versions.

use super::error::CliError;
use super::print::{DIM, styled, table};
use super::session::Session;
use super::versions::version_ref;
use super::{outcome, text};
use crate::client::ClientError;
use crate::error::{Error, ErrorCode};
use crate::model::AliasName;
use crate::protocol::message::{
    AliasDetails, AliasesRequest, MetricsRequest, MetricsResponse, SetAliasRequest, SetTrafficRequest, VersionRef,
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
    Show(Which),
    /// Give all calls back to the version that the alias points at
    #[command(after_help = "Example:\n  levain traffic clear hello --reason 'it is slow'")]
    Clear {
        #[command(flatten)]
        which: Which,
        /// Reason for the audit trail
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Point the alias at its second version, which then gets all calls
    #[command(after_help = "Example:\n  levain traffic promote hello\n\n\
        To promote between environments, use `levain promote`.")]
    Promote {
        #[command(flatten)]
        which: Which,
        /// Reason for the audit trail
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// An alias of a function.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The function's name or id
    name: String,
    /// The alias
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
}

const EXAMPLES: &str = "Examples:
  levain traffic set hello v2 10                          one call in ten goes to v2
  levain traffic set hello v2 50 --sticky cookie:session  each session stays with its version
  levain traffic set hello v2 0                           v2 only on request: X-Levain-Version: v2
  levain traffic set hello v2 100                         all calls, until `levain traffic clear`";

/// `levain traffic set`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Set {
    /// The function's name or id
    name: String,
    /// A label or a number
    version: String,
    /// Share in percent; the other version gets the rest
    #[arg(value_name = "PERCENT", value_parser = parse_percent)]
    weight: u32,
    /// The alias
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
    /// Keep each caller on one version by header:NAME or cookie:NAME; none ends that [default: unchanged]
    #[arg(long, value_name = "WHAT")]
    sticky: Option<String>,
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Parses a share, with or without its sign.
pub(super) fn parse_percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    number.parse().ok().filter(|it| *it <= 100).ok_or_else(|| "a share is a whole number from 0 to 100".into())
}

impl Traffic {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Set(set) => set.run(session).await,
            Self::Show(which) => which.show(session).await,
            Self::Clear { which: Which { name, alias }, reason } => {
                let request = SetTrafficRequest { weight: Some(100), reason, ..request(&name, alias, None) };
                let done = session.call_cancellable(&request).await?;
                outcome::show(&session.out, &name, &done)
            }
            Self::Promote { which, reason } => {
                let alias = which.details(session).await?;
                let Some(split) = alias.split else {
                    return Err(not_split(&which, &alias).into());
                };
                let request = SetAliasRequest {
                    function_id: which.name.clone(),
                    name: which.alias,
                    version: VersionRef::Label(split.version),
                    environment: None,
                    description: None,
                    reason,
                    dry_run: false,
                };
                let done = session.call_cancellable(&request).await?;
                outcome::show(&session.out, &which.name, &done)
            }
        }
    }
}

fn request(name: &str, alias: String, version: Option<VersionRef>) -> SetTrafficRequest {
    SetTrafficRequest { function_id: name.into(), alias: Some(alias), version, ..SetTrafficRequest::default() }
}

fn not_split(which: &Which, alias: &AliasDetails) -> ClientError {
    let message = format!(
        "{} of `{}` points at `{}` alone: give another version a share first, with `levain traffic set`",
        which.alias, which.name, alias.version
    );
    ClientError::Refused(Error::new(ErrorCode::Conflict, message))
}

impl Set {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let request = SetTrafficRequest {
            weight: Some(self.weight),
            sticky: self.sticky,
            reason: self.reason,
            ..request(&self.name, self.alias, Some(version_ref(self.version)))
        };
        let done = session.call_cancellable(&request).await?;
        outcome::show(&session.out, &self.name, &done)
    }
}

/// Time span that `levain traffic show` covers.
const PERIOD: &str = "5m";

/// JSON output of `levain traffic show`.
#[derive(Debug, Serialize)]
struct Shown {
    alias: AliasDetails,
    metrics: MetricsResponse,
}

impl Which {
    async fn details(&self, session: &mut Session) -> Result<AliasDetails, CliError> {
        let request = AliasesRequest { function_id: self.name.clone(), ..AliasesRequest::default() };
        let aliases = session.list(request, None).await?.aliases;
        let found = aliases.into_iter().find(|it| it.name == self.alias);
        let missing = || {
            let message =
                format!("`{}` has no alias `{}`; `levain alias list` lists its aliases", self.name, self.alias);
            ClientError::Refused(Error::new(ErrorCode::AliasNotFound, message))
        };
        Ok(found.ok_or_else(missing)?)
    }

    async fn show(self, session: &mut Session) -> Result<(), CliError> {
        let alias = self.details(session).await?;
        let request = MetricsRequest { function_id: self.name, period: Some(PERIOD.into()) };
        let metrics = session.call(&request).await?;
        session.out.response(&Shown { alias, metrics }, shown_text)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_may_carry_its_sign() {
        assert_eq!(parse_percent("10"), Ok(10));
        assert_eq!(parse_percent("100%"), Ok(100));
        assert_eq!(parse_percent("7 %"), Ok(7));
        for bad in ["", "%", "101", "-1", "1.5"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
