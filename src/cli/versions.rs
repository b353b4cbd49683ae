//! Versions and the deployments that pointed aliases at them.

use super::arguments::Move;
use super::error::CliError;
use super::input::Confirmation;
use super::print::{BOLD, DIM, facts, styled, table};
use super::session::{Session, list};
use super::views::{NO_FUNCTIONS, change_text};
use super::{outcome, text};
use crate::error::ErrorCode;
use crate::model::{AliasName, DeploymentStatus, Timestamp};
use crate::protocol::message::{
    DeleteVersionRequest, DeploymentInfo, DeploymentsRequest, DeploymentsResponse, ListRequest, RollbackRequest,
    TagVersionRequest, VersionInfo, VersionRef, VersionRequest, VersionsRequest, VersionsResponse,
};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Default number of deployments in a list.
const DEPLOYMENTS_DEFAULT: u32 = 100;

/// `levain versions`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  levain versions              of all functions\n  levain versions hello\n  \
                  levain versions show hello 3\n  levain versions log hello 3  its build log\n  \
                  levain versions delete hello v1\n  levain versions delete hello 3"
)]
pub(super) struct Versions {
    /// The function's name or id [default: all functions]
    name: Option<String>,
    /// Maximum number of versions [default: all]
    #[arg(long, value_name = "N", requires = "name")]
    limit: Option<u32>,
    #[command(subcommand)]
    action: Option<VersionAction>,
}

#[derive(Debug, Subcommand)]
enum VersionAction {
    /// Show all details of a version
    Show {
        /// The function's name or id
        name: String,
        /// A label, a number or an alias
        version: String,
    },
    /// Show the build log of a version
    Log {
        /// The function's name or id
        name: String,
        /// A label or a number
        version: String,
    },
    /// Change the tags and the description of a version; its code never changes
    #[command(after_help = "Examples:\n  levain versions tag hello v3 stable\n  \
                            levain versions tag hello 3 --remove stable --description 'too slow'")]
    Tag {
        /// The function's name or id
        name: String,
        /// A label, a number or an alias
        version: String,
        /// Tags to add
        #[arg(value_name = "TAG")]
        add: Vec<String>,
        /// A tag to remove; may be repeated
        #[arg(long, value_name = "TAG")]
        remove: Vec<String>,
        /// Description; an empty text removes it
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete an unused version with its bundle
    Delete {
        /// The function's name or id
        name: String,
        /// A label or a number
        version: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// Request for a function's versions.
fn of(function_id: String) -> VersionsRequest {
    VersionsRequest { function_id, ..VersionsRequest::default() }
}

impl Versions {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match (self.action, self.name) {
            (Some(action), _) => action.run(session).await,
            (None, Some(name)) => {
                session.print_list(of(name), self.limit, |it| versions_text(it, Timestamp::now())).await
            }
            (None, None) => of_all_functions(session).await,
        }
    }
}

impl VersionAction {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Delete { name, version, confirmation } => {
                confirmation.ask(&format!("Delete version {version} of {name} with its bundle?"))?;
                let request = DeleteVersionRequest { function_id: name.clone(), version: version.into() };
                session.print(&request, |it| format!("{name} {} deleted", it.version)).await
            }
            Self::Log { name, version } => {
                let (function_id, label) = (name.clone(), Some(version.clone()));
                let request = DeploymentsRequest { function_id, version: label, ..DeploymentsRequest::default() };
                let deployments = session.call(&request).await?.deployments;
                let found = deployments.into_iter().find(|it| it.build_log.is_some()).ok_or_else(|| {
                    let message = format!("there is no build log of version `{version}` of `{name}`");
                    CliError::failed(ErrorCode::VersionNotFound, message)
                })?;
                let log = |it: &DeploymentInfo| it.build_log.as_deref().map(text::harmless).unwrap_or_default().into();
                session.out.response(&found, log)
            }
            Self::Tag { name, version, add, remove, description } => {
                let version = version.into();
                let request = TagVersionRequest { function_id: name, version, add, remove, description };
                session.print(&request, version_text).await
            }
            Self::Show { name, version } => {
                session.print(&VersionRequest { function_id: name, version: version.into() }, version_text).await
            }
        }
    }
}

/// Versions of one function, as JSON.
#[derive(Debug, Serialize)]
struct OfFunction {
    function: String,
    #[serde(flatten)]
    versions: VersionsResponse,
}

async fn of_all_functions(session: &mut Session) -> Result<(), CliError> {
    let client = session.client().await?;
    let functions = list(&client, ListRequest::default(), None).await?.functions;
    for (index, function) in functions.iter().enumerate() {
        let versions = list(&client, of(function.function_id.to_string()), None).await?;
        let of = OfFunction { function: function.name.clone(), versions };
        session.out.response(&of, |it| {
            let gap = if index == 0 { "" } else { "\n" };
            format!("{gap}{}\n{}", styled(BOLD, &it.function), versions_text(&it.versions, Timestamp::now()))
        })?;
    }
    if functions.is_empty() && !session.out.is_json {
        session.out.text(NO_FUNCTIONS)?;
    }
    Ok(())
}

fn version_text(version: &VersionInfo) -> String {
    let settings =
        version.settings.values().map(|(setting, value)| format!("{} {}", setting.key, text::setting(&value)));
    let settings: Vec<_> = settings.collect();
    facts([
        ("version", version.version.to_string()),
        ("number", version.number.to_string()),
        ("id", version.id.to_string()),
        ("aliases", text::or_dash(Some(&version.aliases.join(", ")))),
        ("published", version.created_at.to_string()),
        ("size", text::size(version.size)),
        ("digest", version.digest.to_string()),
        ("bundle", version.bundle_path.clone()),
        ("source", version.source.name().into()),
        ("bytecode", if version.bytecode { "yes" } else { "no" }.into()),
        ("git commit", text::or_dash(version.git_commit.as_deref())),
        ("git branch", text::or_dash(version.git_branch.as_deref())),
        ("description", text::or_dash(version.description.as_deref())),
        ("tags", text::or_dash(Some(&version.tags.join(", ")))),
        ("Bun", version.bun_version.clone()),
        ("settings then", settings.join(", ")),
    ])
}

fn versions_text(response: &VersionsResponse, now: Timestamp) -> String {
    if response.versions.is_empty() {
        return "no versions yet: publish one with `levain deploy`".into();
    }
    let rows = response.versions.iter().map(|it| {
        let note = it.description.iter().cloned().chain(it.tags.iter().map(|tag| format!("#{tag}")));
        let commit = it.git_commit.as_deref().map(short_commit);
        let commit = commit.iter().map(String::as_str).chain(it.git_branch.as_deref());
        let commit = commit.collect::<Vec<_>>().join(" ");
        [
            it.version.to_string(),
            it.number.to_string(),
            text::or_dash(Some(&it.aliases.join(","))),
            text::age(it.created_at, now),
            text::size(it.size),
            it.digest.to_string()[..12].to_owned(),
            text::or_dash(Some(&commit)),
            text::or_dash(Some(&note.collect::<Vec<_>>().join(" "))),
        ]
    });
    table(["VERSION", ">NUMBER", "ALIASES", "PUBLISHED", ">SIZE", "DIGEST", "COMMIT", "NOTE"], rows)
}

/// Beginning of a commit, and its `-dirty` mark.
fn short_commit(commit: &str) -> String {
    let (hash, mark) = match commit.strip_suffix("-dirty") {
        Some(hash) => (hash, "-dirty"),
        None => (commit, ""),
    };
    format!("{}{mark}", hash.get(..9).unwrap_or(hash))
}

/// `levain deployments`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain deployments hello\n  levain deployments hello --alias STAGING\n  \
                        levain deployments hello --failed     with their build logs\n  \
                        levain deployments --failed           of all functions\n  \
                        levain deployments --active           what every alias points at")]
pub(super) struct Deployments {
    /// The function's name or id [default: all, with --failed or --active]
    #[arg(required_unless_present_any = ["failed", "active"])]
    name: Option<String>,
    /// Only deployments of this alias
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Only failed deployments, each with its build log
    #[arg(long)]
    failed: bool,
    /// Only deployments that an alias's present target comes from
    #[arg(long, conflicts_with = "failed")]
    active: bool,
    /// Maximum number of deployments [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// List all deployments
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Number of deployments to skip
    #[arg(long, value_name = "N")]
    offset: Option<u32>,
}

impl Deployments {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, alias, failed, active, limit, all, offset } = self;
        let status = match (failed, active) {
            (true, _) => Some(DeploymentStatus::Failed),
            (false, true) => Some(DeploymentStatus::Active),
            (false, false) => None,
        };
        let is_of_all = name.is_none();
        let function_id = name.unwrap_or_default();
        let request = DeploymentsRequest { function_id, alias, status, offset, ..DeploymentsRequest::default() };
        let limit = (!all).then_some(limit.unwrap_or(DEPLOYMENTS_DEFAULT));
        session.print_list(request, limit, |it| deployments_text(it, is_of_all, failed, Timestamp::now())).await
    }
}

/// One line per deployment, then the build logs of failed ones: of all, or of the newest.
fn deployments_text(response: &DeploymentsResponse, is_of_all: bool, all_logs: bool, now: Timestamp) -> String {
    if response.deployments.is_empty() {
        return "no such deployments".into();
    }
    let rows = response.deployments.iter().map(|it| {
        [
            text::age(it.created_at, now),
            text::words(it.kind.name()),
            text::words(it.status.name()),
            if is_of_all { format!("{}:{}", it.function, it.alias) } else { it.alias.to_string() },
            change_text(it),
            it.actor.clone(),
            text::duration_ms(it.duration_ms as f64),
            text::or_dash(Some(&reasons(it))),
            it.deployment_id.clone(),
        ]
    });
    let mut text = table(["WHEN", "KIND", "STATUS", "ALIAS", "FROM → TO", "ACTOR", ">TOOK", "REASON", "ID"], rows);
    let failed = response.deployments.iter().filter(|it| it.status == DeploymentStatus::Failed);
    for failed in failed.take(if all_logs { usize::MAX } else { 1 }) {
        let Some(log) = &failed.build_log else { continue };
        let head = format!("{} of {} failed, {}:", failed.version, failed.alias, failed.deployment_id);
        text.push_str(&format!("\n{}\n{}\n", styled(DIM, &head), text::harmless(log.trim_end())));
    }
    text
}

/// Reason for a deployment, and who approved or rejected it and why.
fn reasons(deployment: &DeploymentInfo) -> String {
    let decision = deployment.decided_by.as_ref().map(|by| {
        let what = if deployment.status == DeploymentStatus::Rejected { "rejected" } else { "approved" };
        let why = deployment.decision.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        format!("{what} by {by}{why}")
    });
    deployment.reason.iter().cloned().chain(decision).collect::<Vec<_>>().join("; ")
}

/// `levain rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  levain rollback hello         to the version that was live before\n  \
                  levain rollback hello 1.3.0\n  levain rollback hello --alias STAGING --to 3\n  \
                  levain rollback hello --dry-run     show what would happen\n\n\
                  A version that already took calls of the alias needs no approval, even in a protected \
                  environment: an emergency does not wait.")]
pub(super) struct Rollback {
    /// The function's name or id
    name: String,
    /// A label, a number or an alias [default: the version before the present one]
    version: Option<String>,
    /// The version, as an option instead of an argument
    #[arg(long, value_name = "VERSION", conflicts_with = "version")]
    to: Option<String>,
    /// The alias to move
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
    #[command(flatten)]
    how: Move,
}

impl Rollback {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, version, to, alias, how: Move { reason, dry_run } } = self;
        let version = version.or(to).map(VersionRef::from);
        let request = RollbackRequest { function_id: name, version, alias: Some(alias), reason, dry_run };
        outcome::call(session, &request).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::{Digest, Settings, VersionSource};

    #[test]
    fn versions_show_where_they_come_from() {
        let version = VersionInfo {
            source: VersionSource::Path,
            id: "version-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id"),
            version: "v1".parse().expect("a name"),
            number: 1,
            created_at: Timestamp::from_millis(0),
            bundle_path: "bundle.js".into(),
            digest: Digest([1; 32]),
            size: 100,
            description: Some("first".into()),
            tags: vec!["stable".into()],
            aliases: vec!["LIVE".into()],
            git_commit: Some("0123456789abcdef-dirty".into()),
            git_branch: Some("main".into()),
            bun_version: "1.3".into(),
            settings: Settings::default(),
            bytecode: true,
        };
        let text = versions_text(
            &VersionsResponse { versions: vec![version], next_cursor: None },
            Timestamp::from_millis(60_000),
        );
        let expected = "VERSION  NUMBER  ALIASES  PUBLISHED   SIZE  DIGEST        COMMIT                NOTE\n\
                        v1            1  LIVE     1m ago     100 B  010101010101  012345678-dirty main  first #stable\n";
        assert_eq!(plain(&text), expected);
    }
}
