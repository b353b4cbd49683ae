//! The Bun that runs the workers.

use super::arguments::DataDir;
use super::error::CliError;
use super::print::facts;
use super::session::Session;
use crate::config::Config;
use crate::worker::runtime::{self, FoundBun, RuntimeError};
use clap::{Args, Subcommand};

/// `levain runtime`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain runtime install --data-dir /var/lib/levain")]
pub(super) struct Runtime {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    data_dir: DataDir,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the Bun that this release is tested with into the data directory
    Install,
    /// Show the Bun that runs the workers and where it was found
    Show,
}

impl Runtime {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let config = session.configuration(&session.flags([self.data_dir.flag()]))?.config;
        let found = match self.action {
            Action::Install => runtime::install(config.data_dir(), |line| session.out.note(line)).await?,
            Action::Show => runtime::find(config.bun_path(), config.data_dir()).await?,
        };
        if session.out.is_json {
            return session.out.json(&serde_json::json!({
                "path": found.path, "version": found.version.to_string(), "origin": found.origin.to_string(),
            }));
        }
        session.out.text(&facts([
            ("version", found.version.to_string()),
            ("path", found.path.display().to_string()),
            ("found by", found.origin.to_string()),
        ]))
    }
}

/// Finds Bun, or installs it if there is none.
pub(super) async fn find_or_install(session: &Session, config: &Config) -> Result<FoundBun, CliError> {
    match runtime::find(config.bun_path(), config.data_dir()).await {
        Err(RuntimeError::NotFound { .. }) => {
            Ok(runtime::install(config.data_dir(), |line| session.out.note(line)).await?)
        }
        found => Ok(found?),
    }
}
