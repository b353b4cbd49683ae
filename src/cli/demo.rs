//! Demo: runs the daemon with sample functions, invokes one of them twice, and shows what to try next.

use super::error::CliError;
use super::print::{BOLD, DIM, GREEN, styled};
use super::session::Session;
use super::{config, runtime, serve, text};
use crate::client::{Client, ClientError};
use crate::daemon::{Daemon, Signals};
use crate::error::ErrorCode;
use crate::logging;
use crate::model::ColdStart;
use crate::protocol::field::Body;
use crate::protocol::message::{DeployRequest, GetRequest, InvokeRequest};
use clap::Args;
use sha2::{Digest as _, Sha256};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// `levain demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain demo --data-dir /tmp/levain-demo")]
pub(super) struct Demo {
    /// The data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
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
        let mut flags = config::flags(self.data_dir.as_deref(), session.socket.as_deref(), None, None);
        // Loading a version to check it would leave a warm worker, but the demo shows a cold start.
        flags.push(("versioning.verify", "syntax".into()));
        let effective = config::load(session.config.as_deref(), &flags)?;
        let socket = config::socket_path(&effective);
        if Client::connect(&socket).await.is_ok() {
            let socket = socket.display();
            return Err(CliError::Failed {
                message: format!(
                    "a daemon runs on this data directory already: use it (levain --socket {socket} list), stop it, or \
                     give the demo another directory with --data-dir"
                ),
                exit_code: ErrorCode::Conflict.exit_code(),
            });
        }
        let bun = config::bun_path(&effective);
        runtime::find_or_install(session, bun.as_deref(), &config::data_dir(&effective)).await?;
        // The daemon's usual log lines would mix with the demo's own.
        let log = logging::init(logging::Format::Text, "warn");
        log.map_err(|error| CliError::usage(error.to_string()))?;
        let mut config = effective.config;
        // Another program may use the port; the demo does not need HTTP.
        let is_taken = |it: &str| TcpListener::bind(it).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        if config.http.address().is_some_and(is_taken) {
            session.out.progress(&format!("{} is taken, so the demo serves no HTTP", config.http.address));
            config.http.address = "off".into();
        }
        let daemon = Daemon::start(config).await.map_err(serve::failed)?;
        let shown = show(session, daemon.socket(), self.once).await;
        if shown.is_err() || self.once {
            daemon.shutdown().await;
            return shown;
        }
        daemon.run(Signals::listen().map_err(serve::failed)?).await;
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
        let timing = styled(DIM, &format!("{took}, {how}"));
        let body = text::harmless(body.trim_end());
        out.text(&format!("{} {} {body} {timing}", styled(BOLD, "hello"), answer.status))?;
        if let (false, Some(code)) = (answer.success, answer.code) {
            out.note(&text::harmless(answer.error.as_deref().unwrap_or_default()));
            return Err(CliError::Function(code));
        }
    }
    if is_once { Ok(()) } else { out.text(&next_steps(socket)) }
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
    let took = styled(DIM, &format!("{}, {}", response.version, text::duration_ms(response.duration_ms)));
    Ok(format!("{} {name} deployed {took}", styled(GREEN, "ok")))
}

/// Label derived from the code, so that a second demo finds its versions again.
fn label(code: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(code).into();
    let digest = crate::model::Digest(digest).to_string();
    format!("{LABEL_PREFIX}{}", &digest[..8])
}

fn next_steps(socket: &Path) -> String {
    let steps = [
        ("invoke echo --data '{\"a\": 1}' -i", "status, headers, body, timing"),
        ("invoke stream --stream", "the body as it is produced"),
        ("invoke logs", "a function that logs"),
        ("logs logs", "what it logged"),
        ("bench hello --duration 5", "throughput and percentiles"),
        ("status", "workers and memory"),
    ];
    let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let line = |(command, what): &(&str, &str)| {
        format!("  levain --socket {} {command:width$}  {}\n", socket.display(), styled(DIM, &format!("# {what}")))
    };
    let lines: String = steps.iter().map(line).collect();
    format!("\nThe daemon keeps running; Ctrl-C stops it. In another terminal:\n{lines}")
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
}
