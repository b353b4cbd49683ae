//! Cleanup: removes old versions, and shows why others stay.

use super::error::CliError;
use super::input::Confirmation;
use super::print::{DIM, GREEN, styled, table};
use super::session::Session;
use super::text;
use crate::protocol::message::{CleanupRequest, CleanupResponse};
use clap::Args;

const EXAMPLES: &str = "Examples:
  levain cleanup hello --dry-run     show what would go, what stays and why
  levain cleanup hello --keep 3
  levain cleanup --yes               all functions

A version stays if an alias (ROLLBACK included), a rollout or a waiting approval uses it. With \
versioning.auto_cleanup, each deployment that publishes a version also cleans up its function.";

/// `levain cleanup`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cleanup {
    /// The function's name or id [default: all functions]
    name: Option<String>,
    /// Number of newest versions to keep [default: versioning.keep_versions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keep: Option<u32>,
    /// Show what would be removed, without removing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Cleanup {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, keep, dry_run, confirmation } = self;
        let of = name.as_ref().map_or("all functions", String::as_str);
        if !dry_run {
            confirmation.ask(&format!("Remove old versions of {of} with their bundles?"))?;
        }
        let is_one = name.is_some();
        session.print(&CleanupRequest { function_id: name, keep, dry_run }, |it| cleanup_text(it, is_one)).await
    }
}

/// Kept versions are shown for a function that was named, and for functions that lose a version.
fn cleanup_text(response: &CleanupResponse, is_one: bool) -> String {
    let goes = if response.dry_run { "would go" } else { "removed" };
    let shown = response.functions.iter().filter(|it| is_one || !it.removed.is_empty());
    let rows = shown.flat_map(|function| {
        let name = |version: &str, number: u32| [function.function.clone(), version.to_owned(), number.to_string()];
        let removed =
            function.removed.iter().map(move |it| (name(it.version.as_str(), it.number), goes, text::size(it.size)));
        let kept =
            function.kept.iter().map(move |it| (name(it.version.as_str(), it.number), "stays", it.why.join(", ")));
        removed.chain(kept).map(|([name, version, number], what, note)| [name, version, number, what.into(), note])
    });
    let rows: Vec<_> = rows.collect();
    let count: usize = response.functions.iter().map(|it| it.removed.len()).sum();
    let versions = if count == 1 { "version" } else { "versions" };
    let freed = text::size(response.freed_bytes);
    let summary = match (count, response.dry_run) {
        (0, _) => styled(DIM, "nothing to remove"),
        (_, true) => format!("{count} {versions} would go and free {freed}; nothing was removed"),
        (_, false) => format!("{} {count} {versions} removed, {freed} freed", styled(GREEN, "ok")),
    };
    if rows.is_empty() {
        return summary;
    }
    format!("{}{summary}", table(["FUNCTION", "VERSION", ">NUMBER", "WHAT", "SIZE OR REASON"], rows))
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::{FunctionCleanup, KeptVersion, RemovedVersion};

    fn response(dry_run: bool) -> CleanupResponse {
        let kept = |number: u32, why: &[&str]| KeptVersion {
            version: format!("v{number}").parse().expect("a name"),
            number,
            why: why.iter().map(|it| (*it).to_owned()).collect(),
        };
        let function = |name: &str, removed, kept| FunctionCleanup {
            function: name.into(),
            function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            removed,
            kept,
        };
        let removed = vec![RemovedVersion { version: "v2".parse().expect("a name"), number: 2, size: 2048 }];
        let hello = function("hello", removed, vec![kept(3, &["newest", "alias LIVE"]), kept(1, &["alias ROLLBACK"])]);
        let other = function("other", Vec::new(), vec![kept(1, &["newest"])]);
        CleanupResponse { functions: vec![hello, other], freed_bytes: 2048, dry_run }
    }

    #[test]
    fn it_says_what_goes_and_what_stays_and_why() {
        let expected = "\
FUNCTION  VERSION  NUMBER  WHAT     SIZE OR REASON
hello     v2            2  removed  2.0 KiB
hello     v3            3  stays    newest, alias LIVE
hello     v1            1  stays    alias ROLLBACK
ok 1 version removed, 2.0 KiB freed";
        assert_eq!(plain(&cleanup_text(&response(false), false)), expected);
        let text = plain(&cleanup_text(&response(true), false));
        assert!(text.contains("would go") && !text.contains("removed "), "{text}");
        assert!(text.ends_with("1 version would go and free 2.0 KiB; nothing was removed"), "{text}");
        assert!(plain(&cleanup_text(&response(false), true)).contains("other     v1"), "it was named");
    }

    #[test]
    fn nothing_is_said_of_functions_that_lose_nothing() {
        let mut response = response(false);
        response.functions.remove(0);
        assert_eq!(plain(&cleanup_text(&response, false)), "nothing to remove");
    }
}
