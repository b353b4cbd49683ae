//! The Bun that runs the workers.

use super::config;
use super::error::CliError;
use super::print::facts;
use super::session::Session;
use crate::error::ErrorCode;
use crate::worker::runtime::{self, FoundBun, RuntimeError};
use clap::Subcommand;
use std::path::Path;

/// `levain runtime`.
#[derive(Debug, Subcommand)]
pub(super) enum Runtime {
    /// Install the Bun this version is tested with into the data directory
    Install,
    /// Show which Bun runs the workers, and where it was found
    Show,
}

impl Runtime {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let effective = config::load(session.config.as_deref(), &[])?;
        let data_dir = config::data_dir(&effective);
        let found = match self {
            Self::Install => {
                let installed = runtime::install(&data_dir, |line| session.out.note(line)).await;
                installed.map_err(failed)?
            }
            Self::Show => runtime::find(config::bun_path(&effective).as_deref(), &data_dir).await.map_err(failed)?,
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

/// Finds Bun, and installs it when there is none.
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
