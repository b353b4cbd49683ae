//! Serve: runs the daemon in this process, until SIGINT or SIGTERM.

use super::arguments::DataDir;
use super::error::CliError;
use super::session::Session;
use crate::config::LogFormat;
use crate::daemon::{Daemon, Options, Reload, Signals};
use crate::logging;
use clap::Args;
use std::path::Path;
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
    #[command(flatten)]
    data_dir: DataDir,
    /// Address of the HTTP server, or off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS|off")]
    http: Option<String>,
    /// Log level: error, warn, info, debug or trace, or directives such as info,levain::scheduler=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Serve {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let data_dir = self.data_dir.flag();
        let flags = session.flags([data_dir, ("daemon.log_level", self.log_level), ("http.address", self.http)]);
        let effective = session.configuration(&flags)?;
        let format = match effective.config.daemon.log_format {
            LogFormat::Auto => logging::Format::Auto,
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        };
        let log_level = logging::init(format, &effective.config.daemon.log_level);
        let log_level = log_level.map_err(|error| CliError::usage(error.to_string()))?;
        effective.notices().iter().for_each(|it| tracing::warn!("{it}"));
        let watched = effective.file().map(Path::to_owned);
        let file = session.global.config.clone();
        let reload: Reload = Arc::new(move || crate::config::load(file.as_deref(), &flags));
        let options = Options { config: effective.config, reload: Some((watched, reload)), log_level: Some(log_level) };
        let signals = Signals::listen()?;
        Daemon::start(options).await?.run(signals).await;
        Ok(())
    }
}
