//! Deploy: publishes a file, a folder, an archive or standard input as a version that takes traffic.
//!
//! The daemon gets the path and reads it itself. Code that it cannot read, for example another user's, is sent to it.

use super::arguments::parse_percent;
use super::error::CliError;
use super::interrupt::{Done, Interrupts};
use super::print::{DIM, Out, styled};
use super::session::Session;
use super::{git, input, outcome, pack, text};
use crate::client::{Client, ClientError};
use crate::error::ErrorCode;
use crate::model::{AliasName, Percent};
use crate::protocol::message::{DeployRequest, DeployResponse};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  levain deploy hello ./hello.ts              a file; registers the function
  levain deploy hello ./dist --version 1.4.0  a folder with index.js or main.js
  levain deploy hello ./hello.tgz             a tar, tar.gz or zip, or `-`
  levain deploy hello .                       a project, which is built
  levain deploy hello --version 1.3.0         back to a published version
  levain deploy hello ./dist --alias STAGING  for testing; LIVE does not move
  levain deploy hello ./dist --weight 10      a tenth of LIVE's calls
  levain deploy hello ./dist --preview 42     a preview with its own URL
  levain deploy hello ./hello.ts --dry-run    check, and show what would happen

In a protected environment (`levain environments list`), a version that is new to the alias waits for `levain \
approve`. A version that already took calls of the alias does not, so going back never waits. Ctrl-C cancels a \
deployment until it is committed. The commit and branch of a git checkout are recorded; `-dirty` marks uncommitted \
changes in the deployed files.";

/// `levain deploy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deploy {
    /// The function's name or id
    name: String,
    /// A file, folder or archive (tar, tar.gz, zip), or `-` for standard input; without it, a published version becomes
    /// active again. Hidden files, and files that .gitignore or .levainignore exclude, are left out of a folder
    #[arg(required_unless_present = "version")]
    path: Option<PathBuf>,
    /// The file to import or build [default: bundle, index, function, handler, main, app, server or worker, or the only file of code; bundle.js from standard input]
    #[arg(long, value_name = "FILE")]
    entry: Option<String>,
    /// Build a bundle of the code [default: if it has packages, or its entry is in src/ or only package.json names it]
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Use the code as the bundle, without a build
    #[arg(long)]
    no_build: bool,
    /// The version's label [default: v1, v2, v3 …]
    #[arg(long, value_name = "LABEL")]
    version: Option<String>,
    /// The alias to point at the version; created if it is missing
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
    /// Create or move the preview of this name, with its own URL, instead of an alias
    #[arg(long, value_name = "NAME", conflicts_with_all = ["alias", "weight", "no_activate"])]
    preview: Option<String>,
    /// Time until the preview expires, such as 24h; 0 for never [default: previews.ttl_hours]
    #[arg(long, value_name = "TIME", requires = "preview")]
    ttl: Option<String>,
    /// Share of the alias's calls that the version gets, instead of all
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, conflicts_with = "no_activate")]
    weight: Option<Percent>,
    /// Description of the version
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A tag of the version; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Workers to start before the version takes traffic
    #[arg(long, value_name = "N")]
    warm: Option<u32>,
    /// Reason for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// A unique key for this deployment: a repetition with the same key is carried out once. Implies --upload
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Send the code instead of letting the daemon read it at its path
    #[arg(long)]
    upload: bool,
    /// Publish the version without moving the alias
    #[arg(long)]
    no_activate: bool,
    /// Check everything, keep nothing, and print what would happen
    #[arg(long)]
    dry_run: bool,
    /// Fail if the function does not exist, instead of registering it
    #[arg(long)]
    no_create: bool,
}

impl Deploy {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        // A path does not identify its content, so a request with an idempotency key carries the code.
        let is_uploading = self.upload || self.idempotency_key.is_some();
        let mut request = self.request().await?;
        let client = session.client().await?;
        let result = send(&client, &mut request, is_uploading, &session.out).await;
        session.out.progress("");
        outcome::show(&session.out, &result?)
    }

    async fn request(self) -> Result<DeployRequest, CliError> {
        let mut request = DeployRequest {
            function_id: self.name,
            version: self.version,
            entry: self.entry,
            alias: self.preview.is_none().then_some(self.alias),
            preview: self.preview,
            ttl: self.ttl,
            build: (self.build || self.no_build).then_some(self.build),
            follow: true,
            activate: self.no_activate.then_some(false),
            weight: self.weight.map(u32::from),
            create: !self.no_create,
            warm: self.warm,
            description: self.description,
            tags: self.tags,
            reason: self.reason,
            dry_run: self.dry_run,
            idempotency_key: self.idempotency_key,
            ..DeployRequest::default()
        };
        let Some(path) = self.path else { return Ok(request) };
        if path.as_os_str() == "-" {
            pack::put_bytes(&mut request, input::read(&path)?.into());
            return Ok(request);
        }
        // The daemon has another working directory.
        let path = std::path::absolute(&path).map_err(|source| CliError::Input { path, source })?;
        (request.git_commit, request.git_branch) = git::head(&path).await;
        let text = path.into_os_string().into_string();
        request.bundle_path = Some(text.map_err(|path| {
            let path = path.display();
            CliError::usage(format!("the path {path} is not valid UTF-8: rename it"))
        })?);
        Ok(request)
    }
}

/// Deploys. The request carries the code if the daemon cannot, or should not, read the path.
async fn send(
    client: &Client,
    request: &mut DeployRequest,
    is_uploading: bool,
    out: &Out,
) -> Result<Done<DeployResponse>, CliError> {
    let path = request.bundle_path.clone().map(PathBuf::from);
    match path.as_deref().filter(|_| is_uploading) {
        Some(path) => pack::put(request, path, out)?,
        None => out.progress("checking and loading the bundle …"),
    }
    let mut interrupts = Interrupts::listen()?;
    let result = follow(&mut interrupts, client, request, out).await;
    match (path.filter(|_| !is_uploading), result) {
        // The path exists, so the daemon may not read it, or not on behalf of this user.
        (Some(path), Err(error)) if may_not_read(&error) && path.exists() => {
            pack::put(request, &path, out)?;
            follow(&mut interrupts, client, request, out).await
        }
        (_, result) => result,
    }
}

fn may_not_read(error: &CliError) -> bool {
    error.refusal().is_some_and(|it| matches!(it.code, ErrorCode::BundleNotFound | ErrorCode::Forbidden))
}

/// Sends the request and shows the output of its build.
async fn follow(
    interrupts: &mut Interrupts,
    client: &Client,
    request: &DeployRequest,
    out: &Out,
) -> Result<Done<DeployResponse>, CliError> {
    let tell = |line: &str| out.progress_line(&styled(DIM, text::harmless(line)));
    interrupts.call(client, request, out, tell).await.map_err(|it| without_log(it, out))
}

/// Removes the build log from an error if its lines have been shown already.
fn without_log(error: CliError, out: &Out) -> CliError {
    match error {
        CliError::Client(ClientError::Refused(mut refusal))
            if out.shows_progress() && refusal.code == ErrorCode::BuildFailed =>
        {
            if let Some(serde_json::Value::Object(details)) = &mut refusal.details {
                details.remove("log");
            }
            ClientError::Refused(refusal).into()
        }
        other => other,
    }
}
