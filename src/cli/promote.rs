//! Promote: points an alias of one environment at the version of another, without a build.

use super::arguments::Move;
use super::error::CliError;
use super::print::{DIM, GREEN, styled};
use super::session::Session;
use super::{outcome, text};
use crate::protocol::message::{PromoteAllRequest, PromoteAllResponse, PromoteRequest};
use clap::Args;

const EXAMPLES: &str = "Examples:
  levain promote hello                          STAGING's version becomes LIVE
  levain promote hello --from dev --to staging
  levain promote hello --from canary --to LIVE  aliases instead of environments
  levain promote hello --dry-run                show what would happen
  levain promote --all                          all functions that differ

The version and its code stay the same: nothing is built. It is loaded in the target environment before the alias \
moves, and `levain rollback` goes back to the version that was there before. In a protected environment it waits for \
`levain approve`. To give all calls of one alias to its second version, use `levain traffic promote`.";

/// `levain promote`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "levain promote [OPTIONS] <NAME>\n       levain promote [OPTIONS] --all"
)]
pub(super) struct Promote {
    /// The function's name or id
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// The environment whose version is promoted, or an alias
    #[arg(long, value_name = "NAME", default_value = "staging")]
    from: String,
    /// The environment to promote it to, or an alias
    #[arg(long, value_name = "NAME", default_value = "production")]
    to: String,
    /// The alias to move [default: LIVE, STAGING or DEV by the environment, or its only alias]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// The alias to take the version from [default: as for --alias]
    #[arg(long, value_name = "NAME")]
    from_alias: Option<String>,
    /// Promote all functions that differ
    #[arg(long, conflicts_with_all = ["name", "alias", "from_alias"])]
    all: bool,
    #[command(flatten)]
    how: Move,
}

impl Promote {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Move { reason, dry_run } = self.how;
        let (from, to) = (Some(self.from), Some(self.to));
        let Some(function_id) = self.name else {
            let done = session.call_cancellable(&PromoteAllRequest { from, to, reason, dry_run }).await?;
            return session.out.response(&done.response, all_text);
        };
        let (alias, from_alias) = (self.alias, self.from_alias);
        let request = PromoteRequest { function_id, from, to, alias, from_alias, reason, dry_run };
        outcome::call(session, &request).await
    }
}

fn all_text(response: &PromoteAllResponse) -> String {
    let PromoteAllResponse { from, to, dry_run, changes, unchanged, skipped } = response;
    let count = changes.len();
    let what = match (dry_run, count) {
        (_, 0) => format!("nothing to promote from {from} to {to}"),
        (true, _) => format!("{count} would be promoted from {from} to {to}"),
        (false, _) => format!("{count} promoted from {from} to {to}"),
    };
    let mut shown = format!("{} {what}\n", styled(GREEN, "ok"));
    for it in changes {
        let before = it.from.as_deref().unwrap_or("nothing");
        shown += &format!("   {}:{} {before} → {}\n", it.function, it.alias, it.to);
    }
    for it in skipped {
        shown += &format!("   {} left out: {}\n", it.function, text::harmless(&it.reason));
    }
    shown + &styled(DIM, format!("   {unchanged} already up to date"))
}
