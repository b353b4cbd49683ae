//! Manifests: documents with the versions that each alias points at, exported and restored.

use super::error::CliError;
use super::print::{DIM, GREEN, styled, table};
use super::session::Session;
use super::{input, text};
use crate::protocol::message::{
    ApplyManifestRequest, ApplyManifestResponse, ExportManifestRequest, Manifest as Document,
};
use clap::{Args, Subcommand};
use std::path::PathBuf;

const EXPORT_EXAMPLES: &str = "Examples:
  levain manifest export > today.json         all functions
  levain manifest export hello                one function
  levain manifest export --deployment deploy-0199…  the state after it";

const APPLY_EXAMPLES: &str = "Examples:
  levain manifest apply today.json
  levain manifest apply today.json --dry-run  the same as `levain manifest diff`
  levain manifest apply --deployment deploy-0199…  back to the state after it

Every version must be published here with the same code. All aliases move together, or none does.";

/// `levain manifest`.
#[derive(Debug, Subcommand)]
pub(super) enum Manifest {
    /// Print which versions each alias points at
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        /// Only this function [default: all]
        name: Option<String>,
        /// The state after this deployment, instead of the present one
        #[arg(long, value_name = "ID", conflicts_with = "name")]
        deployment: Option<String>,
    },
    /// Point the aliases of a manifest at its versions, all or none
    #[command(after_help = APPLY_EXAMPLES)]
    Apply {
        #[command(flatten)]
        which: Which,
        /// Show what would change, without changing it
        #[arg(long)]
        dry_run: bool,
        /// Reason for the audit trail [default: `manifest of` and its time]
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show what applying a manifest would change
    #[command(after_help = "Example:\n  levain manifest diff today.json")]
    Diff {
        #[command(flatten)]
        which: Which,
    },
}

/// Source of a manifest: a file or a deployment.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// A file, or `-` for standard input
    file: Option<PathBuf>,
    /// The manifest of the state after this deployment
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
}

impl Manifest {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let (which, dry_run, reason) = match self {
            Self::Export { name, deployment } => {
                let request = ExportManifestRequest { function_id: name, deployment_id: deployment };
                let document = session.call(&request).await?;
                return session.out.response(&document, |it| serde_json::to_string_pretty(it).unwrap_or_default());
            }
            Self::Apply { which, dry_run, reason } => (which, dry_run, reason),
            Self::Diff { which } => (which, true, None),
        };
        let manifest = which.read(session).await?;
        let request = ApplyManifestRequest { manifest, dry_run, reason };
        let response = session.call_cancellable(&request).await?.response;
        session.out.response(&response, applied_text)
    }
}

impl Which {
    async fn read(self, session: &mut Session) -> Result<Document, CliError> {
        let Some(file) = self.file else {
            return session.call(&ExportManifestRequest { function_id: None, deployment_id: self.deployment }).await;
        };
        serde_json::from_slice(&input::read(&file)?)
            .map_err(|error| CliError::usage(format!("{} is not a manifest: {error}", file.display())))
    }
}

fn applied_text(response: &ApplyManifestResponse) -> String {
    let ApplyManifestResponse { dry_run, changes, unchanged, others } = response;
    let rows = changes
        .iter()
        .map(|it| [it.function.clone(), it.alias.to_string(), text::or_dash(it.from.as_deref()), it.to.clone()]);
    let mut shown = String::new();
    if !changes.is_empty() {
        shown = table(["FUNCTION", "ALIAS", "FROM", "TO"], rows);
        shown.push('\n');
    }
    for other in others {
        let (function, alias, version) = (&other.function, &other.alias, &other.version);
        let line = format!("{function}:{alias} stays at {version}: the manifest does not name it");
        shown.push_str(&styled(DIM, &line));
        shown.push('\n');
    }
    let done = match (changes.len(), dry_run) {
        (0, _) => "nothing to change".to_owned(),
        (count, true) => format!("{} would change, nothing was done", text::count(count, "alias", "aliases")),
        (count, false) => format!("{} changed", text::count(count, "alias", "aliases")),
    };
    let unchanged = if *unchanged > 0 { format!(", {unchanged} already as in the manifest") } else { String::new() };
    shown.push_str(&format!("{} {done}{unchanged}", styled(GREEN, "ok")));
    shown
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::{ManifestChange, ManifestOther};

    #[test]
    fn the_text_says_what_changes_and_what_stays() {
        let response = ApplyManifestResponse {
            dry_run: true,
            changes: vec![ManifestChange {
                function: "hello".into(),
                alias: "LIVE".into(),
                from: Some("v2".into()),
                to: "v1 90 %, v2 10 %".into(),
                deployments: Vec::new(),
            }],
            unchanged: 1,
            others: vec![ManifestOther { function: "hello".into(), alias: "DEV".into(), version: "v3".into() }],
        };
        let expected = "FUNCTION  ALIAS  FROM  TO\nhello     LIVE   v2    v1 90 %, v2 10 %\n\n\
                        hello:DEV stays at v3: the manifest does not name it\n\
                        ok 1 alias would change, nothing was done, 1 already as in the manifest";
        assert_eq!(plain(&applied_text(&response)), expected);
    }
}
