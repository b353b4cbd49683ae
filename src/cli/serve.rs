//! Serve: runs the daemon in this process, until SIGINT or SIGTERM.

use super::config;
use super::error::CliError;
use super::session::Session;
use crate::config::LogFormat;
use crate::daemon::{Daemon, Options, Reload, Signals, StartError};
use crate::error::ErrorCode;
use crate::http::BindError;
use crate::logging;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  levain serve
  levain serve --config /etc/levain/config.toml
  levain serve --data-dir /var/lib/levain --log-level debug

--data-dir, --socket, --http and --log-level override the LEVAIN_* variables, which override the configuration file.";

/// `levain serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The data directory [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the HTTP server, or off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS|off")]
    http: Option<String>,
    /// Log level: error, warn, info, debug or trace, or directives such as info,levain::scheduler=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Serve {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let flags = config::flags(
            self.data_dir.as_deref(),
            session.socket.as_deref(),
            self.log_level.as_deref(),
            self.http.as_deref(),
        );
        let effective = config::load(session.config.as_deref(), &flags)?;
        let format = match effective.config.daemon.log_format {
            LogFormat::Auto => logging::Format::Auto,
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        };
        let log_level = logging::init(format, &effective.config.daemon.log_level);
        let log_level = log_level.map_err(|error| CliError::usage(error.to_string()))?;
        let watched = effective.file().map(Path::to_owned);
        let file = session.config.clone();
        let reload: Reload = Arc::new(move || crate::config::load(file.as_deref(), &flags));
        let options = Options { config: effective.config, reload: Some((watched, reload)), log_level: Some(log_level) };
        let signals = Signals::listen().map_err(failed)?;
        Daemon::start(options).await.map_err(failed)?.run(signals).await;
        Ok(())
    }
}

/// Turns the reason why the daemon did not start into an error with an exit code.
pub(super) fn failed(error: StartError) -> CliError {
    let code = match &error {
        StartError::Locked { .. }
        | StartError::NoDatabase { .. }
        | StartError::Bind(_)
        | StartError::Http(BindError::Address { .. }) => ErrorCode::Conflict,
        StartError::Http(_) => ErrorCode::InvalidRequest,
        StartError::Runtime(_) => ErrorCode::WorkerUnavailable,
        _ => ErrorCode::Internal,
    };
    CliError::Failed { message: error.to_string(), exit_code: code.exit_code() }
}
