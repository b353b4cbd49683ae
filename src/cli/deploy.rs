//! Deploy: a file, a folder or standard input becomes a version that takes traffic.

use super::error::CliError;
use super::git;
use super::print::{DIM, GREEN, styled};
use super::session::Session;
use super::text;
use crate::client::{Client, ClientError};
use crate::error::ErrorCode;
use crate::model::{AliasName, FunctionName};
use crate::protocol::field::Body;
use crate::protocol::message::{DeployRequest, DeployResponse, RegisterRequest};
use clap::Args;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  levain deploy hello ./hello.ts             a file; the function is made when it is new
  levain deploy hello ./dist --version 1.4.0  a folder with a bundle or index file
  levain deploy hello --version 1.3.0        back to a version that is published already
  levain deploy hello ./dist --alias STAGING  for testing; LIVE stays where it is
  levain deploy hello ./hello.ts --dry-run   check everything, keep nothing";

/// `levain deploy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deploy {
    /// The function's name or id
    name: String,
    /// A file or folder, or `-` for standard input; without it, a published version becomes active again
    #[arg(required_unless_present = "version")]
    path: Option<PathBuf>,
    /// The file to import [default: the one `bundle` or `index` file; bundle.js from standard input]
    #[arg(long, value_name = "FILE")]
    entry: Option<String>,
    /// The version's label [default: v1, v2, v3 …]
    #[arg(long, value_name = "LABEL")]
    version: Option<String>,
    /// The alias to point at the version, made if need be
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
    /// Free text kept with the version
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A label kept with the version; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Workers to have ready before the version takes traffic
    #[arg(long, value_name = "N")]
    warm: Option<u32>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Publish the version and leave the alias where it is
    #[arg(long)]
    no_activate: bool,
    /// Check everything, keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Fail when there is no function of this name, instead of making it
    #[arg(long)]
    no_create: bool,
}

impl Deploy {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let is_creating = !self.no_create;
        let request = self.request().await?;
        let client = session.client().await?;
        session.out.progress("checking and loading the bundle …");
        let result = deploy(&client, &request, is_creating).await;
        session.out.progress("");
        session.out.response(&result?, |it| text(&request.function_id, it))
    }

    async fn request(self) -> Result<DeployRequest, CliError> {
        let mut request = DeployRequest {
            function_id: self.name,
            version: self.version,
            entry: self.entry,
            alias: Some(self.alias),
            activate: self.no_activate.then_some(false),
            warm: self.warm,
            description: self.description,
            tags: self.tags,
            reason: self.reason,
            dry_run: self.dry_run,
            ..DeployRequest::default()
        };
        let Some(path) = self.path else { return Ok(request) };
        if path.as_os_str() == "-" {
            request.bundle = Some(Body(super::invoke::read_stdin()?));
            return Ok(request);
        }
        // The daemon has another working directory.
        let path = std::path::absolute(&path).map_err(|source| CliError::Input { path, source })?;
        let folder = if path.is_dir() { &path } else { path.parent().unwrap_or(Path::new("/")) };
        (request.git_commit, request.git_branch) = git::head(folder).await;
        let text = path.into_os_string().into_string();
        request.bundle_path = Some(text.map_err(|path| {
            let path = path.display();
            CliError::usage(format!("the path {path} is not UTF-8, which the daemon cannot be told"))
        })?);
        Ok(request)
    }
}

/// Deploys; a function that does not exist is registered first. A dry run keeps nothing, so it registers nothing.
pub(super) async fn deploy(
    client: &Client,
    request: &DeployRequest,
    is_creating: bool,
) -> Result<DeployResponse, ClientError> {
    let error = match client.call(request).await {
        Err(error) if error.code() == Some(ErrorCode::FunctionNotFound) => error,
        result => return result,
    };
    let has_bundle = request.bundle.is_some() || request.bundle_path.is_some();
    let is_name = request.function_id.parse::<FunctionName>().is_ok();
    if !is_creating || request.dry_run || !has_bundle || !is_name {
        return Err(error);
    }
    client.call(&RegisterRequest { name: request.function_id.clone(), ..RegisterRequest::default() }).await?;
    client.call(request).await
}

/// What a deploy, a rollback or a move of an alias did.
pub(super) fn text(name: &str, response: &DeployResponse) -> String {
    let DeployResponse { alias, version, number, status, weight, previous_version, published, size, .. } = response;
    let took = text::duration_ms(response.duration_ms);
    let code = format!("{} {}", text::size(*size), &response.digest.to_string()[..12]);
    let what = match status.as_str() {
        "checked" => format!("{version} would be version {number}; nothing was kept"),
        "built" => format!("{version} is published as version {number}; {alias} stays where it is"),
        _ if weight.is_some() => format!("{alias} sends {} % of its calls to {version}", weight.unwrap_or(100)),
        _ if alias != AliasName::LIVE => format!("{alias} points at {version}, version {number}"),
        _ if *published => format!("{version} is live as version {number}"),
        _ => format!("{version} is live again"),
    };
    let before = previous_version.as_ref().filter(|it| *it != version);
    let before = match (before, weight) {
        (Some(before), Some(_)) => format!(", and the rest to {before}"),
        (Some(before), None) => format!(", before it {before}"),
        (None, _) => String::new(),
    };
    format!("{} {name} {what}{before}\n{}", styled(GREEN, "ok"), styled(DIM, &format!("   {code}, took {took}")))
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::Digest;

    fn response() -> DeployResponse {
        DeployResponse {
            deployment_id: "deploy-1".into(),
            function_id: "func-1".into(),
            version: "v2".into(),
            number: 2,
            alias: "LIVE".into(),
            environment: "production".into(),
            status: "deployed".into(),
            weight: None,
            previous_version: Some("v1".into()),
            published: true,
            digest: Digest([0xab; 32]),
            size: 2048,
            duration_ms: 41.2,
        }
    }

    #[test]
    fn the_text_says_what_is_live_now_and_what_was_before() {
        let text = plain(&text("hello", &response()));
        assert_eq!(text, "ok hello v2 is live as version 2, before it v1\n   2.0 KiB abababababab, took 41.2 ms");
    }

    #[test]
    fn an_alias_that_is_not_live_does_not_claim_to_be() {
        let response = DeployResponse { alias: "STAGING".into(), ..response() };
        let text = plain(&text("hello", &response));
        assert!(text.starts_with("ok hello STAGING points at v2, version 2, before it v1\n"), "{text}");
    }

    #[test]
    fn what_is_only_checked_or_built_does_not_claim_to_be_live() {
        for status in ["checked", "built"] {
            let response = DeployResponse { status: status.into(), ..response() };
            assert!(!text("hello", &response).contains("is live"));
        }
    }
}
