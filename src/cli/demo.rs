//! Demo: runs the daemon with sample functions, invokes one of them twice, and shows what to try next.

use super::arguments::DataDir;
use super::error::CliError;
use super::print::{BOLD, DIM, GREEN, styled};
use super::session::{Flags, Session};
use super::{runtime, text};
use crate::client::{Client, ClientError};
use crate::daemon::{Daemon, Signals};
use crate::error::ErrorCode;
use crate::logging;
use crate::model::ColdStart;
use crate::protocol::field::Body;
use crate::protocol::message::{DeployRequest, GetRequest, InvokeRequest, StatusRequest};
use clap::Args;
use sha2::{Digest as _, Sha256};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;

/// `levain demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain demo --data-dir /tmp/levain-demo")]
pub(super) struct Demo {
    #[command(flatten)]
    data_dir: DataDir,
    /// Stop after the sample calls instead of serving on
    #[arg(long)]
    once: bool,
}

macro_rules! samples {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../../bundles/", $name, "/index.ts")))),*] };
}

/// Well-behaved functions of `bundles/`. The binary contains them because it may run anywhere.
const SAMPLES: [(&str, &str); 7] = samples!["hello" "echo" "cpu" "sleep" "stream" "logs" "headers"];

/// Prefix of the samples' labels. A function whose version has another label is the user's own.
const LABEL_PREFIX: &str = "sample-";

impl Demo {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        // Loading a version to check it would leave a warm worker, but the demo shows a cold start.
        let flags = session.flags([self.data_dir.flag(), ("versioning.verify", Some("syntax".into()))]);
        let mut config = session.configuration(&flags)?.config;
        let socket = config.socket_path();
        if Client::connect(&socket).await.is_ok() {
            let socket = socket.display();
            let message = format!(
                "a daemon runs on this data directory already: use it (levain --socket {socket} list), stop it (levain \
                 --socket {socket} stop), or give the demo another directory with --data-dir"
            );
            return Err(CliError::failed(ErrorCode::Conflict, message));
        }
        runtime::find_or_install(session, &config).await?;
        // The daemon's usual log lines would mix with the demo's own.
        let log = logging::init(logging::Format::Text, "warn");
        log.map_err(|error| CliError::usage(error.to_string()))?;
        // Another program may use the port; the demo does not need HTTP.
        let is_taken = |it: &str| TcpListener::bind(it).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        if config.http.address().is_some_and(is_taken) {
            session.out.progress(&format!("{} is taken, so the demo serves no HTTP", config.http.address));
            config.http.address = "off".into();
        }
        let daemon = Daemon::start(config).await?;
        let shown = show(session, daemon.socket(), self.once).await;
        if shown.is_err() || self.once {
            daemon.shutdown().await;
            return shown;
        }
        daemon.run(Signals::listen()?).await;
        Ok(())
    }
}

async fn show(session: &Session, socket: &Path, is_once: bool) -> Result<(), CliError> {
    let client = Client::connect(socket).await?;
    let out = &session.out;
    for (name, code) in SAMPLES {
        let line = deploy_sample(&client, name, code).await?;
        out.text(&line)?;
    }
    out.text("")?;
    for _ in 0..2 {
        let request = InvokeRequest { function_id: "hello".into(), ..InvokeRequest::default() };
        let answer = client.call(&request).await?;
        let body = String::from_utf8_lossy(&answer.body.0);
        let how = match answer.cold_start {
            ColdStart::None => "warm worker",
            ColdStart::Prewarmed => "cold: a prewarmed worker loaded the function",
            ColdStart::Spawned => "cold: a worker was started",
        };
        let took = text::duration_ms(answer.execution_time_ms);
        let timing = styled(DIM, format!("{took}, {how}"));
        let body = text::harmless(body.trim_end());
        out.text(&format!("{} {} {body} {timing}", styled(BOLD, "hello"), answer.status))?;
        if let (false, Some(code)) = (answer.success, answer.code) {
            out.note(&text::harmless(answer.error.as_deref().unwrap_or_default()));
            return Err(CliError::Function(code));
        }
    }
    if is_once {
        return Ok(());
    }
    let http = client.call(&StatusRequest {}).await?.http_url;
    out.text(&next_steps(session, socket, http.as_deref()))
}

/// Deploys a sample and returns a line about it. A function that the user deployed under its name stays.
async fn deploy_sample(client: &Client, name: &str, code: &'static str) -> Result<String, ClientError> {
    let live = match client.call(&GetRequest { function_id: name.into() }).await {
        Ok(function) => function.active_version,
        Err(error) if error.code() == Some(ErrorCode::FunctionNotFound) => None,
        Err(error) => return Err(error),
    };
    if let Some(live) = live.filter(|it| !it.starts_with(LABEL_PREFIX)) {
        return Ok(format!("{} {name} stays at your version {live}", styled(DIM, "--")));
    }
    let request = DeployRequest {
        function_id: name.into(),
        version: Some(label(code)),
        bundle: Some(Body(code.as_bytes().into())),
        entry: Some("index.ts".into()),
        description: Some("a sample of `levain demo`".into()),
        create: true,
        ..DeployRequest::default()
    };
    let response = client.call(&request).await?;
    let took = styled(DIM, format!("{}, {}", response.version, text::duration_ms(response.duration_ms)));
    Ok(format!("{} {name} deployed {took}", styled(GREEN, "ok")))
}

/// Label derived from the code, so that a second demo finds its versions again.
fn label(code: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(code).into();
    let digest = crate::model::Digest(digest).to_string();
    format!("{LABEL_PREFIX}{}", &digest[..8])
}

/// Lines to try next, which work as they are printed.
fn next_steps(session: &Session, socket: &Path, http: Option<&str>) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    let levain = std::env::current_exe().map_or_else(|_| "levain".into(), |it| shell_path(&it, &folder));
    let is_default = session.configuration(&Flags::new()).is_ok_and(|it| it.config.socket_path() == socket);
    let reach = if is_default { String::new() } else { format!("--socket {} ", shell_path(socket, &folder)) };
    let commands = [
        ("invoke echo --data '{\"a\": 1}' -i", "status, headers, body, timing"),
        ("invoke stream --stream", "the body as it is produced"),
        ("invoke logs", "a function that logs"),
        ("logs logs", "what it logged"),
        ("bench hello --duration 5", "throughput and percentiles"),
        ("status", "workers and memory"),
        ("stop", "the end of the demo"),
    ];
    let curl = http.map(|url| (format!("curl {url}/functions/hello"), "the same over HTTP"));
    let commands = commands.map(|(command, what)| (format!("{levain} {reach}{command}"), what));
    let steps: Vec<_> = curl.into_iter().chain(commands).collect();
    let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let lines: String = steps
        .iter()
        .map(|(command, what)| format!("  {command:width$}  {}\n", styled(DIM, format!("# {what}"))))
        .collect();
    format!("\nThe daemon keeps running; Ctrl-C stops it. In another terminal, in this folder:\n{lines}")
}

/// A path as a shell takes it: relative to the folder that it is below, and quoted if need be.
fn shell_path(path: &Path, folder: &Path) -> String {
    let text = match path.strip_prefix(folder) {
        Ok(below) if below.components().count() == 1 => format!("./{}", below.display()),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let is_plain = text.chars().all(|it| it.is_ascii_alphanumeric() || "/._-+,:@%".contains(it));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FunctionName, VersionLabel};

    #[test]
    fn samples_have_valid_names_and_labels_that_follow_their_code() {
        for (name, code) in SAMPLES {
            assert!(name.parse::<FunctionName>().is_ok() && label(code).parse::<VersionLabel>().is_ok(), "{name}");
        }
        assert_eq!(label("a"), label("a"));
        assert_ne!(label("a"), label("b"));
    }

    #[test]
    fn a_path_is_what_a_shell_takes_in_that_folder() {
        let path = |path: &str| shell_path(path.as_ref(), "/home/me".as_ref());
        assert_eq!(path("/home/me/target/release/levain"), "target/release/levain");
        assert_eq!(path("/home/me/levain"), "./levain");
        assert_eq!(path("/usr/bin/levain"), "/usr/bin/levain");
        assert_eq!(path("/home/me/it's here/levain"), r"'it'\''s here/levain'");
    }
}
