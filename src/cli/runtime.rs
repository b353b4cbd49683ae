//! The Bun that runs the workers.

use super::config;
use super::error::CliError;
use super::print::facts;
use super::session::Session;
use crate::error::ErrorCode;
use crate::worker::runtime::{self, FoundBun, RuntimeError};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// `levain runtime`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain runtime install --data-dir /var/lib/levain")]
pub(super) struct Runtime {
    #[command(subcommand)]
    action: Action,
    /// The daemon's data directory [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
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
        let flags = config::flags(self.data_dir.as_deref(), None, None, None);
        let effective = config::load(session.config.as_deref(), &flags)?;
        let data_dir = config::data_dir(&effective);
        let found = match self.action {
            Action::Install => {
                let installed = runtime::install(&data_dir, |line| session.out.note(line)).await;
                installed.map_err(failed)?
            }
            Action::Show => runtime::find(config::bun_path(&effective).as_deref(), &data_dir).await.map_err(failed)?,
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
pub(super) async fn find_or_install(
    session: &Session,
    configured: Option<&Path>,
    data_dir: &Path,
) -> Result<FoundBun, CliError> {
    match runtime::find(configured, data_dir).await {
        Err(RuntimeError::NotFound { .. }) => {
            runtime::install(data_dir, |line| session.out.note(line)).await.map_err(failed)
        }
        result => result.map_err(failed),
    }
}

fn failed(error: RuntimeError) -> CliError {
    CliError::Failed { message: error.to_string(), exit_code: ErrorCode::WorkerUnavailable.exit_code() }
}
