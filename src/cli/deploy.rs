//! Deploy: a file, a folder, an archive or standard input becomes a version that takes traffic.
//!
//! The daemon is told the path and reads it itself; what it cannot read, as another user may have it, is sent to it.

use super::error::CliError;
use super::git;
use super::pack;
use super::previews::left_text;
use super::print::{DIM, GREEN, Out, styled};
use super::session::Session;
use super::text;
use crate::client::{Client, ClientError};
use crate::error::ErrorCode;
use crate::model::{AliasName, Percent, Timestamp};
use crate::protocol::message::{DeployProgress, DeployRequest, DeployResponse};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  levain deploy hello ./hello.ts             a file; the function is made when it is new
  levain deploy hello ./dist --version 1.4.0  a folder with a bundle or index file
  levain deploy hello ./hello.tgz            a tar, tar.gz or zip of such a folder; also from `-`
  levain deploy hello .                      a project: its packages are installed and its entry is built
  levain deploy hello --version 1.3.0        back to a version that is published already
  levain deploy hello ./dist --alias STAGING  for testing; LIVE stays where it is
  levain deploy hello ./dist --weight 10     a tenth of LIVE's calls; what is live keeps the rest
  levain deploy hello ./dist --preview 42    at an address of its own, for a week; LIVE stays where it is
  levain deploy hello ./hello.ts --dry-run   check everything, keep nothing, print what would happen

In a protected environment (`levain environments list`) a version that is new to the alias waits for `levain approve`; one that
took calls of it before does not, so going back never waits. The commit and branch of a git checkout are recorded,
with `-dirty` where what is deployed has changes that are not committed.";

/// `levain deploy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deploy {
    /// The function's name or id
    name: String,
    /// A file, folder or archive (tar, tar.gz, zip), or `-` for standard input; without it, a published version becomes
    /// active again. Of a folder, hidden files and what .gitignore and .levainignore name are left out
    #[arg(required_unless_present = "version")]
    path: Option<PathBuf>,
    /// The file to import, or to build [default: the one `bundle` or `index` file; bundle.js from standard input]
    #[arg(long, value_name = "FILE")]
    entry: Option<String>,
    /// Build a bundle of the code, whatever it looks like [default: if it has packages or hides its entry]
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Take the code for the bundle as it is
    #[arg(long)]
    no_build: bool,
    /// The version's label [default: v1, v2, v3 …]
    #[arg(long, value_name = "LABEL")]
    version: Option<String>,
    /// The alias to point at the version, made if need be
    #[arg(long, value_name = "NAME", default_value = AliasName::LIVE)]
    alias: String,
    /// Make or move the preview of this name instead of an alias, with a URL of its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["alias", "weight", "no_activate"])]
    preview: Option<String>,
    /// How long the preview stays from now on, such as 24h; 0: until it is deleted [default: previews.ttl_hours]
    #[arg(long, value_name = "TIME", requires = "preview")]
    ttl: Option<String>,
    /// The share of the alias's calls that the version gets, instead of all of them
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, conflicts_with = "no_activate")]
    weight: Option<Percent>,
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
    /// A key of your own, new for each deployment: what is sent again with the same one is carried out once. The code is
    /// sent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Send the code, instead of letting the daemon read it at its path
    #[arg(long)]
    upload: bool,
    /// Publish the version and leave the alias where it is
    #[arg(long)]
    no_activate: bool,
    /// Check everything, keep nothing, and print what would happen
    #[arg(long)]
    dry_run: bool,
    /// Fail when there is no function of this name, instead of making it
    #[arg(long)]
    no_create: bool,
}

impl Deploy {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        // A path says nothing of what is there.
        let is_uploading = self.upload || self.idempotency_key.is_some();
        let mut request = self.request().await?;
        let client = session.client().await?;
        let result = send(&client, &mut request, is_uploading, &session.out).await;
        session.out.progress("");
        session.out.response(&result?, |it| text(&request.function_id, it))
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
            pack::put_bytes(&mut request, super::invoke::read_stdin()?);
            return Ok(request);
        }
        // The daemon has another working directory.
        let path = std::path::absolute(&path).map_err(|source| CliError::Input { path, source })?;
        (request.git_commit, request.git_branch) = git::head(&path).await;
        let text = path.into_os_string().into_string();
        request.bundle_path = Some(text.map_err(|path| {
            let path = path.display();
            CliError::usage(format!("the path {path} is not UTF-8, which the daemon cannot be told"))
        })?);
        Ok(request)
    }
}

/// Deploys, with the code in the request where the daemon is not to read it or cannot.
async fn send(
    client: &Client,
    request: &mut DeployRequest,
    is_uploading: bool,
    out: &Out,
) -> Result<DeployResponse, CliError> {
    let path = request.bundle_path.clone().map(PathBuf::from);
    match path.as_deref().filter(|_| is_uploading) {
        Some(path) => pack::put(request, path, out)?,
        None => out.progress("checking and loading the bundle …"),
    }
    let result = follow(client, request, out).await;
    match (path.filter(|_| !is_uploading), result) {
        // It is there, so it is the daemon that may not read it.
        (Some(path), Err(error)) if error.code() == Some(ErrorCode::BundleNotFound) && path.exists() => {
            pack::put(request, &path, out)?;
            Ok(follow(client, request, out).await?)
        }
        (_, result) => Ok(result?),
    }
}

/// Sends the request and shows what its build says.
async fn follow(client: &Client, request: &DeployRequest, out: &Out) -> Result<DeployResponse, ClientError> {
    let mut answer = client.call_streaming(request)?;
    while let Some(DeployProgress { line }) = answer.next_partial().await.map_err(|it| without_log(it, out))? {
        out.progress_line(&styled(DIM, &text::harmless(&line)));
    }
    answer.finish().await
}

/// What was shown line by line is not shown again.
fn without_log(error: ClientError, out: &Out) -> ClientError {
    match error {
        ClientError::Refused(mut refusal) if out.shows_progress() && refusal.code == ErrorCode::BuildFailed => {
            if let Some(serde_json::Value::Object(details)) = &mut refusal.details {
                details.remove("log");
            }
            ClientError::Refused(refusal)
        }
        other => other,
    }
}

/// A share in percent, with or without its sign.
fn parse_percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse::<u32>();
    let number = number.map_err(|_| "a share is a whole number of percent from 0 to 100".to_owned())?;
    Percent::try_from(number).map_err(|error| error.to_string())
}

/// What a deploy, a rollback, a move of an alias or a decision did, or would do.
pub(super) fn text(name: &str, response: &DeployResponse) -> String {
    let DeployResponse { alias, version, number, status, weight, previous_version, published, size, .. } = response;
    let took = text::duration_ms(response.duration_ms);
    let code = format!("{} {}", text::size(*size), &response.digest.to_string()[..12]);
    let what = match (status.as_str(), weight) {
        ("checked", _) => format!("{version} passes all checks; nothing was kept or moved, and this would happen:"),
        ("built", _) => format!("{version} is published as version {number}; {alias} stays where it is"),
        ("pending_approval", _) => {
            let environment = &response.environment;
            format!("{version} waits for approval, {environment} is protected; {alias} stays where it is")
        }
        ("rejected", _) => format!("{version} is rejected; {alias} stays where it is"),
        (_, Some(weight)) => format!("{alias} sends {weight} % of its calls to {version}"),
        _ if alias != AliasName::LIVE => format!("{alias} points at {version}, version {number}"),
        _ if *published => format!("{version} is live as version {number}"),
        _ => format!("{version} is live again"),
    };
    let before = previous_version.as_ref().filter(|it| status == "deployed" && *it != version);
    let before = match (before, weight) {
        (Some(before), Some(_)) => format!(", and the rest to {before}"),
        (Some(before), None) => format!(", before it {before}"),
        (None, _) => String::new(),
    };
    let mut text = format!("{} {name} {what}{before}\n", styled(GREEN, "ok"));
    for step in &response.plan {
        text.push_str(&format!("   {}\n", text::harmless(&step.detail).replace('\n', " ")));
    }
    for url in response.host_url.iter().chain(&response.url).filter(|_| status == "deployed") {
        text.push_str(&format!("   {url}\n"));
    }
    if let Some(at) = response.expires_at {
        text.push_str(&format!("   it goes in {}\n", left_text(Some(at), Timestamp::now())));
    }
    if status == "pending_approval" {
        text.push_str(&format!("   levain approve {}\n", response.deployment_id));
    }
    text + &styled(DIM, &format!("   {code}, took {took}"))
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
            new_function: false,
            digest: Digest([0xab; 32]),
            size: 2048,
            duration_ms: 41.2,
            url: None,
            host_url: None,
            expires_at: None,
            plan: Vec::new(),
        }
    }

    #[test]
    fn the_text_says_what_is_live_now_and_what_was_before() {
        let text = plain(&text("hello", &response()));
        assert_eq!(text, "ok hello v2 is live as version 2, before it v1\n   2.0 KiB abababababab, took 41.2 ms");
    }

    #[test]
    fn a_preview_has_both_of_its_addresses() {
        let (by_path, by_host) = ("http://localhost:1/functions/f:preview-a", "http://preview-a--f.localhost:1/");
        let alias = "preview-a".into();
        let response =
            DeployResponse { alias, url: Some(by_path.into()), host_url: Some(by_host.into()), ..response() };
        let text = plain(&text("f", &response));
        assert!(text.contains(&format!("\n   {by_host}\n   {by_path}\n")), "{text}");
    }

    #[test]
    fn an_alias_that_is_not_live_does_not_claim_to_be() {
        let response = DeployResponse { alias: "STAGING".into(), ..response() };
        let text = plain(&text("hello", &response));
        assert!(text.starts_with("ok hello STAGING points at v2, version 2, before it v1\n"), "{text}");
    }

    #[test]
    fn what_is_only_checked_or_built_does_not_claim_to_be_live() {
        for status in ["checked", "built", "pending_approval", "rejected"] {
            let response = DeployResponse { status: status.into(), ..response() };
            assert!(!text("hello", &response).contains("is live"));
        }
    }

    #[test]
    fn what_waits_says_how_it_is_approved() {
        let response = DeployResponse { status: "pending_approval".into(), ..response() };
        let text = plain(&text("hello", &response));
        assert!(
            text.contains("v2 waits for approval, production is protected") && !text.contains("before it"),
            "{text}"
        );
        assert!(text.contains("\n   levain approve deploy-1\n"), "{text}");
    }

    #[test]
    fn a_share_is_no_move() {
        let response = DeployResponse { weight: Some(10), ..response() };
        let text = plain(&text("hello", &response));
        assert!(text.starts_with("ok hello LIVE sends 10 % of its calls to v2, and the rest to v1\n"), "{text}");
    }

    #[test]
    fn a_share_is_read_with_its_sign_or_without() {
        assert_eq!(parse_percent("10"), parse_percent("10%"));
        assert!(["101", "-1", "x", "1.5", "%"].iter().all(|it| parse_percent(it).is_err()));
    }
}
